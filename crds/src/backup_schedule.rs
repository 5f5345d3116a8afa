//! `BackupSchedule`.

use crate::common::{Connection, DeletionPolicy, LocalReference, PodTemplate, SecretKeyReference, retain};
use crate::drill::{Drill, DrillReport};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scheduled logical dumps, their verification and retention.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "pgrail.dev",
    version = "v1alpha1",
    kind = "BackupSchedule",
    namespaced,
    shortname = "bsched",
    category = "pgrail",
    status = "BackupScheduleStatus",
    derive = "PartialEq",
    doc = "Scheduled logical dumps, their verification and retention.",
    selectable = ".spec.databaseRef.name",
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name must have at most 40 characters, because the names of Jobs are derived from it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Fresh", type_ = "string", json_path = ".status.conditions[?(@.type==\"BackupFresh\")].status"),
    printcolumn(name = "Verified", type_ = "integer", description = "verified backups", json_path = ".status.verifiedBackups"),
    printcolumn(name = "Last-Verified", type_ = "date", json_path = ".status.lastVerifiedTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Schedule", type_ = "string", priority = "1", json_path = ".spec.schedule"),
    printcolumn(name = "Reason", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"BackupFresh\")].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// The `ProtectedDatabase`, in the same namespace.
    #[x_kube(validation = Rule::new("self == oldSelf").message("databaseRef cannot be changed: create another BackupSchedule and delete this one"))]
    pub database_ref: LocalReference,
    /// Another login role, or a standby, to dump from. Default: the connection of the `ProtectedDatabase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// Cron expression with five fields. `H` is a minute or hour that is computed from the name of the object.
    #[schemars(schema_with = "crate::schema::cron")]
    pub schedule: String,
    /// Name of an IANA time zone, for the schedule and for the days of the retention.
    #[serde(default = "utc")]
    #[schemars(schema_with = "crate::schema::time_zone")]
    pub time_zone: String,
    /// Creates no backups while it is true. `BackupFresh` becomes `False` after `maxAge`.
    #[serde(default)]
    pub suspend: bool,
    /// Starts the first backup immediately.
    #[serde(default = "yes")]
    pub run_on_create: bool,
    /// Seconds after the scheduled time in which a missed run is still started. Several missed runs become one.
    #[serde(default = "default_starting_deadline")]
    #[schemars(range(min = 10))]
    pub starting_deadline_seconds: i64,
    /// Seconds after which a run is stopped. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Number of retries of a failed run. A run that failed because of a configuration error is not retried.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 10))]
    pub backoff_limit: i32,
    /// Number of succeeded Jobs that are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub successful_jobs_history_limit: i32,
    /// Number of failed Jobs that are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub failed_jobs_history_limit: i32,
    /// What is dumped, and in which format.
    #[serde(default)]
    pub dump: Dump,
    /// Where dumps are stored.
    pub storage: Storage,
    /// Scratch volume of the pods of drills.
    #[serde(default)]
    pub scratch: Scratch,
    /// Client-side encryption of the dumps.
    #[serde(default)]
    pub encryption: Encryption,
    /// Decryption of encrypted backups in structural and full drills.
    #[serde(default)]
    pub decryption: Decryption,
    /// How dumps are verified.
    #[serde(default)]
    pub verification: Verification,
    /// Which verified dumps are kept.
    #[serde(default)]
    pub retention: Retention,
    /// `Delete`: the dumps are deleted with the object. `Retain`: they remain.
    #[serde(default = "retain")]
    pub deletion_policy: DeletionPolicy,
    /// Maximum age of the newest verified backup. Default: twice the largest interval of the next 50 runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_duration")]
    pub max_age: Option<Duration>,
    /// Settings of the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

fn utc() -> String {
    "UTC".to_owned()
}
fn yes() -> bool {
    true
}
fn default_starting_deadline() -> i64 {
    3600
}
fn default_backoff_limit() -> i32 {
    2
}
fn three() -> i32 {
    3
}
fn one() -> i32 {
    1
}

/// What is dumped, and in which format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// Number of `pg_dump` processes that run at the same time, each for some of the large tables, with the same snapshot. At
    /// most 9 do, which share the memory of one. Each has a connection of its own.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub jobs: i32,
    /// Compression of the dump.
    #[serde(default)]
    pub compression: Compression,
    /// Schemas that are dumped. Default: all.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub schemas: Vec<String>,
    /// Globs of tables (`schema.table`) that are not dumped.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 257)))]
    pub exclude_tables: Vec<String>,
    /// Globs of tables (`schema.table`) whose rows are not dumped.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 257)))]
    pub exclude_table_data: Vec<String>,
    /// Writes the roles and their memberships to a separate file, without passwords and without role settings.
    #[serde(default = "yes")]
    pub globals: bool,
    /// How the rows of each table are counted.
    #[serde(default)]
    pub row_counts: RowCounts,
}

impl Default for Dump {
    fn default() -> Self {
        Self {
            jobs: 1,
            compression: Compression::default(),
            schemas: Vec::new(),
            exclude_tables: Vec::new(),
            exclude_table_data: Vec::new(),
            globals: true,
            row_counts: RowCounts::default(),
        }
    }
}

/// How the rows of each table are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RowCounts {
    /// With the snapshot of the dump, by a separate query.
    #[default]
    Exact,
    /// In the archive, without reading the tables a second time.
    Archive,
}

