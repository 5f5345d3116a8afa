//! The status of a `GuardExemption`: phase, use, condition. Pure.

use super::apply::Outcome;
use crate::database::DatabaseError;
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::Timestamp;
use pgrail_crds::conditions::READY;
use pgrail_crds::{Condition, ExemptionPhase, GuardExemption, GuardExemptionStatus, Time};
use pgrail_guard::ExemptionUse;

const SHARED: &str = "is a login that a whole application shares, from several addresses or over many connections";

/// The status that the exemption should have.
pub(crate) fn report(exemption: &GuardExemption, outcome: &Outcome, now: Timestamp) -> GuardExemptionStatus {
    let mut status = exemption.status.clone().unwrap_or_default();
    let was_active = status.phase == Some(ExemptionPhase::Active);
    let mut conditions = Conditions::new(&status.conditions, exemption.metadata.generation, now);
    status.observed_generation = exemption.metadata.generation;
    let ends = exemption.spec.not_after.0;
    match outcome {
        Outcome::Rejected(rejection) => {
            status.phase = Some(ExemptionPhase::Rejected);
            conditions.stalled(rejection.reason, &rejection.message);
        }
        Outcome::Waiting(Rejection { message, .. }) | Outcome::Unreachable(DatabaseError { message, .. })
            if was_active && now >= ends =>
        {
            status.phase = Some(ExemptionPhase::Expired);
            let message = format!("expired at {ends}; its last use could not be read: {message}");
            conditions.set(READY, Status::False, Reason::Expired, message);
        }
        // What is in the database holds whether or not it can be reached.
        Outcome::Waiting(rejection) if was_active => {
            conditions.set(READY, Status::Unknown, rejection.reason, &rejection.message);
        }
        Outcome::Waiting(rejection) => {
            status.phase = Some(ExemptionPhase::Pending);
            conditions.set(READY, Status::False, rejection.reason, &rejection.message);
        }
        Outcome::Unreachable(error) => {
            status.phase = Some(status.phase.unwrap_or(ExemptionPhase::Pending));
            let message = if was_active {
                format!("in force until {ends}, by the last known state: {}", error.message)
            } else {
                error.message.clone()
            };
            conditions.set(READY, Status::Unknown, Reason::DatabaseUnreachable, message);
        }
        Outcome::NotYet(used) => {
            status.phase = Some(ExemptionPhase::Pending);
            note_use(&mut status, used);
            let from = exemption.spec.not_before.as_ref().map_or(now, |time| time.0);
            let message = format!("in force from {from} on, by the database's clock{}", login(exemption, used));
            conditions.set(READY, Status::False, Reason::NotYet, message);
        }
        Outcome::Active(used) if used.lost => {
            note_use(&mut status, used);
            let message = "the server lost the count of used rows in a crash, so that totalRows counts as used up: \
                           create another GuardExemption for the rest";
            conditions.set(READY, Status::False, Reason::Expired, message);
        }
        Outcome::Active(used) => {
            status.phase = Some(ExemptionPhase::Active);
            note_use(&mut status, used);
            let role = &exemption.spec.role;
            let message = format!(
                "in force for every session of {role:?} until {ends}, by the database's clock{}",
                login(exemption, used)
            );
            conditions.set(READY, Status::True, Reason::Active, message);
        }
        Outcome::Expired(used) => {
            status.phase = Some(ExemptionPhase::Expired);
            note_use(&mut status, used);
            let message =
                format!("expired at {ends}; {} rows were removed in {} statements", used.rows, used.statements);
            conditions.set(READY, Status::False, Reason::Expired, message);
        }
    }
    status.conditions = conditions.finish();
    status
}

fn note_use(status: &mut GuardExemptionStatus, used: &ExemptionUse) {
    // A crash of the server loses what was counted before.
    status.used_rows = status.used_rows.max(Some(used.rows));
    status.statements = status.statements.max(Some(used.statements));
    let last = used.last_used.and_then(|second| Timestamp::from_second(second).ok());
    status.last_used_time = last.map(|time| Time(whole_seconds(time)));
}

