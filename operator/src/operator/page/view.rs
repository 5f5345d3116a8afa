//! What the page shows of objects: fields of specs and statuses by name. Nothing of a Secret is in them, and no connection.

use super::attempts::{Attempts, Series};
use crate::backup_jobs::record::is_verified;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{
    BackupComparison, BackupPhase, BackupSchedule, BackupVerification, BlastRadius, Condition, DatabaseBackup,
    DatabaseRestore, GuardMode, GuardedTable, Limits, ProtectedDatabase, Protection, RestoreMode, RestorePhase,
    RestoredTable, Shrink, TableGuard, Time, Window,
};
use serde::Serialize;

/// A `ProtectedDatabase`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DatabaseView<'a> {
    namespace: String,
    name: String,
    suspended: bool,
    protect_database: bool,
    generation: Option<i64>,
    server_version: Option<&'a str>,
    tables: Option<i64>,
    unguarded_at_risk: Option<i64>,
    /// The worst tables, also where there is no graph.
    blast_radius: &'a [BlastRadius],
    orphaned_guards: &'a [String],
    conditions: &'a [Condition],
}

impl<'a> DatabaseView<'a> {
    pub(super) fn of(database: &'a ProtectedDatabase) -> Self {
        let status = database.status.as_ref();
        Self {
            namespace: database.namespace().unwrap_or_default(),
            name: database.name_any(),
            suspended: database.spec.suspend,
            protect_database: database.spec.protect_database,
            generation: database.metadata.generation,
            server_version: status.and_then(|it| it.server_version.as_deref()),
            tables: status.and_then(|it| it.tables),
            unguarded_at_risk: status.and_then(|it| it.unguarded_at_risk),
            blast_radius: status.map(|it| it.blast_radius.as_slice()).unwrap_or_default(),
            orphaned_guards: status.map(|it| it.orphaned_guards.as_slice()).unwrap_or_default(),
            conditions: status.map(|it| it.conditions.as_slice()).unwrap_or_default(),
        }
    }
}

/// A `TableGuard`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GuardView<'a> {
    name: String,
    mode: GuardMode,
    protect: &'a [Protection],
    limits: &'a Limits,
    window: Option<&'a Window>,
    allowances: usize,
    /// Whether the status is of the present spec.
    is_current: bool,
    tables_matched: Option<i64>,
    tables_enforced: Option<i64>,
    blocked_attempts: Option<i64>,
    last_blocked_time: Option<&'a Time>,
    drift_repairs: Option<i64>,
    tables: &'a [GuardedTable],
    conditions: &'a [Condition],
    /// Blocked attempts over time; absent: not kept.
    attempts: Option<Series>,
}

impl<'a> GuardView<'a> {
    pub(super) fn of(guard: &'a TableGuard, attempts: &Attempts, now: Timestamp) -> Self {
        let status = guard.status.as_ref();
        Self {
            name: guard.name_any(),
            mode: guard.spec.mode,
            protect: &guard.spec.protect,
            limits: &guard.spec.limits,
            window: guard.spec.limits.window.as_ref(),
            allowances: guard.spec.allowances.len(),
            is_current: status.and_then(|it| it.observed_generation) == guard.metadata.generation,
            tables_matched: status.and_then(|it| it.tables_matched),
            tables_enforced: status.and_then(|it| it.tables_enforced),
            blocked_attempts: status.and_then(|it| it.blocked_attempts),
            last_blocked_time: status.and_then(|it| it.last_blocked_time.as_ref()),
            drift_repairs: status.and_then(|it| it.drift_repairs),
            tables: status.map(|it| it.tables.as_slice()).unwrap_or_default(),
            conditions: status.map(|it| it.conditions.as_slice()).unwrap_or_default(),
            attempts: attempts.of(guard, now),
        }
    }
}

/// A `BackupSchedule`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScheduleView<'a> {
    name: String,
    schedule: &'a str,
    time_zone: &'a str,
    suspended: bool,
    drill_schedule: Option<&'a str>,
    next_schedule_time: Option<&'a Time>,
    last_successful_time: Option<&'a Time>,
    last_verified_time: Option<&'a Time>,
    last_drill_time: Option<&'a Time>,
    last_drill_seconds: Option<i64>,
    consecutive_failures: Option<i64>,
    shrinks: &'a [Shrink],
    conditions: &'a [Condition],
}

