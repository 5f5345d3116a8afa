//! The store's own list against the backups of a schedule: what is missing, what is adopted, and whether another control plane
//! is at work. Pure.
//!
//! What a store contains is not trusted: a dump that was found there is recorded, but counts for nothing and takes the place of
//! no other.

use super::history::History;
use crate::agent::config::AgentConfig;
use crate::backup_jobs::names::{backup_name, bounded, created, location_in};
use crate::backup_jobs::record::{has_dump, is_missing, phase, proof, ready};
use crate::kubernetes::annotation::is_true;
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::rejection::Reason;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use pgrail_crds::annotations::{DATABASE_LABEL, DISCOVERED, MANAGED_BY, SCHEDULE_LABEL, SCHEDULE_UID, TAKE_OVER};
use pgrail_crds::conditions::{READY, STALLED};
use pgrail_crds::{
    BackupPhase, BackupSchedule, BackupVerification, Condition, DatabaseBackup, DatabaseBackupSpec,
    DatabaseBackupStatus, LostClusterCheck, StoreCheck, Time, VerificationLevel,
};
use pgrail_dump::{Found, Inventory, KNOWN_AT_MOST, Known, ScheduleIdentity, StoreUrl};
use std::collections::{BTreeMap, BTreeSet};

/// How often the store is compared, besides after every run.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// The most dumps of a schedule that were found in the store and are recorded, with those of a lost cluster.
const ADOPTED_AT_MOST: usize = 100;
/// How many dumps of another control plane are listed.
const LISTED: usize = 8;
/// How far a completion time may be ahead.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

const NOT_THERE: &str = "the dump is not in the store";
const OTHER_SIZE: &str = "the archive in the store has another size than the dump had";
const FOUND: &str =
    "found in the store, and not verified by this cluster: it does not count, and the retention keeps it";

const FOUND_OF_CLUSTER: &str =
    "found in the store, and not verified by this cluster: it does not count, and is never removed from the store";

/// The result of one comparison.
#[derive(Clone, Debug)]
pub(super) struct Evaluated {
    pub(super) marks: Vec<Mark>,
    pub(super) adopted: Vec<DatabaseBackup>,
    pub(super) check: StoreCheck,
    /// Whether dumps of another control plane were adopted: the annotation has served its purpose.
    pub(super) taken_over: bool,
}

/// A backup whose condition `Ready` changes.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) backup: DatabaseBackup,
    pub(super) ready: Condition,
}

impl Mark {
    pub(super) fn is_missing(&self) -> bool {
        self.ready.reason == Reason::Missing.as_str()
    }
}

/// Whether the store is to be compared now: for a new schedule, after every successful run, daily, and while there is more to
/// adopt.
pub(super) fn is_due(schedule: &BackupSchedule, history: &History, has_more: bool, now: Timestamp) -> bool {
    // Of a new schedule: an earlier one of the same name may have left dumps, which a user waits for after a disaster.
    let Some(check) = last(schedule) else { return true };
    let last = check.time.0;
    history.newest_good.is_some_and(|started| started >= last)
        || now.duration_since(last) >= INTERVAL
        || (!check.split_brain.is_empty() && is_true(schedule, TAKE_OVER))
        || has_more
}

/// The last comparison for this schedule. An object that was restored from a backup with its status has that for an earlier one of its
/// name.
pub(super) fn last(schedule: &BackupSchedule) -> Option<&StoreCheck> {
    let check = schedule.status.as_ref().and_then(|status| status.store_check.as_ref());
    check.filter(|check| check.time.0 >= created(schedule))
}

/// Whether the last comparison left dumps that the next one can adopt.
pub(super) fn has_more(schedule: &BackupSchedule, backups: &[DatabaseBackup]) -> bool {
    let check = schedule.status.as_ref().and_then(|status| status.store_check.as_ref());
    let adopted = discovered(backups).filter(|it| check.is_some_and(|check| created(*it) >= check.time.0)).count();
    let has_unrecorded = |check: &StoreCheck| {
        check.unrecorded > 0 || check.lost_cluster.as_ref().is_some_and(|lost| lost.unrecorded > 0)
    };
    check.is_some_and(|check| has_unrecorded(check) && check.split_brain.is_empty())
        && adopted > 0
        && discovered(backups).count() < ADOPTED_AT_MOST
}

