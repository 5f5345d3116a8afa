//! `ProtectedDatabase`: connects to it, and reports what it is and what deletes in it could remove by cascade.

mod announce;
mod apply;
mod finalize;
pub(crate) mod graphs;
mod memory;
mod observe;
mod report;

use super::checks::Checks;
use crate::context::Context;
use crate::kubernetes::controller::{self, AT_ONCE, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::watch::{Store, Watch, Watched};
use futures::StreamExt;
use graphs::Graphs;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use memory::Memory;
use observe::Outcome;
use pgrail_crds::conditions::ENFORCED;
use pgrail_crds::{ProtectedDatabase, TableGuard};
pub(crate) use report::two_digits;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest time between two checks of a database that is not checked at its interval.
const STALLED_RETRY: Duration = Duration::from_mins(10);
/// A Secret that is missing or incomplete is read again that often: it is corrected by hand.
const SECRET_RETRY: Duration = Duration::from_secs(5);

/// Runs the controller until `stop`. A guard that was created, deleted or changed its state is a change of its database
/// too. `graphs`: where the cascade graphs are kept, if something shows them.
pub(crate) fn run(
    databases: Controller<Watched<ProtectedDatabase>>,
    of_kind: &Watch<ProtectedDatabase>,
    guards: &Watch<TableGuard>,
    checks: Arc<Checks>,
    graphs: Option<Arc<Graphs>>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let memory = Arc::new(Memory::new(graphs));
    let (of_deleted, remembered, forget) = (Arc::clone(context), Arc::clone(&memory), context.forgets());
    let checked = Arc::clone(&checks);
    of_kind.on_delete(move |database: &ObjectRef<Watched<ProtectedDatabase>>| {
        forget_name(database.namespace.as_deref().unwrap_or_default(), &database.name, &of_deleted);
        remembered.deleted(database.extra.uid.as_deref().unwrap_or_default());
        checked.forget(database.extra.uid.as_deref().unwrap_or_default());
        forget(database);
    });
    let databases = databases.reconcile_on(guards.follow(enforcement, |guard: &Watched<TableGuard>| {
        // Nothing of a guard without a status is in the database yet.
        let guard = guard.0.as_ref().ok().filter(|guard| guard.status.is_some())?;
        Some(ObjectRef::new(&guard.spec.database_ref.name).within(&guard.namespace()?))
    }));
    let changed = context.databases.changes().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace));
    let reconciler = ProtectedDatabases { context: Arc::clone(context), guards: guards.store(), memory, checks };
    controller::run(databases.reconcile_on(changed), reconciler, Arc::clone(context), stop)
}

/// Closes the connection and ends the series of a database that was deleted.
fn forget_name(namespace: &str, name: &str, context: &Context) {
    context.databases.forget(namespace, name);
    context.metrics.forget_database(namespace, name);
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
    memory: Arc<Memory>,
    checks: Arc<Checks>,
}

impl Reconciler for ProtectedDatabases {
    type Kind = ProtectedDatabase;
    type Error = kube::Error;
    const NAME: &'static str = "protecteddatabase";

    fn observed_generation(object: &ProtectedDatabase) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, database: Arc<ProtectedDatabase>) -> Result<Action, kube::Error> {
        let Self { context, guards, memory, checks } = self;
        if database.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(&database, context).await;
        }
        let api: Api<ProtectedDatabase> =
            Api::namespaced(context.client.clone(), &database.namespace().unwrap_or_default());
        if database.spec.protect_database {
            finalizer::add(&api, database.as_ref()).await?;
        }
        let uid = memory::uid(&database);
        let outcome = observe::observe(&database, guards, memory, context).await;
        let latest = context.latest(database, |database| report::report(database, &outcome, context.now())).await;
        let (database, next) = match latest {
            Ok(Some(latest)) => latest,
            missing => {
                // What was read is not in the status: the next check reads it again.
                memory.forget(&uid);
                return missing.map(|_| Action::requeue(AT_ONCE));
            }
        };
        let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
        context.metrics.database_reachable(&namespace, &name, matches!(outcome, Outcome::Reached(_)));
        let written = context.write_status(Self::NAME, database.as_ref(), database.status.as_ref(), &next).await;
        if written.is_err() {
            memory.forget(&uid);
        }
        if written? {
            announce::announce(&database, &next, context).await;
        } else if !database.spec.protect_database && !next.template_set {
            finalizer::remove(&api, database.as_ref()).await?;
        }
        checks.checked(database.metadata.uid.as_deref(), context.now());
        Ok(Action::requeue(wait(&database, &outcome, context)))
    }

    fn forget(&self, namespace: &str, name: &str) {
        forget_name(namespace, name, &self.context);
    }
}

/// When to check again: at its interval; while it is unreachable sooner, so that it is noticed within the interval when it
/// is back.
fn wait(database: &ProtectedDatabase, outcome: &Outcome, context: &Context) -> Duration {
    let key = format!("database/{}", memory::uid(database));
    let interval = Duration::from(database.spec.check_interval);
    match outcome {
        Outcome::Suspended => STALLED_RETRY,
        Outcome::Reached(_) => {
            context.backoff.reset(&key);
            // A little early: this check then serves the guards too, which are due after the whole interval.
            interval.saturating_sub(interval / 10)
        }
        Outcome::Unreachable(error) => {
            let wait = context.backoff.next(&key).min(interval);
            let of_secret = [Reason::SecretMissing, Reason::SecretIncomplete].contains(&error.reason);
            if of_secret { wait.min(SECRET_RETRY) } else { wait }
        }
    }
}