/// Compression of a dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.method != 'gzip' || self.level <= 9").message("gzip levels are 0 to 9"),
    validation = Rule::new("self.method != 'lz4' || self.level <= 12").message("lz4 levels are 0 to 12")
)]
pub struct Compression {
    /// Compression method.
    #[serde(default)]
    pub method: CompressionMethod,
    /// Compression level: 0 to 22 for zstd, 0 to 9 for gzip, 0 to 12 for lz4.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 22))]
    pub level: i32,
}

impl Default for Compression {
    fn default() -> Self {
        Self { method: CompressionMethod::Zstd, level: 3 }
    }
}

/// Compression methods of `pg_dump`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionMethod {
    /// Zstandard.
    #[default]
    Zstd,
    /// gzip.
    Gzip,
    /// LZ4.
    Lz4,
    /// No compression.
    None,
}

/// Where dumps are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.url.startsWith('file://') || has(self.persistentVolumeClaim)").message("a file:// url requires persistentVolumeClaim"),
    validation = Rule::new("!has(self.persistentVolumeClaim) || self.url.startsWith('file://')").message("persistentVolumeClaim requires a file:// url"),
    validation = Rule::new("!has(self.endpoint) || self.url.startsWith('s3://')").message("endpoint requires an s3:// url"),
    validation = Rule::new("!has(self.caSecretRef) || (has(self.endpoint) && self.endpoint.startsWith('https://'))").message("caSecretRef requires an https:// endpoint"),
    validation = Rule::new("!self.url.matches('(^|/)[.][.](/|$)')").message("url must not contain '..'")
)]
pub struct Storage {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `file:///path`. A path is relative to
    /// the volume.
    #[schemars(length(min = 6, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(s3|gs|az)://[^/]+(/.*)?$|^file:///.*$')").message("url must be s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or file:///path"))]
    pub url: String,
    /// URL of an S3-compatible server. Default: Amazon S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::endpoint")]
    pub endpoint: Option<String>,
    /// CA certificate of the `endpoint`, in addition to those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyReference>,
    /// Region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Secret with the credentials of the store. Default: the workload identity of `podTemplate.serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// Volume of a `file://` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimReference>,
}

/// A PersistentVolumeClaim in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// An ephemeral volume of the pods of drills: it must have room for the restored database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scratch {
    /// Size of the volume.
    #[serde(default = "ten_gibibytes")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?|[kmunE])?$"))]
    pub size: String,
    /// Storage class of the volume. Default: the default of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

fn ten_gibibytes() -> String {
    "10Gi".to_owned()
}

impl Default for Scratch {
    fn default() -> Self {
        Self { size: ten_gibibytes(), storage_class_name: None }
    }
}

/// Client-side encryption of the dumps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// age public keys (`age1…`, X25519), as `age-keygen` prints them. The private key of any one of them decrypts the
    /// dumps. Default: no client-side encryption.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 62, max = 62), regex(pattern = "^age1[02-9ac-hj-np-z]{58}$")))]
    pub age_recipients: Vec<String>,
}

/// Decryption of encrypted backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decryption {
    /// Secret with the age private keys, as `age-keygen` writes them, in the key `identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret_ref: Option<LocalReference>,
}

/// How dumps are verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// `ReadBack`: every byte is read back from the store. `Checksum`: the SHA-256 that the store computed is compared
    /// (`s3://` only).
    #[serde(default)]
    pub level: RequestedVerification,
    /// After every dump, everything except the rows is restored into a temporary PostgreSQL server in the pod. A dump that
    /// cannot be restored fails.
    #[serde(default = "yes")]
    pub structure: bool,
    /// Restores the newest verified backup with all of its rows into a temporary PostgreSQL server, on a separate schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// When a loss of rows raises the alarm.
    #[serde(default)]
    pub shrink_alarm: ShrinkAlarm,
}

/// When a loss of rows raises the alarm: a guarded table has at least `percent` percent and at least `minRows` rows less than
/// in the backup before, or a guarded table that had rows does not exist any more. The condition `Shrunk` becomes `True`,
/// and the backup before is kept until the loss is acknowledged by the annotation `pgrail.dev/acknowledge-shrink`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShrinkAlarm {
    /// Percentage of the rows of the table.
    #[serde(default = "fifty")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// Number of rows.
    #[serde(default = "thousand")]
    #[schemars(range(min = 1))]
    pub min_rows: i64,
}

