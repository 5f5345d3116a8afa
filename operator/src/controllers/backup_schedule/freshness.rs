//! Whether the newest verified backup of a schedule is young enough. Pure. A schedule that never ran, is late, is suspended
//! for too long or keeps failing is not fresh, from the moment that this becomes true.

use crate::kubernetes::conditions::Status;
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::{SignedDuration, Timestamp};

#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// When the first run was due.
    pub(super) first_due: Timestamp,
    /// How long after `first_due` the first run may start.
    pub(super) first_grace: SignedDuration,
    /// Snapshot time of the newest verified backup.
    pub(super) newest_verified: Option<Timestamp>,
    /// Failed runs since the last successful one, with the message of the newest.
    pub(super) failures: i64,
    /// See `failures`.
    pub(super) last_failure: Option<String>,
    /// Why the schedule cannot run, if it cannot.
    pub(super) rejection: Option<Rejection>,
    /// Why the newest dump does not count, if it does not.
    pub(super) uncounted: Option<Rejection>,
    pub(super) running: bool,
    pub(super) suspended: bool,
    /// Recovery point objective; unknown while the schedule cannot be read and none is declared.
    pub(super) max_age: Option<SignedDuration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) status: Status,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// When it becomes `False` without any other change.
    pub(super) next_change: Option<Timestamp>,
}

pub(super) fn freshness(facts: &Facts, now: Timestamp) -> Freshness {
    match (facts.newest_verified, facts.max_age) {
        (Some(newest), Some(max_age)) => freshness_by_age(facts, newest, max_age, now),
        (Some(newest), None) => {
            let message = format!(
                "the newest verified backup is of {newest}, and its longest age is not known: correct the schedule, or declare spec.maxAge"
            );
            Freshness { status: Status::Unknown, reason: Reason::InvalidSchedule, message, next_change: None }
        }
        (None, _) => freshness_before_the_first(facts, now),
    }
}

fn freshness_by_age(facts: &Facts, newest: Timestamp, max_age: SignedDuration, now: Timestamp) -> Freshness {
    let until = newest.checked_add(max_age).unwrap_or(Timestamp::MAX);
    let age = format!("the newest verified backup is of {newest}, and may be {} old", go_style(max_age));
    if now <= until {
        let message = format!("{age}: good until {until}{}", if facts.suspended { "; suspended" } else { "" });
        return Freshness { status: Status::True, reason: Reason::Fresh, message, next_change: Some(until) };
    }
    let (reason, why) = match facts {
        Facts { rejection: Some(rejection), .. } => (rejection.reason, rejection.message.clone()),
        Facts { uncounted: Some(uncounted), .. } if facts.failures == 0 && !facts.suspended => {
            (uncounted.reason, uncounted.message.clone())
        }
        Facts { suspended: true, .. } => (Reason::Suspended, "the schedule is suspended".to_owned()),
        Facts { failures: 1.., .. } => (Reason::Failing, failing(facts)),
        _ => (Reason::Late, "no run has ended since".to_owned()),
    };
    Freshness {
        status: Status::False,
        reason,
        message: format!("{age}: too old since {until}; {why}"),
        next_change: None,
    }
}

fn freshness_before_the_first(facts: &Facts, now: Timestamp) -> Freshness {
    let freshness = |status, reason, message: String, next_change| Freshness { status, reason, message, next_change };
    if let Some(Rejection { reason, message }) = &facts.rejection {
        return freshness(Status::False, *reason, format!("there is no verified backup; {message}"), None);
    }
    if facts.failures > 0 {
        return freshness(
            Status::False,
            Reason::Failing,
            format!("there is no verified backup; {}", failing(facts)),
            None,
        );
    }
    if let Some(Rejection { reason, message }) = &facts.uncounted {
        return freshness(Status::False, *reason, format!("there is no backup that counts; {message}"), None);
    }
    if facts.suspended {
        let message = "there is no verified backup, and the schedule is suspended".to_owned();
        return freshness(Status::False, Reason::NeverRan, message, None);
    }
    let patience =
        if facts.running { facts.first_grace.max(facts.max_age.unwrap_or_default()) } else { facts.first_grace };
    let until = facts.first_due.checked_add(patience).unwrap_or(Timestamp::MAX);
    if now <= until {
        let message = if facts.running { "the first backup is running" } else { "the first backup is due" };
        let message = format!("{message}; the condition becomes False at {until}");
        return freshness(Status::Unknown, Reason::FirstRunPending, message, Some(until));
    }
    let message = format!("there is no verified backup; the first was due at {}", facts.first_due);
    freshness(Status::False, Reason::NeverRan, message, None)
}

fn failing(facts: &Facts) -> String {
    let message = facts.last_failure.as_deref().unwrap_or_default();
    match facts.failures {
        1 => format!("the last run failed: {message}"),
        count => format!("the last {count} runs failed: {message}"),
    }
}

