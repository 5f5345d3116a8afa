//! The conditions of a `TableGuard`. Pure.

use super::apply::Outcome;
use super::protection;
use super::state::{GuardState, Recheck};
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::rejection::{Reason, Rejection};
use crate::kubernetes::text::listed;
use pgrail_crds::conditions::{DROP_PROTECTED, ENFORCED, READY, TAMPER_RESISTANT};
use pgrail_crds::{GuardMode, TableGuard};
use pgrail_guard::TableState;

/// Sets all of them.
pub(super) fn report(guard: &TableGuard, outcome: &Outcome, conditions: &mut Conditions) {
    match outcome {
        Outcome::Unchanged(..) => {}
        Outcome::Checked(state) => checked(guard, state, conditions),
        Outcome::Unreachable(error) => {
            let message = format!("the last known state is kept: {}", error.message);
            conditions.set(READY, Status::False, Reason::DatabaseUnreachable, message);
            keep(Reason::DatabaseUnreachable, &error.message, conditions);
        }
        Outcome::Rejected(Rejection { reason: reason @ Reason::Suspended, message }) => {
            conditions.set(READY, Status::Unknown, reason, message);
            unknown(*reason, message, conditions);
        }
        // What is installed is that of the last valid spec.
        Outcome::Rejected(Rejection { reason: reason @ Reason::InvalidSpec, message }) => {
            conditions.stalled(reason, message);
            keep(*reason, message, conditions);
        }
        Outcome::Rejected(Rejection { reason, message }) => {
            conditions.stalled(reason, message);
            unknown(*reason, message, conditions);
        }
    }
}

/// The last known state; `Unknown` where there is none.
fn keep(reason: Reason, message: &str, conditions: &mut Conditions) {
    unknown(reason, message, conditions);
    for kind in [ENFORCED, DROP_PROTECTED, TAMPER_RESISTANT] {
        conditions.keep(kind);
    }
}

fn unknown(reason: Reason, message: &str, conditions: &mut Conditions) {
    for kind in [ENFORCED, DROP_PROTECTED, TAMPER_RESISTANT] {
        conditions.set(kind, Status::Unknown, reason, message);
    }
}

fn checked(guard: &TableGuard, state: &GuardState, conditions: &mut Conditions) {
    match not_ready(state) {
        None => {
            let message = "applied to every table that exists and matches";
            conditions.set(READY, Status::True, Reason::AsDeclared, message);
        }
        Some(Rejection { reason: reason @ (Reason::NotATable | Reason::NoPrivilege), message }) => {
            conditions.stalled(reason, message);
        }
        Some(Rejection { reason, message }) => {
            conditions.set(READY, Status::False, reason, message);
        }
    }
    match not_enforced(guard, state) {
        None => {
            let renamed: Vec<String> = state.renamed().map(|it| it.table.clone()).collect();
            let count = state.tables.len() - renamed.len();
            let mut message = format!("DELETE and TRUNCATE are limited on {count} of {count} tables");
            if !renamed.is_empty() {
                message = format!("{message}, and on renamed ones: {}", listed(&renamed));
            }
            message.push_str(&window(state));
            conditions.set(ENFORCED, Status::True, Reason::Verified, message);
        }
        Some(Rejection { reason, message }) => {
            conditions.set(ENFORCED, Status::False, reason, message);
        }
    }
    protection::report(&state.tables, state.tamper.as_ref().map_err(String::as_str), conditions);
}

/// Why it is not applied to everything that exists and matches.
fn not_ready(state: &GuardState) -> Option<Rejection> {
    if let Some(refused) = state.refused.first() {
        let message = format!(
            "spec.tables names {}, which cannot be guarded: {}. Name tables only",
            refused.table, refused.reason
        );
        return Some(Rejection::new(Reason::NotATable, message));
    }
    if let Some(failure) = &state.failure {
        return Some(failure.clone());
    }
    let all = state.tables.iter().map(|it| (it.table.as_str(), it.state, it.message.as_str()));
    let all = all.chain(state.closure.iter().map(|it| (it.table.as_str(), it.state, it.message.as_str())));
    let applied = [TableState::Missing, TableState::Renamed, TableState::Degraded, TableState::Enforced];
    let (table, worst, message) =
        all.filter(|(_, state, _)| !applied.contains(state)).min_by_key(|(_, state, _)| *state)?;
    let reason = match worst {
        TableState::Failed if state.lacking.contains(table) => Reason::NoPrivilege,
        TableState::Failed => Reason::InstallFailed,
        TableState::Drifted => Reason::Drifted,
        _ => Reason::Installing,
    };
    Some(Rejection::new(reason, format!("{table}: {message}")))
}

/// How long a new child table is not guarded, where that is not at once.
fn window(state: &GuardState) -> String {
    match state.recheck {
        Recheck::AtOnce | Recheck::Unknown => String::new(),
        Recheck::Every(interval) => format!(
            "; a new child table is guarded within {}s (checkInterval), since no event trigger reports it",
            interval.as_secs()
        ),
        Recheck::Never => "; without an operator, a new child table is guarded only by another apply".to_owned(),
    }
}

/// Why DELETE and TRUNCATE are not stopped, or not on every table.
fn not_enforced(guard: &TableGuard, state: &GuardState) -> Option<Rejection> {
    let because = |reason, message: String| Some(Rejection::new(reason, message));
    if !state.track_counts {
        let message =
            "the server's setting track_counts is off, so that it counts no rows and nothing is stopped: set it to on";
        return because(Reason::TrackCountsOff, message.to_owned());
    }
    if guard.spec.mode == GuardMode::Warn {
        let message = "mode Warn stops nothing and warns the client: set spec.mode to Enforce";
        return because(Reason::Warn, message.to_owned());
    }
    // A table without its guard is not hidden by one that does not exist.
    let worst = state.worst();
    let is_worse = worst.is_some_and(|(_, worst, _)| worst < TableState::Missing);
    if !state.missing.is_empty() && !is_worse {
        let when = match state.recheck {
            Recheck::AtOnce | Recheck::Every(_) | Recheck::Unknown => "It is guarded as soon as it exists",
            Recheck::Never => "Run apply again when it exists: without an operator, nothing guards it later",
        };
        let message = format!("no such table: {}. {when}", listed(&state.missing));
        return because(Reason::TablesMissing, message);
    }
    if let Some(refused) = state.refused.first() {
        return because(Reason::NotATable, format!("{}: {}", refused.table, refused.reason));
    }
    if let Some((table, worst, message)) = worst {
        let reason = match worst {
            TableState::Failed if !state.lacking.contains(table) => Reason::InstallFailed,
            TableState::Failed | TableState::Degraded => Reason::NoPrivilege,
            TableState::Drifted => Reason::Drifted,
            TableState::Missing => Reason::TablesMissing,
            TableState::Pending => Reason::Installing,
            TableState::Renamed | TableState::Enforced => Reason::Verified,
        };
        return because(reason, format!("{table}: {message}"));
    }
    if let Some(failure) = &state.failure {
        return Some(failure.clone());
    }
    if state.tables.is_empty() {
        return because(Reason::TablesMissing, "spec.tables matches no table".to_owned());
    }
    None
}
