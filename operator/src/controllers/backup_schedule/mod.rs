//! `BackupSchedule`: a CronJob whose pods make dumps, a `DatabaseBackup` for each run, retention, and the truth about how
//! old the newest verified backup is.

mod apply;
mod cron;
mod cron_job;
mod finalize;
mod freshness;
mod history;
mod observe;
mod plan;
mod report;
mod retention;
mod validate;

use crate::backup_jobs::dereference::{DereferenceError, order_of_schedule};
use crate::backup_jobs::pod::Image;
use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler, Store, Watched};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{PredicateConfig, WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::annotations::{SCHEDULE_LABEL, SCHEDULE_UID, TASK_LABEL};
use pgrail_crds::{BackupSchedule, DatabaseBackup, ProtectedDatabase};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use validate::{Refusal, Validated};

/// Name of the controller.
const NAME: &str = "backupschedule";
/// Under which the CronJob is applied.
const FIELD_MANAGER: &str = "pgrail-backupschedule";
/// The longest that a schedule is not looked at, whatever it waits for.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);
/// The longest that an object waits which only its user can mend.
const STALLED_RETRY: Duration = Duration::from_mins(5);

/// Runs the controller until `stop`. What happens to a schedule's CronJob, Jobs, backups and database happens to it.
pub(crate) async fn run(context: &Arc<Context>, stop: CancellationToken) {
    let (schedules, store) = controller::watch::<BackupSchedule>(context.watched());
    let ours = || watcher::Config::default().labels(TASK_LABEL);
    let backups: Api<Watched<DatabaseBackup>> = context.watched();
    let outcomes = watcher(backups, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .predicate_filter(outcome, PredicateConfig::default());
    let databases: Api<Watched<ProtectedDatabase>> = context.watched();
    let declarations = watcher(databases, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .predicate_filter(declared, PredicateConfig::default());
    let schedules = schedules
        .watches(context.watched::<CronJob>(), ours(), |cron_job: CronJob| labelled(&cron_job))
        .watches(context.watched::<Job>(), ours(), |job: Job| labelled(&job))
        .watches_stream(outcomes, |backup: Watched<DatabaseBackup>| {
            let backup = backup.0.ok()?;
            Some(ObjectRef::new(&backup.spec.schedule_ref.as_ref()?.name).within(&backup.namespace()?))
        })
        .watches_stream(declarations, move |database: Watched<ProtectedDatabase>| of_database(&store, &database));
    let reconciler = BackupSchedules { context: Arc::clone(context) };
    controller::run(schedules, reconciler, Arc::clone(context), stop).await;
}

fn labelled(object: &impl ResourceExt) -> Option<ObjectRef<Watched<BackupSchedule>>> {
    Some(ObjectRef::new(object.labels().get(SCHEDULE_LABEL)?).within(&object.namespace()?))
}

fn of_database(
    store: &Store<BackupSchedule>,
    database: &Watched<ProtectedDatabase>,
) -> Vec<ObjectRef<Watched<BackupSchedule>>> {
    let (name, namespace) = (database.name_any(), database.namespace());
    let refers = |schedule: &&Arc<Watched<BackupSchedule>>| {
        schedule.namespace() == namespace && schedule.0.as_ref().is_ok_and(|it| it.spec.database_ref.name == name)
    };
    store.state().iter().filter(refers).map(|schedule| ObjectRef::from_obj(schedule.as_ref())).collect()
}

/// What of a backup matters to its schedule.
fn outcome(backup: &Watched<DatabaseBackup>) -> Option<u64> {
    let backup = backup.0.as_ref().ok()?;
    let status = backup.status.as_ref();
    let phase = status.and_then(|status| status.phase).map(|phase| format!("{phase:?}"));
    let proof = status.and_then(|status| status.verification.as_ref()).map(|it| format!("{:?}", it.level));
    let marked = backup.annotations().get(SCHEDULE_UID);
    let going = backup.metadata.deletion_timestamp.is_some();
    Some(hashed(&(&backup.metadata.uid, phase, proof, marked, backup.spec.pinned, going)))
}

/// What of a database matters to its schedules.
#[allow(clippy::unnecessary_wraps, reason = "the signature is kube's")]
fn declared(database: &Watched<ProtectedDatabase>) -> Option<u64> {
    Some(hashed(&(&database.meta().uid, database.meta().generation)))
}

fn hashed(facts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    facts.hash(&mut hasher);
    hasher.finish()
}

/// What goes wrong in Kubernetes itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The apiserver failed.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// Something of ours does not become JSON.
    #[error("could not write JSON")]
    Json(#[from] serde_json::Error),
}

struct BackupSchedules {
    context: Arc<Context>,
}

impl Reconciler for BackupSchedules {
    type Kind = BackupSchedule;
    type Error = Error;
    const NAME: &'static str = NAME;

    async fn reconcile(&self, seen: Arc<BackupSchedule>) -> Result<Action, Error> {
        let context = &self.context;
        let api: Api<BackupSchedule> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read anew: its own status is what a schedule remembers by.
        let Some(schedule) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if schedule.metadata.deletion_timestamp.is_some() {
            return Ok(Box::pin(finalize::finalize(context, &schedule)).await?);
        }
        finalize::keep(context, &schedule).await?;
        let now = context.now();
        let validated = validated(context, &schedule, now).await?;
        let mut observed = observe::observe(context, &schedule).await?;
        let mut history = history::read(&observed.backups);
        let image = Image::from(&context.settings);
        let plan = plan::plan(&plan::Basis {
            schedule: &schedule,
            validated: validated.as_ref().ok(),
            observed: &observed,
            history: &history,
            image: &image,
            now,
        })?;
        let applied = apply::apply(context, &schedule, plan).await?;
        if applied.changed {
            observed = observe::observe(context, &schedule).await?;
            history = history::read(&observed.backups);
        }
        let validated = validated.as_ref();
        let report::Report { status: next, fresh, turns } = report::report(&report::Basis {
            schedule: &schedule,
            validated,
            observed: &observed,
            history: &history,
            applied: &applied,
            now,
        });
        context.write_status(NAME, &schedule, schedule.status.as_ref(), &next).await?;
        let newest = history.newest_verified.map(Timestamp::as_second);
        context.metrics.backup_freshness(&seen.namespace().unwrap_or_default(), &seen.name_any(), fresh, newest);
        Ok(wait(context, &schedule, validated.is_err() || applied.refused.is_some(), turns))
    }
}

/// Dereferences and validates: a schedule that can be carried out, or what its user must mend.
async fn validated(
    context: &Context,
    schedule: &BackupSchedule,
    now: Timestamp,
) -> Result<Result<Validated, Refusal>, Error> {
    let cron = match validate::schedule(schedule, now) {
        Ok(cron) => cron,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match order_of_schedule(context, schedule).await {
        Ok((order, database)) => Ok(Ok(validate::validated(schedule, cron, order, &database, now))),
        Err(error) => refusal(error),
    }
}

fn refusal(error: DereferenceError) -> Result<Result<Validated, Refusal>, Error> {
    let (reason, message) = error.or_refusal()?;
    Ok(Err(Refusal { reason, message }))
}

/// When to look again: when freshness would turn or the next run is due, and every ten minutes at least.
fn wait(context: &Context, schedule: &BackupSchedule, stalled: bool, turns: Option<Timestamp>) -> Action {
    let key = format!("schedule/{}", schedule.uid().unwrap_or_default());
    if stalled {
        return Action::requeue(context.backoff.next(&key).min(STALLED_RETRY));
    }
    context.backoff.reset(&key);
    // A second later, since a moment at which something turns still belongs to the time before.
    let until = turns.map_or(LONGEST_WAIT, |turns| turns.duration_since(context.now()) + SignedDuration::from_secs(1));
    let until = until.clamp(SignedDuration::from_secs(1), LONGEST_WAIT);
    Action::requeue(Duration::try_from(until).unwrap_or(STALLED_RETRY))
}
