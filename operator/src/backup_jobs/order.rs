//! What a backup is made from, validated: the only thing that pods are built from. Pure.

use crate::agent::config::{ConnectionConfig, DumpConfig, StoreConfig};
use jiff::Timestamp;
use pgrail_crds::conditions::reasons::{self, backup};
use pgrail_crds::{
    BackupSchedule, BackupScheduleSpec, CompressionMethod as DeclaredMethod, RowCounts as DeclaredCounts,
};
use pgrail_crds::{
    Connection, DatabaseBackup, Dump, PodTemplate, ProtectedDatabase, RequestedVerification, SecretKeyReference,
    Storage, TlsMode,
};
use pgrail_dump::{
    Compression, CompressionMethod, Filter, PatternError, RowCounts, ScheduleIdentity, Scheme, StoreUrl, StoreUrlError,
    VerificationLevel,
};
use std::net::IpAddr;

/// How often a failed run of a backup without a schedule is tried again.
const DEFAULT_BACKOFF_LIMIT: i32 = 2;

/// Why nothing can be ordered as declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// The store's URL cannot be used.
    #[error("spec.storage.url: {0}")]
    Url(#[from] StoreUrlError),
    /// The store's endpoint cannot be used.
    #[error("spec.storage.endpoint {endpoint:?}: {problem}")]
    Endpoint {
        /// What it says.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Fields that do not go together.
    #[error("spec.storage: {0}")]
    Storage(&'static str),
    /// A pattern that names nothing.
    #[error("spec.dump: {0}")]
    Pattern(#[from] PatternError),
    /// A field that this release does not act on.
    #[error("{field} is not part of pgrail {}: {remedy}", env!("CARGO_PKG_VERSION"))]
    NotImplemented {
        /// Which.
        field: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The pods would run as root.
    #[error(
        "spec.podTemplate.securityContext: user and group 0 are root, which pods of pgrail never are: give another number, or none"
    )]
    Root,
    /// A value that the schema should have stopped.
    #[error("{field}: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl OrderError {
    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::Endpoint { .. } | Self::Storage(_) => backup::INVALID_STORAGE,
            Self::NotImplemented { .. } => reasons::NOT_IMPLEMENTED,
            Self::Pattern(_) | Self::Root | Self::Field { .. } => reasons::INVALID_SPEC,
        }
    }
}

/// Where dumps are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderedStore {
    /// What the agent is told.
    pub(crate) config: StoreConfig,
    /// The Secret with the credentials.
    pub(crate) secret: Option<String>,
    /// The claim that `file://` lies on.
    pub(crate) claim: Option<String>,
}

/// How pods reach the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderedConnection {
    /// The Secret with the login.
    pub(crate) secret: String,
    /// The certificate authority.
    pub(crate) authority: Option<SecretKeyReference>,
    /// What beats the Secret's keys.
    pub(crate) overrides: ConnectionConfig,
}

/// Whose dumps are where: everything that a prune needs, and a dump too.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Site {
    /// Whose dumps.
    pub(crate) identity: ScheduleIdentity,
    /// The schedule's name, where there is one.
    pub(crate) schedule: Option<String>,
    /// Name of the `ProtectedDatabase`.
    pub(crate) database: String,
    /// Where dumps are kept.
    pub(crate) store: OrderedStore,
    /// What is said of the pods.
    pub(crate) pods: PodTemplate,
}

/// Everything that the pods of a dump are made from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    /// Whose dumps are where.
    pub(crate) site: Site,
    /// UID of the `ProtectedDatabase`.
    pub(crate) database_uid: String,
    /// How to reach it.
    pub(crate) connection: OrderedConnection,
    /// How the archive is compressed.
    pub(crate) compression: Compression,
    /// What is left out.
    pub(crate) filter: Filter,
    /// Roles and memberships beside the dump.
    pub(crate) globals: bool,
    /// How rows are counted.
    pub(crate) row_counts: RowCounts,
    /// How the dump is verified.
    pub(crate) verification: VerificationLevel,
    /// How often a failed run is tried again.
    pub(crate) backoff_limit: i32,
    /// When a run is stopped.
    pub(crate) active_deadline_seconds: Option<i64>,
}

