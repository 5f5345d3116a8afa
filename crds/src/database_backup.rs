//! `DatabaseBackup`.

use crate::backup_schedule::{Dump, Storage};
use crate::common::{DeletionPolicy, LocalReference, retain};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A dump that was created by a schedule, created by a user, or discovered in the store. Creating an object starts a
/// backup.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "DatabaseBackup",
    namespaced,
    shortname = "dbbackup",
    category = "pgrail",
    status = "DatabaseBackupStatus",
    derive = "PartialEq",
    doc = "A dump that was created by a schedule, created by a user, or discovered in the store. Creating an object starts a backup.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.verification.level"),
    printcolumn(name = "Partial", type_ = "boolean", json_path = ".status.partial"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(
        name = "Size",
        type_ = "integer",
        description = "size in the store, in bytes",
        json_path = ".status.sizeBytes"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = "1",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Warning",
        type_ = "string",
        priority = "1",
        description = "first warning of pg_dump",
        json_path = ".status.warnings[0]"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.scheduleRef) != has(self.databaseRef)").message("set either scheduleRef, or databaseRef with storage"),
    validation = Rule::new("has(self.databaseRef) == has(self.storage)").message("databaseRef requires storage, and storage requires databaseRef; with scheduleRef, the storage of the schedule is used"),
    validation = Rule::new("!has(self.dump) || has(self.databaseRef)").message("dump requires databaseRef; with scheduleRef, the settings of the schedule are used"),
    validation = Rule::new("has(self.scheduleRef) == has(oldSelf.scheduleRef) && (!has(self.scheduleRef) || self.scheduleRef == oldSelf.scheduleRef)").message("scheduleRef cannot be changed"),
    validation = Rule::new("has(self.databaseRef) == has(oldSelf.databaseRef) && (!has(self.databaseRef) || self.databaseRef == oldSelf.databaseRef)").message("databaseRef cannot be changed"),
    validation = Rule::new("has(self.storage) == has(oldSelf.storage) && (!has(self.storage) || self.storage == oldSelf.storage)").message("storage cannot be changed")
)]
pub struct DatabaseBackupSpec {
    /// Uses the settings of this `BackupSchedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_ref: Option<LocalReference>,
    /// The `ProtectedDatabase`, if `scheduleRef` is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_ref: Option<LocalReference>,
    /// Where the dump is stored, if `scheduleRef` is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What is dumped, and in which format, if `scheduleRef` is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<Dump>,
    /// The retention does not delete a pinned backup.
    #[serde(default)]
    pub pinned: bool,
    /// `Delete`: the dump is deleted with the object. `Retain`: it remains.
    #[serde(default = "retain")]
    pub deletion_policy: DeletionPolicy,
}

impl DatabaseBackupSpec {
    /// A backup with the settings of a `BackupSchedule`, whose retention decides how long it is kept.
    pub fn of_schedule(name: impl Into<String>) -> Self {
        Self {
            schedule_ref: Some(LocalReference { name: name.into() }),
            database_ref: None,
            storage: None,
            dump: None,
            pinned: false,
            deletion_policy: retain(),
        }
    }
}

/// Observed state of a `DatabaseBackup`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseBackupStatus {
    /// Phase of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// URL of the directory of the dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Time of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Completion time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Size of the dump in the store, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Size of the database, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<i64>,
    /// Number of tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<i64>,
    /// Number of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Version of the PostgreSQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Version of `pg_dump`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// SHA-256 hash of the archive in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// SHA-256 hash of the manifest in the store. A restore uses no other manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// How the backup was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<BackupVerification>,
    /// Whether the dump is encrypted. A restore needs a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// `true` for a dump that does not contain the whole database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
    /// Why it is partial: `Schemas`, `ExcludeTables`, `ExcludeTableData`, or `UnloggedTables` with tables whose rows a standby
    /// cannot read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub partial_because: Vec<String>,
    /// Warnings of a successful `pg_dump`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 1024)))]
    pub warnings: Vec<String>,
    /// Replay lag of the standby that was dumped. `startTime` is the time that it had replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lag_seconds: Option<i64>,
    /// UID of the `BackupSchedule` that the dump was made for.
    #[serde(default, rename = "scheduleUID", skip_serializing_if = "Option::is_none")]
    pub schedule_uid: Option<String>,
    /// UID of the `ProtectedDatabase` that was dumped.
    #[serde(default, rename = "databaseUID", skip_serializing_if = "Option::is_none")]
    pub database_uid: Option<String>,
    /// Comparison of the rows of guarded tables with the backup before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<BackupComparison>,
    /// Reasons why the retention keeps the backup.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub kept_because: Vec<String>,
    /// Error message, with the last lines of the output of the tool.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Shrunk` if guarded tables have far fewer rows than in the backup before, and `Stalled` while a change by the
    /// user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Comparison of the rows of guarded tables with the backup before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupComparison {
    /// The backup before. Absent: nothing was compared.
    #[serde(default, rename = "with", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub with: Option<String>,
    /// Why nothing was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub not_compared_because: Option<String>,
    /// Number of guarded tables that lost as many rows as `shrinkAlarm` declares, or that do not exist any more.
    #[serde(default)]
    pub shrunk_tables: i64,
    /// Those that lost most, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub tables: Vec<ShrunkTable>,
}

/// A guarded table that lost rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShrunkTable {
    /// `schema.table`
    #[schemars(length(max = 257))]
    pub table: String,
    /// Its rows in the backup before.
    pub before: i64,
    /// Its rows in this backup.
    pub after: i64,
    /// Whether it does not exist any more.
    #[serde(default)]
    pub dropped: bool,
}

/// Phases of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// The pod has not started.
    Pending,
    /// The dump is running.
    Running,
    /// The dump is being read back.
    Verifying,
    /// The backup was verified.
    Succeeded,
    /// The backup failed.
    Failed,
    /// The backup was found in the store. It is read-only until it is adopted.
    Discovered,
}

/// How a backup was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupVerification {
    /// Highest level of verification.
    pub level: VerificationLevel,
    /// Time of the verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Result of the structural drill. Absent if the schedule declares none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<StructuralDrill>,
}

/// Result of a structural drill: everything except the rows was restored into a temporary PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StructuralDrill {
    /// The result. A backup that cannot be restored is `Failed` and has none.
    pub outcome: StructureOutcome,
    /// Why it did not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Results of a structural drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StructureOutcome {
    /// Everything except the rows was restored.
    Restored,
    /// The drill could not run, for example because an extension is missing in the image.
    NotRun,
}

/// Levels of verification, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum VerificationLevel {
    /// Not verified.
    None,
    /// The checksum of the store was compared.
    Checksum,
    /// Every byte was read back from the store.
    ReadBack,
    /// All rows were restored in a drill.
    Drill,
}
