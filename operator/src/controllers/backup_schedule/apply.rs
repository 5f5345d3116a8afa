//! Carries out the steps of a plan. Each can be repeated.

use super::cron_job::is_ours;
use super::observe::Observed;
use super::plan::Step;
use super::store::{self, create_backup};
use crate::backup_jobs::jobs::{create, delete, job_of, running_run_ids};
use crate::backup_jobs::names::{inventory_job_name, prune_job_name};
use crate::backup_jobs::pod::{Installation, inventory_job, prune_job};
use crate::context::Context;
use crate::kubernetes::events::Severity;
use crate::kubernetes::status;
use crate::kubernetes::text::chain;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::annotations::{PRUNED, RECORDED};
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{BackupSchedule, DatabaseBackup, StoreCheck, Time, VerificationLevel};
use serde_json::{Value, json};

/// Field manager of the status, and metric label.
pub(super) const CONTROLLER: &str = "backupschedule";
/// Field manager of the CronJob.
const FIELD_MANAGER: &str = "pgrail-backupschedule";
/// Field manager of the verification of a backup that a drill restored.
const DRILLS: &str = "backupschedule-drill";
/// The most names that an Event about a prune lists.
const LISTED: usize = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// The apiserver's message, if it rejected the CronJob.
    pub(super) rejected: Option<String>,
    /// The same of the CronJob of the drills.
    pub(super) drill_rejected: Option<String>,
    pub(super) prune_started: bool,
    /// The comparison of the store that ended.
    pub(super) check: Option<StoreCheck>,
    /// Old backups and leftovers were removed.
    pub(super) prune_finished: bool,
    /// Backups were created, recorded or removed: observe again.
    pub(super) changed: bool,
}

pub(super) async fn apply(
    schedule: &BackupSchedule,
    steps: Vec<Step>,
    context: &Context,
) -> Result<Applied, kube::Error> {
    let mut applied = Applied::default();
    for step in steps {
        match step {
            Step::ApplyCronJob(cron_job) => applied.rejected = apply_cron_job(&cron_job, context).await?,
            Step::ApplyDrillCronJob(cron_job) => applied.drill_rejected = apply_cron_job(&cron_job, context).await?,
            Step::DeleteDrillCronJob(cron_job) => delete_cron_job(&cron_job, context).await?,
            Step::ReportDrilled { backup, time } => report_drilled(&backup, &time, context).await?,
            Step::Record { job, backup } => {
                create_backup(&backup, context).await?;
                mark_recorded(schedule, &job, context).await?;
                applied.changed = true;
            }
            Step::FirstRun(backup) => {
                create_backup(&backup, context).await?;
                applied.changed = true;
            }
            Step::ReportKept { backup, reasons } => report_kept(&backup, &reasons, context).await?,
            Step::DeleteFailure(name) => {
                delete_backup(schedule, &name, context).await?;
                applied.changed = true;
            }
            Step::LateRun { backup, cause } => {
                create_backup(&backup, context).await?;
                let note = format!("{cause}: {} makes up for it", backup.name_any());
                let now = context.now();
                context.events.publish(schedule, Severity::Warning, "Run", event::RUN_MISSED, note, now).await;
                applied.changed = true;
            }
            Step::StartPrune { destination, mut prune } => {
                let namespace = schedule.namespace().unwrap_or_default();
                prune.running = running_run_ids(&namespace, &schedule.name_any(), context).await?;
                let template = prune_job(&destination, &Installation::from(&context.settings), prune, None);
                let name = prune_job_name(&schedule.name_any());
                let mut job = job_of(template.map_err(kube::Error::SerdeError)?, &name);
                // While the schedule is being deleted, the garbage collector must not delete this Job with it.
                let is_owned = schedule.metadata.deletion_timestamp.is_none();
                job.metadata.owner_references =
                    schedule.controller_owner_ref(&()).filter(|_| is_owned).map(|it| vec![it]);
                create(&jobs(schedule, context), &job).await?;
                applied.prune_started = true;
            }
            Step::FinishPrune { job, backups } => {
                finish_prune(schedule, &job, &backups, context).await?;
                applied.prune_finished = true;
                applied.changed = true;
            }
            Step::Retry(job) => {
                delete(&jobs(schedule, context), &job).await?;
                applied.changed = true;
            }
            Step::StartCheck { destination, inventory } => {
                let template = inventory_job(&destination, &Installation::from(&context.settings), inventory);
                let name = inventory_job_name(&schedule.name_any());
                let mut job = job_of(template.map_err(kube::Error::SerdeError)?, &name);
                job.metadata.owner_references = schedule.controller_owner_ref(&()).map(|it| vec![it]);
                create(&jobs(schedule, context), &job).await?;
            }
            Step::FinishCheck { job, evaluated } => {
                store::report(schedule, &evaluated, context).await?;
                delete(&jobs(schedule, context), &job).await?;
                applied.check = Some(evaluated.check);
                applied.changed = true;
            }
        }
    }
    Ok(applied)
}

