//! What a dump, a verification and a prune leave behind: results, failures, and the message of a container.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Archive, BackupIdentity, Comparison, Compression, Contents, Filter, Head, Inventory, PruneReport, Reason,
    RowCounts, Segment, Source, Structure, TableRows,
    secrets::Redactor,
    text::{error_chain, truncated, without_middle},
};

/// What Kubernetes keeps of a container's termination message, in bytes.
pub const MESSAGE_BYTES: usize = 4096;

/// How much of a failure's message is kept, in bytes: the rest of the JSON must fit too, and escapes grow.
const FAILURE_BYTES: usize = 1800;

/// A dump that is complete in the store but not yet published: without its manifest it does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpResult {
    /// Its directory below the store's prefix.
    pub location: String,
    /// The `DatabaseBackup` it is for.
    pub backup_name: String,
    /// When the run was started.
    pub start_time: Timestamp,
    /// The time of the snapshot by the server's clock. On a standby: of what it had replayed, see `replay_lag_seconds`.
    pub snapshot_time: Timestamp,
    /// When the last byte was in the store.
    pub completion_time: Timestamp,
    /// Its size in the store, in bytes, without `globals.sql`.
    pub size_bytes: u64,
    /// Size of the database on the server's disk, in bytes.
    pub database_bytes: u64,
    /// Tables whose rows it holds.
    pub tables: u64,
    /// Their rows together.
    pub rows: u64,
    /// Large objects.
    pub large_objects: u64,
    /// The server's version, as it calls itself.
    pub server_version: String,
    /// pg_dump's version.
    pub client_version: String,
    /// SHA-256 of the archive as it lies in the store (encrypted if it is), in hexadecimal.
    pub sha256: String,
    /// Whether it was encrypted.
    pub encrypted: bool,
    /// Whether it holds less than the whole database.
    pub partial: bool,
    /// What it lacks.
    #[serde(flatten)]
    pub remarks: Remarks,
    /// What verification and manifest need; not part of a container's message, which has no room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<DumpDetails>>,
}

/// What a dump lacks, and what pg_dump said of it: the same in the result and in the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remarks {
    /// What is missing from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial_because: Vec<PartialCause>,
    /// `schema.table` of tables whose rows a standby cannot read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlogged_tables: Vec<String>,
    /// Lines that a successful pg_dump wrote to its standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// On a standby: how far its replay was behind, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lag_seconds: Option<u64>,
}

/// Why a dump holds less than the whole database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PartialCause {
    /// Only some schemas were dumped, and no large objects.
    Schemas,
    /// Some tables were excluded.
    ExcludeTables,
    /// The rows of some tables were excluded.
    ExcludeTableData,
    /// A standby cannot read the rows of unlogged tables.
    UnloggedTables,
    /// A cause that this version does not know.
    #[serde(other)]
    Unknown,
}

impl PartialCause {
    /// The cause as it is written in a `DatabaseBackup`'s status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schemas => "Schemas",
            Self::ExcludeTables => "ExcludeTables",
            Self::ExcludeTableData => "ExcludeTableData",
            Self::UnloggedTables => "UnloggedTables",
            Self::Unknown => "Unknown",
        }
    }
}

/// Everything about a dump that has no room in a container's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpDetails {
    /// Cluster, schedule and database.
    pub identity: BackupIdentity,
    /// The database's own name on its server.
    pub database_name: String,
    /// Its encoding.
    pub encoding: String,
    /// How it was compressed.
    pub compression: Compression,
    /// What was left out.
    pub filter: Filter,
    /// Where the row counts are from.
    pub row_counts: RowCounts,
    /// The recipients that it was encrypted for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub age_recipients: Vec<String>,
    /// The objects that it consists of.
    pub segments: Vec<Segment>,
    /// Roles and memberships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<Segment>,
    /// Of an encrypted dump, what else its manifest would hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Segment>,
    /// Of an encrypted dump, its row counts for the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Segment>,
    /// Its table of contents in short.
    pub contents: Contents,
    /// Its beginning up to the rows of the first table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// The whole of it before it was encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<Head>,
    /// The archives of a dump that has several, in the order in which they are restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// What a restore must know of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The rows of every table.
    pub table_rows: Vec<TableRows>,
}

