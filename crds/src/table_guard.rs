//! `TableGuard`: tables whose rows, and whose dependants' rows, cannot be removed in bulk.

use crate::common::{DeletionPolicy, LimitOverrides, Limits, LocalReference, Operation, delete_only, duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tables whose rows, and whose dependants' rows, cannot be removed in bulk.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "TableGuard",
    namespaced,
    shortname = "tguard",
    category = "pgrail",
    status = "TableGuardStatus",
    derive = "PartialEq",
    doc = "Tables whose rows, and whose dependants' rows, cannot be removed in bulk.",
    selectable = ".spec.databaseRef.name",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Enforced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Enforced\")].status"),
    printcolumn(name = "Tables", type_ = "integer", json_path = ".status.tablesEnforced"),
    printcolumn(
        name = "Blocked",
        type_ = "integer",
        description = "statements stopped since installed",
        json_path = ".status.blockedAttempts"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Mode", type_ = "string", priority = "1", json_path = ".spec.mode"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = "1",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].reason"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TableGuardSpec {
    /// The `ProtectedDatabase` of this namespace. It cannot be changed: make another guard.
    #[x_kube(validation = Rule::new("self == oldSelf").message("databaseRef cannot be changed: create another TableGuard and delete this one"))]
    pub database_ref: LocalReference,
    /// `Enforce` blocks; `Warn` lets it pass with one WARNING per statement to the client, counted.
    #[serde(default)]
    pub mode: GuardMode,
    /// Which tables; partitioned tables cover their partitions, inheritance parents their children, present and future.
    #[schemars(length(min = 1, max = 64))]
    pub tables: Vec<TableSelector>,
    /// Limits of every table above that does not override them.
    #[serde(default)]
    pub limits: Limits,
    /// Operations that are stopped.
    #[serde(default = "default_protect")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(validation = Rule::new("self.exists(p, p == 'Delete')").message("protect must contain Delete"))]
    pub protect: Vec<Protection>,
    /// Standing rights of a login role, for purge jobs and migrations.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub allowances: Vec<Allowance>,
    /// Keeps rows that are deleted within the limits for a while, so that `pgrail undo` can put them back. Absent: none
    /// are kept. They hold what the tables hold, personal data too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// `Delete`: the triggers go with the object; `Retain`: they stay.
    #[serde(default = "delete")]
    pub deletion_policy: DeletionPolicy,
}

/// For how long, and how many, deleted rows are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// For how long, 1m to 8760h: rows that were deleted longer ago are not kept any more.
    #[serde(default = "default_retention")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')").message("retention must be between 1m and 8760h"))]
    pub retention: Duration,
    /// Rows that are kept for this guard; beyond that the oldest transactions go first. Of a transaction that deletes
    /// more than that by itself, none are kept.
    #[serde(default = "default_captured_rows")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_rows: i64,
}

fn default_retention() -> Duration {
    duration("720h")
}

fn default_captured_rows() -> i64 {
    10_000
}

/// What a guard does when a limit is passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GuardMode {
    /// Block the statement.
    #[default]
    Enforce,
    /// Let it pass, warn the client, count it.
    Warn,
}

/// An operation that a guard stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protection {
    /// Bulk DELETE.
    Delete,
    /// TRUNCATE.
    Truncate,
    /// DROP TABLE.
    Drop,
    /// DROP and DETACH of a partition.
    DropPartition,
}

/// Tables, by exact name or glob (`*` any run of characters, `?` one). Globs never match system schemas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableSelector {
    /// Schema, exact or glob.
    #[schemars(length(min = 1, max = 128))]
    pub schema: String,
    /// Table, exact or glob.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Globs of table names that are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub exclude: Vec<String>,
    /// Overrides `spec.limits` field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitOverrides>,
}

/// A standing right of a login role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allowance {
    /// The login role (`session_user`).
    #[schemars(length(min = 1, max = 63))]
    pub role: String,
    /// Its limits, in place of the guard's.
    pub limits: LimitOverrides,
    /// What it may do.
    #[serde(default = "delete_only")]
    #[schemars(length(min = 1, max = 4))]
    pub operations: Vec<Operation>,
}

fn default_protect() -> Vec<Protection> {
    vec![Protection::Delete, Protection::Truncate, Protection::Drop]
}

fn delete() -> DeletionPolicy {
    DeletionPolicy::Delete
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableGuardStatus {
    /// Tables that the selectors match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_matched: Option<i64>,
    /// Of these, verified in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_enforced: Option<i64>,
    /// Statements stopped (mode `Warn`: warned of) since the guard was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_attempts: Option<i64>,
    /// When the operator last saw the counter move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_blocked_time: Option<Time>,
    /// How often the guard was put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_repairs: Option<i64>,
    /// Worst first; the rest is summed in the last row.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub tables: Vec<GuardedTable>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Enforced`, `DropProtected`, `TamperResistant`, and `Stalled` while something must be mended.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// One guarded table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardedTable {
    /// `schema.table`.
    pub table: String,
    /// What was verified of it.
    pub state: TableState,
    /// Tables that lose rows with it.
    #[serde(default)]
    pub closure: i64,
    /// Rows of them all, estimated.
    #[serde(default)]
    pub rows_at_risk: i64,
    /// Statements stopped on it.
    #[serde(default)]
    pub blocked_attempts: i64,
    /// What is missing and what would mend it.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What was verified of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TableState {
    /// Stops DELETE and TRUNCATE.
    Enforced,
    /// Waits for a lock.
    Pending,
    /// Not what was installed.
    Drifted,
    /// Weaker than declared: the message says what is missing.
    Degraded,
    /// No such table.
    Missing,
    /// Could not be installed.
    Failed,
}
