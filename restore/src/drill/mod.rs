//! The full drill: a backup is restored with all of its rows into a throwaway server, its rows are counted, and the user's queries
//! are run. The time that it took is the measured recovery time.
//!
//! The server must be of no other use, and end with the drill. What is in the backup runs there as a role that is no superuser,
//! has no password of anything, and owns the database: a user who made the backup, or can write to the bucket, can do no more than
//! that role. The superuser runs statements of pgrail only, with the names of the backup's roles and extensions. Subscriptions,
//! event triggers and jobs of `pg_cron` are not restored, materialized views over foreign tables are not refreshed, and triggers
//! exist only after the last row.

mod expectation;
mod extensions;
mod plan;
mod queries;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use pgrail_dump::{
    ClientTools, DrillOutcome, DrillProblem, DrillQueryResult, DrillResult, DrillServer, Entry, Extract, ExtractError,
    Load, LoadRows, Manifest, ManifestError, Reason, Store, ToolError, error_chain, evaluate,
};
use pgrail_postgres::{Connection, ConnectionSettings, connect};

use crate::database;
use crate::outcome::RestoreError;
use crate::request::RestoreProgress;
pub use expectation::{Expectation, ExpectationError};
use plan::{Plan, named};

/// The database that is restored into, and its owner.
const NAME: &str = "pgrail_drill";
/// Settings that the time of a restore depends on.
const SETTINGS: [&str; 6] =
    ["fsync", "full_page_writes", "maintenance_work_mem", "max_wal_size", "shared_buffers", "wal_level"];
/// What a role that is no superuser lacks.
const RIGHTS: [&str; 4] = ["permission denied", "must be superuser", "must be owner", "must be able to SET ROLE"];

/// A backup, and the server that it is restored into.
#[derive(Debug, Clone)]
pub struct DrillRequest {
    /// The directory of the backup below the store's prefix.
    pub location: String,
    /// SHA-256 of its manifest: no other one is used.
    pub manifest_sha256: String,
    /// The throwaway server, as its superuser. It may still be starting.
    pub server: ConnectionSettings,
    /// What must be true of the restored database.
    pub queries: Vec<DrillQuery>,
    /// The directory of `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

/// A query, and what it must return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillQuery {
    /// Its name in the result.
    pub name: String,
    /// One statement that returns one value.
    pub sql: String,
    /// What it must return.
    pub expect: Expectation,
}

/// Why a drill has no result. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The store failed.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The client programs cannot be used.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// It was stopped.
    #[error("the drill was interrupted")]
    Interrupted,
}

impl DrillError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Extract(error) => error.reason(),
            Self::Tool(error) => error.reason(Reason::ClientMissing),
            Self::Interrupted => Reason::Interrupted,
        }
    }
}

/// How a drill ends before it is complete.
enum Stop {
    NotRun(String),
    Failed(Reason, String),
    Error(DrillError),
}

impl From<DrillProblem> for Stop {
    fn from(problem: DrillProblem) -> Self {
        match problem {
            DrillProblem::NotRun(message) => Self::NotRun(message),
            DrillProblem::Failed(error) => Self::Failed(Reason::NotRestorable, error.to_string()),
        }
    }
}

impl From<ExtractError> for Stop {
    fn from(error: ExtractError) -> Self {
        match error.reason() {
            reason @ (Reason::ChecksumMismatch
            | Reason::ObjectMissing
            | Reason::ArchiveInvalid
            | Reason::RowCountMismatch) => Self::Failed(reason, error_chain(&error)),
            Reason::IdentityRequired | Reason::InvalidRequest => Self::NotRun(error_chain(&error)),
            _ => Self::Error(error.into()),
        }
    }
}

impl From<ManifestError> for Stop {
    fn from(error: ManifestError) -> Self {
        ExtractError::from(error).into()
    }
}

impl From<ToolError> for Stop {
    fn from(error: ToolError) -> Self {
        Self::Error(error.into())
    }
}

/// What is known so far.
#[derive(Default)]
struct Progressed {
    tables: u64,
    rows: u64,
    seconds: u64,
    queries: Vec<DrillQueryResult>,
    notes: Vec<String>,
    server: BTreeMap<String, String>,
}

