//! The losses of rows of a schedule that no user has acknowledged, and the backups that are kept because of them. Pure.
//!
//! They are part of the schedule's status, not read from the backups alone: the backup in which rows are missing may be removed
//! while the one before it is still the only one that has them.

use super::history::Scope;
use crate::backup_jobs::record::snapshot_time;
use crate::backup_jobs::shrink;
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::truncated;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::annotations::ACKNOWLEDGE_SHRINK;
use pgrail_crds::conditions::SHRUNK;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{BackupComparison, BackupPhase, BackupSchedule, BackupScheduleStatus, DatabaseBackup, Shrink, Time};
use pgrail_dump::shrink::{is_open, kept};

/// The most losses that are listed. Later ones are listed when these are acknowledged.
const LISTED: usize = 32;
/// The most backups that are kept because of losses: a role that can delete rows must not be able to fill the store.
const KEPT: usize = 8;

/// The losses that are not acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shrinks {
    /// Oldest first.
    pub(super) open: Vec<Shrink>,
    /// Snapshot time of the newest backup whose loss was acknowledged.
    pub(super) acknowledged: Option<Timestamp>,
}

impl Shrinks {
    /// Whether the retention must keep a backup.
    pub(super) fn keep(&self, backup: &str) -> bool {
        self.open.iter().any(|it| it.kept && it.before == backup)
    }
}

/// From the status, what the backups of the schedule report, and the annotation that acknowledges.
pub(super) fn read(schedule: &BackupSchedule, backups: &[DatabaseBackup], scope: &Scope<'_>) -> Shrinks {
    let status = schedule.status.as_ref();
    let known = status.map(|status| status.shrinks.clone()).unwrap_or_default();
    let mut acknowledged = status.and_then(|status| status.acknowledged_shrink_time.as_ref()).map(|time| time.0);
    let unknown = |it: &&DatabaseBackup| !known.iter().any(|shrink| shrink.backup == it.name_any());
    let mut all: Vec<Shrink> =
        backups.iter().filter(|it| scope.is_run(it)).filter(unknown).filter_map(of_backup).collect();
    all.extend(known.iter().cloned());
    all.sort_by(|a, b| (a.time.0, &a.backup).cmp(&(b.time.0, &b.backup)));
    if let Some(name) = schedule.annotations().get(ACKNOWLEDGE_SHRINK)
        && let Some(named) = all.iter().find(|it| it.backup == *name)
    {
        acknowledged = acknowledged.max(Some(named.time.0));
    }
    all.retain(|it| is_open(it.time.0, acknowledged));
    // Those that were listed stay, whatever is found now.
    all.sort_by_key(|it| !known.iter().any(|shrink| shrink.backup == it.backup));
    all.truncate(LISTED);
    // In this order, too: what is kept is not displaced by a loss that is found later, even of an earlier time.
    let is_kept = kept(all.iter().map(|it| it.before.as_str()), KEPT);
    for (shrink, is_kept) in all.iter_mut().zip(is_kept) {
        shrink.kept = is_kept;
    }
    Shrinks { open: all, acknowledged }
}

fn of_backup(backup: &DatabaseBackup) -> Option<Shrink> {
    let status = backup.status.as_ref().filter(|status| status.phase == Some(BackupPhase::Succeeded))?;
    let comparison = status.comparison.as_ref().filter(|it| it.shrunk_tables > 0)?;
    Some(Shrink {
        backup: backup.name_any(),
        before: comparison.with.clone().unwrap_or_default(),
        kept: false,
        time: Time(whole_seconds(snapshot_time(backup))),
        tables: comparison.shrunk_tables,
        worst: truncated(&comparison.tables.first().map(shrink::table).unwrap_or_default(), 512),
    })
}

