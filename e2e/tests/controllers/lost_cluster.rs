//! A cluster is lost, and the schedule is applied in another one: its dumps are in the directory of the lost cluster.

use crate::backups::{Backups, directory_of, phase};
use crate::encryption::{PUBLIC, SECRET};
use crate::fixture::count;
use crate::kubectl::Plugin;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseRestore};
use pgrail_e2e::{condition, eventually, field, holds, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ADOPT_CLUSTER: &str = "pgrail.dev/adopt-cluster";
const LOST: &str = "11111111-2222-3333-4444-555555555555";

/// The directory of a run, as if the lost cluster had made it: its manifest says the same as its place.
fn of_lost_cluster(run: &Path) -> PathBuf {
    let name = run.file_name().unwrap();
    let schedule = run.parent().unwrap();
    let namespace = schedule.parent().unwrap();
    let store = namespace.parent().unwrap().parent().unwrap();
    let theirs = store.join(LOST).join(namespace.file_name().unwrap()).join(schedule.file_name().unwrap()).join(name);
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::rename(run, &theirs).unwrap();
    let location = theirs.strip_prefix(store).unwrap().to_str().unwrap().to_owned();
    change_manifest(&theirs, &|manifest| {
        manifest["location"] = location.clone().into();
        manifest["identity"]["clusterId"] = LOST.into();
    });
    theirs
}

fn change_manifest(run: &Path, change: &dyn Fn(&mut Value)) {
    let file = run.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(file, manifest.to_string()).unwrap();
}

/// A copy of a run whose manifest was changed.
fn forged(of: &Path, run: &str, change: &dyn Fn(&mut Value)) {
    let copy = of.with_file_name(run);
    fs::create_dir_all(&copy).unwrap();
    for file in fs::read_dir(of).unwrap().flatten() {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    change_manifest(&copy, &|manifest| {
        let location = manifest["location"].as_str().unwrap().to_owned();
        manifest["location"] = format!("{}/{run}", location.rsplit_once('/').unwrap().0).into();
        change(manifest);
    });
}

/// Every file below a directory with its content.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            files.extend(content(&entry.path()));
        } else {
            files.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[tokio::test]
async fn encrypted_dumps_of_a_lost_cluster_are_recorded_adopted_and_restored_and_never_removed() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "lost").await;
    let namespace = &backups.fixture.namespace;
    let plugin = Plugin::new(namespace);
    let patch = json!({
        "runOnCreate": false, "encryption": {"ageRecipients": [PUBLIC]},
        "retention": {"minKeep": 1, "keepLast": 1, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0},
    });
    backups.apply(&patch).await;
    let first = backups.by_hand("first").await;
    assert_eq!(phase(&first), "Succeeded", "{first:?}");
    let (code, _, error) = plugin.run(&["adopt", "first"]).await;
    assert!(code == 1 && error.contains("its phase is Succeeded"), "{error}");
    backups.compared().await;
    let run = lose(&backups, &first).await;
    backups.fixture.app.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap();
    assert_eq!(count(&backups.fixture.app, "users").await, 499);

    // Another cluster, which has nothing but the store and the private key.
    backups.apply(&patch).await;
    let message = backups.message("ClusterAdopted", "False", "OtherCluster").await;
    assert!(message.contains(&format!("annotate bsched nightly {ADOPT_CLUSTER}={LOST}")), "{message}");
    assert!(backups.list().await.is_empty(), "nothing is recorded unasked");
    let uid = namespace.api::<BackupSchedule>().get("nightly").await.unwrap().uid().unwrap();
    forged(&run, "20270101T000000Z-uid", &|manifest| manifest["identity"]["scheduleUid"] = uid.clone().into());
    forged(&run, "20270101T000000Z-namespace", &|manifest| manifest["identity"]["namespace"] = "another".into());
    forged(&run, "20270101T000000Z-place", &|manifest| manifest["location"] = "elsewhere".into());
    let sibling = run.parent().unwrap().with_file_name("nightly-2").join("20270101T000000Z-x");
    fs::create_dir_all(&sibling).unwrap();
    fs::copy(run.join("manifest.json"), sibling.join("manifest.json")).unwrap();
    let lost_directory = run.ancestors().nth(3).unwrap().to_owned();
    assert!(lost_directory.ends_with(LOST));
    let before = content(&lost_directory);

    let name = recorded(&backups).await;
    adopted_and_restored(&backups, &plugin, &name).await;

    // The retention of the new schedule decides over its own dumps alone.
    let old = directory_of(&backups.by_hand("second").await);
    assert_eq!(phase(&backups.by_hand("third").await), "Succeeded");
    eventually("the second backup is pruned", async || (backups.list().await.len() == 2).then_some(())).await;
    assert_eq!(fs::read_dir(old).map_or(0, Iterator::count), 0);
    let schedule = backups.until("RetentionHealthy", "True", "Retained").await;
    assert!(holds(&schedule, "BackupFresh", "True", "Fresh"), "{schedule:?}");
    assert!(holds(&schedule, "ClusterAdopted", "True", "Discovered"), "{schedule:?}");
    assert_eq!(field(&schedule, "/status/verifiedBackups"), json!(1));
    assert!(content(&lost_directory) == before, "nothing of the lost cluster was changed");

    delete_with_dumps(&backups, &name).await;
    assert!(content(&lost_directory) == before, "nothing of the lost cluster was removed");
    plugin.finish();
    backups.finish().await;
}

