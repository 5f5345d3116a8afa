//! The runs of a schedule and their results, from its `DatabaseBackup`s. Pure.

use super::validate::Validated;
use crate::backup_jobs::names::created;
use crate::backup_jobs::record::{counted, is_missing, is_of_database, phase, proof, schedule_uid, snapshot_time};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::annotations::DISCOVERED;
use pgrail_crds::conditions::STALLED;
use pgrail_crds::{BackupPhase, BackupSchedule, DatabaseBackup, StructuralDrill, VerificationLevel};
use pgrail_dump::PartialCause;
use std::cmp::Reverse;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Dumps that exist.
    pub(super) backups: i64,
    /// Of these, verified.
    pub(super) verified: i64,
    /// Snapshot time of the newest verified dump.
    pub(super) newest_verified: Option<Timestamp>,
    /// Why the newest dump does not count, if it does not.
    pub(super) newest_uncounted: Option<Rejection>,
    /// When the newest dump was complete.
    pub(super) last_successful: Option<Timestamp>,
    /// When the newest run was started.
    pub(super) last_started: Option<Timestamp>,
    /// When the newest run that succeeded was started.
    pub(super) newest_good: Option<Timestamp>,
    /// The newest run that has ended.
    pub(super) last: Option<Last>,
    /// Verification level of the newest dump.
    pub(super) newest_proof: Option<VerificationLevel>,
    /// Structural drill of the newest dump.
    pub(super) newest_structure: Option<StructuralDrill>,
    /// Failed runs since the last one that succeeded.
    pub(super) consecutive_failures: i64,
    pub(super) running: bool,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// Name of its `DatabaseBackup`.
    pub(super) name: String,
    pub(super) failure: Option<Failure>,
}

/// Why a run failed.
pub(super) type Failure = Rejection;

/// Which backups are a schedule's, and which of them count.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    pub(super) schedule_uid: &'a str,
    /// Unknown while the database cannot be read.
    pub(super) database_uid: Option<&'a str>,
    /// Causes of `partialBecause` that the schedule declares.
    pub(super) partial_because: Vec<&'static str>,
    pub(super) now: Timestamp,
}

impl<'a> Scope<'a> {
    pub(super) fn new(schedule: &'a BackupSchedule, validated: Option<&'a Validated>, now: Timestamp) -> Self {
        let dump = &schedule.spec.dump;
        let declared = [
            (&dump.schemas, PartialCause::Schemas),
            (&dump.exclude_tables, PartialCause::ExcludeTables),
            (&dump.exclude_table_data, PartialCause::ExcludeTableData),
        ];
        let declared = declared.into_iter().filter(|(patterns, _)| !patterns.is_empty());
        Self {
            schedule_uid: schedule.metadata.uid.as_deref().unwrap_or_default(),
            database_uid: validated.map(|validated| validated.job.database_uid.as_str()),
            partial_because: declared.map(|(_, cause)| cause.as_str()).collect(),
            now,
        }
    }

    /// A name is not enough: an earlier schedule may have had it, and have backed up another database. A backup by hand has
    /// no schedule's UID before its Job is created.
    pub(super) fn is_run(&self, backup: &DatabaseBackup) -> bool {
        let of_schedule = match schedule_uid(backup) {
            Some(uid) => uid == self.schedule_uid,
            None => phase(backup) == BackupPhase::Pending,
        };
        let of_database = self.database_uid.is_none_or(|uid| is_of_database(backup, uid));
        // A dump that was found in the store is no run.
        let is_run = !backup.annotations().contains_key(DISCOVERED);
        is_run && backup.metadata.deletion_timestamp.is_none() && of_schedule && of_database
    }

    pub(super) fn counted(&self, backup: &DatabaseBackup) -> Result<(), Rejection> {
        counted(backup, &self.partial_because, self.now)
    }
}

pub(super) fn read(backups: &[DatabaseBackup], scope: &Scope<'_>) -> History {
    let mut newest_first: Vec<_> = backups.iter().filter(|it| scope.is_run(it)).collect();
    newest_first.sort_by_key(|backup| Reverse((created(*backup), backup.name_any())));
    let with = |wanted: BackupPhase| newest_first.iter().filter(move |it| phase(it) == wanted);
    let ended: Vec<_> =
        newest_first.iter().filter(|it| matches!(phase(it), BackupPhase::Succeeded | BackupPhase::Failed)).collect();
    let failures = ended.iter().take_while(|it| phase(it) == BackupPhase::Failed).count();
    let completed = |it: &DatabaseBackup| it.status.as_ref()?.completion_time.as_ref().map(|time| time.0);
    let newest = with(BackupPhase::Succeeded).max_by_key(|it| snapshot_time(it));
    let present = with(BackupPhase::Succeeded).filter(|it| !is_missing(it)).max_by_key(|it| snapshot_time(it));
    let counted: Vec<_> = with(BackupPhase::Succeeded).filter(|it| scope.counted(it).is_ok()).collect();
    History {
        backups: number(with(BackupPhase::Succeeded).filter(|it| !is_missing(it)).count()),
        verified: number(counted.len()),
        newest_verified: counted.iter().map(|it| snapshot_time(it)).max(),
        newest_uncounted: newest.and_then(|it| scope.counted(it).err()),
        last_successful: with(BackupPhase::Succeeded).filter_map(|it| completed(it)).max(),
        last_started: newest_first.iter().map(|it| created(*it)).max(),
        newest_good: with(BackupPhase::Succeeded).map(|it| created(*it)).max(),
        last: ended.first().map(|it| Last { name: it.name_any(), failure: failure(it) }),
        newest_proof: present.map(|it| proof(it)),
        newest_structure: present.and_then(|it| it.status.as_ref()?.verification.as_ref()?.structure.clone()),
        consecutive_failures: number(failures),
        running: newest_first.iter().any(|it| is_running(it)),
    }
}