impl Order {
    /// What the agent of a dump is told.
    pub(crate) fn dump_config(&self, backup_name: Option<&str>) -> DumpConfig {
        DumpConfig {
            database: format!("{}/{}", self.site.identity.namespace, self.site.database),
            database_uid: self.database_uid.clone(),
            backup_name: backup_name.map(str::to_owned),
            connection: self.connection.overrides.clone(),
            compression: self.compression,
            filter: self.filter.clone(),
            globals: self.globals,
            row_counts: self.row_counts,
            verification: self.verification,
        }
    }
}

/// Where the dumps of a schedule are.
pub(crate) fn site_of_schedule(schedule: &BackupSchedule, cluster_id: &str) -> Result<Site, OrderError> {
    let spec = &schedule.spec;
    Ok(Site {
        identity: identity(schedule, cluster_id),
        schedule: schedule.metadata.name.clone(),
        database: spec.database_ref.name.clone(),
        store: store(&spec.storage)?,
        pods: pods(&spec.pod_template)?,
    })
}

/// Where the dump of a backup without a schedule is.
pub(crate) fn site_of_backup(backup: &DatabaseBackup, cluster_id: &str) -> Result<Site, OrderError> {
    let missing = || OrderError::Storage("a backup without a schedule needs databaseRef and storage");
    Ok(Site {
        identity: identity(backup, cluster_id),
        schedule: None,
        database: backup.spec.database_ref.as_ref().ok_or_else(missing)?.name.clone(),
        store: store(backup.spec.storage.as_ref().ok_or_else(missing)?)?,
        pods: PodTemplate::default(),
    })
}

/// What a schedule orders.
pub(crate) fn of_schedule(
    schedule: &BackupSchedule,
    database: &ProtectedDatabase,
    cluster_id: &str,
) -> Result<Order, OrderError> {
    let spec = &schedule.spec;
    refuse_what_is_not_built(spec)?;
    let connection = spec.connection.as_ref().unwrap_or(&database.spec.connection);
    let mut order = order(site_of_schedule(schedule, cluster_id)?, database, connection, &spec.dump)?;
    order.verification = match spec.verification.level {
        RequestedVerification::ReadBack => VerificationLevel::ReadBack,
        RequestedVerification::Checksum => VerificationLevel::Checksum,
    };
    order.backoff_limit = spec.backoff_limit;
    order.active_deadline_seconds = spec.active_deadline_seconds;
    Ok(order)
}

/// What a backup without a schedule orders.
pub(crate) fn of_backup(
    backup: &DatabaseBackup,
    database: &ProtectedDatabase,
    cluster_id: &str,
) -> Result<Order, OrderError> {
    let dump = backup.spec.dump.clone().unwrap_or_default();
    order(site_of_backup(backup, cluster_id)?, database, &database.spec.connection, &dump)
}

/// Whose dumps an object's are.
pub(crate) fn identity(object: &impl kube::ResourceExt, cluster_id: &str) -> ScheduleIdentity {
    ScheduleIdentity {
        cluster_id: cluster_id.to_owned(),
        namespace: object.namespace().unwrap_or_default(),
        schedule: object.name_any(),
        schedule_uid: object.uid().unwrap_or_default(),
    }
}

fn order(site: Site, database: &ProtectedDatabase, declared: &Connection, dump: &Dump) -> Result<Order, OrderError> {
    if dump.jobs > 1 {
        let remedy = "leave it at 1: the archive streams to the store without scratch space";
        return Err(OrderError::NotImplemented { field: "spec.dump.jobs greater than 1", remedy });
    }
    let filter = Filter {
        schemas: dump.schemas.clone(),
        exclude_tables: dump.exclude_tables.clone(),
        exclude_table_data: dump.exclude_table_data.clone(),
    };
    filter.check()?;
    Ok(Order {
        site,
        database_uid: database.metadata.uid.clone().unwrap_or_default(),
        connection: connection(declared)?,
        compression: compression(dump),
        filter,
        globals: dump.globals,
        row_counts: match dump.row_counts {
            DeclaredCounts::Exact => RowCounts::Exact,
            DeclaredCounts::Archive => RowCounts::Archive,
        },
        verification: VerificationLevel::ReadBack,
        backoff_limit: DEFAULT_BACKOFF_LIMIT,
        active_deadline_seconds: None,
    })
}

