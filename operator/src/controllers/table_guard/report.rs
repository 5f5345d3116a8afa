//! The status of a `TableGuard`, from what was found. Pure.

use super::apply::Outcome;
use super::attempts::{Attempts, Counted, LISTED, attempts};
use super::conditions;
use super::state::GuardState;
use super::window::{self, Windows};
use crate::controllers::protected_database::two_digits;
use crate::kubernetes::conditions::{Conditions, whole_seconds};
use crate::kubernetes::text::truncated;
use jiff::Timestamp;
use pgrail_crds::{GuardedTable, TableGuard, TableGuardStatus, TableState, Time};
use pgrail_guard::TableStatus;
use std::collections::HashMap;

/// The longest message of a table, in bytes.
const LONGEST_TABLE_MESSAGE: usize = 1000;

/// The status that the guard should have.
pub(crate) fn report(guard: &TableGuard, outcome: &Outcome, now: Timestamp) -> TableGuardStatus {
    let mut status = guard.status.clone().unwrap_or_default();
    let attempts = attempts_of(outcome, guard.status.as_ref());
    count(&mut status, &attempts, now);
    if let Outcome::Checked(state) = outcome {
        let is_enforced = |it: &&TableStatus| it.state == pgrail_guard::TableState::Enforced;
        let unmatched = [pgrail_guard::TableState::Missing, pgrail_guard::TableState::Renamed];
        let matched = state.tables.iter().filter(|it| !unmatched.contains(&it.state)).count();
        let enforced = if state.track_counts { state.tables.iter().filter(is_enforced).count() } else { 0 };
        status.tables_matched = i64::try_from(matched).ok();
        status.tables_enforced = i64::try_from(enforced).ok();
        status.drift_repairs = Some(status.drift_repairs.unwrap_or(0) + i64::from(!state.repaired.is_empty()));
        status.tables = rows(&status.tables, state, &attempts);
    }
    status.observed_generation = guard.metadata.generation;
    if let Some(windows) = windows_of(outcome) {
        window::report(&mut status.tables, guard.status.as_ref(), windows);
    }
    if !matches!(outcome, Outcome::Unchanged(..)) {
        let mut next = Conditions::new(&status.conditions, guard.metadata.generation, now);
        conditions::report(guard, outcome, &mut next);
        status.conditions = next.finish();
    }
    status
}

/// The attempts on each table, with those since the last status.
pub(super) fn attempts_of(outcome: &Outcome, previous: Option<&TableGuardStatus>) -> Vec<Attempts> {
    let counters: Vec<Counted<'_>> = match outcome {
        Outcome::Unchanged(_, counters, _) => counters
            .iter()
            .map(|it| Counted { table: &it.table, renamed_from: None, value: it.blocked_attempts })
            .collect(),
        Outcome::Checked(state) => {
            let existing = state.tables.iter().filter(|it| it.oid.is_some());
            let counted = existing.map(|it| Counted {
                table: &it.table,
                renamed_from: it.renamed_from.as_deref(),
                value: it.blocked_attempts,
            });
            counted.collect()
        }
        Outcome::Rejected(_) | Outcome::Unreachable(_) => return Vec::new(),
    };
    attempts(previous, &counters)
}

/// The windows that were found.
pub(super) fn windows_of(outcome: &Outcome) -> Option<&Windows> {
    match outcome {
        Outcome::Unchanged(_, _, windows) => Some(windows),
        Outcome::Checked(state) => Some(&state.windows),
        Outcome::Rejected(_) | Outcome::Unreachable(_) => None,
    }
}

fn count(status: &mut TableGuardStatus, attempts: &[Attempts], now: Timestamp) {
    let by_table: HashMap<&str, &Attempts> = attempts.iter().map(|it| (it.table.as_str(), it)).collect();
    for row in &mut status.tables {
        if let Some(attempts) = by_table.get(row.table.as_str()) {
            (row.blocked_attempts, row.attempts_before) = (attempts.total, attempts.before);
        }
    }
    let more: i64 = attempts.iter().map(|it| it.more).sum();
    if more > 0 {
        status.last_blocked_time = Some(Time(whole_seconds(now)));
    }
    if more > 0 || (status.blocked_attempts.is_none() && !attempts.is_empty()) {
        status.blocked_attempts = Some(status.blocked_attempts.unwrap_or(0) + more);
    }
}

