//! What the controller remembers: the last check of each guard, and deletions.

use super::window::WindowMemory;
use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::TableGuard;
use pgrail_guard::Fingerprint;
use std::collections::HashMap;
use std::sync::Mutex;

/// So many deletions within [`MASS_WINDOW`] are carried out at once; with one more, the rest wait for the user.
pub(super) const MASS: usize = 10;
const MASS_WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// At most this many of another namespace count: a tenant who deletes many guards must not stop others from deleting theirs.
const MASS_OF_ANOTHER_NAMESPACE: usize = 5;

/// The last check of each guard, by UID, and deletions.
#[derive(Default)]
pub(crate) struct Memory {
    checks: Mutex<HashMap<String, Check>>,
    /// What was reported of windows.
    pub(super) windows: WindowMemory,
    /// Guards that are being deleted.
    pub(super) deletions: Deletions,
}

/// The last full check of a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// The guard's generation.
    pub(super) generation: Option<i64>,
    /// Tables that an annotation released: it changes no generation.
    pub(super) released: Vec<String>,
    /// The database just before it was found so.
    pub(super) fingerprint: Fingerprint,
    /// When that was.
    pub(super) at: Timestamp,
    /// What was left to do; `None` where the guard was complete.
    pub(super) retry: Option<Retry>,
}

/// When what could not be done is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// Attempts since anything in the database changed.
    pub(super) attempts: u32,
    /// When the next one is due.
    pub(super) due: Timestamp,
}

impl Memory {
    /// The last full check of a guard.
    pub(super) fn check(&self, guard: &TableGuard) -> Option<Check> {
        locked(&self.checks).get(&uid(guard)).cloned()
    }

    /// Records a full check.
    pub(super) fn record(&self, guard: &TableGuard, check: Check) {
        locked(&self.checks).insert(uid(guard), check);
    }

    /// The next check must be a full one.
    pub(super) fn forget(&self, guard: &TableGuard) {
        self.deleted(&uid(guard));
    }

    /// The guard with this UID was deleted.
    pub(super) fn deleted(&self, uid: &str) {
        locked(&self.checks).remove(uid);
    }
}

/// Recent deletions, by UID, with the namespace: a flapping source of manifests must not remove the guards of a fleet.
#[derive(Default)]
pub(super) struct Deletions(Mutex<HashMap<String, (String, Timestamp)>>);

impl Deletions {
    /// Records a deletion and returns how many others came within a minute of it.
    pub(super) fn around(&self, uid: &str, namespace: &str, at: Timestamp) -> usize {
        let mut seen = locked(&self.0);
        seen.retain(|_, (_, when)| at.duration_since(*when) < MASS_WINDOW * 60);
        seen.insert(uid.to_owned(), (namespace.to_owned(), at));
        let mut others: HashMap<&str, usize> = HashMap::new();
        for (other, (namespace, when)) in seen.iter() {
            if other != uid && at.duration_since(*when).abs() < MASS_WINDOW {
                *others.entry(namespace).or_default() += 1;
            }
        }
        let counted =
            |(of, count): (&str, usize)| if of == namespace { count } else { count.min(MASS_OF_ANOTHER_NAMESPACE) };
        others.into_iter().map(counted).sum()
    }
}

fn uid(guard: &TableGuard) -> String {
    guard.uid().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_deletion_within_a_minute_is_one_too_many() {
        let deletions = Deletions::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for number in 0..10 {
            assert!(deletions.around(&number.to_string(), "shop", at(1000 + number)) < MASS);
        }
        assert_eq!(deletions.around("10", "shop", at(1010)), MASS);
        assert_eq!(deletions.around("10", "shop", at(1010)), MASS, "a second check changes nothing");
        assert_eq!(deletions.around("later", "shop", at(1100)), 0);
    }

    #[test]
    fn a_namespace_alone_does_not_pause_deletions_in_others() {
        let deletions = Deletions::default();
        let at = Timestamp::from_second(1000).unwrap();
        for number in 0..100 {
            deletions.around(&format!("mallory-{number}"), "mallory", at);
        }
        assert!(deletions.around("shop", "shop", at) < MASS);
        // A fleet of namespaces with a few guards each.
        for number in 0..10 {
            deletions.around(&format!("fleet-{number}"), &format!("fleet-{}", number / 2), at);
        }
        assert!(deletions.around("shop", "shop", at) >= MASS);
    }
}
