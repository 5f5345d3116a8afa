//! Attempts that a guard stopped, or warned of: what is new since the last status, whatever became of the counters in the
//! database. Pure.

use pgrail_crds::{GuardedTable, TableGuardStatus};
use std::collections::{HashMap, HashSet};

/// Tables that the status lists; the rest is summed in the last row.
pub(super) const LISTED: usize = 200;

/// The attempts on one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempts {
    /// `schema.table`
    pub(super) table: String,
    /// Since the last status.
    pub(super) more: i64,
    /// In all.
    pub(super) total: i64,
    /// Of these, counted before the counter in the database was reset.
    pub(super) before: i64,
}

/// A counter in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    /// `schema.table`
    pub(super) table: &'a str,
    /// The name that the guard knows, where the table was renamed.
    pub(super) renamed_from: Option<&'a str>,
    pub(super) value: i64,
}

/// The attempts on each table, from the counters in the database. A counter that is lower than before was reset with
/// pgrail's schema or its table: what was counted until then is kept.
pub(super) fn attempts(previous: Option<&TableGuardStatus>, counters: &[Counted<'_>]) -> Vec<Attempts> {
    let rows = previous.map(|status| status.tables.as_slice()).unwrap_or_default();
    let continued = continued(rows, counters);
    let mut attempts: Vec<Attempts> = Vec::with_capacity(counters.len());
    let mut unlisted: Vec<usize> = Vec::new();
    for Counted { table, value, .. } in counters {
        let row = continued.get(table).copied();
        let (shown, mut before) = row.map_or((0, 0), |row| (row.blocked_attempts, row.attempts_before));
        if *value < shown - before {
            before = shown;
        }
        let total = before + value;
        if row.is_none() {
            unlisted.push(attempts.len());
        }
        attempts.push(Attempts { table: (*table).to_owned(), more: total - shown, total, before });
    }
    if let Some(rest) = rows.get(LISTED - 1) {
        // Tables beyond the listed ones share one row: what is new among them is the table's with the most attempts.
        let known = rest.blocked_attempts;
        let now: i64 = unlisted.iter().filter_map(|at| attempts.get(*at)).map(|it| it.total).sum();
        let most = unlisted.iter().copied().max_by_key(|at| attempts.get(*at).map(|it| it.total));
        for at in unlisted {
            if let Some(it) = attempts.get_mut(at) {
                it.more = if Some(at) == most { (now - known).max(0) } else { 0 };
            }
        }
    }
    attempts
}

/// The row of the last status that each table continues: that of its name, or, for a table that was renamed since, that of
/// its last name.
fn continued<'a>(rows: &'a [GuardedTable], counters: &[Counted<'a>]) -> HashMap<&'a str, &'a GuardedTable> {
    let by_name: HashMap<&str, &GuardedTable> = rows.iter().map(|row| (row.table.as_str(), row)).collect();
    let now: HashSet<&str> = counters.iter().map(|counter| counter.table).collect();
    let mut continued: HashMap<&str, &GuardedTable> = HashMap::new();
    let mut taken: HashSet<&str> = HashSet::new();
    for Counted { table, renamed_from, .. } in counters {
        let Some(from) = renamed_from.filter(|_| !by_name.contains_key(table)) else { continue };
        let moved_again = || {
            let left = |row: &&GuardedTable| row.renamed_from.is_some() && !now.contains(row.table.as_str());
            rows.iter().filter(left).find(|row| !taken.contains(row.table.as_str()))
        };
        if let Some(row) =
            by_name.get(from).copied().filter(|row| !taken.contains(row.table.as_str())).or_else(moved_again)
        {
            taken.insert(&row.table);
            continued.insert(table, row);
        }
    }
    for Counted { table, .. } in counters {
        if let Some(row) = by_name.get(table)
            && !taken.contains(table)
        {
            continued.insert(table, row);
        }
    }
    continued
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrail_crds::TableState;

    fn status(rows: &[(&str, i64, i64)]) -> TableGuardStatus {
        let row = |(table, blocked_attempts, attempts_before): &(&str, i64, i64)| GuardedTable {
            table: (*table).to_owned(),
            renamed_from: None,
            state: TableState::Enforced,
            closure: 0,
            rows_at_risk: 0,
            blocked_attempts: *blocked_attempts,
            attempts_before: *attempts_before,
            window: None,
            message: String::new(),
        };
        TableGuardStatus { tables: rows.iter().map(row).collect(), ..TableGuardStatus::default() }
    }

    fn counted<'a>(table: &'a str, value: i64, renamed_from: Option<&'a str>) -> Counted<'a> {
        Counted { table, renamed_from, value }
    }

    fn of(previous: &TableGuardStatus, counters: &[(&str, i64)]) -> Vec<(i64, i64, i64)> {
        let counters: Vec<_> = counters.iter().map(|(table, value)| counted(table, *value, None)).collect();
        attempts(Some(previous), &counters).iter().map(|it| (it.more, it.total, it.before)).collect()
    }

    #[test]
    fn what_is_new_is_the_difference() {
        assert_eq!(attempts(None, &[counted("a", 2, None)])[0].more, 2);
        assert_eq!(of(&status(&[("a", 2, 0)]), &[("a", 5)]), [(3, 5, 0)]);
        assert_eq!(of(&status(&[("a", 2, 0)]), &[("a", 2)]), [(0, 2, 0)]);
    }

    #[test]
    fn a_counter_that_was_reset_takes_nothing_away() {
        let after = of(&status(&[("a", 12, 0)]), &[("a", 0)]);
        assert_eq!(after, [(0, 12, 12)]);
        assert_eq!(of(&status(&[("a", 12, 12)]), &[("a", 3)]), [(3, 15, 12)]);
        assert_eq!(of(&status(&[("a", 15, 12)]), &[("a", 1)]), [(1, 16, 15)]);
    }

    #[test]
    fn tables_beyond_the_listed_ones_are_counted_once() {
        let mut rows: Vec<(String, i64, i64)> = (1..LISTED).map(|number| (format!("t{number}"), 0, 0)).collect();
        rows.push(("2 more".to_owned(), 3, 0));
        let rows: Vec<(&str, i64, i64)> = rows.iter().map(|(table, a, b)| (table.as_str(), *a, *b)).collect();
        let previous = status(&rows);
        assert_eq!(of(&previous, &[("x", 3), ("y", 0)]), [(0, 3, 0), (0, 0, 0)]);
        assert_eq!(of(&previous, &[("x", 5), ("y", 0)]), [(2, 5, 0), (0, 0, 0)]);
    }

    #[test]
    fn a_renamed_table_is_counted_on() {
        let more = |previous: &TableGuardStatus, counters: &[Counted<'_>]| -> Vec<i64> {
            attempts(Some(previous), counters).iter().map(|it| it.more).collect()
        };
        // Another table took its name at once.
        let swapped = [counted("a_old", 3, Some("a")), counted("a", 0, None)];
        assert_eq!(more(&status(&[("a", 2, 0)]), &swapped), [1, 0]);
        let mut renamed = status(&[("a_old", 3, 0), ("a", 0, 0)]);
        renamed.tables[0].renamed_from = Some("a".to_owned());
        assert_eq!(more(&renamed, &swapped), [0, 0]);
        let moved = [counted("x.a_old", 4, Some("a")), counted("a", 0, None)];
        assert_eq!(more(&status(&[("a", 3, 0)]), &moved[..1]), [1]);
        let mut alone = status(&[("a_old", 3, 0)]);
        alone.tables[0].renamed_from = Some("a".to_owned());
        assert_eq!(more(&alone, &moved[..1]), [1]);
    }
}
