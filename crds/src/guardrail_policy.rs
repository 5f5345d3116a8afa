//! `GuardrailPolicy`: what the platform team demands of every database.

use crate::common::duration;
use crate::table_guard::GuardMode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the platform team demands of every database; reports who complies.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "GuardrailPolicy",
    plural = "guardrailpolicies",
    shortname = "gpolicy",
    category = "pgrail",
    status = "GuardrailPolicyStatus",
    derive = "PartialEq",
    doc = "What the platform team demands of every database; reports who complies.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Compliant", type_ = "integer", json_path = ".status.compliant"),
    printcolumn(name = "Databases", type_ = "integer", json_path = ".status.databases"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = "1",
        json_path = ".status.conditions[?(@.type==\"Compliant\")].reason"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct GuardrailPolicySpec {
    /// Namespaces whose databases are meant; empty: all.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Databases that are not meant, by label; listed in the status. Empty: none.
    #[serde(default)]
    pub exclude_databases: LabelSelector,
    /// What is demanded of guards.
    #[serde(default)]
    pub guards: GuardRules,
    /// What is demanded of backups.
    #[serde(default)]
    pub backups: BackupRules,
    /// What exemptions may do.
    #[serde(default)]
    pub exemptions: ExemptionRules,
    /// Objects that the operator creates for every selected database that has none.
    #[serde(default)]
    pub templates: Templates,
}

/// What is demanded of guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardRules {
    /// Tables with more rows at risk than this need a guard.
    #[serde(default = "default_min_rows_at_risk")]
    #[schemars(range(min = 0))]
    pub min_rows_at_risk: i64,
    /// The mode that counts.
    #[serde(default)]
    pub required_mode: GuardMode,
    /// The loosest limits that count.
    #[serde(default)]
    pub max_limits: MaxLimits,
    /// `TamperResistant=True` is demanded.
    #[serde(default)]
    pub require_tamper_resistant: bool,
    /// Guards may have allowances.
    #[serde(default = "yes")]
    pub allow_allowances: bool,
}

fn default_min_rows_at_risk() -> i64 {
    10_000
}
fn yes() -> bool {
    true
}

impl Default for GuardRules {
    fn default() -> Self {
        Self {
            min_rows_at_risk: default_min_rows_at_risk(),
            required_mode: GuardMode::Enforce,
            max_limits: MaxLimits::default(),
            require_tamper_resistant: false,
            allow_allowances: true,
        }
    }
}

/// The loosest limits that count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxLimits {
    /// Of `maxRows`.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: i64,
    /// Of `maxCascadeRows`.
    #[serde(default = "default_max_cascade_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: i64,
    /// Of `maxTransactionRows`.
    #[serde(default = "default_max_transaction_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_transaction_rows: i64,
}

fn default_max_rows() -> i64 {
    1000
}
fn default_max_cascade_rows() -> i64 {
    10_000
}
fn default_max_transaction_rows() -> i64 {
    100_000
}

impl Default for MaxLimits {
    fn default() -> Self {
        Self {
            max_rows: default_max_rows(),
            max_cascade_rows: default_max_cascade_rows(),
            max_transaction_rows: default_max_transaction_rows(),
        }
    }
}

/// What is demanded of backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRules {
    /// Every database needs a schedule.
    #[serde(default = "yes")]
    pub required: bool,
    /// The newest verified backup is at most that old.
    #[serde(default = "a_day")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub max_age: Duration,
    /// Something was read back within this time.
    #[serde(default = "eight_days")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub verified_within: Duration,
    /// A drill passed within this time.
    #[serde(default = "a_month")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub drilled_within: Duration,
    /// Schedules that leave schemas or tables out count.
    #[serde(default)]
    pub allow_partial: bool,
}

fn a_day() -> Duration {
    duration("26h")
}
fn eight_days() -> Duration {
    duration("192h")
}
fn a_month() -> Duration {
    duration("768h")
}

impl Default for BackupRules {
    fn default() -> Self {
        Self {
            required: true,
            max_age: a_day(),
            verified_within: eight_days(),
            drilled_within: a_month(),
            allow_partial: false,
        }
    }
}

/// What exemptions may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExemptionRules {
    /// The furthest that `notAfter` may lie ahead.
    #[serde(default = "four_hours")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub max_duration: Duration,
    /// `unlimited: true` is allowed.
    #[serde(default)]
    pub allow_unlimited: bool,
}

fn four_hours() -> Duration {
    duration("4h")
}

impl Default for ExemptionRules {
    fn default() -> Self {
        Self { max_duration: four_hours(), allow_unlimited: false }
    }
}

/// Specs that the operator creates for every selected database that has none, without `databaseRef`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Templates {
    /// Spec of a `TableGuard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub table_guard: Option<serde_json::Value>,
    /// Spec of a `BackupSchedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub backup_schedule: Option<serde_json::Value>,
}

/// Who complies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardrailPolicyStatus {
    /// Databases selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<i64>,
    /// Of these, compliant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliant: Option<i64>,
    /// Databases excluded, `namespace/name`.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub excluded: Vec<String>,
    /// What does not comply.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub violations: Vec<Violation>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Compliant`, and `Stalled` while something must be mended.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// One thing that does not comply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// `namespace/name` of the database.
    pub database: String,
    /// The field of the policy.
    pub rule: String,
    /// The table or object meant.
    #[serde(default)]
    pub object: String,
    /// What is wrong.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}
