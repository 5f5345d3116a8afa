//! The configuration of an agent: the interface between the controllers and the pods of their Jobs.
//!
//! The configuration is JSON in the variable [`CONFIG_VARIABLE`] and holds no login and no private key: those are mounted as files under
//! [`CONNECTION_DIRECTORY`], [`CA_DIRECTORY`] and [`STORE_DIRECTORY`], one file per key of the Secret.

use super::run_name::RunName;
use pgrail_dump::{
    Compression, Filter, Known, LostCluster, RowCounts, ScheduleIdentity, ShrinkAlarm, StoreUrl, VerificationLevel,
};
use pgrail_postgres::AddressPolicy;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Variable with the configuration, as JSON.
pub(crate) const CONFIG_VARIABLE: &str = "PGRAIL_AGENT_CONFIG";
/// Variable with the name of the Job that the pod belongs to (downward API).
pub(crate) const JOB_VARIABLE: &str = "PGRAIL_JOB_NAME";
/// Variable with the pod's UID (downward API): the run id in the dump's location is made from it.
pub(crate) const POD_UID_VARIABLE: &str = "PGRAIL_POD_UID";
/// Where the Secret with the login is mounted, one file per key. Only in the container `dump`.
pub(crate) const CONNECTION_DIRECTORY: &str = "/etc/pgrail/connection";
/// Where the CA of the server is mounted, as the file [`CA_FILE`]; absent without one.
pub(crate) const CA_DIRECTORY: &str = "/etc/pgrail/authority";
pub(crate) const CA_FILE: &str = "ca.crt";
/// Where the store's Secret is mounted, one file per key; absent with workload identity and `file://`.
pub(crate) const STORE_DIRECTORY: &str = "/etc/pgrail/store";
/// Where the CA of the store's endpoint is mounted, as the file [`CA_FILE`]; absent without one.
pub(crate) const STORE_CA_DIRECTORY: &str = "/etc/pgrail/store-authority";
/// Where the Secret with the private keys is mounted, which encrypted backups are read with. Only in the containers `restore`,
/// `verify` and `drill`.
pub(crate) const IDENTITY_DIRECTORY: &str = "/etc/pgrail/identity";
/// The key of that Secret.
pub(crate) const IDENTITY_KEY: &str = "identity";
/// Where the volume of `file://` is mounted; absent for every other store.
pub(crate) const VOLUME_DIRECTORY: &str = "/dumps";
/// Shared by the containers of one pod: `dump` writes its whole result here, `verify` reads it.
pub(crate) const WORK_DIRECTORY: &str = "/work";
/// The whole result (`pgrail_dump::DumpResult` with its details, as JSON) in [`WORK_DIRECTORY`].
pub(crate) const RESULT_FILE: &str = "dump.json";
/// Shared by the containers `verify` or `drill` and `postgres`: the socket of the temporary server.
pub(crate) const DRILL_DIRECTORY: &str = "/drill";
/// The data of the temporary server. Only in the container `postgres`.
pub(crate) const SCRATCH_DIRECTORY: &str = "/scratch";
/// A file in [`DRILL_DIRECTORY`] that starts the temporary server: until then it would only use memory.
pub(crate) const START_FILE: &str = "start";
/// A file in [`DRILL_DIRECTORY`] with the reason why the temporary server does not run.
pub(crate) const PROBLEM_FILE: &str = "problem";
/// Exit status of a failure that a retry cannot fix: the Job's `podFailurePolicy` fails it at once.
/// Every other failure ends with 1 and is retried.
pub(crate) const EXIT_NOT_RETRYABLE: u8 = 78;

/// The task of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentConfig {
    /// Only dumps of this schedule are written, listed or pruned.
    pub(crate) identity: ScheduleIdentity,
    /// Where they are kept.
    pub(crate) store: StoreConfig,
    /// What it connects to; everything if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) addresses: Option<AddressConfig>,
    /// For `pgrail agent dump` and `verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dump: Option<DumpConfig>,
    /// For `pgrail agent inventory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inventory: Option<InventoryConfig>,
    /// For `pgrail agent prune`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prune: Option<PruneConfig>,
    /// For `pgrail agent restore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restore: Option<RestoreConfig>,
    /// For `pgrail agent drill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drill: Option<DrillConfig>,
}

/// The rules of the operator for addresses: loopback, link-local and the apiserver's are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddressConfig {
    /// Also refused: the apiserver's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) refused: Vec<IpAddr>,
    /// Allowed nevertheless: networks of the operator's `--allowed-hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed: Vec<String>,
}

impl AddressConfig {
    pub(crate) fn policy(&self) -> AddressPolicy {
        let allowed = self.allowed.iter().filter_map(|network| network.parse().ok()).collect();
        AddressPolicy::restricted(self.refused.clone(), allowed)
    }
}

impl AgentConfig {
    pub(crate) fn policy(&self) -> AddressPolicy {
        self.addresses.as_ref().map_or_else(AddressPolicy::any, AddressConfig::policy)
    }
}

