//! Retention against a definition so plain that it is slow.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use pgrail_dump::retention::{BackupRecord, Decision, KeptBecause, RetentionPolicy, decide};
use proptest::prelude::*;

/// Why a backup is kept, by the words of the rules: for every backup and every rule, look at all others.
fn oracle(backups: &[BackupRecord], policy: &RetentionPolicy, timezone: &TimeZone) -> Vec<Decision> {
    let newer = |a: &BackupRecord, b: &BackupRecord| (a.time, &a.name) > (b.time, &b.name);
    let date = |backup: &BackupRecord| backup.time.to_zoned(timezone.clone()).date();
    let day = |backup: &BackupRecord| date(backup).to_string();
    let month = |backup: &BackupRecord| date(backup).strftime("%Y-%m").to_string();
    let week = |backup: &BackupRecord| {
        // The Monday it begins on.
        let date = date(backup);
        date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).unwrap().to_string()
    };
    let verified: Vec<_> = backups.iter().filter(|backup| backup.verified).collect();
    let kept_for = |backup: &BackupRecord, period: &dyn Fn(&BackupRecord) -> String, periods: u32| {
        let newest_of_its_period =
            verified.iter().all(|other| period(other) != period(backup) || !newer(other, backup));
        let newer_periods: BTreeSet<_> = verified
            .iter()
            .filter(|other| newer(other, backup) && period(other) != period(backup))
            .map(|other| period(other))
            .collect();
        newest_of_its_period && newer_periods.len() < periods as usize
    };
    backups
        .iter()
        .map(|backup| {
            let mut reasons = BTreeSet::new();
            if backup.pinned {
                reasons.insert(KeptBecause::Pinned);
            }
            if backup.before_loss {
                reasons.insert(KeptBecause::BeforeLoss);
            }
            let newer_verified = verified.iter().filter(|other| newer(other, backup)).count();
            if backup.verified {
                if newer_verified < policy.keep_last as usize {
                    reasons.insert(KeptBecause::Last);
                }
                if kept_for(backup, &day, policy.keep_daily) {
                    reasons.insert(KeptBecause::Daily);
                }
                if kept_for(backup, &week, policy.keep_weekly) {
                    reasons.insert(KeptBecause::Weekly);
                }
                if kept_for(backup, &month, policy.keep_monthly) {
                    reasons.insert(KeptBecause::Monthly);
                }
                if reasons.is_empty() && newer_verified < policy.min_keep as usize {
                    reasons.insert(KeptBecause::Minimum);
                }
            } else if newer_verified == 0 {
                reasons.insert(KeptBecause::NewestUnverified);
            }
            Decision { name: backup.name.clone(), kept_because: reasons.into_iter().collect() }
        })
        .collect()
}

fn backups() -> impl Strategy<Value = Vec<BackupRecord>> {
    // About two years, times on a grid of 4 hours so that some are equal and days are shared.
    let rarely = || prop::bool::weighted(0.05);
    let one = (0_i64..4400, prop::bool::weighted(0.8), rarely(), rarely());
    prop::collection::vec(one, 0..40).prop_map(|list| {
        list.into_iter()
            .enumerate()
            .map(|(index, (step, verified, pinned, before_loss))| BackupRecord {
                name: format!("backup-{index}"),
                time: Timestamp::from_second(1_700_000_000 + step * 4 * 3600).unwrap(),
                verified,
                pinned,
                before_loss,
            })
            .collect()
    })
}

fn policies() -> impl Strategy<Value = RetentionPolicy> {
    (0_u32..5, 0_u32..5, 0_u32..9, 0_u32..6, 0_u32..14).prop_map(
        |(min_keep, keep_last, keep_daily, keep_weekly, keep_monthly)| RetentionPolicy {
            min_keep,
            keep_last,
            keep_daily,
            keep_weekly,
            keep_monthly,
        },
    )
}

