//! `GuardrailPolicy`.

use crate::common::duration;
use crate::table_guard::GuardMode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Requirements of the platform team for databases, and a report of their compliance.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "GuardrailPolicy",
    plural = "guardrailpolicies",
    shortname = "gpolicy",
    category = "pgrail",
    status = "GuardrailPolicyStatus",
    derive = "PartialEq",
    doc = "Requirements of the platform team for databases, and a report of their compliance.",
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
    /// Selects the namespaces by their labels. Default: all namespaces.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Excludes databases by the labels of their `ProtectedDatabase`. The status lists them. Default: none.
    #[serde(default)]
    pub exclude_databases: LabelSelector,
    /// Requirements for guards.
    #[serde(default)]
    pub guards: GuardRules,
    /// Requirements for backups.
    #[serde(default)]
    pub backups: BackupRules,
    /// Limits of exemptions.
    #[serde(default)]
    pub exemptions: ExemptionRules,
    /// Objects that the operator creates for selected databases, and keeps as declared.
    #[serde(default)]
    pub templates: Templates,
}

/// Requirements for guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardRules {
    /// Tables with more rows at risk (`rowsAtRisk` of the blast radius) require a guard.
    #[serde(default = "default_min_rows_at_risk")]
    #[schemars(range(min = 0))]
    pub min_rows_at_risk: i64,
    /// Required mode of the guards. Each guard must also be verified in the database (`Enforced=True`).
    #[serde(default)]
    pub required_mode: GuardMode,
    /// Highest limits that are allowed. A guard with higher limits is a violation. With `templates.tableGuard`, a guard of
    /// the policy applies beside it, and the strictest limits hold.
    #[serde(default)]
    pub max_limits: MaxLimits,
    /// Requires `TamperResistant=True`.
    #[serde(default)]
    pub require_tamper_resistant: bool,
    /// Allows guards with allowances.
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

/// Highest limits that are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaxLimits {
    /// Highest `maxRows`.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: i64,
    /// Highest `maxCascadeRows`.
    #[serde(default = "default_max_cascade_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: i64,
    /// Highest `maxTransactionRows`.
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

/// Requirements for backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRules {
    /// Requires a `BackupSchedule` for each database. `false`: databases without one are not checked for backups.
    #[serde(default = "yes")]
    pub required: bool,
    /// Maximum age of the newest verified backup. `0s`: not required.
    #[serde(default = "a_day")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub max_age: Duration,
    /// Maximum age of the last read-back of a backup. `0s`: not required.
    #[serde(default = "eight_days")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub verified_within: Duration,
    /// Maximum age of the last successful drill. `0s`: not required.
    #[serde(default = "a_month")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub drilled_within: Duration,
    /// Accepts schedules that exclude schemas or tables.
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

/// Limits of exemptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExemptionRules {
    /// Maximum time until `notAfter`.
    #[serde(default = "four_hours")]
    #[schemars(schema_with = "crate::schema::duration")]
    pub max_duration: Duration,
    /// Allows `unlimited: true`.
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

/// Specs, without `databaseRef`, of the objects that the operator creates for selected databases. Changes and deletions of
/// these objects are undone. They remain when the policy or the template is removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Templates {
    /// Spec of a `TableGuard`, for each database that has none, or whose guards do not meet the requirements. Its
    /// `deletionPolicy` is `Retain` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub table_guard: Option<serde_json::Value>,
    /// Spec of a `BackupSchedule`, for each database that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub backup_schedule: Option<serde_json::Value>,
}

/// Observed compliance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardrailPolicyStatus {
    /// Number of selected databases, including clusters of other operators without a `ProtectedDatabase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases: Option<i64>,
    /// Number of compliant databases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliant: Option<i64>,
    /// Number of excluded databases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_count: Option<i64>,
    /// Number of violations, also of those that are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation_count: Option<i64>,
    /// Excluded databases, as `namespace/name`, at most 100.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub excluded: Vec<String>,
    /// Violations of the policy, with the most severe first, at most 100.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub violations: Vec<Violation>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Compliant`, and `Stalled` while a change by the user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A violation of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The database, as `namespace/name`.
    pub database: String,
    /// The field of the policy; or `Undeclared`, `Suspended`, `Unreachable`, `NotReady` or `NotChecked`, where compliance is
    /// not known.
    pub rule: String,
    /// The table or object that violates the policy.
    #[serde(default)]
    pub object: String,
    /// Description of the violation, and how to fix it.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
}
