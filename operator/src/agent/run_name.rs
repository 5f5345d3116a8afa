//! The name and the time of a run of a schedule.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Where the name of a run's `DatabaseBackup` comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RunName {
    /// The `DatabaseBackup` that the Job was created for.
    #[serde(rename = "backupName")]
    Backup(String),
    /// The CronJob: its Jobs' names contain the time that they were scheduled for.
    #[serde(rename = "cronJob")]
    CronJob(String),
}

impl RunName {
    /// `<schedule>-YYYYMMDD-HHMMSS` (UTC) for a Job of the CronJob controller; the Job's own name for one that was created
    /// from the CronJob by hand.
    pub(crate) fn backup_name(&self, schedule: &str, job: &str) -> String {
        match self {
            Self::Backup(name) => name.clone(),
            Self::CronJob(_) => self.time(job).map_or_else(|| job.to_owned(), |time| run_name(schedule, time)),
        }
    }

    /// The time that a Job of the CronJob controller was scheduled for. Its name ends with the minutes since 1970.
    pub(crate) fn time(&self, job: &str) -> Option<Timestamp> {
        let Self::CronJob(cron_job) = self else { return None };
        let minutes: i64 = job.strip_prefix(cron_job.as_str())?.strip_prefix('-')?.parse().ok()?;
        // Anything below is a number in a name, not minutes since 1970.
        (minutes > 10_000_000).then(|| Timestamp::from_second(minutes.checked_mul(60)?).ok()).flatten()
    }
}

/// The name of the `DatabaseBackup` of a schedule's run at a time.
pub(crate) fn run_name(schedule: &str, time: Timestamp) -> String {
    format!("{schedule}-{}", time.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S"))
}

/// How the run ids of a pod's dumps start.
pub(crate) fn run_id_prefix(pod_uid: &str) -> String {
    pod_uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_run_follows_from_its_job() {
        let run = RunName::CronJob("shop-dump".into());
        assert_eq!(run.backup_name("shop", "shop-dump-29858535"), "shop-20261009-021500");
        assert_eq!(run.time("shop-dump-29858535"), Some("2026-10-09T02:15:00Z".parse().unwrap()));
        for by_hand in ["my-try", "shop-dump-x", "shop-dump-7", "shop-dump-99999999999999999", "shop-29858535"] {
            assert_eq!(run.backup_name("shop", by_hand), by_hand);
        }
        assert_eq!(RunName::Backup("b".into()).backup_name("shop", "shop-dump-29858535"), "b");
    }
}