/// Restores a backup into a throwaway server. It is aborted when `stop` is ready.
pub async fn drill(
    request: &DrillRequest,
    store: &Store,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<DrillResult, DrillError> {
    let mut found = Progressed::default();
    let ended = tokio::select! {
        ended = run(request, store, &mut found, progress) => ended,
        () = stop => return Err(DrillError::Interrupted),
    };
    let (outcome, reason, message) = match ended {
        Ok(()) => (DrillOutcome::Restored, None, String::new()),
        Err(Stop::NotRun(message)) => (DrillOutcome::NotRun, None, message),
        Err(Stop::Failed(reason, message)) => (DrillOutcome::Failed, Some(reason), message),
        Err(Stop::Error(error)) => return Err(error),
    };
    let Progressed { tables, rows, seconds, queries, notes, server } = found;
    let (location, time) = (request.location.clone(), (request.clock)());
    Ok(DrillResult { outcome, reason, message, location, tables, rows, queries, notes, time, seconds, server })
}

async fn run(
    request: &DrillRequest,
    store: &Store,
    found: &mut Progressed,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<(), Stop> {
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    let manifest = Manifest::read_published(store, &request.location, &request.manifest_sha256).await?;
    let extract = Extract::open(store, manifest).await?;
    let (manifest, entries) = (extract.manifest(), extract.entries().await?);
    let server = DrillServer::open(&request.server, manifest, &entries).await?;
    found.server = settings(&server.session).await.map_err(|error| of_server(&error))?;
    // The server was waited for; the rest is what a recovery takes.
    let started = Instant::now();
    let restored = restore(&extract, &entries, &server, &tools, found, progress).await;
    found.seconds = started.elapsed().as_secs().max(1);
    let checked = match restored {
        Ok(()) => check(&server, &request.queries, found).await,
        Err(stop) => Err(stop),
    };
    server.drop_database(NAME).await;
    checked
}

async fn restore(
    extract: &Extract,
    entries: &[Entry],
    server: &DrillServer,
    tools: &ClientTools,
    found: &mut Progressed,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<(), Stop> {
    let manifest = extract.manifest();
    create_role(server).await.map_err(|error| of_server(&error))?;
    let locale = server.create_database(NAME, Some(NAME), manifest, entries).await?;
    if !locale {
        found.notes.push("the server has no such locale: the database has the locale C".to_owned());
    }
    let as_superuser = connect(&server.connection.with_database(NAME)).await.map_err(|error| of_server(&error))?;
    let source = manifest.source.clone().unwrap_or_default();
    let schemas = extensions::create(&as_superuser, &source, entries, NAME).await?;
    drop(as_superuser);
    let Plan { entries, left_out, lacking, notes } = plan::plan(entries, NAME, &schemas);
    found.notes.extend(notes);
    if !lacking.is_empty() {
        let message = "tables need what only a superuser can create, and drills restore without superuser";
        return Err(Stop::NotRun(format!("{message}: {}", named(&lacking))));
    }
    let connection = as_role(server);
    let session = connect(&connection).await.map_err(|error| of_server(&error))?;
    let load = Load {
        connection,
        reached: session.reached(),
        server_major: server.major,
        entries,
        role: None,
        owners: false,
        tablespaces: false,
        rows: LoadRows::All,
    };
    let of = manifest.archive().length;
    let loaded = extract.load(tools, &load, &|bytes| progress(RestoreProgress::Loading { bytes, of })).await;
    loaded.map_err(|error| of_load(error, locale))?;
    let counted = database::compare_all(&session, manifest, &left_out, progress).await.map_err(of_count)?;
    found.tables = counted.len() as u64;
    found.rows = counted.iter().map(|table| table.rows).sum();
    found.notes.extend(database::analyze(&session).await.map_err(of_count)?);
    let notes = database::apply_settings(&session, NAME, manifest).await.map_err(of_count)?;
    found.notes.extend(notes);
    Ok(())
}

/// The user's queries, in a session with the settings of the restored database.
async fn check(server: &DrillServer, wanted: &[DrillQuery], found: &mut Progressed) -> Result<(), Stop> {
    let session = connect(&as_role(server)).await.map_err(|error| of_server(&error))?;
    found.queries = queries::run(&session, wanted).await.map_err(|error| of_server(&error))?;
    let failures = queries::failures(wanted, &found.queries);
    if failures.is_empty() { Ok(()) } else { Err(Stop::Failed(Reason::QueryFailed, failures)) }
}

fn as_role(server: &DrillServer) -> ConnectionSettings {
    ConnectionSettings { user: NAME.to_owned(), ..server.connection.with_database(NAME) }
}

/// The role that the backup is restored as. An earlier drill may have left it. It has the password of the superuser, if the server
/// asks for one: code of the backup cannot read either.
async fn create_role(server: &DrillServer) -> Result<(), RestoreError> {
    let session = &server.session;
    // Each on its own: a database cannot be dropped in a transaction.
    for statement in [
        format!("DROP DATABASE IF EXISTS {NAME} WITH (FORCE)"),
        format!("DROP ROLE IF EXISTS {NAME}"),
        format!("CREATE ROLE {NAME} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"),
    ] {
        session.batch_execute(&statement).await.map_err(RestoreError::of_database)?;
    }
    let Some(password) = &server.connection.password else { return Ok(()) };
    let texts = [&NAME.to_owned(), &password.reveal().to_owned()];
    database::run(session, "ALTER ROLE %I PASSWORD %L", &texts).await
}

async fn settings(session: &Connection) -> Result<BTreeMap<String, String>, tokio_postgres::Error> {
    let sql = "SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.unnest($1::text[]) name \
         UNION ALL SELECT 'version', pg_catalog.split_part(pg_catalog.current_setting('server_version'), ' ', 1)";
    let rows = session.query(sql, &[&SETTINGS.to_vec()]).await?;
    let mut settings: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    if let Ok(cpus) = std::thread::available_parallelism() {
        settings.insert("cpus".to_owned(), cpus.to_string());
    }
    Ok(settings)
}

fn of_server(error: &(dyn std::error::Error + 'static)) -> Stop {
    Stop::NotRun(format!("the drill's server failed: {}", error_chain(error)))
}

/// A restore that failed: because of the backup, of the server, or of the role that it runs as.
fn of_load(error: ExtractError, locale: bool) -> Stop {
    let ExtractError::Load(ToolError::Failed { last_lines, .. }) = &error else {
        return if matches!(error, ExtractError::Load(_)) { evaluate(error, locale).into() } else { error.into() };
    };
    if RIGHTS.iter().any(|text| last_lines.contains(text)) {
        return Stop::NotRun(format!("the backup cannot be restored without superuser: {last_lines}"));
    }
    evaluate(error, locale).into()
}

fn of_count(error: RestoreError) -> Stop {
    match error {
        RestoreError::RowCount(differences) => Stop::Failed(Reason::RowCountMismatch, differences),
        error => of_server(&error),
    }
}
