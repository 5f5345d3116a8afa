//! Drills of a `BackupSchedule`: what is declared, and what is reported.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Restore into a temporary PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// Cron expression with five fields, in the time zone of the schedule.
    #[schemars(schema_with = "crate::schema::cron")]
    pub schedule: String,
    /// Image with a PostgreSQL server and the extensions of the database, with `sh`, `initdb` and `postgres` in the path. It runs
    /// as the user of `podTemplate.securityContext`, which must have a name in the image. Default: the image of pgrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Queries that are executed on the restored database.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub queries: Vec<DrillQuery>,
}

/// A query on a restored database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct DrillQuery {
    /// Name of the query in the results.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// One statement that returns one value, run in a read-only transaction. It may take 10 minutes.
    #[schemars(length(min = 1, max = 4096))]
    pub sql: String,
    /// Expected value: a comparison with a number (`> 0`, `>= 10`, `< 5`, `<= 5`), `= x` or `!= x` with a number or a text,
    /// or a text, which means `=`. Numbers are compared as numbers. NULL meets no expectation.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^ *((>=|<=|>|<) *-?[0-9]+([.][0-9]+)?|(=|!=) *[^<>=! ].*|[^<>=! ].*) *$')").message("expect must be > 0, >= 10, < 5 or <= 5 with a number, = x or != x, or a text"))]
    pub expect: String,
}

/// The result of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillReport {
    /// Name of the Job.
    #[schemars(length(max = 253))]
    pub job: String,
    /// The result.
    pub outcome: DrillOutcome,
    /// Why it failed or could not run, as the reason of the condition `Drilled`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why it failed or could not run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// The backup that was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub backup: Option<String>,
    /// Time of the end.
    pub time: Time,
    /// Seconds from the first byte that was read to the last row that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// Number of tables whose rows were counted and are those of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<i64>,
    /// Number of their rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Results of the queries. Those that failed come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub queries: Vec<DrillQueryReport>,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 1024)))]
    pub notes: Vec<String>,
    /// Version, settings and number of processors of the server that the backup was restored into: the duration depends on them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub server: BTreeMap<String, String>,
}

/// Results of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrillOutcome {
    /// All rows were restored, and all queries returned what is expected.
    Restored,
    /// The backup cannot be restored, or is not what is expected.
    Failed,
    /// The drill could not run.
    NotRun,
}

/// The result of a query of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrillQueryReport {
    /// Name of the query.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Whether it returned what is expected.
    pub passed: bool,
    /// What it returned.
    #[schemars(length(max = 1024))]
    pub found: String,
}
