//! The status of a `DatabaseRestore`, and the Events of its result.

use super::plan::Outcome;
use crate::context::Context;
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::truncated;
use jiff::Timestamp;
use pgrail_crds::conditions::READY;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{DatabaseRestore, DatabaseRestoreStatus, RestorePhase, RestoredTable};
use pgrail_dump::RestoreResult;

/// Field manager and metric label.
pub(super) const CONTROLLER: &str = "databaserestore";

/// The longest message of the status, in bytes.
const LONGEST_MESSAGE: usize = 4096;

/// Whether a restore is finished.
pub(super) fn is_final(restore: &DatabaseRestore) -> bool {
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(RestorePhase::Succeeded | RestorePhase::Failed))
}

pub(super) fn status(restore: &DatabaseRestore, outcome: &Outcome, now: Timestamp) -> DatabaseRestoreStatus {
    let mut status = restore.status.clone().unwrap_or_default();
    let generation = restore.metadata.generation;
    let mut conditions = Conditions::new(&status.conditions, generation, now);
    let mut waiting = |status: &mut DatabaseRestoreStatus, phase, reason: Reason, message: &str| {
        status.phase = Some(phase);
        message.clone_into(&mut status.message);
        conditions.set(READY, Status::Unknown, reason, message);
    };
    match outcome {
        Outcome::Selected(backup) => {
            waiting(&mut status, RestorePhase::Pending, Reason::Pending, "the backup was selected");
            status.source = Some(backup.clone());
        }
        Outcome::Waiting(message) => waiting(&mut status, RestorePhase::Pending, Reason::Pending, message),
        Outcome::Running(message) => waiting(&mut status, RestorePhase::Running, Reason::Running, message),
        Outcome::Rejected(rejection) => {
            status.phase = Some(RestorePhase::Pending);
            status.message.clone_from(&rejection.message);
            conditions.stalled(rejection.reason, &rejection.message);
        }
        Outcome::Failed(rejection) => {
            status.phase = Some(RestorePhase::Failed);
            status.message.clone_from(&rejection.message);
            conditions.stalled(rejection.reason, &rejection.message);
        }
        Outcome::Ended(result) => report_result(restore, result, &mut status, &mut conditions),
    }
    status.message = truncated(&status.message, LONGEST_MESSAGE);
    status.observed_generation = generation;
    status.conditions = conditions.finish();
    status
}

fn report_result(
    restore: &DatabaseRestore,
    result: &RestoreResult,
    status: &mut DatabaseRestoreStatus,
    conditions: &mut Conditions,
) {
    let RestoreResult { done, problems, notes, total, database, schema, table_count, tables, seconds } = result;
    let count = |number: u64| i64::try_from(number).ok();
    let created = database.as_ref().or(schema.as_ref());
    status.target = created.cloned().or_else(|| Some(restore.spec.target.database_ref.name.clone()));
    status.expected_rows = Some(total.selected);
    status.different_rows = Some(total.different);
    status.skipped_rows = Some(total.identical + total.different);
    status.seconds = count(*seconds);
    // What was not restored is not reported as if it were; what a dry run found is in the tables.
    status.restored_rows = Some(if *done { total.inserted } else { 0 });
    status.restored_links = Some(if *done { total.links } else { 0 });
    status.restored_tables = if *done { count(*table_count) } else { Some(0) };
    let table = |it: &pgrail_dump::RestoredRows| RestoredTable {
        table: it.table.clone(),
        inserted: it.inserted,
        identical: it.identical,
        different: it.different,
        links: it.links,
    };
    status.tables =
        if *done || restore.spec.dry_run { tables.iter().take(64).map(table).collect() } else { Vec::new() };
    status.message = problems.iter().chain(notes).cloned().collect::<Vec<_>>().join("; ");
    let found = format!(
        "{} rows and {} links of {} tables; {} rows exist and are identical, {} are different",
        total.inserted,
        total.links,
        tables.len(),
        total.identical,
        total.different
    );
    if let Some(created) = created {
        status.phase = Some(RestorePhase::Succeeded);
        let message = format!(
            "restored {} rows of {table_count} tables into the new {} {created}, as many as the backup has",
            total.inserted,
            if database.is_some() { "database" } else { "schema" }
        );
        conditions.set(READY, Status::True, Reason::Restored, message);
    } else if *done {
        status.phase = Some(RestorePhase::Succeeded);
        conditions.set(READY, Status::True, Reason::Restored, format!("restored {found}"));
    } else if problems.is_empty() {
        status.phase = Some(RestorePhase::Succeeded);
        conditions.set(
            READY,
            Status::True,
            Reason::DryRun,
            format!("dry run: nothing was changed; it would restore {found}"),
        );
    } else {
        status.phase = Some(RestorePhase::Failed);
        conditions.stalled(Reason::Conflict, format!("nothing was restored: {}", problems.join("; ")));
    }
}

pub(super) async fn write(
    restore: &DatabaseRestore,
    next: &DatabaseRestoreStatus,
    context: &Context,
) -> Result<bool, kube::Error> {
    context.write_status(CONTROLLER, restore, restore.status.as_ref(), next).await
}

pub(super) async fn announce(restore: &DatabaseRestore, next: &DatabaseRestoreStatus, context: &Context) {
    let message = next.conditions.iter().find(|it| it.type_ == READY).map(|it| it.message.clone()).unwrap_or_default();
    let (severity, reason) = match next.phase {
        Some(RestorePhase::Succeeded) => (Severity::Normal, event::RESTORE_SUCCEEDED),
        Some(RestorePhase::Failed) => (Severity::Warning, event::RESTORE_FAILED),
        _ => return,
    };
    context.events.publish(restore, severity, "Restore", reason, &message, context.now()).await;
}
