//! `pgrail agent drill`: restores a backup into the temporary PostgreSQL, counts its rows and runs the queries.

use jiff::Timestamp;
use pgrail_dump::{DrillOutcome, DrillResult, Failure, Message, Phase, SUPERUSER, Store};
use pgrail_postgres::ConnectionSettings;
use pgrail_restore::{DrillQuery, DrillRequest, Expectation, ExpectationError, drill};

use super::Places;
use super::config::{DrillConfig, DrillQueryConfig, PROBLEM_FILE, START_FILE};
use super::outcome::failed;
use super::progress::Throttle;
use super::restore::log;
use super::settings::{SettingsError, config, store};
use crate::signals::stop_requested;

/// How much of the problem of the temporary server is reported, in characters.
const PROBLEM: usize = 500;

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        // Nothing is known of the backup: the Secret of the user cannot be used.
        Err(error @ SettingsError::Identity(_)) => Message::Drill(not_run(places, pgrail_dump::error_chain(&error))),
        Err(error) => failed(Phase::Drill, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let wanted = config.drill.as_ref().ok_or(SettingsError::MissingSection("drill"))?;
    let store = store(&config, places).await?;
    let request = match request(wanted, places) {
        Ok(request) => request,
        Err(error) => return Ok(Message::Drill(not_run(places, error.to_string()))),
    };
    let file = places.drill.join(START_FILE);
    std::fs::write(&file, "").map_err(|source| SettingsError::File { file, source })?;
    Ok(restore(&request, &store, places).await)
}

async fn restore(request: &DrillRequest, store: &Store, places: &Places) -> Message {
    let throttle = Throttle::new();
    match drill(request, store, &|progress| log(&throttle, progress), stop_requested()).await {
        Ok(mut result) => {
            if let (DrillOutcome::NotRun, Some(problem)) = (result.outcome, problem(places)) {
                result.message = format!("{}; the server reports: {problem}", result.message);
            }
            Message::Drill(result)
        }
        Err(error) => Message::Failed(Failure::new(Phase::Drill, error.reason(), &error, &[store.secrets()])),
    }
}

/// Why the temporary server does not run, if it reported that.
fn problem(places: &Places) -> Option<String> {
    let text = std::fs::read_to_string(places.drill.join(PROBLEM_FILE)).ok()?;
    let text: String = text.trim().replace('\n', " | ").chars().take(PROBLEM).collect();
    (!text.is_empty()).then_some(text)
}

fn request(wanted: &DrillConfig, places: &Places) -> Result<DrillRequest, ExpectationError> {
    let query = |query: &DrillQueryConfig| {
        let expect = Expectation::parse(&query.expect)?;
        Ok::<_, ExpectationError>(DrillQuery { name: query.name.clone(), sql: query.sql.clone(), expect })
    };
    Ok(DrillRequest {
        location: wanted.location.clone(),
        manifest_sha256: wanted.manifest_sha256.clone(),
        server: ConnectionSettings::new(places.drill.display().to_string(), "postgres", SUPERUSER),
        queries: wanted.queries.iter().map(query).collect::<Result<_, _>>()?,
        client_directory: places.client_directory.clone(),
        clock: Timestamp::now,
    })
}

fn not_run(places: &Places, message: String) -> DrillResult {
    let location = config(places).ok().and_then(|config| Some(config.drill?.location)).unwrap_or_default();
    DrillResult {
        outcome: DrillOutcome::NotRun,
        reason: None,
        message,
        location,
        tables: 0,
        rows: 0,
        queries: Vec::new(),
        notes: Vec::new(),
        time: Timestamp::now(),
        seconds: 0,
        server: std::collections::BTreeMap::new(),
    }
}
