//! The status of a `DatabaseBackup`, and the Events of its result.

use super::plan::Outcome;
use crate::agent::config::AgentConfig;
use crate::backup_jobs::outcome::Progress;
use crate::backup_jobs::{record, shrink};
use crate::context::Context;
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::events::Severity;
use crate::kubernetes::text::truncated;
use jiff::Timestamp;
use pgrail_crds::conditions::reasons::{self, backup as backup_reasons, event};
use pgrail_crds::conditions::{READY, SHRUNK};
use pgrail_crds::{
    BackupComparison, BackupPhase, BackupVerification, DatabaseBackup, DatabaseBackupStatus, ShrunkTable,
    StructuralDrill, StructureOutcome, Time, VerificationLevel,
};
use pgrail_dump::{
    Comparison, DumpResult, PartialCause, ShrunkTable as Lost, Structure, StructureOutcome as Restorable,
    VerificationLevel as Verified,
};
use serde_json::Value;

/// Field manager and metric label.
pub(super) const CONTROLLER: &str = "databasebackup";

/// The longest message of the status, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// Whether a backup is finished.
pub(crate) fn is_final(backup: &DatabaseBackup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Discovered))
}

pub(crate) fn status(backup: &DatabaseBackup, outcome: &Outcome, now: Timestamp) -> DatabaseBackupStatus {
    let mut status = backup.status.clone().unwrap_or_default();
    let generation = backup.metadata.generation;
    let mut conditions = Conditions::new(&status.conditions, generation, now);
    match outcome {
        Outcome::Rejected(rejection) => {
            status.phase = Some(BackupPhase::Pending);
            status.message.clone_from(&rejection.message);
            conditions.stalled(rejection.reason, &rejection.message);
        }
        Outcome::Progress { progress, config } => {
            report_progress(backup, progress, config.as_deref(), &mut status, &mut conditions, now);
        }
    }
    status.message = truncated(&status.message, LONGEST_MESSAGE);
    status.observed_generation = generation;
    status.conditions = conditions.finish();
    status
}

fn report_progress(
    backup: &DatabaseBackup,
    progress: &Progress,
    config: Option<&AgentConfig>,
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
            "the dump is in the store and is being read back".clone_into(&mut status.message);
            if let Some(dump) = dump {
                report_dump(backup, dump, config, status);
            }
            conditions.set(READY, Status::Unknown, backup_reasons::RUNNING, &status.message);
        }
        Progress::Succeeded(result) => {
            status.phase = Some(BackupPhase::Succeeded);
            status.message.clear();
            report_dump(backup, &result.backup, config, status);
            status.completion_time = Some(Time(whole_seconds(result.backup.completion_time)));
            let level = match result.level {
                Verified::ReadBack => VerificationLevel::ReadBack,
                Verified::Checksum => VerificationLevel::Checksum,
                Verified::None => VerificationLevel::None,
            };
            let (condition, reason, proof) = record::ready(level);
            let structure = result.structure.as_ref().map(structure);
            let not_run = structure.as_ref().filter(|it| it.outcome == StructureOutcome::NotRun);
            let drill = match (&structure, not_run) {
                (_, Some(structure)) => format!("; the structural drill did not run: {}", structure.message),
                (Some(_), None) => "; everything except the rows was restored in a drill".to_owned(),
                (None, None) => String::new(),
            };
            let time = Some(Time(whole_seconds(result.time)));
            status.verification = Some(BackupVerification { level, time, structure });
            status.manifest_sha256 = Some(result.manifest_sha256.clone()).filter(|sha256| !sha256.is_empty());
            let partial = if result.backup.partial { " (partial)" } else { "" };
            let message =
                format!("{} rows of {} tables{partial}: {proof}{drill}", result.backup.rows, result.backup.tables);
            conditions.set(READY, condition, reason, message);
            status.comparison = result.comparison.as_ref().map(comparison);
            if let Some(comparison) = status.comparison.as_ref().filter(|it| it.shrunk_tables > 0) {
                conditions.set(SHRUNK, Status::True, backup_reasons::ROWS_LOST, shrink::describe(comparison));
            }
        }
        Progress::Failed(rejection) => {
            status.phase = Some(BackupPhase::Failed);
            status.message.clone_from(&rejection.message);
            status.completion_time = Some(Time(whole_seconds(now)));
            // An unpublished dump does not exist, and the status must not suggest one.
            status.location = None;
            status.verification = None;
            conditions.stalled(rejection.reason, &rejection.message);
        }
    }
}