impl DumpDetails {
    /// The objects besides the archives.
    pub(crate) fn small_objects(&self) -> impl Iterator<Item = &Segment> {
        self.globals.iter().chain(&self.index).chain(&self.counts)
    }
}

/// How a dump was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VerificationLevel {
    /// The store has no checksum that could be compared: the backup is not verified.
    None,
    /// The SHA-256 that the store computed of the objects is ours.
    Checksum,
    /// Every byte was read from the store again: its SHA-256 is that of what was written, and its rows are those of the snapshot.
    ReadBack,
}

/// A verified and published dump: its manifest is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResult {
    /// The dump, without its details.
    pub backup: DumpResult,
    /// How it was verified.
    pub level: VerificationLevel,
    /// When that was done.
    pub time: Timestamp,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// What the comparison with the backup before found; absent if none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The structural drill, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<Structure>,
    /// The manifest's key below the store's prefix.
    pub manifest: String,
    /// SHA-256 of the manifest, in hexadecimal. A restore uses no other one.
    #[serde(default)]
    pub manifest_sha256: String,
}

/// Which step of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Taking the dump.
    Dump,
    /// Reading it back and publishing it.
    Verify,
    /// Removing old ones.
    Prune,
    /// Comparing the store with what is recorded.
    Inventory,
    /// Restoring one, or rows of it.
    Restore,
    /// Restoring one into a throwaway server.
    Drill,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Which step.
    pub phase: Phase,
    /// The reason.
    pub reason: Reason,
    /// The error with its causes, without secrets.
    pub message: String,
    /// Whether trying again without changing anything can help.
    pub retryable: bool,
}

impl Failure {
    /// An error with its causes: secrets are redacted, a long message loses its middle.
    pub fn new(phase: Phase, reason: Reason, error: &(dyn std::error::Error + 'static), secrets: &[&Redactor]) -> Self {
        let message = secrets.iter().fold(error_chain(error), |message, secrets| secrets.clean(&message));
        Self { phase, reason, message: without_middle(&message, FAILURE_BYTES), retryable: reason.retryable() }
    }
}

/// What was restored, or in a dry run would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResult {
    /// Whether they were restored.
    pub done: bool,
    /// What prevents it: nothing was restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What the result does not cover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// All tables together.
    pub total: RestoredRows,
    /// The database that was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The schema that was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// How many tables.
    pub table_count: u64,
    /// The tables, parents first; as many as there is room for.
    pub tables: Vec<RestoredRows>,
    /// How long it took, in seconds.
    pub seconds: u64,
}

/// Rows of one table that were restored, or in a dry run would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoredRows {
    /// `schema.table`
    pub table: String,
    /// Rows that are to be in the table.
    pub selected: i64,
    /// Rows that were inserted.
    pub inserted: i64,
    /// Rows that exist and are identical.
    pub identical: i64,
    /// Rows that exist and are different.
    pub different: i64,
    /// Links that were restored.
    pub links: i64,
}

impl RestoreResult {
    fn shorten(&mut self) {
        self.tables.truncate(6);
        for texts in [&mut self.problems, &mut self.notes] {
            texts.truncate(4);
            for text in texts.iter_mut() {
                *text = truncated(text, 200);
            }
        }
    }
}

/// What a full drill found: a backup was restored with all of its rows into a throwaway server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillResult {
    /// The result.
    pub outcome: DrillOutcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why it failed or could not run; empty if everything was restored.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The directory of the backup below the store's prefix.
    pub location: String,
    /// Tables whose rows were counted and are those of the manifest.
    pub tables: u64,
    /// Their rows together.
    pub rows: u64,
    /// The queries, in order; none if it did not come to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<DrillQueryResult>,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it ended.
    pub time: Timestamp,
    /// From the first byte read to the last row counted, in seconds: the measured recovery time.
    pub seconds: u64,
    /// Version of the server, and the settings and resources that the time depends on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub server: BTreeMap<String, String>,
}

