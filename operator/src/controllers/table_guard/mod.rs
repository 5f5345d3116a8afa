//! `TableGuard`: what it declares is installed in PostgreSQL, verified there, repaired when it drifts, and removed when
//! it is deleted.

mod announce;
pub(crate) mod apply;
mod attempts;
mod conditions;
mod dereference;
mod finalize;
mod memory;
mod observe;
mod plan;
mod protection;
pub(crate) mod report;
pub(crate) mod state;
pub(crate) mod validate;
mod window;

use super::checks::Checks;
use crate::context::Context;
use crate::database::Session;
use crate::kubernetes::controller::{self, AT_ONCE, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::watch::{Store, Watch, Watched};
use apply::{Outcome, Target};
use futures::StreamExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use memory::Memory;
use pgrail_crds::conditions::READY;
use pgrail_crds::{DeletionPolicy, ProtectedDatabase, TableGuard};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest time between two checks of a guard that only its user can fix.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// Runs the controller until `stop`. A database that became ready, or stopped being so, is a change of its guards too.
pub(crate) fn run(
    guards: Controller<Watched<TableGuard>>,
    of_kind: &Watch<TableGuard>,
    databases: &Watch<ProtectedDatabase>,
    checks: Arc<Checks>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let memory: Arc<Memory> = Arc::default();
    let checked = Arc::clone(&checks);
    let (of_deleted, remembered, forget) = (Arc::clone(context), Arc::clone(&memory), context.forgets());
    of_kind.on_delete(move |guard: &ObjectRef<Watched<TableGuard>>| {
        of_deleted.metrics.forget_guard(guard.namespace.as_deref().unwrap_or_default(), &guard.name);
        remembered.deleted(guard.extra.uid.as_deref().unwrap_or_default());
        checked.forget(guard.extra.uid.as_deref().unwrap_or_default());
        remembered.windows.deleted(guard.extra.uid.as_deref().unwrap_or_default());
        forget(guard);
    });
    let store = of_kind.store();
    // What an event trigger notifies of is checked at once, not at the next interval.
    let notified = store.clone();
    let changed = context.databases.changes().flat_map(move |(namespace, name)| {
        let of_it = notified.state_filter(move |guard| is_of(guard, &namespace, &name));
        futures::stream::iter(of_it.iter().map(|guard| ObjectRef::from_obj(guard.as_ref())).collect::<Vec<_>>())
    });
    let ready = databases.follow(readiness, move |database: &Watched<ProtectedDatabase>| {
        let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
        let of_it = store.state_filter(move |guard| is_of(guard, &namespace, &name));
        of_it.iter().map(|guard| ObjectRef::from_obj(guard.as_ref())).collect::<Vec<_>>()
    });
    let guards = guards.reconcile_on(changed).reconcile_on(ready);
    let reconciler = TableGuards { context: Arc::clone(context), databases: databases.store(), memory, checks };
    controller::run(guards, reconciler, Arc::clone(context), stop)
}

/// Whether a guard is of this database.
fn is_of(guard: &Watched<TableGuard>, namespace: &str, name: &str) -> bool {
    let named = guard.0.as_ref().is_ok_and(|guard| guard.spec.database_ref.name == name);
    named && guard.namespace().as_deref() == Some(namespace)
}

/// What of a database matters to its guards.
fn readiness(database: &Watched<ProtectedDatabase>) -> u64 {
    let mut hasher = DefaultHasher::new();
    database.uid().hash(&mut hasher);
    database.meta().generation.hash(&mut hasher);
    if let Ok(database) = &database.0 {
        let conditions = database.status.iter().flat_map(|status| &status.conditions);
        conditions.filter(|condition| condition.type_ == READY).for_each(|ready| ready.status.hash(&mut hasher));
    }
    hasher.finish()
}

struct TableGuards {
    context: Arc<Context>,
    /// The declared databases.
    databases: Store<ProtectedDatabase>,
    memory: Arc<Memory>,
    checks: Arc<Checks>,
}

impl Reconciler for TableGuards {
    type Kind = TableGuard;
    type Error = kube::Error;
    const NAME: &'static str = "tableguard";

    fn observed_generation(object: &TableGuard) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, guard: Arc<TableGuard>) -> Result<Action, kube::Error> {
        let Self { context, databases, memory, checks } = self;
        if guard.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(&guard, memory, context).await;
        }
        keep_finalizer(&guard, context).await?;
        let (outcome, interval) = enforce(&guard, databases, memory, context).await?;
        let latest = context.latest(guard, |guard| report::report(guard, &outcome, context.now())).await?;
        let Some((guard, next)) = latest else { return Ok(Action::requeue(AT_ONCE)) };
        if matches!(outcome, Outcome::Unchanged(..)) && !is_reported(&guard) {
            // The conditions are those of an earlier generation: only a full check can replace them.
            memory.forget(&guard);
            return Ok(Action::requeue(AT_ONCE));
        }
        announce::measure(&guard, &outcome, context);
        let written = context.write_status(Self::NAME, guard.as_ref(), guard.status.as_ref(), &next).await;
        let checked = matches!(outcome, Outcome::Unchanged(..) | Outcome::Checked(_));
        if !checked || written.is_err() {
            // The conditions are not those of the last full check.
            memory.forget(&guard);
        }
        written?;
        announce::announce(&guard, &outcome, context).await;
        checks.checked(guard.metadata.uid.as_deref(), context.now());
        Ok(Action::requeue(wait(&guard, &outcome, interval, memory, context)))
    }

    fn forget(&self, namespace: &str, name: &str) {
        self.context.metrics.forget_guard(namespace, name);
    }
}