fn structure(found: &Structure) -> StructuralDrill {
    let outcome = match found.outcome {
        Restorable::Restored => StructureOutcome::Restored,
        Restorable::NotRun | Restorable::Unknown => StructureOutcome::NotRun,
    };
    StructuralDrill { outcome, message: truncated(&found.message, 1024) }
}

fn report_dump(
    backup: &DatabaseBackup,
    dump: &DumpResult,
    config: Option<&AgentConfig>,
    status: &mut DatabaseBackupStatus,
) {
    let number = |value: u64| i64::try_from(value).ok();
    let store = config.map(|config| &config.store.url);
    let of_schedule = config.filter(|_| backup.spec.schedule_ref.is_some());
    status.schedule_uid = of_schedule.map(|config| config.identity.schedule_uid.clone());
    status.database_uid = config.and_then(|config| Some(config.dump.as_ref()?.database_uid.clone()));
    status.encrypted = Some(dump.encrypted);
    status.partial = Some(dump.partial);
    status.partial_because = partial_because(dump);
    status.warnings = dump.remarks.warnings.iter().take(20).map(|warning| truncated(warning, 1024)).collect();
    status.replay_lag_seconds = dump.remarks.replay_lag_seconds.and_then(number);
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

fn comparison(found: &Comparison) -> BackupComparison {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let table = |it: &Lost| ShrunkTable {
        table: truncated(&it.table, 257),
        before: number(it.before),
        after: number(it.after),
        dropped: it.dropped,
    };
    BackupComparison {
        with: found.with.as_deref().map(|name| truncated(name, 253)),
        not_compared_because: found.not_compared_because.as_deref().map(|text| truncated(text, 1024)),
        shrunk_tables: number(found.shrunk_tables),
        tables: found.tables.iter().take(8).map(table).collect(),
    }
}

/// The causes, with the tables where they are not declared in the spec.
fn partial_because(dump: &DumpResult) -> Vec<String> {
    let unlogged = || format!("{}: {}", PartialCause::UnloggedTables.as_str(), dump.remarks.unlogged_tables.join(", "));
    let text = |cause: &PartialCause| match cause {
        PartialCause::UnloggedTables => truncated(&unlogged(), 1024),
        other => other.as_str().to_owned(),
    };
    dump.remarks.partial_because.iter().map(text).collect()
}

/// Writes the status, except for `keptBecause`, which the controller of the schedule writes.
pub(super) async fn write(
    backup: &DatabaseBackup,
    next: &DatabaseBackupStatus,
    context: &Context,
) -> Result<bool, kube::Error> {
    let ours = |status: &DatabaseBackupStatus| -> Result<Value, kube::Error> {
        let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        if let Some(fields) = status.as_object_mut() {
            fields.remove("keptBecause");
        }
        Ok(status)
    };
    let current = backup.status.as_ref().map(ours).transpose()?;
    context.write_status(CONTROLLER, backup, current.as_ref(), &ours(next)?).await
}

/// Publishes the result as an Event.
pub(super) async fn announce(backup: &DatabaseBackup, next: &DatabaseBackupStatus, context: &Context) {
    let now = context.now();
    match next.phase {
        Some(BackupPhase::Succeeded) => {
            let location = next.location.as_deref().unwrap_or_default();
            let note = format!("{} rows of {} tables at {location}", next.rows.unwrap_or(0), next.tables.unwrap_or(0));
            context.events.publish(backup, Severity::Normal, "Verify", event::BACKUP_VERIFIED, note, now).await;
        }
        Some(BackupPhase::Failed) => {
            context.events.publish(backup, Severity::Warning, "Dump", event::BACKUP_FAILED, &next.message, now).await;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::backup;
    use crate::kubernetes::rejection::{Reason, Rejection};
    use pgrail_crds::conditions::STALLED;
    use pgrail_dump::Remarks;
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
        let config: AgentConfig = serde_json::from_value(json!({
            "identity": {"clusterId": "c", "namespace": "shop", "schedule": "nightly", "scheduleUid": "schedule-uid"},
            "store": {"url": "s3://backups/shop"},
        }))
        .unwrap();
        status(
            &backup,
            &Outcome::Progress { progress, config: Some(Box::new(config)) },
            "2026-11-23T03:00:00Z".parse().unwrap(),
        )
    }

    #[test]
    fn a_success_reports_location_size_and_proof() {
        let result = pgrail_dump::VerifyResult {
            backup: dump(),
            level: Verified::ReadBack,
            time: "2026-11-23T02:17:00Z".parse().unwrap(),
            seconds: 60,
            comparison: None,
            structure: Some(Structure {
                outcome: Restorable::NotRun,
                message: "no postgis".into(),
                time: "2026-11-23T02:17:00Z".parse().unwrap(),
                milliseconds: 7,
            }),
            manifest: "m".into(),
            manifest_sha256: "cd".into(),
        };
        let status = report(Progress::Succeeded(Box::new(result)));
        assert_eq!(status.location.as_deref(), Some("s3://backups/shop/c/shop/nightly/x"));
        assert_eq!(status.start_time.unwrap().0.to_string(), "2026-11-23T02:15:01Z");
        assert_eq!(status.manifest_sha256.as_deref(), Some("cd"));
        let verification = status.verification.unwrap();
        assert_eq!((status.rows, verification.level), (Some(13), VerificationLevel::ReadBack));
        let structure = verification.structure.unwrap();
        assert_eq!((structure.outcome, structure.message.as_str()), (StructureOutcome::NotRun, "no postgis"));
        assert!(status.conditions[0].message.ends_with("the structural drill did not run: no postgis"));
        let ready = &status.conditions[0];
        assert_eq!((ready.type_.as_str(), ready.status.as_str(), ready.reason.as_str()), ("Ready", "True", "ReadBack"));
        assert!(status.message.is_empty() && status.conditions.len() == 1);
        assert_eq!((status.partial, status.schedule_uid.as_deref()), (Some(false), Some("schedule-uid")));
    }

    #[test]
    fn a_partial_dump_and_its_warnings_are_reported() {
        let dump = DumpResult {
            partial: true,
            remarks: Remarks {
                partial_because: vec![PartialCause::ExcludeTables, PartialCause::UnloggedTables],
                unlogged_tables: vec!["public.cache".into()],
                warnings: vec!["pg_dump: warning: x".into()],
                replay_lag_seconds: Some(7),
            },
            ..dump()
        };
        let status = report(Progress::Verifying(Some(Box::new(dump))));
        assert_eq!(status.partial_because, ["ExcludeTables", "UnloggedTables: public.cache"]);
        assert_eq!(status.warnings, ["pg_dump: warning: x"]);
        assert_eq!((status.partial, status.replay_lag_seconds), (Some(true), Some(7)));
    }

    #[test]
    fn a_failure_leaves_nothing_that_looks_like_a_backup() {
        let status = report(Progress::Verifying(Some(Box::new(dump()))));
        assert!(status.location.is_some() && status.verification.is_none());
        let mut backup = backup("b", "2026-11-23T02:15:00Z", json!({}));
        backup.status = Some(status);
        let failed = Rejection::new(Reason::ChecksumMismatch, "other bytes");
        let status = super::status(&backup, &Progress::Failed(failed).into(), "2026-11-23T03:00:00Z".parse().unwrap());
        assert_eq!((status.phase, status.location, status.verification), (Some(BackupPhase::Failed), None, None));
        assert_eq!(status.message, "other bytes");
        assert!(status.conditions.iter().any(|it| it.type_ == STALLED && it.reason == "ChecksumMismatch"));
    }
}
