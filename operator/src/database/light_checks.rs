//! The last regular check of each database. One connection serves the check of a database and of all its guards.

use super::server::Key;
use crate::mutex::locked;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::ProtectedDatabase;
use pgrail_guard::{Counter, CountersMark, Fingerprint, WindowUse};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What a regular check of a database found.
#[derive(Debug)]
pub(crate) struct LightCheck {
    /// When it began.
    pub(crate) at: Timestamp,
    /// The database as it was.
    pub(crate) fingerprint: Fingerprint,
    /// Stands for the values of the counters.
    pub(crate) mark: CountersMark,
    /// The counters of all guards.
    pub(crate) counters: Vec<Counter>,
    /// The windows of all guards.
    pub(crate) windows: Vec<WindowUse>,
}

/// By namespace and name of the database.
#[derive(Default)]
pub(super) struct LightChecks(Mutex<HashMap<Key, Entry>>);

#[derive(Default)]
struct Entry {
    /// When the database last notified of a change.
    changed: Option<Timestamp>,
    /// With the UID and the generation of the database's object.
    last: Option<(Identity, Arc<LightCheck>)>,
}

type Identity = (Option<String>, Option<i64>);

impl LightChecks {
    /// Keeps a check, unless the database notified of a change after it began.
    pub(super) fn record(&self, database: &ProtectedDatabase, check: LightCheck) {
        let mut entries = locked(&self.0);
        let entry = entries.entry(key(database)).or_default();
        if entry.changed.is_none_or(|changed| changed < check.at) {
            entry.last = Some((identity(database), Arc::new(check)));
        }
    }

    /// The last one of this database as it is declared now.
    pub(super) fn last(&self, database: &ProtectedDatabase) -> Option<Arc<LightCheck>> {
        let entries = locked(&self.0);
        let (of, check) = entries.get(&key(database))?.last.as_ref()?;
        (*of == identity(database)).then(|| Arc::clone(check))
    }

    /// The database notified of a change: an earlier check does not show it.
    pub(super) fn changed(&self, key: &Key, at: Timestamp) {
        let mut entries = locked(&self.0);
        *entries.entry(key.clone()).or_default() = Entry { changed: Some(at), last: None };
    }

    pub(super) fn forget(&self, key: &Key) {
        locked(&self.0).remove(key);
    }
}

fn key(database: &ProtectedDatabase) -> Key {
    (database.namespace().unwrap_or_default(), database.name_any())
}

fn identity(database: &ProtectedDatabase) -> Identity {
    (database.uid(), database.metadata.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(generation: i64) -> ProtectedDatabase {
        serde_json::from_value(serde_json::json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "ProtectedDatabase",
            "metadata": {"name": "shop", "namespace": "shop", "uid": "1", "generation": generation},
            "spec": {"connection": {"secretRef": {"name": "shop"}}}}))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn check(second: i64) -> LightCheck {
        LightCheck {
            at: at(second),
            fingerprint: "a".into(),
            mark: "0".into(),
            counters: Vec::new(),
            windows: Vec::new(),
        }
    }

    #[test]
    fn a_check_is_of_the_database_as_it_was_declared() {
        let checks = LightChecks::default();
        checks.record(&database(1), check(100));
        assert_eq!(checks.last(&database(1)).unwrap().at, at(100));
        assert!(checks.last(&database(2)).is_none());
        checks.forget(&key(&database(1)));
        assert!(checks.last(&database(1)).is_none());
    }

    #[test]
    fn a_check_that_began_before_a_change_is_not_kept() {
        let checks = LightChecks::default();
        checks.record(&database(1), check(100));
        checks.changed(&key(&database(1)), at(110));
        assert!(checks.last(&database(1)).is_none());
        checks.record(&database(1), check(109));
        assert!(checks.last(&database(1)).is_none());
        checks.record(&database(1), check(111));
        assert!(checks.last(&database(1)).is_some());
    }
}
