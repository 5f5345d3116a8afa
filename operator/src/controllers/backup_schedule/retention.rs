//! Which `DatabaseBackup`s of a schedule are kept, and why. Pure; the engine has the rules.

use super::history::Scope;
use super::shrink::Shrinks;
use crate::backup_jobs::names::{created, location_in};
use crate::backup_jobs::record::{is_missing, is_of_database, phase, schedule_uid, snapshot_time};
use jiff::tz::TimeZone;
use kube::ResourceExt;
use pgrail_crds::annotations::JOB;
use pgrail_crds::{BackupPhase, DatabaseBackup, Retention};
use pgrail_dump::StoreUrl;
use pgrail_dump::retention::{BackupRecord, Decision, RetentionPolicy, decide};
use std::cmp::Reverse;

/// Of an earlier schedule of the same name: never removed.
const EARLIER_SCHEDULE: &str = "EarlierSchedule";
/// Of another `ProtectedDatabase` that had the same name: never removed.
const OTHER_DATABASE: &str = "OtherDatabase";
/// In another store than the schedule's: never removed.
const OTHER_STORE: &str = "OtherStore";
/// Its dump is not in the store.
const MISSING: &str = "Missing";
/// Found in the store: only a user removes it.
const DISCOVERED: &str = "Discovered";
/// One of the newest failures: kept to find the cause.
const FAILURE_HISTORY: &str = "FailureHistory";

#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) store: &'a StoreUrl,
    pub(super) policy: &'a Retention,
    /// Losses of rows that are not acknowledged.
    pub(super) shrinks: &'a Shrinks,
    /// For days, weeks and months.
    pub(super) time_zone: &'a TimeZone,
    /// How many failures are kept.
    pub(super) failures: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    /// Name and reasons.
    pub(super) kept: Vec<(String, Vec<String>)>,
    /// Name, and location below the store's prefix.
    pub(super) removed: Vec<(String, String)>,
    /// Objects of failed runs, which have no dump, to delete.
    pub(super) forgotten: Vec<String>,
}

pub(super) fn decide_all(backups: &[DatabaseBackup], rules: &Rules<'_>) -> Decisions {
    let mut decisions = Decisions::default();
    let mut records = Vec::new();
    let mut failures = Vec::new();
    for backup in backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none()) {
        let is_ours = schedule_uid(backup).is_some_and(|uid| uid == rules.scope.schedule_uid);
        let is_of_database = rules.scope.database_uid.is_none_or(|uid| is_of_database(backup, uid));
        match phase(backup) {
            BackupPhase::Succeeded if !is_ours => keep(&mut decisions, backup, EARLIER_SCHEDULE),
            BackupPhase::Succeeded if !is_of_database => keep(&mut decisions, backup, OTHER_DATABASE),
            BackupPhase::Succeeded if location_in(rules.store, backup).is_none() => {
                keep(&mut decisions, backup, OTHER_STORE);
            }
            // Its object tells of the loss until a user deletes it.
            BackupPhase::Succeeded if is_missing(backup) => keep(&mut decisions, backup, MISSING),
            BackupPhase::Discovered => keep(&mut decisions, backup, DISCOVERED),
            BackupPhase::Succeeded => records.push(record(backup, rules)),
            BackupPhase::Failed => failures.push(backup),
            _ => {}
        }
    }
    for Decision { name, kept_because } in decide(&records, &policy(rules.policy), rules.time_zone) {
        let backup = backups.iter().find(|it| it.name_any() == name);
        if kept_because.is_empty() {
            decisions
                .removed
                .extend(backup.and_then(|it| location_in(rules.store, it)).map(|location| (name, location)));
        } else {
            decisions.kept.push((name, kept_because.into_iter().map(|why| why.as_str().to_owned()).collect()));
        }
    }
    decide_failures(failures, rules.failures, &mut decisions);
    decisions
}

fn keep(decisions: &mut Decisions, backup: &DatabaseBackup, why: &str) {
    let pinned = backup.spec.pinned.then(|| "Pinned".to_owned());
    decisions.kept.push((backup.name_any(), pinned.into_iter().chain([why.to_owned()]).collect()));
}

/// Only dumps that count may take the place of others. One of the future is not the newest.
fn record(backup: &DatabaseBackup, rules: &Rules<'_>) -> BackupRecord {
    let scope = rules.scope;
    BackupRecord {
        before_loss: rules.shrinks.keep(&backup.name_any()),
        name: backup.name_any(),
        time: snapshot_time(backup).min(scope.now),
        verified: scope.counted(backup).is_ok(),
        pinned: backup.spec.pinned,
    }
}

/// The newest failures are kept. Older ones are deleted, except backups that a user created.
fn decide_failures(mut failures: Vec<&DatabaseBackup>, kept: usize, decisions: &mut Decisions) {
    failures.sort_by_key(|it| Reverse((created(*it), it.name_any())));
    for (position, backup) in failures.into_iter().enumerate() {
        if position < kept || backup.spec.pinned {
            keep(decisions, backup, FAILURE_HISTORY);
        } else if backup.annotations().contains_key(JOB) {
            decisions.forgotten.push(backup.name_any());
        }
    }
}

