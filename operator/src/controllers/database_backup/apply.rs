//! Creates the Job of a backup. Each step can be repeated.

use crate::backup_jobs::job_spec::JobSpec;
use crate::backup_jobs::jobs::{create, delete, job_of};
use crate::backup_jobs::names::bounded;
use crate::backup_jobs::pod::{Installation, dump_job};
use crate::context::Context;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::DatabaseBackup;
use pgrail_crds::annotations::{DATABASE_LABEL, SCHEDULE_LABEL, SCHEDULE_UID};
use serde_json::json;

pub(super) async fn apply(
    backup: &DatabaseBackup,
    job_name: &str,
    spec: &JobSpec,
    context: &Context,
) -> Result<(), kube::Error> {
    let namespace = backup.namespace().unwrap_or_default();
    label(backup, spec, context).await?;
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let template = dump_job(spec, &Installation::from(&context.settings), Some(&backup.name_any()));
    let mut job = job_of(template.map_err(kube::Error::SerdeError)?, job_name);
    job.metadata.owner_references = backup.controller_owner_ref(&()).map(|owner| vec![owner]);
    create(&jobs, &job).await
}

pub(super) async fn delete_job(backup: &DatabaseBackup, job_name: &str, context: &Context) -> Result<(), kube::Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    delete(&jobs, job_name).await
}

/// Labels a backup with its schedule, by UID: a later schedule of the same name is another one.
async fn label(backup: &DatabaseBackup, spec: &JobSpec, context: &Context) -> Result<(), kube::Error> {
    let Some(schedule) = &spec.destination.schedule else { return Ok(()) };
    let uid = &spec.destination.identity.schedule_uid;
    if backup.annotations().get(SCHEDULE_UID) == Some(uid) {
        return Ok(());
    }
    let patch = json!({"metadata": {
        "labels": {SCHEDULE_LABEL: schedule, DATABASE_LABEL: bounded(&spec.destination.database, 63)},
        "annotations": {SCHEDULE_UID: uid},
    }});
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    api.patch(&backup.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| ())
}
