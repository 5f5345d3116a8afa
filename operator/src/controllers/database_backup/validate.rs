//! From a backup and what it refers to, to the spec of its Job. Pure.

use super::dereference::References;
use crate::backup_jobs::destination::{self, Destination};
use crate::backup_jobs::error::JobSpecError;
use crate::backup_jobs::job_spec::{self, JobSpec};
use pgrail_crds::{BackupSchedule, DatabaseBackup};

pub(super) fn validate(
    backup: &DatabaseBackup,
    references: References,
    cluster_id: &str,
) -> Result<JobSpec, JobSpecError> {
    let References { schedule, database, secrets } = references;
    match schedule {
        Some(schedule) => job_spec::of_schedule(&schedule, &database, secrets, cluster_id),
        None => job_spec::of_backup(backup, &database, secrets, cluster_id),
    }
}

/// Where the dump of a backup is now: its schedule may have another store than when the dump was made.
pub(super) fn destination(
    backup: &DatabaseBackup,
    schedule: Option<&BackupSchedule>,
    cluster_id: &str,
) -> Result<Destination, JobSpecError> {
    match schedule {
        Some(schedule) => destination::of_schedule(schedule, cluster_id),
        None => destination::of_backup(backup, cluster_id),
    }
}
