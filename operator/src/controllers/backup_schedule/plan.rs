//! The steps for a schedule, in order. Pure.

use super::cron_job;
use super::drill::cron_job::{desired, is_taken};
use super::history::{self, Failure, History, Scope};
use super::lost_cluster;
use super::observe::{CheckState, DrillState, Observed, PruneState};
use super::retention::{self, Rules};
use super::shrink;
use super::store_check::{self, Evaluated};
use super::validate::Validated;
use crate::agent::config::{InventoryConfig, PruneConfig};
use crate::agent::run_name::run_name;
use crate::backup_jobs::destination::Destination;
use crate::backup_jobs::jobs::config_of;
use crate::backup_jobs::names::{backup_name, bounded, created, is_below, location_in, scheduled_time};
use crate::backup_jobs::pod::Installation;
use crate::backup_jobs::record::{has_dump, is_verified};
use crate::kubernetes::rejection::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use pgrail_crds::annotations::{DATABASE_LABEL, JOB, MANAGED_BY, RECORDED, SCHEDULE_LABEL, SCHEDULE_UID};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseBackupSpec, DrillOutcome, Time};
use pgrail_dump::{KNOWN_AT_MOST, LostCluster, ScheduleIdentity};
use std::collections::BTreeMap;

/// The most dumps that one prune removes.
const PRUNED_AT_ONCE: usize = 50;
/// How often leftovers of failed runs are removed.
const SWEEP_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// Age of leftovers in a full store, in seconds. Uploads of running dumps are never leftovers.
const GRACE_OF_A_FULL_STORE: u64 = 3600;
/// How long after its deadline a run counts as missed: the CronJob controller may be slow.
const MISSED_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// How long after a failed prune or comparison the next one starts.
const RETRY: SignedDuration = SignedDuration::from_mins(30);

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By server-side apply, which changes nothing where nothing differs.
    ApplyCronJob(Box<CronJob>),
    /// The same for the CronJob of the drills.
    ApplyDrillCronJob(Box<CronJob>),
    /// Delete the CronJob of drills that are not declared any more.
    DeleteDrillCronJob(Box<CronJob>),
    /// Report on a backup that all of its rows were restored.
    ReportDrilled { backup: Box<DatabaseBackup>, time: Time },
    /// Create the `DatabaseBackup` of a run, and mark its Job.
    Record { job: String, backup: Box<DatabaseBackup> },
    /// The first backup.
    FirstRun(Box<DatabaseBackup>),
    /// A run that the CronJob did not start in time, or that lost its node.
    LateRun { backup: Box<DatabaseBackup>, cause: String },
    /// Write `keptBecause`.
    ReportKept { backup: Box<DatabaseBackup>, reasons: Vec<String> },
    /// Delete the object of an old failure.
    DeleteFailure(String),
    /// Remove dumps from the store.
    StartPrune { destination: Box<Destination>, prune: PruneConfig },
    /// The dumps were removed from the store: delete their objects, then the Job.
    FinishPrune { job: String, backups: Vec<String> },
    /// Delete the Job of a failed prune or comparison, so that another one can be created.
    Retry(String),
    /// Compare the store with the backups.
    StartCheck { destination: Box<Destination>, inventory: InventoryConfig },
    /// The store was compared: report what is missing, record what was found, then delete the Job.
    FinishCheck { job: String, evaluated: Box<Evaluated> },
}

pub(super) fn plan(
    schedule: &BackupSchedule,
    validated: Option<&Validated>,
    observed: &Observed,
    image: &Installation,
    now: Timestamp,
) -> Result<Vec<Step>, serde_json::Error> {
    let mut steps = records(schedule, observed);
    let mut succeeded = None;
    if let Some(validated) = validated {
        if !name_is_taken(schedule, observed) {
            steps.push(Step::ApplyCronJob(Box::new(cron_job::desired(schedule, validated, image)?)));
        }
        let scope = Scope::new(schedule, Some(validated), now);
        steps.extend(drill_cron_job(schedule, validated, observed, &scope, image)?);
        let history = history::read(&observed.backups, &scope);
        succeeded = history.last_successful;
        let first = first_run(schedule, validated, observed);
        // The first run is followed by a comparison.
        let due = first.is_none() && check_is_due(schedule, validated, observed, &history, now);
        steps.extend(first.or_else(|| late_run(schedule, validated, observed, &history, now)));
        if due {
            let destination = Box::new(validated.job.destination.clone());
            let inventory = inventory(schedule, validated, observed);
            steps.push(Step::StartCheck { destination, inventory });
        }
        // What is removed is decided from what is there.
        let may_remove = !due && observed.check.is_none() && !store_check::is_split(schedule);
        let retention = retention_steps(schedule, validated, observed, &history, &scope);
        steps.extend(retention.into_iter().filter(|step| may_remove || !matches!(step, Step::StartPrune { .. })));
    }
    steps.extend(drilled(observed));
    steps.extend(check_step(schedule, observed, succeeded, now));
    steps.extend(prune_step(observed, now));
    Ok(steps)
}

