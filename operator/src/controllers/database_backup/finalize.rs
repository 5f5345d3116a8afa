//! Deleting a `DatabaseBackup`: its dump stays by default; with `deletionPolicy: Delete` a Job removes it from the store
//! before the object is deleted.

use super::report;
use super::validate;
use crate::agent::config::PruneConfig;
use crate::backup_jobs::dereference;
use crate::backup_jobs::destination::Destination;
use crate::backup_jobs::jobs::{create, delete, failure_of, job_of, running_run_ids};
use crate::backup_jobs::names::{Task, is_below, job_name, location_in};
use crate::backup_jobs::outcome::outcome;
use crate::backup_jobs::pod::{self, Installation, PRUNE_CONTAINER};
use crate::backup_jobs::record::has_dump;
use crate::context::Context;
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::StepError;
use crate::kubernetes::{annotation::is_true, finalizer, namespace};
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{BACKUP_LABEL, FORCE_DELETE, PRUNED};
use pgrail_crds::conditions::READY;
use pgrail_crds::conditions::reasons::{backup as reasons, event};
use pgrail_crds::{DatabaseBackup, DeletionPolicy};
use std::time::Duration;

/// How often the prune's Job is observed, besides when it changes.
const RECHECK: Duration = Duration::from_mins(1);
const WAY_OUT: &str = "The annotation pgrail.dev/force-delete: \"true\" deletes the object and keeps the dump";

/// Removes the dump of a backup that is being deleted, then the finalizer.
pub(super) async fn finalize(backup: &DatabaseBackup, context: &Context) -> Result<Action, kube::Error> {
    if !finalizer::is_set(backup) {
        return Ok(Action::await_change());
    }
    if !has_dump_to_remove(backup) || namespace::is_terminating(&context.client, backup).await? {
        return release(backup, context).await;
    }
    let destination = match destination(backup, context).await {
        Ok(destination) => destination,
        Err(error) => return leave_behind(backup, &error.into_rejection()?.message, context).await,
    };
    let Some(location) = location_in(&destination.store.config.url, backup) else {
        let message = format!("it is not below {}, the store that its schedule has now", destination.store.config.url);
        return leave_behind(backup, &message, context).await;
    };
    let directory = destination.identity.directory().unwrap_or_default();
    if !is_below(&location, &directory) {
        let message = format!("it is not in {directory}, the directory of its schedule in this cluster");
        return leave_behind(backup, &message, context).await;
    }
    remove_dump(backup, &destination, location, context).await
}

/// Only a published dump exists. An unpublished one is swept from the store.
fn has_dump_to_remove(backup: &DatabaseBackup) -> bool {
    has_dump(backup)
        && !is_true(backup, PRUNED)
        && !is_true(backup, FORCE_DELETE)
        && backup.spec.deletion_policy == DeletionPolicy::Delete
}

async fn destination(backup: &DatabaseBackup, context: &Context) -> Result<Destination, StepError> {
    let namespace = backup.namespace().unwrap_or_default();
    let schedule = match &backup.spec.schedule_ref {
        Some(reference) => Some(dereference::schedule(&namespace, &reference.name, context).await?),
        None => None,
    };
    let storage = schedule.as_ref().map(|schedule| &schedule.spec.storage).or(backup.spec.storage.as_ref());
    let secret = dereference::store_secret(&namespace, storage, context).await?;
    let destination = validate::destination(backup, schedule.as_ref(), &context.cluster_id);
    let checked = destination.and_then(|destination| {
        destination.store.check_allowed(&context.settings.allowed_stores)?;
        destination.store.check_secret(secret).map(|()| destination)
    });
    checked.map_err(|error| error.rejection().into())
}

async fn release(backup: &DatabaseBackup, context: &Context) -> Result<Action, kube::Error> {
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    finalizer::remove(&api, backup).await?;
    Ok(Action::await_change())
}

/// The dump cannot be removed: the object is deleted without it, and an Event reports the dump.
async fn leave_behind(backup: &DatabaseBackup, message: &str, context: &Context) -> Result<Action, kube::Error> {
    let location = backup.status.as_ref().and_then(|status| status.location.as_deref()).unwrap_or_default();
    let note = format!("the dump stays in the store at {location}: {message}");
    context.events.publish(backup, Severity::Warning, "Delete", event::BACKUP_LEFT_BEHIND, note, context.now()).await;
    release(backup, context).await
}