/// The tables worst first; beyond the first 200 summed in one row.
fn rows(previous: &[GuardedTable], state: &GuardState, attempts: &[Attempts]) -> Vec<GuardedTable> {
    let estimates: HashMap<&str, i64> = previous.iter().map(|it| (it.table.as_str(), it.rows_at_risk)).collect();
    let attempts: HashMap<&str, &Attempts> = attempts.iter().map(|it| (it.table.as_str(), it)).collect();
    let row = |table: &str, state, message: &str| GuardedTable {
        table: table.to_owned(),
        renamed_from: None,
        state,
        closure: 0,
        rows_at_risk: 0,
        blocked_attempts: attempts.get(table).map_or(0, |it| it.total),
        attempts_before: attempts.get(table).map_or(0, |it| it.before),
        window: None,
        message: truncated(message, LONGEST_TABLE_MESSAGE),
    };
    let tables = state.tables.iter().map(|it| GuardedTable {
        renamed_from: it.renamed_from.clone(),
        closure: i64::try_from(it.closure).unwrap_or(i64::MAX),
        rows_at_risk: steady(estimates.get(it.table.as_str()).copied(), two_digits(it.rows_at_risk)),
        ..row(&it.table, table_state(it.state), &it.message)
    });
    let closure = state.closure.iter().map(|it| row(&it.table, table_state(it.state), &it.message));
    let refused = state.refused.iter().map(|it| row(&it.table, TableState::Failed, &it.reason));
    let mut rows: Vec<GuardedTable> = tables.chain(closure).chain(refused).collect();
    rows.sort_by_cached_key(|it| {
        let quiet = it.blocked_attempts == 0;
        (rank(it.state), quiet, std::cmp::Reverse(it.rows_at_risk), it.table.clone())
    });
    if rows.len() > LISTED {
        let rest = rows.split_off(LISTED - 1);
        rows.push(GuardedTable {
            table: format!("{} more", rest.len()),
            renamed_from: None,
            state: rest.first().map_or(TableState::Enforced, |it| it.state),
            closure: rest.iter().map(|it| it.closure).max().unwrap_or(0),
            rows_at_risk: rest.iter().map(|it| it.rows_at_risk).sum(),
            blocked_attempts: rest.iter().map(|it| it.blocked_attempts).sum(),
            attempts_before: 0,
            window: None,
            message: String::new(),
        });
    }
    rows
}

/// An estimate that changed by less than a tenth stays as it is: statistics vary.
fn steady(previous: Option<i64>, now: i64) -> i64 {
    previous.filter(|previous| (previous - now).abs() * 10 <= *previous).unwrap_or(now)
}

fn rank(state: TableState) -> u8 {
    match state {
        TableState::Failed => 0,
        TableState::Drifted => 1,
        TableState::Missing => 2,
        TableState::Pending => 3,
        TableState::Renamed => 4,
        TableState::Degraded => 5,
        TableState::Enforced => 6,
    }
}

