//! Which changes of other objects trigger a reconcile of a schedule.

use crate::kubernetes::watch::{Store, Watched};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pgrail_crds::annotations::{SCHEDULE_LABEL, SCHEDULE_UID};
use pgrail_crds::{BackupSchedule, DatabaseBackup, ProtectedDatabase};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The schedule of a CronJob or Job, by its label.
pub(super) fn labelled(object: &impl ResourceExt) -> Option<ObjectRef<Watched<BackupSchedule>>> {
    Some(ObjectRef::new(object.labels().get(SCHEDULE_LABEL)?).within(&object.namespace()?))
}

pub(super) fn of_backup(backup: &Watched<DatabaseBackup>) -> Option<ObjectRef<Watched<BackupSchedule>>> {
    let backup = backup.0.as_ref().ok()?;
    Some(ObjectRef::new(&backup.spec.schedule_ref.as_ref()?.name).within(&backup.namespace()?))
}

pub(super) fn of_database(
    store: &Store<BackupSchedule>,
    database: &Watched<ProtectedDatabase>,
) -> Vec<ObjectRef<Watched<BackupSchedule>>> {
    let (name, namespace) = (database.name_any(), database.namespace());
    let refers = |schedule: &&Arc<Watched<BackupSchedule>>| {
        schedule.namespace() == namespace && schedule.0.as_ref().is_ok_and(|it| it.spec.database_ref.name == name)
    };
    store.state().iter().filter(refers).map(|schedule| ObjectRef::from_obj(schedule.as_ref())).collect()
}

/// The fields of a backup that its schedule depends on.
pub(super) fn result(backup: &Watched<DatabaseBackup>) -> u64 {
    let Ok(backup) = &backup.0 else { return 0 };
    let status = backup.status.as_ref();
    let phase = status.and_then(|status| status.phase).map(|phase| format!("{phase:?}"));
    let proof =
        status.and_then(|status| status.verification.as_ref()).map(|it| format!("{:?} {:?}", it.level, it.structure));
    let schedule_uid = backup.annotations().get(SCHEDULE_UID);
    let is_deleted = backup.metadata.deletion_timestamp.is_some();
    hashed(&(&backup.metadata.uid, phase, proof, schedule_uid, backup.spec.pinned, is_deleted))
}

/// The fields of a database that its schedules depend on.
pub(super) fn declaration(database: &Watched<ProtectedDatabase>) -> u64 {
    hashed(&(&database.meta().uid, database.meta().generation))
}

fn hashed(fields: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    fields.hash(&mut hasher);
    hasher.finish()
}
