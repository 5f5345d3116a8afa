//! What a database is and holds. The whole catalog is read only where something may have changed.

use super::apply::{DropDatabase, protect, prune};
use super::graphs::MOST_TABLES;
use super::memory::{Memory, Sighting, uid};
use crate::clock::is_recent;
use crate::context::Context;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::text::chain;
use crate::kubernetes::watch::Store;
use jiff::SignedDuration;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_guard::blast_radius::{self, BlastRadius};
use pgrail_guard::{Capabilities, Graph, GuardName, Observed};
use std::time::Duration;

/// The catalog is read that often, besides after changes.
const CATALOG_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// Estimates change at most that often, so that a busy database does not make a busy apiserver.
const ESTIMATES_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// How long the first check waits for the list of guards.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// How an observation ended.
pub(super) enum Outcome {
    /// `spec.suspend`: it was not observed.
    Suspended,
    /// It cannot be reached.
    Unreachable(DatabaseError),
    /// It answered.
    Reached(Box<Reached>),
}

/// A database that answered.
pub(super) struct Reached {
    /// What pgrail's login can do.
    pub(super) capabilities: Capabilities,
    /// The login.
    pub(super) user: String,
    /// Keys of the URI that mean nothing to PostgreSQL.
    pub(super) ignored_keys: Vec<String>,
    /// What it holds.
    pub(super) survey: Survey,
    /// What protects it from DROP DATABASE.
    pub(super) drop_database: DropDatabase,
    /// Guards in it that no object declares; `None` where that is not known.
    pub(super) orphans: Option<Vec<String>>,
}

/// What a database holds.
pub(super) enum Survey {
    /// Nothing changed since it was last written.
    Unchanged,
    /// Read now.
    Read(Contents),
    /// A transaction-mode pooler is in between: nothing read through it can be relied on.
    Pooler,
    /// Could not be read.
    Failed(String),
}

/// Tables and what deletes on them can take with them.
pub(super) struct Contents {
    /// Tables.
    pub(super) tables: usize,
    /// Worst first.
    pub(super) blast_radius: Vec<BlastRadius>,
    /// Whether the estimates may move.
    pub(super) fresh_estimates: bool,
}

/// Observes a database.
pub(super) async fn observe(
    database: &ProtectedDatabase,
    guards: &Store<TableGuard>,
    memory: &Memory,
    context: &Context,
) -> Outcome {
    if database.spec.suspend {
        context.databases.forget(&database.namespace().unwrap_or_default(), &database.name_any());
        return Outcome::Suspended;
    }
    match reach(database, guards, memory, context).await {
        Ok(reached) => Outcome::Reached(Box::new(reached)),
        Err(error) => {
            memory.forget(&uid(database));
            Outcome::Unreachable(error)
        }
    }
}

async fn reach(
    database: &ProtectedDatabase,
    guards: &Store<TableGuard>,
    memory: &Memory,
    context: &Context,
) -> Result<Reached, DatabaseError> {
    let mut reached =
        context.databases.with(database, async |session| read(database, session, memory, context).await).await?;
    if !matches!(reached.survey, Survey::Pooler | Survey::Failed(_)) {
        let installed = memory.last(database).map(|last| last.guards).unwrap_or_default();
        reached.orphans = orphans(database, &installed, guards, context).await;
    }
    Ok(reached)
}

/// What PostgreSQL answers: the light check always, the whole catalog only where something may have changed.
async fn read(
    database: &ProtectedDatabase,
    session: &Session,
    memory: &Memory,
    context: &Context,
) -> Result<Reached, DatabaseError> {
    let now = context.now();
    let fingerprint = pgrail_guard::light_check(session).await.map_err(|error| DatabaseError::lost(&error))?;
    let last = memory.last(database);
    let known = last.as_ref().filter(|last| last.fingerprint == fingerprint);
    let capabilities = match known {
        Some(last) => last.capabilities.clone(),
        None => pgrail_guard::capabilities::read(session).await.map_err(|error| DatabaseError::lost(&error))?,
    };
    if memory.prune_is_due(database, now) {
        prune(database, session, context).await;
    }
    if known.is_some_and(|last| !last.guards.is_empty()) {
        context.databases.share_check(database, now, fingerprint.clone(), session).await;
    }
    let drop_database = protect(database, &capabilities, session, context).await?;
    let reached = |survey| Reached {
        capabilities: capabilities.clone(),
        drop_database,
        user: session.user.clone(),
        ignored_keys: session.ignored_keys.clone(),
        survey,
        orphans: None,
    };
    let unchanged = last.as_ref().is_some_and(|last| {
        last.generation == database.metadata.generation
            && last.fingerprint == fingerprint
            && is_recent(last.at, now, CATALOG_EVERY)
    });
    if unchanged {
        return Ok(reached(Survey::Unchanged));
    }
    // Without an answer there is no proof of a pooler: the next full read tries again.
    if last.is_none() && context.databases.is_pooled(session).await == Some(true) {
        return Ok(reached(Survey::Pooler));
    }
    let observed = match pgrail_guard::observe(session).await {
        Ok(observed) => observed,
        Err(error) => return Ok(reached(Survey::Failed(chain(&error)))),
    };
    let (tables, blast_radius, guards) = contents(&observed);
    if let Some(graphs) = &memory.graphs {
        let guarded = observed.guarded_tables();
        let graph = Graph::of(&observed.catalog, &blast_radius, &guarded, None, MOST_TABLES);
        graphs.record(&uid(database), now, graph);
    }
    let fresh_estimates = last.as_ref().is_none_or(|last| !is_recent(last.estimates_at, now, ESTIMATES_EVERY));
    let estimates_at = match last {
        Some(last) if !fresh_estimates => last.estimates_at,
        _ => now,
    };
    let generation = database.metadata.generation;
    memory.record(
        database,
        Sighting { generation, fingerprint, capabilities: capabilities.clone(), at: now, estimates_at, guards },
    );
    Ok(reached(Survey::Read(Contents { tables, blast_radius, fresh_estimates })))
}

/// The guards that no object declares, as far as the operator can see objects; `None` until it has seen them.
async fn orphans(
    database: &ProtectedDatabase,
    installed: &[GuardName],
    store: &Store<TableGuard>,
    context: &Context,
) -> Option<Vec<String>> {
    if installed.is_empty() {
        return Some(Vec::new());
    }
    tokio::time::timeout(STORE_PATIENCE, store.wait_until_ready()).await.ok()?.ok()?;
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    let is_orphan = |guard: &&GuardName| {
        let Some((of, called)) = guard.as_str().split_once('/') else { return true };
        if context.settings.watch_namespace.as_deref().is_some_and(|watched| watched != of) {
            return false;
        }
        let Some(found) = store.get(&ObjectRef::new(called).within(of)) else { return true };
        // The same name, but of another database of the namespace.
        of == namespace && found.0.as_ref().is_ok_and(|guard| guard.spec.database_ref.name != name)
    };
    Some(installed.iter().filter(is_orphan).map(ToString::to_string).collect())
}

/// Tables, what deletes on them can take with them, and guards.
fn contents(observed: &Observed) -> (usize, Vec<BlastRadius>, Vec<GuardName>) {
    let tables = observed.catalog.tables().filter(|table| !table.is_partition).count();
    (tables, blast_radius::compute(&observed.catalog, &observed.guarded_tables()), observed.guards())
}
