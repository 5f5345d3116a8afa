//! The status of a `BackupSchedule`. Pure.

use super::apply::Applied;
use super::drill::report::report as report_drilled;
use super::freshness::{self, Facts};
use super::history::{self, History, Scope};
use super::lost_cluster;
use super::observe::{CheckState, DrillState, Observed, PruneState};
use super::plan::{is_out_of_space, last_failure, last_scheduled, name_is_taken};
use super::shrink::{self, ShrinkEvent};
use super::validate::{Validated, max_age};
use crate::backup_jobs::names::created;
use crate::backup_jobs::record::{phase, snapshot_time};
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::rejection::{Reason, Rejection};
use crate::metrics::Metrics;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::annotations::TAKE_OVER;
use pgrail_crds::conditions::{
    BACKUP_FRESH, CLUSTER_ADOPTED, DRILLED, LAST_BACKUP_SUCCEEDED, READY, RETENTION_HEALTHY, VERIFIED,
};
use pgrail_crds::{
    BackupPhase, BackupSchedule, BackupScheduleStatus, DrillOutcome, DrillReport, StoreCheck, StructureOutcome, Time,
    VerificationLevel,
};

/// What the report is computed from.
struct Basis<'a> {
    schedule: &'a BackupSchedule,
    validated: Result<&'a Validated, &'a Rejection>,
    observed: &'a Observed,
    applied: &'a Applied,
    history: &'a History,
    now: Timestamp,
}

pub(super) struct Report {
    pub(super) status: BackupScheduleStatus,
    /// Whether the newest verified backup is young enough.
    fresh: bool,
    newest_verified: Option<Timestamp>,
    /// When the status changes without any other change.
    pub(super) next_change: Option<Timestamp>,
    /// What is new about losses of rows.
    pub(super) events: Vec<ShrinkEvent>,
}

pub(super) fn report(
    schedule: &BackupSchedule,
    validated: Result<&Validated, &Rejection>,
    observed: &Observed,
    applied: &Applied,
    now: Timestamp,
) -> Report {
    let scope = Scope::new(schedule, validated.ok(), now);
    let history = history::read(&observed.backups, &scope);
    let shrinks = shrink::read(schedule, &observed.backups, &scope);
    let basis = &Basis { schedule, validated, observed, applied, history: &history, now };
    let previous = basis.schedule.status.clone().unwrap_or_default();
    let generation = basis.schedule.metadata.generation;
    let mut conditions = Conditions::new(&previous.conditions, generation, basis.now);
    report_ready(basis, &mut conditions);
    let freshness = freshness::freshness(&facts(basis, &previous), basis.now);
    conditions.set(BACKUP_FRESH, freshness.status, freshness.reason, &freshness.message);
    report_last(basis.history, &mut conditions);
    report_verified(schedule, basis.history, &mut conditions);
    let last_drill = last_drill(basis, &previous);
    let drill_change = report_drilled(
        schedule,
        validated.ok(),
        observed,
        applied.drill_rejected.as_deref(),
        last_drill.as_ref(),
        now,
        &mut conditions,
    );
    let finished = observed.backups.iter().filter(|it| scope.is_run(it) && phase(it) == BackupPhase::Succeeded);
    shrink::report(schedule, &shrinks, finished.max_by_key(|it| snapshot_time(it)), &mut conditions);
    report_retention(basis, &previous, &mut conditions);
    match validated {
        Ok(validated) => {
            let check = applied.check.as_ref().or(previous.store_check.as_ref());
            lost_cluster::report(schedule, validated.lost_cluster.as_ref(), check, &mut conditions);
        }
        Err(_) => {
            conditions.keep(CLUSTER_ADOPTED);
        }
    }
    let fresh = conditions.holds(BACKUP_FRESH);
    let events = shrink::events(&previous, &shrinks);
    let mut status = times(basis, previous);
    status.acknowledged_shrink_time = shrinks.acknowledged.map(Time);
    status.shrinks = shrinks.open;
    if let Some(drill) = last_drill.as_ref().filter(|drill| drill.outcome == DrillOutcome::Restored) {
        (status.last_drill_time, status.last_drill_seconds) = (Some(drill.time.clone()), drill.seconds);
    }
    status.last_drill = last_drill;
    status.observed_generation = generation;
    status.conditions = conditions.finish();
    let next = status.next_schedule_time.as_ref().map(|time| time.0);
    let next_change = [freshness.next_change, next, drill_change].into_iter().flatten().min();
    Report { status, fresh, newest_verified: history.newest_verified, next_change, events }
}

