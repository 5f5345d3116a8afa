//! The condition `Drilled`, and the Event of a result. Pure.

use super::cron_job::is_taken;
use crate::backup_jobs::names::{created, drill_cron_job_name};
use crate::controllers::backup_schedule::observe::{DrillState, Observed};
use crate::controllers::backup_schedule::validate::Validated;
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt;
use pgrail_crds::conditions::DRILLED;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{BackupSchedule, DrillOutcome, DrillReport};

/// After so many of the largest gaps between two drills, the last one is too old.
const GAPS: i32 = 2;
const NO_BACKUP: &str = "there is no verified backup that could be restored";

/// Reports the condition. Returns when it changes without any other change.
pub(in crate::controllers::backup_schedule) fn report(
    declared: &BackupSchedule,
    validated: Option<&Validated>,
    observed: &Observed,
    rejected: Option<&str>,
    last: Option<&DrillReport>,
    now: Timestamp,
    conditions: &mut Conditions,
) -> Option<Timestamp> {
    if declared.spec.verification.drill.is_none() {
        conditions.set(DRILLED, Status::Unknown, Reason::NotDeclared, "no drill is declared");
        return None;
    }
    let plan = match validated.and_then(|validated| validated.drill.as_ref()) {
        Some(Err(rejection)) => {
            conditions.set(DRILLED, Status::False, rejection.reason, &rejection.message);
            return None;
        }
        Some(Ok(plan)) => Some(plan),
        None => None,
    };
    if is_taken(declared, observed) {
        let message = format!(
            "a CronJob {:?} of another owner exists: delete it, or give the schedule another name",
            drill_cron_job_name(&declared.name_any())
        );
        conditions.set(DRILLED, Status::False, Reason::NameTaken, message);
        return None;
    }
    if let Some(message) = rejected {
        let message = format!("the apiserver rejects the CronJob of the drills: {message}");
        conditions.set(DRILLED, Status::False, Reason::InvalidSpec, message);
        return None;
    }
    let grace = SignedDuration::from_secs(declared.spec.starting_deadline_seconds);
    let deadline = match last {
        Some(last) => plan.map(|plan| last.time.0 + plan.interval.saturating_mul(GAPS) + grace),
        // Of the first drill: twice the time that the CronJob has to start it.
        None => plan.and_then(|plan| {
            let first = plan.schedule.next(observed.drill_cron_job.as_ref().map(created)?)?;
            Some(first + grace.saturating_mul(GAPS))
        }),
    };
    let is_late = deadline.is_some_and(|deadline| now > deadline);
    let running = match &observed.drill {
        Some(DrillState::Running) => " (another drill is running)",
        _ => "",
    };
    let Some(last) = last else {
        let (status, reason, message) = match &observed.drill {
            Some(DrillState::Running) => (Status::Unknown, Reason::Running, "the first drill is running".to_owned()),
            _ if observed.drill_cron_job.as_ref().is_none_or(is_suspended) => {
                let cause = validated.and_then(|validated| validated.suspended);
                let message =
                    cause.map_or_else(|| NO_BACKUP.to_owned(), |cause| format!("no drills are made: {cause}"));
                (Status::False, Reason::NotRun, message)
            }
            _ if is_late => (Status::False, Reason::Late, "the first drill is overdue: see its CronJob".to_owned()),
            _ => {
                let next = plan.and_then(|plan| plan.schedule.next(now));
                let next = next.map_or_else(String::new, |next| format!(": the first is at {next}"));
                (Status::Unknown, Reason::NeverRan, format!("no drill has run yet{next}"))
            }
        };
        conditions.set(DRILLED, status, reason, message);
        return deadline.filter(|_| !is_late);
    };
    let backup = last.backup.as_deref().unwrap_or("a backup");
    let (status, reason, message) = match last.outcome {
        DrillOutcome::Restored if is_late => {
            (Status::False, Reason::Late, format!("the last drill is of {}, and the next one is overdue", last.time.0))
        }
        DrillOutcome::Restored => (Status::True, Reason::AllRestored, restored(backup, last)),
        DrillOutcome::NotRun => {
            (Status::False, Reason::NotRun, format!("the drill of {backup} did not run: {}", last.message))
        }
        DrillOutcome::Failed => {
            let reason = Reason::named(&last.reason).unwrap_or(Reason::Failed);
            (Status::False, reason, format!("{backup}: {}", last.message))
        }
    };
    conditions.set(DRILLED, status, reason, format!("{message}{running}"));
    deadline.filter(|_| !is_late)
}

fn restored(backup: &str, last: &DrillReport) -> String {
    let (rows, tables) = (last.rows.unwrap_or_default(), last.tables.unwrap_or_default());
    let seconds = last.seconds.unwrap_or_default();
    let queries = match last.queries.len() {
        0 => String::new(),
        1 => ", and the query returned what is expected".to_owned(),
        _ => ", and the queries returned what is expected".to_owned(),
    };
    let notes = last.notes.iter().fold(String::new(), |text, note| text + "; " + note);
    format!("{rows} rows of {tables} tables of {backup} were restored in {seconds} s{queries}{notes}")
}

