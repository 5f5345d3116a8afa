//! What a database is and holds: asked of PostgreSQL, the costly part only when something may have changed.

use super::{CATALOG_EVERY, ESTIMATES_EVERY, PRUNE_EVERY};
use crate::context::Context;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::text::chain;
use crate::kubernetes::watch::Store;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_guard::blast_radius::{self, BlastRadius};
use pgrail_guard::{Capabilities, Fingerprint, GuardName};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the first look waits for the list of guards.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// What came of looking.
pub(super) enum Observation {
    /// It was not looked at.
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
    /// Guards in it that no object declares; `None` where that is not known.
    pub(super) orphans: Option<Vec<String>>,
}

/// What a database holds.
pub(super) enum Survey {
    /// Nothing changed since it was last written.
    Unchanged,
    /// Read now.
    Read(Contents),
    /// A transaction-mode pooler is in between: nothing read there can be relied on.
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

/// What was last seen of each database, by UID.
#[derive(Default)]
pub(crate) struct Memory {
    sightings: Mutex<HashMap<String, Sighting>>,
    pruned: Mutex<HashMap<String, Timestamp>>,
}

#[derive(Clone)]
struct Sighting {
    generation: Option<i64>,
    fingerprint: Fingerprint,
    at: Timestamp,
    estimates_at: Timestamp,
    guards: Vec<GuardName>,
}

impl Memory {
    /// The database is gone.
    pub(crate) fn forget(&self, database: &ProtectedDatabase) {
        let uid = database.uid().unwrap_or_default();
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        self.pruned.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }

    /// Whether captured rows were not looked at for a while; if so, they are taken to be looked at now.
    fn prune_is_due(&self, database: &ProtectedDatabase, now: Timestamp) -> bool {
        let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
        let last = pruned.entry(database.uid().unwrap_or_default()).or_insert(Timestamp::MIN);
        let due = *last == Timestamp::MIN || now.duration_since(*last) >= PRUNE_EVERY;
        if due {
            *last = now;
        }
        due
    }

    fn last(&self, database: &ProtectedDatabase) -> Option<Sighting> {
        let seen = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&database.uid().unwrap_or_default()).cloned()
    }

    fn note(&self, database: &ProtectedDatabase, sighting: Sighting) {
        let mut seen = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(database.uid().unwrap_or_default(), sighting);
    }
}

/// Looks at a database.
pub(super) async fn observe(
    database: &ProtectedDatabase,
    guards: &Store<TableGuard>,
    memory: &Memory,
    context: &Context,
) -> Observation {
    if database.spec.suspend {
        context.databases.forget(&database.namespace().unwrap_or_default(), &database.name_any());
        return Observation::Suspended;
    }
    match reach(database, guards, memory, context).await {
        Ok(reached) => Observation::Reached(Box::new(reached)),
        Err(error) => {
            memory.forget(database);
            Observation::Unreachable(error)
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
    let capabilities = pgrail_guard::capabilities::read(session).await.map_err(lost)?;
    let fingerprint = pgrail_guard::light_check(session).await.map_err(lost)?;
    let now = context.now();
    if memory.prune_is_due(database, now) {
        prune(database, session, context).await;
    }
    let last = memory.last(database);
    let reached = |survey| Reached {
        capabilities,
        user: session.user.clone(),
        ignored_keys: session.ignored_keys.clone(),
        survey,
        orphans: None,
    };
    let unchanged = last.as_ref().is_some_and(|last| {
        last.generation == database.metadata.generation
            && last.fingerprint == fingerprint
            && now.duration_since(last.at) < CATALOG_EVERY
    });
    if unchanged {
        return Ok(reached(Survey::Unchanged));
    }
    // Without an answer there is no proof of a pooler: the next full read tries again.
    if last.is_none() && context.databases.is_pooled(session).await == Some(true) {
        return Ok(reached(Survey::Pooler));
    }
    let (tables, blast_radius, guards) = match contents(session).await {
        Ok(contents) => contents,
        Err(error) => return Ok(reached(Survey::Failed(error))),
    };
    let fresh_estimates = last.as_ref().is_none_or(|last| now.duration_since(last.estimates_at) >= ESTIMATES_EVERY);
    let estimates_at = match last {
        Some(last) if !fresh_estimates => last.estimates_at,
        _ => now,
    };
    let generation = database.metadata.generation;
    memory.note(database, Sighting { generation, fingerprint, at: now, estimates_at, guards });
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

/// Takes captured rows away that are kept too long. What fails now is tried again; until then they are only kept longer.
async fn prune(database: &ProtectedDatabase, client: &Session, context: &Context) {
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    match pgrail_guard::prune(client, &context.cluster_id).await {
        Ok(0) => {}
        Ok(transactions) => tracing::info!(namespace, name, transactions, "captured rows past their bounds removed"),
        Err(error) => tracing::warn!(namespace, name, error = chain(&error), "captured rows cannot be removed"),
    }
}

async fn contents(client: &pgrail_postgres::Connection) -> Result<(usize, Vec<BlastRadius>, Vec<GuardName>), String> {
    let observed = pgrail_guard::observe(client).await.map_err(|error| chain(&error))?;
    let tables = observed.catalog.tables().filter(|table| !table.is_partition).count();
    Ok((tables, blast_radius::compute(&observed.catalog, &observed.guarded_tables()), observed.guards()))
}

/// A question that got no answer: the connection is gone or the server is.
fn lost(error: impl std::error::Error + 'static) -> DatabaseError {
    DatabaseError {
        reason: pgrail_crds::conditions::reasons::reachable::TIMEOUT,
        message: format!("the server stopped answering: {}", chain(&error)),
        stalled: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_rows_are_looked_at_once_a_minute() {
        let manifest = serde_json::json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "ProtectedDatabase",
            "metadata": {"name": "shop", "uid": "1"}, "spec": {"connection": {"secretRef": {"name": "shop"}}}});
        let database: ProtectedDatabase = serde_json::from_value(manifest).unwrap();
        let memory = Memory::default();
        let due = |second| memory.prune_is_due(&database, Timestamp::from_second(second).unwrap());
        assert_eq!([0, 59, 60, 61, 120].map(due), [true, false, true, false, true]);
        memory.forget(&database);
        assert!(memory.prune_is_due(&database, Timestamp::from_second(121).unwrap()));
    }
}
