//! `DatabaseRestore`.

use crate::backup_schedule::Decryption;
use crate::common::LocalReference;
use crate::guard_exemption::TableName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Restores a backup, or some of its tables, into a new schema, a new database, or existing tables. Not implemented.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "DatabaseRestore",
    namespaced,
    shortname = "dbrestore",
    category = "pgrail",
    status = "DatabaseRestoreStatus",
    derive = "PartialEq",
    doc = "Restores a backup, or some of its tables, into a new schema, a new database, or existing tables. Not implemented.",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: create another DatabaseRestore"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.restoredRows"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"Ready\")].reason")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.target.mode) || self.target.mode != 'NewSchema' || (has(self.tables) && size(self.tables) > 0)").message("target.mode NewSchema requires tables"))]
pub struct DatabaseRestoreSpec {
    /// The backup that is restored. `status.source` contains the selected backup.
    pub source: RestoreSource,
    /// Decryption of an encrypted backup.
    #[serde(default)]
    pub decryption: Decryption,
    /// Restores only these tables and the objects that they require. Default: all tables.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub tables: Vec<TableName>,
    /// Target of the restore.
    pub target: RestoreTarget,
    /// With mode `InPlace`: what happens if a row already exists.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,
}

/// The backup that is restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.backupRef) != has(self.scheduleRef)").message("set either backupRef or scheduleRef"),
    validation = Rule::new("!has(self.before) || has(self.scheduleRef)").message("before requires scheduleRef")
)]
pub struct RestoreSource {
    /// Restores this `DatabaseBackup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<LocalReference>,
    /// Restores the newest verified backup of this `BackupSchedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_ref: Option<LocalReference>,
    /// Restores the newest backup before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
}

/// Target of the restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// The `ProtectedDatabase`, in the same namespace, whose server is used.
    pub database_ref: LocalReference,
    /// Where the rows are restored. Default: `NewSchema` if `tables` is set, otherwise `NewDatabase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RestoreMode>,
    /// Name of the new schema or database. Default: derived from the name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
}

/// Where the rows are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreMode {
    /// Into a new schema. All tables must be in one schema.
    NewSchema,
    /// Into a new database. Requires CREATEDB.
    NewDatabase,
    /// Into the existing tables. Only inserts missing rows.
    InPlace,
}

/// What happens if a row already exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConflictPolicy {
    /// The restore fails.
    #[default]
    Fail,
    /// The existing row is kept.
    SkipExisting,
}

/// Observed state of a `DatabaseRestore`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseRestoreStatus {
    /// Phase of the restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// The selected backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Number of restored tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_tables: Option<i64>,
    /// Number of restored rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_rows: Option<i64>,
    /// Number of existing rows that were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_rows: Option<i64>,
    /// Number of rows in the manifest of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_rows: Option<i64>,
    /// Duration in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// The schema or database with the restored rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Error message.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub message: String,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Stalled` while a change by the user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Phases of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// The pod has not started.
    Pending,
    /// The restore is running.
    Running,
    /// The target contains all rows of the manifest.
    Succeeded,
    /// The restore failed.
    Failed,
}
