//! `pgrail agent inventory`: compares the store with the dumps that are recorded.

use pgrail_dump::{Failure, InventoryRequest, Message, Phase, Reason, inventory};

use super::Places;
use super::config::InventoryConfig;
use super::outcome::failed;
use super::settings::{SettingsError, config, store};
use crate::signals::stop_requested;

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        Err(error) => failed(Phase::Inventory, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let store = store(&config, places).await?;
    let wanted = config.inventory.ok_or(SettingsError::MissingSection("inventory"))?;
    let InventoryConfig { known, lost, find_clusters } = wanted;
    let request = InventoryRequest { ours: config.identity, known, lost, find_clusters };
    let counted = tokio::select! {
        counted = inventory(&store, &request) => counted,
        () = stop_requested() => {
            let (reason, message) = (Reason::Interrupted, "the inventory was interrupted".to_owned());
            return Ok(Message::Failed(Failure { phase: Phase::Inventory, reason, message, retryable: true }));
        }
    };
    Ok(match counted {
        Ok(inventory) => Message::Inventory(inventory),
        Err(error) => Message::Failed(error.failure(&store)),
    })
}
