//! When the operator last checked each database and guard. Statuses have no such time: they are written only when they say
//! something new.

use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How much longer than twice its interval a check may take before it is overdue: it waits for a connection, and for locks.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(2);

/// The last checks, by the UID of the object.
pub(crate) struct Checks {
    /// When this process began to check.
    since: Timestamp,
    last: Mutex<HashMap<String, Timestamp>>,
}

impl Checks {
    /// No object was checked yet.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { since: now, last: Mutex::default() }
    }

    /// An object was checked, whatever the result.
    pub(crate) fn checked(&self, uid: Option<&str>, now: Timestamp) {
        if let Some(uid) = uid {
            self.last().insert(uid.to_owned(), now);
        }
    }

    /// An object was deleted.
    pub(crate) fn forget(&self, uid: &str) {
        self.last().remove(uid);
    }

    /// Until when the next check of an object is due: twice its interval and two minutes after the last one.
    pub(crate) fn due(&self, uid: &str, interval: Duration) -> Timestamp {
        let last = self.last().get(uid).copied().unwrap_or(self.since);
        let twice = SignedDuration::try_from(interval.saturating_mul(2)).unwrap_or(SignedDuration::MAX);
        last.saturating_add(twice.saturating_add(TOLERANCE)).unwrap_or(Timestamp::MAX)
    }

    fn last(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        locked(&self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_due_after_twice_the_interval_and_two_minutes() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let checks = Checks::new(at(1000));
        let interval = Duration::from_secs(30);
        assert_eq!(checks.due("a", interval), at(1000 + 60 + 120), "since the start of the operator");
        checks.checked(Some("a"), at(2000));
        assert_eq!(checks.due("a", interval), at(2000 + 60 + 120));
        checks.forget("a");
        assert_eq!(checks.due("a", interval), at(1180));
    }
}
