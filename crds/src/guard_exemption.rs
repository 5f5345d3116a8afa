//! `GuardExemption`: time-boxed, role-bound break-glass.

use crate::common::{LocalReference, Operation, delete_only};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Time-boxed, role-bound break-glass.
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
    doc = "Time-boxed, role-bound break-glass.",
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
    /// The `TableGuard`s of this namespace that it lifts.
    #[schemars(length(min = 1, max = 16))]
    pub guard_refs: Vec<LocalReference>,
    /// The login role (`session_user`); no patterns.
    #[schemars(length(min = 1, max = 63))]
    pub role: String,
    /// Narrows it to some of the guards' tables, by exact name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tables: Vec<TableName>,
    /// Limits in place of the guards'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ExemptionLimits>,
    /// No limits at all, if policy allows.
    #[serde(default)]
    pub unlimited: bool,
    /// Rows that may go over its whole life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub total_rows: Option<i64>,
    /// What it lets through.
    #[serde(default = "delete_only")]
    #[schemars(length(min = 1, max = 4))]
    pub operations: Vec<Operation>,
    /// Not active earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Not active later.
    pub not_after: Time,
    /// Active only once a verified backup of the database that young exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_backup: Option<RequiredBackup>,
    /// Why, recorded.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Seconds after its end until the object is deleted; absent: kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Limits that an exemption puts in place of the guards'.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExemptionLimits {
    /// In place of `maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_rows: Option<i64>,
    /// In place of `maxCascadeRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_cascade_rows: Option<i64>,
    /// In place of `maxTransactionRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_transaction_rows: Option<i64>,
    /// In place of `maxUpdatedRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_updated_rows: Option<i64>,
}

/// A table by exact name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableName {
    /// Schema.
    #[schemars(length(min = 1, max = 63))]
    pub schema: String,
    /// Table.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// A backup that must exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredBackup {
    /// At most that old.
    #[schemars(schema_with = "crate::schema::duration")]
    pub max_age: Duration,
}

/// How far it got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardExemptionStatus {
    /// How far it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ExemptionPhase>,
    /// Rows that went under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_rows: Option<i64>,
    /// Statements that it let through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statements: Option<i64>,
    /// When the operator last saw it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_time: Option<Time>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Stalled` while something must be mended.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Phases of an exemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExemptionPhase {
    /// Not yet in force.
    Pending,
    /// In force.
    Active,
    /// Over.
    Expired,
    /// Never will be in force: the condition says why.
    Rejected,
}