/// A rejected backup has no Job, and waits for its user.
fn is_running(backup: &DatabaseBackup) -> bool {
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    let is_rejected = conditions.into_iter().any(|condition| condition.type_ == STALLED && condition.status == "True");
    match phase(backup) {
        BackupPhase::Pending => !is_rejected,
        phase => matches!(phase, BackupPhase::Running | BackupPhase::Verifying),
    }
}

fn failure(backup: &DatabaseBackup) -> Option<Failure> {
    let status = backup.status.as_ref().filter(|status| status.phase == Some(BackupPhase::Failed))?;
    let stalled = status.conditions.iter().find(|condition| condition.type_ == STALLED);
    let reason = stalled.and_then(|condition| Reason::named(&condition.reason)).unwrap_or(Reason::Failed);
    Some(Failure { reason, message: status.message.clone() })
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, failed, succeeded};
    use serde_json::json;

    fn read_all(backups: &[DatabaseBackup]) -> History {
        let scope = Scope {
            schedule_uid: "schedule-uid",
            database_uid: Some("database-uid"),
            partial_because: vec!["Schemas"],
            now: "2026-11-25T00:00:00Z".parse().unwrap(),
        };
        read(backups, &scope)
    }

    #[test]
    fn a_schedule_inherits_nothing_of_its_name() {
        let time = "2026-11-20T02:15:00Z";
        let mut earlier_schedule = backup("a", time, succeeded(time));
        earlier_schedule.annotations_mut().insert(pgrail_crds::annotations::SCHEDULE_UID.into(), "earlier".into());
        let mut other_database = backup("b", time, succeeded(time));
        other_database.status.as_mut().unwrap().database_uid = Some("earlier".into());
        assert_eq!(read_all(&[earlier_schedule, other_database]), History::default());
    }

    #[test]
    fn partial_and_future_dumps_do_not_count() {
        let time = "2026-11-20T02:15:00Z";
        let with = |field: &str, value: serde_json::Value| {
            let mut status = succeeded(time);
            status[field] = value;
            let history = read_all(&[backup("a", time, status)]);
            (history.backups, history.newest_verified.is_some(), history.newest_uncounted.map(|it| it.reason))
        };
        assert_eq!(with("partialBecause", json!(["Schemas"])), (1, true, None));
        assert_eq!(with("partialBecause", json!(["ExcludeTables"])), (1, false, Some(Reason::Partial)));
        assert_eq!(with("startTime", json!("2026-11-26T00:00:00Z")), (1, false, Some(Reason::ClockSkew)));
    }

    #[test]
    fn missing_dumps_and_dumps_found_in_the_store_do_not_count() {
        let time = "2026-11-20T02:15:00Z";
        let mut missing = succeeded(time);
        missing["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "Missing", "message": "",
            "lastTransitionTime": time}]);
        let history = read_all(&[backup("a", time, missing)]);
        assert_eq!((history.backups, history.verified, history.newest_proof), (0, 0, None));
        assert_eq!(history.newest_uncounted.unwrap().reason, Reason::Missing);
        let found = |status| {
            let mut found = backup("found", time, status);
            found.annotations_mut().insert(DISCOVERED.into(), "x".into());
            read_all(&[found])
        };
        assert_eq!(found(json!({"phase": "Discovered", "startTime": time})), History::default());
        assert_eq!(found(json!({})), History::default(), "before its status is written");
    }

    #[test]
    fn a_rejected_backup_is_not_running() {
        let pending =
            |conditions| backup("a", "2026-11-20T02:15:00Z", json!({"phase": "Pending", "conditions": conditions}));
        let stalled = json!([{"type": "Stalled", "status": "True", "reason": "SecretMissing", "message": "",
            "lastTransitionTime": "2026-11-20T02:15:00Z"}]);
        assert!(read_all(&[pending(json!([]))]).running);
        assert!(!read_all(&[pending(stalled)]).running);
    }

    #[test]
    fn only_verified_backups_count_as_verified() {
        let history = read_all(&[
            backup("a", "2026-11-20T02:15:00Z", succeeded("2026-11-20T02:15:01Z")),
            backup("b", "2026-11-21T02:15:00Z", json!({"phase": "Succeeded", "startTime": "2026-11-21T02:15:01Z"})),
            backup("c", "2026-11-22T02:15:00Z", failed("disk full")),
            backup("d", "2026-11-23T02:15:00Z", failed("disk still full")),
            backup("e", "2026-11-24T02:15:00Z", json!({"phase": "Running"})),
        ]);
        assert_eq!((history.backups, history.verified, history.consecutive_failures), (2, 1, 2));
        assert_eq!(history.newest_verified, Some("2026-11-20T02:15:01Z".parse().unwrap()));
        assert_eq!(history.newest_proof, Some(VerificationLevel::None));
        assert_eq!(
            history.last,
            Some(Last { name: "d".into(), failure: Some(Rejection::new(Reason::Failed, "disk still full")) })
        );
        assert!(history.running);
        assert_eq!(read_all(&[]), History::default());
    }

    #[test]
    fn a_success_resets_consecutive_failures() {
        let history = read_all(&[
            backup("c", "2026-11-22T02:15:00Z", failed("disk full")),
            backup("d", "2026-11-23T02:15:00Z", succeeded("2026-11-23T02:15:01Z")),
        ]);
        assert_eq!((history.consecutive_failures, history.last.unwrap().failure), (0, None));
    }
}
