//! Writes what a comparison of the store found to the backups.

use super::store_check::{Evaluated, Mark};
use crate::context::Context;
use crate::kubernetes::events::Severity;
use crate::kubernetes::status;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::TAKE_OVER;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseBackupStatus};
use serde_json::{Value, json};

/// Field manager of the condition `Ready` of a backup whose dump is missing, or is there again.
const MARKS: &str = "backupschedule-store";
/// Field manager of the status of a dump that was found.
const FOUND: &str = "backupschedule-found";

/// Each step can be repeated.
pub(super) async fn report(
    schedule: &BackupSchedule,
    evaluated: &Evaluated,
    context: &Context,
) -> Result<(), kube::Error> {
    for mark in &evaluated.marks {
        report_mark(mark, context).await?;
    }
    for backup in &evaluated.adopted {
        create_backup(backup, context).await?;
        report_found(backup, context).await?;
    }
    if let Some(first) = evaluated.adopted.first() {
        let count = evaluated.adopted.len();
        let note = format!(
            "found {count} dumps in the store that no DatabaseBackup recorded, and created {} …",
            first.name_any()
        );
        context
            .events
            .publish(schedule, Severity::Normal, "Check", event::BACKUP_DISCOVERED, note, context.now())
            .await;
    }
    if evaluated.taken_over {
        let api: Api<BackupSchedule> =
            Api::namespaced(context.client.clone(), &schedule.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"annotations": {TAKE_OVER: null}}});
        api.patch(&schedule.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

pub(super) async fn create_backup(backup: &DatabaseBackup, context: &Context) -> Result<(), kube::Error> {
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &backup.namespace().unwrap_or_default());
    match api.create(&PostParams::default(), backup).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        result => result.map(|_| ()),
    }
}

async fn report_mark(mark: &Mark, context: &Context) -> Result<(), kube::Error> {
    let next = json!({"conditions": [mark.ready]});
    status::write::<_, Value>(&context.client, MARKS, &mark.backup, None, &next).await?;
    let (severity, reason) = if mark.is_missing() {
        (Severity::Warning, event::BACKUP_MISSING)
    } else {
        (Severity::Normal, event::BACKUP_RECOVERED)
    };
    context.events.publish(&mark.backup, severity, "Check", reason, &mark.ready.message, context.now()).await;
    Ok(())
}

async fn report_found(found: &DatabaseBackup, context: &Context) -> Result<(), kube::Error> {
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &found.namespace().unwrap_or_default());
    let Some(created) = api.get_opt(&found.name_any()).await? else { return Ok(()) };
    if created.status.as_ref().is_some_and(|status| status.phase.is_some()) {
        return Ok(());
    }
    let next = found.status.clone().unwrap_or_default();
    status::write::<_, DatabaseBackupStatus>(&context.client, FOUND, &created, None, &next).await.map(|_| ())
}
