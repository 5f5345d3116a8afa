//! What a check has to do: read the counters, or ensure the whole guard. Pure.

use super::memory::{Check, Retry};
use crate::clock::is_recent;
use crate::database::LightCheck;
use jiff::{SignedDuration, Timestamp};
use pgrail_guard::Fingerprint;
use std::time::Duration;

/// A guard is checked in full at least that often, whatever the fingerprint.
const FULL_CHECK_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// The first retry of what could not be done.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// Retries are at most that many check intervals apart.
const LONGEST_RETRY: u32 = 4;

/// What to do in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing that the guard depends on has changed: its state is that of the last full check.
    Count,
    /// Observe, plan and apply.
    Ensure,
}

/// Decides. What waits to be done delays nothing: a change in the database is acted on at the next check, and a retry
/// takes locks only when it is due.
pub(super) fn plan(generation: Option<i64>, now: Timestamp, fingerprint: &Fingerprint, last: Option<&Check>) -> Work {
    let Some(last) = last else { return Work::Ensure };
    let unchanged = last.generation == generation && last.fingerprint == *fingerprint;
    let recent = is_recent(last.at, now, FULL_CHECK_EVERY);
    let retry_due = last.retry.is_some_and(|retry| now >= retry.due);
    if unchanged && recent && !retry_due { Work::Count } else { Work::Ensure }
}

/// Whether a regular check of the database serves this guard too: it was made within the interval and not before the guard's
/// last full check, and found nothing that the guard depends on changed.
pub(super) fn is_enough(
    generation: Option<i64>,
    now: Timestamp,
    interval: Duration,
    check: &LightCheck,
    last: &Check,
) -> bool {
    let recent = SignedDuration::try_from(interval).is_ok_and(|interval| is_recent(check.at, now, interval));
    recent && check.at >= last.at && plan(generation, now, &check.fingerprint, Some(last)) == Work::Count
}

/// When what is left to do is tried again: after 5 s at first, then twice as long each time, up to 4 check intervals.
/// Anything that changed in the database starts it anew.
pub(super) fn retry(now: Timestamp, interval: Duration, last: Option<&Check>, fingerprint: &Fingerprint) -> Retry {
    let before = last.filter(|last| last.fingerprint == *fingerprint).and_then(|last| last.retry);
    let attempts = before.map_or(0, |retry| retry.attempts.saturating_add(1));
    let wait = FIRST_RETRY.saturating_mul(1 << attempts.min(16)).min(interval.saturating_mul(LONGEST_RETRY));
    let due = SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok());
    Retry { attempts, due: due.unwrap_or(Timestamp::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn check(text: &str, retry: Option<Retry>) -> Check {
        Check { generation: Some(1), released: Vec::new(), fingerprint: Fingerprint::from(text), at: at(1000), retry }
    }

    #[test]
    fn only_counters_are_read_while_nothing_changed() {
        let same = Fingerprint::from("a");
        let complete = check("a", None);
        assert_eq!(plan(Some(1), at(1030), &same, None), Work::Ensure);
        assert_eq!(plan(Some(1), at(1030), &same, Some(&complete)), Work::Count);
        assert_eq!(plan(Some(2), at(1030), &same, Some(&complete)), Work::Ensure);
        assert_eq!(plan(Some(1), at(1030), &Fingerprint::from("b"), Some(&complete)), Work::Ensure);
        assert_eq!(plan(Some(1), at(4600), &same, Some(&complete)), Work::Ensure);
    }

    #[test]
    fn a_check_of_the_database_serves_while_it_is_recent_and_nothing_changed() {
        let light = |text: &str, second| LightCheck {
            at: at(second),
            fingerprint: Fingerprint::from(text),
            mark: "0".into(),
            counters: Vec::new(),
            windows: Vec::new(),
        };
        let complete = check("a", None);
        let enough =
            |light: &LightCheck, now, last: &Check| is_enough(Some(1), at(now), Duration::from_secs(30), light, last);
        assert!(enough(&light("a", 1027), 1030, &complete));
        assert!(enough(&light("a", 1000), 1001, &complete), "made together with the full check");
        assert!(!enough(&light("a", 1027), 1057, &complete), "too long ago");
        assert!(!enough(&light("a", 1027), 1026, &complete), "the clock was set back");
        assert!(!enough(&light("a", 999), 1001, &complete), "before the full check");
        assert!(!enough(&light("b", 1027), 1030, &complete), "something changed");
        let waiting = check("a", Some(Retry { attempts: 0, due: at(1030) }));
        assert!(!enough(&light("a", 1027), 1030, &waiting), "a retry is due");
    }

    #[test]
    fn what_waits_is_retried_when_due_and_delays_no_check() {
        let waiting = check("a", Some(Retry { attempts: 3, due: at(1040) }));
        assert_eq!(plan(Some(1), at(1039), &Fingerprint::from("a"), Some(&waiting)), Work::Count);
        assert_eq!(plan(Some(1), at(1040), &Fingerprint::from("a"), Some(&waiting)), Work::Ensure);
        assert_eq!(plan(Some(1), at(1001), &Fingerprint::from("b"), Some(&waiting)), Work::Ensure);
    }

    #[test]
    fn retries_are_5_s_to_4_check_intervals_apart_and_start_anew_after_a_change() {
        let interval = Duration::from_secs(30);
        let same = Fingerprint::from("a");
        let mut last = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let next = retry(at(1000), interval, last.as_ref(), &same);
            waits.push(next.due.duration_since(at(1000)).as_secs());
            last = Some(check("a", Some(next)));
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 120, 120]);
        assert_eq!(retry(at(1000), interval, last.as_ref(), &Fingerprint::from("b")).due, at(1005));
        assert_eq!(retry(at(1000), Duration::from_secs(1), None, &same).due, at(1004));
    }
}
