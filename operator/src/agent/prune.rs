//! `pgrail agent prune`: removes what retention let go, and what failed runs left.

use jiff::Timestamp;
use pgrail_dump::{Failure, Message, Phase, PruneRequest, Reason, prune};

use super::Places;
use super::outcome::{told_to_stop, unfit};
use super::settings::{SettingsError, config, store};

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        Err(error) => unfit(Phase::Prune, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let wanted = config.prune.as_ref().ok_or(SettingsError::NoPart("prune"))?;
    let store = store(&config.store, places)?;
    let request = PruneRequest::new(config.identity.clone(), wanted.locations.clone(), Timestamp::now());
    // Every removal is whole or swept later: nothing has to be taken back.
    let pruned = tokio::select! {
        pruned = prune(&store, &request) => pruned,
        () = told_to_stop() => {
            let (reason, message) = (Reason::Interrupted, "the removal was told to stop".to_owned());
            return Ok(Message::Failed(Failure { phase: Phase::Prune, reason, message, retryable: true }));
        }
    };
    Ok(match pruned {
        Ok(report) => Message::Prune(report),
        Err(error) => Message::Failed(error.failure(&store)),
    })
}
