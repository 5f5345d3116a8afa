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
        ("/spec/limits", json!({"window": {"duration": "30s", "maxRows": 10}}), "duration must be between 1m and 24h"),
        ("/spec/limits", json!({"window": {"duration": "25h", "maxRows": 10}}), "duration must be between 1m and 24h"),
        ("/spec/limits", json!({"window": {"duration": "1h"}}), "window must have maxRows, maxCascadeRows, or both"),
        ("/spec/limits", json!({"window": {"duration": "1h", "maxRows": -1}}), "should be greater than or equal to 0"),
        (
            "/spec/allowances",
            json!([{"role": "job", "limits": {"window": {"duration": "48h", "maxRows": 10}}}]),
            "duration must be between 1m and 24h",
        ),
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
        ("/spec/storage", json!({"url": "ftp://x/y"}), "url must be s3://bucket/prefix"),
        ("/spec/storage", json!({"url": "file:///dumps"}), "requires persistentVolumeClaim"),
        ("/spec/storage", json!({"url": "s3://b/../c"}), "must not contain '..'"),
        ("/spec/storage", json!({"url": "gs://b/c", "endpoint": "http://s3"}), "endpoint requires an s3:// url"),
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
    refuses::<DatabaseBackup>(&namespace, backup(half), "databaseRef requires storage").await;
    let restore = json!({"metadata": {"name": "back"}, "spec": {
        "source": {"backupRef": {"name": "now"}}, "target": {"databaseRef": {"name": "shop"}, "mode": "NewSchema"}}});
    refuses::<DatabaseRestore>(&namespace, restore, "NewSchema requires tables").await;
    let target = |mode: &str| json!({"databaseRef": {"name": "shop"}, "mode": mode});
    for (change, expected) in [
        (json!({"target": target("InPlace")}), "InPlace requires tables"),
        (
            json!({"target": target("NewDatabase"), "followCascade": true}),
            "followCascade and dryRun require target.mode InPlace",
        ),
        (json!({"tables": [{"schema": "public", "name": "users", "where": "id = 1"}]}), "require target.mode InPlace"),
        (
            json!({"target": target("InPlace"), "tables": [{"schema": "public", "name": "users", "where": ""}]}),
            "at least 1 char",
        ),
    ] {
        let mut spec = json!({"source": {"backupRef": {"name": "now"}}, "target": {"databaseRef": {"name": "shop"}}});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        refuses::<DatabaseRestore>(&namespace, json!({"metadata": {"name": "back"}, "spec": spec}), expected).await;
    }
    namespace.finish().await;
}

#[tokio::test]
async fn impossible_schedules_are_refused_with_the_field() {
    let namespace = Cluster::connect().await.namespace("cron").await;
    let at =
        |schedule: &str| with(backup_schedule(&json!({"url": "s3://backups/shop"})), "/spec/schedule", schedule.into());
    for good in [
        "15 2 * * *",
        "  0 0 29 2 *",
        "H H/6 * * *",
        "H/15\t2 1-7 JAN-mar,Dec sun",
        "*/20 9-17/2,22 ? * mon-FRI",
        "0/30 05 01,31 12 0,6",
        "0 0 31 4 1",
        "0 0 30,31 2,3 *",
    ] {
        namespace.apply::<BackupSchedule>(&at(good)).await;
    }
    for (bad, expected) in [
        ("every night", "must have five fields"),
        ("@daily", "must have five fields"),
        ("0 15 2 * * *", "must have five fields"),
        ("60 2 * * *", "the minute must be"),
        ("*/0 2 * * *", "the minute must be"),
        ("5,, 2 * * *", "the minute must be"),
        ("H-5 2 * * *", "the minute must be"),
        ("0 24 * * *", "the hour must be"),
        ("0 2 0 * *", "the day of month must be"),
        ("0 2 32 * *", "the day of month must be"),
        ("0 2 L * *", "the day of month must be"),
        ("0 2 H * *", "the day of month must be"),
        ("0 2 * 13 *", "the month must be"),
        ("0 2 * Foo *", "the month must be"),
        ("0 2 * * 7", "the day of week must be"),
        ("0 2 * * 1#2", "the day of week must be"),
        ("0 0 30 2 *", "the date must exist"),
        ("0 0 31 feb,2 ?", "the date must exist"),
        ("0 0 31 4,06,SEP,11 *", "the date must exist"),
    ] {
        refuses::<BackupSchedule>(&namespace, at(bad), expected).await;
    }
    let drill = json!({"drill": {"schedule": "0 24 * * 0"}});
    refuses::<BackupSchedule>(&namespace, with(at("0 2 * * *"), "/spec/verification", drill), "the hour must be").await;
    let expects = |expect: &str| {
        let query = json!({"name": "users", "sql": "SELECT count(*) FROM users", "expect": expect});
        with(at("0 2 * * *"), "/spec/verification", json!({"drill": {"schedule": "H 5 * * 0", "queries": [query]}}))
    };
    for good in ["> 0", ">=10", " < 5.25 ", "<= -5", "= 42", "= a b", "!= x", "de_DE.UTF-8", "t", "-1"] {
        namespace.apply::<BackupSchedule>(&expects(good)).await;
    }
    for bad in ["> x", ">", "> 1 and < 5", "== 5", "<> 5", "=> 5", "!5", "=", "> 1e5", " ", "a\nb"] {
        refuses::<BackupSchedule>(&namespace, expects(bad), "expect must be > 0").await;
    }
    namespace.finish().await;
}