/// The Event of a result.
pub(in crate::controllers::backup_schedule) fn event(last: &DrillReport) -> (Severity, &'static str, String) {
    let backup = last.backup.as_deref().unwrap_or("a backup");
    match last.outcome {
        DrillOutcome::Restored => (Severity::Normal, event::DRILL_SUCCEEDED, restored(backup, last)),
        DrillOutcome::Failed => (Severity::Warning, event::DRILL_FAILED, format!("{backup}: {}", last.message)),
        DrillOutcome::NotRun => (Severity::Warning, event::DRILL_NOT_RUN, format!("{backup}: {}", last.message)),
    }
}

fn is_suspended(cron_job: &CronJob) -> bool {
    cron_job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::backup_schedule::drill::result::result;
    use crate::controllers::backup_schedule::validate::example;
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn declared(drill: Value) -> (BackupSchedule, Validated) {
        example(json!({"verification": {"drill": drill}}))
    }

    fn ended(exit_code: i32, message: &str) -> DrillReport {
        let job: Job = serde_json::from_value(json!({"metadata": {"name": "nightly-drill-1"}})).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [
            {"name": "drill", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": exit_code, "message": message}}}]}}))
        .unwrap();
        result(&job, "2026-11-22T05:00:00Z".parse().unwrap(), &[pod])
    }

    fn found(outcome: &str, reason: Value) -> String {
        json!({"kind": "drill", "outcome": outcome, "reason": reason, "message": "why", "location": "l", "tables": 2, "rows": 13,
               "time": "2026-11-22T05:00:00Z", "seconds": 7, "queries": [{"name": "q", "passed": true, "found": "1"}]})
        .to_string()
    }

    fn reported(last: Option<&DrillReport>, now: &str, observed: &Observed) -> (String, String, String) {
        let (schedule, validated) = declared(json!({"schedule": "0 5 * * 0"}));
        let mut conditions = Conditions::new(&[], Some(1), now.parse().unwrap());
        report(&schedule, Some(&validated), observed, None, last, now.parse().unwrap(), &mut conditions);
        let drilled = conditions.finish().into_iter().find(|it| it.type_ == DRILLED).unwrap();
        (drilled.status, drilled.reason, drilled.message)
    }

    #[test]
    fn only_what_was_restored_passes() {
        let reported = |report: &DrillReport| reported(Some(report), "2026-11-23T12:00:00Z", &Observed::default());
        let (status, reason, message) = reported(&ended(0, &found("Restored", Value::Null)));
        assert_eq!((status.as_str(), reason.as_str()), ("True", "AllRestored"));
        assert!(
            message.starts_with("13 rows of 2 tables of a backup were restored in 7 s, and the query"),
            "{message}"
        );
        for (code, text, reason, part) in [
            (78, found("Failed", json!("RowCountMismatch")), "RowCountMismatch", "why"),
            (78, found("Failed", json!("OfTomorrow")), "Unknown", "why"),
            (78, found("NotRun", Value::Null), "NotRun", "did not run: why"),
            (78, found("OfTomorrow", Value::Null), "NotRun", "did not run"),
            (137, "Killed".to_owned(), "NotRun", "(killed)"),
            (0, String::new(), "NotRun", "ResultLost"),
        ] {
            let report = ended(code, &text);
            let (status, found, message) = reported(&report);
            assert_eq!((status.as_str(), found.as_str()), ("False", reason), "{text}");
            assert!(message.contains(part), "{message}");
            assert!(report.seconds.is_none());
        }
    }

    #[test]
    fn a_drill_that_did_not_come_is_late() {
        let last = ended(0, &found("Restored", Value::Null));
        let status = |now: &str| reported(Some(&last), now, &Observed::default());
        assert_eq!(status("2026-12-06T05:30:00Z").1, "AllRestored");
        assert_eq!(status("2026-12-06T06:30:00Z").1, "Late");
        let none = reported(None, "2026-11-23T12:00:00Z", &Observed::default());
        assert_eq!((none.0.as_str(), none.1.as_str(), none.2.as_str()), ("False", "NotRun", NO_BACKUP));
        let cron_job = json!({"metadata": {"name": "nightly-drill", "creationTimestamp": "2026-11-20T12:00:00Z",
            "ownerReferences": [{"apiVersion": "pgrail.dev/v1alpha1", "kind": "BackupSchedule", "name": "nightly", "uid": "schedule-uid"}]},
            "spec": {"schedule": "0 5 * * 0", "jobTemplate": {}}});
        let observed =
            Observed { drill_cron_job: Some(serde_json::from_value(cron_job).unwrap()), ..Observed::default() };
        assert_eq!(reported(None, "2026-11-21T12:00:00Z", &observed).1, "NeverRan");
        assert_eq!(reported(None, "2026-11-22T12:00:00Z", &observed).1, "Late");
        let running = Observed { drill: Some(DrillState::Running), ..observed };
        assert_eq!(reported(None, "2026-11-22T12:00:00Z", &running).1, "Running");
    }
}
