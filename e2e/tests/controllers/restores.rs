//! A user is deleted, and restored from a backup by a manifest.

use crate::fixture::{Fixture, count};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseRestore};
use pgrail_e2e::{Node, ObjectStore, STORE_ENDPOINT, condition, eventually, field, holds, wait_for};
use pgrail_testing::{Server, programs};
use serde_json::{Value, json};

/// A fixture with the guard `core` on `users`, and a verified backup of the schedule `nightly`.
struct Restores {
    fixture: Fixture,
    backup: String,
    _node: Node,
}

impl Restores {
    async fn new(server: &Server, name: &str) -> Self {
        let fixture = Fixture::with_guard(server, name).await;
        let store = ObjectStore::of_this_run();
        fixture.namespace.secret("s3", &store.keys()).await;
        let node = Node::start(&fixture.namespace, &store, programs(18));
        let storage = json!({
            "url": format!("s3://{}/{}", store.bucket, fixture.namespace.name),
            "endpoint": STORE_ENDPOINT, "region": "us-east-1", "secretRef": {"name": "s3"},
        });
        let mut schedule = pgrail_e2e::backup_schedule(&storage);
        schedule["spec"]["runOnCreate"] = true.into();
        fixture.namespace.apply::<BackupSchedule>(&schedule).await;
        let fresh = |it: &BackupSchedule| holds(it, "BackupFresh", "True", "Fresh");
        wait_for(&fixture.namespace, "nightly", "there is a backup", fresh).await;
        let backups = fixture.namespace.api::<DatabaseBackup>().list(&ListParams::default()).await.unwrap().items;
        let backup = backups[0].name_any();
        Self { fixture, backup, _node: node }
    }

    fn manifest(name: &str, source: &Value, change: &Value) -> Value {
        let mut spec = json!({
            "source": source, "tables": [{"schema": "public", "name": "users", "where": "id = 42"}], "followCascade": true,
            "target": {"databaseRef": {"name": "shop"}, "mode": "InPlace"},
        });
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"metadata": {"name": name, "annotations": {"pgrail.dev/allow-in-place": "true"}}, "spec": spec})
    }

    async fn restore(&self, name: &str, source: &Value, change: &Value) -> DatabaseRestore {
        self.fixture.namespace.apply::<DatabaseRestore>(&Self::manifest(name, source, change)).await;
        let over = |it: &DatabaseRestore| matches!(field(it, "/status/phase").as_str(), Some("Succeeded" | "Failed"));
        wait_for(&self.fixture.namespace, name, "the restore has ended", over).await
    }

    async fn rows(&self) -> [i64; 5] {
        let app = &self.fixture.app;
        let mut rows = [0; 5];
        for (place, table) in ["users", "leads", "conversations", "messages", "analytics"].iter().enumerate() {
            rows[place] = count(app, table).await;
        }
        rows
    }
}

