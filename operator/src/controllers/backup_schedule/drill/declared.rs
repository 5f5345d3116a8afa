//! The drills that a schedule declares. Pure.

use crate::agent::config::DrillQueryConfig;
use crate::backup_jobs::pod::DrillJob;
use crate::controllers::backup_schedule::cron::Schedule;
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::{SignedDuration, Timestamp};
use pgrail_crds::BackupSchedule;
use pgrail_restore::Expectation;

/// Declared drills that can be carried out.
#[derive(Clone, Debug)]
pub(in crate::controllers::backup_schedule) struct DrillPlan {
    pub(in crate::controllers::backup_schedule) schedule: Schedule,
    /// The largest gap between two drills.
    pub(in crate::controllers::backup_schedule) interval: SignedDuration,
    pub(in crate::controllers::backup_schedule) job: DrillJob,
    pub(in crate::controllers::backup_schedule) queries: Vec<DrillQueryConfig>,
}

/// A rejection does not keep backups from being made.
pub(in crate::controllers::backup_schedule) fn validate(
    declared: &BackupSchedule,
    seed: &str,
    now: Timestamp,
) -> Option<Result<DrillPlan, Rejection>> {
    let spec = &declared.spec;
    let drill = spec.verification.drill.as_ref()?;
    let schedule = match Schedule::parse(&drill.schedule, &spec.time_zone, &format!("{seed}/drill"), now) {
        Ok(schedule) => schedule,
        Err(error) => {
            let message = format!("spec.verification.drill.schedule: {error}");
            return Some(Err(Rejection::new(Reason::InvalidSchedule, message)));
        }
    };
    for (place, query) in drill.queries.iter().enumerate() {
        if let Err(error) = Expectation::parse(&query.expect) {
            let message = format!("spec.verification.drill.queries[{place}].expect: {error}");
            return Some(Err(Rejection::new(Reason::InvalidSpec, message)));
        }
    }
    let queries = drill.queries.iter().map(|query| DrillQueryConfig {
        name: query.name.clone(),
        sql: query.sql.clone(),
        expect: query.expect.clone(),
    });
    let job = DrillJob {
        scratch: spec.scratch.clone(),
        image: drill.image.clone(),
        encrypted: true,
        backoff_limit: spec.backoff_limit,
        active_deadline_seconds: spec.active_deadline_seconds,
    };
    let interval = schedule.largest_gap(now);
    Some(Ok(DrillPlan { schedule, interval, job, queries: queries.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::backup_schedule::validate::{Validated, example};
    use serde_json::{Value, json};

    fn declared(drill: Value) -> (BackupSchedule, Validated) {
        example(json!({"verification": {"drill": drill}}))
    }

    #[test]
    fn an_invalid_drill_is_reported_and_backups_go_on() {
        let (_, validated) = declared(json!({"schedule": "0 5 31 2 *"}));
        let rejection = validated.drill.unwrap().unwrap_err();
        assert!(rejection.message.starts_with("spec.verification.drill.schedule: "), "{}", rejection.message);
        let query = json!({"schedule": "0 5 * * 0", "queries": [{"name": "q", "sql": "SELECT 1", "expect": "> x"}]});
        let rejection = declared(query).1.drill.unwrap().unwrap_err();
        assert!(rejection.message.starts_with("spec.verification.drill.queries[0].expect: "), "{}", rejection.message);
    }
}
