//! The status of a `DatabaseBackup`, from how far it is. Pure.

use crate::backup_jobs::outcome::{Failed, Progress};
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::text::truncated;
use jiff::Timestamp;
use pgrail_crds::conditions::READY;
use pgrail_crds::conditions::reasons::{self, backup as backup_reasons};
use pgrail_crds::{BackupPhase, BackupVerification, DatabaseBackup, DatabaseBackupStatus, Time, VerificationLevel};
use pgrail_dump::{DumpResult, StoreUrl, VerificationLevel as Verified};

/// The longest message that a status takes, in characters.
const LONGEST_MESSAGE: usize = 4096;

/// What one look at a backup came to.
#[derive(Clone, Debug)]
pub(crate) enum Finding {
    /// It cannot even be started; only its user can mend that.
    Refused {
        /// The condition's reason.
        reason: &'static str,
        /// What is wrong and what mends it.
        message: String,
    },
    /// It is under way, or over.
    Progress(Progress),
}

/// Whether nothing more will come of a backup.
pub(crate) fn is_final(backup: &DatabaseBackup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Discovered))
}

/// The status that the backup should have. `store` is where its dump goes, where that is known.
pub(crate) fn status(
    backup: &DatabaseBackup,
    finding: &Finding,
    store: Option<&StoreUrl>,
    now: Timestamp,
) -> DatabaseBackupStatus {
    let mut status = backup.status.clone().unwrap_or_default();
    let generation = backup.metadata.generation;
    let mut conditions = Conditions::new(&status.conditions, generation, now);
    match finding {
        Finding::Refused { reason, message } => {
            status.phase = Some(BackupPhase::Pending);
            status.message.clone_from(message);
            conditions.stalled(reason, message);
        }
        Finding::Progress(progress) => report_progress(progress, store, &mut status, &mut conditions, now),
    }
    status.message = truncated(&status.message, LONGEST_MESSAGE);
    status.observed_generation = generation;
    status.conditions = conditions.finish();
    status
}

fn report_progress(
    progress: &Progress,
    store: Option<&StoreUrl>,
    status: &mut DatabaseBackupStatus,
    conditions: &mut Conditions,
    now: Timestamp,
) {
    match progress {
        Progress::Waiting(message) => {
            status.phase = Some(BackupPhase::Pending);
            status.message.clone_from(message);
            conditions.set(READY, Status::Unknown, reasons::PENDING, message);
        }
        Progress::Dumping(message) => {
            status.phase = Some(BackupPhase::Running);
            status.message.clone_from(message);
            conditions.set(READY, Status::Unknown, backup_reasons::RUNNING, message);
        }
        Progress::Verifying(dump) => {
            status.phase = Some(BackupPhase::Verifying);
            "the dump lies in the store and is being read back".clone_into(&mut status.message);
            if let Some(dump) = dump {
                report_dump(dump, store, status);
            }
            conditions.set(READY, Status::Unknown, backup_reasons::RUNNING, &status.message);
        }
        Progress::Succeeded(result) => {
            status.phase = Some(BackupPhase::Succeeded);
            status.message.clear();
            report_dump(&result.backup, store, status);
            status.completion_time = Some(Time(whole_seconds(result.backup.completion_time)));
            let (level, reason, words) = match result.level {
                Verified::ReadBack => {
                    (VerificationLevel::ReadBack, backup_reasons::READ_BACK, "every byte was read from the store again")
                }
                Verified::Checksum => {
                    (VerificationLevel::Checksum, backup_reasons::CHECKSUM, "the store's checksums were compared")
                }
            };
            status.verification = Some(BackupVerification { level, time: Some(Time(whole_seconds(result.time))) });
            let message = format!("{} rows of {} tables: {words}", result.backup.rows, result.backup.tables);
            conditions.set(READY, Status::True, reason, message);
        }
        Progress::Failed(Failed { reason, message }) => {
            status.phase = Some(BackupPhase::Failed);
            status.message.clone_from(message);
            status.completion_time = Some(Time(whole_seconds(now)));
            // A dump that was not published does not exist: nothing may look as if it did.
            status.location = None;
            status.verification = None;
            conditions.stalled(reason, message);
        }
    }
}

fn report_dump(dump: &DumpResult, store: Option<&StoreUrl>, status: &mut DatabaseBackupStatus) {
    let number = |value: u64| i64::try_from(value).ok();
    status.location = Some(store.map_or_else(|| dump.location.clone(), |store| store.join(&dump.location)));
    status.start_time = Some(Time(whole_seconds(dump.snapshot_time)));
    status.size_bytes = number(dump.size_bytes);
    status.database_bytes = number(dump.database_bytes);
    status.tables = number(dump.tables);
    status.rows = number(dump.rows);
    status.server_version = Some(dump.server_version.clone());
    status.client_version = Some(dump.client_version.clone());
    status.sha256 = Some(dump.sha256.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::backup;
    use pgrail_crds::conditions::STALLED;
    use serde_json::json;

    fn dump() -> DumpResult {
        serde_json::from_value(json!({
            "location": "c/shop/nightly/x", "backupName": "b", "startTime": "2026-11-23T02:15:00Z",
            "snapshotTime": "2026-11-23T02:15:01.5Z", "completionTime": "2026-11-23T02:16:00Z", "sizeBytes": 8, "databaseBytes": 100,
            "tables": 2, "rows": 13, "largeObjects": 0, "serverVersion": "17.2", "clientVersion": "18.1", "sha256": "ab",
            "encrypted": false, "partial": false
        }))
        .unwrap()
    }

    fn report(progress: Progress) -> DatabaseBackupStatus {
        let backup = backup("b", "2026-11-23T02:15:00Z", json!({}));
        let url = StoreUrl::parse("s3://backups/shop").unwrap();
        status(&backup, &Finding::Progress(progress), Some(&url), "2026-11-23T03:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_success_says_where_and_what_and_how_proven() {
        let result = pgrail_dump::VerifyResult {
            backup: dump(),
            level: Verified::ReadBack,
            decoded: true,
            time: "2026-11-23T02:17:00Z".parse().unwrap(),
            seconds: 60,
            manifest: "m".into(),
        };
        let status = report(Progress::Succeeded(Box::new(result)));
        assert_eq!(status.location.as_deref(), Some("s3://backups/shop/c/shop/nightly/x"));
        assert_eq!(status.start_time.unwrap().0.to_string(), "2026-11-23T02:15:01Z");
        assert_eq!((status.rows, status.verification.unwrap().level), (Some(13), VerificationLevel::ReadBack));
        let ready = &status.conditions[0];
        assert_eq!((ready.type_.as_str(), ready.status.as_str(), ready.reason.as_str()), ("Ready", "True", "ReadBack"));
        assert!(status.message.is_empty() && status.conditions.len() == 1);
    }

    #[test]
    fn a_failure_leaves_nothing_that_looks_like_a_backup() {
        let status = report(Progress::Verifying(Some(Box::new(dump()))));
        assert!(status.location.is_some() && status.verification.is_none());
        let mut backup = backup("b", "2026-11-23T02:15:00Z", json!({}));
        backup.status = Some(status);
        let failed = Finding::Progress(Progress::Failed(Failed::new("ChecksumMismatch", "other bytes came back")));
        let status = super::status(&backup, &failed, None, "2026-11-23T03:00:00Z".parse().unwrap());
        assert_eq!((status.phase, status.location, status.verification), (Some(BackupPhase::Failed), None, None));
        assert_eq!(status.message, "other bytes came back");
        assert!(status.conditions.iter().any(|it| it.type_ == STALLED && it.reason == "ChecksumMismatch"));
    }
}