fn jobs(schedule: &BackupSchedule, context: &Context) -> Api<Job> {
    Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default())
}

fn backups(schedule: &BackupSchedule, context: &Context) -> Api<DatabaseBackup> {
    Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default())
}

/// Returns the apiserver's message if it rejects the CronJob, such as for a resource limit below its request: the user
/// must change the spec. Other errors are retried. Applying what is there already changes nothing.
async fn apply_cron_job(cron_job: &CronJob, context: &Context) -> Result<Option<String>, kube::Error> {
    let api: Api<CronJob> = Api::namespaced(context.client.clone(), &cron_job.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(&cron_job.name_any(), &parameters, &Patch::Apply(cron_job)).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 400 || status.is_forbidden() => {
            Ok(Some(status.message.clone()))
        }
        Err(error) => Err(error),
    }
}

async fn mark_recorded(schedule: &BackupSchedule, job: &str, context: &Context) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"annotations": {RECORDED: "true"}}});
    match jobs(schedule, context).patch(job, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// One field of another controller's status, under this controller's field manager.
async fn report_kept(backup: &DatabaseBackup, reasons: &[String], context: &Context) -> Result<(), kube::Error> {
    let status = |reasons: &[String]| json!({"keptBecause": reasons});
    let current = backup.status.as_ref().map(|it| status(&it.kept_because));
    context
        .write_status::<DatabaseBackup, Value>(CONTROLLER, backup, current.as_ref(), &status(reasons))
        .await
        .map(|_| ())
}

/// The field of a status that the controller of backups does not write any more.
async fn report_drilled(backup: &DatabaseBackup, time: &Time, context: &Context) -> Result<(), kube::Error> {
    let next = json!({"verification": {"level": VerificationLevel::Drill, "time": time}});
    status::write::<_, Value>(&context.client, DRILLS, backup, None, &next).await.map(|_| ())
}

async fn delete_backup(schedule: &BackupSchedule, name: &str, context: &Context) -> Result<(), kube::Error> {
    match backups(schedule, context).delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// The objects are deleted first: after an interruption, the Job still names the others.
async fn finish_prune(
    schedule: &BackupSchedule,
    job: &str,
    names: &[String],
    context: &Context,
) -> Result<(), kube::Error> {
    // The finalizer must not start a prune for a dump that was removed.
    let patch = json!({"metadata": {"annotations": {PRUNED: "true"}}});
    for name in names {
        match backups(schedule, context).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => delete_backup(schedule, name, context).await?,
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    delete(&jobs(schedule, context), job).await?;
    if !names.is_empty() {
        let more = if names.len() > LISTED { ", …" } else { "" };
        let listed = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
        let note = format!("retention removed {} from the store: {listed}{more}", names.len());
        context.events.publish(schedule, Severity::Normal, "Prune", event::BACKUP_PRUNED, note, context.now()).await;
    }
    Ok(())
}

/// No run of what was applied earlier may start.
pub(super) async fn suspend(
    schedule: &BackupSchedule,
    observed: &Observed,
    context: &Context,
) -> Result<(), kube::Error> {
    let is_running = |it: &&CronJob| it.spec.as_ref().is_some_and(|spec| spec.suspend != Some(true));
    let both = observed.cron_job.iter().chain(&observed.drill_cron_job);
    for cron_job in both.filter(|it| is_ours(it, schedule)).filter(is_running) {
        let api: Api<CronJob> = Api::namespaced(context.client.clone(), &cron_job.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
        api.patch(&cron_job.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// Deletes a CronJob, so that no new run starts.
pub(super) async fn delete_cron_job(cron_job: &CronJob, context: &Context) -> Result<(), kube::Error> {
    let api: Api<CronJob> = Api::namespaced(context.client.clone(), &cron_job.namespace().unwrap_or_default());
    match api.delete(&cron_job.name_any(), &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "could not delete a CronJob");
            Err(error)
        }
        Ok(_) => Ok(()),
    }
}