fn fifty() -> i32 {
    50
}
fn thousand() -> i64 {
    1000
}

impl Default for ShrinkAlarm {
    fn default() -> Self {
        Self { percent: fifty(), min_rows: thousand() }
    }
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            level: RequestedVerification::default(),
            structure: true,
            drill: None,
            shrink_alarm: ShrinkAlarm::default(),
        }
    }
}

/// How every dump is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestedVerification {
    /// Every byte is read back from the store.
    #[default]
    ReadBack,
    /// The checksum of the store is compared.
    Checksum,
}

/// Which verified dumps are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// The newest verified backups that are always kept.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_keep: i32,
    /// Number of newest backups that are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_last: i32,
    /// Number of days of which the newest backup is kept.
    #[serde(default = "seven")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_daily: i32,
    /// Number of weeks of which the newest backup is kept.
    #[serde(default = "four")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_weekly: i32,
    /// Number of months of which the newest backup is kept.
    #[serde(default = "twelve")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_monthly: i32,
}

fn seven() -> i32 {
    7
}
fn four() -> i32 {
    4
}
fn twelve() -> i32 {
    12
}

impl Default for Retention {
    fn default() -> Self {
        Self { min_keep: 3, keep_last: 3, keep_daily: 7, keep_weekly: 4, keep_monthly: 12 }
    }
}

/// Observed state of a `BackupSchedule`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleStatus {
    /// Time of the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// Start time of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// Completion time of the last successful dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// Snapshot time of the newest verified backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// Time of the last successful drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill_time: Option<Time>,
    /// Duration of the last successful drill: the measured recovery time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill_seconds: Option<i64>,
    /// The last drill, whether it succeeded or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill: Option<DrillReport>,
    /// Largest interval between two runs of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_interval_seconds: Option<i64>,
    /// Time of the last removal of old backups and leftovers that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_prune_time: Option<Time>,
    /// The last comparison of the store with the backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_check: Option<StoreCheck>,
    /// Losses of rows that are not acknowledged, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub shrinks: Vec<Shrink>,
    /// Snapshot time of the newest backup whose loss of rows was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_shrink_time: Option<Time>,
    /// Number of failed runs since the last successful one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<i64>,
    /// Number of dumps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<i64>,
    /// Number of verified dumps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_backups: Option<i64>,
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `BackupFresh`, `LastBackupSucceeded`, `Verified`, `Drilled`, `Shrunk`, `RetentionHealthy`, and `Stalled`
    /// while a change by the user is required.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A backup in which guarded tables have far fewer rows than in the backup before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shrink {
    /// The backup. The annotation `pgrail.dev/acknowledge-shrink` with this name acknowledges the loss, and earlier ones.
    #[schemars(length(max = 253))]
    pub backup: String,
    /// The backup before.
    #[schemars(length(max = 253))]
    pub before: String,
    /// Whether the backup before is kept because of this loss. At most 8 are.
    pub kept: bool,
    /// Snapshot time of the backup.
    pub time: Time,
    /// Number of tables that lost rows.
    pub tables: i64,
    /// The table that lost most, with its rows before and after.
    #[schemars(length(max = 512))]
    pub worst: String,
}

/// What the store contained when it was last compared with the backups of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreCheck {
    /// Time of the comparison.
    pub time: Time,
    /// Number of dumps in the directory of the schedule.
    pub dumps: i64,
    /// Number of backups whose dump, or a part of it, is missing.
    pub missing: i64,
    /// Number of dumps of the schedule that no `DatabaseBackup` records.
    pub unrecorded: i64,
    /// Number of dumps whose manifest cannot be used.
    pub unreadable: i64,
    /// Completion time of the newest dump of this control plane.
    pub newest_time: Time,
    /// Unrecorded dumps that are newer than `newestTime`, at most 8: another control plane is at work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 128)))]
    pub split_brain: Vec<String>,
    /// The directory of the cluster in the annotation `pgrail.dev/adopt-cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_cluster: Option<LostClusterCheck>,
    /// IDs of other clusters whose directories contain dumps of a schedule of this name and namespace, at most 4. They are searched
    /// for a new schedule, and while its own directory is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 36)))]
    pub other_clusters: Vec<String>,
}

/// What the directory of a lost cluster contained when it was last compared with the backups of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostClusterCheck {
    /// ID of the cluster.
    #[schemars(length(max = 36))]
    pub id: String,
    /// Number of dumps of a schedule of this name and namespace.
    pub dumps: i64,
    /// Number of these that no `DatabaseBackup` records.
    pub unrecorded: i64,
    /// Number of dumps whose manifest cannot be used, or is of another schedule or cluster.
    pub unreadable: i64,
    /// Why the directory could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub failure: Option<String>,
}
