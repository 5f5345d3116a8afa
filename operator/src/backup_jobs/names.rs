//! Names and labels of what the operator makes for backups. Pure.

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
    /// Removes dumps.
    Prune,
}

impl Task {
    /// Value of the label, and the end of the Job's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Prune => "prune",
        }
    }
}

/// The Job that makes, or removes, one backup.
pub(crate) fn job_name(backup: &str, task: Task) -> String {
    // A dot would make a host name of the pod's that is cut at it.
    let name = bounded(&backup.replace('.', "-"), LONGEST_JOB - 6);
    format!("{name}-{}", task.as_str())
}

/// The Job that removes what retention lets go of a schedule.
pub(crate) fn prune_job_name(schedule: &str) -> String {
    format!("{schedule}-retention")
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

/// A text that fits, told apart from its likes by a hash where it had to be cut.
pub(crate) fn bounded(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mark = fingerprint(text);
    let head: String = text.chars().take(longest - mark.len() - 1).collect();
    format!("{}-{mark}", head.trim_end_matches(['-', '.', '_']))
}

/// A short mark of a text (FNV-1a, 32 bits): the same for every version of everything.
pub(crate) fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// The directory of a backup's dump below a store's prefix, if it is there.
pub(crate) fn location_in(store: &StoreUrl, backup: &DatabaseBackup) -> Option<String> {
    let location = backup.status.as_ref()?.location.as_deref()?;
    location.strip_prefix(&store.join("")).filter(|rest| !rest.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::backup;
    use serde_json::json;

    #[test]
    fn names_fit_and_stay_apart() {
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
