//! A schedule's CronJob, Jobs and backups, and its prune.

use crate::backup_jobs::jobs::prune_failure;
use crate::backup_jobs::names::{Task, cron_job_name, prune_job_name};
use crate::backup_jobs::outcome::outcome;
use crate::context::Context;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{SCHEDULE_LABEL, TASK_LABEL};
use pgrail_crds::{BackupSchedule, DatabaseBackup};

#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// The CronJob of its name, which may have another owner.
    pub(super) cron_job: Option<CronJob>,
    /// Jobs of dumps.
    pub(super) jobs: Vec<Job>,
    pub(super) backups: Vec<DatabaseBackup>,
    /// The prune whose Job exists.
    pub(super) prune: Option<Prune>,
}

#[derive(Clone, Debug)]
pub(super) struct Prune {
    pub(super) job: Job,
    pub(super) state: PruneState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PruneState {
    Running,
    /// Everything was removed from the store.
    Done,
    Failed {
        message: String,
        since: Timestamp,
    },
}

pub(super) async fn observe(schedule: &BackupSchedule, context: &Context) -> Result<Observed, kube::Error> {
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
        // Not by label: backups created by hand get it with their first reconcile.
        backups.list(&everything),
        jobs.get_opt(&prune),
    )?;
    let refers = |backup: &DatabaseBackup| backup.spec.schedule_ref.as_ref().is_some_and(|it| it.name == name);
    let prune = match prune {
        None => None,
        Some(job) => Some(Prune { state: state_of(&job, context).await?, job }),
    };
    Ok(Observed { cron_job, jobs: dumps.items, backups: backups.items.into_iter().filter(refers).collect(), prune })
}

async fn state_of(job: &Job, context: &Context) -> Result<PruneState, kube::Error> {
    Ok(match outcome(job) {
        None => PruneState::Running,
        Some(true) => PruneState::Done,
        Some(false) => {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
            let failed = conditions.into_iter().flatten().find(|it| it.type_ == "Failed");
            let since = failed.and_then(|it| it.last_transition_time.as_ref()).map_or(Timestamp::UNIX_EPOCH, |it| it.0);
            PruneState::Failed { message: prune_failure(job, context).await?, since }
        }
    })
}