/// What the user should know of the role.
fn login(exemption: &GuardExemption, used: &ExemptionUse) -> String {
    let role = &exemption.spec.role;
    if !used.role_can_login {
        return format!("; it cannot be used: {role:?} is no login role of the database (spec.role)");
    }
    // Once seen, it stays reported: connections come and go.
    let reported = |condition: &Condition| condition.type_ == READY && condition.message.contains(SHARED);
    if used.shared || exemption.status.iter().flat_map(|status| &status.conditions).any(reported) {
        return format!("; {role:?} {SHARED}; every client of it can use this exemption");
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ENDS: &str = "2026-11-23T10:30:00Z";

    fn exemption(status: Option<GuardExemptionStatus>) -> GuardExemption {
        let spec = json!({"guardRefs": [{"name": "core"}], "role": "admin", "reason": "r", "notAfter": ENDS,
            "limits": {"maxRows": 5}});
        let manifest = json!({"metadata": {"name": "e", "namespace": "shop", "generation": 1}, "spec": spec});
        let mut exemption: GuardExemption = serde_json::from_value(manifest).unwrap();
        exemption.status = status;
        exemption
    }

    fn used(rows: i64) -> ExemptionUse {
        ExemptionUse {
            name: "shop/e".to_owned(),
            object: "u".to_owned(),
            rows,
            statements: i64::from(rows > 0),
            last_used: (rows > 0).then_some(1_795_428_000),
            active: true,
            over: false,
            role_can_login: true,
            shared: false,
            lost: false,
        }
    }

    fn of(previous: Option<GuardExemptionStatus>, outcome: Outcome, time: &str) -> GuardExemptionStatus {
        report(&exemption(previous), &outcome, time.parse().unwrap())
    }

    fn is(status: &GuardExemptionStatus, phase: ExemptionPhase, value: &str, reason: &str) {
        let ready = status.conditions.iter().find(|condition| condition.type_ == READY).unwrap();
        assert_eq!(status.phase, Some(phase), "{ready:?}");
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), (value, reason), "{}", ready.message);
    }

    fn unreachable() -> Outcome {
        let reason = Reason::Timeout;
        Outcome::Unreachable(DatabaseError { reason, message: "no answer".to_owned(), stalled: false })
    }

    #[test]
    fn one_in_force_is_active_and_its_use_is_reported() {
        let status = of(None, Outcome::Active(used(7)), "2026-11-23T10:00:00Z");
        is(&status, ExemptionPhase::Active, "True", "Active");
        assert_eq!((status.used_rows, status.statements), (Some(7), Some(1)));
        assert!(status.last_used_time.is_some());
        let expired = of(Some(status), Outcome::Expired(used(9)), "2026-11-23T10:31:00Z");
        is(&expired, ExemptionPhase::Expired, "False", "Expired");
        assert_eq!(expired.used_rows, Some(9));
    }

    #[test]
    fn one_in_force_stays_so_while_its_database_cannot_be_reached_and_no_longer_than_its_time() {
        let active = of(None, Outcome::Active(used(0)), "2026-11-23T10:00:00Z");
        let lost = of(Some(active.clone()), unreachable(), "2026-11-23T10:10:00Z");
        is(&lost, ExemptionPhase::Active, "Unknown", "DatabaseUnreachable");
        is(&of(Some(active), unreachable(), ENDS), ExemptionPhase::Expired, "False", "Expired");
        is(&of(None, unreachable(), "2026-11-23T10:00:00Z"), ExemptionPhase::Pending, "Unknown", "DatabaseUnreachable");
    }

    #[test]
    fn one_that_waits_is_pending_and_one_that_is_rejected_stalls() {
        let waiting = || Outcome::Waiting(Rejection::new(Reason::GuardNotInstalled, "not yet"));
        let pending = of(None, waiting(), "2026-11-23T10:00:00Z");
        is(&pending, ExemptionPhase::Pending, "False", "GuardNotInstalled");
        let active = of(None, Outcome::Active(used(0)), "2026-11-23T10:00:00Z");
        is(
            &of(Some(active), waiting(), "2026-11-23T10:01:00Z"),
            ExemptionPhase::Active,
            "Unknown",
            "GuardNotInstalled",
        );
        let rejected = Outcome::Rejected(Rejection::new(Reason::ExceedsPolicy, "too long"));
        let rejected = of(None, rejected, "2026-11-23T10:00:00Z");
        is(&rejected, ExemptionPhase::Rejected, "False", "ExceedsPolicy");
        assert!(rejected.conditions.iter().any(|condition| condition.type_ == "Stalled"));
    }

    #[test]
    fn a_shared_login_stays_named() {
        let shared = ExemptionUse { shared: true, ..used(0) };
        let first = of(None, Outcome::Active(shared), "2026-11-23T10:00:00Z");
        let message = |status: &GuardExemptionStatus| status.conditions[0].message.clone();
        assert!(message(&first).contains(SHARED));
        assert!(message(&of(Some(first), Outcome::Active(used(0)), "2026-11-23T10:01:00Z")).contains(SHARED));
        let nobody = ExemptionUse { role_can_login: false, ..used(0) };
        assert!(message(&of(None, Outcome::Active(nobody), "2026-11-23T10:00:00Z")).contains("no login role"));
    }
}
