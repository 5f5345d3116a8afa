//! `TableGuard`: what it declares is installed in PostgreSQL, verified there, put back when it drifts, and taken away
//! when it is deleted.

pub(crate) mod apply;
mod dereference;
mod finalize;
mod memory;
mod protection;
pub(crate) mod report;
pub(crate) mod validate;

use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::watch::{Store, Watch, Watched};
use futures::StreamExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use memory::Memory;
use pgrail_crds::conditions::READY;
use pgrail_crds::{DeletionPolicy, ProtectedDatabase, TableGuard};
use report::Outcome;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest that an object waits which only its user can mend.
const STALLED_RETRY: Duration = Duration::from_mins(10);

/// Runs the controller until `stop`. A database that became ready, or stopped being so, is a change of its guards too.
pub(crate) fn run(
    guards: Controller<Watched<TableGuard>>,
    store: Store<TableGuard>,
    databases: &Watch<ProtectedDatabase>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    // What an event trigger tells of is looked at at once, not at the next interval.
    let told = store.clone();
    let changed = context.databases.changes().flat_map(move |(namespace, name)| {
        let of_it = told.state_filter(move |guard| is_of(guard, &namespace, &name));
        futures::stream::iter(of_it.iter().map(|guard| ObjectRef::from_obj(guard.as_ref())).collect::<Vec<_>>())
    });
    let ready = databases.follow(readiness, move |database: &Watched<ProtectedDatabase>| {
        let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
        let of_it = store.state_filter(move |guard| is_of(guard, &namespace, &name));
        of_it.iter().map(|guard| ObjectRef::from_obj(guard.as_ref())).collect::<Vec<_>>()
    });
    let guards = guards.reconcile_on(changed).reconcile_on(ready);
    let reconciler =
        TableGuards { context: Arc::clone(context), databases: databases.store(), memory: Memory::default() };
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
    memory: Memory,
}

impl Reconciler for TableGuards {
    type Kind = TableGuard;
    type Error = kube::Error;
    const NAME: &'static str = "tableguard";

    async fn reconcile(&self, guard: Arc<TableGuard>) -> Result<Action, kube::Error> {
        let Self { context, databases, memory } = self;
        if guard.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(&guard, memory, context).await;
        }
        let api: Api<TableGuard> = Api::namespaced(context.client.clone(), &guard.namespace().unwrap_or_default());
        match guard.spec.deletion_policy {
            DeletionPolicy::Delete => finalizer::add(&api, guard.as_ref()).await?,
            DeletionPolicy::Retain => finalizer::remove(&api, guard.as_ref()).await?,
        }
        let (outcome, interval) = enforce(&guard, databases, memory, context).await?;
        if !outcome.was_seen() {
            // What the conditions say now is not what was verified: the next look must be a whole one.
            memory.forget(&guard);
        }
        let next = report::status(&guard, &outcome, context.now());
        context.write_status(Self::NAME, guard.as_ref(), guard.status.as_ref(), &next).await?;
        apply::announce(&guard, &outcome, context).await;
        Ok(Action::requeue(wait(&guard, &outcome, interval, context)))
    }
}

/// dereference -> validate -> observe -> plan -> apply
async fn enforce(
    guard: &TableGuard,
    databases: &Store<ProtectedDatabase>,
    memory: &Memory,
    context: &Context,
) -> Result<(Outcome, Duration), kube::Error> {
    let database = match dereference::database(guard, databases, context).await? {
        Ok(database) => database,
        Err(absent) => return Ok((Outcome::Blocked(absent), STALLED_RETRY)),
    };
    let spec = match validate::validate(guard, &context.cluster_id) {
        Ok(spec) => spec,
        Err(refused) => return Ok((Outcome::Refused(refused), STALLED_RETRY)),
    };
    let interval = Duration::from(database.spec.check_interval);
    let installed = context
        .databases
        .with(&database, async |session| apply::install(guard, &spec, session, memory, context).await)
        .await;
    Ok((installed.unwrap_or_else(Outcome::Unreachable), interval))
}

/// When to look again: at the database's interval while all is well, sooner while something is pending, never later
/// than ten minutes when only the user can mend it.
fn wait(guard: &TableGuard, outcome: &Outcome, interval: Duration, context: &Context) -> Duration {
    let key = format!("guard/{}", guard.uid().unwrap_or_default());
    match outcome {
        Outcome::Blocked(_) | Outcome::Refused(_) | Outcome::Unplannable(_) => STALLED_RETRY,
        Outcome::Unreachable(_) => context.backoff.next(&key),
        Outcome::Judged(judgement) if judgement.pending() => context.backoff.next(&key),
        Outcome::Judged(_) | Outcome::Unchanged(_) => {
            context.backoff.reset(&key);
            interval
        }
    }
}
