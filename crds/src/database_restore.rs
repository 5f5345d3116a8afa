//! `DatabaseRestore`: put a backup, or some tables of it, back somewhere safe.

use crate::backup_schedule::Decryption;
use crate::common::LocalReference;
use crate::guard_exemption::TableName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Put a backup, or some tables of it, back somewhere safe.
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
    doc = "Put a backup, or some tables of it, back somewhere safe.",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: create another DatabaseRestore"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.restoredRows"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"Ready\")].reason")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.target.mode) || self.target.mode != 'NewSchema' || (has(self.tables) && size(self.tables) > 0)").message("target.mode NewSchema needs tables"))]
pub struct DatabaseRestoreSpec {
    /// What is restored; what it resolved to is pinned in the status.
    pub source: RestoreSource,
    /// What reading an encrypted backup needs.
    #[serde(default)]
    pub decryption: Decryption,
    /// Only these tables and what they need; empty: all.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub tables: Vec<TableName>,
    /// Where to.
    pub target: RestoreTarget,
    /// Mode `InPlace`: what becomes of rows that exist.
    #[serde(default)]
    pub conflict_policy: ConflictPolicy,
}

/// What is restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.backupRef) != has(self.scheduleRef)").message("set either backupRef or scheduleRef"),
    validation = Rule::new("!has(self.before) || has(self.scheduleRef)").message("before goes with scheduleRef")
)]
pub struct RestoreSource {
    /// This `DatabaseBackup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<LocalReference>,
    /// The newest verified backup of this `BackupSchedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_ref: Option<LocalReference>,
    /// The newest one before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTarget {
    /// The `ProtectedDatabase` of this namespace whose server is used.
    pub database_ref: LocalReference,
    /// Default: `NewSchema` with tables, `NewDatabase` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RestoreMode>,
    /// Name of the new schema or database; absent: derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
}

/// Where rows go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreMode {
    /// A schema beside; of one source schema.
    NewSchema,
    /// A database beside; needs CREATEDB.
    NewDatabase,
    /// Into the tables themselves; only inserts what is missing.
    InPlace,
}

/// What becomes of rows that exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConflictPolicy {
    /// Stop.
    #[default]
    Fail,
    /// Leave them.
    SkipExisting,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseRestoreStatus {
    /// How far it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,
    /// The backup that the source resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Tables restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_tables: Option<i64>,
    /// Rows restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_rows: Option<i64>,
    /// Rows that existed and were left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_rows: Option<i64>,
    /// Rows that the manifest expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_rows: Option<i64>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// The schema or database that holds the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What went wrong.
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

/// Phases of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestorePhase {
    /// No pod yet.
    Pending,
    /// Restoring.
    Running,
    /// Every expected row was counted in the target.
    Succeeded,
    /// Not all of it is there.
    Failed,
}
