//! What a database is and holds: asked of PostgreSQL, the costly part only when something may have changed.

use super::{CATALOG_EVERY, ESTIMATES_EVERY, PRUNE_EVERY};
use crate::database::DatabaseError;
use crate::kubernetes::controller::chain;
use crate::operator::Context;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgrail_crds::ProtectedDatabase;
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
pub(crate) struct Seen {
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

impl Seen {
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
pub(super) async fn observe(context: &Context, database: &ProtectedDatabase) -> Observation {
    if database.spec.suspend {
        context.databases.forget(&database.namespace().unwrap_or_default(), &database.name_any());
        return Observation::Suspended;
    }
    match reach(context, database).await {
        Ok(reached) => Observation::Reached(Box::new(reached)),
        Err(error) => {
            context.seen.forget(database);
            Observation::Unreachable(error)
        }
    }
}

async fn reach(context: &Context, database: &ProtectedDatabase) -> Result<Reached, DatabaseError> {
    let mut borrowed = context.databases.borrow(context, database).await?;
    let user = borrowed.settings().map(|settings| settings.user.clone()).unwrap_or_default();
    let ignored_keys = borrowed.ignored_keys().to_vec();
    let answers = async {
        let capabilities = pgrail_guard::capabilities::read(borrowed.connection()?).await.map_err(lost)?;
        let fingerprint = pgrail_guard::light_check(borrowed.connection()?).await.map_err(lost)?;
        Ok::<_, DatabaseError>((capabilities, fingerprint))
    };
    let (capabilities, fingerprint) = match answers.await {
        Ok(answers) => answers,
        Err(error) => {
            borrowed.discard();
            return Err(error);
        }
    };
    let now = context.now();
    if context.seen.prune_is_due(database, now) {
        prune(context, database, borrowed.connection()?).await;
    }
    let last = context.seen.last(database);
    let unchanged = last.as_ref().is_some_and(|last| {
        last.generation == database.metadata.generation
            && last.fingerprint == fingerprint
            && now.duration_since(last.at) < CATALOG_EVERY
    });
    if unchanged {
        let guards = last.map(|last| last.guards).unwrap_or_default();
        let orphans = orphans(context, database, &guards).await;
        return Ok(Reached { capabilities, user, ignored_keys, survey: Survey::Unchanged, orphans });
    }
    // A failed detection is no proof of a pooler: it is tried again with the next new look.
    let pooled = last.is_none()
        && pgrail_postgres::detect_pooler_on(borrowed.connection()?, &context.settings.address_policy)
            .await
            .unwrap_or(false);
    if pooled {
        return Ok(Reached { capabilities, user, ignored_keys, survey: Survey::Pooler, orphans: None });
    }
    let mut orphaned = None;
    let survey = match contents(borrowed.connection()?).await {
        Err(error) => Survey::Failed(error),
        Ok((tables, blast_radius, guards)) => {
            let fresh_estimates =
                last.as_ref().is_none_or(|last| now.duration_since(last.estimates_at) >= ESTIMATES_EVERY);
            let estimates_at = match last {
                Some(last) if !fresh_estimates => last.estimates_at,
                _ => now,
            };
            let generation = database.metadata.generation;
            orphaned = orphans(context, database, &guards).await;
            context.seen.note(database, Sighting { generation, fingerprint, at: now, estimates_at, guards });
            Survey::Read(Contents { tables, blast_radius, fresh_estimates })
        }
    };
    Ok(Reached { capabilities, user, ignored_keys, survey, orphans: orphaned })
}

/// The guards that no object declares, as far as the operator can see objects; `None` until it has seen them.
async fn orphans(context: &Context, database: &ProtectedDatabase, guards: &[GuardName]) -> Option<Vec<String>> {
    if guards.is_empty() {
        return Some(Vec::new());
    }
    let store = context.guards.get()?;
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
    Some(guards.iter().filter(is_orphan).map(ToString::to_string).collect())
}

/// Takes captured rows away that are kept too long. What fails now is tried again; until then they are only kept longer.
async fn prune(context: &Context, database: &ProtectedDatabase, client: &pgrail_postgres::Connection) {
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
fn lost(error: impl std::error::Error) -> DatabaseError {
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
        let seen = Seen::default();
        let due = |second| seen.prune_is_due(&database, Timestamp::from_second(second).unwrap());
        assert_eq!([0, 59, 60, 61, 120].map(due), [true, false, true, false, true]);
        seen.forget(&database);
        assert!(seen.prune_is_due(&database, Timestamp::from_second(121).unwrap()));
    }
}
