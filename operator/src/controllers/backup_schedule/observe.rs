//! What there is of a schedule: its CronJob, Jobs, backups and the prune under way.

use crate::agent::config::cron_job_name;
use crate::backup_jobs::jobs::prune_failure;
use crate::backup_jobs::names::{Task, prune_job_name};
use crate::backup_jobs::outcome::outcome;
use crate::context::Context;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{SCHEDULE_LABEL, TASK_LABEL};
use pgrail_crds::{BackupSchedule, DatabaseBackup};

/// What there is of a schedule.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Its CronJob, or another's of that name.
    pub(super) cron_job: Option<CronJob>,
    /// Jobs that make its dumps.
    pub(super) jobs: Vec<Job>,
    /// Its backups.
    pub(super) backups: Vec<DatabaseBackup>,
    /// The prune that was made last and not yet put away.
    pub(super) prune: Option<Prune>,
}

/// A prune.
#[derive(Clone, Debug)]
pub(super) struct Prune {
    /// Its Job.
    pub(super) job: Job,
    /// What came of it.
    pub(super) state: PruneState,
}

/// What came of a prune.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PruneState {
    /// Nothing yet.
    Running,
    /// Everything that was asked is gone from the store.
    Done,
    /// Something is not.
    Failed {
        /// Why, in the words of whoever knows.
        why: String,
        /// Since when.
        since: Timestamp,
    },
}

/// Looks.
pub(super) async fn observe(context: &Context, schedule: &BackupSchedule) -> Result<Observed, kube::Error> {
    let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
    let cron_jobs: Api<CronJob> = Api::namespaced(context.client.clone(), &namespace);
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let backups: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &namespace);
    let of_schedule = format!("{SCHEDULE_LABEL}={name}");
    let dumps = ListParams::default().labels(&format!("{of_schedule},{TASK_LABEL}={}", Task::Dump.as_str()));
    let (cron_job, prune, everything) = (cron_job_name(&name), prune_job_name(&name), ListParams::default());
    let (cron_job, dumps, backups, prune) = futures::try_join!(
        cron_jobs.get_opt(&cron_job),
        jobs.list(&dumps),
        // Not by label: what somebody made by hand carries none before its first visit.
        backups.list(&everything),
        jobs.get_opt(&prune),
    )?;
    let refers = |backup: &DatabaseBackup| backup.spec.schedule_ref.as_ref().is_some_and(|it| it.name == name);
    let prune = match prune {
        None => None,
        Some(job) => Some(Prune { state: state_of(context, &namespace, &job).await?, job }),
    };
    Ok(Observed { cron_job, jobs: dumps.items, backups: backups.items.into_iter().filter(refers).collect(), prune })
}

async fn state_of(context: &Context, namespace: &str, job: &Job) -> Result<PruneState, kube::Error> {
    Ok(match outcome(job) {
        None => PruneState::Running,
        Some(true) => PruneState::Done,
        Some(false) => {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            let failed = conditions.into_iter().flatten().find(|it| it.type_ == "Failed");
            let since = failed.and_then(|it| it.last_transition_time.as_ref()).map_or(Timestamp::UNIX_EPOCH, |it| it.0);
            PruneState::Failed { why: prune_failure(context, namespace, job).await?, since }
        }
    })
}
