//! The database and the Secrets that a schedule refers to.

use crate::backup_jobs::dereference::{self, Secrets};
use crate::context::Context;
use crate::kubernetes::rejection::StepError;
use kube::ResourceExt;
use pgrail_crds::{BackupSchedule, ProtectedDatabase};

#[derive(Debug)]
pub(super) struct References {
    pub(super) database: ProtectedDatabase,
    pub(super) secrets: Secrets,
}

pub(super) async fn dereference(schedule: &BackupSchedule, context: &Context) -> Result<References, StepError> {
    let (namespace, spec) = (schedule.namespace().unwrap_or_default(), &schedule.spec);
    let database = dereference::database(&namespace, &spec.database_ref.name, context).await?;
    let connection = spec.connection.as_ref().unwrap_or(&database.spec.connection);
    let secrets = dereference::secrets(&namespace, connection, Some(&spec.storage), context).await?;
    Ok(References { database, secrets })
}
