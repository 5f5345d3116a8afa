//! Objects for tests, as the apiserver would have them.

use pgrail_crds::{BackupSchedule, DatabaseBackup, ProtectedDatabase};
use serde_json::{Value, json};

/// The database `shop/shop`.
pub(crate) fn database() -> ProtectedDatabase {
    serde_json::from_value(json!({
        "apiVersion": "pgrail.dev/v1alpha1", "kind": "ProtectedDatabase",
        "metadata": {"name": "shop", "namespace": "shop", "uid": "database-uid"},
        "spec": {"connection": {"secretRef": {"name": "shop-pgrail"}, "host": "shop-rw"}},
    }))
    .unwrap()
}

/// The schedule `shop/nightly`, created on 20 November 2026, with fields of the spec replaced.
pub(crate) fn schedule(patch: Value) -> BackupSchedule {
    let mut spec = json!({
        "databaseRef": {"name": "shop"},
        "schedule": "15 2 * * *",
        "storage": {"url": "s3://backups/shop", "secretRef": {"name": "backup-store"}},
    });
    for (field, value) in patch.as_object().unwrap() {
        spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "pgrail.dev/v1alpha1", "kind": "BackupSchedule",
        "metadata": {"name": "nightly", "namespace": "shop", "uid": "schedule-uid", "generation": 1,
                     "creationTimestamp": "2026-11-20T12:00:00Z"},
        "spec": spec,
    }))
    .unwrap()
}

/// A backup of that schedule with a status.
pub(crate) fn backup(name: &str, created: &str, status: Value) -> DatabaseBackup {
    serde_json::from_value(json!({
        "apiVersion": "pgrail.dev/v1alpha1", "kind": "DatabaseBackup",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-uid"), "generation": 1, "creationTimestamp": created,
                     "annotations": {"pgrail.dev/schedule-uid": "schedule-uid", "pgrail.dev/job": format!("{name}-job")}},
        "spec": {"scheduleRef": {"name": "nightly"}},
        "status": status,
    }))
    .unwrap()
}

/// Status of a backup that succeeded and was read back.
pub(crate) fn succeeded(time: &str) -> Value {
    json!({"phase": "Succeeded", "startTime": time, "completionTime": time,
           "location": format!("s3://backups/shop/cluster/shop/nightly/{time}"),
           "verification": {"level": "ReadBack", "time": time, "structure": {"outcome": "Restored"}}})
}

/// Status of a backup that failed.
pub(crate) fn failed(message: &str) -> Value {
    json!({"phase": "Failed", "message": message})
}
