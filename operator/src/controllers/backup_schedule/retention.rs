//! Which of a schedule's backups stay and why, over its `DatabaseBackup`s. Pure; the rules are the engine's.

use super::history::{is_verified, phase, snapshot_time};
use crate::backup_jobs::names::location_in;
use crate::backup_jobs::order::created;
use jiff::tz::TimeZone;
use kube::ResourceExt;
use pgrail_crds::annotations::{JOB, SCHEDULE_UID};
use pgrail_crds::{BackupPhase, DatabaseBackup, Retention};
use pgrail_dump::StoreUrl;
use pgrail_dump::retention::{BackupRecord, Decision, RetentionPolicy, decide};
use std::cmp::Reverse;

/// Made for an earlier schedule of the same name: nothing of it is removed.
const EARLIER_SCHEDULE: &str = "EarlierSchedule";
/// Kept in another store than the schedule's.
const OTHER_STORE: &str = "OtherStore";
/// One of the newest failures, for whoever looks into them.
const FAILURE_HISTORY: &str = "FailureHistory";

/// Whose backups they are, and by which rules they stay.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    /// UID of the schedule.
    pub(super) schedule_uid: &'a str,
    /// Where it keeps its dumps.
    pub(super) store: &'a StoreUrl,
    /// What it declares.
    pub(super) policy: &'a Retention,
    /// Whose days, weeks and months count.
    pub(super) time_zone: &'a TimeZone,
    /// Failures that are kept.
    pub(super) failures: usize,
}

/// What becomes of each backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Backups that stay, each with why.
    pub(super) kept: Vec<(String, Vec<String>)>,
    /// Dumps that go: name and location below the store's prefix.
    pub(super) removed: Vec<(String, String)>,
    /// Objects of failed runs that go: there is no dump to them.
    pub(super) forgotten: Vec<String>,
}

/// Decides over all backups of a schedule.
pub(super) fn judge(backups: &[DatabaseBackup], rules: &Rules<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut records = Vec::new();
    let mut failures = Vec::new();
    for backup in backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none()) {
        let is_ours = backup.annotations().get(SCHEDULE_UID).is_some_and(|uid| uid == rules.schedule_uid);
        match phase(backup) {
            BackupPhase::Succeeded if !is_ours => keep(&mut verdict, backup, EARLIER_SCHEDULE),
            BackupPhase::Succeeded if location_in(rules.store, backup).is_none() => {
                keep(&mut verdict, backup, OTHER_STORE);
            }
            BackupPhase::Succeeded => records.push(record(backup)),
            BackupPhase::Failed => failures.push(backup),
            _ => {}
        }
    }
    for Decision { name, kept_because } in decide(&records, &policy(rules.policy), rules.time_zone) {
        let backup = backups.iter().find(|it| it.name_any() == name);
        if kept_because.is_empty() {
            verdict.removed.extend(backup.and_then(|it| location_in(rules.store, it)).map(|location| (name, location)));
        } else {
            verdict.kept.push((name, kept_because.into_iter().map(|why| why.as_str().to_owned()).collect()));
        }
    }
    judge_failures(failures, rules.failures, &mut verdict);
    verdict
}

fn keep(verdict: &mut Verdict, backup: &DatabaseBackup, why: &str) {
    let pinned = backup.spec.pinned.then(|| "Pinned".to_owned());
    verdict.kept.push((backup.name_any(), pinned.into_iter().chain([why.to_owned()]).collect()));
}

fn record(backup: &DatabaseBackup) -> BackupRecord {
    BackupRecord {
        name: backup.name_any(),
        time: snapshot_time(backup),
        verified: is_verified(backup),
        pinned: backup.spec.pinned,
    }
}

/// The newest failures stay; of the others, those that somebody made by hand are his to delete.
fn judge_failures(mut failures: Vec<&DatabaseBackup>, kept: usize, verdict: &mut Verdict) {
    failures.sort_by_key(|it| Reverse((created(*it), it.name_any())));
    for (position, backup) in failures.into_iter().enumerate() {
        if position < kept || backup.spec.pinned {
            keep(verdict, backup, FAILURE_HISTORY);
        } else if backup.annotations().contains_key(JOB) {
            verdict.forgotten.push(backup.name_any());
        }
    }
}