#[tokio::test]
async fn time_zones_that_cannot_exist_are_refused() {
    let namespace = Cluster::connect().await.namespace("zones").await;
    let at = |zone: &str| with(backup_schedule(&json!({"url": "s3://backups/shop"})), "/spec/timeZone", zone.into());
    for good in [
        "UTC",
        "Europe/Berlin",
        "europe/berlin",
        "America/Argentina/Buenos_Aires",
        "Etc/GMT+5",
        "EST5EDT",
        "NZ-CHAT",
        "GB",
    ] {
        namespace.apply::<BackupSchedule>(&at(good)).await;
    }
    for bad in
        ["CEST", "UTC+2", "+02:00", "Local", "Berlin", "Berlin/Europe", "Europe/", "Europe / Berlin", "../etc/passwd"]
    {
        refuses::<BackupSchedule>(&namespace, at(bad), "must be the name of an IANA time zone").await;
    }
    namespace.finish().await;
}

#[tokio::test]
async fn endpoints_that_are_never_a_store_are_refused() {
    let namespace = Cluster::connect().await.namespace("endpoints").await;
    let at = |endpoint: Value| backup_schedule(&json!({"url": "s3://backups/shop", "endpoint": endpoint}));
    for good in [
        json!(null),
        json!("https://minio.example.com"),
        json!("http://s3:9000"),
        json!("http://s3.infra.svc.cluster.local:9000/"),
        json!("https://10.0.0.7:9000"),
        json!("https://[fd00::7]:9000"),
        json!("https://1.s3.example.com"),
    ] {
        namespace.apply::<BackupSchedule>(&at(good)).await;
    }
    for bad in ["s3.example.com", "ftp://s3.example.com", "https://", "https:///bucket"] {
        refuses::<BackupSchedule>(&namespace, at(bad.into()), "endpoint must be a URL").await;
    }
    refuses::<BackupSchedule>(&namespace, at("https://key:secret@s3.example.com".into()), "credentials").await;
    for bad in [
        "http://169.254.169.254",
        "http://169.254.169.254:80/latest/meta-data",
        "https://[fe80::1]",
        "http://[fd00:ec2::254]",
        "http://[FD00:0ec2:0:0:0:0:0:0254]:80/latest",
        "https://[::ffff:169.254.169.254]",
        "https://[::ffff:a9fe:a9fe]",
        "https://127.0.0.1:9000",
        "https://[::1]:9000",
        "https://0.0.0.0",
        "https://[::]",
        "https://224.0.0.1",
        "https://2852039166",
        "https://0xa9fea9fe",
        "https://169.254.43518",
        "https://169.254.169.254.",
        "https://localhost:9000",
        "https://s3.localhost",
        "http://metadata.google.internal",
    ] {
        refuses::<BackupSchedule>(&namespace, at(bad.into()), "link-local, loopback").await;
    }
    let now = json!({"metadata": {"name": "now"}, "spec": {"databaseRef": {"name": "shop"},
        "storage": {"url": "s3://backups/shop", "endpoint": "http://169.254.169.254"}}});
    refuses::<DatabaseBackup>(&namespace, now, "link-local, loopback").await;
    namespace.finish().await;
}

#[tokio::test]
async fn nothing_is_selected_twice() {
    let namespace = Cluster::connect().await.namespace("twice").await;
    let twice = json!([
        {"schema": "public", "name": "users"},
        {"schema": "public", "name": "order_*"},
        {"schema": "public", "name": "users", "limits": {"maxRows": 5}},
    ]);
    refuses::<TableGuard>(&namespace, with(table_guard(&["users"]), "/spec/tables", twice), "tables must not contain")
        .await;
    let many: Vec<_> = (0..64)
        .map(|number| json!({"schema": "s".repeat(128), "name": format!("{number}{}", "t".repeat(126))}))
        .collect();
    namespace.apply::<TableGuard>(&with(table_guard(&["users"]), "/spec/tables", many.into())).await;
    let exemption = |pointer: &str, value: Value| {
        let manifest = json!({"metadata": {"name": "purge"}, "spec": {"guardRefs": [{"name": "core"}], "role": "admin",
            "limits": {"maxRows": 5}, "notAfter": "2030-01-01T00:00:00Z", "reason": "x"}});
        with(manifest, pointer, value)
    };
    let guards = exemption("/spec/guardRefs", json!([{"name": "core"}, {"name": "core"}]));
    refuses::<GuardExemption>(&namespace, guards, "guardRefs must not contain").await;
    let tables = json!([{"schema": "public", "name": "users"}, {"schema": "public", "name": "users"}]);
    refuses::<GuardExemption>(&namespace, exemption("/spec/tables", tables), "tables must not contain").await;
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
