//! The Job of a backup and its pods.

use crate::backup_jobs::jobs::{is_controlled_by, pods_of};
use crate::backup_jobs::names::{Task, cron_job_name, job_name};
use crate::context::Context;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::JOB;
use pgrail_crds::{BackupSchedule, DatabaseBackup};

#[derive(Clone, Debug)]
pub(super) struct Observed {
    /// The name that the Job has or will have.
    pub(super) job_name: String,
    pub(super) job: Option<Job>,
    /// Whether the Job's controller is the backup itself, or the CronJob of the backup's schedule.
    pub(super) is_ours: bool,
    pub(super) pods: Vec<Pod>,
}

/// The Job that a schedule's CronJob created, where the backup was created for one; else the backup's own.
pub(super) async fn observe(backup: &DatabaseBackup, context: &Context) -> Result<Observed, kube::Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    let of_schedule = backup.annotations().get(JOB).cloned();
    let of_cron_job = of_schedule.is_some();
    let job_name = of_schedule.unwrap_or_else(|| job_name(&backup.name_any(), Task::Dump));
    let Some(job) = jobs.get_opt(&job_name).await? else {
        return Ok(Observed { job_name, job: None, is_ours: false, pods: Vec::new() });
    };
    // The annotation is not enough: anyone who can create backups can set it.
    let is_ours =
        if of_cron_job { is_of_schedule(&job, backup, context).await? } else { is_controlled_by(&job, backup) };
    let pods = if is_ours { pods_of(&job, context).await? } else { Vec::new() };
    Ok(Observed { job_name, job: Some(job), is_ours, pods })
}

async fn is_of_schedule(job: &Job, backup: &DatabaseBackup, context: &Context) -> Result<bool, kube::Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let Some(name) = backup.spec.schedule_ref.as_ref().map(|reference| reference.name.as_str()) else {
        return Ok(false);
    };
    let (cron_jobs, schedules) = (
        Api::<CronJob>::namespaced(context.client.clone(), &namespace),
        Api::<BackupSchedule>::namespaced(context.client.clone(), &namespace),
    );
    let cron_job = cron_job_name(name);
    let (cron_job, schedule) = futures::try_join!(cron_jobs.get_opt(&cron_job), schedules.get_opt(name))?;
    let (Some(cron_job), Some(schedule)) = (cron_job, schedule) else { return Ok(false) };
    Ok(is_controlled_by(job, &cron_job) && is_controlled_by(&cron_job, &schedule))
}
