//! The run of one backup: its Job is found, or made, and read.

use super::report::Finding;
use crate::backup_jobs::dereference::order_of_backup;
use crate::backup_jobs::jobs::{config_of, create, job_of, pods_of};
use crate::backup_jobs::names::{Task, job_name};
use crate::backup_jobs::order::Order;
use crate::backup_jobs::outcome::{self, Failed, Progress};
use crate::backup_jobs::pod::{self, Image};
use crate::context::Context;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::annotations::{DATABASE_LABEL, JOB, SCHEDULE_LABEL, SCHEDULE_UID};
use pgrail_crds::conditions::reasons::backup as reasons;
use pgrail_crds::{BackupPhase, DatabaseBackup};
use pgrail_dump::StoreUrl;
use serde_json::json;

/// What was seen of a backup.
pub(super) struct Look {
    /// What it came to.
    pub(super) finding: Finding,
    /// Where its dump goes, as its pods were told.
    pub(super) store: Option<StoreUrl>,
}

/// Looks at the Job of a backup; makes it where the backup has none yet.
pub(super) async fn look(
    context: &Context,
    api: &Api<DatabaseBackup>,
    backup: &DatabaseBackup,
) -> Result<Look, kube::Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let followed = backup.annotations().get(JOB);
    let name = followed.cloned().unwrap_or_else(|| job_name(&backup.name_any(), Task::Dump));
    let finding = match jobs.get_opt(&name).await? {
        Some(job) if followed.is_none() && !is_owned(&job, backup) => Finding::Refused {
            reason: reasons::NAME_TAKEN,
            message: format!(
                "a Job {name:?} that is not ours is in the way: delete it, or give the backup another name"
            ),
        },
        Some(job) => {
            let pods = pods_of(context, &namespace, &name).await?;
            let store = config_of(&job).map(|config| config.store.url);
            return Ok(Look { finding: Finding::Progress(outcome::progress(&job, &pods)), store });
        }
        None if followed.is_some() => lost(&format!("the Job {name:?} was gone before its result was read")),
        None if has_run(backup) => lost(&format!("the Job {name:?} was deleted while it ran")),
        None => start(context, api, backup, &jobs, &name).await?,
    };
    Ok(Look { finding, store: None })
}

fn lost(message: &str) -> Finding {
    Finding::Progress(Progress::Failed(Failed::new(reasons::RESULT_LOST, message)))
}

fn has_run(backup: &DatabaseBackup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(BackupPhase::Running | BackupPhase::Verifying))
}

fn is_owned(job: &Job, backup: &DatabaseBackup) -> bool {
    job.owner_references().iter().any(|owner| Some(&owner.uid) == backup.metadata.uid.as_ref())
}

async fn start(
    context: &Context,
    api: &Api<DatabaseBackup>,
    backup: &DatabaseBackup,
    jobs: &Api<Job>,
    name: &str,
) -> Result<Finding, kube::Error> {
    let order = match order_of_backup(context, backup).await {
        Ok(order) => order,
        Err(error) => {
            let (reason, message) = error.or_refusal()?;
            return Ok(Finding::Refused { reason, message });
        }
    };
    mark(api, backup, &order).await?;
    let template = pod::dump_job(&order, &Image::from(&context.settings), Some(&backup.name_any()));
    let mut job = job_of(template.map_err(kube::Error::SerdeError)?, name);
    job.metadata.owner_references = backup.controller_owner_ref(&()).map(|owner| vec![owner]);
    create(jobs, &job).await?;
    Ok(Finding::Progress(Progress::Waiting("its Job was made".to_owned())))
}

/// Marks a backup as its schedule's, of this very schedule and no later one of the same name.
async fn mark(api: &Api<DatabaseBackup>, backup: &DatabaseBackup, order: &Order) -> Result<(), kube::Error> {
    let Some(schedule) = &order.site.schedule else { return Ok(()) };
    let uid = &order.site.identity.schedule_uid;
    if backup.annotations().get(SCHEDULE_UID) == Some(uid) {
        return Ok(());
    }
    let patch = json!({"metadata": {
        "labels": {SCHEDULE_LABEL: schedule, DATABASE_LABEL: crate::backup_jobs::names::bounded(&order.site.database, 63)},
        "annotations": {SCHEDULE_UID: uid},
    }});
    api.patch(&backup.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| ())
}