/// Fields that are in the API and not yet in the engine: refused by name, never passed over in silence.
fn refuse_what_is_not_built(spec: &BackupScheduleSpec) -> Result<(), OrderError> {
    if !spec.encryption.age_recipients.is_empty() {
        let remedy = "leave it out, and let the store encrypt, until a release that has it";
        return Err(OrderError::NotImplemented { field: "spec.encryption.ageRecipients", remedy });
    }
    if spec.decryption.identity_secret_ref.is_some() {
        let remedy = "leave it out: it is for drills of encrypted backups";
        return Err(OrderError::NotImplemented { field: "spec.decryption.identitySecretRef", remedy });
    }
    Ok(())
}

fn connection(declared: &Connection) -> Result<OrderedConnection, OrderError> {
    let port = declared.port.map(u16::try_from).transpose();
    let port =
        port.map_err(|_| OrderError::Field { field: "spec.connection.port", problem: "it is not 1 to 65535" })?;
    Ok(OrderedConnection {
        secret: declared.secret_ref.name.clone(),
        authority: declared.tls.ca_secret_ref.clone(),
        overrides: ConnectionConfig {
            host: declared.host.clone(),
            port,
            database: declared.database.clone(),
            user: declared.user.clone(),
            tls: Some(sslmode(declared.tls.mode).to_owned()),
        },
    })
}

fn sslmode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}

fn compression(dump: &Dump) -> Compression {
    let method = match dump.compression.method {
        DeclaredMethod::Zstd => CompressionMethod::Zstd,
        DeclaredMethod::Gzip => CompressionMethod::Gzip,
        DeclaredMethod::Lz4 => CompressionMethod::Lz4,
        DeclaredMethod::None => CompressionMethod::None,
    };
    // Level 0 is what the API calls the method's own default.
    Compression { method, level: Some(dump.compression.level).filter(|level| *level > 0) }
}

/// Reads where dumps are kept.
pub(crate) fn store(storage: &Storage) -> Result<OrderedStore, OrderError> {
    let url = StoreUrl::parse(&storage.url)?;
    let is_file = url.scheme() == Scheme::File;
    let claim = storage.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    if is_file != claim.is_some() {
        return Err(OrderError::Storage("a file:// url and persistentVolumeClaim go together"));
    }
    if is_file && storage.secret_ref.is_some() {
        return Err(OrderError::Storage("secretRef means nothing with a file:// url: leave it out"));
    }
    if url.scheme() != Scheme::S3 && (storage.endpoint.is_some() || storage.region.is_some()) {
        return Err(OrderError::Storage("endpoint and region go with an s3:// url"));
    }
    let allow_http = match &storage.endpoint {
        Some(endpoint) => plain_http_allowed(endpoint)?,
        None => false,
    };
    let secret = storage.secret_ref.as_ref().map(|reference| reference.name.clone());
    let config = StoreConfig { url, endpoint: storage.endpoint.clone(), region: storage.region.clone(), allow_http };
    Ok(OrderedStore { config, secret, claim })
}

/// Whether an endpoint is plain http, which is for stores inside the cluster only: dumps pass in clear.
fn plain_http_allowed(endpoint: &str) -> Result<bool, OrderError> {
    let Some(rest) = endpoint.strip_prefix("http://") else { return Ok(false) };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    let inside = match host.parse::<IpAddr>() {
        // Pods and Services have addresses of private networks.
        Ok(IpAddr::V4(address)) => address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_unique_local(),
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            let name = name.strip_suffix(".cluster.local").unwrap_or(&name);
            name.rsplit_once('.').is_none_or(|(_, last)| last == "svc")
        }
    };
    if inside && !host.is_empty() && host != "localhost" {
        return Ok(true);
    }
    let problem =
        "plain http is for a Service of the cluster (name.namespace.svc): dumps would pass in clear; use https://";
    Err(OrderError::Endpoint { endpoint: endpoint.chars().take(100).collect(), problem })
}

