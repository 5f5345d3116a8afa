//! A schedule's CronJob, Jobs and backups, and its prune.

use super::drill::result::result;
use crate::backup_jobs::jobs::{failure_of, inventory_of, is_controlled_by, pods_of};
use crate::backup_jobs::names::{
    Task, created, cron_job_name, drill_cron_job_name, inventory_job_name, prune_job_name,
};
use crate::backup_jobs::outcome::outcome;
use crate::backup_jobs::pod::{INVENTORY_CONTAINER, PRUNE_CONTAINER};
use crate::context::Context;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{SCHEDULE_LABEL, TASK_LABEL};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DrillReport};
use pgrail_dump::Inventory;

#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// The CronJob of its name, which may have another owner.
    pub(super) cron_job: Option<CronJob>,
    /// Jobs of dumps.
    pub(super) jobs: Vec<Job>,
    pub(super) backups: Vec<DatabaseBackup>,
    /// The prune whose Job exists.
    pub(super) prune: Option<Prune>,
    /// The comparison of the store whose Job exists.
    pub(super) check: Option<Check>,
    /// The CronJob of the drills' name, which may have another owner.
    pub(super) drill_cron_job: Option<CronJob>,
    /// The newest drill, unless its result is in the status.
    pub(super) drill: Option<DrillState>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DrillState {
    Running,
    Ended(Box<DrillReport>),
}

#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) job: Job,
    pub(super) state: CheckState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    Running,
    Done(Box<Inventory>),
    Failed { message: String, since: Timestamp },
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
    let check = inventory_job_name(&name);
    let drills = ListParams::default().labels(&format!("{of_schedule},{TASK_LABEL}={}", Task::Drill.as_str()));
    let drill_cron_job = drill_cron_job_name(&name);
    let (cron_job, drill_cron_job, drills, dumps, backups, prune, check) = futures::try_join!(
        cron_jobs.get_opt(&cron_job),
        cron_jobs.get_opt(&drill_cron_job),
        jobs.list(&drills),
        jobs.list(&dumps),
        // Not by label: backups created by hand get it with their first reconcile.
        backups.list(&everything),
        jobs.get_opt(&prune),
        jobs.get_opt(&check),
    )?;
    let refers = |backup: &DatabaseBackup| backup.spec.schedule_ref.as_ref().is_some_and(|it| it.name == name);
    let prune = match prune {
        None => None,
        Some(job) => Some(Prune { state: Box::pin(state_of(&job, context)).await?, job }),
    };
    // Not by name alone: anyone who can create Jobs can choose it.
    let check = match check {
        None => None,
        Some(job) if is_controlled_by(&job, schedule) => {
            Some(Check { state: Box::pin(check_state_of(&job, context)).await?, job })
        }
        Some(job) => Some(Check { state: of_another_owner(&job), job }),
    };
    let backups = backups.items.into_iter().filter(refers).collect();
    let drill = match drill_cron_job.as_ref().filter(|it| is_controlled_by(*it, schedule)) {
        None => None,
        Some(cron_job) => Box::pin(drill_of(schedule, cron_job, drills.items, context)).await?,
    };
    Ok(Observed { cron_job, jobs: dumps.items, backups, prune, check, drill_cron_job, drill })
}

/// The result of the newest drill that has ended, or else whether one is running.
async fn drill_of(
    schedule: &BackupSchedule,
    cron_job: &CronJob,
    mut jobs: Vec<Job>,
    context: &Context,
) -> Result<Option<DrillState>, kube::Error> {
    jobs.retain(|job| is_controlled_by(job, cron_job));
    let last = schedule.status.as_ref().and_then(|status| status.last_drill.as_ref());
    if let Some((job, ended)) = newest_drill(&jobs, last) {
        let result = result(job, ended, &pods_of(job, context).await?);
        return Ok(Some(DrillState::Ended(Box::new(result))));
    }
    Ok(jobs.iter().any(|job| outcome(job).is_none()).then_some(DrillState::Running))
}

/// The Job that ended last, and when, unless its result is known. If the Job of the last result was deleted, those before it
/// bring nothing new, and another one may have its name.
fn newest_drill<'a>(jobs: &'a [Job], last: Option<&DrillReport>) -> Option<(&'a Job, Timestamp)> {
    let ended = |job: &'a Job| Some((job, ended(job, if outcome(job)? { "Complete" } else { "Failed" })));
    let newest = jobs.iter().filter_map(ended).max_by_key(|(job, ended)| (*ended, created(*job), job.name_any()))?;
    let is_new =
        |last: &DrillReport| newest.1 > last.time.0 || (newest.1 == last.time.0 && newest.0.name_any() != last.job);
    last.is_none_or(is_new).then_some(newest)
}

async fn state_of(job: &Job, context: &Context) -> Result<PruneState, kube::Error> {
    Ok(match outcome(job) {
        None => PruneState::Running,
        Some(true) => PruneState::Done,
        Some(false) => {
            let message = failure_of(job, PRUNE_CONTAINER, context).await?;
            PruneState::Failed { message, since: ended(job, "Failed") }
        }
    })
}

async fn check_state_of(job: &Job, context: &Context) -> Result<CheckState, kube::Error> {
    Ok(match outcome(job) {
        None => CheckState::Running,
        Some(true) => {
            let lost = || CheckState::Failed {
                message: "its pod was deleted before its result was read".to_owned(),
                since: ended(job, "Complete"),
            };
            inventory_of(job, context).await?.map_or_else(lost, |inventory| CheckState::Done(Box::new(inventory)))
        }
        Some(false) => {
            let message = failure_of(job, INVENTORY_CONTAINER, context).await?;
            CheckState::Failed { message, since: ended(job, "Failed") }
        }
    })
}

/// It is never deleted, and so never retried.
fn of_another_owner(job: &Job) -> CheckState {
    let message = format!("a Job {:?} of another owner exists: delete it", job.name_any());
    CheckState::Failed { message, since: Timestamp::MAX }
}

/// When a Job ended.
fn ended(job: &Job, kind: &str) -> Timestamp {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let condition = conditions.into_iter().flatten().find(|it| it.type_ == kind);
    condition.and_then(|it| it.last_transition_time.as_ref()).map_or(Timestamp::UNIX_EPOCH, |it| it.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(name: &str, created: &str, kind: &str, ended: &str) -> Job {
        serde_json::from_value(json!({"metadata": {"name": name, "creationTimestamp": created},
            "status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": ended}]}}))
        .unwrap()
    }

    #[test]
    fn a_drill_is_reported_once_and_an_older_one_never_takes_its_place() {
        let passed = job("nightly-drill-1", "2026-11-15T05:00:00Z", "Complete", "2026-11-15T05:10:00Z");
        let failed = job("drill-now", "2026-11-16T08:00:00Z", "Failed", "2026-11-16T08:10:00Z");
        let both = [passed.clone(), failed];
        let (newest, ended) = newest_drill(&both, None).unwrap();
        assert_eq!(newest.name_any(), "drill-now");
        let last = super::super::drill::result::result(newest, ended, &[]);
        assert!(newest_drill(&both, Some(&last)).is_none());
        assert!(newest_drill(&[passed], Some(&last)).is_none(), "the Job that failed was deleted");
        let again = [job("drill-now", "2026-11-16T09:00:00Z", "Complete", "2026-11-16T09:10:00Z")];
        assert!(newest_drill(&again, Some(&last)).is_some(), "another Job with its name");
    }
}