/// A duration as the API writes it: `26h`, `90m`, `45s`.
pub(super) fn go_style(duration: SignedDuration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Created at noon of the 20th, first due then, may be two days old.
    fn facts() -> Facts {
        Facts {
            first_due: at("2026-11-20T12:00:00Z"),
            first_grace: SignedDuration::from_hours(1),
            newest_verified: None,
            failures: 0,
            last_failure: None,
            rejection: None,
            uncounted: None,
            running: false,
            suspended: false,
            max_age: Some(SignedDuration::from_hours(48)),
        }
    }

    #[test]
    fn every_state_of_freshness() {
        let verified = |time: &str| Facts { newest_verified: Some(at(time)), ..facts() };
        let rejected = |facts| Facts { rejection: Some(Rejection::new(Reason::SecretMissing, "no Secret")), ..facts };
        let partial = |facts| Facts { uncounted: Some(Rejection::new(Reason::Partial, "b is partial")), ..facts };
        let failing = |count| Facts { failures: count, last_failure: Some("disk full".into()), ..facts() };
        for (facts, now, expected, next_change) in [
            (facts(), "2026-11-20T12:59:00Z", "Unknown FirstRunPending", Some("2026-11-20T13:00:00Z")),
            (facts(), "2026-11-20T13:00:01Z", "False NeverRan", None),
            (
                Facts { running: true, ..facts() },
                "2026-11-20T14:00:00Z",
                "Unknown FirstRunPending",
                Some("2026-11-22T12:00:00Z"),
            ),
            (Facts { running: true, ..facts() }, "2026-11-22T12:00:01Z", "False NeverRan", None),
            (Facts { suspended: true, ..facts() }, "2026-11-20T12:01:00Z", "False NeverRan", None),
            (failing(2), "2026-11-20T12:10:00Z", "False Failing", None),
            (verified("2026-11-21T02:15:00Z"), "2026-11-23T02:15:00Z", "True Fresh", Some("2026-11-23T02:15:00Z")),
            (verified("2026-11-21T02:15:00Z"), "2026-11-23T02:15:01Z", "False Late", None),
            // A schedule that cannot run is not fresh from the start, and later for that reason.
            (rejected(facts()), "2026-11-20T12:01:00Z", "False SecretMissing", None),
            (
                rejected(verified("2026-11-21T02:15:00Z")),
                "2026-11-22T00:00:00Z",
                "True Fresh",
                Some("2026-11-23T02:15:00Z"),
            ),
            (rejected(verified("2026-11-21T02:15:00Z")), "2026-11-24T00:00:00Z", "False SecretMissing", None),
            (partial(facts()), "2026-11-20T12:01:00Z", "False Partial", None),
            (partial(verified("2026-11-21T02:15:00Z")), "2026-11-24T00:00:00Z", "False Partial", None),
            // Failures do not change the age of a backup.
            (
                Facts { newest_verified: Some(at("2026-11-21T02:15:00Z")), ..failing(1) },
                "2026-11-22T00:00:00Z",
                "True Fresh",
                Some("2026-11-23T02:15:00Z"),
            ),
            (
                Facts { newest_verified: Some(at("2026-11-21T02:15:00Z")), ..failing(1) },
                "2026-11-24T00:00:00Z",
                "False Failing",
                None,
            ),
            (
                Facts { suspended: true, ..verified("2026-11-21T02:15:00Z") },
                "2026-11-22T00:00:00Z",
                "True Fresh",
                Some("2026-11-23T02:15:00Z"),
            ),
            (
                Facts { suspended: true, ..verified("2026-11-21T02:15:00Z") },
                "2026-11-24T00:00:00Z",
                "False Suspended",
                None,
            ),
            (
                Facts { max_age: None, ..verified("2026-11-21T02:15:00Z") },
                "2026-11-21T03:00:00Z",
                "Unknown InvalidSchedule",
                None,
            ),
            // A run that never ends is late.
            (Facts { running: true, ..verified("2026-11-21T02:15:00Z") }, "2026-11-24T00:00:00Z", "False Late", None),
        ] {
            let freshness = super::freshness(&facts, at(now));
            assert_eq!(
                format!("{:?} {}", freshness.status, freshness.reason.as_str()),
                expected,
                "{facts:?} {now}: {}",
                freshness.message
            );
            assert_eq!(freshness.next_change, next_change.map(at), "{facts:?} {now}");
        }
    }

    #[test]
    fn messages_do_not_change_with_time() {
        let fresh = Facts { newest_verified: Some(at("2026-11-21T02:15:00Z")), ..facts() };
        let (one, other) =
            (freshness(&fresh, at("2026-11-21T03:00:00Z")), freshness(&fresh, at("2026-11-22T03:00:00Z")));
        assert_eq!(one, other);
        assert!(one.message.contains("may be 48h old"), "{}", one.message);
    }
}
