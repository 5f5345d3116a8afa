//! What the controller remembers of each database.

use super::graphs::Graphs;
use crate::clock::is_recent;
use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::ProtectedDatabase;
use pgrail_guard::{Capabilities, Fingerprint, GuardName};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Captured rows are checked no more often, whatever the interval of the checks.
const PRUNE_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// The last observation of each database, by UID.
#[derive(Default)]
pub(crate) struct Memory {
    sightings: Mutex<HashMap<String, Sighting>>,
    pruned: Mutex<HashMap<String, Timestamp>>,
    /// `None`: nothing shows them.
    pub(super) graphs: Option<Arc<Graphs>>,
}

/// One observation.
#[derive(Clone)]
pub(super) struct Sighting {
    pub(super) generation: Option<i64>,
    pub(super) fingerprint: Fingerprint,
    pub(super) capabilities: Capabilities,
    pub(super) at: Timestamp,
    pub(super) estimates_at: Timestamp,
    pub(super) guards: Vec<GuardName>,
}

impl Memory {
    pub(super) fn new(graphs: Option<Arc<Graphs>>) -> Self {
        Self { graphs, ..Self::default() }
    }

    /// The database was deleted.
    pub(super) fn deleted(&self, uid: &str) {
        self.forget(uid);
        if let Some(graphs) = &self.graphs {
            graphs.forget(uid);
        }
    }

    /// The database must be observed again.
    pub(super) fn forget(&self, uid: &str) {
        locked(&self.sightings).remove(uid);
        locked(&self.pruned).remove(uid);
    }

    /// Whether captured rows were not checked for a while; if so, they count as checked now.
    pub(super) fn prune_is_due(&self, database: &ProtectedDatabase, now: Timestamp) -> bool {
        let mut pruned = locked(&self.pruned);
        let last = pruned.entry(uid(database)).or_insert(Timestamp::MIN);
        let due = *last == Timestamp::MIN || !is_recent(*last, now, PRUNE_EVERY);
        if due {
            *last = now;
        }
        due
    }

    pub(super) fn last(&self, database: &ProtectedDatabase) -> Option<Sighting> {
        let seen = locked(&self.sightings);
        seen.get(&uid(database)).cloned()
    }

    pub(super) fn record(&self, database: &ProtectedDatabase, sighting: Sighting) {
        let mut seen = locked(&self.sightings);
        seen.insert(uid(database), sighting);
    }
}

pub(super) fn uid(database: &ProtectedDatabase) -> String {
    database.uid().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_rows_are_checked_once_a_minute() {
        let manifest = serde_json::json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "ProtectedDatabase",
            "metadata": {"name": "shop", "uid": "1"}, "spec": {"connection": {"secretRef": {"name": "shop"}}}});
        let database: ProtectedDatabase = serde_json::from_value(manifest).unwrap();
        let memory = Memory::default();
        let due = |second| memory.prune_is_due(&database, Timestamp::from_second(second).unwrap());
        assert_eq!([0, 59, 60, 61, 120].map(due), [true, false, true, false, true]);
        memory.forget("1");
        assert!(memory.prune_is_due(&database, Timestamp::from_second(121).unwrap()));
    }
}
