//! The schedule, the database and the Secrets that a backup refers to.

use crate::backup_jobs::dereference::{self, Secrets};
use crate::context::Context;
use crate::kubernetes::rejection::StepError;
use kube::ResourceExt;
use pgrail_crds::{BackupSchedule, DatabaseBackup, ProtectedDatabase};

#[derive(Debug)]
pub(super) struct References {
    /// Absent for a backup without a schedule.
    pub(super) schedule: Option<BackupSchedule>,
    pub(super) database: ProtectedDatabase,
    pub(super) secrets: Secrets,
}

pub(super) async fn dereference(backup: &DatabaseBackup, context: &Context) -> Result<References, StepError> {
    let namespace = backup.namespace().unwrap_or_default();
    let schedule = match &backup.spec.schedule_ref {
        Some(reference) => Some(dereference::schedule(&namespace, &reference.name, context).await?),
        None => None,
    };
    let name = match (&schedule, &backup.spec.database_ref) {
        (Some(schedule), _) => schedule.spec.database_ref.name.clone(),
        (None, reference) => reference.as_ref().map(|reference| reference.name.clone()).unwrap_or_default(),
    };
    let database = dereference::database(&namespace, &name, context).await?;
    let own = schedule.as_ref().and_then(|schedule| schedule.spec.connection.as_ref());
    let connection = own.unwrap_or(&database.spec.connection);
    let storage = schedule.as_ref().map(|schedule| &schedule.spec.storage).or(backup.spec.storage.as_ref());
    let secrets = dereference::secrets(&namespace, connection, storage, context).await?;
    Ok(References { schedule, database, secrets })
}
