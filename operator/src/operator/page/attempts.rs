//! Blocked attempts over time. A status has the total only: the page shows how it rose while this process watched.

use crate::mutex::locked;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::TableGuard;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

/// Seconds of one bucket.
pub(super) const BUCKET: i64 = 300;
/// Buckets that are kept: a day.
const BUCKETS: i64 = 288;
/// Guards of which they are kept.
const GUARDS: usize = 4096;

/// The attempts of each guard, by UID.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<String, Counted>>);

struct Counted {
    since: Timestamp,
    total: i64,
    /// Start of the bucket, in seconds, and how many more there were. None of them is 0.
    more: VecDeque<(i64, i64)>,
}

/// What is known of one guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Series {
    /// Since when it is counted, or the begin of the first bucket that is kept.
    pub(super) since: Timestamp,
    pub(super) bucket_seconds: i64,
    /// Start of the bucket in seconds since 1970, and the number of attempts. Other buckets have none.
    pub(super) buckets: Vec<(i64, i64)>,
}

impl Attempts {
    /// A guard as its status reports it.
    pub(super) fn observe(&self, guard: &TableGuard, now: Timestamp) {
        let (Some(uid), Some(total)) = (guard.uid(), guard.status.as_ref().and_then(|it| it.blocked_attempts)) else {
            return;
        };
        self.count(&uid, total, now);
    }

    fn count(&self, uid: &str, total: i64, now: Timestamp) {
        let mut guards = self.guards();
        let Some(counted) = guards.get_mut(uid) else {
            if guards.len() < GUARDS {
                guards.insert(uid.to_owned(), Counted { since: now, total, more: VecDeque::new() });
            }
            return;
        };
        let more = total.saturating_sub(counted.total);
        counted.total = total;
        if more <= 0 {
            return;
        }
        let bucket = start(now);
        match counted.more.back_mut() {
            Some((last, count)) if *last == bucket => *count = count.saturating_add(more),
            _ => counted.more.push_back((bucket, more)),
        }
        while counted.more.front().is_some_and(|(first, _)| *first < oldest(now)) {
            counted.more.pop_front();
        }
    }

    /// The last day of a guard; `None`: not kept.
    pub(super) fn of(&self, guard: &TableGuard, now: Timestamp) -> Option<Series> {
        let guards = self.guards();
        let counted = guards.get(&guard.uid()?)?;
        let first = oldest(now);
        let since = Timestamp::from_second(first).map_or(counted.since, |first| first.max(counted.since));
        let buckets = counted.more.iter().copied().filter(|(bucket, _)| *bucket >= first).collect();
        Some(Series { since, bucket_seconds: BUCKET, buckets })
    }

    /// A guard was deleted.
    pub(super) fn forget(&self, uid: &str) {
        self.guards().remove(uid);
    }

    fn guards(&self) -> MutexGuard<'_, HashMap<String, Counted>> {
        locked(&self.0)
    }
}

/// Start of the bucket of a time.
fn start(now: Timestamp) -> i64 {
    now.as_second().div_euclid(BUCKET) * BUCKET
}

/// Start of the oldest bucket that is kept.
fn oldest(now: Timestamp) -> i64 {
    start(now) - (BUCKETS - 1) * BUCKET
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn guard() -> TableGuard {
        serde_json::from_value(serde_json::json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard",
            "metadata": {"name": "core", "uid": "1"},
            "spec": {"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]},
            "status": {"blockedAttempts": 7}}))
        .unwrap()
    }

    #[test]
    fn what_a_guard_had_stopped_before_is_not_of_this_time() {
        let attempts = Attempts::default();
        assert_eq!(attempts.of(&guard(), at(3000)), None);
        attempts.observe(&guard(), at(3000));
        let series = |now| attempts.of(&guard(), at(now)).unwrap();
        assert_eq!(series(3000), Series { since: at(3000), bucket_seconds: 300, buckets: vec![] });
        attempts.count("1", 9, at(3010));
        attempts.count("1", 9, at(3100));
        attempts.count("1", 10, at(3299));
        attempts.count("1", 12, at(3300));
        assert_eq!(series(3300).buckets, [(3000, 3), (3300, 2)]);
        attempts.count("1", 3, at(3300));
        attempts.count("1", 4, at(3300));
        assert_eq!(series(3300).buckets, [(3000, 3), (3300, 3)], "a total that went back is a new start");
    }

    #[test]
    fn a_day_is_kept() {
        let attempts = Attempts::default();
        attempts.count("1", 0, at(0));
        for (total, bucket) in (0..400).enumerate() {
            attempts.count("1", i64::try_from(total).unwrap() + 1, at(bucket * BUCKET));
        }
        let kept = attempts.of(&guard(), at(399 * BUCKET)).unwrap();
        assert_eq!((kept.buckets.len(), kept.buckets[0].0), (288, 112 * BUCKET));
        assert_eq!(kept.since, at(112 * BUCKET));
        assert_eq!(attempts.guards()["1"].more.len(), 288);
        let later = attempts.of(&guard(), at(600 * BUCKET)).unwrap();
        assert_eq!(later.buckets.len(), 87, "old buckets are not shown, also where nothing new came");
        attempts.forget("1");
        assert_eq!(attempts.of(&guard(), at(600 * BUCKET)), None);
    }
}
