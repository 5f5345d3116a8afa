//! `GuardExemption`.

use crate::common::{LocalReference, Operation, Window, delete_only};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Allows a login role to exceed the limits of guards for a limited time.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "GuardExemption",
    namespaced,
    shortname = "gexempt",
    category = "pgrail",
    status = "GuardExemptionStatus",
    derive = "PartialEq",
    doc = "Allows a login role to exceed the limits of guards for a limited time.",
    validation = Rule::new("self.spec == oldSelf.spec").message("spec is immutable: create another GuardExemption"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.notAfter"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"Ready\")].reason")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.unlimited) && self.unlimited) != has(self.limits)").message("set either limits or unlimited: true"),
    validation = Rule::new("!has(self.notBefore) || self.notBefore < self.notAfter").message("notBefore must be earlier than notAfter")
)]
pub struct GuardExemptionSpec {
    /// The `TableGuard`s, in the same namespace, that the exemption applies to.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(x, self.exists_one(y, y.name == x.name))").message("guardRefs must not contain the same name twice"))]
    pub guard_refs: Vec<LocalReference>,
    /// The login role (`session_user`). Globs are not supported.
    #[schemars(length(min = 1, max = 63))]
    pub role: String,
    /// Limits the exemption to these tables of the guards, by exact name. Default: all tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(x, self.exists_one(y, y.schema == x.schema && y.name == x.name))").message("tables must not contain the same schema and name twice"))]
    pub tables: Vec<TableName>,
    /// Replaces the limits of the guards. A field that is not set keeps the limit of the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ExemptionLimits>,
    /// Allows any number of rows, if no `GuardrailPolicy` forbids it.
    #[serde(default)]
    pub unlimited: bool,
    /// Budget of rows for the lifetime of the exemption. Default: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub total_rows: Option<i64>,
    /// The operations that the exemption allows.
    #[serde(default = "delete_only")]
    #[schemars(length(min = 1, max = 4))]
    pub operations: Vec<Operation>,
    /// Start of the exemption. Default: immediately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// End of the exemption.
    pub not_after: Time,
    /// The exemption is active only if a recent verified backup of the database exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_backup: Option<RequiredBackup>,
    /// Reason of the exemption, for the audit.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Seconds after the end of the exemption until the object is deleted. Default: it is not deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Limits that replace the limits of the guards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExemptionLimits {
    /// Replaces `maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_rows: Option<i64>,
    /// Replaces `maxCascadeRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_cascade_rows: Option<i64>,
    /// Replaces `maxTransactionRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_transaction_rows: Option<i64>,
    /// Replaces `maxUpdatedRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_updated_rows: Option<i64>,
    /// Replaces `window` as a whole. What the role removes is counted in this window, and not in that of the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// A table by exact name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableName {
    /// Name of the schema.
    #[schemars(length(min = 1, max = 63))]
    pub schema: String,
    /// Name of the table.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// A backup that is required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredBackup {
    /// Maximum age of the backup.
    #[schemars(schema_with = "crate::schema::duration")]
    pub max_age: Duration,
}

/// Observed state of a `GuardExemption`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardExemptionStatus {
    /// Phase of the exemption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ExemptionPhase>,
    /// Number of rows that were deleted or updated with the exemption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_rows: Option<i64>,
    /// Number of statements that the exemption allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statements: Option<i64>,
    /// Time when the operator last observed a use of the exemption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_time: Option<Time>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Stalled` while a change by the user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Phases of an exemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExemptionPhase {
    /// The exemption is not active yet.
    Pending,
    /// The exemption is active.
    Active,
    /// The exemption has expired.
    Expired,
    /// The exemption never becomes active. The condition contains the reason.
    Rejected,
}