/// The objects are deleted, and the dump is that of another cluster: its directory.
async fn lose(backups: &Backups, backup: &DatabaseBackup) -> PathBuf {
    let namespace = &backups.fixture.namespace;
    let run = directory_of(backup);
    namespace.delete::<BackupSchedule>("nightly").await;
    namespace.delete::<DatabaseBackup>(&backup.name_any()).await;
    let schedules = namespace.api::<BackupSchedule>();
    eventually("the objects are gone", async || {
        (schedules.get_opt("nightly").await.unwrap().is_none() && backups.list().await.is_empty()).then_some(())
    })
    .await;
    of_lost_cluster(&run)
}

/// Names the lost cluster: the name of the only backup that is recorded then.
async fn recorded(backups: &Backups) -> String {
    let namespace = &backups.fixture.namespace;
    for bad in ["../..", "local", &format!("{LOST}/another"), &"x".repeat(10_000)] {
        namespace.annotate::<BackupSchedule>("nightly", ADOPT_CLUSTER, Some(bad)).await;
        let shown = format!("{ADOPT_CLUSTER}: \"{}", bad.chars().take(60).collect::<String>());
        let refused = |it: &BackupSchedule| {
            holds(it, "Stalled", "True", "InvalidAnnotation") && condition(it, "Stalled").unwrap().2.contains(&shown)
        };
        wait_for(namespace, "nightly", "the annotation is refused", refused).await;
    }
    namespace.annotate::<BackupSchedule>("nightly", ADOPT_CLUSTER, Some(LOST)).await;
    let schedule = backups.until("ClusterAdopted", "True", "Discovered").await;
    let message = condition(&schedule, "ClusterAdopted").unwrap().2;
    assert!(message.starts_with("1 of 4 dumps") && message.contains("manifests of 3 cannot be used"), "{message}");
    assert!(condition(&schedule, "Stalled").is_none() && holds(&schedule, "RetentionHealthy", "True", "Retained"));
    assert_ne!(condition(&schedule, "BackupFresh").unwrap().0, "True", "it counts for nothing");
    for counter in ["/status/backups", "/status/verifiedBackups"] {
        assert_eq!(field(&schedule, counter), json!(0), "{counter}");
    }
    let all = backups.list().await;
    assert_eq!(all.len(), 1);
    let name = all[0].name_any();
    let is_kept =
        |it: &DatabaseBackup| phase(it) == "Discovered" && field(it, "/status/keptBecause") == json!(["Discovered"]);
    let found = wait_for(namespace, &name, "it is described", is_kept).await;
    assert!(name.ends_with(&format!("-{}", &LOST[..8])), "{name}");
    assert!(field(&found, "/status/location").as_str().unwrap().contains(&format!("/{LOST}/")), "{found:?}");
    assert_eq!((field(&found, "/status/encrypted"), field(&found, "/status/rows")), (json!(true), json!(40_500)));
    name
}

async fn adopted_and_restored(backups: &Backups, plugin: &Plugin, name: &str) {
    let namespace = &backups.fixture.namespace;
    namespace.secret("backup-key", &[("identity", SECRET)]).await;
    let restore = |restore: &str| {
        json!({"metadata": {"name": restore, "annotations": {"pgrail.dev/allow-in-place": "true"}}, "spec": {
            "source": {"backupRef": {"name": name}}, "decryption": {"identitySecretRef": {"name": "backup-key"}},
            "tables": [{"schema": "public", "name": "users", "where": "id = 42"}], "followCascade": true,
            "target": {"databaseRef": {"name": "shop"}, "mode": "InPlace"}}})
    };
    namespace.apply::<DatabaseRestore>(&restore("refused")).await;
    let waits = |it: &DatabaseRestore| holds(it, "Stalled", "True", "Discovered");
    wait_for(namespace, "refused", "it waits for a user", waits).await;
    namespace.delete::<DatabaseRestore>("refused").await;
    let (code, out, error) = plugin.run(&["adopt", name]).await;
    assert!(code == 0 && out.contains(LOST), "{out}{error}");
    namespace.apply::<DatabaseRestore>(&restore("back")).await;
    let over = |it: &DatabaseRestore| matches!(field(it, "/status/phase").as_str(), Some("Succeeded" | "Failed"));
    let restored = wait_for(namespace, "back", "the restore has ended", over).await;
    assert!(holds(&restored, "Ready", "True", "Restored"), "{restored:?}");
    assert_eq!(count(&backups.fixture.app, "users").await, 500);
    assert_eq!(count(&backups.fixture.app, "messages").await, 20_000);
}

/// Deletes the adopted backup, and the schedule, with the `deletionPolicy` that removes dumps: those of this cluster are gone then.
async fn delete_with_dumps(backups: &Backups, adopted: &str) {
    let namespace = &backups.fixture.namespace;
    let (objects, schedules) = (namespace.api::<DatabaseBackup>(), namespace.api::<BackupSchedule>());
    let own = directory_of(&objects.get("third").await.unwrap());
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}})));
    objects.patch(adopted, &parameters, &patch).await.unwrap();
    schedules.patch("nightly", &parameters, &patch).await.unwrap();
    let has_finalizer = "it has the finalizer";
    wait_for(namespace, adopted, has_finalizer, |it: &DatabaseBackup| !it.finalizers().is_empty()).await;
    wait_for(namespace, "nightly", has_finalizer, |it: &BackupSchedule| !it.finalizers().is_empty()).await;
    namespace.delete::<DatabaseBackup>(adopted).await;
    eventually("the object is deleted", async || objects.get_opt(adopted).await.unwrap().is_none().then_some(())).await;
    namespace.event(adopted, "BackupLeftBehind", "the directory of its schedule in this cluster").await;
    namespace.delete::<BackupSchedule>("nightly").await;
    let is_gone = async || schedules.get_opt("nightly").await.unwrap().is_none().then_some(());
    eventually("the schedule is deleted", is_gone).await;
    assert_eq!(fs::read_dir(own).map_or(0, Iterator::count), 0);
}
