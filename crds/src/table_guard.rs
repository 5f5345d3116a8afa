//! `TableGuard`.

use crate::common::{DeletionPolicy, LimitOverrides, Limits, LocalReference, Operation, delete_only, duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits how many rows a transaction can delete from tables, and from the tables that reference them.
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
    doc = "Limits how many rows a transaction can delete from tables, and from the tables that reference them.",
    selectable = ".spec.databaseRef.name",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Enforced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Enforced\")].status"),
    printcolumn(name = "Tables", type_ = "integer", json_path = ".status.tablesEnforced"),
    printcolumn(
        name = "Blocked",
        type_ = "integer",
        description = "statements that were stopped",
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
    /// The `ProtectedDatabase`, in the same namespace.
    #[x_kube(validation = Rule::new("self == oldSelf").message("databaseRef cannot be changed: create another TableGuard and delete this one"))]
    pub database_ref: LocalReference,
    /// `Enforce`: stops statements that exceed a limit. `Warn`: allows them, sends one WARNING per statement, and
    /// counts them.
    #[serde(default)]
    pub mode: GuardMode,
    /// The tables. A partitioned table includes its partitions, and an inheritance parent includes its children, also
    /// future ones.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.all(x, self.exists_one(y, y.schema == x.schema && y.name == x.name))").message("tables must not contain the same schema and name twice"))]
    pub tables: Vec<TableSelector>,
    /// Limits of all tables that have no limits of their own.
    #[serde(default)]
    pub limits: Limits,
    /// Operations that are limited or refused.
    #[serde(default = "default_protect")]
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(validation = Rule::new("self.exists(p, p == 'Delete')").message("protect must contain Delete"))]
    pub protect: Vec<Protection>,
    /// Permanent allowances of login roles, for purge jobs and migrations.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub allowances: Vec<Allowance>,
    /// Keeps rows that are deleted within the limits, so that `pgrail undo` can restore them. Captured rows can contain
    /// personal
    /// data. Default: no rows are captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// `Delete`: the guard is removed from the database with the object. `Retain`: it remains.
    #[serde(default = "delete")]
    pub deletion_policy: DeletionPolicy,
}

/// Which deleted rows are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// How long rows are kept, 1m to 8760h.
    #[serde(default = "default_retention")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')").message("retention must be between 1m and 8760h"))]
    pub retention: Duration,
    /// Maximum number of rows that are kept for this guard. The oldest transactions are removed first. If one
    /// transaction deletes
    /// more rows, none of them are kept.
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

/// What a guard does when a statement exceeds a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GuardMode {
    /// Stops the statement.
    #[default]
    Enforce,
    /// Allows the statement, sends a WARNING to the client, and counts it.
    Warn,
}

/// An operation that a guard limits or refuses.
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
    /// DROP COLUMN, and a type change that rewrites the table.
    DropColumn,
}

/// Selects tables by exact name or glob. `*` matches any number of characters, and `?` matches one. Globs do not match
/// system
/// schemas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableSelector {
    /// Exact name or glob of the schema.
    #[schemars(length(min = 1, max = 128))]
    pub schema: String,
    /// Exact name or glob of the table.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Globs of table names that are excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub exclude: Vec<String>,
    /// Replaces `spec.limits` for these tables. A field that is not set keeps the limit of `spec.limits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitOverrides>,
}

/// A permanent allowance of a login role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allowance {
    /// The login role (`session_user`).
    #[schemars(length(min = 1, max = 63))]
    pub role: String,
    /// Limits for the role. A field that is not set keeps the limit of the guard.
    pub limits: LimitOverrides,
    /// The operations that the allowance applies to.
    #[serde(default = "delete_only")]
    #[schemars(length(min = 1, max = 4))]
    pub operations: Vec<Operation>,
}

fn default_protect() -> Vec<Protection> {
    vec![Protection::Delete, Protection::Truncate, Protection::Drop]
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn delete() -> DeletionPolicy {
    DeletionPolicy::Delete
}

/// Observed state of a `TableGuard`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableGuardStatus {
    /// Number of tables that the selectors match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_matched: Option<i64>,
    /// Number of matched tables that were verified in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_enforced: Option<i64>,
    /// Number of statements that were stopped, or warned about in mode `Warn`, since the guard was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_attempts: Option<i64>,
    /// Time when the operator last observed an increase of `blockedAttempts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_blocked_time: Option<Time>,
    /// Number of repairs of the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_repairs: Option<i64>,
    /// The tables, with the most severe state first. The last entry summarizes the remaining tables.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub tables: Vec<GuardedTable>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Enforced`, `DropProtected`, `TamperResistant`, and `Stalled` while a change by the user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// State of a guarded table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardedTable {
    /// The table, as `schema.table`.
    pub table: String,
    /// Name of the table in `spec.tables`, if it was renamed or moved to another schema since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// Verified state of the table.
    pub state: TableState,
    /// Number of other tables that lose rows.
    #[serde(default)]
    pub closure: i64,
    /// Estimated number of rows of these tables.
    #[serde(default)]
    pub rows_at_risk: i64,
    /// Number of statements that were stopped on the table.
    #[serde(default)]
    pub blocked_attempts: i64,
    /// Of these, statements that were counted before the counter in the database was reset.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts_before: i64,
    /// How much of the window of `spec.limits` is used. Moved at most every 10 minutes, and when the window is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowUse>,
    /// What is missing, and how to fix it.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// How much of a window is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowUse {
    /// Rows of the table that all transactions removed within the window, rounded to two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<i64>,
    /// `window.maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Rows of other tables, rounded to two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade_removed: Option<i64>,
    /// `window.maxCascadeRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cascade_limit: Option<i64>,
    /// Since when it is counted: the installation, or the last time when the statistics of the server were lost or reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Verified state of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TableState {
    /// The guard stops DELETE and TRUNCATE.
    Enforced,
    /// The installation waits for a lock.
    Pending,
    /// The table is guarded, but has another name or schema than the spec declares.
    Renamed,
    /// The guard was changed in the database.
    Drifted,
    /// The guard is weaker than declared. The message contains what is missing.
    Degraded,
    /// The table does not exist.
    Missing,
    /// The installation failed.
    Failed,
}
