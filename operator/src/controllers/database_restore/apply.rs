//! Creates the Job of a restore. It can be repeated.

use super::validate::Validated;
use crate::backup_jobs::jobs::{create, job_of};
use crate::backup_jobs::pod::{Installation, restore_job};
use crate::context::Context;
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::DatabaseRestore;
use pgrail_crds::annotations::RESTORE_LABEL;
use std::collections::BTreeMap;

pub(super) async fn apply(
    restore: &DatabaseRestore,
    job_name: &str,
    validated: &Validated,
    context: &Context,
) -> Result<(), kube::Error> {
    let Validated { destination, connection, config } = validated;
    let image = Installation::from(&context.settings);
    let template = restore_job(destination, connection, &image, config.clone()).map_err(kube::Error::SerdeError)?;
    let mut job = job_of(template, job_name);
    let of_restore = || BTreeMap::from([(RESTORE_LABEL.to_owned(), restore.name_any())]);
    job.metadata.annotations.get_or_insert_default().extend(of_restore());
    if let Some(pod) = job.spec.as_mut().and_then(|spec| spec.template.metadata.as_mut()) {
        pod.annotations.get_or_insert_default().extend(of_restore());
    }
    job.metadata.owner_references = restore.controller_owner_ref(&()).map(|owner| vec![owner]);
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &restore.namespace().unwrap_or_default());
    create(&jobs, &job).await
}
