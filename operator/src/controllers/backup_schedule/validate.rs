//! From what a schedule declares to what later steps read. Pure.

use super::cron::{Schedule, ScheduleError};
use crate::backup_jobs::order::Order;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::conditions::reasons::backup as reasons;
use pgrail_crds::{BackupSchedule, ProtectedDatabase};

/// A backup counts as late after so many of the schedule's largest gaps, where no `maxAge` is declared.
const GAPS: i32 = 2;

/// A schedule that can be carried out.
#[derive(Clone, Debug)]
pub(super) struct Validated {
    /// When it fires.
    pub(super) schedule: Schedule,
    /// What its pods do.
    pub(super) order: Order,
    /// The largest gap between two runs.
    pub(super) interval: SignedDuration,
    /// Why nothing runs, if nothing does.
    pub(super) suspended: Option<&'static str>,
}

/// Why a schedule cannot be carried out: for its user to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The condition's reason.
    pub(super) reason: &'static str,
    /// What is wrong and what mends it.
    pub(super) message: String,
}

impl From<ScheduleError> for Refusal {
    fn from(error: ScheduleError) -> Self {
        let (reason, field) = match error {
            ScheduleError::TimeZone(_) => (reasons::INVALID_TIME_ZONE, "spec.timeZone"),
            _ => (reasons::INVALID_SCHEDULE, "spec.schedule"),
        };
        Self { reason, message: format!("{field}: {error}") }
    }
}

/// Reads when a schedule fires.
pub(super) fn schedule(schedule: &BackupSchedule, now: Timestamp) -> Result<Schedule, Refusal> {
    let seed = format!("{}/{}", schedule.namespace().unwrap_or_default(), schedule.name_any());
    Ok(Schedule::parse(&schedule.spec.schedule, &schedule.spec.time_zone, &seed, now)?)
}

/// Puts together what was found to be sound.
pub(super) fn validated(
    declared: &BackupSchedule,
    schedule: Schedule,
    order: Order,
    database: &ProtectedDatabase,
    now: Timestamp,
) -> Validated {
    let suspended = if declared.spec.suspend {
        Some("spec.suspend is true")
    } else if database.spec.suspend {
        Some("its ProtectedDatabase is suspended")
    } else {
        None
    };
    let interval = schedule.largest_gap(now);
    Validated { schedule, order, interval, suspended }
}

/// How old the newest verified backup may be: as declared, or by the schedule's largest gap.
pub(super) fn max_age(declared: &BackupSchedule, interval: Option<SignedDuration>) -> Option<SignedDuration> {
    let of_spec = declared.spec.max_age.and_then(|age| SignedDuration::try_from(std::time::Duration::from(age)).ok());
    of_spec.or_else(|| Some(interval?.saturating_mul(GAPS)))
}

#[cfg(test)]
pub(super) fn example(patch: serde_json::Value) -> (BackupSchedule, Validated) {
    use crate::backup_jobs::examples;
    let declared = examples::schedule(patch);
    let database = examples::database();
    let now = "2026-11-23T00:00:00Z".parse().unwrap();
    let order = crate::backup_jobs::order::of_schedule(&declared, &database, "cluster").unwrap();
    let validated = validated(&declared, schedule(&declared, now).unwrap(), order, &database, now);
    (declared, validated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_age_is_twice_the_largest_gap() {
        let age = |patch| {
            let (declared, validated) = example(patch);
            max_age(&declared, Some(validated.interval)).unwrap().as_hours()
        };
        assert_eq!(age(json!({})), 48);
        assert_eq!(age(json!({"schedule": "0 3 * * 1-5"})), 144);
        assert_eq!(age(json!({"maxAge": "26h"})), 26);
        let (declared, _) = example(json!({}));
        assert_eq!(max_age(&declared, None), None);
    }

    #[test]
    fn refusals_name_the_field() {
        let now = "2026-11-23T00:00:00Z".parse().unwrap();
        let refused = |patch| schedule(&crate::backup_jobs::examples::schedule(patch), now).unwrap_err();
        let cron = refused(json!({"schedule": "every night"}));
        assert_eq!(cron.reason, "InvalidSchedule");
        assert!(cron.message.starts_with("spec.schedule: "), "{}", cron.message);
        let zone = refused(json!({"timeZone": "Europe/Atlantis"}));
        assert_eq!(zone.reason, "InvalidTimeZone");
        assert!(zone.message.starts_with("spec.timeZone: "), "{}", zone.message);
    }
}
