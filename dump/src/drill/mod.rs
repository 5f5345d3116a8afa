//! The structural drill: pre-data and post-data of a dump are restored, without rows, into a throwaway server. A dump that
//! cannot be restored is not a backup, even if pg_dump and a full decode of the archive succeeded.
//!
//! The server must be of no other use: what is restored runs as its superuser.

mod server;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use pgrail_postgres::{ConnectError, Connection, ConnectionSettings, connect};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{
    ClientTools, Entry, Extract, ExtractError, Load, LoadRows, Rights, Source, ToolError, create_database, restorable,
};
pub use server::{ServerError, Throwaway, ThrowawayRequest};

/// How long the server may take to start.
const START: Duration = Duration::from_mins(2);
const RETRY: Duration = Duration::from_millis(200);
/// The database that is restored into.
const DATABASE: &str = "pgrail_drill";

/// What the structural drill found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Structure {
    /// The result.
    pub outcome: StructureOutcome,
    /// Why it could not run; empty if it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When.
    pub time: Timestamp,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// The result of a structural drill that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StructureOutcome {
    /// Everything but the rows was restored.
    Restored,
    /// It could not run: nothing is known.
    NotRun,
    /// A result that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The dump cannot be restored.
#[derive(Debug, thiserror::Error)]
#[error("the dump cannot be restored: {0}")]
pub struct NotRestorable(String);

enum Problem {
    /// The server lacks something, or failed.
    NotRun(String),
    /// The archive cannot be restored.
    Failed(NotRestorable),
}

/// Restores the definitions of an archive.
pub(crate) async fn structure(
    extract: &Extract,
    tools: &ClientTools,
    server: &ConnectionSettings,
    clock: fn() -> Timestamp,
) -> Result<Structure, NotRestorable> {
    let started = Instant::now();
    let (outcome, message) = match run(extract, tools, server).await {
        Ok(()) => (StructureOutcome::Restored, String::new()),
        Err(Problem::NotRun(message)) => (StructureOutcome::NotRun, message),
        Err(Problem::Failed(error)) => return Err(error),
    };
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Structure { outcome, message, time: clock(), milliseconds })
}

