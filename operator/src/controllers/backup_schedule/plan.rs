//! What is to be done for a schedule, in order. Pure: nothing to do means no write.

use super::cron_job;
use super::history::{History, phase};
use super::observe::{Observed, PruneState};
use super::retention::{self, Rules};
use super::validate::Validated;
use crate::agent::config::{backup_name, run_name, scheduled_time};
use crate::backup_jobs::jobs::config_of;
use crate::backup_jobs::names::bounded;
use crate::backup_jobs::names::location_in;
use crate::backup_jobs::order::{Site, created};
use crate::backup_jobs::pod::Image;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use pgrail_crds::annotations::{DATABASE_LABEL, JOB, MANAGED_BY, RECORDED, SCHEDULE_LABEL, SCHEDULE_UID};
use pgrail_crds::{BackupPhase, BackupSchedule, DatabaseBackup, DatabaseBackupSpec, LocalReference};
use std::collections::BTreeMap;

/// Dumps that one prune removes.
const PRUNED_AT_ONCE: usize = 50;
/// How long a failed prune stands before it is tried again.
const PRUNE_RETRY: SignedDuration = SignedDuration::from_mins(30);

/// One thing to do.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Write the CronJob.
    ApplyCronJob(Box<CronJob>),
    /// Record a run of the CronJob.
    Record {
        /// The Job that is marked as recorded.
        job: String,
        /// What records it.
        backup: Box<DatabaseBackup>,
    },
    /// Take the first backup.
    FirstRun(Box<DatabaseBackup>),
    /// Say on a backup why it is kept.
    SayWhyKept {
        /// The backup.
        backup: Box<DatabaseBackup>,
        /// Why.
        reasons: Vec<String>,
    },
    /// Delete the object of an old failure.
    Forget(String),
    /// Remove dumps from the store.
    StartPrune {
        /// Where they are.
        site: Box<Site>,
        /// Locations below the store's prefix.
        locations: Vec<String>,
    },
    /// Dumps are gone from the store: their objects go too, then the Job.
    FinishPrune {
        /// The Job.
        job: String,
        /// The objects.
        backups: Vec<String>,
    },
    /// Put a failed prune away, so that another one can be made.
    RetryPrune(String),
}

/// What the plan is made from.
pub(super) struct Basis<'a> {
    /// What is declared.
    pub(super) schedule: &'a BackupSchedule,
    /// The same, validated, where it is sound.
    pub(super) validated: Option<&'a Validated>,
    /// What there is.
    pub(super) observed: &'a Observed,
    /// What became of its runs.
    pub(super) history: &'a History,
    /// What pods run.
    pub(super) image: &'a Image,
    /// The time.
    pub(super) now: Timestamp,
}

/// Plans.
pub(super) fn plan(basis: &Basis<'_>) -> Result<Vec<Step>, serde_json::Error> {
    let mut steps = records(basis);
    if let Some(validated) = basis.validated {
        steps.extend(cron_job_step(basis, validated)?);
        steps.extend(first_run(basis, validated));
        steps.extend(retention_steps(basis, validated));
    }
    steps.extend(prune_over(basis));
    Ok(steps)
}

/// Whether another object has the CronJob's name.
pub(super) fn name_is_taken(schedule: &BackupSchedule, observed: &Observed) -> bool {
    observed.cron_job.as_ref().is_some_and(|cron_job| !cron_job::is_ours(cron_job, schedule))
}

fn cron_job_step(basis: &Basis<'_>, validated: &Validated) -> Result<Option<Step>, serde_json::Error> {
    if name_is_taken(basis.schedule, basis.observed) {
        return Ok(None);
    }
    let desired = cron_job::desired(basis.schedule, validated, basis.image)?;
    let must = match &basis.observed.cron_job {
        None => true,
        Some(current) => cron_job::must_apply(current, &desired)?,
    };
    Ok(must.then(|| Step::ApplyCronJob(Box::new(desired))))
}

/// Runs of the CronJob that nothing records yet.
fn records(basis: &Basis<'_>) -> Vec<Step> {
    let Some(cron_job) = basis.observed.cron_job.as_ref().filter(|it| cron_job::is_ours(it, basis.schedule)) else {
        return Vec::new();
    };
    let of_cron_job =
        |job: &&Job| job.owner_references().iter().any(|owner| Some(&owner.uid) == cron_job.metadata.uid.as_ref());
    let unrecorded = |job: &&Job| !job.annotations().contains_key(RECORDED);
    basis
        .observed
        .jobs
        .iter()
        .filter(of_cron_job)
        .filter(unrecorded)
        .map(|job| {
            let name = backup_name(&basis.schedule.name_any(), &job.name_any());
            Step::Record { job: job.name_any(), backup: Box::new(backup(basis.schedule, &name, Some(&job.name_any()))) }
        })
        .collect()
}