/// Whether another control plane writes dumps of this schedule: then nothing is removed.
pub(super) fn is_split(schedule: &BackupSchedule) -> bool {
    let check = schedule.status.as_ref().and_then(|status| status.store_check.as_ref());
    check.is_some_and(|check| !check.split_brain.is_empty())
}

fn discovered(backups: &[DatabaseBackup]) -> impl Iterator<Item = &DatabaseBackup> {
    backups.iter().filter(|it| phase(it) == BackupPhase::Discovered)
}

/// The recorded dumps in the directory of a schedule, the newest if there are too many.
pub(super) fn known(backups: &[DatabaseBackup], store: &StoreUrl, identity: &ScheduleIdentity) -> Vec<Known> {
    let with_dump = backups.iter().filter(|it| has_dump(it));
    let mut known: Vec<Known> =
        with_dump.filter_map(|backup| Some(Known(run_of(backup, store, identity)?, size(backup)))).collect();
    known.sort_by(|a, b| b.0.cmp(&a.0));
    known.dedup_by(|a, b| a.0 == b.0);
    known.truncate(KNOWN_AT_MOST);
    known
}

/// The directory of a dump below that of its schedule.
fn run_of(backup: &DatabaseBackup, store: &StoreUrl, identity: &ScheduleIdentity) -> Option<String> {
    let location = location_in(store, backup)?;
    let run = location.strip_prefix(&identity.directory().ok()?)?.strip_prefix('/')?;
    (!run.is_empty() && !run.contains('/')).then(|| run.to_owned())
}

fn size(backup: &DatabaseBackup) -> Option<u64> {
    backup.status.as_ref()?.size_bytes.and_then(|bytes| u64::try_from(bytes).ok())
}

/// What is compared: the objects as they are now, and what the Job was asked.
pub(super) struct Basis<'a> {
    pub(super) schedule: &'a BackupSchedule,
    pub(super) backups: &'a [DatabaseBackup],
    /// Jobs of dumps.
    pub(super) jobs: &'a [Job],
    /// The configuration of the inventory's Job.
    pub(super) config: &'a AgentConfig,
    /// When that Job was created.
    pub(super) time: Timestamp,
    pub(super) now: Timestamp,
}

pub(super) fn evaluate(basis: &Basis<'_>, inventory: &Inventory) -> Evaluated {
    let known = basis.known();
    let ours = &basis.config.identity;
    let is_recorded = |found: &&Found| basis.is_recorded(found, ours);
    // A run that has not ended is recorded when it has.
    let unrecorded: Vec<_> =
        inventory.unknown.iter().filter(|found| !is_recorded(found) && !basis.is_running(found)).collect();
    let baseline = basis.baseline();
    // A run of an earlier schedule may have ended after this one was created.
    let is_newer = |found: &&&Found| {
        found.completion_time > baseline && found.earlier_schedule.is_none() && !basis.is_lost_result(found)
    };
    let newer: Vec<_> = unrecorded.iter().filter(is_newer).copied().collect();
    let taken_over = !newer.is_empty() && is_true(basis.schedule, TAKE_OVER);
    let split_brain: Vec<_> =
        newer.iter().filter(|_| !taken_over).take(LISTED).map(|found| found.run.clone()).collect();
    let room = ADOPTED_AT_MOST.saturating_sub(discovered(basis.backups).count());
    // While it is not known which control plane is the right one, nothing is recorded.
    let room = if split_brain.is_empty() { room } else { 0 };
    let mut adopted: Vec<_> = unrecorded.iter().take(room).map(|found| basis.adopted(found, ours)).collect();
    let unadopted = unrecorded.len() - adopted.len();
    let (of_lost, lost_cluster) = basis.of_lost(inventory, room - adopted.len()).unzip();
    adopted.extend(of_lost.into_iter().flatten());
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let completed = basis.compared(known).filter_map(completion);
    let of_others = newer.iter().filter(|_| taken_over).map(|found| found.completion_time);
    let newest = completed
        .chain(of_others)
        .max()
        .map_or(baseline, |newest| newest.min(basis.now + CLOCK_TOLERANCE).max(baseline));
    Evaluated {
        marks: basis.marks(inventory),
        check: StoreCheck {
            time: Time(whole_seconds(basis.time)),
            dumps: i64::try_from(inventory.published).unwrap_or(i64::MAX),
            missing: number(inventory.missing.len() + inventory.incomplete.len()),
            unrecorded: number(unadopted).saturating_add_unsigned(inventory.not_listed),
            unreadable: i64::try_from(inventory.unreadable).unwrap_or(i64::MAX),
            // It stays where it was until the other control plane's dumps are gone, or are taken over.
            newest_time: Time(whole_seconds(if split_brain.is_empty() { newest } else { baseline })),
            split_brain,
            lost_cluster,
            other_clusters: inventory.clusters.clone(),
        },
        adopted,
        taken_over,
    }
}