fn policy(declared: &Retention) -> RetentionPolicy {
    let number = |value: i32| u32::try_from(value).unwrap_or(0);
    RetentionPolicy {
        // As in the schema: the last backup is never removed.
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
    use crate::controllers::backup_schedule::shrink;
    use pgrail_crds::annotations::SCHEDULE_UID;
    use serde_json::json;

    fn decided(backups: &[DatabaseBackup], policy: serde_json::Value) -> Decisions {
        let store = StoreUrl::parse("s3://backups/shop").unwrap();
        let policy: Retention = serde_json::from_value(policy).unwrap();
        let time_zone = TimeZone::UTC;
        let scope = Scope {
            schedule_uid: "schedule-uid",
            database_uid: Some("database-uid"),
            partial_because: Vec::new(),
            now: "2026-11-25T00:00:00Z".parse().unwrap(),
        };
        let shrinks = shrink::read(&crate::backup_jobs::examples::schedule(json!({})), backups, &scope);
        let rules = Rules {
            scope: &scope,
            store: &store,
            policy: &policy,
            shrinks: &shrinks,
            time_zone: &time_zone,
            failures: 2,
        };
        decide_all(backups, &rules)
    }

    fn last_only(keep: i32) -> serde_json::Value {
        json!({"minKeep": 1, "keepLast": keep, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0})
    }

    fn good(day: u32) -> DatabaseBackup {
        let time = format!("2026-11-{day:02}T02:15:00Z");
        backup(&format!("b{day}"), &time, succeeded(&time))
    }

    #[test]
    fn what_is_not_kept_is_removed_at_its_location() {
        let decisions = decided(&[good(20), good(21), good(22)], last_only(2));
        assert_eq!(decisions.removed, [("b20".into(), "cluster/shop/nightly/2026-11-20T02:15:00Z".into())]);
        assert_eq!(decisions.kept, [("b21".into(), vec!["Last".into()]), ("b22".into(), vec!["Last".into()])]);
        assert!(decided(&[good(20), good(21)], json!({})).removed.is_empty());
    }

    #[test]
    fn the_last_good_backup_is_kept_under_any_policy_and_any_number_of_failures() {
        let mut backups = vec![good(1)];
        backups
            .extend((2..20).map(|day| backup(&format!("f{day}"), &format!("2026-11-{day:02}T02:15:00Z"), failed("x"))));
        let nothing = json!({"minKeep": 1, "keepLast": 0, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0});
        let decisions = decided(&backups, nothing);
        assert!(decisions.removed.is_empty());
        assert!(decisions.kept.contains(&("b1".into(), vec!["Minimum".into()])));
    }

    #[test]
    fn the_backup_before_a_loss_is_kept() {
        let mut lost = good(2);
        lost.status.as_mut().unwrap().comparison =
            serde_json::from_value(json!({"with": "b1", "shrunkTables": 1})).unwrap();
        let decisions = decided(&[good(1), lost, good(20), good(21)], last_only(1));
        assert_eq!(decisions.removed.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["b2", "b20"]);
        assert!(decisions.kept.contains(&("b1".into(), vec!["BeforeLoss".into()])), "{decisions:?}");
    }

    #[test]
    fn pinned_foreign_and_moved_backups_are_kept() {
        let mut pinned = good(1);
        pinned.spec.pinned = true;
        let mut earlier = good(2);
        earlier.annotations_mut().insert(SCHEDULE_UID.into(), "another".into());
        let mut unmarked = good(3);
        unmarked.annotations_mut().clear();
        let mut moved = good(4);
        moved.status.as_mut().unwrap().location = Some("s3://elsewhere/x/cluster/shop/nightly/4".into());
        let mut other = good(5);
        other.status.as_mut().unwrap().database_uid = Some("another".into());
        let mut missing = good(6);
        missing.status.as_mut().unwrap().conditions =
            serde_json::from_value(json!([{"type": "Ready", "status": "False",
            "reason": "Missing", "message": "", "lastTransitionTime": "2026-11-06T02:15:00Z"}]))
            .unwrap();
        let mut found = good(7);
        found.status.as_mut().unwrap().phase = Some(BackupPhase::Discovered);
        let decisions =
            decided(&[pinned, earlier, unmarked, moved, other, missing, found, good(20), good(21)], last_only(1));
        assert_eq!(decisions.removed.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["b20"]);
        for (name, why) in [
            ("b1", "Pinned"),
            ("b2", EARLIER_SCHEDULE),
            ("b3", EARLIER_SCHEDULE),
            ("b4", OTHER_STORE),
            ("b5", OTHER_DATABASE),
            ("b6", MISSING),
            ("b7", DISCOVERED),
        ] {
            assert!(decisions.kept.contains(&(name.into(), vec![why.into()])), "{name}: {decisions:?}");
        }
    }

    #[test]
    fn old_failures_are_deleted_unless_a_user_created_them() {
        let mut by_hand = backup("hand", "2026-11-01T02:15:00Z", failed("x"));
        by_hand.annotations_mut().remove(JOB);
        let backups: Vec<_> = (2..6)
            .map(|day| backup(&format!("f{day}"), &format!("2026-11-{day:02}T02:15:00Z"), failed("x")))
            .chain([by_hand])
            .collect();
        let decisions = decided(&backups, json!({}));
        assert_eq!(decisions.forgotten, ["f3", "f2"]);
    }

    #[test]
    fn running_and_deleted_backups_are_not_decided() {
        let mut going = good(1);
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-23T02:15:00Z")).unwrap();
        let running = backup("r", "2026-11-22T02:15:00Z", json!({"phase": "Running"}));
        let decisions = decided(&[going, running, good(21)], last_only(1));
        assert_eq!(decisions, Decisions { kept: vec![("b21".into(), vec!["Last".into()])], ..Decisions::default() });
    }
}
