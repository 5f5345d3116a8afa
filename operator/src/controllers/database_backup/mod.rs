//! `DatabaseBackup`: one dump, made now or by a schedule's Job, followed to its end.
//!
//! One that the operator made for a Job of a schedule names that Job in an annotation and is only followed. Every other
//! gets a Job of its own. What a backup came to is read from the termination messages of its pod's containers, once:
//! a backup that is over is not looked at again.

mod finalize;
mod report;
mod run;

use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler, Watched};
use crate::kubernetes::events::Severity;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::TASK_LABEL;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{BackupPhase, DatabaseBackup, DatabaseBackupStatus};
use report::{Finding, is_final};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Label of a pod with the name of its Job.
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// A backup under way is looked at again after so long, besides when its Job or pod changes.
const LOOK_AGAIN: Duration = Duration::from_mins(2);
/// The longest that an object waits which only its user can mend.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// Runs the controller until `stop`. Changes of a backup's Job and of that Job's pods are changes of it too.
pub(crate) async fn run(context: &Arc<Context>, stop: CancellationToken) {
    let (backups, _) = controller::watch::<DatabaseBackup>(context.watched());
    let ours = || watcher::Config::default().labels(TASK_LABEL);
    let backups = backups.watches(context.watched::<Job>(), ours(), |job: Job| owner(&job, &job.name_any())).watches(
        context.watched::<Pod>(),
        ours(),
        |pod: Pod| {
            let job = pod.labels().get(JOB_NAME_LABEL)?.clone();
            owner(&pod, &job)
        },
    );
    let reconciler = DatabaseBackups { context: Arc::clone(context) };
    controller::run(backups, reconciler, Arc::clone(context), stop).await;
}

fn owner(object: &impl ResourceExt, job: &str) -> Option<ObjectRef<Watched<DatabaseBackup>>> {
    Some(ObjectRef::new(&crate::backup_jobs::jobs::backup_of(object, job)?).within(&object.namespace()?))
}

struct DatabaseBackups {
    context: Arc<Context>,
}

impl Reconciler for DatabaseBackups {
    type Kind = DatabaseBackup;
    type Error = kube::Error;
    const NAME: &'static str = "databasebackup";

    async fn reconcile(&self, seen: Arc<DatabaseBackup>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read anew: what the watch has seen may be older than what this controller wrote last, and a backup that is over
        // must stay over.
        let Some(backup) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if backup.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(context, &backup).await;
        }
        finalize::keep(&api, &backup).await?;
        if is_final(&backup) {
            return Ok(Action::await_change());
        }
        let run::Look { finding, store } = run::look(context, &api, &backup).await?;
        let next = report::status(&backup, &finding, store.as_ref(), context.now());
        if write_status(context, &backup, &next).await? {
            announce(context, &backup, &next).await;
        }
        Ok(wait(context, &backup, &finding))
    }
}

/// Writes the status, except for what retention says in it: that is the schedule's controller's.
async fn write_status(
    context: &Context,
    backup: &DatabaseBackup,
    next: &DatabaseBackupStatus,
) -> Result<bool, kube::Error> {
    let ours = |status: &DatabaseBackupStatus| -> Result<Value, kube::Error> {
        let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        if let Some(fields) = status.as_object_mut() {
            fields.remove("keptBecause");
        }
        Ok(status)
    };
    let current = backup.status.as_ref().map(ours).transpose()?;
    context.write_status(DatabaseBackups::NAME, backup, current.as_ref(), &ours(next)?).await
}

/// Tells what a backup came to, when it came to it.
async fn announce(context: &Context, backup: &DatabaseBackup, next: &DatabaseBackupStatus) {
    let now = context.now();
    match next.phase {
        Some(BackupPhase::Succeeded) => {
            let location = next.location.as_deref().unwrap_or_default();
            let note = format!("{} rows of {} tables at {location}", next.rows.unwrap_or(0), next.tables.unwrap_or(0));
            context.events.publish(backup, Severity::Normal, "Verify", event::BACKUP_VERIFIED, note, now).await;
        }
        Some(BackupPhase::Failed) => {
            context.events.publish(backup, Severity::Warning, "Dump", event::BACKUP_FAILED, &next.message, now).await;
        }
        _ => {}
    }
}

fn wait(context: &Context, backup: &DatabaseBackup, finding: &Finding) -> Action {
    let key = format!("backup/{}", backup.uid().unwrap_or_default());
    match finding {
        Finding::Refused { .. } => Action::requeue(context.backoff.next(&key).min(STALLED_RETRY)),
        Finding::Progress(_) => {
            context.backoff.reset(&key);
            Action::requeue(LOOK_AGAIN)
        }
    }
}
