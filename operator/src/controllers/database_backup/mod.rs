//! `DatabaseBackup`: one dump, from its Job to its result.
//!
//! A backup that the operator created for a Job of a schedule names that Job in an annotation. Every other gets a Job of
//! its own. The result is read from the termination messages of the pod's containers, once: a finished backup is not
//! observed again.

mod apply;
mod dereference;
mod finalize;
mod observe;
mod plan;
mod report;
mod validate;

use crate::backup_jobs::outcome::Progress;
use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::watch::{self, Watched};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{DISCOVERED, TASK_LABEL};
use pgrail_crds::{DatabaseBackup, DeletionPolicy};
use plan::{Outcome, Step};
use report::is_final;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Label of a pod with the name of its Job.
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// How often a running backup is observed, besides when its Job or pod changes.
const RECHECK: Duration = Duration::from_mins(2);
/// The longest wait for a problem that the user must resolve.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// Runs the controller until `stop`. A change of a backup's Job, or of that Job's pods, triggers a reconcile too.
pub(crate) fn run(
    backups: Controller<Watched<DatabaseBackup>>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let ours = || watch::config().labels(TASK_LABEL);
    let backups = backups.watches(context.watched::<Job>(), ours(), |job: Job| owner(&job, &job.name_any())).watches(
        context.watched::<Pod>(),
        ours(),
        |pod: Pod| {
            let job = pod.labels().get(JOB_NAME_LABEL)?.clone();
            owner(&pod, &job)
        },
    );
    let reconciler = DatabaseBackups { context: Arc::clone(context) };
    controller::run(backups, reconciler, Arc::clone(context), stop)
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
    const NAME: &'static str = report::CONTROLLER;

    fn observed_generation(object: &DatabaseBackup) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, seen: Arc<DatabaseBackup>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read again: the watch may be behind this controller's own writes, and a finished backup must stay finished.
        let Some(backup) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if backup.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(&backup, context).await;
        }
        match backup.spec.deletion_policy {
            DeletionPolicy::Delete => finalizer::add(&api, &backup).await?,
            DeletionPolicy::Retain => finalizer::remove(&api, &backup).await?,
        }
        // A dump that was found in the store has no run: its status is written by the controller of the schedule.
        if is_final(&backup) || backup.annotations().contains_key(DISCOVERED) {
            return Ok(Action::await_change());
        }
        let observed = observe::observe(&backup, context).await?;
        let outcome = match plan::plan(&backup, &observed, context.now()) {
            Step::Report(outcome) => outcome,
            Step::CreateJob => create_job(&backup, &observed.job_name, context).await?,
        };
        if outcome.reason() == Some(Reason::NodeLost) {
            // Its pods are never deleted, so that the CronJob would wait for it for ever.
            apply::delete_job(&backup, &observed.job_name, context).await?;
        }
        let next = report::status(&backup, &outcome, context.now());
        if report::write(&backup, &next, context).await? {
            report::announce(&backup, &next, context).await;
        }
        Ok(wait(&backup, &outcome, context))
    }
}

/// dereference -> validate -> apply, needed only for a backup that has no Job yet.
async fn create_job(backup: &DatabaseBackup, job_name: &str, context: &Context) -> Result<Outcome, kube::Error> {
    let references = match dereference::dereference(backup, context).await {
        Ok(references) => references,
        Err(error) => return error.into_rejection().map(Outcome::Rejected),
    };
    let spec = validate::validate(backup, references, &context.cluster_id);
    let allowed = &context.settings.allowed_stores;
    let spec = match spec.and_then(|spec| spec.destination.store.check_allowed(allowed).map(|()| spec)) {
        Ok(spec) => spec,
        Err(error) => return Ok(Outcome::Rejected(error.rejection())),
    };
    apply::apply(backup, job_name, &spec, context).await?;
    Ok(Progress::Waiting("its Job was created".to_owned()).into())
}

fn wait(backup: &DatabaseBackup, outcome: &Outcome, context: &Context) -> Action {
    let key = format!("backup/{}", backup.uid().unwrap_or_default());
    match outcome {
        Outcome::Rejected(_) => Action::requeue(context.backoff.next(&key).min(STALLED_RETRY)),
        Outcome::Progress { .. } => {
            context.backoff.reset(&key);
            Action::requeue(RECHECK)
        }
    }
}
