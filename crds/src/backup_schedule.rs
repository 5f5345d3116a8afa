//! `BackupSchedule`: scheduled logical dumps, their verification and retention.

use crate::common::{Connection, DeletionPolicy, LocalReference, PodTemplate, retain};
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
    validation = Rule::new("size(self.metadata.name) <= 40").message("the name may have at most 40 characters, since the names of Jobs are made from it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Fresh", type_ = "string", json_path = ".status.conditions[?(@.type==\"BackupFresh\")].status"),
    printcolumn(name = "Verified", type_ = "integer", description = "backups that were read back", json_path = ".status.verifiedBackups"),
    printcolumn(name = "Last-Verified", type_ = "date", json_path = ".status.lastVerifiedTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Schedule", type_ = "string", priority = "1", json_path = ".spec.schedule"),
    printcolumn(name = "Reason", type_ = "string", priority = "1", json_path = ".status.conditions[?(@.type==\"BackupFresh\")].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// The `ProtectedDatabase` of this namespace. It cannot be changed: make another schedule.
    #[x_kube(validation = Rule::new("self == oldSelf").message("databaseRef cannot be changed: create another BackupSchedule and delete this one"))]
    pub database_ref: LocalReference,
    /// Another role or a replica to read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// Cron expression of five fields; `H` stands for a minute or hour hashed from the object's name.
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// Time zone of the schedule and of retention's days, as in the IANA database.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// Make no backups. Counts as late once it lasts longer than `maxAge`.
    #[serde(default)]
    pub suspend: bool,
    /// Make the first backup at once.
    #[serde(default = "yes")]
    pub run_on_create: bool,
    /// Seconds after its time at which a missed run is still made; missed runs become one.
    #[serde(default = "default_starting_deadline")]
    #[schemars(range(min = 10))]
    pub starting_deadline_seconds: i64,
    /// Seconds after which a run is stopped; absent: never, since large dumps are not failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// How often a failed run is tried again; configuration errors are not.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = 0, max = 10))]
    pub backoff_limit: i32,
    /// Succeeded Jobs that are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub successful_jobs_history_limit: i32,
    /// Failed Jobs that are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 100))]
    pub failed_jobs_history_limit: i32,
    /// What is dumped and how.
    #[serde(default)]
    pub dump: Dump,
    /// Where dumps are kept.
    pub storage: Storage,
    /// Scratch volume of the dump pod, only where one is needed.
    #[serde(default)]
    pub scratch: Scratch,
    /// Encryption before anything leaves the pod.
    #[serde(default)]
    pub encryption: Encryption,
    /// What drills of encrypted backups need.
    #[serde(default)]
    pub decryption: Decryption,
    /// How dumps are proven.
    #[serde(default)]
    pub verification: Verification,
    /// Which verified dumps are kept.
    #[serde(default)]
    pub retention: Retention,
    /// What deleting this object does to its dumps.
    #[serde(default = "retain")]
    pub deletion_policy: DeletionPolicy,
    /// Recovery point objective; absent: twice the largest gap of the next 50 fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::optional_duration")]
    pub max_age: Option<Duration>,
    /// Pods that do the work.
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

/// What is dumped and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// Tables dumped at once; more than 1 uses the directory format and scratch space.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub jobs: i32,
    /// Compression of the archive.
    #[serde(default)]
    pub compression: Compression,
    /// Schemas that are dumped; empty: all.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub schemas: Vec<String>,
    /// Globs of tables, `schema.table`, that are left out.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 257)))]
    pub exclude_tables: Vec<String>,
    /// Globs of tables, `schema.table`, whose rows are left out.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 257)))]
    pub exclude_table_data: Vec<String>,
    /// Roles and grants as a separate file, without passwords and without role settings.
    #[serde(default = "yes")]
    pub globals: bool,
    /// How rows are counted.
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

/// How rows are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RowCounts {
    /// Under the dump's snapshot, beside it.
    #[default]
    Exact,
    /// From the archive itself, without a second read of the tables.
    Archive,
}

/// Compression of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.method != 'gzip' || self.level <= 9").message("gzip levels are 0 to 9"),
    validation = Rule::new("self.method != 'lz4' || self.level <= 12").message("lz4 levels are 0 to 12")
)]
pub struct Compression {
    /// Method.
    #[serde(default)]
    pub method: CompressionMethod,
    /// Level, in the method's own scale.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 22))]
    pub level: i32,
}

