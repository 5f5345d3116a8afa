//! The validated spec of a backup's Job: its pods are built from nothing else. Pure.

use super::dereference::Secrets;
use super::destination::{self, Destination};
use super::error::JobSpecError;
use super::names::cron_job_name;
use crate::agent::config::{ConnectionConfig, DumpConfig};
use crate::agent::run_name::RunName;
use pgrail_crds::{
    BackupSchedule, CompressionMethod as DeclaredMethod, Connection, DatabaseBackup, Dump, ProtectedDatabase,
    RequestedVerification, RowCounts as DeclaredCounts, SecretKeyReference, TlsMode,
};
use pgrail_dump::{
    Compression, CompressionMethod, Filter, Recipients, RowCounts, ScheduleIdentity, Scheme, ShrinkAlarm,
    VerificationLevel,
};
use sha2::{Digest, Sha256};

/// Retries of a failed run of a backup without a schedule.
const DEFAULT_BACKOFF_LIMIT: i32 = 2;

/// A connection and its Secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionSpec {
    /// Name of the Secret with the login.
    pub(crate) secret: String,
    pub(crate) ca: Option<SecretKeyReference>,
    /// Override the Secret's keys.
    pub(crate) overrides: ConnectionConfig,
}

/// A backup's Job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JobSpec {
    pub(crate) destination: Destination,
    /// UID of the `ProtectedDatabase`.
    pub(crate) database_uid: String,
    pub(crate) connection: ConnectionSpec,
    pub(crate) compression: Compression,
    pub(crate) filter: Filter,
    pub(crate) globals: bool,
    pub(crate) age_recipients: Vec<String>,
    /// Of encrypted backups of a schedule.
    pub(crate) rows_key: Option<String>,
    pub(crate) jobs: u32,
    pub(crate) row_counts: RowCounts,
    pub(crate) verification: VerificationLevel,
    /// Of a backup of a schedule.
    pub(crate) shrink_alarm: Option<ShrinkAlarm>,
    /// Whether the structural drill is done.
    pub(crate) structure: bool,
    pub(crate) backoff_limit: i32,
    pub(crate) active_deadline_seconds: Option<i64>,
}

impl JobSpec {
    /// The agent's configuration of the dump. Without `backup`, the run is one of the schedule's CronJob.
    pub(crate) fn dump_config(&self, backup: Option<&str>) -> DumpConfig {
        DumpConfig {
            database: format!("{}/{}", self.destination.identity.namespace, self.destination.database),
            database_uid: self.database_uid.clone(),
            name: match backup {
                Some(backup) => RunName::Backup(backup.to_owned()),
                None => RunName::CronJob(cron_job_name(&self.destination.identity.schedule)),
            },
            connection: self.connection.overrides.clone(),
            compression: self.compression,
            filter: self.filter.clone(),
            globals: self.globals,
            age_recipients: self.age_recipients.clone(),
            rows_key: self.rows_key.clone(),
            jobs: self.jobs,
            row_counts: self.row_counts,
            verification: self.verification,
            shrink_alarm: self.shrink_alarm,
            structure: self.structure,
        }
    }
}

pub(crate) fn of_schedule(
    schedule: &BackupSchedule,
    database: &ProtectedDatabase,
    secrets: Secrets,
    cluster_id: &str,
) -> Result<JobSpec, JobSpecError> {
    let spec = &schedule.spec;
    let connection = spec.connection.as_ref().unwrap_or(&database.spec.connection);
    let mut job = job_spec(destination::of_schedule(schedule, cluster_id)?, database, connection, &spec.dump)?;
    job.verification = match spec.verification.level {
        RequestedVerification::ReadBack => VerificationLevel::ReadBack,
        RequestedVerification::Checksum => VerificationLevel::Checksum,
    };
    if job.verification == VerificationLevel::Checksum {
        if job.destination.store.config.url.scheme() != Scheme::S3 {
            return Err(JobSpecError::Storage(
                "verification.level Checksum needs an s3:// url, whose store computes SHA-256: use ReadBack",
            ));
        }
        job.destination.store.config.sha256 = true;
    }
    Recipients::parse(&spec.encryption.age_recipients)?;
    job.age_recipients.clone_from(&spec.encryption.age_recipients);
    if !job.age_recipients.is_empty() {
        job.rows_key = rows_key(&secrets.login_uid, &job.destination.identity);
    }
    let alarm = &spec.verification.shrink_alarm;
    job.shrink_alarm = Some(ShrinkAlarm {
        percent: u32::try_from(alarm.percent).unwrap_or(1).clamp(1, 100),
        min_rows: u64::try_from(alarm.min_rows).unwrap_or(1),
    });
    job.structure = spec.verification.structure;
    job.backoff_limit = spec.backoff_limit;
    job.active_deadline_seconds = spec.active_deadline_seconds;
    check_secrets(&job, secrets)?;
    Ok(job)
}