fn table_state(state: pgrail_guard::TableState) -> TableState {
    match state {
        pgrail_guard::TableState::Failed => TableState::Failed,
        pgrail_guard::TableState::Drifted => TableState::Drifted,
        pgrail_guard::TableState::Missing => TableState::Missing,
        pgrail_guard::TableState::Pending => TableState::Pending,
        pgrail_guard::TableState::Renamed => TableState::Renamed,
        pgrail_guard::TableState::Degraded => TableState::Degraded,
        pgrail_guard::TableState::Enforced => TableState::Enforced,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::state::{ClosureTable, Recheck};
    use super::*;
    use crate::database::DatabaseError;
    use crate::kubernetes::rejection::{Reason, Rejection};
    use pgrail_guard::{Counter, Drift, DropProtection, TamperFacts};
    use serde_json::json;
    use std::collections::BTreeSet;

    pub(in super::super) fn table(name: &str, state: pgrail_guard::TableState) -> TableStatus {
        let enforced = state == pgrail_guard::TableState::Enforced;
        TableStatus {
            oid: Some(1),
            table: name.to_owned(),
            renamed_from: None,
            state,
            message: if enforced { String::new() } else { format!("message of {name}") },
            closure: 4,
            rows_at_risk: 1_299_999,
            blocked_attempts: 0,
            drop_protection: DropProtection::EventTrigger,
            column_protection: DropProtection::NotAsked,
            partition_protection: DropProtection::NotAsked,
        }
    }

    pub(in super::super) fn state_of(tables: Vec<TableStatus>) -> GuardState {
        let incomplete = tables.iter().any(|it| it.state == pgrail_guard::TableState::Pending);
        GuardState {
            tables,
            closure: Vec::new(),
            missing: Vec::new(),
            refused: Vec::new(),
            repaired: Vec::new(),
            first: false,
            failure: None,
            lacking: BTreeSet::new(),
            incomplete,
            track_counts: true,
            recheck: Recheck::AtOnce,
            tamper: Ok(TamperFacts::default()),
            windows: Windows::default(),
        }
    }

    fn guard(status: Option<TableGuardStatus>) -> TableGuard {
        let mut guard: TableGuard = serde_json::from_value(json!({
            "apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard",
            "metadata": {"name": "core", "namespace": "shop", "generation": 1},
            "spec": {"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]},
        }))
        .unwrap();
        guard.status = status;
        guard
    }

    fn checked(change: impl FnOnce(&mut GuardState)) -> Outcome {
        let mut state = state_of(vec![table("public.users", pgrail_guard::TableState::Enforced)]);
        change(&mut state);
        Outcome::Checked(Box::new(state))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn condition(status: &TableGuardStatus, kind: &str) -> (String, String, String) {
        let found = status.conditions.iter().find(|it| it.type_ == kind);
        let found = found.unwrap_or_else(|| panic!("no {kind} in {:?}", status.conditions));
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }

    fn is(status: &TableGuardStatus, kind: &str, value: &str, reason: &str) {
        let (found, why, message) = condition(status, kind);
        assert_eq!((found.as_str(), why.as_str()), (value, reason), "{kind}: {message}");
    }

    #[test]
    fn a_verified_guard_is_ready_and_enforced() {
        let status = report(&guard(None), &checked(|_| {}), at(100));
        is(&status, "Ready", "True", "AsDeclared");
        is(&status, "Enforced", "True", "Verified");
        is(&status, "DropProtected", "True", "EventTrigger");
        is(&status, "TamperResistant", "True", "AdministratorsOnly");
        assert!(status.conditions.iter().all(|it| it.type_ != "Stalled"));
        assert_eq!((status.tables_matched, status.tables_enforced), (Some(1), Some(1)));
        assert_eq!((status.blocked_attempts, status.drift_repairs), (Some(0), Some(0)));
        assert_eq!((status.tables[0].rows_at_risk, status.tables[0].closure), (1_300_000, 4));
    }

    #[test]
    fn a_second_check_that_finds_the_same_changes_nothing() {
        let first = report(&guard(None), &checked(|_| {}), at(100));
        let second = report(&guard(Some(first.clone())), &checked(|_| {}), at(200));
        assert_eq!(first, second);
        let counted =
            report(&guard(Some(first.clone())), &Outcome::Unchanged(at(300), Vec::new(), Windows::default()), at(300));
        assert_eq!(first, counted);
    }

    #[test]
    fn a_closure_table_without_privilege_is_named_and_needs_its_user() {
        let outcome = checked(|state| {
            state.tables[0] = table("public.users", pgrail_guard::TableState::Pending);
            state.incomplete = true;
            state.lacking.insert("public.leads".to_owned());
            let message = "must be owner of table leads: run GRANT app TO pgrail".to_owned();
            let state_of_it = pgrail_guard::TableState::Failed;
            state.closure.push(ClosureTable { table: "public.leads".to_owned(), state: state_of_it, message });
        });
        let status = report(&guard(None), &outcome, at(100));
        is(&status, "Enforced", "False", "NoPrivilege");
        is(&status, "Ready", "False", "NoPrivilege");
        is(&status, "Stalled", "True", "NoPrivilege");
        assert!(condition(&status, "Ready").2.contains("public.leads: must be owner of table leads: run GRANT app"));
        assert_eq!(status.tables[0].table, "public.leads");
        assert_eq!((status.tables[0].state, status.tables[1].state), (TableState::Failed, TableState::Pending));
        assert_eq!((status.tables_matched, status.tables_enforced), (Some(1), Some(0)));
    }

    #[test]
    fn what_waits_for_a_lock_is_installing_and_not_stalled() {
        let outcome = checked(|state| {
            state.tables[0] = table("public.users", pgrail_guard::TableState::Pending);
            state.incomplete = true;
        });
        let status = report(&guard(None), &outcome, at(100));
        is(&status, "Ready", "False", "Installing");
        is(&status, "Enforced", "False", "Installing");
        assert!(status.conditions.iter().all(|it| it.type_ != "Stalled"));
    }

    #[test]
    fn a_repair_is_counted_once() {
        let drift = Drift { table: "public.users".to_owned(), what: "trigger pgrail_truncate was disabled".to_owned() };
        let first = report(&guard(None), &checked(|state| state.repaired.push(drift)), at(100));
        assert_eq!(first.drift_repairs, Some(1));
        assert_eq!(report(&guard(Some(first)), &checked(|_| {}), at(200)).drift_repairs, Some(1));
    }

    #[test]
    fn attempts_never_go_backwards() {
        let counted = |attempts| checked(move |state| state.tables[0].blocked_attempts = attempts);
        let first = report(&guard(None), &counted(12), at(100));
        assert_eq!((first.blocked_attempts, first.last_blocked_time.as_ref().unwrap().0), (Some(12), at(100)));
        let reset = report(&guard(Some(first)), &counted(0), at(200));
        assert_eq!((reset.blocked_attempts, reset.tables[0].blocked_attempts), (Some(12), 12));
        assert_eq!(reset.last_blocked_time.as_ref().unwrap().0, at(100));
        let counter = Counter { guard: "shop/core".to_owned(), table: "public.users".to_owned(), blocked_attempts: 3 };
        let more =
            report(&guard(Some(reset)), &Outcome::Unchanged(at(300), vec![counter], Windows::default()), at(300));
        assert_eq!((more.blocked_attempts, more.tables[0].blocked_attempts), (Some(15), 15));
        assert_eq!(more.last_blocked_time.unwrap().0, at(300));
    }

    #[test]
    fn an_unreachable_database_keeps_the_last_known_state() {
        let before = report(&guard(None), &checked(|_| {}), at(100));
        let error = DatabaseError { reason: Reason::Timeout, message: "no answer".to_owned(), stalled: false };
        let status = report(&guard(Some(before.clone())), &Outcome::Unreachable(error), at(200));
        is(&status, "Ready", "False", "DatabaseUnreachable");
        is(&status, "Enforced", "True", "Verified");
        assert_eq!(status.tables, before.tables);
    }

    #[test]
    fn a_rejection_stalls_but_for_a_suspended_database() {
        let rejected = |reason| {
            let outcome = Outcome::Rejected(Rejection::new(reason, "why"));
            report(&guard(Some(report(&guard(None), &checked(|_| {}), at(100)))), &outcome, at(200))
        };
        let missing = rejected(Reason::DatabaseNotFound);
        is(&missing, "Stalled", "True", "DatabaseNotFound");
        is(&missing, "Enforced", "Unknown", "DatabaseNotFound");
        let invalid = rejected(Reason::InvalidSpec);
        is(&invalid, "Stalled", "True", "InvalidSpec");
        is(&invalid, "Enforced", "True", "Verified");
        let suspended = rejected(Reason::Suspended);
        is(&suspended, "Ready", "Unknown", "Suspended");
        assert!(suspended.conditions.iter().all(|it| it.type_ != "Stalled"));
    }

    #[test]
    fn a_server_that_counts_no_rows_enforces_nothing() {
        let status = report(&guard(None), &checked(|state| state.track_counts = false), at(100));
        is(&status, "Enforced", "False", "TrackCountsOff");
        assert_eq!(status.tables_enforced, Some(0));
    }

    #[test]
    fn the_message_says_when_new_child_tables_are_guarded() {
        let message =
            |change: fn(&mut GuardState)| condition(&report(&guard(None), &checked(change), at(100)), "Enforced").2;
        assert_eq!(message(|_| {}), "DELETE and TRUNCATE are limited on 1 of 1 tables");
        assert!(
            message(|state| state.recheck = Recheck::Every(std::time::Duration::from_secs(30)))
                .contains("within 30s (checkInterval)")
        );
        let never = message(|state| state.recheck = Recheck::Never);
        assert!(never.contains("without an operator"), "{never}");
        let missing = message(|state| {
            state.missing.push("public.later".to_owned());
            state.recheck = Recheck::Never;
        });
        assert!(missing.contains("without an operator"), "{missing}");
    }

    #[test]
    fn tables_are_worst_first_and_the_rest_is_summed() {
        let mut tables: Vec<TableStatus> = (0..LISTED)
            .map(|number| table(&format!("public.t{number:03}"), pgrail_guard::TableState::Enforced))
            .collect();
        tables.push(table("public.z", pgrail_guard::TableState::Degraded));
        tables[150].blocked_attempts = 1;
        let status = report(&guard(None), &Outcome::Checked(Box::new(state_of(tables))), at(100));
        assert_eq!(status.tables.len(), LISTED);
        assert_eq!((status.tables[0].table.as_str(), status.tables[1].table.as_str()), ("public.z", "public.t150"));
        assert_eq!(status.tables[LISTED - 1].table, "2 more");
    }
}