/// Rounded up: the manifest has fractions of a second, and the status has none.
fn completion(backup: &DatabaseBackup) -> Option<Timestamp> {
    backup.status.as_ref()?.completion_time.as_ref().map(|time| time.0 + SignedDuration::from_secs(1))
}

impl Basis<'_> {
    fn run_of(&self, backup: &DatabaseBackup, identity: &ScheduleIdentity) -> Option<String> {
        run_of(backup, &self.config.store.url, identity)
    }

    fn is_recorded(&self, found: &Found, identity: &ScheduleIdentity) -> bool {
        self.backups.iter().any(|it| self.run_of(it, identity).as_ref() == Some(&found.run))
    }

    /// The schedule's own dumps that were compared.
    fn known(&self) -> &[Known] {
        self.config.inventory.as_ref().map_or(&[], |config| &config.known)
    }

    /// The lost cluster that was compared, too.
    fn lost(&self) -> Option<(ScheduleIdentity, &[Known])> {
        let lost = self.config.inventory.as_ref()?.lost.as_ref()?;
        Some((self.config.identity.in_cluster(&lost.cluster_id), &lost.known))
    }

    /// Dumps of a lost cluster say nothing about this control plane, and are never removed: their schedule has another UID.
    fn of_lost(&self, inventory: &Inventory, room: usize) -> Option<(Vec<DatabaseBackup>, LostClusterCheck)> {
        let (theirs, _) = self.lost()?;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut check = LostClusterCheck {
            id: theirs.cluster_id.clone(),
            dumps: 0,
            unrecorded: 0,
            unreadable: 0,
            failure: inventory.lost_failure.as_ref().map(|failure| format!("{}: {}", failure.reason, failure.message)),
        };
        let Some(found) = &inventory.lost else { return Some((Vec::new(), check)) };
        let unrecorded: Vec<_> = found
            .unknown
            .iter()
            .filter(|found| found.earlier_schedule.is_some() && !self.is_recorded(found, &theirs))
            .collect();
        let adopted: Vec<_> = unrecorded.iter().take(room).map(|found| self.adopted(found, &theirs)).collect();
        check.dumps = number(found.published);
        check.unrecorded = number((unrecorded.len() - adopted.len()) as u64 + found.not_listed);
        check.unreadable = number(found.unreadable + found.foreign);
        Some((adopted, check))
    }

    /// Dumps that were completed until then were recorded when the store was last compared.
    fn baseline(&self) -> Timestamp {
        let check = self.schedule.status.as_ref().and_then(|status| status.store_check.as_ref());
        if let Some(check) = check {
            return check.newest_time.0;
        }
        let known = self.known();
        self.compared(known).filter_map(completion).max().unwrap_or_else(|| created(self.schedule))
    }

    /// Backups of this control plane whose dumps were compared.
    fn compared(&self, known: &[Known]) -> impl Iterator<Item = &DatabaseBackup> {
        let runs: BTreeSet<String> = known.iter().map(|Known(run, _)| run.clone()).collect();
        let succeeded = self.backups.iter().filter(|it| phase(it) == BackupPhase::Succeeded);
        succeeded.filter(move |it| self.run_of(it, &self.config.identity).is_some_and(|run| runs.contains(&run)))
    }

    fn is_running(&self, found: &Found) -> bool {
        let of_backup = self.backups.iter().find(|it| it.name_any() == found.backup_name).map(phase);
        let runs = |phase| matches!(phase, BackupPhase::Pending | BackupPhase::Running | BackupPhase::Verifying);
        let of_job = |job: &Job| backup_name(&self.schedule.name_any(), &job.name_any()) == found.backup_name;
        of_backup.map_or_else(|| self.jobs.iter().any(of_job), runs)
    }

    /// Whether the run of this dump is recorded as one whose result was lost: then its dump is not another's.
    fn is_lost_result(&self, found: &Found) -> bool {
        let is_lost = |backup: &DatabaseBackup| {
            let conditions = backup.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == STALLED && it.reason == Reason::ResultLost.as_str())
        };
        self.backups.iter().any(|it| it.name_any() == found.backup_name && is_lost(it))
    }

    fn marks(&self, inventory: &Inventory) -> Vec<Mark> {
        let mut marks = self.marks_in(&self.config.identity, self.known(), inventory);
        if let Some(((theirs, known), inventory)) = self.lost().zip(inventory.lost.as_deref()) {
            marks.extend(self.marks_in(&theirs, known, inventory));
        }
        marks
    }

    fn marks_in(&self, identity: &ScheduleIdentity, known: &[Known], inventory: &Inventory) -> Vec<Mark> {
        let mut marks = Vec::new();
        for backup in self.backups.iter().filter(|it| has_dump(it) && it.metadata.deletion_timestamp.is_none()) {
            let run = self.run_of(backup, identity);
            let position = run.and_then(|run| known.iter().position(|Known(known, _)| *known == run));
            let Some(position) = position else { continue };
            let problem = if inventory.missing.has(position) {
                Some(NOT_THERE)
            } else {
                inventory.incomplete.has(position).then_some(OTHER_SIZE)
            };
            if problem.is_some() != is_missing(backup) {
                marks.push(Mark { backup: backup.clone(), ready: self.ready(backup, problem) });
            }
        }
        marks
    }

    fn ready(&self, backup: &DatabaseBackup, problem: Option<&str>) -> Condition {
        let status = backup.status.clone().unwrap_or_default();
        let location = status.location.as_deref().unwrap_or_default();
        let (value, reason, message) = match problem {
            Some(problem) => (
                Status::False,
                Reason::Missing,
                format!(
                    "{problem}: {location}. It was removed or changed by another program. If it cannot be recovered, delete this object"
                ),
            ),
            None if phase(backup) == BackupPhase::Discovered => {
                (Status::Unknown, Reason::Discovered, status.message.clone())
            }
            None => {
                let (value, reason, proof) = ready(proof(backup));
                (value, reason, format!("the dump is in the store again: {proof}"))
            }
        };
        condition(&status.conditions, backup.metadata.generation, self.now, (value, reason, &message))
    }

    /// The object for a dump that was found. Its name is not the one that the manifest claims: that can be a future run's.
    fn adopted(&self, found: &Found, identity: &ScheduleIdentity) -> DatabaseBackup {
        let schedule = self.schedule;
        let spec = DatabaseBackupSpec::of_schedule(schedule.name_any());
        let run = found.run.to_ascii_lowercase().replace(['_', '.'], "-");
        let run = bounded(run.trim_end_matches('-'), 100);
        // Two clusters can have a run of the same name.
        let of_cluster = self.is_foreign(identity).then(|| identity.cluster_id.get(..8)).flatten();
        let of_cluster = of_cluster.map(|id| format!("-{id}")).unwrap_or_default();
        let name = format!("{}-found-{run}{of_cluster}", bounded(&schedule.name_any(), 100));
        let mut backup = DatabaseBackup::new(&name, spec);
        let labels = [
            ("app.kubernetes.io/managed-by", MANAGED_BY.to_owned()),
            (SCHEDULE_LABEL, schedule.name_any()),
            (DATABASE_LABEL, bounded(&schedule.spec.database_ref.name, 63)),
        ];
        let annotations = [(SCHEDULE_UID, self.schedule_uid(found).to_owned()), (DISCOVERED, found.run.clone())];
        let owned = |pair: (&str, String)| (pair.0.to_owned(), pair.1);
        backup.metadata = ObjectMeta {
            name: Some(name),
            namespace: schedule.namespace(),
            labels: Some(labels.into_iter().map(owned).collect::<BTreeMap<_, _>>()),
            annotations: Some(annotations.into_iter().map(owned).collect()),
            ..ObjectMeta::default()
        };
        backup.status = Some(self.status_of(found, identity));
        backup
    }

    fn is_foreign(&self, identity: &ScheduleIdentity) -> bool {
        identity.cluster_id != self.config.identity.cluster_id
    }

    fn schedule_uid<'b>(&'b self, found: &'b Found) -> &'b str {
        found.earlier_schedule.as_ref().unwrap_or(&self.config.identity.schedule_uid)
    }

    fn status_of(&self, found: &Found, identity: &ScheduleIdentity) -> DatabaseBackupStatus {
        let number = |value: u64| i64::try_from(value).ok();
        let directory = identity.directory().unwrap_or_default();
        let message = if self.is_foreign(identity) {
            format!("of the cluster {}, {FOUND_OF_CLUSTER}", identity.cluster_id)
        } else {
            FOUND.to_owned()
        };
        let ready = condition(&[], Some(1), self.now, (Status::Unknown, Reason::Discovered, &message));
        DatabaseBackupStatus {
            phase: Some(BackupPhase::Discovered),
            location: Some(self.config.store.url.join(&format!("{directory}/{}", found.run))),
            start_time: Some(Time(whole_seconds(found.snapshot_time))),
            completion_time: Some(Time(whole_seconds(found.completion_time))),
            size_bytes: number(found.size_bytes),
            tables: number(found.tables),
            rows: number(found.rows),
            sha256: Some(found.sha256.clone()),
            manifest_sha256: Some(found.manifest_sha256.clone()),
            verification: Some(BackupVerification { level: VerificationLevel::None, time: None, structure: None }),
            partial: Some(found.partial),
            encrypted: found.encrypted.then_some(true),
            schedule_uid: Some(self.schedule_uid(found).to_owned()),
            database_uid: Some(found.database_uid.clone()),
            message,
            observed_generation: Some(1),
            conditions: vec![ready],
            ..DatabaseBackupStatus::default()
        }
    }
}

