//! `DatabaseRestore`.

use crate::backup_schedule::Decryption;
use crate::common::LocalReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Restores a backup, or some of its tables, into a new schema, a new database, or existing tables.
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
    doc = "Restores a backup, or some of its tables, into a new schema, a new database, or existing tables.",
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
#[x_kube(validation = Rule::new("(has(self.target.mode) && self.target.mode == 'InPlace') || ((!has(self.tables) || self.tables.all(it, !has(it.where))) && !(has(self.followCascade) && self.followCascade) && !(has(self.dryRun) && self.dryRun))").message("tables[].where, followCascade and dryRun require target.mode InPlace"))]
#[x_kube(validation = Rule::new("!has(self.target.mode) || self.target.mode != 'InPlace' || (has(self.tables) && size(self.tables) > 0)").message("target.mode InPlace requires tables"))]
pub struct DatabaseRestoreSpec {
    /// The backup that is restored. `status.source` contains the selected backup.
    pub source: RestoreSource,
    /// Decryption of an encrypted backup.
    #[serde(default)]
    pub decryption: Decryption,
    /// Restores only these tables and the objects that they require. Default: all tables.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub tables: Vec<RestoreTable>,
    /// With mode `InPlace`: restores with each row the rows that a deletion of it deletes, and the links that it sets to NULL.
    #[serde(default)]
    pub follow_cascade: bool,
    /// Target of the restore.
    pub target: RestoreTarget,
    /// With mode `InPlace`: what happens if a row already exists.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,
    /// With mode `InPlace`: whether the triggers of the tables fire.
    #[serde(default)]
    pub triggers: RestoreTriggers,
    /// With mode `InPlace`: only reports what would be restored.
    #[serde(default)]
    pub dry_run: bool,
}

/// A table of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTable {
    /// Name of the schema.
    #[schemars(length(min = 1, max = 63))]
    pub schema: String,
    /// Name of the table.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// With mode `InPlace`: restores only the rows that this condition on the columns of the table selects, as `id = 42`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub condition: Option<String>,
}

/// Whether the triggers of the tables fire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreTriggers {
    /// They fire, with the privileges of the owner of the table.
    #[default]
    Fire,
    /// They do not fire. Other sessions cannot write to the tables until the restore ends.
    Skip,
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
    /// Number of these that are different from the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub different_rows: Option<i64>,
    /// Number of links that were restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_links: Option<i64>,
    /// The tables, parents first. In a dry run: what would be restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tables: Vec<RestoredTable>,
    /// Number of rows of the backup that are selected.
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

/// What was restored into a table, or in a dry run would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredTable {
    /// `schema.table`
    pub table: String,
    /// Number of inserted rows.
    pub inserted: i64,
    /// Number of rows that exist and are identical.
    pub identical: i64,
    /// Number of rows that exist and are different.
    pub different: i64,
    /// Number of restored links.
    pub links: i64,
}

/// Phases of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// The pod has not started.
    Pending,
    /// The restore is running.
    Running,
    /// The target contains all selected rows of the backup. In a dry run, nothing was changed.
    Succeeded,
    /// The restore failed.
    Failed,
}