/// The first backup, at once: only of a schedule that nothing is known of. Its name follows from the schedule's age, so
/// that it is made once however often this is planned.
fn first_run(basis: &Basis<'_>, validated: &Validated) -> Option<Step> {
    let schedule = basis.schedule;
    let uid = schedule.metadata.uid.as_ref()?;
    let started = schedule.status.as_ref().is_some_and(|status| status.last_schedule_time.is_some());
    let known = basis.observed.backups.iter().any(|it| it.annotations().get(SCHEDULE_UID) == Some(uid));
    let due = schedule.spec.run_on_create
        && validated.suspended.is_none()
        && !started
        && !known
        && basis.observed.jobs.is_empty();
    let name = run_name(&schedule.name_any(), created(schedule));
    due.then(|| Step::FirstRun(Box::new(backup(schedule, &name, None))))
}

fn backup(schedule: &BackupSchedule, name: &str, job: Option<&str>) -> DatabaseBackup {
    let uid = schedule.uid().unwrap_or_default();
    let annotations = [(SCHEDULE_UID, Some(uid.as_str())), (JOB, job)];
    let labels = BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned()),
        (SCHEDULE_LABEL.to_owned(), schedule.name_any()),
        (DATABASE_LABEL.to_owned(), bounded(&schedule.spec.database_ref.name, 63)),
    ]);
    let spec = DatabaseBackupSpec {
        schedule_ref: Some(LocalReference { name: schedule.name_any() }),
        database_ref: None,
        storage: None,
        dump: None,
        pinned: false,
        deletion_policy: pgrail_crds::DeletionPolicy::Retain,
    };
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

fn retention_steps(basis: &Basis<'_>, validated: &Validated) -> Vec<Step> {
    let spec = &basis.schedule.spec;
    let site = &validated.order.site;
    let rules = Rules {
        schedule_uid: &site.identity.schedule_uid,
        store: &site.store.config.url,
        policy: &spec.retention,
        time_zone: validated.schedule.time_zone(),
        failures: usize::try_from(spec.failed_jobs_history_limit).unwrap_or(0),
    };
    let verdict = retention::judge(&basis.observed.backups, &rules);
    let named = |name: &str| basis.observed.backups.iter().find(|it| it.name_any() == name);
    let mut steps: Vec<Step> = verdict
        .kept
        .into_iter()
        .filter_map(|(name, reasons)| Some((named(&name)?, reasons)))
        .filter(|(backup, reasons)| backup.status.as_ref().is_none_or(|status| status.kept_because != *reasons))
        .map(|(backup, reasons)| Step::SayWhyKept { backup: Box::new(backup.clone()), reasons })
        .collect();
    steps.extend(verdict.forgotten.into_iter().map(Step::Forget));
    // Not after a failed run: whatever made it fail may make the others the last good ones.
    let last_failed = basis.history.last.as_ref().is_some_and(|last| last.failure.is_some());
    let may_prune = basis.observed.prune.is_none() && !basis.history.running && !last_failed;
    if may_prune && !verdict.removed.is_empty() {
        let locations = verdict.removed.into_iter().map(|(_, location)| location).take(PRUNED_AT_ONCE).collect();
        steps.push(Step::StartPrune { site: Box::new(site.clone()), locations });
    }
    steps
}

/// What becomes of a prune that is over.
pub(super) fn prune_over(basis: &Basis<'_>) -> Option<Step> {
    let prune = basis.observed.prune.as_ref()?;
    let job = prune.job.name_any();
    match &prune.state {
        PruneState::Running => None,
        PruneState::Done => {
            let config = config_of(&prune.job)?;
            let gone = config.prune.unwrap_or_default().locations;
            let is_gone = |backup: &&DatabaseBackup| {
                phase(backup) == BackupPhase::Succeeded
                    && location_in(&config.store.url, backup).is_some_and(|location| gone.contains(&location))
            };
            let backups = basis.observed.backups.iter().filter(is_gone).map(ResourceExt::name_any).collect();
            Some(Step::FinishPrune { job, backups })
        }
        PruneState::Failed { since, .. } => {
            (basis.now.duration_since(*since) >= PRUNE_RETRY).then_some(Step::RetryPrune(job))
        }
    }
}

/// What removes all dumps of a schedule that is being deleted, those that are pinned excepted.
pub(super) fn removal(basis: &Basis<'_>, site: &Site) -> Option<Step> {
    if basis.observed.prune.is_some() {
        return prune_over(basis);
    }
    let locations: Vec<String> = doomed(basis.schedule, basis.observed)
        .filter_map(|it| location_in(&site.store.config.url, it))
        .take(PRUNED_AT_ONCE)
        .collect();
    (!locations.is_empty()).then(|| Step::StartPrune { site: Box::new(site.clone()), locations })
}

fn doomed<'a>(schedule: &'a BackupSchedule, observed: &'a Observed) -> impl Iterator<Item = &'a DatabaseBackup> {
    let uid = schedule.metadata.uid.as_ref();
    let is_ours = move |it: &&DatabaseBackup| uid.is_some() && it.annotations().get(SCHEDULE_UID) == uid;
    observed.backups.iter().filter(is_ours).filter(|it| phase(it) == BackupPhase::Succeeded && !it.spec.pinned)
}

