//! The backup, the database and the Secrets that a restore refers to.

use crate::backup_jobs::dereference::{self, IdentitySecret, Secrets};
use crate::backup_jobs::record::{is_verified, snapshot_time};
use crate::context::Context;
use crate::kubernetes::rejection::{Reason, Rejection, StepError};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseRestore, ProtectedDatabase};

#[derive(Debug)]
pub(super) struct References {
    pub(super) backup: DatabaseBackup,
    /// Absent for a backup without a schedule.
    pub(super) schedule: Option<BackupSchedule>,
    /// The target.
    pub(super) database: ProtectedDatabase,
    pub(super) secrets: Secrets,
    pub(super) identity: IdentitySecret,
}

pub(super) async fn dereference(restore: &DatabaseRestore, context: &Context) -> Result<References, StepError> {
    let namespace = restore.namespace().unwrap_or_default();
    let backup = backup(restore, &namespace, context).await?;
    let schedule = match &backup.spec.schedule_ref {
        Some(reference) => Some(dereference::schedule(&namespace, &reference.name, context).await?),
        None => None,
    };
    let database = dereference::database(&namespace, &restore.spec.target.database_ref.name, context).await?;
    let storage = schedule.as_ref().map(|schedule| &schedule.spec.storage).or(backup.spec.storage.as_ref());
    let secrets = dereference::secrets(&namespace, &database.spec.connection, storage, context).await?;
    let reference = restore.spec.decryption.identity_secret_ref.as_ref();
    let identity = dereference::identity(&namespace, reference, context).await?;
    Ok(References { backup, schedule, database, secrets, identity })
}

/// The backup that the source resolved to before, or resolves to now.
async fn backup(restore: &DatabaseRestore, namespace: &str, context: &Context) -> Result<DatabaseBackup, StepError> {
    let api: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), namespace);
    let not_found = |message: String| StepError::from(Rejection::new(Reason::BackupNotFound, message));
    let source = &restore.spec.source;
    let recorded = restore.status.as_ref().and_then(|status| status.source.clone());
    let named = recorded.or_else(|| source.backup_ref.as_ref().map(|reference| reference.name.clone()));
    if let Some(name) = named {
        let found = api.get_opt(&name).await?;
        return found.ok_or_else(|| {
            not_found(format!(
                "there is no DatabaseBackup {name:?} in this namespace: name another in spec.source.backupRef"
            ))
        });
    }
    let schedule = source.schedule_ref.as_ref().map(|reference| reference.name.as_str()).unwrap_or_default();
    let before = source.before.as_ref().map(|time| time.0);
    let all = api.list(&ListParams::default()).await?.items;
    let usable = |backup: &DatabaseBackup| {
        let of = backup.spec.schedule_ref.as_ref().is_some_and(|reference| reference.name == schedule);
        of && is_verified(backup) && before.is_none_or(|before| snapshot_time(backup) < before)
    };
    let newest = all.into_iter().filter(usable).max_by_key(|backup| (snapshot_time(backup), backup.name_any()));
    newest.ok_or_else(|| not_found(format!("the BackupSchedule {schedule:?} has no verified backup of that time")))
}