fn drill_cron_job(
    schedule: &BackupSchedule,
    validated: &Validated,
    observed: &Observed,
    scope: &Scope<'_>,
    image: &Installation,
) -> Result<Option<Step>, serde_json::Error> {
    if is_taken(schedule, observed) {
        return Ok(None);
    }
    if validated.drill.is_none() {
        return Ok(observed.drill_cron_job.clone().map(|it| Step::DeleteDrillCronJob(Box::new(it))));
    }
    let desired = desired(schedule, validated, observed, scope, image)?;
    Ok(desired.map(|it| Step::ApplyDrillCronJob(Box::new(it))))
}

/// The backup that a drill restored.
fn drilled(observed: &Observed) -> Option<Step> {
    let Some(DrillState::Ended(result)) = &observed.drill else { return None };
    let of_drill = |backup: &&DatabaseBackup| Some(backup.name_any()) == result.backup;
    let backup = observed.backups.iter().filter(|it| is_verified(it)).find(of_drill)?;
    let restored = result.outcome == DrillOutcome::Restored;
    restored.then(|| Step::ReportDrilled { backup: Box::new(backup.clone()), time: result.time.clone() })
}

/// Whether another object has the CronJob's name.
pub(super) fn name_is_taken(schedule: &BackupSchedule, observed: &Observed) -> bool {
    observed.cron_job.as_ref().is_some_and(|cron_job| !cron_job::is_ours(cron_job, schedule))
}

/// Runs of the CronJob without a `DatabaseBackup`.
fn records(schedule: &BackupSchedule, observed: &Observed) -> Vec<Step> {
    let Some(cron_job) = observed.cron_job.as_ref().filter(|it| cron_job::is_ours(it, schedule)) else {
        return Vec::new();
    };
    let of_cron_job =
        |job: &&Job| job.owner_references().iter().any(|owner| Some(&owner.uid) == cron_job.metadata.uid.as_ref());
    let unrecorded = |job: &&Job| !job.annotations().contains_key(RECORDED);
    observed
        .jobs
        .iter()
        .filter(of_cron_job)
        .filter(unrecorded)
        .map(|job| {
            let name = backup_name(&schedule.name_any(), &job.name_any());
            Step::Record { job: job.name_any(), backup: Box::new(backup(schedule, &name, Some(&job.name_any()))) }
        })
        .collect()
}

/// The first backup, at once, of a new schedule. Its name follows from the schedule's creation, so that it is created once
/// however often this is planned.
fn first_run(schedule: &BackupSchedule, validated: &Validated, observed: &Observed) -> Option<Step> {
    let uid = schedule.metadata.uid.as_ref()?;
    let started = schedule.status.as_ref().is_some_and(|status| status.last_schedule_time.is_some());
    let known = observed.backups.iter().any(|it| it.annotations().get(SCHEDULE_UID) == Some(uid));
    let due =
        schedule.spec.run_on_create && validated.suspended.is_none() && !started && !known && observed.jobs.is_empty();
    let name = run_name(&schedule.name_any(), created(schedule));
    due.then(|| Step::FirstRun(Box::new(backup(schedule, &name, None))))
}

/// One run for all that the CronJob dropped since the newest one, since `startingDeadlineSeconds` had passed; or one for a
/// run whose node was lost.
fn late_run(
    schedule: &BackupSchedule,
    validated: &Validated,
    observed: &Observed,
    history: &History,
    now: Timestamp,
) -> Option<Step> {
    let has_cron_job = observed.cron_job.as_ref().is_some_and(|it| cron_job::is_ours(it, schedule));
    if !has_cron_job || validated.suspended.is_some() || history.running {
        return None;
    }
    let late = |name: &str, cause| Step::LateRun { backup: Box::new(backup(schedule, name, None)), cause };
    if let Some(last) = &history.last
        && last.failure.as_ref().is_some_and(|failure| failure.reason == Reason::NodeLost)
    {
        let name = format!("{}-again", bounded(&last.name, 57));
        let exists = observed.backups.iter().any(|backup| backup.name_any() == name);
        let is_again = last.name.ends_with("-again");
        return (!exists && !is_again).then(|| late(&name, format!("the node of {} was lost", last.name)));
    }
    let due = validated.schedule.last(now, validated.interval)?;
    let known = schedule.status.as_ref().and_then(|status| status.last_schedule_time.as_ref()).map(|time| time.0);
    let newest =
        last_scheduled(schedule, observed).max(history.last_started).max(known).max(Some(created(schedule)))?;
    let deadline = due.checked_add(SignedDuration::from_secs(schedule.spec.starting_deadline_seconds)).ok()?;
    let is_missed = newest < due && now > deadline.checked_add(MISSED_AFTER).ok()?;
    let name = run_name(&schedule.name_any(), due);
    is_missed.then(|| late(&name, format!("the run of {due} was not started within startingDeadlineSeconds")))
}