/// The key that the runs of a schedule compare the row counts of encrypted backups with. The UID of the Secret with the login has 122
/// random bits, which only those see who can read the Secret: they can read the rows themselves. The store does not contain
/// it, unlike the UIDs of schedule and database.
fn rows_key(login_uid: &str, schedule: &ScheduleIdentity) -> Option<String> {
    if login_uid.is_empty() {
        return None;
    }
    let digest = Sha256::digest(format!("pgrail row counts\n{login_uid}\n{}", schedule.schedule_uid));
    Some(digest.iter().fold(String::with_capacity(64), |text, byte| format!("{text}{byte:02x}")))
}

/// Of a backup without a schedule.
pub(crate) fn of_backup(
    backup: &DatabaseBackup,
    database: &ProtectedDatabase,
    secrets: Secrets,
    cluster_id: &str,
) -> Result<JobSpec, JobSpecError> {
    let dump = backup.spec.dump.clone().unwrap_or_default();
    let job = job_spec(destination::of_backup(backup, cluster_id)?, database, &database.spec.connection, &dump)?;
    check_secrets(&job, secrets)?;
    Ok(job)
}

fn check_secrets(job: &JobSpec, secrets: Secrets) -> Result<(), JobSpecError> {
    if let Some(error) = secrets.connection {
        return Err(error.into());
    }
    if let Some(problem) = secrets.store_ca {
        return Err(JobSpecError::StoreCa(problem));
    }
    job.destination.store.check_secret(secrets.store)
}

fn job_spec(
    destination: Destination,
    database: &ProtectedDatabase,
    declared: &Connection,
    dump: &Dump,
) -> Result<JobSpec, JobSpecError> {
    let filter = Filter {
        schemas: dump.schemas.clone(),
        exclude_tables: dump.exclude_tables.clone(),
        exclude_table_data: dump.exclude_table_data.clone(),
    };
    filter.check()?;
    Ok(JobSpec {
        destination,
        database_uid: database.metadata.uid.clone().unwrap_or_default(),
        connection: connection(declared)?,
        compression: compression(dump),
        filter,
        globals: dump.globals,
        age_recipients: Vec::new(),
        rows_key: None,
        jobs: u32::try_from(dump.jobs).unwrap_or(1).max(1),
        row_counts: match dump.row_counts {
            DeclaredCounts::Exact => RowCounts::Exact,
            DeclaredCounts::Archive => RowCounts::Archive,
        },
        verification: VerificationLevel::ReadBack,
        shrink_alarm: None,
        structure: true,
        backoff_limit: DEFAULT_BACKOFF_LIMIT,
        active_deadline_seconds: None,
    })
}

