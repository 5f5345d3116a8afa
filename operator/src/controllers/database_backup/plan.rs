//! What to do for a backup: create its Job, or report the one it has. Pure.

use super::observe::Observed;
use crate::backup_jobs::jobs::config_of;
use crate::backup_jobs::outcome::{Progress, progress};
use crate::kubernetes::rejection::{Reason, Rejection};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use pgrail_crds::annotations::JOB;
use pgrail_crds::{BackupPhase, DatabaseBackup};
use pgrail_dump::StoreUrl;

#[derive(Clone, Debug)]
pub(super) enum Step {
    CreateJob,
    Report(Outcome),
}

/// The state of a backup.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It cannot start.
    Rejected(Rejection),
    Progress {
        progress: Progress,
        /// The store of the Job's configuration.
        store: Option<StoreUrl>,
    },
}

impl From<Progress> for Outcome {
    fn from(progress: Progress) -> Self {
        Self::Progress { progress, store: None }
    }
}

pub(super) fn plan(backup: &DatabaseBackup, observed: &Observed) -> Step {
    let Observed { job_name, job, pods } = observed;
    let of_cron_job = backup.annotations().contains_key(JOB);
    Step::Report(match job {
        Some(job) if !of_cron_job && !is_owned(job, backup) => Outcome::Rejected(Rejection::new(
            Reason::NameTaken,
            format!("a Job {job_name:?} of another owner exists: delete it, or give the backup another name"),
        )),
        Some(job) => {
            Outcome::Progress { progress: progress(job, pods), store: config_of(job).map(|config| config.store.url) }
        }
        None if of_cron_job => lost(format!("the Job {job_name:?} was deleted before its result was read")),
        None if has_run(backup) => lost(format!("the Job {job_name:?} was deleted while it ran")),
        None => return Step::CreateJob,
    })
}

fn lost(message: String) -> Outcome {
    Progress::Failed(Rejection::new(Reason::ResultLost, message)).into()
}

fn has_run(backup: &DatabaseBackup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(BackupPhase::Running | BackupPhase::Verifying))
}

fn is_owned(job: &Job, backup: &DatabaseBackup) -> bool {
    job.owner_references().iter().any(|owner| Some(&owner.uid) == backup.metadata.uid.as_ref())
}
