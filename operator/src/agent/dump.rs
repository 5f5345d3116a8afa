//! `pgrail agent dump`: takes the dump and writes its result for `verify`.

use jiff::Timestamp;
use pgrail_dump::{BackupIdentity, DumpRequest, DumpResult, Message, Phase, RowsKey, dump_until};

use super::Places;
use super::config::{AgentConfig, DumpConfig, RESULT_FILE};
use super::outcome::failed;
use super::progress::ProgressLog;
use super::run_name::run_id_prefix;
use super::settings::{SettingsError, config, connection, store};
use crate::signals::stop_requested;

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        Err(error) => failed(Phase::Dump, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let dump = config.dump.as_ref().ok_or(SettingsError::MissingSection("dump"))?;
    let store = store(&config, places).await?;
    let request = request(&config, dump, places, Timestamp::now())?;
    let log = ProgressLog::new();
    let result = match dump_until(&request, &store, &|progress| log.record(progress), stop_requested()).await {
        Ok(result) => result,
        Err(error) => return Ok(Message::Failed(error.failure(&request, &store))),
    };
    write_result(&result, places)?;
    Ok(Message::Dump(result))
}

fn request(
    config: &AgentConfig,
    dump: &DumpConfig,
    places: &Places,
    now: Timestamp,
) -> Result<DumpRequest, SettingsError> {
    let identity = &config.identity;
    let backup_name = dump.name.backup_name(&identity.schedule, &places.job);
    let identity = BackupIdentity {
        cluster_id: identity.cluster_id.clone(),
        namespace: identity.namespace.clone(),
        schedule: identity.schedule.clone(),
        schedule_uid: identity.schedule_uid.clone(),
        database: dump.database.clone(),
        database_uid: dump.database_uid.clone(),
        backup_name,
        timestamp: dump.name.time(&places.job).unwrap_or(now),
        run_id: run_id(&places.pod_uid, now),
    };
    let mut request = DumpRequest::new(connection(&dump.connection, places)?, identity);
    request.addresses = config.policy();
    request.compression = dump.compression;
    request.filter = dump.filter.clone();
    request.globals = dump.globals;
    request.age_recipients.clone_from(&dump.age_recipients);
    request.rows_key = dump.rows_key.clone().map(RowsKey::new);
    request.jobs = dump.jobs;
    request.row_counts = dump.row_counts;
    request.client_directory.clone_from(&places.client_directory);
    Ok(request)
}

/// Distinguishes runs: the beginning of the pod's UID, which is random, and the second, since a container may be started
/// again in the same pod.
fn run_id(pod_uid: &str, now: Timestamp) -> String {
    format!("{}{:x}", run_id_prefix(pod_uid), now.as_second().rem_euclid(0x10_0000))
}

/// `verify` needs all of it; the termination message has no room.
fn write_result(result: &DumpResult, places: &Places) -> Result<(), SettingsError> {
    let file = places.work.join(RESULT_FILE);
    let text = serde_json::to_vec(result).map_err(SettingsError::Result)?;
    std::fs::write(&file, text).map_err(|source| SettingsError::File { file, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_attempts_of_one_run_have_two_locations() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = run_id("0f3a1c2e-77aa-4b1c-8000-000000000000", at("2026-11-23T02:15:00Z"));
        assert!(first.starts_with("0f3a1c2e"));
        assert_ne!(first, run_id("0f3a1c2e-77aa-4b1c-8000-000000000000", at("2026-11-23T02:15:07Z")));
        assert_ne!(first, run_id("1f3a1c2e-77aa-4b1c-8000-000000000000", at("2026-11-23T02:15:00Z")));
        assert!(!run_id("", at("2026-11-23T02:15:00Z")).is_empty());
    }
}
