//! Whether anything can have changed since a guard was last verified: one short query in place of the whole catalog.

use super::finalize::Deletions;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::TableGuard;
use pgrail_guard::Fingerprint;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A guard is verified anew at least that often, whatever the short query says.
const VERIFY_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// What the controller remembers: the last verification of each guard, by UID, and deletions.
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

fn uid(guard: &TableGuard) -> String {
    guard.uid().unwrap_or_default()
}