fn backup(schedule: &BackupSchedule, name: &str, job: Option<&str>) -> DatabaseBackup {
    let uid = schedule.uid().unwrap_or_default();
    let annotations = [(SCHEDULE_UID, Some(uid.as_str())), (JOB, job)];
    let labels = BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned()),
        (SCHEDULE_LABEL.to_owned(), schedule.name_any()),
        (DATABASE_LABEL.to_owned(), bounded(&schedule.spec.database_ref.name, 63)),
    ]);
    let spec = DatabaseBackupSpec::of_schedule(schedule.name_any());
    let mut backup = DatabaseBackup::new(name, spec);
    backup.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: schedule.namespace(),
        labels: Some(labels),
        annotations: Some(
            annotations.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect(),
        ),
        ..ObjectMeta::default()
    };
    backup
}

fn retention_steps(
    schedule: &BackupSchedule,
    validated: &Validated,
    observed: &Observed,
    history: &History,
    scope: &Scope<'_>,
) -> Vec<Step> {
    let spec = &schedule.spec;
    let destination = &validated.job.destination;
    let shrinks = shrink::read(schedule, &observed.backups, scope);
    let rules = Rules {
        scope,
        shrinks: &shrinks,
        store: &destination.store.config.url,
        policy: &spec.retention,
        time_zone: validated.schedule.time_zone(),
        failures: usize::try_from(spec.failed_jobs_history_limit).unwrap_or(0),
    };
    let decisions = retention::decide_all(&observed.backups, &rules);
    let named = |name: &str| observed.backups.iter().find(|it| it.name_any() == name);
    let mut steps: Vec<Step> = decisions
        .kept
        .into_iter()
        .filter_map(|(name, reasons)| Some((named(&name)?, reasons)))
        .filter(|(backup, reasons)| backup.status.as_ref().is_none_or(|status| status.kept_because != *reasons))
        .map(|(backup, reasons)| Step::ReportKept { backup: Box::new(backup.clone()), reasons })
        .collect();
    steps.extend(decisions.forgotten.into_iter().map(Step::DeleteFailure));
    // Not after a failed run: its cause may make the others the last good ones. A full store is such a cause only until
    // something is removed from it.
    let failure = last_failure(history);
    let is_full = failure.is_some_and(|failure| is_out_of_space(failure.reason));
    let may_remove = failure.is_none() || is_full;
    let removed = decisions.removed.into_iter().map(|(_, location)| location);
    let locations: Vec<_> = removed.filter(|_| may_remove).take(PRUNED_AT_ONCE).collect();
    let may_start = observed.prune.is_none() && !history.running;
    if may_start && (!locations.is_empty() || sweep_is_due(schedule, history, is_full, scope.now)) {
        let grace_seconds = is_full.then_some(GRACE_OF_A_FULL_STORE);
        let prune = PruneConfig { locations, running: Vec::new(), grace_seconds };
        steps.push(Step::StartPrune { destination: Box::new(destination.clone()), prune });
    }
    steps
}

/// The failure of the newest run, if it failed.
pub(super) fn last_failure(history: &History) -> Option<&Failure> {
    history.last.as_ref().and_then(|last| last.failure.as_ref())
}

pub(super) fn is_out_of_space(reason: Reason) -> bool {
    matches!(reason, Reason::StoreFull | Reason::QuotaExceeded)
}

/// Leftovers of failed runs are removed once a day, and after a run for which the store had no space.
fn sweep_is_due(schedule: &BackupSchedule, history: &History, is_full: bool, now: Timestamp) -> bool {
    let last = schedule.status.as_ref().and_then(|status| status.last_prune_time.as_ref()).map(|time| time.0);
    let since_full = is_full && history.last_started.is_some_and(|started| last.is_none_or(|last| last < started));
    since_full || now.duration_since(last.unwrap_or_else(|| created(schedule))) >= SWEEP_INTERVAL
}

fn check_is_due(
    schedule: &BackupSchedule,
    validated: &Validated,
    observed: &Observed,
    history: &History,
    now: Timestamp,
) -> bool {
    let has_more = store_check::has_more(schedule, &observed.backups);
    let is_free = observed.check.is_none() && observed.prune.is_none() && !history.running;
    let of_lost = store_check::last(schedule).is_some_and(|last| lost_cluster::is_due(last, validated.adopts(), now));
    is_free && (of_lost || store_check::is_due(schedule, history, has_more, now))
}

