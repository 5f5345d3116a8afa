//! How long to wait before the next try of an object that keeps failing.

use crate::mutex::locked;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_mins(5);

/// Exponential backoff per object (by UID or name), from 2 seconds to 5 minutes.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Counts one more failure and returns how long to wait.
    pub(crate) fn next(&self, key: &str) -> Duration {
        let mut failures = locked(&self.failures);
        let count = failures.entry(key.to_owned()).or_default();
        let wait = FIRST.saturating_mul(1 << (*count).min(8)).min(LONGEST);
        *count = count.saturating_add(1);
        wait
    }

    /// Forgets everything about an object that was deleted. Every key ends with the object's UID.
    pub(crate) fn forget(&self, uid: &str) {
        locked(&self.failures).retain(|key, _| !key.ends_with(uid));
    }

    /// The object succeeded.
    pub(crate) fn reset(&self, key: &str) {
        locked(&self.failures).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_anew_after_a_success() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.next("a").as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.next("b").as_secs(), 2);
        backoff.reset("a");
        assert_eq!(backoff.next("a").as_secs(), 2);
    }
}
