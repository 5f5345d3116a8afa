//! Which backups are kept, and why: grandfather-father-son with a minimum.
//!
//! Pure: no clock, no store. The newest backup of each of the last days, weeks and months *that have one* is kept, so a
//! schedule that did not run for a month does not lose its history the day it runs again.

use std::{collections::BTreeSet, fmt};

use jiff::{Timestamp, Zoned, civil::ISOWeekDate, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// One backup, as far as retention needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// Its name, unique among the records.
    pub name: String,
    /// When it was taken.
    pub time: Timestamp,
    /// Whether it was verified. Only these count; the others are neither kept for a rule nor stand in another's way.
    pub verified: bool,
    /// `spec.pinned`.
    pub pinned: bool,
    /// Whether guarded tables had far fewer rows in the next backup, and no user has acknowledged that.
    pub before_loss: bool,
}

/// How many backups are kept for which reason. A backup may serve several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicy {
    /// At least this many verified backups are kept, whatever the other rules decide.
    pub min_keep: u32,
    /// The newest so many.
    pub keep_last: u32,
    /// The newest of each of so many days.
    pub keep_daily: u32,
    /// The newest of each of so many weeks, which begin on Monday.
    pub keep_weekly: u32,
    /// The newest of each of so many months.
    pub keep_monthly: u32,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self { min_keep: 3, keep_last: 3, keep_daily: 7, keep_weekly: 4, keep_monthly: 12 }
    }
}

/// Why a backup is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeptBecause {
    /// `spec.pinned` is set.
    Pinned,
    /// Guarded tables had far fewer rows in the next backup, and no user has acknowledged that.
    BeforeLoss,
    /// It is among the newest.
    Last,
    /// It is the newest of its day.
    Daily,
    /// It is the newest of its week.
    Weekly,
    /// It is the newest of its month.
    Monthly,
    /// Without it there would be fewer than the floor.
    Minimum,
    /// It is not verified, and newer than every verified one: it may still be needed to find the cause.
    NewestUnverified,
}

impl KeptBecause {
    /// The reason as it is written in a `DatabaseBackup`'s status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "Pinned",
            Self::BeforeLoss => "BeforeLoss",
            Self::Last => "Last",
            Self::Daily => "Daily",
            Self::Weekly => "Weekly",
            Self::Monthly => "Monthly",
            Self::Minimum => "Minimum",
            Self::NewestUnverified => "NewestUnverified",
        }
    }
}

impl fmt::Display for KeptBecause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The decision over one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The record's name.
    pub name: String,
    /// Why it is kept; empty means that it is removed.
    pub kept_because: Vec<KeptBecause>,
}

impl Decision {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        !self.kept_because.is_empty()
    }
}

/// Decides over all backups of one schedule, in the order they were given.
///
/// Days, weeks and months are those of `timezone`. Backups of the same time are ordered by name. Pinned backups and
/// those before a loss stay, and serve the rules too when they are verified.
pub fn decide(backups: &[BackupRecord], policy: &RetentionPolicy, timezone: &TimeZone) -> Vec<Decision> {
    let mut newest_first: Vec<usize> = (0..backups.len()).collect();
    newest_first.sort_by(|&a, &b| (backups[b].time, &backups[b].name).cmp(&(backups[a].time, &backups[a].name)));
    let verified: Vec<usize> = newest_first.iter().copied().filter(|&index| backups[index].verified).collect();
    let mut reasons: Vec<BTreeSet<KeptBecause>> = vec![BTreeSet::new(); backups.len()];

    for (index, backup) in backups.iter().enumerate() {
        if backup.pinned {
            reasons[index].insert(KeptBecause::Pinned);
        }
        if backup.before_loss {
            reasons[index].insert(KeptBecause::BeforeLoss);
        }
    }
    for &index in verified.iter().take(count(policy.keep_last)) {
        reasons[index].insert(KeptBecause::Last);
    }
    let local = |index: usize| backups[index].time.to_zoned(timezone.clone());
    for index in newest_of_each(&verified, policy.keep_daily, |index| local(index).date()) {
        reasons[index].insert(KeptBecause::Daily);
    }
    for index in newest_of_each(&verified, policy.keep_weekly, |index| week(&local(index))) {
        reasons[index].insert(KeptBecause::Weekly);
    }
    for index in newest_of_each(&verified, policy.keep_monthly, |index| local(index).date().first_of_month()) {
        reasons[index].insert(KeptBecause::Monthly);
    }
    for &index in verified.iter().take(count(policy.min_keep)) {
        // The floor is only named where nothing else keeps the backup.
        if reasons[index].is_empty() {
            reasons[index].insert(KeptBecause::Minimum);
        }
    }
    for &index in newest_first.iter().take_while(|&&index| !backups[index].verified) {
        reasons[index].insert(KeptBecause::NewestUnverified);
    }
    backups
        .iter()
        .zip(reasons)
        .map(|(backup, reasons)| Decision { name: backup.name.clone(), kept_because: reasons.into_iter().collect() })
        .collect()
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn week(time: &Zoned) -> (i16, i8) {
    let week: ISOWeekDate = time.date().iso_week_date();
    (week.year(), week.week())
}

/// The first of each period in `newest_first`, for at most `periods` periods.
fn newest_of_each<P: PartialEq>(newest_first: &[usize], periods: u32, period: impl Fn(usize) -> P) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut last = None;
    for &index in newest_first {
        if kept.len() == count(periods) {
            break;
        }
        let this = period(index);
        if last.as_ref() != Some(&this) {
            kept.push(index);
            last = Some(this);
        }
    }
    kept
}