async fn remove_dump(
    backup: &DatabaseBackup,
    destination: &Destination,
    location: String,
    context: &Context,
) -> Result<Action, kube::Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    let name = job_name(&backup.name_any(), Task::Prune);
    let Some(job) = jobs.get_opt(&name).await? else {
        let image = Installation::from(&context.settings);
        let running =
            running_run_ids(&backup.namespace().unwrap_or_default(), &destination.identity.schedule, context).await?;
        let prune = PruneConfig { locations: vec![location], running, grace_seconds: None };
        let template = pod::prune_job(destination, &image, prune, Some(&backup.name_any()));
        let job = job_of(template.map_err(kube::Error::SerdeError)?, &name);
        create(&jobs, &job).await?;
        report_waiting(backup, &name, context).await?;
        return Ok(Action::requeue(RECHECK));
    };
    if job.annotations().get(BACKUP_LABEL) != Some(&backup.name_any()) {
        return leave_behind(backup, &format!("a Job {name:?} of another owner exists"), context).await;
    }
    let key = format!("backup/{}", backup.uid().unwrap_or_default());
    match outcome(&job) {
        None => Ok(Action::requeue(RECHECK)),
        Some(true) => {
            context.backoff.reset(&key);
            let note = "its dump was removed from the store, since its deletionPolicy is Delete";
            context.events.publish(backup, Severity::Normal, "Delete", event::BACKUP_PRUNED, note, context.now()).await;
            delete(&jobs, &name).await?;
            release(backup, context).await
        }
        Some(false) => {
            let failure = failure_of(&job, PRUNE_CONTAINER, context).await?;
            report_failure(backup, &failure, context).await?;
            delete(&jobs, &name).await?;
            Ok(Action::requeue(context.backoff.next(&key).max(RECHECK / 2)))
        }
    }
}

/// The Job may never start, such as without a node that has room for it.
async fn report_waiting(backup: &DatabaseBackup, job: &str, context: &Context) -> Result<(), kube::Error> {
    let mut conditions = conditions(backup, context);
    let message = format!("deleted; the Job {job} removes the dump from the store. {WAY_OUT}");
    conditions.set(READY, Status::Unknown, reasons::PRUNING, message);
    write_conditions(backup, conditions, context).await
}

async fn report_failure(backup: &DatabaseBackup, failure: &str, context: &Context) -> Result<(), kube::Error> {
    let mut conditions = conditions(backup, context);
    let message = format!("the dump could not be removed, which is retried: {failure}. {WAY_OUT}");
    conditions.stalled(reasons::PRUNE_FAILED, message);
    write_conditions(backup, conditions, context).await
}

fn conditions(backup: &DatabaseBackup, context: &Context) -> Conditions {
    let current = backup.status.as_ref().map_or(&[][..], |status| &status.conditions);
    Conditions::new(current, backup.metadata.generation, context.now())
}

async fn write_conditions(
    backup: &DatabaseBackup,
    conditions: Conditions,
    context: &Context,
) -> Result<(), kube::Error> {
    let mut status = backup.status.clone().unwrap_or_default();
    status.conditions = conditions.finish();
    report::write(backup, &status, context).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, failed, succeeded};
    use serde_json::json;

    #[test]
    fn only_a_published_dump_with_that_policy_is_removed() {
        let backup = |policy: &str, status: serde_json::Value, annotations: serde_json::Value| {
            let mut backup = backup("b", "2026-11-23T02:15:00Z", status);
            backup.spec.deletion_policy = serde_json::from_value(json!(policy)).unwrap();
            backup.metadata.annotations = serde_json::from_value(annotations).unwrap();
            has_dump_to_remove(&backup)
        };
        let good = || succeeded("2026-11-23T02:15:00Z");
        assert!(backup("Delete", good(), json!({})));
        assert!(!backup("Retain", good(), json!({})));
        assert!(!backup("Delete", failed("x"), json!({})));
        assert!(!backup("Delete", json!({"phase": "Verifying", "location": "s3://b/x"}), json!({})));
        assert!(!backup("Delete", good(), json!({"pgrail.dev/pruned": "true"})));
        assert!(!backup("Delete", good(), json!({"pgrail.dev/force-delete": "true"})));
        assert!(WAY_OUT.contains(FORCE_DELETE));
    }
}
