//! `BackupSchedule`: a CronJob whose pods make dumps, a `DatabaseBackup` for each run, retention, and whether the newest
//! verified backup is young enough.

mod apply;
mod cron;
mod cron_job;
mod dereference;
mod drill;
mod finalize;
mod freshness;
mod history;
mod lost_cluster;
mod observe;
mod plan;
mod report;
mod retention;
mod shrink;
mod store;
mod store_check;
mod validate;
mod watch;

use crate::backup_jobs::pod::Installation;
use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::rejection::{Reason, StepError};
use crate::kubernetes::watch::{self as kind, Watch, Watched};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use observe::DrillState;
use pgrail_crds::annotations::TASK_LABEL;
use pgrail_crds::{BackupSchedule, DatabaseBackup, DeletionPolicy, ProtectedDatabase};
use shrink::ShrinkEvent;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use validate::Validated;

/// The longest time between two reconciles of a schedule.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);
/// The longest wait for a problem that the user must resolve.
const STALLED_RETRY: Duration = Duration::from_mins(5);

/// Runs the controller until `stop`. A change of a schedule's CronJob, Jobs, backups or database triggers a reconcile too.
pub(crate) fn run(
    schedules: Controller<Watched<BackupSchedule>>,
    of_kind: &Watch<BackupSchedule>,
    backups: &Watch<DatabaseBackup>,
    databases: &Watch<ProtectedDatabase>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let store = of_kind.store();
    let (of_deleted, forget) = (Arc::clone(context), context.forgets());
    of_kind.on_delete(move |schedule: &ObjectRef<Watched<BackupSchedule>>| {
        of_deleted.metrics.forget_schedule(schedule.namespace.as_deref().unwrap_or_default(), &schedule.name);
        forget(schedule);
    });
    let ours = || kind::config().labels(TASK_LABEL);
    let schedules = schedules
        .watches(context.watched::<CronJob>(), ours(), |cron_job: CronJob| watch::labelled(&cron_job))
        .watches(context.watched::<Job>(), ours(), |job: Job| watch::labelled(&job))
        .reconcile_on(backups.follow(watch::result, watch::of_backup))
        .reconcile_on(databases.follow(watch::declaration, move |database: &Watched<ProtectedDatabase>| {
            watch::of_database(&store, database)
        }));
    let reconciler = BackupSchedules { context: Arc::clone(context) };
    controller::run(schedules, reconciler, Arc::clone(context), stop)
}

struct BackupSchedules {
    context: Arc<Context>,
}

impl Reconciler for BackupSchedules {
    type Kind = BackupSchedule;
    type Error = kube::Error;
    const NAME: &'static str = apply::CONTROLLER;

    fn observed_generation(object: &BackupSchedule) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, seen: Arc<BackupSchedule>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let api: Api<BackupSchedule> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read again: the watch may be behind this controller's own status, which the next one depends on.
        let Some(schedule) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if schedule.metadata.deletion_timestamp.is_some() {
            return Box::pin(finalize::finalize(&schedule, context)).await;
        }
        match schedule.spec.deletion_policy {
            DeletionPolicy::Delete => finalizer::add(&api, &schedule).await?,
            DeletionPolicy::Retain => finalizer::remove(&api, &schedule).await?,
        }
        let now = context.now();
        let validated = match validated(&schedule, context, now).await {
            Ok(validated) => Ok(validated),
            Err(error) => Err(error.into_rejection()?),
        };
        let mut observed = Box::pin(observe::observe(&schedule, context)).await?;
        let image = Installation::from(&context.settings);
        let plan =
            plan::plan(&schedule, validated.as_ref().ok(), &observed, &image, now).map_err(kube::Error::SerdeError)?;
        let applied = apply::apply(&schedule, plan, context).await?;
        if validated.as_ref().is_err_and(|rejection| rejection.reason == Reason::StoreNotAllowed) {
            apply::suspend(&schedule, &observed, context).await?;
        }
        if applied.changed {
            observed = Box::pin(observe::observe(&schedule, context)).await?;
        }
        let validated = validated.as_ref();
        let report = report::report(&schedule, validated, &observed, &applied, now);
        // Before the status: who has read that can read the metrics.
        report::measure(&schedule, &report, &context.metrics);
        context.write_status(Self::NAME, &schedule, schedule.status.as_ref(), &report.status).await?;
        for ShrinkEvent { severity, reason, note } in &report.events {
            context.events.publish(&schedule, *severity, "Compare", reason, note, now).await;
        }
        if let Some(DrillState::Ended(result)) = &observed.drill {
            let (severity, reason, note) = drill::report::event(result);
            context.events.publish(&schedule, severity, "Drill", reason, note, now).await;
        }
        let is_stalled =
            validated.map_or(true, |it| matches!(it.lost_cluster, Some(Err(_)))) || applied.rejected.is_some();
        Ok(wait(&schedule, is_stalled, report.next_change, context))
    }

    fn forget(&self, namespace: &str, name: &str) {
        self.context.metrics.forget_schedule(namespace, name);
    }
}

/// dereference -> validate
async fn validated(schedule: &BackupSchedule, context: &Context, now: Timestamp) -> Result<Validated, StepError> {
    let references = dereference::dereference(schedule, context).await?;
    let validated = validate::validate(schedule, references, &context.cluster_id, now);
    let validated = validated.map_err(|error| error.rejection())?;
    let allowed = validated.job.destination.store.check_allowed(&context.settings.allowed_stores);
    allowed.map_err(|error| error.rejection())?;
    Ok(validated)
}

/// When to reconcile again: when freshness changes or the next run is due, and every ten minutes at least.
fn wait(schedule: &BackupSchedule, stalled: bool, next_change: Option<Timestamp>, context: &Context) -> Action {
    let key = format!("schedule/{}", schedule.uid().unwrap_or_default());
    if stalled {
        return Action::requeue(context.backoff.next(&key).min(STALLED_RETRY));
    }
    context.backoff.reset(&key);
    // One second later: at the very moment the earlier state still holds.
    let wait =
        next_change.map_or(LONGEST_WAIT, |time| time.duration_since(context.now()) + SignedDuration::from_secs(1));
    let wait = wait.clamp(SignedDuration::from_secs(1), LONGEST_WAIT);
    Action::requeue(Duration::try_from(wait).unwrap_or(STALLED_RETRY))
}
