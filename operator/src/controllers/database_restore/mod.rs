//! `DatabaseRestore`: rows of a backup, restored once by a Job.
//!
//! The backup that the source resolves to is recorded in the status before the Job is created, and never changes. The result is
//! read from the termination message of the Job's pod, once: a finished restore is not observed again.

mod apply;
mod dereference;
mod observe;
mod plan;
mod report;
mod validate;

use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::rejection::Rejection;
use crate::kubernetes::watch::{self, Watched, watch};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::DatabaseRestore;
use pgrail_crds::annotations::{RESTORE_LABEL, TASK_LABEL};
use plan::{Outcome, Step};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a running restore is observed, besides when its Job or pod changes.
const RECHECK: Duration = Duration::from_mins(2);
/// The longest wait for a problem that the user must resolve.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// Runs the controller until `stop`. A change of a restore's Job, or of that Job's pods, triggers a reconcile too.
pub(crate) fn run(context: &Arc<Context>, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
    let ours = || watch::config().labels(TASK_LABEL);
    let restores = watch::<DatabaseRestore>(context.watched()).0;
    let restores = restores.watches(context.watched::<Job>(), ours(), |job: Job| owner(&job)).watches(
        context.watched::<Pod>(),
        ours(),
        |pod: Pod| owner(&pod),
    );
    let reconciler = DatabaseRestores { context: Arc::clone(context) };
    controller::run(restores, reconciler, Arc::clone(context), stop)
}

fn owner(object: &impl ResourceExt) -> Option<ObjectRef<Watched<DatabaseRestore>>> {
    Some(ObjectRef::new(object.annotations().get(RESTORE_LABEL)?).within(&object.namespace()?))
}

struct DatabaseRestores {
    context: Arc<Context>,
}

impl Reconciler for DatabaseRestores {
    type Kind = DatabaseRestore;
    type Error = kube::Error;
    const NAME: &'static str = report::CONTROLLER;

    fn observed_generation(object: &DatabaseRestore) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, seen: Arc<DatabaseRestore>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let api: Api<DatabaseRestore> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read again: the watch may be behind this controller's own writes, and a finished restore must stay finished.
        let Some(restore) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        // Its Job is removed with it.
        if restore.metadata.deletion_timestamp.is_some() || report::is_final(&restore) {
            return Ok(Action::await_change());
        }
        let observed = observe::observe(&restore, context).await?;
        let outcome = match plan::plan(&restore, &observed) {
            Step::Report(outcome) => outcome,
            Step::CreateJob => create_job(&restore, &observed.job_name, context).await?,
        };
        let next = report::status(&restore, &outcome, context.now());
        if report::write(&restore, &next, context).await? {
            report::announce(&restore, &next, context).await;
        }
        Ok(wait(&restore, &outcome, context))
    }
}

/// dereference -> validate -> apply, needed only for a restore that has no Job yet.
async fn create_job(restore: &DatabaseRestore, job_name: &str, context: &Context) -> Result<Outcome, kube::Error> {
    let rejected = |rejection: Rejection| Ok(Outcome::Rejected(rejection));
    if let Err(rejection) = validate::spec(restore) {
        return rejected(rejection);
    }
    let references = match dereference::dereference(restore, context).await {
        Ok(references) => references,
        Err(error) => return error.into_rejection().map(Outcome::Rejected),
    };
    let backup = references.backup.name_any();
    let recorded = restore.status.as_ref().and_then(|status| status.source.as_ref()) == Some(&backup);
    let validated = match validate::validate(restore, references, context) {
        Ok(validated) => validated,
        Err(rejection) => return rejected(rejection),
    };
    if !recorded {
        // First the status: whatever happens next, the restore is of this backup.
        return Ok(Outcome::Selected(backup));
    }
    apply::apply(restore, job_name, &validated, context).await?;
    Ok(Outcome::Waiting("its Job was created".to_owned()))
}

fn wait(restore: &DatabaseRestore, outcome: &Outcome, context: &Context) -> Action {
    let key = format!("restore/{}", restore.uid().unwrap_or_default());
    match outcome {
        Outcome::Rejected(_) => Action::requeue(context.backoff.next(&key).min(STALLED_RETRY)),
        Outcome::Selected(_) => Action::requeue(Duration::ZERO),
        Outcome::Waiting(_) | Outcome::Running(_) | Outcome::Ended(_) | Outcome::Failed(_) => {
            context.backoff.reset(&key);
            Action::requeue(RECHECK)
        }
    }
}