fn condition(
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
    (value, reason, message): (Status, Reason, &str),
) -> Condition {
    let mut conditions = Conditions::new(previous, generation, now);
    conditions.set(READY, value, reason, message);
    conditions.finish().remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::config::InventoryConfig;
    use crate::backup_jobs::examples;
    use crate::controllers::backup_schedule::validate::example;
    use pgrail_dump::LostCluster;
    use serde_json::{Value, json};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A backup whose dump is in the directory `<day>`.
    fn good(day: u32) -> DatabaseBackup {
        let time = format!("2026-11-{day:02}T02:15:00Z");
        let mut status = examples::succeeded(&time);
        status["location"] = json!(format!("s3://backups/shop/cluster/shop/nightly/{}", run(day)));
        status["sizeBytes"] = json!(day);
        examples::backup(&format!("b{day}"), &time, status)
    }

    fn run(day: u32) -> String {
        format!("202611{day:02}T021500Z-abc")
    }

    fn found(day: u32, name: &str) -> Found {
        let time = at(&format!("2026-11-{day:02}T02:15:00.5Z"));
        Found {
            run: run(day),
            backup_name: name.into(),
            database_uid: "database-uid".into(),
            earlier_schedule: None,
            snapshot_time: time,
            completion_time: time,
            size_bytes: 7,
            sha256: "ab".into(),
            manifest_sha256: "cd".into(),
            tables: 1,
            rows: 2,
            partial: false,
            encrypted: false,
        }
    }

    const LOST: &str = "11111111-2222-3333-4444-555555555555";

    struct Case {
        schedule: BackupSchedule,
        backups: Vec<DatabaseBackup>,
        /// Whether the lost cluster is compared, too.
        lost: bool,
    }

    impl Case {
        fn new(backups: Vec<DatabaseBackup>) -> Self {
            Self { schedule: example(json!({})).0, backups, lost: false }
        }

        /// After an earlier comparison, when the newest dump was of that day.
        fn compared(mut self, newest: u32) -> Self {
            let check = json!({"time": "2026-11-22T03:00:00Z", "dumps": 1, "missing": 0, "unrecorded": 0, "unreadable": 0,
                "newestTime": format!("2026-11-{newest:02}T02:15:01Z")});
            self.schedule.status = Some(serde_json::from_value(json!({"storeCheck": check})).unwrap());
            self
        }

        fn evaluate(&self, inventory: Value) -> Evaluated {
            let validated = example(json!({})).1;
            let destination = validated.job.destination;
            let known_of = |identity: &ScheduleIdentity| known(&self.backups, &destination.store.config.url, identity);
            let lost = self.lost.then(|| LostCluster {
                cluster_id: LOST.into(),
                known: known_of(&destination.identity.in_cluster(LOST)),
            });
            let known = known_of(&destination.identity);
            let config = AgentConfig {
                addresses: None,
                identity: destination.identity,
                store: destination.store.config,
                dump: None,
                inventory: Some(InventoryConfig { known, lost, find_clusters: false }),
                prune: None,
                restore: None,
                drill: None,
            };
            let now = at("2026-11-23T12:00:00Z");
            let basis =
                Basis { schedule: &self.schedule, backups: &self.backups, jobs: &[], config: &config, time: now, now };
            let mut full = serde_json::to_value(Inventory::default()).unwrap();
            for (field, value) in inventory.as_object().unwrap() {
                full[field] = value.clone();
            }
            evaluate(&basis, &serde_json::from_value(full).unwrap())
        }
    }

    fn marked(evaluated: &Evaluated) -> Vec<String> {
        let mark = |it: &Mark| format!("{} {} {}", it.backup.name_any(), it.ready.status, it.ready.reason);
        evaluated.marks.iter().map(mark).collect()
    }

    #[test]
    fn missing_and_incomplete_dumps_are_reported_and_recover() {
        let mut case = Case::new(vec![good(20), good(21), good(22), good(23)]).compared(22);
        // Newest first: position 1 is of the 22nd, 3 of the 20th.
        let evaluated = case.evaluate(json!({"published": 3, "missing": "2", "incomplete": "8"}));
        assert_eq!(marked(&evaluated), ["b20 False Missing", "b22 False Missing"]);
        assert!(evaluated.marks[0].ready.message.contains("another size"));
        assert!(
            evaluated.marks[1].ready.message.contains("s3://backups/shop/cluster/shop/nightly/20261122T021500Z-abc")
        );
        assert_eq!((evaluated.check.missing, evaluated.check.dumps), (2, 3));
        assert_eq!(evaluated.check.newest_time.0, at("2026-11-23T02:15:01Z"));
        // Reported once, and taken back when the dump is there again.
        case.backups[2].status.as_mut().unwrap().conditions = vec![evaluated.marks[1].ready.clone()];
        assert_eq!(marked(&case.evaluate(json!({"published": 3, "missing": "2"}))), Vec::<String>::new());
        assert_eq!(marked(&case.evaluate(json!({"published": 4}))), ["b22 True ReadBack"]);
    }

    #[test]
    fn an_older_dump_without_an_object_is_adopted_and_a_newer_one_is_another_control_planes() {
        let case = Case::new(vec![good(22)]).compared(22);
        let evaluated = case.evaluate(json!({"published": 2, "unknown": [found(20, "b20")]}));
        assert_eq!(evaluated.adopted.len(), 1);
        let adopted = &evaluated.adopted[0];
        assert_eq!(adopted.name_any(), "nightly-found-20261120t021500z-abc");
        let status = adopted.status.as_ref().unwrap();
        assert_eq!(status.phase, Some(BackupPhase::Discovered));
        assert_eq!(status.location.as_deref(), Some("s3://backups/shop/cluster/shop/nightly/20261120T021500Z-abc"));
        assert!(evaluated.check.split_brain.is_empty() && !evaluated.taken_over);

        let evaluated = case.evaluate(json!({"published": 2, "unknown": [found(23, "b23"), found(20, "b20")]}));
        assert_eq!(evaluated.check.split_brain, [run(23)]);
        assert!(evaluated.adopted.is_empty(), "nothing is recorded while it is not known which one is right");
        assert_eq!((evaluated.check.unrecorded, evaluated.check.newest_time.0), (2, at("2026-11-22T02:15:01Z")));
    }

    #[test]
    fn dumps_of_an_earlier_schedule_are_recorded_as_its_own() {
        let earlier = Found { earlier_schedule: Some("earlier-uid".into()), encrypted: true, ..found(23, "b23") };
        let evaluated = Case::new(vec![good(22)]).compared(22).evaluate(json!({"published": 2, "unknown": [earlier]}));
        assert!(evaluated.check.split_brain.is_empty(), "its last run may have ended late");
        let adopted = &evaluated.adopted[0];
        let status = adopted.status.as_ref().unwrap();
        assert_eq!((status.schedule_uid.as_deref(), status.encrypted), (Some("earlier-uid"), Some(true)));
        assert_eq!(adopted.annotations()[SCHEDULE_UID], "earlier-uid");
    }

    #[test]
    fn dumps_of_a_lost_cluster_are_recorded_as_its_own_and_are_no_other_control_planes() {
        let theirs = |day, name| Found { earlier_schedule: Some("theirs".into()), ..found(day, name) };
        // Of the same name as a run that is in progress here, and newer than all of this cluster.
        let running = examples::backup("own", "2026-11-23T02:15:00Z", json!({"phase": "Running"}));
        let mut case = Case::new(vec![good(22), running]).compared(22);
        case.lost = true;
        let of_lost = |inventory: Value| {
            let mut lost = serde_json::to_value(Inventory::default()).unwrap();
            lost.as_object_mut().unwrap().extend(inventory.as_object().unwrap().clone());
            json!({"published": 1, "lost": lost})
        };
        let forged = Found { earlier_schedule: None, ..found(23, "forged") };
        let unknown = json!([theirs(23, "own"), forged]);
        let evaluated = case.evaluate(of_lost(json!({"published": 4, "foreign": 2, "unknown": unknown})));
        assert!(evaluated.check.split_brain.is_empty() && evaluated.marks.is_empty());
        assert_eq!((evaluated.check.dumps, evaluated.check.unrecorded), (1, 0), "the schedule's own");
        assert_eq!(evaluated.check.newest_time.0, at("2026-11-22T02:15:01Z"));
        let check = evaluated.check.lost_cluster.unwrap();
        assert_eq!((check.id.as_str(), check.dumps, check.unrecorded, check.unreadable), (LOST, 4, 0, 2));
        assert_eq!(evaluated.adopted.len(), 1);
        let adopted = evaluated.adopted[0].clone();
        assert_eq!(adopted.name_any(), "nightly-found-20261123t021500z-abc-11111111");
        assert_eq!(adopted.annotations()[SCHEDULE_UID], "theirs");
        let status = adopted.status.as_ref().unwrap();
        let location = format!("s3://backups/shop/{LOST}/shop/nightly/{}", run(23));
        assert_eq!((status.phase, status.location.as_deref()), (Some(BackupPhase::Discovered), Some(&*location)));
        assert!(status.message.contains(LOST), "{}", status.message);

        // It is recorded once, and missing if it is deleted there; not if the directory could not be listed.
        case.backups.push(adopted);
        let again = case.evaluate(of_lost(json!({"published": 1, "unknown": [theirs(23, "own")]})));
        assert!(again.adopted.is_empty() && again.marks.is_empty());
        let name = "nightly-found-20261123t021500z-abc-11111111";
        let deleted = case.evaluate(of_lost(json!({"missing": "1"})));
        assert_eq!(marked(&deleted), [format!("{name} False Missing")]);
        case.backups[2].status.as_mut().unwrap().conditions = vec![deleted.marks[0].ready.clone()];
        let back = case.evaluate(of_lost(json!({"published": 1})));
        assert_eq!(marked(&back), [format!("{name} Unknown Discovered")]);
        assert!(back.marks[0].ready.message.contains(LOST), "{}", back.marks[0].ready.message);
        let failure = json!({"phase": "inventory", "reason": "AccessDenied", "message": "no", "retryable": false});
        let failed = case.evaluate(json!({"published": 1, "lostFailure": failure}));
        assert!(failed.marks.is_empty() && failed.adopted.is_empty());
        assert_eq!(failed.check.lost_cluster.unwrap().failure.as_deref(), Some("AccessDenied: no"));

        // Nothing at all is recorded while another control plane is at work here.
        let mut split = of_lost(json!({"published": 1, "unknown": [theirs(20, "x")]}));
        split["unknown"] = json!([found(23, "b23")]);
        let split = case.evaluate(split);
        assert!(split.adopted.is_empty() && !split.check.split_brain.is_empty());
        assert_eq!(split.check.lost_cluster.unwrap().unrecorded, 1);
    }

    #[test]
    fn a_run_of_this_control_plane_is_not_anothers() {
        let with = |status: Value| {
            let own = examples::backup("own", "2026-11-23T02:15:00Z", status);
            let evaluated =
                Case::new(vec![good(22), own]).compared(22).evaluate(json!({"unknown": [found(23, "own")]}));
            (evaluated.check.split_brain.len(), evaluated.adopted.len())
        };
        assert_eq!(with(json!({"phase": "Verifying"})), (0, 0), "it is recorded when it has ended");
        let lost = json!([{"type": "Stalled", "status": "True", "reason": "ResultLost", "message": "",
            "lastTransitionTime": "2026-11-23T02:15:00Z"}]);
        assert_eq!(with(json!({"phase": "Failed", "conditions": lost})), (0, 1), "its result was lost");
        // The other control plane has the same schedule, and so the same names.
        assert_eq!(with(examples::succeeded("2026-11-23T02:15:00Z")), (1, 0));
    }

    #[test]
    fn a_comparison_for_an_earlier_schedule_of_its_name_is_not_its_own() {
        let due = |time: &str| {
            let mut schedule = Case::new(Vec::new()).compared(19).schedule;
            schedule.status.as_mut().unwrap().store_check.as_mut().unwrap().time = Time(at(time));
            is_due(&schedule, &History::default(), false, at("2026-11-20T12:05:00Z"))
        };
        assert!(due("2026-11-20T11:59:59Z"));
        assert!(!due("2026-11-20T12:00:00Z"));
    }

    #[test]
    fn the_annotation_takes_over() {
        let mut case = Case::new(vec![good(22)]).compared(22);
        case.schedule.annotations_mut().insert(TAKE_OVER.into(), "true".into());
        let evaluated = case.evaluate(json!({"unknown": [found(23, "b23"), found(20, "b20")]}));
        assert_eq!((evaluated.adopted.len(), evaluated.taken_over), (2, true));
        assert!(evaluated.check.split_brain.is_empty());
        assert_eq!(evaluated.check.newest_time.0, at("2026-11-23T02:15:00Z"));
    }

    #[test]
    fn the_number_of_adopted_dumps_is_bounded() {
        let of_day = |day: u32| {
            let status = json!({"phase": "Discovered", "location": format!("s3://backups/shop/cluster/shop/nightly/{}", run(day))});
            examples::backup(&format!("d{day}"), "2026-11-23T02:15:00Z", status)
        };
        let backups: Vec<_> = (100..199).map(of_day).collect();
        let case = Case::new(backups).compared(22);
        let evaluated = case.evaluate(json!({"unknown": [found(20, "x"), found(19, "y")], "notListed": 7}));
        assert_eq!((evaluated.adopted.len(), evaluated.check.unrecorded), (1, 8));
        assert!(!has_more(&case.schedule, &case.backups), "the last comparison left none");
    }

    #[test]
    fn a_dump_is_known_by_its_directory() {
        let mut elsewhere = good(21);
        elsewhere.status.as_mut().unwrap().location = Some("s3://other/cluster/shop/nightly/x".into());
        let mut sibling = good(20);
        sibling.status.as_mut().unwrap().location = Some("s3://backups/shop/cluster/shop/nightly-2/x".into());
        let failed = examples::backup("f", "2026-11-23T02:15:00Z", examples::failed("x"));
        let destination = example(json!({})).1.job.destination;
        let backups = [elsewhere, sibling, failed, good(19), good(22)];
        let known = known(&backups, &destination.store.config.url, &destination.identity);
        assert_eq!(known, [Known(run(22), Some(22)), Known(run(19), Some(19))]);
    }
}