/// What is compared.
fn inventory(schedule: &BackupSchedule, validated: &Validated, observed: &Observed) -> InventoryConfig {
    let destination = &validated.job.destination;
    let known =
        |identity: &ScheduleIdentity| store_check::known(&observed.backups, &destination.store.config.url, identity);
    let lost = validated.adopts().map(|cluster| LostCluster {
        cluster_id: cluster.to_owned(),
        known: known(&destination.identity.in_cluster(cluster)),
    });
    let mut own = known(&destination.identity);
    own.truncate(KNOWN_AT_MOST.saturating_sub(lost.as_ref().map_or(0, |lost| lost.known.len())));
    InventoryConfig { known: own, lost, find_clusters: store_check::last(schedule).is_none() }
}

/// What to do after a comparison of the store. `succeeded` is when the newest dump was complete.
fn check_step(
    schedule: &BackupSchedule,
    observed: &Observed,
    succeeded: Option<Timestamp>,
    now: Timestamp,
) -> Option<Step> {
    let check = observed.check.as_ref()?;
    let job = check.job.name_any();
    match &check.state {
        CheckState::Running => None,
        CheckState::Failed { since, .. } => {
            // The store was used since, so that what prevented it may be over.
            let is_usable = succeeded.is_some_and(|succeeded| succeeded > *since);
            (is_usable || now.duration_since(*since) >= RETRY).then_some(Step::Retry(job))
        }
        CheckState::Done(inventory) => {
            let Some(config) = config_of(&check.job) else { return Some(Step::Retry(job)) };
            let basis = store_check::Basis {
                schedule,
                backups: &observed.backups,
                jobs: &observed.jobs,
                config: &config,
                time: created(&check.job),
                now,
            };
            let evaluated = Box::new(store_check::evaluate(&basis, inventory));
            Some(Step::FinishCheck { job, evaluated })
        }
    }
}

/// What to do after a prune.
fn prune_step(observed: &Observed, now: Timestamp) -> Option<Step> {
    let prune = observed.prune.as_ref()?;
    let job = prune.job.name_any();
    match &prune.state {
        PruneState::Running => None,
        PruneState::Done => {
            let config = config_of(&prune.job)?;
            let removed = config.prune.unwrap_or_default().locations;
            let is_removed = |backup: &&DatabaseBackup| {
                has_dump(backup)
                    && location_in(&config.store.url, backup).is_some_and(|location| removed.contains(&location))
            };
            let backups = observed.backups.iter().filter(is_removed).map(ResourceExt::name_any).collect();
            Some(Step::FinishPrune { job, backups })
        }
        PruneState::Failed { since, .. } => (now.duration_since(*since) >= RETRY).then_some(Step::Retry(job)),
    }
}

/// Removes all dumps of a schedule that is being deleted, except pinned ones.
pub(super) fn removal(
    schedule: &BackupSchedule,
    observed: &Observed,
    destination: &Destination,
    now: Timestamp,
) -> Option<Step> {
    if observed.prune.is_some() {
        return prune_step(observed, now);
    }
    // What is elsewhere is not the schedule's to remove, whatever its object claims.
    let directory = destination.identity.directory().unwrap_or_default();
    let locations: Vec<String> = removable(schedule, observed)
        .filter_map(|it| location_in(&destination.store.config.url, it))
        .filter(|it| is_below(it, &directory))
        .take(PRUNED_AT_ONCE)
        .collect();
    let prune = PruneConfig { locations, ..PruneConfig::default() };
    (!prune.locations.is_empty()).then(|| Step::StartPrune { destination: Box::new(destination.clone()), prune })
}

fn removable<'a>(schedule: &'a BackupSchedule, observed: &'a Observed) -> impl Iterator<Item = &'a DatabaseBackup> {
    let uid = schedule.metadata.uid.as_ref();
    let is_ours = move |it: &&DatabaseBackup| uid.is_some() && it.annotations().get(SCHEDULE_UID) == uid;
    observed.backups.iter().filter(is_ours).filter(|it| has_dump(it) && !it.spec.pinned)
}