impl<'a> ScheduleView<'a> {
    pub(super) fn of(schedule: &'a BackupSchedule) -> Self {
        let (spec, status) = (&schedule.spec, schedule.status.as_ref());
        Self {
            name: schedule.name_any(),
            schedule: &spec.schedule,
            time_zone: &spec.time_zone,
            suspended: spec.suspend,
            drill_schedule: spec.verification.drill.as_ref().map(|drill| drill.schedule.as_str()),
            next_schedule_time: status.and_then(|it| it.next_schedule_time.as_ref()),
            last_successful_time: status.and_then(|it| it.last_successful_time.as_ref()),
            last_verified_time: status.and_then(|it| it.last_verified_time.as_ref()),
            last_drill_time: status.and_then(|it| it.last_drill_time.as_ref()),
            last_drill_seconds: status.and_then(|it| it.last_drill_seconds),
            consecutive_failures: status.and_then(|it| it.consecutive_failures),
            shrinks: status.map(|it| it.shrinks.as_slice()).unwrap_or_default(),
            conditions: status.map(|it| it.conditions.as_slice()).unwrap_or_default(),
        }
    }
}

/// A `DatabaseBackup`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackupView<'a> {
    name: String,
    schedule: Option<&'a str>,
    phase: Option<BackupPhase>,
    /// As the retention and the policies count it.
    verified: bool,
    /// Snapshot; for one that did not get that far, the creation of the object.
    time: Option<&'a Time>,
    completion_time: Option<&'a Time>,
    size_bytes: Option<i64>,
    tables: Option<i64>,
    rows: Option<i64>,
    encrypted: Option<bool>,
    partial: Option<bool>,
    partial_because: &'a [String],
    pinned: bool,
    verification: Option<&'a BackupVerification>,
    /// The tables that lost rows since the backup before.
    comparison: Option<&'a BackupComparison>,
    kept_because: &'a [String],
    message: &'a str,
}

impl<'a> BackupView<'a> {
    pub(super) fn of(backup: &'a DatabaseBackup) -> Self {
        let status = backup.status.as_ref();
        let created = backup.metadata.creation_timestamp.as_ref();
        Self {
            name: backup.name_any(),
            schedule: backup.spec.schedule_ref.as_ref().map(|it| it.name.as_str()),
            phase: status.and_then(|it| it.phase),
            verified: is_verified(backup),
            time: status.and_then(|it| it.start_time.as_ref()).or(created),
            completion_time: status.and_then(|it| it.completion_time.as_ref()),
            size_bytes: status.and_then(|it| it.size_bytes),
            tables: status.and_then(|it| it.tables),
            rows: status.and_then(|it| it.rows),
            encrypted: status.and_then(|it| it.encrypted),
            partial: status.and_then(|it| it.partial),
            partial_because: status.map(|it| it.partial_because.as_slice()).unwrap_or_default(),
            pinned: backup.spec.pinned,
            verification: status.and_then(|it| it.verification.as_ref()),
            comparison: status.and_then(|it| it.comparison.as_ref()),
            kept_because: status.map(|it| it.kept_because.as_slice()).unwrap_or_default(),
            message: status.map(|it| it.message.as_str()).unwrap_or_default(),
        }
    }

    /// Sorts by it: the newest first.
    pub(super) fn newest_first(&self) -> std::cmp::Reverse<Option<Timestamp>> {
        std::cmp::Reverse(self.time.map(|time| time.0))
    }
}

/// A `DatabaseRestore`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RestoreView<'a> {
    name: String,
    created: Option<&'a Time>,
    phase: Option<RestorePhase>,
    source: Option<&'a str>,
    mode: Option<RestoreMode>,
    target: Option<&'a str>,
    dry_run: bool,
    expected_rows: Option<i64>,
    restored_rows: Option<i64>,
    skipped_rows: Option<i64>,
    different_rows: Option<i64>,
    seconds: Option<i64>,
    tables: &'a [RestoredTable],
    message: &'a str,
    conditions: &'a [Condition],
}

impl<'a> RestoreView<'a> {
    pub(super) fn of(restore: &'a DatabaseRestore) -> Self {
        let status = restore.status.as_ref();
        Self {
            name: restore.name_any(),
            created: restore.metadata.creation_timestamp.as_ref(),
            phase: status.and_then(|it| it.phase),
            source: status.and_then(|it| it.source.as_deref()),
            mode: restore.spec.target.mode,
            target: status.and_then(|it| it.target.as_deref()),
            dry_run: restore.spec.dry_run,
            expected_rows: status.and_then(|it| it.expected_rows),
            restored_rows: status.and_then(|it| it.restored_rows),
            skipped_rows: status.and_then(|it| it.skipped_rows),
            different_rows: status.and_then(|it| it.different_rows),
            seconds: status.and_then(|it| it.seconds),
            tables: status.map(|it| it.tables.as_slice()).unwrap_or_default(),
            message: status.map(|it| it.message.as_str()).unwrap_or_default(),
            conditions: status.map(|it| it.conditions.as_slice()).unwrap_or_default(),
        }
    }

    /// Sorts by it: the newest first.
    pub(super) fn newest_first(&self) -> std::cmp::Reverse<Option<Timestamp>> {
        std::cmp::Reverse(self.created.map(|time| time.0))
    }
}
