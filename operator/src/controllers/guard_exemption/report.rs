//! What is said of an exemption: phase, use, condition, Events.

use crate::context::Context;
use crate::database::DatabaseError;
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::events::Severity;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::annotations::REQUESTED_BY;
use pgrail_crds::conditions::READY;
use pgrail_crds::conditions::reasons::{event, exemption as exemption_reasons, guard as guard_reasons};
use pgrail_crds::{Condition, ExemptionPhase, GuardExemption, GuardExemptionStatus, Time};
use pgrail_guard::ExemptionUse;

const SHARED: &str = "is a login that a whole application shares, from several addresses or over many connections";

/// A reason and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Reason of the condition.
    pub(crate) reason: &'static str,
    /// What it is, and what mends it.
    pub(crate) message: String,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// It will never be in force.
    Rejected(Said),
    /// Something has to happen first.
    Waits(Said),
    /// The database could not be asked.
    Unreachable(DatabaseError),
    /// It is in the database; its time has not come.
    NotYet(ExemptionUse),
    /// It is in force.
    Active(ExemptionUse),
    /// Its time is over.
    Over(ExemptionUse),
}

/// The whole status.
pub(crate) fn status(exemption: &GuardExemption, finding: &Finding, now: Timestamp) -> GuardExemptionStatus {
    let mut status = exemption.status.clone().unwrap_or_default();
    let was_active = status.phase == Some(ExemptionPhase::Active);
    let mut conditions = Conditions::new(&status.conditions, exemption.metadata.generation, now);
    status.observed_generation = exemption.metadata.generation;
    let ends = exemption.spec.not_after.0;
    match finding {
        Finding::Rejected(said) => {
            status.phase = Some(ExemptionPhase::Rejected);
            conditions.stalled(said.reason, &said.message);
        }
        Finding::Waits(Said { message, .. }) | Finding::Unreachable(DatabaseError { message, .. })
            if was_active && now >= ends =>
        {
            status.phase = Some(ExemptionPhase::Expired);
            let message = format!("over since {ends}; what was used last could not be read: {message}");
            conditions.set(READY, Status::False, exemption_reasons::EXPIRED, message);
        }
        // What is in the database holds whether or not it can be asked.
        Finding::Waits(said) if was_active => {
            conditions.set(READY, Status::Unknown, said.reason, &said.message);
        }
        Finding::Waits(said) => {
            status.phase = Some(ExemptionPhase::Pending);
            conditions.set(READY, Status::False, said.reason, &said.message);
        }
        Finding::Unreachable(error) => {
            status.phase = Some(status.phase.unwrap_or(ExemptionPhase::Pending));
            let message = if was_active {
                format!("in force until {ends}, as far as is known: {}", error.message)
            } else {
                error.message.clone()
            };
            conditions.set(READY, Status::Unknown, guard_reasons::DATABASE_UNREACHABLE, message);
        }
        Finding::NotYet(used) => {
            status.phase = Some(ExemptionPhase::Pending);
            note_use(&mut status, used);
            let from = exemption.spec.not_before.as_ref().map_or(now, |time| time.0);
            let message = format!("in force from {from} on, by the database's clock{}", login(exemption, used));
            conditions.set(READY, Status::False, exemption_reasons::NOT_YET, message);
        }
        Finding::Active(used) if used.lost => {
            note_use(&mut status, used);
            let message = "the server lost the count of used rows in a crash, so that totalRows counts as used up: \
                           create another GuardExemption for the rest";
            conditions.set(READY, Status::False, exemption_reasons::EXPIRED, message);
        }
        Finding::Active(used) => {
            status.phase = Some(ExemptionPhase::Active);
            note_use(&mut status, used);
            let role = &exemption.spec.role;
            let message = format!(
                "in force for every session of {role:?} until {ends}, by the database's clock{}",
                login(exemption, used)
            );
            conditions.set(READY, Status::True, exemption_reasons::ACTIVE, message);
        }
        Finding::Over(used) => {
            status.phase = Some(ExemptionPhase::Expired);
            note_use(&mut status, used);
            let message = format!("over since {ends}; {} rows went in {} statements", used.rows, used.statements);
            conditions.set(READY, Status::False, exemption_reasons::EXPIRED, message);
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

/// What should be known of the role.
fn login(exemption: &GuardExemption, used: &ExemptionUse) -> String {
    let role = &exemption.spec.role;
    if !used.role_can_login {
        return format!("; nobody can use it: {role:?} is no role of the database that can log in (spec.role)");
    }
    // Once seen, it stays said: connections come and go.
    let said = |condition: &Condition| condition.type_ == READY && condition.message.contains(SHARED);
    if used.shared || exemption.status.iter().flat_map(|status| &status.conditions).any(said) {
        return format!("; {role:?} {SHARED}: all of it may use this");
    }
    String::new()
}

/// The status of one that waits for its user while it is being deleted.
pub(super) fn stalled(exemption: &GuardExemption, said: &Said, now: Timestamp) -> GuardExemptionStatus {
    let mut status = exemption.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&status.conditions, exemption.metadata.generation, now);
    conditions.stalled(said.reason, &said.message);
    status.conditions = conditions.finish();
    status
}

/// Says on Events and in the log what happened since the last status.
pub(super) async fn announce(
    exemption: &GuardExemption,
    finding: &Finding,
    next: &GuardExemptionStatus,
    context: &Context,
) {
    let (namespace, name) = (exemption.namespace().unwrap_or_default(), exemption.name_any());
    let now = context.now();
    let before = exemption.status.clone().unwrap_or_default();
    let (role, reason) = (&exemption.spec.role, &exemption.spec.reason);
    let entered = |phase| next.phase == Some(phase) && before.phase != Some(phase);
    let publish = |severity, action, what, note: String| {
        tracing::info!(namespace, name, role, note, "exemption: {what}");
        context.events.publish(exemption, severity, action, what, note, now)
    };
    if entered(ExemptionPhase::Active) {
        let requester = exemption.annotations().get(REQUESTED_BY);
        let requester = requester.map(|name| format!(", requested by {name}")).unwrap_or_default();
        let until = exemption.spec.not_after.0;
        let note = format!("{role:?} may go beyond the limits until {until}{requester}: {reason}");
        publish(Severity::Warning, "Exempt", event::EXEMPTION_ACTIVE, note).await;
    }
    let rows = next.used_rows.unwrap_or(0);
    let statements = next.statements.unwrap_or(0);
    if statements > before.statements.unwrap_or(0) || rows > before.used_rows.unwrap_or(0) {
        let note = format!("{role:?} used it: {rows} rows in {statements} statements in all");
        publish(Severity::Warning, "Exempt", event::EXEMPTION_USED, note).await;
    }
    if entered(ExemptionPhase::Expired) {
        let note = format!("over: {rows} rows went in {statements} statements");
        publish(Severity::Normal, "Expire", event::EXEMPTION_EXPIRED, note).await;
    }
    if let Finding::Rejected(said) = finding
        && entered(ExemptionPhase::Rejected)
    {
        publish(Severity::Warning, "Validate", event::EXEMPTION_REJECTED, said.message.clone()).await;
    }
}