/// The time that the newest run of the CronJob was scheduled for.
pub(super) fn last_scheduled(schedule: &BackupSchedule, observed: &Observed) -> Option<Timestamp> {
    let of_jobs = observed.jobs.iter().filter_map(|job| scheduled_time(&schedule.name_any(), &job.name_any()));
    let cron_job = observed.cron_job.as_ref().filter(|it| cron_job::is_ours(it, schedule));
    let of_cron_job = cron_job.and_then(|it| it.status.as_ref()?.last_schedule_time.as_ref().map(|time| time.0));
    of_jobs.chain(of_cron_job).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup as made, failed, succeeded};
    use crate::backup_jobs::pod::prune_job;
    use crate::controllers::backup_schedule::observe::{Check, Prune};
    use crate::controllers::backup_schedule::validate::example;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn planned(schedule: &BackupSchedule, validated: Option<&Validated>, observed: &Observed) -> Vec<Step> {
        let mut schedule = schedule.clone();
        let status = schedule.status.get_or_insert_default();
        status.last_prune_time.get_or_insert(Time(now()));
        status.store_check.get_or_insert_with(|| checked(&[]));
        plan(&schedule, validated, observed, &Installation::for_tests(), now()).unwrap()
    }

    /// The store was compared just now.
    fn checked(split_brain: &[&str]) -> pgrail_crds::StoreCheck {
        pgrail_crds::StoreCheck {
            time: Time(now()),
            dumps: 0,
            missing: 0,
            unrecorded: 0,
            unreadable: 0,
            newest_time: Time(now()),
            lost_cluster: None,
            other_clusters: Vec::new(),
            split_brain: split_brain.iter().map(|run| (*run).to_owned()).collect(),
        }
    }

    fn named(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|step| match step {
                Step::ApplyCronJob(_) => "apply".into(),
                Step::ApplyDrillCronJob(_) => "apply drill".into(),
                Step::DeleteDrillCronJob(_) => "delete drill".into(),
                Step::ReportDrilled { backup, .. } => format!("drilled {}", backup.name_any()),
                Step::Record { job, backup } => format!("record {job} as {}", backup.name_any()),
                Step::FirstRun(backup) => format!("first {}", backup.name_any()),
                Step::ReportKept { backup, reasons } => format!("keep {}: {}", backup.name_any(), reasons.join(",")),
                Step::DeleteFailure(name) => format!("delete {name}"),
                Step::LateRun { backup, .. } => format!("late {}", backup.name_any()),
                Step::StartPrune { prune, .. } => format!("prune {}", prune.locations.join(",")),
                Step::FinishPrune { backups, .. } => format!("pruned {}", backups.join(",")),
                Step::Retry(job) => format!("retry {job}"),
                Step::StartCheck { inventory, .. } => format!("check {}", inventory.known.len()),
                Step::FinishCheck { .. } => "checked".into(),
            })
            .collect()
    }

    fn applied(schedule: &BackupSchedule, validated: &Validated) -> CronJob {
        let mut cron_job = cron_job::desired(schedule, validated, &Installation::for_tests()).unwrap();
        cron_job.metadata.uid = Some("cron-uid".into());
        cron_job
    }

    fn job(name: &str, annotations: Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop", "annotations": annotations,
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly-dump", "uid": "cron-uid", "controller": true}]}}))
        .unwrap()
    }

    fn good(day: u32) -> DatabaseBackup {
        let time = format!("2026-11-{day:02}T02:15:00Z");
        let mut status = succeeded(&time);
        status["keptBecause"] = json!(["Last"]);
        made(&format!("b{day}"), &time, status)
    }

    fn last_only() -> Value {
        json!({"retention": {"minKeep": 1, "keepLast": 1, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0}})
    }

    #[test]
    fn drills_have_a_cron_job_and_their_backup_is_marked() {
        let mut patch = last_only();
        patch["verification"] = json!({"drill": {"schedule": "0 5 * * 0"}});
        let (schedule, validated) = example(patch);
        let mut drilled = good(23);
        drilled.status.as_mut().unwrap().manifest_sha256 = Some("ab".into());
        let result: pgrail_crds::DrillReport = serde_json::from_value(json!({"job": "j", "outcome": "Restored",
            "reason": "AllRestored", "backup": "b23", "time": "2026-11-23T05:00:00Z"}))
        .unwrap();
        let observed = Observed {
            cron_job: Some(applied(&schedule, &validated)),
            backups: vec![drilled],
            drill: Some(DrillState::Ended(Box::new(result))),
            ..Observed::default()
        };
        assert_eq!(named(&planned(&schedule, Some(&validated), &observed)), ["apply", "apply drill", "drilled b23"]);
        // Without a declaration, its CronJob is deleted; that of another owner is not.
        let (schedule, validated) = example(last_only());
        let mut ours = applied(&schedule, &validated);
        ours.metadata.name = Some("nightly-drill".into());
        let mut observed = Observed { drill_cron_job: Some(ours), drill: None, ..observed };
        assert_eq!(named(&planned(&schedule, Some(&validated), &observed)), ["apply", "delete drill"]);
        observed.drill_cron_job.as_mut().unwrap().metadata.owner_references = None;
        assert_eq!(named(&planned(&schedule, Some(&validated), &observed)), ["apply"]);
    }

    #[test]
    fn a_new_schedule_gets_its_cron_job_and_a_first_backup() {
        let (schedule, validated) = example(json!({}));
        let steps = planned(&schedule, Some(&validated), &Observed::default());
        assert_eq!(named(&steps), ["apply", "first nightly-20261120-120000"]);
        let Step::FirstRun(backup) = &steps[1] else { panic!() };
        assert!(backup.owner_references().is_empty());
        assert!(!backup.annotations().contains_key(JOB));
        assert_eq!(backup.annotations()[SCHEDULE_UID], "schedule-uid");
    }

    #[test]
    fn a_schedule_without_changes_only_applies_its_cron_job() {
        let (schedule, validated) = example(last_only());
        let observed = Observed {
            cron_job: Some(applied(&schedule, &validated)),
            jobs: vec![job("nightly-dump-29858535", json!({"pgrail.dev/recorded": "true"}))],
            backups: vec![good(23)],
            ..Observed::default()
        };
        assert_eq!(named(&planned(&schedule, Some(&validated), &observed)), ["apply"]);
    }

    #[test]
    fn the_first_backup_is_created_once_and_not_when_suspended() {
        for patch in [json!({"runOnCreate": false}), json!({"suspend": true})] {
            let (schedule, validated) = example(patch);
            assert_eq!(named(&planned(&schedule, Some(&validated), &Observed::default())), ["apply"]);
        }
        let (mut schedule, validated) = example(json!({}));
        schedule.status = serde_json::from_value(json!({"lastScheduleTime": "2026-11-20T12:00:00Z"})).unwrap();
        assert_eq!(named(&planned(&schedule, Some(&validated), &Observed::default())), ["apply"]);
    }

    #[test]
    fn every_job_of_the_cron_job_is_recorded_even_while_the_spec_is_invalid() {
        let (schedule, validated) = example(json!({}));
        let mut foreign = job("other", json!({}));
        foreign.metadata.owner_references = None;
        let observed = Observed {
            cron_job: Some(applied(&schedule, &validated)),
            jobs: vec![job("nightly-dump-29858535", json!({})), job("by-hand", json!({})), foreign],
            ..Observed::default()
        };
        let expected = ["record nightly-dump-29858535 as nightly-20261009-021500", "record by-hand as by-hand"];
        assert_eq!(named(&planned(&schedule, None, &observed)), expected);
        let steps = planned(&schedule, None, &observed);
        let Step::Record { backup, .. } = &steps[0] else { panic!() };
        assert_eq!(backup.annotations()[JOB], "nightly-dump-29858535");
    }

    #[test]
    fn a_foreign_cron_job_is_not_changed() {
        let (schedule, validated) = example(json!({"runOnCreate": false}));
        let mut foreign = applied(&schedule, &validated);
        foreign.metadata.owner_references = None;
        let observed = Observed { cron_job: Some(foreign), ..Observed::default() };
        assert!(name_is_taken(&schedule, &observed));
        assert!(planned(&schedule, Some(&validated), &observed).is_empty());
    }

    #[test]
    fn pruning_waits_for_a_good_run_and_for_the_prune_before() {
        let (schedule, validated) = example(last_only());
        let cron_job = applied(&schedule, &validated);
        let with = |extra: Option<DatabaseBackup>, prune: Option<Prune>| {
            let backups = [good(20), good(21), good(22)].into_iter().chain(extra).collect();
            let observed = Observed { cron_job: Some(cron_job.clone()), backups, prune, ..Observed::default() };
            named(&planned(&schedule, Some(&validated), &observed))
                .into_iter()
                .filter(|it| it.contains("prune") || it.contains("retry"))
                .collect::<Vec<_>>()
        };
        let (first, second) =
            ("cluster/shop/nightly/2026-11-20T02:15:00Z", "cluster/shop/nightly/2026-11-21T02:15:00Z");
        assert_eq!(with(None, None), [format!("prune {first},{second}")]);
        assert!(with(Some(made("f", "2026-11-23T02:15:00Z", failed("x"))), None).is_empty());
        assert!(with(Some(made("r", "2026-11-23T02:15:00Z", json!({"phase": "Running"}))), None).is_empty());
        // A full store is emptied; a rejected backup does not stop retention.
        let stalled = |phase: &str, reason: &str| {
            let condition = json!({"type": "Stalled", "status": "True", "reason": reason, "message": "",
                "lastTransitionTime": "2026-11-23T02:15:00Z"});
            Some(made("f", "2026-11-23T02:15:00Z", json!({"phase": phase, "conditions": [condition]})))
        };
        assert_eq!(with(stalled("Failed", "StoreFull"), None), [format!("prune {first},{second}")]);
        assert_eq!(with(stalled("Pending", "SecretMissing"), None), [format!("prune {first},{second}")]);
        assert!(with(stalled("Failed", "StoreUnavailable"), None).is_empty());

        let config = PruneConfig { locations: vec![first.into()], ..PruneConfig::default() };
        let template = prune_job(&validated.job.destination, &Installation::for_tests(), config, None).unwrap();
        let job = crate::backup_jobs::jobs::job_of(template, "nightly-retention");
        let prune = |state| Some(Prune { job: job.clone(), state });
        assert!(with(None, prune(PruneState::Running)).is_empty());
        assert_eq!(with(None, prune(PruneState::Done)), ["pruned b20"]);
        let failed = |since: &str| PruneState::Failed { message: "no".into(), since: since.parse().unwrap() };
        assert!(with(None, prune(failed("2026-11-23T11:59:00Z"))).is_empty());
        assert_eq!(with(None, prune(failed("2026-11-23T11:30:00Z"))), ["retry nightly-retention"]);
    }

    #[test]
    fn leftovers_are_swept_daily_whatever_became_of_the_runs() {
        let steps = |status: Value| {
            let (mut schedule, validated) = example(last_only());
            schedule.status = serde_json::from_value(status).unwrap();
            let backups = vec![good(22), made("f", "2026-11-23T02:15:00Z", failed("x"))];
            let observed = Observed { cron_job: Some(applied(&schedule, &validated)), backups, ..Observed::default() };
            named(&planned(&schedule, Some(&validated), &observed))
        };
        assert!(steps(json!({"lastPruneTime": "2026-11-22T12:00:00Z"})).contains(&"prune ".to_owned()));
        assert!(!steps(json!({"lastPruneTime": "2026-11-22T12:00:01Z"})).contains(&"prune ".to_owned()));
    }

    #[test]
    fn the_store_of_a_new_schedule_is_compared_at_once_or_after_its_first_run() {
        let steps = |run_on_create: bool, backups: Vec<DatabaseBackup>| {
            let (schedule, validated) = example(json!({"runOnCreate": run_on_create}));
            let observed = Observed { backups, ..Observed::default() };
            let steps = plan(&schedule, Some(&validated), &observed, &Installation::for_tests(), now()).unwrap();
            let of_runs = |step: &String| step.starts_with("first ") || step.starts_with("check ");
            named(&steps).into_iter().filter(of_runs).collect::<Vec<_>>()
        };
        assert_eq!(steps(false, vec![]), ["check 0"]);
        let first = steps(true, vec![]);
        assert!(first.len() == 1 && first[0].starts_with("first "), "{first:?}");
        let run = |status: Value| vec![made("r", "2026-11-23T11:00:00Z", status)];
        assert!(steps(true, run(json!({"phase": "Running"}))).is_empty());
        assert_eq!(steps(true, run(failed("x"))), ["check 0"], "its database may be lost");
    }

    #[test]
    fn the_store_is_compared_after_every_success_and_daily_and_before_anything_is_removed() {
        let steps = |check: Option<pgrail_crds::StoreCheck>,
                     state: Option<CheckState>,
                     extra: Option<DatabaseBackup>| {
            let (mut schedule, validated) = example(last_only());
            let time = Some(Time(now()));
            schedule.status = Some(pgrail_crds::BackupScheduleStatus {
                store_check: check,
                last_prune_time: time,
                ..Default::default()
            });
            let config = InventoryConfig::default();
            let template =
                crate::backup_jobs::pod::inventory_job(&validated.job.destination, &Installation::for_tests(), config)
                    .unwrap();
            let job = crate::backup_jobs::jobs::job_of(template, "nightly-inventory");
            let backups = [good(20), good(23)].into_iter().chain(extra).collect();
            let observed = Observed {
                cron_job: Some(applied(&schedule, &validated)),
                backups,
                check: state.map(|state| Check { job, state }),
                ..Observed::default()
            };
            let steps =
                named(&plan(&schedule, Some(&validated), &observed, &Installation::for_tests(), now()).unwrap());
            steps.into_iter().filter(|step| !step.starts_with("apply")).collect::<Vec<_>>()
        };
        let prune = "prune cluster/shop/nightly/2026-11-20T02:15:00Z";
        let at = |time: &str| Some(pgrail_crds::StoreCheck { time: Time(time.parse().unwrap()), ..checked(&[]) });
        assert_eq!(steps(None, None, None), ["check 2"], "a run has succeeded since");
        assert_eq!(steps(at("2026-11-23T02:15:00Z"), None, None), ["check 2"]);
        assert_eq!(steps(at("2026-11-23T02:15:01Z"), None, None), [prune]);
        assert_eq!(steps(at("2026-11-22T12:00:00Z"), None, None), ["check 2"], "a day has passed");
        let running = Some(made("r", "2026-11-23T11:00:00Z", json!({"phase": "Running"})));
        assert!(steps(at("2026-11-22T12:00:00Z"), None, running).is_empty());
        assert!(steps(at("2026-11-23T03:00:00Z"), Some(CheckState::Running), None).is_empty());
        assert_eq!(steps(at("2026-11-23T03:00:00Z"), Some(CheckState::Done(Box::default())), None), ["checked"]);
        let failed = |since: &str| Some(CheckState::Failed { message: "no".into(), since: since.parse().unwrap() });
        assert!(steps(at("2026-11-23T03:00:00Z"), failed("2026-11-23T11:59:00Z"), None).is_empty());
        assert_eq!(
            steps(at("2026-11-23T03:00:00Z"), failed("2026-11-23T11:30:00Z"), None),
            ["retry nightly-inventory"]
        );
        let mut status = succeeded("2026-11-23T11:59:10Z");
        status["keptBecause"] = json!(["Last"]);
        let since = made("x", "2026-11-23T11:59:10Z", status);
        assert_eq!(
            steps(at("2026-11-23T03:00:00Z"), failed("2026-11-23T11:59:00Z"), Some(since)),
            ["retry nightly-inventory"],
            "a run has succeeded since"
        );
        // While another control plane is at work, nothing is removed.
        let split = Some(pgrail_crds::StoreCheck { time: Time(now()), ..checked(&["20261123T021500Z-x"]) });
        assert!(steps(split, None, None).is_empty());
    }

    #[test]
    fn a_lost_cluster_is_listed_as_soon_as_it_is_declared_and_its_dumps_are_never_removed() {
        let lost = "11111111-2222-3333-4444-555555555555";
        let (schedule, mut validated) = example(last_only());
        let mut theirs = good(19);
        theirs.annotations_mut().insert(SCHEDULE_UID.into(), "theirs".into());
        let status = theirs.status.as_mut().unwrap();
        status.phase = Some(pgrail_crds::BackupPhase::Discovered);
        status.location = Some(format!("s3://backups/shop/{lost}/shop/nightly/19"));
        let observed = Observed {
            cron_job: Some(applied(&schedule, &validated)),
            backups: vec![theirs, good(20), good(23)],
            ..Observed::default()
        };
        let prune = "prune cluster/shop/nightly/2026-11-20T02:15:00Z";
        assert!(named(&planned(&schedule, Some(&validated), &observed)).contains(&prune.to_owned()));
        validated.lost_cluster = Some(Ok(lost.to_owned()));
        let steps = planned(&schedule, Some(&validated), &observed);
        let start = steps.iter().find_map(|step| match step {
            Step::StartCheck { inventory, .. } => Some(inventory.clone()),
            _ => None,
        });
        let inventory = start.unwrap();
        let of_lost = inventory.lost.unwrap();
        assert_eq!((inventory.known.len(), inventory.find_clusters), (2, false));
        assert_eq!((of_lost.cluster_id.as_str(), of_lost.known[0].0.as_str()), (lost, "19"));
    }

    #[test]
    fn one_run_makes_up_for_all_missed_ones() {
        let steps = |patch: Value, backups: Vec<DatabaseBackup>| {
            let (schedule, validated) = example(patch);
            let observed = Observed { cron_job: Some(applied(&schedule, &validated)), backups, ..Observed::default() };
            let steps = named(&planned(&schedule, Some(&validated), &observed));
            steps.into_iter().filter(|step| step.starts_with("late")).collect::<Vec<_>>()
        };
        // Due daily at 02:15; it is noon of the 23rd.
        assert_eq!(steps(json!({"runOnCreate": false}), vec![]), ["late nightly-20261123-021500"]);
        assert_eq!(steps(json!({}), vec![good(21)]), ["late nightly-20261123-021500"]);
        assert!(steps(json!({}), vec![good(23)]).is_empty());
        assert!(steps(json!({"startingDeadlineSeconds": 40000}), vec![good(21)]).is_empty());
        assert!(steps(json!({"suspend": true}), vec![good(21)]).is_empty());
        let lost = |name: &str| {
            let condition = json!({"type": "Stalled", "status": "True", "reason": "NodeLost", "message": "",
                "lastTransitionTime": "2026-11-23T02:15:00Z"});
            made(name, "2026-11-23T02:15:00Z", json!({"phase": "Failed", "conditions": [condition]}))
        };
        assert_eq!(steps(json!({}), vec![lost("b")]), ["late b-again"]);
        assert!(steps(json!({}), vec![lost("b-again")]).is_empty(), "once");
    }

    #[test]
    fn deleting_with_the_dumps_keeps_pinned_and_foreign_ones() {
        let (schedule, validated) = example(json!({}));
        let mut pinned = good(20);
        pinned.spec.pinned = true;
        let mut earlier = good(21);
        earlier.annotations_mut().insert(SCHEDULE_UID.into(), "another".into());
        let mut of_another_cluster = good(19);
        of_another_cluster.status.as_mut().unwrap().location = Some("s3://backups/shop/other/shop/nightly/19".into());
        let backups = vec![pinned, earlier, of_another_cluster, good(22)];
        let observed = Observed { backups, ..Observed::default() };
        let step = removal(&schedule, &observed, &validated.job.destination, now()).unwrap();
        assert_eq!(named(&[step]), ["prune cluster/shop/nightly/2026-11-22T02:15:00Z"]);
    }

    #[test]
    fn the_time_of_the_last_run() {
        let (schedule, validated) = example(json!({}));
        let mut cron_job = applied(&schedule, &validated);
        cron_job.status = serde_json::from_value(json!({"lastScheduleTime": "2026-10-08T02:15:00Z"})).unwrap();
        let jobs = vec![job("nightly-dump-29858535", json!({}))];
        let observed = Observed { cron_job: Some(cron_job), jobs, ..Observed::default() };
        assert_eq!(last_scheduled(&schedule, &observed), Some("2026-10-09T02:15:00Z".parse().unwrap()));
    }
}
