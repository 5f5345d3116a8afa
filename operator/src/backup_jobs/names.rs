//! Names and labels of the Jobs and CronJobs of backups, and the names that follow from theirs. Pure.

use crate::agent::run_name::RunName;
use jiff::Timestamp;
use pgrail_crds::DatabaseBackup;
use pgrail_crds::annotations::{DATABASE_LABEL, MANAGED_BY, SCHEDULE_LABEL, TASK_LABEL};
use pgrail_dump::StoreUrl;
use std::collections::BTreeMap;

/// The longest value of a label, in bytes.
const LONGEST_LABEL: usize = 63;
/// The longest name of a Job: its pods add six characters, and carry it as a label.
const LONGEST_JOB: usize = 57;

/// What a Job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Makes a dump and verifies it.
    Dump,
    /// Restores a backup into a temporary server.
    Drill,
    /// Compares the store with the backups.
    Inventory,
    /// Removes dumps.
    Prune,
    Restore,
}

impl Task {
    /// As label value, and as suffix of the Job's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Drill => "drill",
            Self::Inventory => "inventory",
            Self::Prune => "prune",
            Self::Restore => "restore",
        }
    }
}

pub(crate) fn job_name(backup: &str, task: Task) -> String {
    // The pod's host name would be cut at a dot.
    let name = bounded(&backup.replace('.', "-"), LONGEST_JOB - 8);
    format!("{name}-{}", task.as_str())
}

/// The name of a schedule's CronJob: with the eleven characters that Jobs add and the six of their pods at most 63.
pub(crate) fn cron_job_name(schedule: &str) -> String {
    format!("{schedule}-dump")
}

/// The name of the CronJob of a schedule's drills.
pub(crate) fn drill_cron_job_name(schedule: &str) -> String {
    format!("{schedule}-drill")
}

/// The name of the `DatabaseBackup` of a Job of a schedule's CronJob.
pub(crate) fn backup_name(schedule: &str, job: &str) -> String {
    RunName::CronJob(cron_job_name(schedule)).backup_name(schedule, job)
}

/// The time that a Job of a schedule's CronJob was scheduled for, from its name.
pub(crate) fn scheduled_time(schedule: &str, job: &str) -> Option<Timestamp> {
    RunName::CronJob(cron_job_name(schedule)).time(job)
}

/// The Job that removes the backups that retention does not keep.
pub(crate) fn prune_job_name(schedule: &str) -> String {
    format!("{schedule}-retention")
}

/// The Job that compares the store with the backups.
pub(crate) fn inventory_job_name(schedule: &str) -> String {
    format!("{schedule}-inventory")
}

/// Labels of everything that is made for backups of a database.
pub(crate) fn labels(task: Task, schedule: Option<&str>, database: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "pgrail".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "backup".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned()),
        (TASK_LABEL.to_owned(), task.as_str().to_owned()),
        (DATABASE_LABEL.to_owned(), bounded(database, LONGEST_LABEL)),
    ]);
    if let Some(schedule) = schedule {
        labels.insert(SCHEDULE_LABEL.to_owned(), bounded(schedule, LONGEST_LABEL));
    }
    labels
}

/// Creation time of an object; the epoch for one that was never stored.
pub(crate) fn created(object: &impl kube::ResourceExt) -> Timestamp {
    object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// A text of at most `longest` bytes: a longer one is cut, and a hash distinguishes it from others.
pub(crate) fn bounded(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mark = fingerprint(text);
    let head: String = text.chars().take(longest - mark.len() - 1).collect();
    format!("{}-{mark}", head.trim_end_matches(['-', '.', '_']))
}

/// FNV-1a, 32 bits: stable over releases.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// The directory of a backup's dump below a store's prefix, if it is there.
pub(crate) fn location_in(store: &StoreUrl, backup: &DatabaseBackup) -> Option<String> {
    let location = backup.status.as_ref()?.location.as_deref()?;
    location.strip_prefix(&store.join("")).filter(|rest| !rest.is_empty()).map(str::to_owned)
}

/// Whether a location is a directory right below another.
pub(crate) fn is_below(location: &str, directory: &str) -> bool {
    let run = location.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/'));
    run.is_some_and(|run| !run.is_empty() && !run.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::backup;
    use serde_json::json;

    #[test]
    fn names_of_the_longest_schedule_fit() {
        let longest = "s".repeat(40);
        assert!(format!("{}-29858535-abcde", cron_job_name(&longest)).len() <= 63);
        assert!(crate::agent::run_name::run_name(&longest, Timestamp::UNIX_EPOCH).len() <= 63);
    }

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(job_name("before-friday", Task::Dump), "before-friday-dump");
        assert_eq!(job_name("v1.2", Task::Prune), "v1-2-prune");
        let (one, other) = (format!("{}-a", "x".repeat(250)), format!("{}-b", "x".repeat(250)));
        let (one, other) = (job_name(&one, Task::Dump), job_name(&other, Task::Dump));
        assert!(one.len() <= LONGEST_JOB && one != other, "{one} {other}");
        assert_eq!(labels(Task::Dump, Some("nightly"), &"d".repeat(253))[DATABASE_LABEL].len(), 63);
    }

    #[test]
    fn a_location_in_another_store_is_not_ours_to_remove() {
        let backup = backup("b", "2026-11-23T02:15:00Z", json!({"location": "s3://backups/shop/c/shop/nightly/x"}));
        let at = |url: &str| location_in(&StoreUrl::parse(url).unwrap(), &backup);
        assert_eq!(at("s3://backups/shop").as_deref(), Some("c/shop/nightly/x"));
        assert_eq!(at("s3://backups/sho"), None);
        assert_eq!(at("s3://other/shop"), None);
    }
}