impl Default for Compression {
    fn default() -> Self {
        Self { method: CompressionMethod::Zstd, level: 3 }
    }
}

/// Methods that `pg_dump` knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionMethod {
    /// Zstandard.
    #[default]
    Zstd,
    /// zlib.
    Gzip,
    /// LZ4.
    Lz4,
    /// None.
    None,
}

/// Where dumps are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.url.startsWith('file://') || has(self.persistentVolumeClaim)").message("a file:// url needs persistentVolumeClaim: the claim that the path lies on"),
    validation = Rule::new("!has(self.persistentVolumeClaim) || self.url.startsWith('file://')").message("persistentVolumeClaim goes with a file:// url"),
    validation = Rule::new("!has(self.endpoint) || self.url.startsWith('s3://')").message("endpoint goes with an s3:// url"),
    validation = Rule::new("!self.url.matches('(^|/)[.][.](/|$)')").message("url must not contain '..'")
)]
pub struct Storage {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `file:///path`, relative to the volume.
    #[schemars(length(min = 6, max = 1024), regex(pattern = "^(s3|gs|az)://[^/]+(/.*)?$|^file:///.*$"))]
    pub url: String,
    /// An S3 server other than Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024), regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Secret with the provider's usual keys; absent: workload identity of `podTemplate.serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// The claim that a `file://` path lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimReference>,
}

/// A PersistentVolumeClaim of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// An ephemeral volume of the dump pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scratch {
    /// Its size.
    #[serde(default = "ten_gibibytes")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?|[kmunE])?$"))]
    pub size: String,
    /// Its storage class; absent: the cluster's default.
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

/// Encryption before anything leaves the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// age recipients; empty: not encrypted by pgrail.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 10, max = 4096)))]
    pub age_recipients: Vec<String>,
}

/// What reading encrypted backups needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decryption {
    /// Secret with an age identity under the key `identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_secret_ref: Option<LocalReference>,
}

/// How dumps are proven.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// `ReadBack`: every byte read from the store again; `Checksum`: the store's own checksum.
    #[serde(default)]
    pub level: RequestedVerification,
    /// Restoring into an ephemeral PostgreSQL on a schedule of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
}

/// How every dump is proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestedVerification {
    /// Every byte read from the store again.
    #[default]
    ReadBack,
    /// The store's own checksum.
    Checksum,
}

/// Restoring into an ephemeral PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// Cron expression of five fields, in the schedule's time zone.
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// Image with a PostgreSQL server and the extensions that the dump needs; absent: pgrail's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Asked of the restored database.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub queries: Vec<DrillQuery>,
}

/// A question to a restored database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrillQuery {
    /// Its name in results.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// One SELECT with one value.
    #[schemars(length(min = 1, max = 4096))]
    pub sql: String,
    /// What the value must be: a literal, or `> 0`, `>= 10`, `< 5`, `<= 5`, `!= x`.
    #[schemars(length(min = 1, max = 256))]
    pub expect: String,
}

/// Which verified dumps are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Never fewer than these.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_keep: i32,
    /// The newest so many.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_last: i32,
    /// The newest of each of so many days.
    #[serde(default = "seven")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_daily: i32,
    /// The newest of each of so many weeks.
    #[serde(default = "four")]
    #[schemars(range(min = 0, max = 1000))]
    pub keep_weekly: i32,
    /// The newest of each of so many months.
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

/// How the schedule does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleStatus {
    /// When the next run is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// When the last run was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the last successful dump was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The snapshot time of the newest verified dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// When the newest drill passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill_time: Option<Time>,
    /// How long it took: the measured recovery time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill_seconds: Option<i64>,
    /// The largest gap between two runs of the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_interval_seconds: Option<i64>,
    /// Failed runs since the last successful one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<i64>,
    /// Dumps that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<i64>,
    /// Of these, verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_backups: Option<i64>,
    /// The generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `BackupFresh`, `LastBackupSucceeded`, `Verified`, `Drilled`, `RetentionHealthy`, and `Stalled` while something must be mended.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}
