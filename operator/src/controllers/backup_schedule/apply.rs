//! Carries out a plan at the apiserver. Each step can be repeated.

use super::plan::Step;
use crate::backup_jobs::jobs::{create, delete, job_of};
use crate::backup_jobs::names::prune_job_name;
use crate::backup_jobs::pod::{Image, prune_job};
use crate::context::Context;
use crate::kubernetes::events::Severity;
use crate::kubernetes::text::chain;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::annotations::{PRUNED, RECORDED};
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{BackupSchedule, DatabaseBackup};
use serde_json::{Value, json};

/// Names that an Event about a prune lists.
const LISTED: usize = 10;

/// What carrying out a plan came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// Why the apiserver refused the CronJob, if it did.
    pub(super) refused: Option<String>,
    /// A prune was started.
    pub(super) prune_started: bool,
    /// Backups were made, recorded or removed: what was observed is old.
    pub(super) changed: bool,
}

/// Carries out a plan.
pub(super) async fn apply(
    context: &Context,
    schedule: &BackupSchedule,
    steps: Vec<Step>,
) -> Result<Applied, kube::Error> {
    let mut applied = Applied::default();
    for step in steps {
        match step {
            Step::ApplyCronJob(cron_job) => applied.refused = apply_cron_job(context, &cron_job).await?,
            Step::Record { job, backup } => {
                create_backup(context, &backup).await?;
                mark_recorded(context, schedule, &job).await?;
                applied.changed = true;
            }
            Step::FirstRun(backup) => {
                create_backup(context, &backup).await?;
                applied.changed = true;
            }
            Step::SayWhyKept { backup, reasons } => say_why_kept(context, &backup, &reasons).await?,
            Step::Forget(name) => {
                delete_backup(context, schedule, &name).await?;
                applied.changed = true;
            }
            Step::StartPrune { site, locations } => {
                let template = prune_job(&site, &Image::from(&context.settings), locations, None);
                let name = prune_job_name(&schedule.name_any());
                let mut job = job_of(template.map_err(kube::Error::SerdeError)?, &name);
                // Deleting a schedule with its dumps needs this very Job: it must not be collected with the schedule.
                let stays = schedule.metadata.deletion_timestamp.is_none();
                job.metadata.owner_references = schedule.controller_owner_ref(&()).filter(|_| stays).map(|it| vec![it]);
                create(&jobs(context, schedule), &job).await?;
                applied.prune_started = true;
            }
            Step::FinishPrune { job, backups } => {
                finish_prune(context, schedule, &job, &backups).await?;
                applied.changed = true;
            }
            Step::RetryPrune(job) => {
                delete(&jobs(context, schedule), &job).await?;
                applied.changed = true;
            }
        }
    }
    Ok(applied)
}

fn jobs(context: &Context, schedule: &BackupSchedule) -> Api<Job> {
    Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default())
}

fn backups(context: &Context, schedule: &BackupSchedule) -> Api<DatabaseBackup> {
    Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default())
}

/// Writes the CronJob. What the apiserver finds invalid in it is for the user to mend, such as a resource limit below
/// its request; everything else is tried again.
async fn apply_cron_job(context: &Context, cron_job: &CronJob) -> Result<Option<String>, kube::Error> {
    let api: Api<CronJob> = Api::namespaced(context.client.clone(), &cron_job.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(super::FIELD_MANAGER).force();
    match api.patch(&cron_job.name_any(), &parameters, &Patch::Apply(cron_job)).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 400 || status.is_forbidden() => {
            Ok(Some(status.message.clone()))
        }
        Err(error) => Err(error),
    }
}

async fn create_backup(context: &Context, backup: &DatabaseBackup) -> Result<(), kube::Error> {
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    match api.create(&PostParams::default(), backup).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        result => result.map(|_| ()),
    }
}

async fn mark_recorded(context: &Context, schedule: &BackupSchedule, job: &str) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"annotations": {RECORDED: "true"}}});
    match jobs(context, schedule).patch(job, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// One field of another controller's status, under this controller's own name.
async fn say_why_kept(context: &Context, backup: &DatabaseBackup, reasons: &[String]) -> Result<(), kube::Error> {
    let said = |reasons: &[String]| json!({"keptBecause": reasons});
    let current = backup.status.as_ref().map(|status| said(&status.kept_because));
    context
        .write_status::<DatabaseBackup, Value>(super::NAME, backup, current.as_ref(), &said(reasons))
        .await
        .map(|_| ())
}

async fn delete_backup(context: &Context, schedule: &BackupSchedule, name: &str) -> Result<(), kube::Error> {
    match backups(context, schedule).delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// The objects go first: should this stop half way, the Job still says which ones.
async fn finish_prune(
    context: &Context,
    schedule: &BackupSchedule,
    job: &str,
    names: &[String],
) -> Result<(), kube::Error> {
    // So that a finalizer does not look for a dump that is gone.
    let patch = json!({"metadata": {"annotations": {PRUNED: "true"}}});
    for name in names {
        match backups(context, schedule).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => delete_backup(context, schedule, name).await?,
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    delete(&jobs(context, schedule), job).await?;
    if !names.is_empty() {
        let more = if names.len() > LISTED { ", …" } else { "" };
        let listed = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
        let note = format!("retention removed {} from the store: {listed}{more}", names.len());
        context.events.publish(schedule, Severity::Normal, "Prune", event::BACKUP_PRUNED, note, context.now()).await;
    }
    Ok(())
}

/// Deletes the CronJob of a schedule that is being deleted, so that nothing new is started.
pub(super) async fn delete_cron_job(context: &Context, cron_job: &CronJob) -> Result<(), kube::Error> {
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
