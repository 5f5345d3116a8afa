//! What the apiserver accepts and refuses by itself: the schema's bounds and CEL rules.

use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseRestore, GuardExemption, ProtectedDatabase, TableGuard};
use pgrail_e2e::{Cluster, TestNamespace, backup_schedule, protected_database, table_guard};
use serde_json::{Value, json};

fn with(mut manifest: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    manifest.pointer_mut(parent).unwrap()[key] = value;
    manifest
}

async fn refuses<K>(namespace: &TestNamespace, manifest: Value, expected: &str)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    match namespace.try_apply::<K>(&manifest).await {
        Ok(_) => panic!("accepted, but should say {expected:?}:\n{manifest:#}"),
        Err(error) => assert!(error.to_string().contains(expected), "says {error}, not {expected:?}"),
    }
}

#[tokio::test]
async fn good_objects_are_accepted_with_their_defaults() {
    let namespace = Cluster::connect().await.namespace("good").await;
    let database: ProtectedDatabase = namespace.apply(&protected_database()).await;
    assert!(!database.spec.suspend);
    let guard: TableGuard = namespace.apply(&table_guard(&["users", "order_*"])).await;
    assert_eq!((guard.spec.limits.max_rows, guard.spec.limits.max_cascade_rows), (100, 1000));
    assert_eq!(guard.spec.protect.len(), 3);
    let storage =
        json!({"url": "s3://backups/shop", "endpoint": "http://s3.infra.svc:9000", "secretRef": {"name": "store"}});
    let schedule: BackupSchedule = namespace.apply(&backup_schedule(&storage)).await;
    assert_eq!((schedule.spec.retention.min_keep, schedule.spec.dump.compression.level), (3, 3));
    namespace
        .apply::<DatabaseBackup>(&json!({"metadata": {"name": "now"}, "spec": {"scheduleRef": {"name": "nightly"}}}))
        .await;
    namespace
        .apply::<DatabaseRestore>(&json!({"metadata": {"name": "back"}, "spec": {
            "source": {"backupRef": {"name": "now"}}, "target": {"databaseRef": {"name": "shop"}}}}))
        .await;
    namespace.finish().await;
}

#[tokio::test]
async fn bad_objects_are_refused_with_the_remedy() {
    let namespace = Cluster::connect().await.namespace("bad").await;
    let guard = || table_guard(&["users"]);
    let tables: Vec<_> = (0..65).map(|number| json!({"schema": "public", "name": format!("t{number}")})).collect();
    for (pointer, value, expected) in [
        ("/spec/tables", json!([]), "should have at least 1 items"),
        ("/spec/tables", json!(tables), "must have at most 64 items"),
        ("/spec/limits", json!({"maxRows": -1}), "should be greater than or equal to 0"),
        ("/spec/limits", json!({"maxRows": 4_294_967_296_u64}), "should be less than or equal to"),
        ("/spec/limits", json!({"maxTransactionRows": 500}), "at least the larger of maxRows and maxCascadeRows"),
        ("/spec/mode", json!("Block"), "supported values: \"Enforce\", \"Warn\""),
        ("/spec/protect", json!(["Truncate"]), "protect must contain Delete"),
        ("/spec/allowance", json!([]), "field not declared in schema"),
        ("/spec/capture", json!({"maxRows": 0}), "should be greater than or equal to 1"),
        ("/spec/capture", json!({"retention": "10s"}), "retention must be between"),
    ] {
        refuses::<TableGuard>(&namespace, with(guard(), pointer, value), expected).await;
    }
    let database = protected_database;
    refuses::<ProtectedDatabase>(
        &namespace,
        with(database(), "/spec/checkInterval", json!("1s")),
        "between 5s and 24h",
    )
    .await;
    refuses::<ProtectedDatabase>(&namespace, with(database(), "/spec/checkInterval", json!("often")), "should match")
        .await;
    let port = with(database(), "/spec/connection/port", json!(70_000));
    refuses::<ProtectedDatabase>(&namespace, port, "should be less than or equal to 65535").await;

    let schedule = || backup_schedule(&json!({"url": "s3://backups/shop"}));
    for (pointer, value, expected) in [
        ("/spec/storage", json!({"url": "ftp://x/y"}), "should match"),
        ("/spec/storage", json!({"url": "file:///dumps"}), "needs persistentVolumeClaim"),
        ("/spec/storage", json!({"url": "s3://b/../c"}), "must not contain '..'"),
        ("/spec/storage", json!({"url": "gs://b/c", "endpoint": "http://s3"}), "endpoint goes with an s3:// url"),
        ("/spec/retention", json!({"minKeep": 0}), "should be greater than or equal to 1"),
        ("/spec/dump", json!({"compression": {"method": "gzip", "level": 12}}), "gzip levels are 0 to 9"),
        ("/metadata/name", json!("a".repeat(41)), "at most 40 characters"),
    ] {
        refuses::<BackupSchedule>(&namespace, with(schedule(), pointer, value), expected).await;
    }
    let exemption = |more: Value| {
        let mut spec = json!({"guardRefs": [{"name": "core"}], "role": "admin", "notAfter": "2030-01-01T00:00:00Z", "reason": "x"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": "purge"}, "spec": spec})
    };
    refuses::<GuardExemption>(&namespace, exemption(json!({})), "either limits or unlimited").await;
    let both = json!({"limits": {"maxRows": 1}, "unlimited": true});
    refuses::<GuardExemption>(&namespace, exemption(both), "either limits or unlimited").await;
    let backwards = json!({"unlimited": true, "notBefore": "2031-01-01T00:00:00Z"});
    refuses::<GuardExemption>(&namespace, exemption(backwards), "notBefore must be earlier").await;
    let backup = |spec: Value| json!({"metadata": {"name": "now"}, "spec": spec});
    refuses::<DatabaseBackup>(&namespace, backup(json!({})), "set either scheduleRef, or databaseRef").await;
    let half = json!({"databaseRef": {"name": "shop"}});
    refuses::<DatabaseBackup>(&namespace, backup(half), "databaseRef and storage go together").await;
    let restore = json!({"metadata": {"name": "back"}, "spec": {
        "source": {"backupRef": {"name": "now"}}, "target": {"databaseRef": {"name": "shop"}, "mode": "NewSchema"}}});
    refuses::<DatabaseRestore>(&namespace, restore, "NewSchema needs tables").await;
    namespace.finish().await;
}

#[tokio::test]
async fn what_must_not_change_cannot() {
    let namespace = Cluster::connect().await.namespace("immutable").await;
    namespace.apply::<TableGuard>(&table_guard(&["users"])).await;
    let moved = with(table_guard(&["users"]), "/spec/databaseRef", json!({"name": "other"}));
    refuses::<TableGuard>(&namespace, moved, "databaseRef cannot be changed").await;
    let exemption = |reason: &str| {
        json!({"metadata": {"name": "purge"}, "spec": {"guardRefs": [{"name": "core"}], "role": "admin",
            "limits": {"maxRows": 5}, "notAfter": "2030-01-01T00:00:00Z", "reason": reason}})
    };
    namespace.apply::<GuardExemption>(&exemption("a")).await;
    refuses::<GuardExemption>(&namespace, exemption("b"), "spec is immutable").await;
    namespace.finish().await;
}