#[tokio::test]
async fn a_deleted_user_is_restored_with_everything_that_was_theirs() {
    for server in pgrail_testing::servers() {
        let restores = Restores::new(&server, "restore").await;
        let namespace = &restores.fixture.namespace;
        let before = restores.rows().await;
        let app = &restores.fixture.app;
        app.batch_execute("DELETE FROM users WHERE id = 42; INSERT INTO analytics VALUES (90000, 7)").await.unwrap();
        let deleted = restores.rows().await;
        assert!(deleted[3] < before[3]);

        let of_backup = json!({"backupRef": {"name": restores.backup}});
        let dry = restores.restore("dry", &of_backup, &json!({"dryRun": true})).await;
        assert!(holds(&dry, "Ready", "True", "DryRun"), "{:?}", condition(&dry, "Ready"));
        assert_eq!(
            (field(&dry, "/status/tables/0/table"), field(&dry, "/status/tables/0/inserted")),
            (json!("public.users"), json!(1))
        );
        assert_eq!(field(&dry, "/status/restoredRows"), json!(0));
        assert_eq!(restores.rows().await, deleted, "a dry run changes nothing");

        let of_schedule = json!({"scheduleRef": {"name": "nightly"}});
        let restored = restores.restore("back", &of_schedule, &json!({})).await;
        assert!(holds(&restored, "Ready", "True", "Restored"), "{:?}", condition(&restored, "Ready"));
        let missing: i64 = before.iter().sum::<i64>() + 1 - deleted.iter().sum::<i64>();
        assert_eq!(
            (field(&restored, "/status/restoredRows"), field(&restored, "/status/expectedRows")),
            (json!(missing), json!(missing))
        );
        assert_eq!(field(&restored, "/status/source"), json!(restores.backup));
        assert_eq!(field(&restored, "/status/restoredTables"), json!(5));
        let mut expected = before;
        expected[4] += 1;
        assert_eq!(restores.rows().await, expected);
        namespace.event("back", "RestoreSucceeded", "").await;

        // A conflict restores nothing, and is reported with the rows.
        app.batch_execute("UPDATE users SET name = 'changed' WHERE id = 42").await.unwrap();
        let failed = restores.restore("conflict", &of_backup, &json!({})).await;
        assert!(holds(&failed, "Stalled", "True", "Conflict"), "{failed:?}");
        let message = condition(&failed, "Ready").unwrap().2;
        assert!(message.contains("1 rows of public.users exist and are different, by (id): 42"), "{message}");
        let skipped = restores.restore("skipped", &of_backup, &json!({"conflictPolicy": "SkipExisting"})).await;
        assert_eq!(
            (field(&skipped, "/status/differentRows"), field(&skipped, "/status/restoredRows")),
            (json!(1), json!(0))
        );

        // The pod is as restricted as that of a backup.
        let job = namespace.api::<Job>().get("back-restore").await.unwrap();
        let pod = field(&job, "/spec/template/spec");
        assert_eq!(
            (&pod["automountServiceAccountToken"], &pod["securityContext"]["runAsNonRoot"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(pod["containers"][0]["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        restores.fixture.finish().await;
    }
}

/// As in a cluster that is set up again: the objects are new, and the store has the dumps of the old ones.
#[tokio::test]
async fn dumps_of_an_earlier_schedule_are_found_and_restored_once_a_user_vouches_for_them() {
    let server = pgrail_testing::servers().remove(0);
    let restores = Restores::new(&server, "again").await;
    let namespace = &restores.fixture.namespace;
    let schedule = namespace.api::<BackupSchedule>().get("nightly").await.unwrap();
    let lost = namespace.api::<DatabaseBackup>().get(&restores.backup).await.unwrap();
    namespace.delete::<BackupSchedule>("nightly").await;
    namespace.delete::<DatabaseBackup>(&restores.backup).await;
    eventually("the old objects are deleted", async || {
        let schedule = namespace.api::<BackupSchedule>().get_opt("nightly").await.unwrap();
        let backups = namespace.api::<DatabaseBackup>().list(&ListParams::default()).await.unwrap().items;
        (schedule.is_none() && backups.is_empty()).then_some(())
    })
    .await;
    let mut spec = field(&schedule, "/spec");
    spec["runOnCreate"] = false.into();
    namespace.apply::<BackupSchedule>(&json!({"metadata": {"name": "nightly"}, "spec": spec})).await;
    let backups = namespace.api::<DatabaseBackup>();
    let found = eventually("its dump is recorded", async || {
        let first = backups.list(&ListParams::default()).await.unwrap().items.into_iter().next();
        first.filter(|it| field(it, "/status/phase") == "Discovered")
    })
    .await;
    for part in ["/status/location", "/status/manifestSha256", "/status/scheduleUID", "/status/rows"] {
        assert_eq!(field(&found, part), field(&lost, part), "{part}");
    }

    let before = restores.rows().await;
    restores.fixture.app.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap();
    let source = json!({"backupRef": {"name": found.name_any()}});
    namespace.apply::<DatabaseRestore>(&Restores::manifest("refused", &source, &json!({}))).await;
    let waits = |it: &DatabaseRestore| holds(it, "Stalled", "True", "Discovered");
    let refused = wait_for(namespace, "refused", "it waits for a user", waits).await;
    let message = condition(&refused, "Ready").unwrap().2;
    assert!(message.contains("pgrail.dev/adopt"), "{message}");
    namespace.delete::<DatabaseRestore>("refused").await;
    let adopt = Patch::Merge(json!({"metadata": {"annotations": {"pgrail.dev/adopt": "true"}}}));
    backups.patch(&found.name_any(), &PatchParams::default(), &adopt).await.unwrap();
    let restored = restores.restore("adopted", &source, &json!({})).await;
    assert!(holds(&restored, "Ready", "True", "Restored"), "{:?}", condition(&restored, "Ready"));
    assert_eq!(restores.rows().await, before);
    restores.fixture.finish().await;
}

#[tokio::test]
async fn a_backup_is_restored_into_a_new_database_and_a_table_into_a_new_schema() {
    let server = pgrail_testing::servers().remove(0);
    let restores = Restores::new(&server, "whole").await;
    let namespace = &restores.fixture.namespace;
    let before = restores.rows().await;
    let backup = namespace.api::<DatabaseBackup>().get(&restores.backup).await.unwrap();
    assert_eq!(field(&backup, "/status/verification/structure/outcome"), json!("Restored"), "{backup:?}");

    let app = &restores.fixture.app;
    app.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap();
    let copy = server.role_name("copy");
    let whole = |name: &str, target: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "source": {"scheduleRef": {"name": "nightly"}}, "target": {"databaseRef": {"name": "shop"}, "name": target},
        }})
    };
    let over = |it: &DatabaseRestore| matches!(field(it, "/status/phase").as_str(), Some("Succeeded" | "Failed"));
    namespace.apply::<DatabaseRestore>(&whole("existing", &restores.fixture.database.name)).await;
    let refused = wait_for::<DatabaseRestore>(namespace, "existing", "the restore has ended", over).await;
    assert!(holds(&refused, "Stalled", "True", "InvalidRequest"), "{:?}", condition(&refused, "Ready"));
    assert!(condition(&refused, "Ready").unwrap().2.contains("exists: drop it"), "{:?}", condition(&refused, "Ready"));

    namespace.apply::<DatabaseRestore>(&whole("whole", &copy)).await;
    let restored = wait_for::<DatabaseRestore>(namespace, "whole", "the restore has ended", over).await;
    assert!(holds(&restored, "Ready", "True", "Restored"), "{:?}", condition(&restored, "Ready"));
    assert_eq!(field(&restored, "/status/target"), json!(copy));
    assert_eq!(field(&restored, "/status/restoredRows"), field(&restored, "/status/expectedRows"));
    let there = pgrail_testing::connect(&server.uri_of(&copy)).await;
    for (place, table) in ["users", "leads", "conversations", "messages", "analytics"].iter().enumerate() {
        assert_eq!(count(&there, table).await, before[place], "{table}");
    }
    drop(there);
    let admin = pgrail_testing::connect(&server.uri).await;
    admin.batch_execute(&format!("DROP DATABASE {copy} WITH (FORCE)")).await.unwrap();

    // Without a name, the schema is named after the object.
    let beside = json!({"metadata": {"name": "before-friday"}, "spec": {
        "source": {"backupRef": {"name": restores.backup}}, "tables": [{"schema": "public", "name": "users"}],
        "target": {"databaseRef": {"name": "shop"}},
    }});
    namespace.apply::<DatabaseRestore>(&beside).await;
    let restored = wait_for::<DatabaseRestore>(namespace, "before-friday", "the restore has ended", over).await;
    assert!(holds(&restored, "Ready", "True", "Restored"), "{:?}", condition(&restored, "Ready"));
    let database = pgrail_testing::connect(&server.uri_of(&restores.fixture.database.name)).await;
    assert_eq!(count(&database, "before_friday.users WHERE id = 42").await, 1);
    drop(database);
    restores.fixture.finish().await;
}

#[tokio::test]
async fn a_restore_is_refused_with_the_remedy() {
    let server = pgrail_testing::servers().remove(0);
    let restores = Restores::new(&server, "refused").await;
    let namespace = &restores.fixture.namespace;
    let of_backup = json!({"backupRef": {"name": restores.backup}});
    let mut unannotated = Restores::manifest("unannotated", &of_backup, &json!({}));
    unannotated["metadata"]["annotations"] = json!({});
    let table = |condition: &str| json!({"tables": [{"schema": "public", "name": "users", "where": condition}]});
    for (manifest, reason, remedy) in [
        (unannotated, "InPlaceNotAllowed", "pgrail.dev/allow-in-place: \"true\""),
        (
            Restores::manifest("injected", &of_backup, &table("id = 1) OR (SELECT true")),
            "InvalidCondition",
            "spec.tables[0].where",
        ),
        (
            Restores::manifest("missing", &json!({"backupRef": {"name": "no"}}), &json!({})),
            "BackupNotFound",
            "spec.source.backupRef",
        ),
        (
            Restores::manifest(
                "early",
                &json!({"scheduleRef": {"name": "nightly"}, "before": "2020-01-01T00:00:00Z"}),
                &json!({}),
            ),
            "BackupNotFound",
            "no verified backup of that time",
        ),
    ] {
        namespace.apply::<DatabaseRestore>(&manifest).await;
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let refused = |it: &DatabaseRestore| holds(it, "Stalled", "True", reason);
        let restore = wait_for(namespace, name, reason, refused).await;
        let message = condition(&restore, "Ready").unwrap().2;
        assert!(message.contains(remedy), "{message}");
    }
    // The remedy works, and the condition is the server's to evaluate.
    namespace.annotate::<DatabaseRestore>("unannotated", "pgrail.dev/allow-in-place", Some("true")).await;
    let ended = |it: &DatabaseRestore| field(it, "/status/phase") == json!("Succeeded");
    wait_for::<DatabaseRestore>(namespace, "unannotated", "the restore has ended", ended).await;
    let invalid = restores.restore("invalid", &of_backup, &table("nothing = 1")).await;
    assert!(holds(&invalid, "Stalled", "True", "RestoreFailed"), "{:?}", condition(&invalid, "Ready"));

    // A backup whose manifest is not the one that was published is not used: here another hash is recorded.
    let patch = Patch::Merge(json!({"status": {"manifestSha256": "0".repeat(64)}}));
    let backups = namespace.api::<DatabaseBackup>();
    backups.patch_status(&restores.backup, &PatchParams::default(), &patch).await.unwrap();
    let replaced = restores.restore("replaced", &of_backup, &json!({})).await;
    assert!(holds(&replaced, "Stalled", "True", "ChecksumMismatch"), "{:?}", condition(&replaced, "Ready"));
    restores.fixture.finish().await;
}