fn policy(declared: &Retention) -> RetentionPolicy {
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    RetentionPolicy {
        // The schema has 1 as its least, and nothing else may take the last backup either.
        min_keep: number(declared.min_keep).max(1),
        keep_last: number(declared.keep_last),
        keep_daily: number(declared.keep_daily),
        keep_weekly: number(declared.keep_weekly),
        keep_monthly: number(declared.keep_monthly),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, failed, succeeded};
    use serde_json::json;

    fn judged(backups: &[DatabaseBackup], policy: serde_json::Value) -> Verdict {
        let store = StoreUrl::parse("s3://backups/shop").unwrap();
        let policy: Retention = serde_json::from_value(policy).unwrap();
        let time_zone = TimeZone::UTC;
        let rules =
            Rules { schedule_uid: "schedule-uid", store: &store, policy: &policy, time_zone: &time_zone, failures: 2 };
        judge(backups, &rules)
    }

    fn last_only(keep: i32) -> serde_json::Value {
        json!({"minKeep": 1, "keepLast": keep, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0})
    }

    fn good(day: u32) -> DatabaseBackup {
        let time = format!("2026-11-{day:02}T02:15:00Z");
        backup(&format!("b{day}"), &time, succeeded(&time))
    }

    #[test]
    fn what_is_not_kept_goes_with_its_location() {
        let verdict = judged(&[good(20), good(21), good(22)], last_only(2));
        assert_eq!(verdict.removed, [("b20".into(), "cluster/shop/nightly/2026-11-20T02:15:00Z".into())]);
        assert_eq!(verdict.kept, [("b21".into(), vec!["Last".into()]), ("b22".into(), vec!["Last".into()])]);
        assert!(judged(&[good(20), good(21)], json!({})).removed.is_empty());
    }

    #[test]
    fn the_last_good_backup_stays_whatever_is_declared_and_however_often_runs_fail() {
        let mut backups = vec![good(1)];
        backups
            .extend((2..20).map(|day| backup(&format!("f{day}"), &format!("2026-11-{day:02}T02:15:00Z"), failed("x"))));
        let nothing = json!({"minKeep": 1, "keepLast": 0, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0});
        let verdict = judged(&backups, nothing);
        assert!(verdict.removed.is_empty());
        assert!(verdict.kept.contains(&("b1".into(), vec!["Minimum".into()])));
    }

    #[test]
    fn pinned_foreign_and_moved_backups_stay() {
        let mut pinned = good(1);
        pinned.spec.pinned = true;
        let mut earlier = good(2);
        earlier.annotations_mut().insert(SCHEDULE_UID.into(), "another".into());
        let mut unmarked = good(3);
        unmarked.annotations_mut().clear();
        let mut moved = good(4);
        moved.status.as_mut().unwrap().location = Some("s3://elsewhere/x/cluster/shop/nightly/4".into());
        let verdict = judged(&[pinned, earlier, unmarked, moved, good(20), good(21)], last_only(1));
        assert_eq!(verdict.removed.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["b20"]);
        for (name, why) in [("b1", "Pinned"), ("b2", EARLIER_SCHEDULE), ("b3", EARLIER_SCHEDULE), ("b4", OTHER_STORE)] {
            assert!(verdict.kept.contains(&(name.into(), vec![why.into()])), "{name}: {verdict:?}");
        }
    }

    #[test]
    fn old_failures_are_forgotten_unless_somebody_made_them() {
        let mut by_hand = backup("hand", "2026-11-01T02:15:00Z", failed("x"));
        by_hand.annotations_mut().remove(JOB);
        let backups: Vec<_> = (2..6)
            .map(|day| backup(&format!("f{day}"), &format!("2026-11-{day:02}T02:15:00Z"), failed("x")))
            .chain([by_hand])
            .collect();
        let verdict = judged(&backups, json!({}));
        assert_eq!(verdict.forgotten, ["f3", "f2"]);
    }

    #[test]
    fn what_is_under_way_or_going_is_not_judged() {
        let mut going = good(1);
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-23T02:15:00Z")).unwrap();
        let running = backup("r", "2026-11-22T02:15:00Z", json!({"phase": "Running"}));
        let verdict = judged(&[going, running, good(21)], last_only(1));
        assert_eq!(verdict, Verdict { kept: vec![("b21".into(), vec!["Last".into()])], ..Verdict::default() });
    }
}