fn times(basis: &Basis<'_>, previous: BackupScheduleStatus) -> BackupScheduleStatus {
    let time = |time: Option<Timestamp>| time.map(|time| Time(whole_seconds(time)));
    let Basis { history, now, .. } = basis;
    let running = basis.validated.ok().filter(|validated| validated.suspended.is_none());
    let known = previous.last_schedule_time.as_ref().map(|time| time.0);
    let started = last_scheduled(basis.schedule, basis.observed).max(history.last_started).max(known);
    BackupScheduleStatus {
        next_schedule_time: time(running.and_then(|validated| validated.schedule.next(*now))),
        last_schedule_time: time(started),
        last_successful_time: time(history.last_successful).or(previous.last_successful_time),
        last_verified_time: time(history.newest_verified),
        expected_interval_seconds: basis
            .validated
            .ok()
            .map(|validated| validated.interval.as_secs())
            .or(previous.expected_interval_seconds),
        consecutive_failures: Some(history.consecutive_failures),
        backups: Some(history.backups),
        verified_backups: Some(history.verified),
        last_prune_time: if basis.applied.prune_finished { time(Some(*now)) } else { previous.last_prune_time },
        store_check: basis.applied.check.clone().or(previous.store_check),
        last_drill_time: previous.last_drill_time,
        last_drill_seconds: previous.last_drill_seconds,
        last_drill: None,
        shrinks: previous.shrinks,
        acknowledged_shrink_time: previous.acknowledged_shrink_time,
        observed_generation: previous.observed_generation,
        conditions: Vec::new(),
    }
}

/// The result of the newest drill that has ended. A schedule without drills keeps what earlier ones found.
fn last_drill(basis: &Basis<'_>, previous: &BackupScheduleStatus) -> Option<DrillReport> {
    match &basis.observed.drill {
        Some(DrillState::Ended(result)) => Some(DrillReport::clone(result)),
        Some(DrillState::Running) | None => previous.last_drill.clone(),
    }
}

fn report_ready(basis: &Basis<'_>, conditions: &mut Conditions) {
    let validated = match basis.validated {
        Err(Rejection { reason, message }) => {
            let continues = basis.observed.cron_job.is_some() && *reason != Reason::StoreNotAllowed;
            let runs = if continues { ". Runs continue as last applied" } else { "" };
            conditions.stalled(reason, format!("{message}{runs}"));
            return;
        }
        Ok(validated) => validated,
    };
    if name_is_taken(basis.schedule, basis.observed) {
        let message =
            "a CronJob of another owner has the name that is needed: delete it, or give the schedule another name";
        conditions.stalled(Reason::NameTaken, message);
    } else if let Some(message) = &basis.applied.rejected {
        conditions.stalled(Reason::InvalidSpec, format!("the apiserver rejects the CronJob: {message}"));
    } else if let Some(Err(Rejection { reason, message })) = &validated.lost_cluster {
        conditions.stalled(reason, format!("{message}. Backups are made nevertheless"));
    } else if let Some(cause) = validated.suspended {
        conditions.set(READY, Status::True, Reason::Suspended, format!("no backups are made: {cause}"));
    } else {
        let expression = validated.schedule.expression();
        let zone = validated.schedule.time_zone_name();
        conditions.set(READY, Status::True, Reason::Scheduled, format!("runs at \"{expression}\", {zone}"));
    }
}

fn facts(basis: &Basis<'_>, previous: &BackupScheduleStatus) -> Facts {
    let Basis { schedule, history, .. } = basis;
    let validated = basis.validated.ok();
    let interval = validated.map(|validated| validated.interval);
    let interval = interval.or_else(|| previous.expected_interval_seconds.map(SignedDuration::from_secs));
    let created = created(*schedule);
    let at_first = if schedule.spec.run_on_create { None } else { validated.and_then(|it| it.schedule.next(created)) };
    Facts {
        first_due: at_first.unwrap_or(created),
        first_grace: SignedDuration::from_secs(schedule.spec.starting_deadline_seconds),
        newest_verified: history.newest_verified,
        failures: history.consecutive_failures,
        last_failure: history.last.as_ref().and_then(|last| Some(last.failure.as_ref()?.message.clone())),
        rejection: basis.validated.err().cloned(),
        uncounted: history.newest_uncounted.clone(),
        running: history.running,
        suspended: validated.map_or(schedule.spec.suspend, |validated| validated.suspended.is_some()),
        max_age: max_age(schedule, interval),
    }
}

