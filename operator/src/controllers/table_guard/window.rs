//! How much of the windows of a guard is used: what is reported of it, and when.

use crate::clock::is_recent;
use crate::controllers::protected_database::two_digits;
use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::{GuardMode, GuardedTable, TableGuard, TableGuardStatus, Time};
use pgrail_guard::WindowUse;
use std::collections::HashMap;
use std::sync::Mutex;

/// What the status says moves at most that often, unless a window is used up, or no longer.
const MOVES_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// The windows of a guard as they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(super) uses: Vec<WindowUse>,
    /// Those that stopped a statement, for the first time within their length.
    pub(super) exhausted: Vec<WindowUse>,
    /// Whether the numbers in the status may move.
    pub(super) moves: bool,
}

/// What was reported, by UID of the guard.
#[derive(Default)]
pub(super) struct WindowMemory(Mutex<HashMap<String, Reported>>);

#[derive(Default)]
struct Reported {
    /// When the numbers last moved.
    moved: Option<Timestamp>,
    /// When the window of a table last stopped a statement, as far as it was announced; in seconds since 1970.
    announced: HashMap<String, i64>,
}

impl Windows {
    /// Those of an installation that is only shown: nothing is announced.
    pub(super) fn shown(uses: Vec<WindowUse>) -> Self {
        Self { uses, exhausted: Vec::new(), moves: true }
    }
}

impl WindowMemory {
    /// Decides what of the windows is announced and may move.
    pub(super) fn observed(&self, guard: &TableGuard, uses: Vec<WindowUse>, now: Timestamp) -> Windows {
        if uses.is_empty() {
            return Windows::default();
        }
        let mut memory = locked(&self.0);
        let reported = memory.entry(guard.uid().unwrap_or_default()).or_default();
        let moves = reported.moved.is_none_or(|moved| !is_recent(moved, now, MOVES_EVERY));
        if moves {
            reported.moved = Some(now);
        }
        let mut is_new = |it: &&WindowUse| {
            let Some(stopped) = it.stopped else { return false };
            let length = i64::from(it.seconds);
            // By the database's clock, as far as it is known here. An operator that was restarted may announce once more.
            let new = match reported.announced.get(&it.table) {
                Some(announced) => stopped >= announced + length,
                None => stopped + length > now.as_second(),
            };
            if new {
                reported.announced.insert(it.table.clone(), stopped);
            }
            new
        };
        let exhausted = uses.iter().filter(|it| is_new(it)).cloned().collect();
        Windows { uses, exhausted, moves }
    }

    /// The guard with this UID was deleted.
    pub(super) fn deleted(&self, uid: &str) {
        locked(&self.0).remove(uid);
    }
}

/// Writes them into the rows of their tables.
pub(super) fn report(tables: &mut [GuardedTable], previous: Option<&TableGuardStatus>, windows: &Windows) {
    let before: HashMap<&str, &pgrail_crds::WindowUse> = previous
        .iter()
        .flat_map(|status| &status.tables)
        .filter_map(|row| row.window.as_ref().map(|window| (row.table.as_str(), window)))
        .collect();
    let uses: HashMap<&str, &WindowUse> = windows.uses.iter().map(|it| (it.table.as_str(), it)).collect();
    for row in tables {
        row.window = uses.get(row.table.as_str()).map(|it| {
            let now = reported(it);
            let kept = before.get(row.table.as_str()).filter(|before| !windows.moves && is_alike(before, &now));
            kept.map_or(now, |before| (*before).clone())
        });
    }
}

fn reported(it: &WindowUse) -> pgrail_crds::WindowUse {
    let rounded = |(removed, _): (i64, i64)| two_digits(u64::try_from(removed).unwrap_or(0));
    pgrail_crds::WindowUse {
        removed: it.rows.map(rounded),
        limit: it.rows.map(|(_, limit)| limit),
        cascade_removed: it.cascade_rows.map(rounded),
        cascade_limit: it.cascade_rows.map(|(_, limit)| limit),
        since: it.since.and_then(|since| Timestamp::from_second(since).ok()).map(Time),
    }
}

