//! Types that several kinds share.

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference as CoreLocalReference, ResourceRequirements, Toleration,
};
use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How to reach a PostgreSQL database. A field of the spec wins over the Secret's `uri`, which wins over its other keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The Secret with the login: `uri` if it has one, else `host`, `port`, `dbname`, `user` or `username`, `password`,
    /// as CloudNativePG, PGO, Zalando and Supabase write them.
    pub secret_ref: LocalReference,
    /// Host name of the server: a Service of this namespace, or a host that the operator allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// TCP port of the server; 5432 when neither this nor the Secret says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Name of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// Role to log in as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub user: Option<String>,
    /// Encryption of the connection; the stricter of this and the URI's `sslmode` holds.
    #[serde(default)]
    pub tls: Tls,
}

/// Encryption of a connection to PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// As libpq's `sslmode`.
    #[serde(default)]
    pub mode: TlsMode,
    /// The certificate authority to trust; absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyReference>,
}

/// As libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted when the server can.
    #[default]
    Prefer,
    /// Encrypted, the server's certificate is not checked.
    Require,
    /// Encrypted, the certificate is signed by a trusted authority.
    VerifyCa,
    /// Encrypted, and the certificate names the host.
    VerifyFull,
}

/// How many rows one statement or transaction may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxTransactionRows) || (self.maxTransactionRows >= self.maxRows && self.maxTransactionRows >= self.maxCascadeRows)")
        .message("maxTransactionRows must be at least the larger of maxRows and maxCascadeRows")
)]
pub struct Limits {
    /// Rows of the guarded table that one transaction may delete (one client statement, where `maxTransactionRows` is set).
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: i64,
    /// Rows that other tables may lose as a consequence: deleted by CASCADE, or set to NULL or DEFAULT.
    #[serde(default = "default_max_cascade_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: i64,
    /// Rows of everything that one transaction may take; where set, the two limits above hold per client statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_transaction_rows: Option<i64>,
    /// Rows of the guarded table that one UPDATE may change; absent: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_updated_rows: Option<i64>,
}

/// `maxRows` where nothing is declared.
pub const DEFAULT_MAX_ROWS: i64 = 100;
/// `maxCascadeRows` where nothing is declared.
pub const DEFAULT_MAX_CASCADE_ROWS: i64 = 1000;

fn default_max_rows() -> i64 {
    DEFAULT_MAX_ROWS
}
fn default_max_cascade_rows() -> i64 {
    DEFAULT_MAX_CASCADE_ROWS
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rows: DEFAULT_MAX_ROWS,
            max_cascade_rows: DEFAULT_MAX_CASCADE_ROWS,
            max_transaction_rows: None,
            max_updated_rows: None,
        }
    }
}

/// Limits that override others field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitOverrides {
    /// Overrides `maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: Option<i64>,
    /// Overrides `maxCascadeRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: Option<i64>,
    /// Overrides `maxTransactionRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_transaction_rows: Option<i64>,
    /// Overrides `maxUpdatedRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_updated_rows: Option<i64>,
}

/// A statement that can be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    /// DELETE, and what cascades from it.
    Delete,
    /// TRUNCATE.
    Truncate,
    /// DROP TABLE.
    Drop,
    /// UPDATE.
    Update,
}

pub(crate) fn delete_only() -> Vec<Operation> {
    vec![Operation::Delete]
}

/// What becomes of the real thing when its object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It goes with the object.
    Delete,
    /// It stays.
    Retain,
}

pub(crate) fn retain() -> DeletionPolicy {
    DeletionPolicy::Retain
}

/// What may be said of the pods that the operator makes. It can only tighten their security context.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Requests and limits of each container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub resources: Option<ResourceRequirements>,
    /// The service account, for workload identity; its token is never mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_list")]
    pub image_pull_secrets: Option<Vec<CoreLocalReference>>,
    /// Nodes to run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints to tolerate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_list")]
    pub tolerations: Option<Vec<Toleration>>,
    /// As a pod's `affinity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub affinity: Option<Affinity>,
    /// As a pod's `priorityClassName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub labels: BTreeMap<String, String>,
    /// Tightens the user and groups that the pods run as (`runAsUser`, `runAsGroup`, `fsGroup`, `supplementalGroups`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodIdentity>,
}

/// The user and groups of a pod. Never root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// As a pod's `runAsUser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_user: Option<i64>,
    /// As a pod's `runAsGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_group: Option<i64>,
    /// As a pod's `fsGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub fs_group: Option<i64>,
    /// As a pod's `supplementalGroups`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub supplemental_groups: Option<Vec<i64>>,
}

/// A literal Go-style duration, for defaults. Zero when the text cannot be read.
pub(crate) fn duration(text: &str) -> Duration {
    text.parse().unwrap_or_else(|_| Duration::from(std::time::Duration::ZERO))
}
