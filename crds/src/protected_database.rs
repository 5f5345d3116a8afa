//! `ProtectedDatabase`.

use crate::common::{Connection, duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A PostgreSQL database: its connection and the roles of its applications. The status reports version, capabilities
/// and blast radius.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "ProtectedDatabase",
    namespaced,
    shortname = "pgdb",
    category = "pgrail",
    status = "ProtectedDatabaseStatus",
    derive = "PartialEq",
    doc = "A PostgreSQL database: its connection and the roles of its applications. The status reports version, capabilities and blast radius.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.serverVersion"),
    printcolumn(
        name = "Unguarded",
        type_ = "integer",
        description = "tables with a cascade closure and no guard",
        json_path = ".status.unguardedAtRisk"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = "1",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedDatabaseSpec {
    /// Connection to the database.
    pub connection: Connection,
    /// Additional roles of applications. Every login role that can delete from a guarded table is considered anyway.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub application_roles: Vec<String>,
    /// Interval of the checks for drift and of the counters, 5s to 24h. The blast radius is computed hourly, and after
    /// drift.
    #[serde(default = "default_check_interval")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('24h')").message("checkInterval must be between 5s and 24h"))]
    pub check_interval: Duration,
    /// Makes the database a template database (`ALTER DATABASE … IS_TEMPLATE true`), which PostgreSQL refuses to drop. The
    /// price: roles with CREATEDB can copy the database, and autovacuum freezes all rows. The condition
    /// `DatabaseProtected` reports the result.
    #[serde(default)]
    pub protect_database: bool,
    /// Suspends all access to the database, for example during hibernation or an upgrade. A suspended database is never
    /// compliant.
    #[serde(default)]
    pub suspend: bool,
}

fn default_check_interval() -> Duration {
    duration("30s")
}

/// Observed state of a `ProtectedDatabase`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedDatabaseStatus {
    /// Version of the server, such as `17.12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Capabilities of pgrail's login role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// The tables with the largest blast radius. The numbers are estimates from the statistics of the server.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub blast_radius: Vec<BlastRadius>,
    /// Number of tables in the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<i64>,
    /// Number of tables with a cascade and without a guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unguarded_at_risk: Option<i64>,
    /// Guards in the database, as `namespace/name`, that no `TableGuard` of this cluster declares. They remain in
    /// force, but are not
    /// repaired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 512)))]
    pub orphaned_guards: Vec<String>,
    /// pgrail made the database a template database. It ends that when `spec.protectDatabase` is false again, or the object
    /// is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template_set: bool,
    /// How often the protection from DROP DATABASE was reset by others, and restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_repairs: Option<i64>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reachable`, `LeastPrivilege`, `DatabaseProtected`, and `Stalled` while a change by the user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Capabilities of pgrail's login role in a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, shown under its name")]
pub struct Capabilities {
    /// The role is a superuser.
    #[serde(default)]
    pub superuser: bool,
    /// The role owns every table, or is a member of its owner.
    #[serde(default)]
    pub owns_tables: bool,
    /// The role can create event triggers.
    #[serde(default)]
    pub event_triggers: bool,
    /// The role can read every table.
    #[serde(default)]
    pub read_all_data: bool,
    /// The role bypasses row-level security.
    #[serde(default)]
    pub bypass_rls: bool,
}

/// The rows that a DELETE on a table can remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlastRadius {
    /// The table, as `schema.table`.
    pub table: String,
    /// Estimated number of rows of the table.
    pub rows: i64,
    /// Number of other tables that lose rows, or whose columns are set to NULL or DEFAULT.
    pub cascade_tables: i64,
    /// Estimated number of rows of these tables that depend on the table.
    pub rows_at_risk: i64,
    /// Estimated average number of rows that depend on one row.
    pub per_row: i64,
    /// A guard selects the table.
    pub guarded: bool,
}
