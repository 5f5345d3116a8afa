//! The runs of a schedule and their results, from its `DatabaseBackup`s. Pure.

use crate::backup_jobs::names::created;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{BackupPhase, DatabaseBackup, VerificationLevel};
use std::cmp::Reverse;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Dumps that exist.
    pub(super) backups: i64,
    /// Of these, verified.
    pub(super) verified: i64,
    /// Snapshot time of the newest verified dump.
    pub(super) newest_verified: Option<Timestamp>,
    /// When the newest dump was complete.
    pub(super) last_successful: Option<Timestamp>,
    /// When the newest run was started.
    pub(super) last_started: Option<Timestamp>,
    /// The newest run that has ended.
    pub(super) last: Option<Last>,
    /// Verification level of the newest dump.
    pub(super) newest_proof: Option<VerificationLevel>,
    /// Failed runs since the last one that succeeded.
    pub(super) consecutive_failures: i64,
    pub(super) running: bool,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// Name of its `DatabaseBackup`.
    pub(super) name: String,
    /// Its message, if it failed.
    pub(super) failure: Option<String>,
}

pub(super) fn phase(backup: &DatabaseBackup) -> BackupPhase {
    backup.status.as_ref().and_then(|status| status.phase).unwrap_or(BackupPhase::Pending)
}

/// The time of the snapshot; before a dump has one, the creation of the object.
pub(super) fn snapshot_time(backup: &DatabaseBackup) -> Timestamp {
    let time = backup.status.as_ref().and_then(|status| status.start_time.as_ref());
    time.map_or_else(|| created(backup), |time| time.0)
}

pub(super) fn is_verified(backup: &DatabaseBackup) -> bool {
    phase(backup) == BackupPhase::Succeeded && proof(backup) > VerificationLevel::None
}

fn proof(backup: &DatabaseBackup) -> VerificationLevel {
    let verification = backup.status.as_ref().and_then(|status| status.verification.as_ref());
    verification.map_or(VerificationLevel::None, |verification| verification.level)
}

pub(super) fn read(backups: &[DatabaseBackup]) -> History {
    let mut newest_first: Vec<_> = backups.iter().filter(|it| it.metadata.deletion_timestamp.is_none()).collect();
    newest_first.sort_by_key(|backup| Reverse((created(*backup), backup.name_any())));
    let with = |wanted: BackupPhase| newest_first.iter().filter(move |it| phase(it) == wanted);
    let over: Vec<_> =
        newest_first.iter().filter(|it| matches!(phase(it), BackupPhase::Succeeded | BackupPhase::Failed)).collect();
    let failures = over.iter().take_while(|it| phase(it) == BackupPhase::Failed).count();
    let completed = |it: &DatabaseBackup| it.status.as_ref()?.completion_time.as_ref().map(|time| time.0);
    let newest = with(BackupPhase::Succeeded).max_by_key(|it| snapshot_time(it));
    History {
        backups: number(with(BackupPhase::Succeeded).count()),
        verified: number(newest_first.iter().filter(|it| is_verified(it)).count()),
        newest_verified: newest_first.iter().filter(|it| is_verified(it)).map(|it| snapshot_time(it)).max(),
        last_successful: with(BackupPhase::Succeeded).filter_map(|it| completed(it)).max(),
        last_started: newest_first.iter().map(|it| created(*it)).max(),
        last: over.first().map(|it| Last { name: it.name_any(), failure: failure(it) }),
        newest_proof: newest.map(|it| proof(it)),
        consecutive_failures: number(failures),
        running: newest_first
            .iter()
            .any(|it| matches!(phase(it), BackupPhase::Pending | BackupPhase::Running | BackupPhase::Verifying)),
    }
}

fn failure(backup: &DatabaseBackup) -> Option<String> {
    let status = backup.status.as_ref()?;
    (phase(backup) == BackupPhase::Failed).then(|| status.message.clone())
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, failed, succeeded};
    use serde_json::json;

    #[test]
    fn only_verified_backups_count_as_verified() {
        let history = read(&[
            backup("a", "2026-11-20T02:15:00Z", succeeded("2026-11-20T02:15:01Z")),
            backup("b", "2026-11-21T02:15:00Z", json!({"phase": "Succeeded", "startTime": "2026-11-21T02:15:01Z"})),
            backup("c", "2026-11-22T02:15:00Z", failed("disk full")),
            backup("d", "2026-11-23T02:15:00Z", failed("disk still full")),
            backup("e", "2026-11-24T02:15:00Z", json!({"phase": "Running"})),
        ]);
        assert_eq!((history.backups, history.verified, history.consecutive_failures), (2, 1, 2));
        assert_eq!(history.newest_verified, Some("2026-11-20T02:15:01Z".parse().unwrap()));
        assert_eq!(history.newest_proof, Some(VerificationLevel::None));
        assert_eq!(history.last, Some(Last { name: "d".into(), failure: Some("disk still full".into()) }));
        assert!(history.running);
        assert_eq!(read(&[]), History::default());
    }

    #[test]
    fn a_success_resets_consecutive_failures() {
        let history = read(&[
            backup("c", "2026-11-22T02:15:00Z", failed("disk full")),
            backup("d", "2026-11-23T02:15:00Z", succeeded("2026-11-23T02:15:01Z")),
        ]);
        assert_eq!((history.consecutive_failures, history.last.unwrap().failure), (0, None));
    }
}
