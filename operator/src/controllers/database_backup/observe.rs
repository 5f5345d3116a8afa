//! The Job of a backup and its pods.

use crate::backup_jobs::jobs::pods_of;
use crate::backup_jobs::names::{Task, job_name};
use crate::context::Context;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use pgrail_crds::DatabaseBackup;
use pgrail_crds::annotations::JOB;

#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The name that the Job has or will have.
    pub(super) job_name: String,
    pub(super) job: Option<Job>,
    pub(super) pods: Vec<Pod>,
}

/// The Job that a schedule's CronJob created, where the backup was created for one; else the backup's own.
pub(super) async fn observe(backup: &DatabaseBackup, context: &Context) -> Result<Observed, kube::Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    let of_schedule = backup.annotations().get(JOB).cloned();
    let job_name = of_schedule.unwrap_or_else(|| job_name(&backup.name_any(), Task::Dump));
    let job = jobs.get_opt(&job_name).await?;
    let pods = match &job {
        Some(job) => pods_of(job, context).await?,
        None => Vec::new(),
    };
    Ok(Observed { job_name, job, pods })
}