pub(super) fn report(
    schedule: &BackupSchedule,
    shrinks: &Shrinks,
    newest: Option<&DatabaseBackup>,
    conditions: &mut Conditions,
) {
    let Some(last) = shrinks.open.last() else {
        let comparison = newest.and_then(|it| it.status.as_ref()?.comparison.as_ref());
        let (status, reason, message) = match (newest, comparison) {
            (None, _) => (Status::Unknown, Reason::NeverRan, "there is no backup".to_owned()),
            (Some(newest), None) => {
                let message = format!("{} was not compared with another backup", newest.name_any());
                (Status::Unknown, Reason::NotCompared, message)
            }
            (Some(newest), Some(comparison)) if comparison.shrunk_tables > 0 => (
                Status::False,
                Reason::Acknowledged,
                format!("the loss of rows in {} was acknowledged", newest.name_any()),
            ),
            (Some(newest), Some(BackupComparison { with: Some(with), .. })) => {
                (Status::False, Reason::NoRowsLost, format!("{} compared with {with}", newest.name_any()))
            }
            (Some(newest), Some(comparison)) => {
                let because = comparison.not_compared_because.as_deref().unwrap_or_default();
                (Status::Unknown, Reason::NotCompared, format!("{} was not compared: {because}", newest.name_any()))
            }
        };
        conditions.set(SHRUNK, status, reason, message);
        return;
    };
    let mut losses: Vec<_> = shrinks.open.iter().map(loss).collect();
    let more = losses.len().saturating_sub(4);
    if more > 0 {
        // The first loss is the one that has waited longest, the last one is the newest.
        losses.drain(2..losses.len() - 2);
        losses.insert(2, format!("{more} more"));
    }
    let message = format!(
        "{}. To acknowledge all of them, and to let the retention decide again: kubectl -n {} annotate bsched {} \
         {ACKNOWLEDGE_SHRINK}={} --overwrite",
        losses.join("; "),
        schedule.namespace().unwrap_or_default(),
        schedule.name_any(),
        last.backup
    );
    conditions.set(SHRUNK, Status::True, Reason::RowsLost, message);
}

/// An Event about a loss.
#[derive(Clone, Debug)]
pub(super) struct ShrinkEvent {
    pub(super) severity: Severity,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// What is new since the last status.
pub(super) fn events(previous: &BackupScheduleStatus, shrinks: &Shrinks) -> Vec<ShrinkEvent> {
    let is_new = |it: &&Shrink| !previous.shrinks.iter().any(|old| old.backup == it.backup);
    let lost = shrinks.open.iter().filter(is_new).map(|it| ShrinkEvent {
        severity: Severity::Warning,
        reason: event::BACKUP_SHRUNK,
        note: loss(it),
    });
    let is_over = |it: &&Shrink| !shrinks.open.iter().any(|open| open.backup == it.backup);
    let acknowledged = previous.shrinks.iter().filter(is_over).map(|it| ShrinkEvent {
        severity: Severity::Normal,
        reason: event::SHRINK_ACKNOWLEDGED,
        note: format!("{}: {} is not kept for it any more", it.backup, it.before),
    });
    lost.chain(acknowledged).collect()
}

/// One loss, and what is kept because of it.
pub(super) fn loss(shrink: &Shrink) -> String {
    let more = if shrink.tables > 1 { format!(" and {} more tables", shrink.tables - 1) } else { String::new() };
    let kept = if shrink.kept {
        format!("{} is kept", shrink.before)
    } else {
        format!("{} is not kept: {KEPT} backups are kept for unacknowledged losses already", shrink.before)
    };
    format!("{}: {}{more} ({kept})", shrink.backup, shrink.worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, schedule, succeeded};
    use serde_json::{Value, json};

    fn scope() -> Scope<'static> {
        Scope {
            schedule_uid: "schedule-uid",
            database_uid: Some("database-uid"),
            partial_because: Vec::new(),
            now: "2026-11-30T00:00:00Z".parse().unwrap(),
        }
    }

    /// The backup of a day; `lost`: compared with the one of the day before.
    fn of(day: u32, lost: bool) -> DatabaseBackup {
        let time = format!("2026-10-{day:02}T02:15:00Z");
        let mut status = succeeded(&time);
        if lost {
            status["comparison"] = json!({"with": format!("b{}", day - 1), "shrunkTables": 1,
                "tables": [{"table": "public.users", "before": 1000, "after": 0, "dropped": true}]});
        }
        backup(&format!("b{day}"), &time, status)
    }

