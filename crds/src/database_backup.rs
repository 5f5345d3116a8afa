//! `DatabaseBackup`: one dump: made by a schedule, by hand, or discovered in the store.

use crate::backup_schedule::{Dump, Storage};
use crate::common::{DeletionPolicy, LocalReference, retain};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One dump: made by a schedule, by hand, or discovered in the store. Creating one by hand takes a backup now.
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
    doc = "One dump: made by a schedule, by hand, or discovered in the store. Creating one by hand takes a backup now.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".status.verification.level"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(name = "Size", type_ = "integer", description = "bytes in the store", json_path = ".status.sizeBytes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = "1",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.scheduleRef) != has(self.databaseRef)").message("set either scheduleRef, or databaseRef with storage"),
    validation = Rule::new("has(self.databaseRef) == has(self.storage)").message("databaseRef and storage go together; with scheduleRef the schedule's storage is used"),
    validation = Rule::new("!has(self.dump) || has(self.databaseRef)").message("dump goes with databaseRef; with scheduleRef the schedule's settings are used"),
    validation = Rule::new("has(self.scheduleRef) == has(oldSelf.scheduleRef) && (!has(self.scheduleRef) || self.scheduleRef == oldSelf.scheduleRef)").message("scheduleRef cannot be changed"),
    validation = Rule::new("has(self.databaseRef) == has(oldSelf.databaseRef) && (!has(self.databaseRef) || self.databaseRef == oldSelf.databaseRef)").message("databaseRef cannot be changed"),
    validation = Rule::new("has(self.storage) == has(oldSelf.storage) && (!has(self.storage) || self.storage == oldSelf.storage)").message("storage cannot be changed")
)]
pub struct DatabaseBackupSpec {
    /// Back up as this `BackupSchedule` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_ref: Option<LocalReference>,
    /// The `ProtectedDatabase`, where there is no schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_ref: Option<LocalReference>,
    /// Where the dump is kept, where there is no schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// What is dumped and how, where there is no schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<Dump>,
    /// Retention never removes it.
    #[serde(default)]
    pub pinned: bool,
    /// What deleting this object does to the dump.
    #[serde(default = "retain")]
    pub deletion_policy: DeletionPolicy,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseBackupStatus {
    /// How far it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Where the dump is: a URL that ends in its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// When the dump's snapshot was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Bytes in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Bytes of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<i64>,
    /// Tables in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<i64>,
    /// Rows in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Version of `pg_dump`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// SHA-256 of the archive as it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How it was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<BackupVerification>,
    /// Why retention keeps it.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub kept_because: Vec<String>,
    /// What went wrong, in the tool's own last lines.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Stalled` while something must be mended.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Phases of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// No pod yet.
    Pending,
    /// Dumping.
    Running,
    /// Dumped; being read back.
    Verifying,
    /// Dumped and verified.
    Succeeded,
    /// No backup came of it.
    Failed,
    /// Found in the store; read-only until adopted.
    Discovered,
}

/// How a backup was proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupVerification {
    /// The strongest proof so far.
    pub level: VerificationLevel,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Proofs, from none to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum VerificationLevel {
    /// Not proven.
    None,
    /// The store's checksum was compared.
    Checksum,
    /// Every byte was read again.
    ReadBack,
    /// Every row was restored.
    Drill,
}
