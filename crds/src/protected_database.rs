//! `ProtectedDatabase`: one PostgreSQL database, how to reach it, and what was found there.

use crate::common::{Connection, duration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One PostgreSQL database: how to reach it and who its applications are; reports version, capabilities and blast radius.
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
    doc = "One PostgreSQL database: how to reach it and who its applications are; reports version, capabilities and blast radius.",
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
    /// How to reach it.
    pub connection: Connection,
    /// Roles of applications; adds to what is computed: every login role that can delete from a guarded table.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub application_roles: Vec<String>,
    /// How often drift and counters are looked at, 5s to 24h. Catalog and blast radius: hourly, and after any drift.
    #[serde(default = "default_check_interval")]
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('24h')").message("checkInterval must be between 5s and 24h"))]
    pub check_interval: Duration,
    /// Leave the database alone (hibernated, upgrading). Never reported as compliant.
    #[serde(default)]
    pub suspend: bool,
}

fn default_check_interval() -> Duration {
    duration("30s")
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtectedDatabaseStatus {
    /// The server's version, such as `17.12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// What pgrail's login can do there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Worst first: what deletes on a table can take with them. Estimates from statistics, never a scan.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub blast_radius: Vec<BlastRadius>,
    /// Tables in the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<i64>,
    /// Tables with a cascade closure and no guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unguarded_at_risk: Option<i64>,
    /// Guards in the database, as `namespace/name`, that no `TableGuard` of this cluster declares: left by `Retain`, by a
    /// finalizer that let go, or by another cluster. They go on stopping; nobody repairs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 512)))]
    pub orphaned_guards: Vec<String>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reachable`, `LeastPrivilege`, and `Stalled` while something must be mended.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What pgrail's login can do in a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, shown under its name")]
pub struct Capabilities {
    /// It is a superuser.
    #[serde(default)]
    pub superuser: bool,
    /// It owns (or is a member of the owner of) every table.
    #[serde(default)]
    pub owns_tables: bool,
    /// It may create event triggers.
    #[serde(default)]
    pub event_triggers: bool,
    /// It may read every table.
    #[serde(default)]
    pub read_all_data: bool,
    /// Row level security does not hide rows from it.
    #[serde(default)]
    pub bypass_rls: bool,
}

/// What deletes on one table can take with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlastRadius {
    /// `schema.table`.
    pub table: String,
    /// Its rows, estimated.
    pub rows: i64,
    /// Tables that lose rows with it.
    pub cascade_tables: i64,
    /// Rows of them all, estimated.
    pub rows_at_risk: i64,
    /// Rows that one deleted row takes with it on average, estimated.
    pub per_row: i64,
    /// A guard stands on it.
    pub guarded: bool,
}