    fn next(schedule: &mut BackupSchedule, backups: &[DatabaseBackup]) -> Shrinks {
        let shrinks = read(schedule, backups, &scope());
        let status = schedule.status.get_or_insert_default();
        status.shrinks.clone_from(&shrinks.open);
        status.acknowledged_shrink_time = shrinks.acknowledged.map(Time);
        shrinks
    }

    fn kept(shrinks: &Shrinks) -> Vec<&str> {
        shrinks.open.iter().filter(|it| it.kept).map(|it| it.before.as_str()).collect()
    }

    fn acknowledge(schedule: &mut BackupSchedule, name: &str) {
        schedule.annotations_mut().insert(ACKNOWLEDGE_SHRINK.into(), name.into());
    }

    #[test]
    fn a_loss_stays_until_it_is_acknowledged() {
        let mut schedule = schedule(json!({}));
        assert_eq!(kept(&next(&mut schedule, &[of(1, false), of(2, true), of(3, false)])), ["b1"]);
        // The backup with the loss was removed; a second loss does not displace the first.
        assert_eq!(kept(&next(&mut schedule, &[of(1, false), of(3, false), of(4, true)])), ["b1", "b3"]);
        acknowledge(&mut schedule, "b9");
        assert_eq!(kept(&next(&mut schedule, &[of(4, true)])), ["b1", "b3"], "of another backup");
        acknowledge(&mut schedule, "b2");
        assert_eq!(kept(&next(&mut schedule, &[of(4, true)])), ["b3"], "only up to that one");
        acknowledge(&mut schedule, "b4");
        assert!(next(&mut schedule, &[of(4, true)]).open.is_empty());
        schedule.annotations_mut().clear();
        assert!(next(&mut schedule, &[of(2, true), of(4, true)]).open.is_empty(), "acknowledged for good");
        assert_eq!(kept(&next(&mut schedule, &[of(4, true), of(5, true)])), ["b4"]);
    }

    #[test]
    fn no_number_of_losses_fills_the_store_or_displaces_the_first() {
        let mut schedule = schedule(json!({}));
        let mut backups = Vec::new();
        for day in 2..30 {
            backups.push(of(day, true));
            let shrinks = next(&mut schedule, &backups);
            assert!(shrinks.keep("b1") && kept(&shrinks).len() <= KEPT, "{day}");
        }
        assert!(schedule.status.as_ref().unwrap().shrinks.last().is_some_and(|it| !it.kept));
    }

    #[test]
    fn the_condition_names_the_losses_and_the_way_out() {
        let mut schedule = schedule(json!({}));
        let condition = |schedule: &BackupSchedule, backups: &[DatabaseBackup]| {
            let shrinks = read(schedule, backups, &scope());
            let mut conditions = Conditions::new(&[], None, scope().now);
            report(schedule, &shrinks, backups.last(), &mut conditions);
            let condition = conditions.finish().remove(0);
            (condition.status, condition.reason, condition.message)
        };
        let text = |reported: &(String, String, String)| format!("{} {}", reported.0, reported.1);
        assert_eq!(text(&condition(&schedule, &[])), "Unknown NeverRan");
        assert_eq!(text(&condition(&schedule, &[of(1, false)])), "Unknown NotCompared");
        let mut same = of(1, false);
        same.status.as_mut().unwrap().comparison =
            serde_json::from_value::<Value>(json!({"with": "b0"})).and_then(serde_json::from_value).unwrap();
        assert_eq!(text(&condition(&schedule, &[same])), "False NoRowsLost");
        let lost = condition(&schedule, &[of(1, false), of(2, true)]);
        assert_eq!(text(&lost), "True RowsLost");
        for part in ["public.users with 1000 rows does not exist any more", "b1 is kept", "acknowledge-shrink=b2"] {
            assert!(lost.2.contains(part), "{}", lost.2);
        }
        acknowledge(&mut schedule, "b2");
        assert_eq!(text(&condition(&schedule, &[of(1, false), of(2, true)])), "False Acknowledged");
    }
}