/// When the newest run of the CronJob was due.
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
    use crate::controllers::backup_schedule::history;
    use crate::controllers::backup_schedule::observe::Prune;
    use crate::controllers::backup_schedule::validate::example;
    use serde_json::{Value, json};

    fn planned(schedule: &BackupSchedule, validated: Option<&Validated>, observed: &Observed) -> Vec<Step> {
        let history = history::read(&observed.backups);
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let image = Image::for_tests();
        plan(&Basis { schedule, validated, observed, history: &history, image: &image, now }).unwrap()
    }

    fn named(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|step| match step {
                Step::ApplyCronJob(_) => "apply".into(),
                Step::Record { job, backup } => format!("record {job} as {}", backup.name_any()),
                Step::FirstRun(backup) => format!("first {}", backup.name_any()),
                Step::SayWhyKept { backup, reasons } => format!("keep {}: {}", backup.name_any(), reasons.join(",")),
                Step::Forget(name) => format!("forget {name}"),
                Step::StartPrune { locations, .. } => format!("prune {}", locations.join(",")),
                Step::FinishPrune { backups, .. } => format!("pruned {}", backups.join(",")),
                Step::RetryPrune(_) => "retry prune".into(),
            })
            .collect()
    }

    fn applied(schedule: &BackupSchedule, validated: &Validated) -> CronJob {
        let mut cron_job = cron_job::desired(schedule, validated, &Image::for_tests()).unwrap();
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
    fn nothing_to_do_is_nothing_done() {
        let (schedule, validated) = example(last_only());
        let observed = Observed {
            cron_job: Some(applied(&schedule, &validated)),
            jobs: vec![job("nightly-dump-29858535", json!({"pgrail.dev/recorded": "true"}))],
            backups: vec![good(22)],
            prune: None,
        };
        assert_eq!(named(&planned(&schedule, Some(&validated), &observed)), Vec::<String>::new());
    }

    #[test]
    fn the_first_backup_is_taken_once_and_not_when_suspended() {
        for patch in [json!({"runOnCreate": false}), json!({"suspend": true})] {
            let (schedule, validated) = example(patch);
            assert_eq!(named(&planned(&schedule, Some(&validated), &Observed::default())), ["apply"]);
        }
        let (mut schedule, validated) = example(json!({}));
        schedule.status = serde_json::from_value(json!({"lastScheduleTime": "2026-11-20T12:00:00Z"})).unwrap();
        assert_eq!(named(&planned(&schedule, Some(&validated), &Observed::default())), ["apply"]);
    }

    #[test]
    fn every_job_of_the_cron_job_is_recorded_even_while_the_spec_is_bad() {
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
    fn a_foreign_cron_job_is_left_alone() {
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
                .filter(|it| it.contains("prune"))
                .collect::<Vec<_>>()
        };
        let (first, second) =
            ("cluster/shop/nightly/2026-11-20T02:15:00Z", "cluster/shop/nightly/2026-11-21T02:15:00Z");
        assert_eq!(with(None, None), [format!("prune {first},{second}")]);
        assert!(with(Some(made("f", "2026-11-23T02:15:00Z", failed("x"))), None).is_empty());
        assert!(with(Some(made("r", "2026-11-23T02:15:00Z", json!({"phase": "Running"}))), None).is_empty());

        let template = prune_job(&validated.order.site, &Image::for_tests(), vec![first.into()], None).unwrap();
        let job = crate::backup_jobs::jobs::job_of(template, "nightly-retention");
        let prune = |state| Some(Prune { job: job.clone(), state });
        assert!(with(None, prune(PruneState::Running)).is_empty());
        assert_eq!(with(None, prune(PruneState::Done)), ["pruned b20"]);
        let failed = |since: &str| PruneState::Failed { why: "no".into(), since: since.parse().unwrap() };
        assert!(with(None, prune(failed("2026-11-23T11:59:00Z"))).is_empty());
        assert_eq!(with(None, prune(failed("2026-11-23T11:30:00Z"))), ["retry prune"]);
    }

    #[test]
    fn deleting_with_its_dumps_spares_what_is_pinned_or_anothers() {
        let (schedule, validated) = example(json!({}));
        let mut pinned = good(20);
        pinned.spec.pinned = true;
        let mut earlier = good(21);
        earlier.annotations_mut().insert(SCHEDULE_UID.into(), "another".into());
        let observed = Observed { backups: vec![pinned, earlier, good(22)], ..Observed::default() };
        let history = history::read(&observed.backups);
        let image = Image::for_tests();
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let basis =
            Basis { schedule: &schedule, validated: None, observed: &observed, history: &history, image: &image, now };
        let step = removal(&basis, &validated.order.site).unwrap();
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
