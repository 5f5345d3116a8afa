//! What deleting a `BackupSchedule` does: its CronJob and Jobs go by their owner references, its `DatabaseBackup`s and
//! dumps stay; with `deletionPolicy: Delete` the dumps go too, those that are pinned excepted.

use super::apply::{apply, delete_cron_job};
use super::history::History;
use super::observe::{PruneState, observe};
use super::plan::{self, Basis};
use crate::backup_jobs::order::site_of_schedule;
use crate::backup_jobs::pod::Image;
use crate::context::Context;
use crate::kubernetes::conditions::Conditions;
use crate::kubernetes::events::Severity;
use crate::kubernetes::{annotation::is_true, finalizer, namespace};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::FORCE_DELETE;
use pgrail_crds::conditions::reasons::{backup as reasons, event};
use pgrail_crds::{BackupSchedule, DeletionPolicy};
use std::time::Duration;

/// How long to wait for the prune's Job without hearing of it.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Carries the finalizer exactly while deleting the object must remove something.
pub(super) async fn keep(context: &Context, schedule: &BackupSchedule) -> Result<(), kube::Error> {
    let api: Api<BackupSchedule> = Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default());
    match schedule.spec.deletion_policy {
        DeletionPolicy::Delete => finalizer::add(&api, schedule).await,
        DeletionPolicy::Retain => finalizer::remove(&api, schedule).await,
    }
}

/// Removes the dumps of a schedule that is being deleted, then lets it go.
pub(super) async fn finalize(context: &Context, schedule: &BackupSchedule) -> Result<Action, kube::Error> {
    context.metrics.forget_schedule(&schedule.namespace().unwrap_or_default(), &schedule.name_any());
    if !finalizer::is_set(schedule) {
        return Ok(Action::await_change());
    }
    if !must_remove(context, schedule).await? {
        return release(context, schedule).await;
    }
    let site = match site_of_schedule(schedule, &context.cluster_id) {
        Ok(site) => site,
        Err(error) => return leave_behind(context, schedule, &error.to_string()).await,
    };
    let observed = observe(context, schedule).await?;
    if let Some(cron_job) = observed.cron_job.as_ref().filter(|_| !plan::name_is_taken(schedule, &observed)) {
        delete_cron_job(context, cron_job).await?;
    }
    let basis = Basis {
        schedule,
        validated: None,
        observed: &observed,
        history: &History::default(),
        image: &Image::from(&context.settings),
        now: context.now(),
    };
    if let Some(step) = plan::removal(&basis, &site) {
        apply(context, schedule, vec![step]).await?;
        return Ok(Action::requeue(Duration::from_secs(1)));
    }
    match observed.prune.map(|prune| prune.state) {
        None => release(context, schedule).await,
        Some(PruneState::Failed { why, .. }) => {
            report_failure(context, schedule, &why).await?;
            Ok(Action::requeue(LOOK_AGAIN))
        }
        Some(_) => Ok(Action::requeue(LOOK_AGAIN)),
    }
}

async fn must_remove(context: &Context, schedule: &BackupSchedule) -> Result<bool, kube::Error> {
    let forced = is_true(schedule, FORCE_DELETE);
    if forced || schedule.spec.deletion_policy == DeletionPolicy::Retain {
        return Ok(false);
    }
    // No Job can be created in a namespace that is terminating, and so nothing can be pruned.
    Ok(!namespace::is_terminating(&context.client, schedule).await?)
}

async fn release(context: &Context, schedule: &BackupSchedule) -> Result<Action, kube::Error> {
    let api: Api<BackupSchedule> = Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default());
    finalizer::remove(&api, schedule).await?;
    Ok(Action::await_change())
}

async fn leave_behind(context: &Context, schedule: &BackupSchedule, why: &str) -> Result<Action, kube::Error> {
    let note = format!("its dumps stay in the store: {why}");
    context.events.publish(schedule, Severity::Warning, "Delete", event::BACKUP_LEFT_BEHIND, note, context.now()).await;
    release(context, schedule).await
}

async fn report_failure(context: &Context, schedule: &BackupSchedule, why: &str) -> Result<(), kube::Error> {
    let mut next = schedule.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&next.conditions, schedule.metadata.generation, context.now());
    let message = format!(
        "the dumps could not be removed, which is tried again: {why}. The annotation {FORCE_DELETE}: \"true\" leaves them behind"
    );
    conditions.stalled(reasons::PRUNE_FAILED, message);
    next.conditions = conditions.finish();
    context.write_status(super::NAME, schedule, schedule.status.as_ref(), &next).await.map(|_| ())
}
