//! `pgrail agent verify`: reads the dump back and publishes it.

use pgrail_dump::{DumpResult, Message, Phase, RowsKey, VerifyRequest, verify_until};
use pgrail_postgres::ConnectionSettings;

use super::Places;
use super::config::{RESULT_FILE, START_FILE};
use super::outcome::failed;
use super::progress::ProgressLog;
use super::settings::{SettingsError, config, read_to_string, store, store_without_identity};
use crate::signals::stop_requested;

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        Err(error) => failed(Phase::Verify, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let dump = config.dump.as_ref().ok_or(SettingsError::MissingSection("dump"))?;
    let store = match store(&config, places).await {
        // Only the structural drill needs the key, and reports that it has none.
        Err(SettingsError::Identity(error)) => {
            tracing::warn!("the key `identity` of the Secret with the age identity cannot be used: {error}");
            store_without_identity(&config, places).await?
        }
        store => store?,
    };
    let text = read_to_string(&places.work.join(RESULT_FILE))?;
    let result: DumpResult = serde_json::from_str(&text).map_err(SettingsError::Result)?;
    let mut request = VerifyRequest::new(result);
    request.level = dump.verification;
    request.shrink_alarm = dump.shrink_alarm;
    request.rows_key = dump.rows_key.clone().map(RowsKey::new);
    if dump.structure {
        let file = places.drill.join(START_FILE);
        std::fs::write(&file, "").map_err(|source| SettingsError::File { file, source })?;
        request.structure = Some(ConnectionSettings::new(places.drill.display().to_string(), "postgres", "postgres"));
    }
    request.client_directory.clone_from(&places.client_directory);
    let log = ProgressLog::new();
    Ok(match verify_until(&request, &store, &|progress| log.record(progress), stop_requested()).await {
        Ok(result) => Message::Verify(result),
        Err(error) => Message::Failed(error.failure(&store)),
    })
}