/// The result of a full drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrillOutcome {
    /// Every row was restored, and every query returned what is expected.
    Restored,
    /// The backup cannot be restored, or is not what is expected.
    Failed,
    /// It could not run: nothing is known.
    #[serde(other)]
    NotRun,
}

/// The result of a query of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillQueryResult {
    /// Its name.
    pub name: String,
    /// Whether it returned what is expected.
    pub passed: bool,
    /// What it returned, or its error.
    pub found: String,
}

impl DrillResult {
    fn shorten(&mut self) {
        // Control characters grow sixfold in JSON, quotes twofold.
        let short = |text: &str, bytes: usize| {
            let text: String = text.chars().filter(|sign| !sign.is_control()).collect();
            without_middle(&text, bytes)
        };
        self.message = short(&self.message, 600);
        self.notes.truncate(3);
        self.notes.iter_mut().for_each(|note| *note = short(note, 80));
        // What failed is reported first.
        self.queries.sort_by_key(|query| query.passed);
        self.queries.truncate(6);
        for query in &mut self.queries {
            (query.name, query.found) = (short(&query.name, 40), short(&query.found, 40));
        }
        let server = std::mem::take(&mut self.server).into_iter().take(8);
        self.server = server.map(|(name, value)| (short(&name, 24), short(&value, 24))).collect();
    }
}

/// What a container of a dump pod leaves behind as its termination message: compact JSON of at most 4,096 bytes.
///
/// ```json
/// {"kind":"dump","location":"…","sizeBytes":1234,…}
/// {"kind":"verify","backup":{…},"level":"ReadBack",…}
/// {"kind":"prune",…}
/// {"kind":"failed","phase":"dump","reason":"StoreFull","message":"…","retryable":false}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
#[allow(clippy::large_enum_variant, reason = "a pod has one")]
pub enum Message {
    /// The dump is complete in the store, and not yet published.
    Dump(DumpResult),
    /// The dump is verified and published.
    Verify(VerifyResult),
    /// Old dumps were removed.
    Prune(PruneReport),
    /// The store was compared with what is recorded.
    Inventory(Inventory),
    /// Rows were restored, or it is known what prevents it.
    Restore(RestoreResult),
    /// A backup was restored into a throwaway server, or it is known why not.
    Drill(DrillResult),
    /// The step failed.
    Failed(Failure),
}

impl Message {
    /// The message as it is written: never more than [`MESSAGE_BYTES`].
    pub fn to_json(&self) -> String {
        let mut message = self.clone();
        match &mut message {
            Self::Dump(result) => result.details = None,
            Self::Verify(result) => result.backup.details = None,
            Self::Prune(_) | Self::Inventory(_) | Self::Restore(_) | Self::Drill(_) | Self::Failed(_) => {}
        }
        let text = json(&message);
        if text.len() <= MESSAGE_BYTES {
            return text;
        }
        if let Self::Verify(VerifyResult { comparison, structure, .. }) = &mut message {
            if let Some(comparison) = comparison {
                comparison.shorten();
            }
            if let Some(structure) = structure {
                structure.message = truncated(&structure.message, 300);
            }
        }
        match &mut message {
            Self::Prune(report) => report.shorten(),
            Self::Restore(result) => result.shorten(),
            Self::Drill(result) => result.shorten(),
            Self::Inventory(inventory) => return shortened(inventory.clone()),
            // Control characters grow sixfold in JSON.
            Self::Failed(failure) => {
                failure.message = failure.message.chars().filter(|c| !c.is_control()).take(500).collect();
            }
            // Every other text in these is bounded.
            Self::Dump(result) | Self::Verify(VerifyResult { backup: result, .. }) => {
                result.server_version = truncated(&result.server_version, 40);
                let remarks = &mut result.remarks;
                remarks.warnings.truncate(3);
                remarks.warnings.iter_mut().for_each(|warning| *warning = truncated(warning, 150));
                remarks.unlogged_tables.truncate(5);
                remarks.unlogged_tables.iter_mut().for_each(|table| *table = truncated(table, 100));
            }
        }
        json(&message)
    }

