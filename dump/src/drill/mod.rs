//! The structural drill: pre-data and post-data of a dump are restored, without rows, into a throwaway server. A dump that
//! cannot be restored is not a backup, even if pg_dump and a full decode of the archive succeeded.
//!
//! The server must be of no other use: what is restored runs as its superuser.

mod prepare;
mod sandbox;
mod server;

use std::{collections::BTreeSet, time::Instant};

use jiff::Timestamp;
use pgrail_postgres::ConnectionSettings;
use serde::{Deserialize, Serialize};

use crate::{ClientTools, Entry, Extract, ExtractError, Load, LoadRows, Restorable, Rights, ToolError, restorable};
pub use prepare::DrillServer;
pub use sandbox::{SandboxError, forbid_network};
pub use server::{SUPERUSER, ServerError, Throwaway, ThrowawayRequest};

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
pub struct NotRestorable(pub String);

/// Why a drill did not succeed.
#[derive(Debug)]
pub enum DrillProblem {
    /// The server lacks something, or failed: nothing is known of the dump.
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
        Err(DrillProblem::NotRun(message)) => (StructureOutcome::NotRun, message),
        Err(DrillProblem::Failed(error)) => return Err(error),
    };
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Structure { outcome, message, time: clock(), milliseconds })
}

async fn run(extract: &Extract, tools: &ClientTools, server: &ConnectionSettings) -> Result<(), DrillProblem> {
    let manifest = extract.manifest();
    let entries = extract.entries().await.map_err(|error| DrillProblem::NotRun(error.to_string()))?;
    let server = DrillServer::open(server, manifest, &entries).await?;
    let locale = server.create_database(DATABASE, None, manifest, &entries).await?;
    let mut restorable = restorable(&entries, &Rights { superuser: true, owner: None });
    leave_out_refreshes(&entries, &mut restorable);
    let load = Load {
        connection: server.connection.with_database(DATABASE),
        reached: server.session.reached(),
        server_major: server.major,
        entries: restorable.entries,
        role: None,
        owners: true,
        tablespaces: false,
        rows: LoadRows::None,
    };
    let loaded = extract.load(tools, &load, &|_| {}).await;
    server.drop_database(DATABASE).await;
    loaded.map_err(|error| evaluate(error, locale))
}

/// A materialized view could read foreign tables, from servers that a drill must not reach.
pub fn leave_out_refreshes(entries: &[Entry], restorable: &mut Restorable) {
    if !entries.iter().any(|entry| entry.kind == "FOREIGN TABLE") {
        return;
    }
    let refreshes: BTreeSet<u32> =
        entries.iter().filter(|it| it.kind == "MATERIALIZED VIEW DATA").map(|it| it.number).collect();
    restorable.entries.retain(|number| !refreshes.contains(number));
}

/// Whether the archive is to blame, or the server.
pub fn evaluate(error: ExtractError, locale: bool) -> DrillProblem {
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
        return DrillProblem::NotRun(error.to_string());
    };
    let has = |texts: &[&str]| texts.iter().any(|text| last_lines.contains(text));
    let collation = last_lines.contains("collation \"") && last_lines.contains("\" for encoding \"");
    if has(&LACKING) || collation || (!locale && has(&OF_LOCALE)) || error.reason() == crate::Reason::ConnectionFailed {
        return DrillProblem::NotRun(format!("the drill's server lacks what the dump needs: {last_lines}"));
    }
    DrillProblem::Failed(NotRestorable(last_lines.clone()))
}