/// Whether the conditions in the status are those of this generation.
fn is_reported(guard: &TableGuard) -> bool {
    let ready = guard.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == READY);
    ready.is_some_and(|ready| ready.observed_generation == guard.metadata.generation)
}

async fn keep_finalizer(guard: &TableGuard, context: &Context) -> Result<(), kube::Error> {
    let api: Api<TableGuard> = Api::namespaced(context.client.clone(), &guard.namespace().unwrap_or_default());
    match guard.spec.deletion_policy {
        DeletionPolicy::Delete => finalizer::add(&api, guard).await,
        DeletionPolicy::Retain => finalizer::remove(&api, guard).await,
    }
}

/// dereference -> validate -> observe -> plan -> apply. Returns the check interval of the database too.
async fn enforce(
    guard: &TableGuard,
    databases: &Store<ProtectedDatabase>,
    memory: &Memory,
    context: &Context,
) -> Result<(Outcome, Duration), kube::Error> {
    let database = match dereference::dereference(guard, databases, context).await {
        Ok(database) => database,
        Err(error) => return Ok((Outcome::Rejected(error.into_rejection()?), STALLED_RETRY)),
    };
    let spec = match validate::validate(guard, &context.cluster_id) {
        Ok(spec) => spec,
        Err(rejection) => return Ok((Outcome::Rejected(rejection), STALLED_RETRY)),
    };
    let interval = Duration::from(database.spec.check_interval);
    let target = Target { guard, spec: &spec, database: &database };
    let last = memory.check(guard).filter(|last| last.released == spec.released);
    let now = context.now();
    if let (Some(last), Some(check)) = (&last, context.databases.last_check(&database))
        && plan::is_enough(guard.metadata.generation, now, interval, &check, last)
    {
        return Ok((apply::unchanged(&target, &check, memory, context), interval));
    }
    let work = async |session: &mut Session| {
        let fingerprint = observe::observe(session).await?;
        let work = plan::plan(guard.metadata.generation, context.now(), &fingerprint, last.as_ref());
        apply::apply(&target, work, &fingerprint, session, memory, context).await
    };
    let applied = context.databases.with(&database, work).await;
    Ok((applied.unwrap_or_else(Outcome::Unreachable), interval))
}

/// When to check again: at the database's interval, sooner where a retry is due, and at least every ten minutes where
/// only the user can fix it.
fn wait(guard: &TableGuard, outcome: &Outcome, interval: Duration, memory: &Memory, context: &Context) -> Duration {
    let key = format!("guard/{}", guard.uid().unwrap_or_default());
    match outcome {
        Outcome::Rejected(_) => STALLED_RETRY,
        Outcome::Unreachable(_) => context.backoff.next(&key).min(interval),
        Outcome::Checked(_) | Outcome::Unchanged(..) => {
            context.backoff.reset(&key);
            let now = context.now();
            let interval = match outcome {
                // From when it was observed, which may have been before this reconcile.
                Outcome::Unchanged(at, ..) => {
                    interval.saturating_sub(Duration::try_from(now.duration_since(*at)).unwrap_or_default())
                }
                _ => interval,
            };
            let retry = memory.check(guard).and_then(|check| check.retry);
            let due = retry.and_then(|retry| Duration::try_from(retry.due.duration_since(now)).ok());
            due.map_or(interval, |due| due.min(interval))
        }
    }
}