    /// Reads what [`Message::to_json`] wrote; fields that a newer agent adds are ignored.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// As many of the unrecorded dumps as fit.
fn shortened(mut inventory: Inventory) -> String {
    loop {
        let text = json(&Message::Inventory(inventory.clone()));
        if text.len() <= MESSAGE_BYTES || !inventory.shorten() {
            return text;
        }
    }
}

fn json(message: &Message) -> String {
    // Strings, numbers and lists only: there is nothing that could fail.
    serde_json::to_string(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_fit_whatever_the_tool_printed() {
        for text in ["x".repeat(100_000), "\u{1}".repeat(100_000), "ü\"\\".repeat(50_000)] {
            let error = std::io::Error::other(format!("start {text} end"));
            let failure = Failure::new(Phase::Dump, Reason::DumpFailed, &error, &[]);
            assert!(failure.message.starts_with("start") && failure.message.ends_with("end"));
            let message = Message::Failed(failure).to_json();
            assert!(message.len() <= MESSAGE_BYTES, "{}", message.len());
            assert!(matches!(Message::parse(&message).unwrap(), Message::Failed(failure) if failure.retryable));
        }
    }

    #[test]
    fn the_result_of_a_drill_fits_and_keeps_what_failed() {
        let query =
            |number: u32| DrillQueryResult { name: "\"".repeat(63), passed: number != 31, found: "\u{1}x".repeat(256) };
        let result = DrillResult {
            outcome: DrillOutcome::Failed,
            reason: Some(Reason::QueryFailed),
            message: "m\"\n".repeat(2000),
            location: "l".repeat(300),
            tables: 1,
            rows: u64::MAX,
            queries: (0..32).map(query).collect(),
            notes: vec!["n".repeat(1000); 20],
            time: Timestamp::UNIX_EPOCH,
            seconds: 7,
            server: (0..30).map(|number| (number.to_string(), "v".repeat(100))).collect(),
        };
        let text = Message::Drill(result).to_json();
        assert!(text.len() <= MESSAGE_BYTES, "{}", text.len());
        let Message::Drill(read) = Message::parse(&text).unwrap() else { panic!("{text}") };
        assert!(!read.queries[0].passed && read.outcome == DrillOutcome::Failed);
    }

    #[test]
    fn secrets_do_not_leave() {
        let secrets = Redactor::new(["hunter22"]);
        let error = std::io::Error::other("connection to postgres://me:hunter22@db failed");
        let failure = Failure::new(Phase::Verify, Reason::ConnectionFailed, &error, &[&secrets]);
        assert!(!failure.message.contains("hunter22") && failure.message.contains("***"));
    }

    #[test]
    fn a_result_fits_whatever_pg_dump_warns_of() {
        let time = "2026-11-23T02:15:00Z".parse().unwrap();
        let result = DumpResult {
            location: "c/shop/nightly/x".into(),
            backup_name: "b".into(),
            start_time: time,
            snapshot_time: time,
            completion_time: time,
            size_bytes: 1,
            database_bytes: 1,
            tables: 1,
            rows: 1,
            large_objects: 0,
            server_version: "\"".repeat(500),
            client_version: "18".into(),
            sha256: "a".repeat(64),
            encrypted: false,
            partial: true,
            remarks: Remarks {
                partial_because: vec![PartialCause::Schemas, PartialCause::UnloggedTables],
                unlogged_tables: vec!["\"".repeat(128); 1000],
                warnings: vec!["\"".repeat(400); 20],
                replay_lag_seconds: Some(7),
            },
            details: None,
        };
        let message = Message::Dump(result).to_json();
        assert!(message.len() <= MESSAGE_BYTES, "{}", message.len());
        assert!(matches!(Message::parse(&message).unwrap(), Message::Dump(result) if result.partial));
    }

    #[test]
    fn unknown_reasons_are_read() {
        let text =
            r#"{"kind":"failed","phase":"dump","reason":"FromTheFuture","message":"","retryable":true,"more":1}"#;
        assert!(matches!(Message::parse(text).unwrap(), Message::Failed(failure) if failure.reason == Reason::Unknown));
    }
}
