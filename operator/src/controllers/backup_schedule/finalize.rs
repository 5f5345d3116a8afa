//! Deleting a `BackupSchedule`: the garbage collector deletes its CronJob and Jobs, its `DatabaseBackup`s and dumps stay; with
//! `deletionPolicy: Delete` the dumps are removed, except pinned ones.

use super::apply::{CONTROLLER, apply, delete_cron_job};
use super::drill::cron_job::is_taken;
use super::observe::{PruneState, observe};
use super::plan;
use crate::backup_jobs::destination;
use crate::backup_jobs::names::prune_job_name;
use crate::context::Context;
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::events::Severity;
use crate::kubernetes::{annotation::is_true, finalizer, namespace};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::FORCE_DELETE;
use pgrail_crds::conditions::READY;
use pgrail_crds::conditions::reasons::{backup as reasons, event};
use pgrail_crds::{BackupSchedule, DeletionPolicy};
use std::time::Duration;

/// How often the prune's Job is observed, besides when it changes.
const RECHECK: Duration = Duration::from_mins(1);
const WAY_OUT: &str = "The annotation pgrail.dev/force-delete: \"true\" deletes the object and keeps the dumps";

/// Removes the dumps of a schedule that is being deleted, then the finalizer.
pub(super) async fn finalize(schedule: &BackupSchedule, context: &Context) -> Result<Action, kube::Error> {
    context.metrics.forget_schedule(&schedule.namespace().unwrap_or_default(), &schedule.name_any());
    if !finalizer::is_set(schedule) {
        return Ok(Action::await_change());
    }
    if !must_remove(schedule, context).await? {
        return release(schedule, context).await;
    }
    let destination = destination::of_schedule(schedule, &context.cluster_id);
    let allowed = &context.settings.allowed_stores;
    let destination = match destination.and_then(|it| it.store.check_allowed(allowed).map(|()| it)) {
        Ok(destination) => destination,
        Err(error) => return leave_behind(schedule, &error.to_string(), context).await,
    };
    let observed = Box::pin(observe(schedule, context)).await?;
    if let Some(cron_job) = observed.cron_job.as_ref().filter(|_| !plan::name_is_taken(schedule, &observed)) {
        delete_cron_job(cron_job, context).await?;
    }
    if let Some(cron_job) = observed.drill_cron_job.as_ref().filter(|_| !is_taken(schedule, &observed)) {
        delete_cron_job(cron_job, context).await?;
    }
    if let Some(step) = plan::removal(schedule, &observed, &destination, context.now()) {
        report_waiting(schedule, context).await?;
        apply(schedule, vec![step], context).await?;
        return Ok(Action::requeue(Duration::from_secs(1)));
    }
    match observed.prune.map(|prune| prune.state) {
        None => release(schedule, context).await,
        Some(PruneState::Failed { message, .. }) => {
            report_failure(schedule, &message, context).await?;
            Ok(Action::requeue(RECHECK))
        }
        Some(_) => Ok(Action::requeue(RECHECK)),
    }
}

async fn must_remove(schedule: &BackupSchedule, context: &Context) -> Result<bool, kube::Error> {
    let forced = is_true(schedule, FORCE_DELETE);
    if forced || schedule.spec.deletion_policy == DeletionPolicy::Retain {
        return Ok(false);
    }
    // No Job can be created in a namespace that is terminating, and so nothing can be pruned.
    Ok(!namespace::is_terminating(&context.client, schedule).await?)
}

async fn release(schedule: &BackupSchedule, context: &Context) -> Result<Action, kube::Error> {
    let api: Api<BackupSchedule> = Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default());
    finalizer::remove(&api, schedule).await?;
    Ok(Action::await_change())
}

async fn leave_behind(schedule: &BackupSchedule, message: &str, context: &Context) -> Result<Action, kube::Error> {
    let note = format!("its dumps stay in the store: {message}");
    context.events.publish(schedule, Severity::Warning, "Delete", event::BACKUP_LEFT_BEHIND, note, context.now()).await;
    release(schedule, context).await
}

/// The Job may never start, such as without a node that has room for it.
async fn report_waiting(schedule: &BackupSchedule, context: &Context) -> Result<(), kube::Error> {
    let mut conditions = conditions(schedule, context);
    let job = prune_job_name(&schedule.name_any());
    let message = format!("deleted; the Job {job} removes the dumps from the store. {WAY_OUT}");
    conditions.set(READY, Status::Unknown, reasons::PRUNING, message);
    write_conditions(schedule, conditions, context).await
}

async fn report_failure(schedule: &BackupSchedule, failure: &str, context: &Context) -> Result<(), kube::Error> {
    let mut conditions = conditions(schedule, context);
    let message = format!("the dumps could not be removed, which is retried: {failure}. {WAY_OUT}");
    conditions.stalled(reasons::PRUNE_FAILED, message);
    write_conditions(schedule, conditions, context).await
}

fn conditions(schedule: &BackupSchedule, context: &Context) -> Conditions {
    let current = schedule.status.as_ref().map_or(&[][..], |status| &status.conditions);
    Conditions::new(current, schedule.metadata.generation, context.now())
}

async fn write_conditions(
    schedule: &BackupSchedule,
    conditions: Conditions,
    context: &Context,
) -> Result<(), kube::Error> {
    let mut next = schedule.status.clone().unwrap_or_default();
    next.conditions = conditions.finish();
    context.write_status(CONTROLLER, schedule, schedule.status.as_ref(), &next).await.map(|_| ())
}
