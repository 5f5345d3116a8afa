//! Whether a schedule's newest verified backup is young enough. Pure. Silence is never green: what never ran, came late,
//! was suspended for too long or keeps failing says so by itself, at the moment that it becomes true.

use crate::kubernetes::conditions::Status;
use jiff::{SignedDuration, Timestamp};
use pgrail_crds::conditions::reasons::backup as reasons;

/// What freshness depends on.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// When the first run was due.
    pub(super) first_due: Timestamp,
    /// How long after it the first run may begin.
    pub(super) first_grace: SignedDuration,
    /// The moment that the newest verified backup shows the database at.
    pub(super) newest_verified: Option<Timestamp>,
    /// Failed runs since the last good one, and what the newest of them said.
    pub(super) failures: i64,
    /// See `failures`.
    pub(super) last_failure: Option<String>,
    /// A run is under way.
    pub(super) running: bool,
    /// Nothing runs by declaration.
    pub(super) suspended: bool,
    /// Recovery point objective; unknown while the schedule cannot be read and none is declared.
    pub(super) max_age: Option<SignedDuration>,
}

/// What comes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// State of the condition.
    pub(super) status: Status,
    /// Its reason.
    pub(super) reason: &'static str,
    /// Its message.
    pub(super) message: String,
    /// When it turns by itself, if it does.
    pub(super) turns: Option<Timestamp>,
}

/// Judges.
pub(super) fn judge(facts: &Facts, now: Timestamp) -> Verdict {
    match (facts.newest_verified, facts.max_age) {
        (Some(newest), Some(max_age)) => judge_age(facts, newest, max_age, now),
        (Some(newest), None) => {
            let message = format!(
                "the newest verified backup is of {newest}, and how old it may be is not known: mend the schedule, or declare spec.maxAge"
            );
            Verdict { status: Status::Unknown, reason: reasons::INVALID_SCHEDULE, message, turns: None }
        }
        (None, _) => judge_first(facts, now),
    }
}

fn judge_age(facts: &Facts, newest: Timestamp, max_age: SignedDuration, now: Timestamp) -> Verdict {
    let until = newest.checked_add(max_age).unwrap_or(Timestamp::MAX);
    let age = format!("the newest verified backup is of {newest}, and may be {} old", go_style(max_age));
    if now <= until {
        let message = format!("{age}: good until {until}{}", if facts.suspended { "; suspended" } else { "" });
        return Verdict { status: Status::True, reason: reasons::FRESH, message, turns: Some(until) };
    }
    let (reason, why) = match facts {
        Facts { suspended: true, .. } => (reasons::SUSPENDED, "the schedule is suspended".to_owned()),
        Facts { failures: 1.., .. } => (reasons::FAILING, failing(facts)),
        _ => (reasons::LATE, "no run since then came to an end".to_owned()),
    };
    Verdict { status: Status::False, reason, message: format!("{age}: too old since {until}; {why}"), turns: None }
}

fn judge_first(facts: &Facts, now: Timestamp) -> Verdict {
    let verdict = |status, reason, message: String, turns| Verdict { status, reason, message, turns };
    if facts.failures > 0 {
        return verdict(
            Status::False,
            reasons::FAILING,
            format!("there is no verified backup; {}", failing(facts)),
            None,
        );
    }
    if facts.suspended {
        let message = "there is no verified backup, and the schedule is suspended".to_owned();
        return verdict(Status::False, reasons::NEVER_RAN, message, None);
    }
    let patience =
        if facts.running { facts.first_grace.max(facts.max_age.unwrap_or_default()) } else { facts.first_grace };
    let until = facts.first_due.checked_add(patience).unwrap_or(Timestamp::MAX);
    if now <= until {
        let message = if facts.running { "the first backup is under way" } else { "the first backup is due" };
        let message = format!("{message}; this turns False at {until}");
        return verdict(Status::Unknown, reasons::FIRST_RUN_PENDING, message, Some(until));
    }
    let message = format!("there is no verified backup; the first was due at {}", facts.first_due);
    verdict(Status::False, reasons::NEVER_RAN, message, None)
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
            running: false,
            suspended: false,
            max_age: Some(SignedDuration::from_hours(48)),
        }
    }

    #[test]
    fn every_way_to_be_and_not_to_be_fresh() {
        let verified = |time: &str| Facts { newest_verified: Some(at(time)), ..facts() };
        let failing = |count| Facts { failures: count, last_failure: Some("disk full".into()), ..facts() };
        for (facts, now, expected, turns) in [
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
            // Failures do not make a young backup old.
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
            // A backup that is never over is late, not fresh.
            (Facts { running: true, ..verified("2026-11-21T02:15:00Z") }, "2026-11-24T00:00:00Z", "False Late", None),
        ] {
            let verdict = judge(&facts, at(now));
            assert_eq!(
                format!("{:?} {}", verdict.status, verdict.reason),
                expected,
                "{facts:?} {now}: {}",
                verdict.message
            );
            assert_eq!(verdict.turns, turns.map(at), "{facts:?} {now}");
        }
    }

    #[test]
    fn messages_hold_no_clock() {
        let fresh = Facts { newest_verified: Some(at("2026-11-21T02:15:00Z")), ..facts() };
        let (one, other) = (judge(&fresh, at("2026-11-21T03:00:00Z")), judge(&fresh, at("2026-11-22T03:00:00Z")));
        assert_eq!(one, other);
        assert!(one.message.contains("may be 48h old"), "{}", one.message);
    }
}