/// Whether only numbers differ, and none of them passed its limit.
fn is_alike(a: &pgrail_crds::WindowUse, b: &pgrail_crds::WindowUse) -> bool {
    let full =
        |removed: Option<i64>, limit: Option<i64>| removed.zip(limit).is_some_and(|(removed, limit)| removed >= limit);
    let facts = |it: &pgrail_crds::WindowUse| {
        let full = (full(it.removed, it.limit), full(it.cascade_removed, it.cascade_limit));
        (it.limit, it.cascade_limit, it.since.clone(), full)
    };
    facts(a) == facts(b)
}

/// What the Event says.
pub(super) fn exhausted(it: &WindowUse, mode: GuardMode) -> String {
    let verb = if mode == GuardMode::Warn { "warned of (mode Warn)" } else { "stopped" };
    let of = |(removed, limit): (i64, i64), what: &str| format!("{removed} of {limit} rows of {what}");
    let used: Vec<String> =
        [it.rows.map(|rows| of(rows, &it.table)), it.cascade_rows.map(|rows| of(rows, "other tables"))]
            .into_iter()
            .flatten()
            .collect();
    format!(
        "the window of {} is used up, deletes are {verb}: within {} s, {} were removed",
        it.table,
        it.seconds,
        used.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn guard() -> TableGuard {
        serde_json::from_value(json!({
            "apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard", "metadata": {"name": "core", "namespace": "shop", "uid": "1"},
            "spec": {"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]},
        }))
        .unwrap()
    }

    fn used(removed: i64, stopped: Option<i64>) -> Vec<WindowUse> {
        vec![WindowUse {
            guard: "shop/core".to_owned(),
            table: "public.users".to_owned(),
            seconds: 3600,
            rows: Some((removed, 1000)),
            cascade_rows: None,
            since: Some(100),
            stopped,
        }]
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_used_up_window_is_announced_once_within_its_length() {
        let memory = WindowMemory::default();
        let count = |stopped, now| memory.observed(&guard(), used(1000, stopped), at(now)).exhausted.len();
        assert_eq!(count(None, 9_990), 0);
        assert_eq!(count(Some(10_000), 10_010), 1);
        assert_eq!(count(Some(10_020), 10_040), 0);
        assert_eq!(count(Some(13_599), 13_600), 0);
        assert_eq!(count(Some(13_600), 13_600), 1);
        // What is long over is not announced by an operator that was restarted.
        let restarted = WindowMemory::default();
        assert!(restarted.observed(&guard(), used(0, Some(10_000)), at(20_000)).exhausted.is_empty());
    }

    #[test]
    fn numbers_move_every_ten_minutes_and_when_the_window_is_used_up() {
        let memory = WindowMemory::default();
        let row = |window| GuardedTable {
            table: "public.users".to_owned(),
            renamed_from: None,
            state: pgrail_crds::TableState::Enforced,
            closure: 0,
            rows_at_risk: 0,
            blocked_attempts: 0,
            attempts_before: 0,
            window,
            message: String::new(),
        };
        let mut status = TableGuardStatus { tables: vec![row(None)], ..TableGuardStatus::default() };
        let mut next = |removed, now| {
            let windows = memory.observed(&guard(), used(removed, None), at(now));
            let mut tables = status.tables.clone();
            report(&mut tables, Some(&status), &windows);
            status.tables = tables;
            status.tables[0].window.as_ref().unwrap().removed
        };
        assert_eq!(next(123, 0), Some(120));
        assert_eq!(next(345, 599), Some(120));
        assert_eq!(next(345, 600), Some(350));
        assert_eq!(next(1000, 630), Some(1000));
        assert_eq!(next(700, 660), Some(700));
        assert_eq!(next(500, 690), Some(700));
    }
}