pub(crate) fn connection(declared: &Connection) -> Result<ConnectionSpec, JobSpecError> {
    let port = declared.port.map(u16::try_from).transpose();
    let port =
        port.map_err(|_| JobSpecError::Field { field: "spec.connection.port", problem: "it is not 1 to 65535" })?;
    Ok(ConnectionSpec {
        secret: declared.secret_ref.name.clone(),
        ca: declared.tls.ca_secret_ref.clone(),
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
    // Level 0 of the API is the method's own default.
    Compression { method, level: Some(dump.compression.level).filter(|level| *level > 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{database, schedule};
    use serde_json::json;

    #[test]
    fn a_schedule_becomes_a_job_spec() {
        let spec = of_schedule(&schedule(json!({})), &database(), Secrets::default(), "cluster").unwrap();
        assert_eq!(spec.destination.identity.directory().unwrap(), "cluster/shop/nightly");
        assert_eq!(
            (spec.connection.secret.as_str(), spec.destination.store.secret.as_deref()),
            ("shop-pgrail", Some("backup-store"))
        );
        assert_eq!(spec.connection.overrides.host.as_deref(), Some("shop-rw"));
        assert_eq!(spec.connection.overrides.tls.as_deref(), Some("prefer"));
        assert_eq!(spec.compression, Compression { method: CompressionMethod::Zstd, level: Some(3) });
        assert_eq!(spec.dump_config(None).database, "shop/shop");
        let own = json!({"connection": {"secretRef": {"name": "replica"}, "host": "shop-ro"}});
        let spec = of_schedule(&schedule(own), &database(), Secrets::default(), "cluster").unwrap();
        assert_eq!(
            (spec.connection.secret.as_str(), spec.connection.overrides.host.as_deref()),
            ("replica", Some("shop-ro"))
        );
    }

    #[test]
    fn a_checksum_needs_a_store_that_computes_it() {
        let checksum = |url: &str, claim: serde_json::Value| {
            let storage = json!({"url": url, "persistentVolumeClaim": claim});
            let schedule = schedule(json!({"verification": {"level": "Checksum"}, "storage": storage}));
            of_schedule(&schedule, &database(), Secrets::default(), "cluster")
        };
        assert!(checksum("s3://backups/x", json!(null)).unwrap().destination.store.config.sha256);
        for (url, claim) in [("gs://backups/x", json!(null)), ("file:///x", json!({"claimName": "dumps"}))] {
            assert_eq!(checksum(url, claim).unwrap_err().reason().as_str(), "InvalidStorage");
        }
    }

    #[test]
    fn only_encrypted_backups_have_a_key_of_row_counts() {
        let good = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        let key = |keys: serde_json::Value, uid: &str| {
            let secrets = Secrets { login_uid: uid.to_owned(), ..Secrets::default() };
            let schedule = schedule(json!({"encryption": {"ageRecipients": keys}}));
            of_schedule(&schedule, &database(), secrets, "cluster").unwrap().dump_config(None).rows_key
        };
        let first = key(json!([good]), "b0a4c1c6-1c1f-4f1a-9a52-0242ac120002").unwrap();
        assert_eq!((first.len(), first.contains("b0a4c1c6")), (64, false));
        assert_eq!(
            key(json!([good]), "b0a4c1c6-1c1f-4f1a-9a52-0242ac120002"),
            Some(first.clone()),
            "every run has the same"
        );
        assert_ne!(key(json!([good]), "e5b8f0de-1c1f-4f1a-9a52-0242ac120002"), Some(first));
        assert_eq!(key(json!([]), "b0a4c1c6-1c1f-4f1a-9a52-0242ac120002"), None);
        assert_eq!(key(json!([good]), ""), None, "what everybody knows is no key");
    }

    #[test]
    fn recipients_are_checked_and_named_by_their_place() {
        let good = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        let of = |keys: serde_json::Value| {
            let schedule = schedule(json!({"encryption": {"ageRecipients": keys}}));
            of_schedule(&schedule, &database(), Secrets::default(), "cluster")
        };
        assert_eq!(of(json!([good])).unwrap().dump_config(None).age_recipients, [good]);
        // A letter was mistyped: only the checksum of the key shows it.
        let mistyped = good.replace("age1t7", "age1t8");
        let error = of(json!([good, mistyped])).unwrap_err();
        assert_eq!(error.reason().as_str(), "InvalidSpec");
        assert!(error.rejection().message.starts_with("spec.encryption.ageRecipients: entry 2 is not"), "{error}");
    }
}