fn report_last(history: &History, conditions: &mut Conditions) {
    match &history.last {
        None if history.running => {
            conditions.set(LAST_BACKUP_SUCCEEDED, Status::Unknown, Reason::Running, "the first run has started")
        }
        None => conditions.set(LAST_BACKUP_SUCCEEDED, Status::Unknown, Reason::NeverRan, "no run has ended yet"),
        Some(last) => match &last.failure {
            None => conditions.set(LAST_BACKUP_SUCCEEDED, Status::True, Reason::Succeeded, &last.name),
            Some(failure) => {
                let message = format!("{}: {}", last.name, failure.message);
                conditions.set(LAST_BACKUP_SUCCEEDED, Status::False, Reason::Failed, message)
            }
        },
    };
}

fn report_verified(schedule: &BackupSchedule, history: &History, conditions: &mut Conditions) {
    let proven = history.newest_proof.is_some_and(|level| level > VerificationLevel::None);
    if proven && schedule.spec.verification.structure {
        let drill = history.newest_structure.as_ref();
        if drill.is_none_or(|drill| drill.outcome != StructureOutcome::Restored) {
            let message = drill.map_or("it was made without one", |drill| drill.message.as_str());
            let message = format!("the structural drill of the newest backup did not run: {message}");
            conditions.set(VERIFIED, Status::False, Reason::NotRun, message);
            return;
        }
    }
    let (status, reason, message) = match history.newest_proof {
        Some(VerificationLevel::ReadBack | VerificationLevel::Drill) => {
            (Status::True, Reason::ReadBack, "every byte of the newest backup was read from the store again")
        }
        Some(VerificationLevel::Checksum) => {
            (Status::True, Reason::Checksum, "the SHA-256 that the store computed of the newest backup was compared")
        }
        Some(VerificationLevel::None) => (Status::False, Reason::Unverified, "the newest backup was not verified"),
        None if history.last.is_some() => (Status::False, Reason::Unverified, "there is no backup"),
        None => (Status::Unknown, Reason::NeverRan, "no run has ended yet"),
    };
    conditions.set(VERIFIED, status, reason, message);
}

fn report_retention(basis: &Basis<'_>, previous: &BackupScheduleStatus, conditions: &mut Conditions) {
    let state = basis.observed.prune.as_ref().map(|prune| &prune.state);
    let check = basis.applied.check.as_ref().or(previous.store_check.as_ref());
    if let Some(check) = check.filter(|check| !check.split_brain.is_empty()) {
        conditions.set(RETENTION_HEALTHY, Status::False, Reason::SplitBrain, split_brain(check));
        return;
    }
    if let Some(CheckState::Failed { message, .. }) = basis.observed.check.as_ref().map(|check| &check.state) {
        let message = format!(
            "the store could not be compared with the backups, which is retried; nothing is removed until then: {message}"
        );
        conditions.set(RETENTION_HEALTHY, Status::False, Reason::StoreUnchecked, message);
        return;
    }
    match state {
        Some(PruneState::Failed { message, .. }) => {
            let message = format!("old backups could not be removed, which is retried: {message}");
            conditions.set(RETENTION_HEALTHY, Status::False, Reason::PruneFailed, message);
        }
        Some(PruneState::Running) => {
            conditions.set(RETENTION_HEALTHY, Status::True, Reason::Pruning, "old backups are being removed");
        }
        _ if basis.applied.prune_started => {
            conditions.set(RETENTION_HEALTHY, Status::True, Reason::Pruning, "old backups are being removed");
        }
        _ if basis.validated.is_err() => {
            let message = "no backups are removed while the schedule is invalid";
            conditions.set(RETENTION_HEALTHY, Status::Unknown, Reason::Retained, message);
        }
        _ => {
            let failed = last_failure(basis.history).is_some_and(|failure| !is_out_of_space(failure.reason));
            let message = if failed {
                "no backups are removed until a run succeeds"
            } else if basis.history.running {
                "no backups are removed while a run is in progress"
            } else {
                "status.keptBecause of each backup contains the reason"
            };
            conditions.set(RETENTION_HEALTHY, Status::True, Reason::Retained, message);
        }
    }
}

fn split_brain(check: &StoreCheck) -> String {
    let newest = check.split_brain.first().map_or("", String::as_str);
    format!(
        "the store contains dumps of this schedule that are newer than those of this cluster, and that no DatabaseBackup records \
         (the newest is {newest}): another control plane with the same cluster ID writes to the store. Nothing is removed. Stop it, \
         and set the annotation {TAKE_OVER}: \"true\" to record its dumps here"
    )
}

