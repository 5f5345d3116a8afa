//! `ProtectedDatabase`: reach it, say what it is, and what deletes in it could take with them.

mod observe;
mod report;

use crate::kubernetes::api::watched;
use crate::kubernetes::controller::{self, Reconciler, Stop, Store, Watched};
use crate::kubernetes::events::Severity;
use crate::kubernetes::status;
use crate::operator::Context;
use futures::StreamExt;
use jiff::SignedDuration;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use observe::Observation;
pub(crate) use observe::Seen;
use pgrail_crds::conditions::ENFORCED;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{ProtectedDatabase, TableGuard};
pub(crate) use report::two_digits;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The catalog is read anew that often, besides after changes.
const CATALOG_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// Estimates move at most that often, so that a busy database does not make a busy apiserver.
const ESTIMATES_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// Captured rows are looked at no more often, whatever the interval of the checks.
const PRUNE_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// The longest that an object waits which only its user can mend.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// The watch of this kind.
pub(crate) fn controller(context: &Context) -> (Controller<Watched<ProtectedDatabase>>, Store<ProtectedDatabase>) {
    controller::watch(watched(context))
}

/// Runs the controller until `stop`. A guard that came, went or changed its state is a change of its database too.
pub(crate) async fn run(databases: Controller<Watched<ProtectedDatabase>>, context: &Arc<Context>, stop: Stop) {
    let guards: Api<Watched<TableGuard>> = watched(context);
    let changes = watcher(guards, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .predicate_filter(enforcement, PredicateConfig::default());
    let databases = databases.watches_stream(changes, |guard: Watched<TableGuard>| {
        let guard = guard.0.ok()?;
        Some(ObjectRef::new(&guard.spec.database_ref.name).within(&guard.namespace()?))
    });
    let changed = context.databases.changes().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    controller::run::<ProtectedDatabases>(databases.reconcile_on(changed), Arc::clone(context), stop).await;
}

/// What of a guard matters to its database.
fn enforcement(guard: &Watched<TableGuard>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let guard = guard.0.as_ref().ok()?;
    guard.uid().hash(&mut hasher);
    guard.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    if let Some(status) = &guard.status {
        status.tables_enforced.hash(&mut hasher);
        status.conditions.iter().find(|condition| condition.type_ == ENFORCED).map(|it| &it.status).hash(&mut hasher);
    }
    Some(hasher.finish())
}

struct ProtectedDatabases;

impl Reconciler for ProtectedDatabases {
    type Kind = ProtectedDatabase;
    type Error = kube::Error;
    const NAME: &'static str = "protecteddatabase";

    async fn reconcile(database: Arc<ProtectedDatabase>, context: Arc<Context>) -> Result<Action, kube::Error> {
        let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
        if database.metadata.deletion_timestamp.is_some() {
            context.databases.forget(&namespace, &name);
            context.metrics.forget_database(&namespace, &name);
            context.seen.forget(database.as_ref());
            return Ok(Action::await_change());
        }
        let now = context.now();
        let observation = observe::observe(&context, &database).await;
        let next = report::status(&database, &observation, now);
        let current = database.status.as_ref();
        let written = status::write(&context, Self::NAME, database.as_ref(), current, &next).await?;
        if let Some(note) = report::new_orphans(current, &next).filter(|_| written) {
            tracing::warn!(namespace, name, note, "orphaned guards");
            let reason = event::ORPHANED_GUARDS;
            context.events.publish(database.as_ref(), Severity::Warning, "Observe", reason, note, now).await;
        }
        context.metrics.database_reachable(&namespace, &name, matches!(observation, Observation::Reached(_)));
        Ok(Action::requeue(wait(&context, &database, &observation)))
    }
}

/// When to look again: at its interval while it is well, with backoff while it is not, never later than ten minutes
/// when only the user can mend it.
fn wait(context: &Context, database: &ProtectedDatabase, observation: &Observation) -> Duration {
    let key = format!("database/{}", database.uid().unwrap_or_default());
    let interval = Duration::from(database.spec.check_interval);
    match observation {
        Observation::Suspended => STALLED_RETRY,
        Observation::Reached(_) => {
            context.backoff.reset(&key);
            interval
        }
        Observation::Unreachable(_) => context.backoff.next(&key).min(STALLED_RETRY),
    }
}
