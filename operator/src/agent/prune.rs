//! `pgrail agent prune`: removes dumps that retention does not keep, and leftovers of failed runs.

use std::time::Duration;

use jiff::Timestamp;
use pgrail_dump::{Failure, Message, Phase, PruneRequest, Reason, prune};

use super::Places;
use super::outcome::failed;
use super::settings::{SettingsError, config, store};
use crate::signals::stop_requested;

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        Err(error) => failed(Phase::Prune, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let wanted = config.prune.as_ref().ok_or(SettingsError::MissingSection("prune"))?;
    let store = store(&config, places).await?;
    let mut request = PruneRequest::new(config.identity.clone(), wanted.locations.clone(), Timestamp::now());
    request.running.clone_from(&wanted.running);
    if let Some(seconds) = wanted.grace_seconds {
        request.grace = Duration::from_secs(seconds);
    }
    // An interrupted removal is completed by the next sweep: nothing has to be cleaned up here.
    let pruned = tokio::select! {
        pruned = prune(&store, &request) => pruned,
        () = stop_requested() => {
            let (reason, message) = (Reason::Interrupted, "the removal was interrupted".to_owned());
            return Ok(Message::Failed(Failure { phase: Phase::Prune, reason, message, retryable: true }));
        }
    };
    Ok(match pruned {
        Ok(report) => Message::Prune(report),
        Err(error) => Message::Failed(error.failure(&store)),
    })
}
