//! From a schedule to what the later steps read. Pure.

use super::cron::{Schedule, ScheduleError};
use super::dereference::References;
use super::drill::declared::{DrillPlan, validate as validate_drill};
use super::lost_cluster;
use crate::backup_jobs::error::JobSpecError;
use crate::backup_jobs::job_spec::{self, JobSpec};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::BackupSchedule;

/// The default of `maxAge`, in largest gaps between two runs.
const GAPS: i32 = 2;

#[derive(Clone, Debug)]
pub(super) struct Validated {
    pub(super) schedule: Schedule,
    pub(super) job: JobSpec,
    /// The largest gap between two runs.
    pub(super) interval: SignedDuration,
    /// Why no runs are started, if none are.
    pub(super) suspended: Option<&'static str>,
    /// The drills, if they are declared.
    pub(super) drill: Option<Result<DrillPlan, Rejection>>,
    /// The lost cluster whose dumps are recorded, if one is declared.
    pub(super) lost_cluster: Option<Result<String, Rejection>>,
}

impl Validated {
    /// The lost cluster whose dumps are recorded.
    pub(super) fn adopts(&self) -> Option<&str> {
        self.lost_cluster.as_ref()?.as_deref().ok()
    }
}

/// Why a schedule cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValidateError {
    #[error("{}: {_0}", if matches!(_0, ScheduleError::TimeZone(_)) { "spec.timeZone" } else { "spec.schedule" })]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Job(#[from] JobSpecError),
}

impl ValidateError {
    pub(super) fn rejection(&self) -> Rejection {
        match self {
            Self::Schedule(ScheduleError::TimeZone(_)) => Rejection::new(Reason::InvalidTimeZone, self.to_string()),
            Self::Schedule(_) => Rejection::new(Reason::InvalidSchedule, self.to_string()),
            Self::Job(error) => error.rejection(),
        }
    }
}

pub(super) fn validate(
    declared: &BackupSchedule,
    references: References,
    cluster_id: &str,
    now: Timestamp,
) -> Result<Validated, ValidateError> {
    let References { database, secrets } = references;
    let seed = format!("{}/{}", declared.namespace().unwrap_or_default(), declared.name_any());
    let schedule = Schedule::parse(&declared.spec.schedule, &declared.spec.time_zone, &seed, now)?;
    let job = job_spec::of_schedule(declared, &database, secrets, cluster_id)?;
    let suspended = if declared.spec.suspend {
        Some("spec.suspend is true")
    } else if database.spec.suspend {
        Some("its ProtectedDatabase is suspended")
    } else {
        None
    };
    let interval = schedule.largest_gap(now);
    let drill = validate_drill(declared, &seed, now);
    let lost_cluster = lost_cluster::declared(declared, cluster_id);
    Ok(Validated { schedule, job, interval, suspended, drill, lost_cluster })
}

/// The longest age of the newest verified backup: as declared, or by the schedule's largest gap.
pub(super) fn max_age(declared: &BackupSchedule, interval: Option<SignedDuration>) -> Option<SignedDuration> {
    let of_spec = declared.spec.max_age.and_then(|age| SignedDuration::try_from(std::time::Duration::from(age)).ok());
    of_spec.or_else(|| Some(interval?.saturating_mul(GAPS)))
}

#[cfg(test)]
pub(super) fn example(patch: serde_json::Value) -> (BackupSchedule, Validated) {
    let declared = crate::backup_jobs::examples::schedule(patch);
    let validated = validate(&declared, tests::references(), "cluster", tests::now()).unwrap();
    (declared, validated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::dereference::Secrets;
    use crate::backup_jobs::examples;
    use serde_json::json;

    pub(super) fn references() -> References {
        References { database: examples::database(), secrets: Secrets::default() }
    }

    pub(super) fn now() -> Timestamp {
        "2026-11-23T00:00:00Z".parse().unwrap()
    }

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
    fn rejections_name_the_field() {
        let rejected =
            |patch| validate(&examples::schedule(patch), references(), "cluster", now()).unwrap_err().rejection();
        for (patch, reason, field) in [
            (json!({"schedule": "every night"}), Reason::InvalidSchedule, "spec.schedule: "),
            (json!({"timeZone": "Europe/Atlantis"}), Reason::InvalidTimeZone, "spec.timeZone: "),
        ] {
            let rejection = rejected(patch);
            assert_eq!(rejection.reason, reason);
            assert!(rejection.message.starts_with(field), "{}", rejection.message);
        }
    }
}
