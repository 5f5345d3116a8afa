//! The Job of a restore and its pods.

use crate::backup_jobs::jobs::{is_controlled_by, pods_of};
use crate::backup_jobs::names::{Task, job_name};
use crate::context::Context;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use pgrail_crds::DatabaseRestore;

#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The name that the Job has or will have.
    pub(super) job_name: String,
    pub(super) job: Option<Job>,
    /// Whether the Job's controller is the restore.
    pub(super) is_ours: bool,
    pub(super) pods: Vec<Pod>,
}

pub(super) async fn observe(restore: &DatabaseRestore, context: &Context) -> Result<Observed, kube::Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &restore.namespace().unwrap_or_default());
    let job_name = job_name(&restore.name_any(), Task::Restore);
    let Some(job) = jobs.get_opt(&job_name).await? else {
        return Ok(Observed { job_name, job: None, is_ours: false, pods: Vec::new() });
    };
    let is_ours = is_controlled_by(&job, restore);
    let pods = if is_ours { pods_of(&job, context).await? } else { Vec::new() };
    Ok(Observed { job_name, job: Some(job), is_ours, pods })
}