/// How the store is reached; its credentials are mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoreConfig {
    /// Where dumps are kept; `file://` paths lie below [`VOLUME_DIRECTORY`].
    pub(crate) url: StoreUrl,
    /// Another server that speaks the S3 protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// Whether `http://` is allowed: only inside the cluster, which the operator has checked.
    #[serde(default)]
    pub(crate) allow_http: bool,
    /// Whether the store is asked to compute SHA-256 of what is uploaded.
    #[serde(default)]
    pub(crate) sha256: bool,
}

/// One dump and its verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DumpConfig {
    /// The `ProtectedDatabase`, as `namespace/name`.
    pub(crate) database: String,
    /// Its UID.
    pub(crate) database_uid: String,
    /// Names the `DatabaseBackup` that the dump is for.
    #[serde(flatten)]
    pub(crate) name: RunName,
    /// Overrides the Secret's keys.
    #[serde(default)]
    pub(crate) connection: ConnectionConfig,
    /// How the archive is compressed.
    pub(crate) compression: Compression,
    /// Tables and schemas that are left out.
    #[serde(default)]
    pub(crate) filter: Filter,
    /// Roles and memberships beside the dump.
    pub(crate) globals: bool,
    /// The public keys that the dump is encrypted for; none: it is not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) age_recipients: Vec<String>,
    /// The key that runs of the schedule compare the row counts of encrypted dumps with. Without the store, it reveals nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows_key: Option<String>,
    /// How many pg_dump run at the same time.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) jobs: u32,
    /// How rows are counted.
    pub(crate) row_counts: RowCounts,
    /// How the dump is verified before it is published.
    pub(crate) verification: VerificationLevel,
    /// When a loss of rows raises the alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shrink_alarm: Option<ShrinkAlarm>,
    /// Whether its structure is restored into the container `postgres`.
    #[serde(default)]
    pub(crate) structure: bool,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(jobs: &u32) -> bool {
    *jobs == 1
}

/// A backup that is restored into the container `postgres`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DrillConfig {
    /// Name of the `DatabaseBackup`.
    pub(crate) backup: String,
    /// The directory of the backup below the store's prefix.
    pub(crate) location: String,
    /// SHA-256 of its manifest: no other one is used.
    pub(crate) manifest_sha256: String,
    /// What must be true of the restored database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) queries: Vec<DrillQueryConfig>,
}

/// A query on the restored database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DrillQueryConfig {
    /// Its name.
    pub(crate) name: String,
    /// One statement that returns one value.
    pub(crate) sql: String,
    /// What it must return.
    pub(crate) expect: String,
}

/// What is restored of a backup: everything into a new database, tables into a new schema, or rows into the tables that they came
/// from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "as the fields of the spec")]
pub(crate) struct RestoreConfig {
    /// The directory of the backup below the store's prefix.
    pub(crate) location: String,
    /// SHA-256 of its manifest: no other one is used.
    pub(crate) manifest_sha256: String,
    /// Overrides the Secret's keys.
    #[serde(default)]
    pub(crate) connection: ConnectionConfig,
    /// The database that is created for the whole backup; the other fields are not used then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) new_database: Option<NewConfig>,
    /// The schema that is created for the tables, which are all of one schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) new_schema: Option<NewConfig>,
    /// Which rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tables: Vec<RestoreTableConfig>,
    /// With the rows that depend on them.
    #[serde(default)]
    pub(crate) follow_cascade: bool,
    /// Whether existing rows that are different are kept; else they are a failure.
    #[serde(default)]
    pub(crate) skip_existing: bool,
    /// Whether triggers of the tables do not fire.
    #[serde(default)]
    pub(crate) skip_triggers: bool,
    /// Whether nothing is changed.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// A database, or a schema, that is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewConfig {
    /// Its name.
    pub(crate) name: String,
    /// UID of the `DatabaseRestore`: its next pod replaces what an earlier one left.
    pub(crate) id: String,
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RestoreTableConfig {
    /// Its schema.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// A condition on its columns; none: all rows.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<String>,
}

/// Overrides the keys of the connection's Secret: `crate::secret::Overrides`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConnectionConfig {
    /// Host name. The pod runs in the namespace of the object, so a Service's short name resolves as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    /// Role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// As libpq's `sslmode`; of this and the Secret's URI, the stricter holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<String>,
}

/// The dumps that are recorded: at most `pgrail_dump::KNOWN_AT_MOST`, which fit into one variable of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InventoryConfig {
    /// By the position in this list, the result names them.
    pub(crate) known: Vec<Known>,
    /// Another cluster, whose dumps of the same namespace and schedule are listed, too: the only part of the identity that a user
    /// chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<LostCluster>,
    /// Whether other clusters with such dumps are named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) find_clusters: bool,
}

/// What to remove from the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PruneConfig {
    /// Directories below the store's prefix, as in `DumpResult::location`; each is refused unless its manifest carries the
    /// identity. A missing one is no error. Success means that none of them is left.
    pub(crate) locations: Vec<String>,
    /// How the run ids of running dumps start: their uploads are not leftovers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) running: Vec<String>,
    /// Age of leftovers; a day if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grace_seconds: Option<u64>,
}
