//! Types that several kinds share.

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference as CoreLocalReference, ResourceRequirements, Toleration,
};
use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Reference to an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Reference to a key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Connection to a PostgreSQL database. The spec takes precedence over the `uri` of the Secret, which takes precedence
/// over its
/// other keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Secret with the login: `uri`, or `host`, `port`, `dbname`, `user` or `username`, and `password`, as in the
    /// Secrets of
    /// CloudNativePG, PGO, Zalando and Supabase.
    pub secret_ref: LocalReference,
    /// Host of the server: a Service of the namespace, or a host in `--allowed-hosts` of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Port of the server. Default: 5432, if the Secret does not contain a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Database name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// Login role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub user: Option<String>,
    /// TLS settings. The stricter one of `mode` and the `sslmode` of the URI applies.
    #[serde(default)]
    pub tls: Tls,
}

/// TLS settings of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// TLS mode, as `sslmode` in libpq.
    #[serde(default)]
    pub mode: TlsMode,
    /// CA certificate. Default: the CA certificates in the image of pgrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyReference>,
}

/// TLS mode, as `sslmode` in libpq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Without TLS.
    Disable,
    /// With TLS, if the server supports it.
    #[default]
    Prefer,
    /// With TLS. The certificate is not verified.
    Require,
    /// With TLS. The certificate must be signed by a trusted CA.
    VerifyCa,
    /// With TLS. The certificate must be signed by a trusted CA and contain the host name.
    VerifyFull,
}

/// Maximum numbers of rows that a statement or transaction can change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxTransactionRows) || (self.maxTransactionRows >= self.maxRows && self.maxTransactionRows >= self.maxCascadeRows)")
        .message("maxTransactionRows must be at least the larger of maxRows and maxCascadeRows")
)]
pub struct Limits {
    /// Maximum number of rows of the guarded table that a transaction (with `maxTransactionRows`: a client statement)
    /// can delete.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: i64,
    /// Maximum number of rows of other tables that are deleted, or set to NULL or DEFAULT, by foreign keys.
    #[serde(default = "default_max_cascade_rows")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: i64,
    /// Maximum number of all these rows in a transaction. If it is set, `maxRows` and `maxCascadeRows` apply per client
    /// statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_transaction_rows: Option<i64>,
    /// Maximum number of rows of the guarded table that a client statement can update. Default: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_updated_rows: Option<i64>,
    /// Maximum numbers of rows that all transactions of all sessions together can remove within some time. Default: not
    /// limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// Maximum numbers of rows that all transactions of all sessions together can remove within any such time, by the clock
/// of the database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.maxRows) || has(self.maxCascadeRows)").message("window must have maxRows, maxCascadeRows, or both")
)]
pub struct Window {
    /// Length of the window, 1m to 24h.
    #[schemars(schema_with = "crate::schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('24h')").message("duration must be between 1m and 24h"))]
    pub duration: Duration,
    /// Maximum number of rows of the guarded table. Default: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: Option<i64>,
    /// Maximum number of rows of other tables that are deleted, or set to NULL or DEFAULT, by foreign keys. Default: not
    /// limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: Option<i64>,
}

/// Default of `maxRows`.
pub const DEFAULT_MAX_ROWS: i64 = 100;
/// Default of `maxCascadeRows`.
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
            window: None,
        }
    }
}

/// Limits that replace other limits. A field that is not set keeps the other limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitOverrides {
    /// Replaces `maxRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_rows: Option<i64>,
    /// Replaces `maxCascadeRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_cascade_rows: Option<i64>,
    /// Replaces `maxTransactionRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_transaction_rows: Option<i64>,
    /// Replaces `maxUpdatedRows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_updated_rows: Option<i64>,
    /// Replaces `window` as a whole. An allowance with a window counts what its role removes in that window, and not in the
    /// window of the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// An operation that an allowance or exemption allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    /// DELETE, including its cascades.
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

/// What happens to the guard or the dumps when the object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is deleted with the object.
    Delete,
    /// It remains.
    Retain,
}

pub(crate) fn retain() -> DeletionPolicy {
    DeletionPolicy::Retain
}

/// Settings of the pods that the operator creates. The security context can only be restricted further.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Resource requests and limits of each container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub resources: Option<ResourceRequirements>,
    /// Service account, for workload identity. Its API token is not mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Image pull secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_list")]
    pub image_pull_secrets: Option<Vec<CoreLocalReference>>,
    /// Node selector of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_list")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Affinity of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::foreign_object")]
    pub affinity: Option<Affinity>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Additional annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub annotations: BTreeMap<String, String>,
    /// Additional labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub labels: BTreeMap<String, String>,
    /// User and groups of the pods (`runAsUser`, `runAsGroup`, `fsGroup`, `supplementalGroups`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodIdentity>,
}

/// User and groups of a pod. Root is not allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// User ID of the processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_user: Option<i64>,
    /// Primary group ID of the processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub run_as_group: Option<i64>,
    /// Group ID of the volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub fs_group: Option<i64>,
    /// Additional group IDs of the processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub supplemental_groups: Option<Vec<i64>>,
}

/// A literal Go-style duration, for defaults. Zero when the text cannot be read.
pub(crate) fn duration(text: &str) -> Duration {
    text.parse().unwrap_or_else(|_| Duration::from(std::time::Duration::ZERO))
}
