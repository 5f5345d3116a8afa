//! What deleting a `DatabaseBackup` does to its dump: nothing by default, and with `deletionPolicy: Delete` a Job that
//! removes it from the store before the object goes.

use crate::backup_jobs::dereference::{DereferenceError, site_of_backup};
use crate::backup_jobs::jobs::{create, delete, job_of, prune_failure};
use crate::backup_jobs::names::{Task, job_name, location_in};
use crate::backup_jobs::order::Site;
use crate::backup_jobs::outcome::outcome;
use crate::backup_jobs::pod::{self, Image};
use crate::context::Context;
use crate::kubernetes::conditions::Conditions;
use crate::kubernetes::events::Severity;
use crate::kubernetes::{annotation::is_true, finalizer, namespace};
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{BACKUP_LABEL, FORCE_DELETE, PRUNED};
use pgrail_crds::conditions::reasons::{backup as reasons, event};
use pgrail_crds::{BackupPhase, DatabaseBackup, DeletionPolicy};
use std::time::Duration;

/// How long to wait for the prune's Job without hearing of it.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// Carries the finalizer exactly while deleting the object must remove something.
pub(super) async fn keep(api: &Api<DatabaseBackup>, backup: &DatabaseBackup) -> Result<(), kube::Error> {
    match backup.spec.deletion_policy {
        DeletionPolicy::Delete => finalizer::add(api, backup).await,
        DeletionPolicy::Retain => finalizer::remove(api, backup).await,
    }
}

/// Removes the dump of a backup that is being deleted, then lets the object go.
pub(super) async fn finalize(context: &Context, backup: &DatabaseBackup) -> Result<Action, kube::Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &namespace);
    if !finalizer::is_set(backup) {
        return Ok(Action::await_change());
    }
    if !has_dump_to_remove(backup) || namespace::is_terminating(&context.client, backup).await? {
        finalizer::remove(&api, backup).await?;
        return Ok(Action::await_change());
    }
    let site = match site_of_backup(context, backup).await {
        Ok(site) => site,
        Err(error) => return leave_behind(context, &api, backup, &said(error)?).await,
    };
    let Some(location) = location_in(&site.store.config.url, backup) else {
        let why = format!("it does not lie in {}, which is where its schedule keeps dumps now", site.store.config.url);
        return leave_behind(context, &api, backup, &why).await;
    };
    remove_dump(context, &api, backup, &site, location).await
}

fn said(error: DereferenceError) -> Result<String, kube::Error> {
    error.or_refusal().map(|(_, message)| message)
}

/// Only a published dump exists; one whose Job never got that far is swept from the store by itself.
fn has_dump_to_remove(backup: &DatabaseBackup) -> bool {
    let status = backup.status.as_ref();
    let published = status.and_then(|status| status.phase) == Some(BackupPhase::Succeeded);
    published
        && !is_true(backup, PRUNED)
        && !is_true(backup, FORCE_DELETE)
        && backup.spec.deletion_policy == DeletionPolicy::Delete
}

/// Nothing can be removed any more: the object is not held for it, and somebody is told.
async fn leave_behind(
    context: &Context,
    api: &Api<DatabaseBackup>,
    backup: &DatabaseBackup,
    why: &str,
) -> Result<Action, kube::Error> {
    let location = backup.status.as_ref().and_then(|status| status.location.as_deref()).unwrap_or_default();
    let note = format!("the dump stays in the store at {location}: {why}");
    context.events.publish(backup, Severity::Warning, "Delete", event::BACKUP_LEFT_BEHIND, note, context.now()).await;
    finalizer::remove(api, backup).await?;
    Ok(Action::await_change())
}

async fn remove_dump(
    context: &Context,
    api: &Api<DatabaseBackup>,
    backup: &DatabaseBackup,
    site: &Site,
    location: String,
) -> Result<Action, kube::Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let name = job_name(&backup.name_any(), Task::Prune);
    let Some(job) = jobs.get_opt(&name).await? else {
        let image = Image::from(&context.settings);
        let template = pod::prune_job(site, &image, vec![location], Some(&backup.name_any()));
        let job = job_of(template.map_err(kube::Error::SerdeError)?, &name);
        create(&jobs, &job).await?;
        return Ok(Action::requeue(LOOK_AGAIN));
    };
    if job.annotations().get(BACKUP_LABEL) != Some(&backup.name_any()) {
        return leave_behind(context, api, backup, &format!("a Job {name:?} that is not ours is in the way")).await;
    }
    let key = format!("backup/{}", backup.uid().unwrap_or_default());
    match outcome(&job) {
        None => Ok(Action::requeue(LOOK_AGAIN)),
        Some(true) => {
            context.backoff.reset(&key);
            let note = "its dump was removed from the store, since its deletionPolicy is Delete";
            context.events.publish(backup, Severity::Normal, "Delete", event::BACKUP_PRUNED, note, context.now()).await;
            delete(&jobs, &name).await?;
            finalizer::remove(api, backup).await?;
            Ok(Action::await_change())
        }
        Some(false) => {
            let why = prune_failure(context, &namespace, &job).await?;
            report_failure(context, backup, &why).await?;
            delete(&jobs, &name).await?;
            Ok(Action::requeue(context.backoff.next(&key).max(LOOK_AGAIN / 2)))
        }
    }
}

async fn report_failure(context: &Context, backup: &DatabaseBackup, why: &str) -> Result<(), kube::Error> {
    let mut status = backup.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&status.conditions, backup.metadata.generation, context.now());
    conditions.stalled(reasons::PRUNE_FAILED, format!("the dump could not be removed, which is tried again: {why}"));
    status.conditions = conditions.finish();
    super::write_status(context, backup, &status).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, failed, succeeded};
    use serde_json::json;

    #[test]
    fn only_a_published_dump_whose_policy_says_so_is_removed() {
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
    }
}