async fn run(extract: &Extract, tools: &ClientTools, server: &ConnectionSettings) -> Result<(), Problem> {
    let not_run = |message: String| Err(Problem::NotRun(message));
    let manifest = extract.manifest();
    let Some(source) = &manifest.source else { return not_run("the dump does not describe its database".into()) };
    let entries = match extract.entries() {
        Ok(entries) => entries,
        Err(error) => return not_run(error.to_string()),
    };
    let session = started(server).await?;
    let (major, lacking) = check(&session, source, &entries).await.map_err(of_server)?;
    let made_on: u32 = manifest.server_version.split(['.', ' ']).next().unwrap_or_default().parse().unwrap_or_default();
    if made_on > major {
        return not_run(format!("the drill has PostgreSQL {major}, and the dump is of {made_on}"));
    }
    if !lacking.is_empty() {
        return not_run(format!("the drill's server lacks extensions of the database: {}", lacking.join(", ")));
    }
    let locale = prepare(&session, &manifest.encoding, source, &entries, major).await?;
    let mut restorable = restorable(&entries, &Rights { superuser: true, owner: None });
    if entries.iter().any(|entry| entry.kind == "FOREIGN TABLE") {
        // A materialized view could read them, from servers that a drill must not reach.
        let refreshed = |number: &u32| {
            entries.iter().any(|entry| entry.number == *number && entry.kind == "MATERIALIZED VIEW DATA")
        };
        restorable.entries.retain(|number| !refreshed(number));
    }
    let load = Load {
        connection: server.with_database(DATABASE),
        reached: session.reached(),
        server_major: major,
        entries: restorable.entries,
        role: None,
        owners: true,
        tablespaces: false,
        rows: LoadRows::None,
    };
    let loaded = extract.load(tools, &load, &|_| {}).await;
    // The server ends soon in any case.
    let _ = session.batch_execute(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")).await;
    loaded.map_err(|error| judge(error, locale))
}

/// The server may still be starting.
async fn started(server: &ConnectionSettings) -> Result<Connection, Problem> {
    let deadline = Instant::now() + START;
    loop {
        match connect(server).await {
            Ok(session) => return Ok(session),
            Err(ConnectError::Refused(_) | ConnectError::NotReady) if Instant::now() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(Problem::NotRun(format!("the drill's server does not answer: {error}"))),
        }
    }
}

/// The major version, and the extensions that are lacking.
async fn check(
    session: &Client,
    source: &Source,
    entries: &[Entry],
) -> Result<(u32, Vec<String>), tokio_postgres::Error> {
    let dumped = |name: &str| entries.iter().any(|entry| entry.kind == "EXTENSION" && entry.name == name);
    let wanted: Vec<&str> = source.extensions.iter().map(|it| it.name.as_str()).filter(|name| dumped(name)).collect();
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int / 10000, \
         ARRAY(SELECT w.name FROM pg_catalog.unnest($1::text[]) w(name) WHERE NOT EXISTS \
             (SELECT FROM pg_catalog.pg_available_extensions e WHERE e.name::text = w.name))";
    let row = session.query_one(sql, &[&wanted]).await?;
    let lacking: Vec<String> = row.try_get(1)?;
    // It is left out of every restore.
    let lacking = lacking.into_iter().filter(|name| name != "pg_cron").collect();
    Ok((u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default(), lacking))
}

/// Creates roles and the database. Returns whether it has the locale of the source.
async fn prepare(
    session: &Client,
    encoding: &str,
    source: &Source,
    entries: &[Entry],
    major: u32,
) -> Result<bool, Problem> {
    let drop = format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)");
    session.batch_execute(&drop).await.map_err(of_server)?;
    let owners = entries.iter().map(|entry| entry.owner.as_str()).filter(|owner| !owner.is_empty());
    // What initdb created exists, too. A role that the archive names and the source does not have is not created.
    let roles: Vec<&str> = source.roles.iter().map(String::as_str).chain(owners).collect();
    let sql = "SELECT DISTINCT pg_catalog.format('CREATE ROLE %I', w.name) FROM pg_catalog.unnest($1::text[]) w(name) \
         WHERE w.name !~ '^pg_' AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname::text = w.name)";
    for row in session.query(sql, &[&roles]).await.map_err(of_server)? {
        session.batch_execute(row.get(0)).await.map_err(of_server)?;
    }
    let login = session.query_one("SELECT current_user::text", &[]).await.map_err(of_server)?;
    let owner: &str = login.get(0);
    let plain = Source { collate: "C".into(), ctype: "C".into(), locale_provider: "libc".into(), ..Source::default() };
    for (of, exact) in [(source, true), (&plain, false)] {
        let Ok(statement) = create_database::statement(session, DATABASE, owner, encoding, of, major).await else {
            continue;
        };
        if session.batch_execute(&statement).await.is_ok() {
            return Ok(exact);
        }
    }
    Err(Problem::NotRun(format!("the drill's server cannot create a database with the encoding {encoding}")))
}

fn of_server(error: impl std::error::Error + 'static) -> Problem {
    Problem::NotRun(format!("the drill's server failed: {}", crate::error_chain(&error)))
}

/// Whether the archive is to blame, or the server.
fn judge(error: ExtractError, locale: bool) -> Problem {
    const LACKING: [&str; 7] = [
        "could not open extension control file",
        "could not access file",
        "could not load library",
        "could not open dictionary file",
        "No space left on device",
        "out of memory",
        "terminating connection",
    ];
    /// What depends on the order of the locale.
    const OF_LOCALE: [&str; 2] = ["empty range bound", "would overlap partition"];
    let ExtractError::Load(ToolError::Failed { last_lines, .. }) = &error else {
        return Problem::NotRun(error.to_string());
    };
    let has = |texts: &[&str]| texts.iter().any(|text| last_lines.contains(text));
    let collation = last_lines.contains("collation \"") && last_lines.contains("\" for encoding \"");
    if has(&LACKING) || collation || (!locale && has(&OF_LOCALE)) || error.reason() == crate::Reason::ConnectionFailed {
        return Problem::NotRun(format!("the drill's server lacks what the dump needs: {last_lines}"));
    }
    Problem::Failed(NotRestorable(last_lines.clone()))
}
