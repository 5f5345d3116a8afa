//! `ProtectedDatabase`: reach it, say what it is, and what deletes in it could take with them.

mod observe;
mod report;

use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::events::Severity;
use crate::kubernetes::watch::{Store, Watch, Watched};
use futures::StreamExt;
use jiff::SignedDuration;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use observe::{Memory, Observation};
use pgrail_crds::conditions::ENFORCED;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{ProtectedDatabase, TableGuard};
pub(crate) use report::two_digits;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The catalog is read anew that often, besides after changes.
const CATALOG_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// Estimates move at most that often, so that a busy database does not make a busy apiserver.
const ESTIMATES_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// Captured rows are looked at no more often, whatever the interval of the checks.
const PRUNE_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// The longest that an object waits which only its user can mend.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// Runs the controller until `stop`. A guard that was created, deleted or changed its state is a change of its database
/// too.
pub(crate) fn run(
    databases: Controller<Watched<ProtectedDatabase>>,
    guards: &Watch<TableGuard>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let databases = databases.reconcile_on(guards.follow(enforcement, |guard: &Watched<TableGuard>| {
        let guard = guard.0.as_ref().ok()?;
        Some(ObjectRef::new(&guard.spec.database_ref.name).within(&guard.namespace()?))
    }));
    let changed = context.databases.changes().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let reconciler =
        ProtectedDatabases { context: Arc::clone(context), guards: guards.store(), memory: Memory::default() };
    controller::run(databases.reconcile_on(changed), reconciler, Arc::clone(context), stop)
}

/// What of a guard matters to its database.
fn enforcement(guard: &Watched<TableGuard>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Ok(guard) = &guard.0 else { return 0 };
    guard.uid().hash(&mut hasher);
    guard.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    if let Some(status) = &guard.status {
        status.tables_enforced.hash(&mut hasher);
        status.conditions.iter().find(|condition| condition.type_ == ENFORCED).map(|it| &it.status).hash(&mut hasher);
    }
    hasher.finish()
}

struct ProtectedDatabases {
    context: Arc<Context>,
    /// The declared guards.
    guards: Store<TableGuard>,
    memory: Memory,
}

impl Reconciler for ProtectedDatabases {
    type Kind = ProtectedDatabase;
    type Error = kube::Error;
    const NAME: &'static str = "protecteddatabase";

    async fn reconcile(&self, database: Arc<ProtectedDatabase>) -> Result<Action, kube::Error> {
        let Self { context, guards, memory } = self;
        let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
        if database.metadata.deletion_timestamp.is_some() {
            context.databases.forget(&namespace, &name);
            context.metrics.forget_database(&namespace, &name);
            memory.forget(database.as_ref());
            return Ok(Action::await_change());
        }
        let now = context.now();
        let observation = observe::observe(&database, guards, memory, context).await;
        let next = report::status(&database, &observation, now);
        let current = database.status.as_ref();
        let written = context.write_status(Self::NAME, database.as_ref(), current, &next).await?;
        if let Some(note) = report::new_orphans(current, &next).filter(|_| written) {
            tracing::warn!(namespace, name, note, "orphaned guards");
            let reason = event::ORPHANED_GUARDS;
            context.events.publish(database.as_ref(), Severity::Warning, "Observe", reason, note, now).await;
        }
        context.metrics.database_reachable(&namespace, &name, matches!(observation, Observation::Reached(_)));
        Ok(Action::requeue(wait(&database, &observation, context)))
    }
}

/// When to look again: at its interval while it is well, with backoff while it is not, never later than ten minutes
/// when only the user can mend it.
fn wait(database: &ProtectedDatabase, observation: &Observation, context: &Context) -> Duration {
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