pub(super) fn measure(schedule: &BackupSchedule, report: &Report, metrics: &Metrics) {
    let newest = report.newest_verified.map(Timestamp::as_second);
    let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
    metrics.backup_freshness(&namespace, &name, report.fresh, newest);
    metrics.backup_shrinks(&namespace, &name, report.status.shrinks.len());
    if schedule.spec.verification.drill.is_some() {
        let status = &report.status;
        let last = status.last_drill_time.as_ref().zip(status.last_drill_seconds);
        let last = last.map(|(time, seconds)| (time.0.as_second(), seconds));
        let server = status.last_drill.as_ref().filter(|drill| drill.outcome == DrillOutcome::Restored);
        let drilled = status.conditions.iter().find(|it| it.type_ == DRILLED).map(|it| it.status.as_str());
        // Before the first one, nothing is known.
        let drilled = drilled.filter(|drilled| *drilled != "Unknown").map(|drilled| drilled == "True");
        metrics.drill(&namespace, &name, drilled, last, server.map(|drill| &drill.server));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, failed, succeeded};
    use crate::controllers::backup_schedule::validate::example;
    use pgrail_crds::DatabaseBackup;
    use serde_json::{Value, json};

    fn reported(patch: Value, backups: Vec<DatabaseBackup>, now: &str, applied: &Applied) -> Report {
        let (schedule, validated) = example(patch);
        let observed = Observed { backups, ..Observed::default() };
        report(&schedule, Ok(&validated), &observed, applied, now.parse().unwrap())
    }

    fn conditions_of(report: &Report) -> Vec<String> {
        report.status.conditions.iter().map(|it| format!("{}={} {}", it.type_, it.status, it.reason)).collect()
    }

    #[test]
    fn a_healthy_schedule() {
        let backups =
            vec![backup("nightly-20261122-021500", "2026-11-22T02:15:00Z", succeeded("2026-11-22T02:15:01Z"))];
        let report = reported(json!({}), backups, "2026-11-22T12:00:00Z", &Applied::default());
        assert_eq!(
            conditions_of(&report),
            [
                "Ready=True Scheduled",
                "BackupFresh=True Fresh",
                "LastBackupSucceeded=True Succeeded",
                "Verified=True ReadBack",
                "Drilled=Unknown NotDeclared",
                "Shrunk=Unknown NotCompared",
                "RetentionHealthy=True Retained"
            ]
        );
        let status = &report.status;
        assert!(report.fresh);
        assert_eq!(status.next_schedule_time.as_ref().unwrap().0.to_string(), "2026-11-23T02:15:00Z");
        assert_eq!(status.last_verified_time.as_ref().unwrap().0.to_string(), "2026-11-22T02:15:01Z");
        assert_eq!(
            (status.expected_interval_seconds, status.backups, status.verified_backups),
            (Some(86400), Some(1), Some(1))
        );
        // The next fire comes before the backup is too old.
        assert_eq!(report.next_change.unwrap().to_string(), "2026-11-23T02:15:00Z");
    }

    #[test]
    fn freshness_changes_with_time() {
        let good = || vec![backup("b", "2026-11-20T02:15:00Z", succeeded("2026-11-20T02:15:00Z"))];
        let late = reported(json!({}), good(), "2026-11-23T12:00:00Z", &Applied::default());
        assert!(conditions_of(&late).contains(&"BackupFresh=False Late".to_owned()) && !late.fresh);
        let suspended = reported(json!({"suspend": true}), good(), "2026-11-23T12:00:00Z", &Applied::default());
        assert_eq!(conditions_of(&suspended)[..2], ["Ready=True Suspended", "BackupFresh=False Suspended"]);
        assert!(suspended.status.next_schedule_time.is_none());
        let never = reported(json!({}), vec![], "2026-11-23T12:00:00Z", &Applied::default());
        assert!(conditions_of(&never).contains(&"BackupFresh=False NeverRan".to_owned()));
        let young = reported(json!({}), vec![], "2026-11-20T12:10:00Z", &Applied::default());
        assert!(conditions_of(&young).contains(&"BackupFresh=Unknown FirstRunPending".to_owned()));
        assert_eq!(young.next_change.unwrap().to_string(), "2026-11-20T13:00:00Z");
    }

    #[test]
    fn failures_are_reported_with_the_tools_message() {
        let backups =
            vec![backup("b", "2026-11-23T02:15:00Z", failed("pg_dump: error: permission denied for table users"))];
        let report = reported(json!({}), backups, "2026-11-23T12:00:00Z", &Applied::default());
        let last = report.status.conditions.iter().find(|it| it.type_ == LAST_BACKUP_SUCCEEDED).unwrap();
        assert_eq!(last.message, "b: pg_dump: error: permission denied for table users");
        assert!(conditions_of(&report).contains(&"BackupFresh=False Failing".to_owned()));
        assert!(conditions_of(&report).contains(&"Verified=False Unverified".to_owned()));
        assert_eq!(report.status.consecutive_failures, Some(1));
    }

    #[test]
    fn the_last_drill_is_kept_and_a_failed_one_is_no_new_recovery_time() {
        let (mut schedule, validated) = example(json!({"verification": {"drill": {"schedule": "0 5 * * 0"}}}));
        let result = |outcome: &str, time: &str, seconds: Value| -> DrillReport {
            serde_json::from_value(json!({"job": time, "outcome": outcome, "reason": "NotRestorable", "backup": "b",
                "time": time, "seconds": seconds, "message": "why"}))
            .unwrap()
        };
        let good = result("Restored", "2026-11-22T05:00:07Z", json!(7));
        let observed =
            |drill: DrillReport| Observed { drill: Some(DrillState::Ended(Box::new(drill))), ..Observed::default() };
        let at = |now: &str| now.parse().unwrap();
        let first =
            report(&schedule, Ok(&validated), &observed(good.clone()), &Applied::default(), at("2026-11-22T05:01:00Z"));
        assert!(conditions_of(&first).contains(&"Drilled=True AllRestored".to_owned()));
        assert_eq!((first.status.last_drill_seconds, first.status.last_drill.as_ref()), (Some(7), Some(&good)));
        schedule.status = Some(first.status);
        let bad = result("Failed", "2026-11-29T05:00:07Z", Value::Null);
        let next = report(&schedule, Ok(&validated), &observed(bad), &Applied::default(), at("2026-11-29T05:01:00Z"));
        assert!(conditions_of(&next).contains(&"Drilled=False NotRestorable".to_owned()));
        assert_eq!(next.status.last_drill_seconds, Some(7));
        assert_eq!(next.status.last_drill_time.as_ref().unwrap().0.to_string(), "2026-11-22T05:00:07Z");
    }

    #[test]
    fn a_cron_job_that_the_apiserver_rejects_is_stalled() {
        let applied = Applied { rejected: Some("memory limit below request".into()), ..Applied::default() };
        let report = reported(json!({}), vec![], "2026-11-20T12:10:00Z", &applied);
        assert_eq!(conditions_of(&report)[..2], ["Ready=False InvalidSpec", "Stalled=True InvalidSpec"]);
    }

    #[test]
    fn an_invalid_annotation_is_stalled_and_backups_are_made_nevertheless() {
        let (mut schedule, mut validated) = example(json!({}));
        schedule.annotations_mut().insert(pgrail_crds::annotations::ADOPT_CLUSTER.into(), "../x".into());
        validated.lost_cluster = lost_cluster::declared(&schedule, "cluster");
        let now = "2026-11-20T12:10:00Z".parse().unwrap();
        let report = report(&schedule, Ok(&validated), &Observed::default(), &Applied::default(), now);
        let conditions = conditions_of(&report);
        assert_eq!(conditions[..2], ["Ready=False InvalidAnnotation", "Stalled=True InvalidAnnotation"]);
        assert_eq!(conditions.last().unwrap(), "ClusterAdopted=False InvalidAnnotation");
        assert!(report.status.conditions[0].message.ends_with("Backups are made nevertheless"));
        assert!(report.status.next_schedule_time.is_some());
    }

    #[test]
    fn a_rejected_schedule_still_reports_freshness() {
        let (mut schedule, _) = example(json!({}));
        schedule.status = serde_json::from_value(json!({"expectedIntervalSeconds": 86400})).unwrap();
        let observed = Observed {
            backups: vec![backup("b", "2026-11-20T02:15:00Z", succeeded("2026-11-20T02:15:00Z"))],
            ..Observed::default()
        };
        let rejection = Rejection::new(Reason::InvalidSchedule, "spec.schedule: no");
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let report = report(&schedule, Err(&rejection), &observed, &Applied::default(), now);
        let conditions = conditions_of(&report);
        assert_eq!(
            conditions[..3],
            ["Ready=False InvalidSchedule", "Stalled=True InvalidSchedule", "BackupFresh=False InvalidSchedule"]
        );
        assert_eq!(report.status.expected_interval_seconds, Some(86400));
    }
}
