//! What the controller remembers: the last verification of each guard, and deletions.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::TableGuard;
use pgrail_guard::Fingerprint;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A guard is verified at least that often, whatever the short query returns.
const VERIFY_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// So many deletions within [`MASS_WINDOW`] are carried out at once; with one more, the rest wait for the user.
pub(super) const MASS: usize = 10;
const MASS_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// The last verification of each guard, by UID, and deletions.
#[derive(Default)]
pub(super) struct Memory {
    verified: Mutex<HashMap<String, Verified>>,
    /// Guards that are being deleted.
    pub(super) deletions: Deletions,
}

/// What a guard looked like when it was last found complete.
struct Verified {
    generation: Option<i64>,
    fingerprint: Fingerprint,
    at: Timestamp,
}

impl Memory {
    /// Whether the guard was complete when the database last looked like this.
    pub(super) fn holds(&self, guard: &TableGuard, fingerprint: &Fingerprint, now: Timestamp) -> bool {
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&uid(guard)).is_some_and(|verified| {
            verified.generation == guard.metadata.generation
                && verified.fingerprint == *fingerprint
                && now.duration_since(verified.at) < VERIFY_EVERY
        })
    }

    /// The guard was found complete.
    pub(super) fn note(&self, guard: &TableGuard, fingerprint: Fingerprint, now: Timestamp) {
        let verified = Verified { generation: guard.metadata.generation, fingerprint, at: now };
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(uid(guard), verified);
    }

    /// The guard is gone, or must be verified anew.
    pub(super) fn forget(&self, guard: &TableGuard) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid(guard));
    }
}

/// Recent deletions, by UID: a flapping source of manifests must not remove the guards of a fleet.
#[derive(Default)]
pub(super) struct Deletions(Mutex<HashMap<String, Timestamp>>);

impl Deletions {
    /// Records a deletion and returns how many others came within a minute of it.
    pub(super) fn around(&self, uid: &str, at: Timestamp) -> usize {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, when| at.duration_since(*when) < MASS_WINDOW * 60);
        seen.insert(uid.to_owned(), at);
        seen.iter().filter(|(other, when)| *other != uid && at.duration_since(**when).abs() < MASS_WINDOW).count()
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
            assert!(deletions.around(&number.to_string(), at(1000 + number)) < MASS);
        }
        assert_eq!(deletions.around("10", at(1010)), MASS);
        assert_eq!(deletions.around("10", at(1010)), MASS, "a second check changes nothing");
        assert_eq!(deletions.around("later", at(1100)), 0);
    }
}