fn zones() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(vec!["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/Los_Angeles"])
        .prop_map(|name| TimeZone::get(name).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn decisions_are_those_of_the_rules(backups in backups(), policy in policies(), zone in zones()) {
        prop_assert_eq!(decide(&backups, &policy, &zone), oracle(&backups, &policy, &zone));
    }

    #[test]
    fn the_floor_holds_and_pinned_ones_stay(backups in backups(), policy in policies(), zone in zones()) {
        let decisions = decide(&backups, &policy, &zone);
        let verified = backups.iter().filter(|backup| backup.verified).count();
        let kept = backups.iter().zip(&decisions).filter(|(backup, decision)| backup.verified && decision.is_kept()).count();
        prop_assert!(kept >= verified.min(policy.min_keep as usize));
        for (backup, decision) in backups.iter().zip(&decisions) {
            prop_assert!(decision.is_kept() || !(backup.pinned || backup.before_loss));
        }
        // The newest verified one stays under any policy that keeps anything.
        let newest = backups.iter().zip(&decisions).filter(|(backup, _)| backup.verified).max_by_key(|(backup, _)| (backup.time, backup.name.clone()));
        if let Some((_, decision)) = newest {
            let sum = policy.min_keep + policy.keep_last + policy.keep_daily + policy.keep_weekly + policy.keep_monthly;
            prop_assert!(decision.is_kept() || sum == 0);
        }
    }

    #[test]
    fn failures_never_push_out_a_verified_one(backups in backups(), policy in policies(), zone in zones(), failures in backups()) {
        let before = decide(&backups, &policy, &zone);
        let mut with_failures = backups.clone();
        with_failures.extend(failures.into_iter().map(|failed| BackupRecord { name: format!("failed-{}", failed.name), verified: false, ..failed }));
        let after = decide(&with_failures, &policy, &zone);
        for (backup, (before, after)) in backups.iter().zip(before.iter().zip(&after)) {
            if backup.verified {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn what_is_kept_for_a_loss_takes_nothing_from_others(backups in backups(), policy in policies(), zone in zones()) {
        let without: Vec<_> = backups.iter().map(|backup| BackupRecord { before_loss: false, ..backup.clone() }).collect();
        let after = decide(&backups, &policy, &zone);
        for (before, after) in decide(&without, &policy, &zone).iter().zip(&after) {
            // The floor is only named where nothing else keeps a backup.
            let of_rules = |decision: &Decision| {
                let other = |why: &&KeptBecause| !matches!(why, KeptBecause::BeforeLoss | KeptBecause::Minimum);
                decision.kept_because.iter().filter(other).copied().collect::<Vec<_>>()
            };
            prop_assert_eq!(of_rules(before), of_rules(after));
            prop_assert!(after.is_kept() || !before.is_kept());
        }
    }

    #[test]
    fn deciding_again_over_what_was_kept_removes_nothing_more(backups in backups(), policy in policies(), zone in zones()) {
        let first = decide(&backups, &policy, &zone);
        let kept: Vec<_> =
            backups.into_iter().zip(first).filter(|(_, decision)| decision.is_kept()).map(|(backup, _)| backup).collect();
        prop_assert!(decide(&kept, &policy, &zone).iter().all(Decision::is_kept));
    }
}

#[test]
fn a_month_of_silence_loses_no_history() {
    let at = |text: &str, index: usize| BackupRecord {
        name: format!("backup-{index}"),
        time: text.parse().unwrap(),
        verified: true,
        pinned: false,
        before_loss: false,
    };
    let backups: Vec<_> =
        ["2026-10-01T02:15:00Z", "2026-10-02T02:15:00Z", "2026-10-03T02:15:00Z", "2026-11-23T02:15:00Z"]
            .iter()
            .enumerate()
            .map(|(index, text)| at(text, index))
            .collect();
    let policy = RetentionPolicy { min_keep: 0, keep_last: 1, keep_daily: 4, keep_weekly: 0, keep_monthly: 2 };
    let decisions = decide(&backups, &policy, &TimeZone::UTC);
    assert!(decisions.iter().all(Decision::is_kept));
    assert_eq!(decisions[2].kept_because, [KeptBecause::Daily, KeptBecause::Monthly]);
    assert_eq!(decisions[3].kept_because, [KeptBecause::Last, KeptBecause::Daily, KeptBecause::Monthly]);
}