fn pods(template: &PodTemplate) -> Result<PodTemplate, OrderError> {
    let ids = template.security_context.clone().unwrap_or_default();
    let groups = ids.supplemental_groups.unwrap_or_default();
    let all = [ids.run_as_user, ids.run_as_group, ids.fs_group].into_iter().flatten().chain(groups);
    if all.into_iter().any(|id| id < 1) { Err(OrderError::Root) } else { Ok(template.clone()) }
}

/// When an object was made; the beginning of time for one that was never stored.
pub(crate) fn created(object: &impl kube::ResourceExt) -> Timestamp {
    object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{database, schedule};
    use serde_json::json;

    fn refused(patch: serde_json::Value) -> OrderError {
        of_schedule(&schedule(patch), &database(), "cluster").unwrap_err()
    }

    #[test]
    fn a_schedule_becomes_an_order() {
        let order = of_schedule(&schedule(json!({})), &database(), "cluster").unwrap();
        assert_eq!(order.site.identity.directory().unwrap(), "cluster/shop/nightly");
        assert_eq!(
            (order.connection.secret.as_str(), order.site.store.secret.as_deref()),
            ("shop-pgrail", Some("backup-store"))
        );
        assert_eq!(order.connection.overrides.host.as_deref(), Some("shop-rw"));
        assert_eq!(order.connection.overrides.tls.as_deref(), Some("prefer"));
        assert_eq!(order.compression, Compression { method: CompressionMethod::Zstd, level: Some(3) });
        assert_eq!(order.dump_config(None).database, "shop/shop");
        let own = json!({"connection": {"secretRef": {"name": "replica"}, "host": "shop-ro"}});
        let order = of_schedule(&schedule(own), &database(), "cluster").unwrap();
        assert_eq!(
            (order.connection.secret.as_str(), order.connection.overrides.host.as_deref()),
            ("replica", Some("shop-ro"))
        );
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (patch, field) in [
            (json!({"encryption": {"ageRecipients": ["age1qqqqqqqqq"]}}), "spec.encryption.ageRecipients"),
            (json!({"dump": {"jobs": 4}}), "spec.dump.jobs"),
            (json!({"decryption": {"identitySecretRef": {"name": "age"}}}), "spec.decryption.identitySecretRef"),
        ] {
            let error = refused(patch);
            assert_eq!(error.reason(), "NotImplemented");
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }

    #[test]
    fn stores_that_cannot_be_used() {
        for (storage, says) in [
            (json!({"url": "s3://UPPER/x"}), "not a bucket"),
            (json!({"url": "s3://backups/a/../b"}), "another folder"),
            (json!({"url": "file:///dumps"}), "persistentVolumeClaim"),
            (json!({"url": "gs://backups/x", "region": "eu"}), "s3:// url"),
            (json!({"url": "s3://backups/x", "endpoint": "http://s3.example.com"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://8.8.8.8:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://localhost:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://svc.evil.com:9000"}), "plain http"),
        ] {
            let error = refused(json!({"storage": storage}));
            assert_eq!(error.reason(), "InvalidStorage");
            assert!(error.to_string().contains(says), "{error}");
        }
        for endpoint in ["http://s3.infra.svc:9000", "http://s3:9000", "http://10.96.0.7:9000", "http://[fd00::7]:9000"]
        {
            let storage = json!({"url": "s3://backups/x", "endpoint": endpoint});
            assert!(
                of_schedule(&schedule(json!({"storage": storage})), &database(), "c")
                    .unwrap()
                    .site
                    .store
                    .config
                    .allow_http
            );
        }
        let storage = json!({"url": "s3://backups/x", "endpoint": "https://s3.example.com"});
        assert!(
            !of_schedule(&schedule(json!({"storage": storage})), &database(), "c")
                .unwrap()
                .site
                .store
                .config
                .allow_http
        );
    }

    #[test]
    fn root_is_refused() {
        let error = refused(json!({"podTemplate": {"securityContext": {"supplementalGroups": [0]}}}));
        assert_eq!(error.reason(), "InvalidSpec");
    }
}
