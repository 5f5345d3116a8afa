//! Comparing the store's own list with the dumps that are recorded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pgrail_dump::{
    BackupIdentity, DumpResult, Inventory, InventoryRequest, KNOWN_AT_MOST, Known, LostCluster, Reason, dump,
    inventory, verify,
};
use pgrail_testing::{Database, server};
use std::fs;
use std::path::PathBuf;
use support::{TestStore, identity, quiet, request, stores, verify_request};

async fn database() -> Database {
    let database = server(18).database("inventory").await;
    database.connect().await.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS n").await.unwrap();
    database
}

async fn published(database: &Database, store: &TestStore, change: impl FnOnce(&mut BackupIdentity)) -> DumpResult {
    let mut request = request(database);
    change(&mut request.identity);
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    result
}

fn run_of(location: &str) -> String {
    location.rsplit('/').next().unwrap().to_owned()
}

fn known(dump: &DumpResult) -> Known {
    Known(run_of(&dump.location), Some(dump.size_bytes))
}

fn request_of(known: Vec<Known>) -> InventoryRequest {
    InventoryRequest::new(identity().schedule_identity(), known)
}

async fn inventory_of(store: &TestStore, known: Vec<Known>) -> Inventory {
    inventory(&store.store, &request_of(known)).await.unwrap()
}

#[tokio::test]
async fn lost_dumps_are_named_whatever_was_lost_of_them() {
    let database = database().await;
    for store in stores() {
        assert_eq!(inventory_of(&store, Vec::new()).await, Inventory::default(), "{}: empty", store.kind);
        let whole = published(&database, &store, |_| {}).await;
        let no_manifest = published(&database, &store, |_| {}).await;
        let hidden = published(&database, &store, |_| {}).await;
        let no_archive = published(&database, &store, |_| {}).await;
        let shorter = published(&database, &store, |_| {}).await;
        let all = [&whole, &no_manifest, &hidden, &no_archive, &shorter].map(known).to_vec();
        let before = inventory_of(&store, all.clone()).await;
        assert_eq!(before, Inventory { published: 5, ..Inventory::default() }, "{}", store.kind);

        let directory = |dump: &DumpResult| store.files.join(&dump.location);
        fs::remove_file(directory(&no_manifest).join("manifest.json")).unwrap();
        fs::write(directory(&hidden).join("hidden.json"), "{}").unwrap();
        fs::remove_file(directory(&no_archive).join("dump.pgc.000")).unwrap();
        let archive = fs::File::options().write(true).open(directory(&shorter).join("dump.pgc.000")).unwrap();
        archive.set_len(shorter.size_bytes - 1).unwrap();
        let after = inventory_of(&store, all).await;
        assert_eq!(after.missing, [1, 2].into_iter().collect(), "{}", store.kind);
        assert_eq!(after.incomplete, [3, 4].into_iter().collect(), "{}", store.kind);
        assert!(after.unknown.is_empty() && after.published == 3);
    }
    database.finish().await;
}

#[tokio::test]
async fn unrecorded_dumps_of_the_schedule_are_described_and_others_only_counted() {
    let database = database().await;
    for store in stores() {
        let recorded = published(&database, &store, |_| {}).await;
        let older = published(&database, &store, |it| it.timestamp = "2026-11-20T02:15:00Z".parse().unwrap()).await;
        let newer = published(&database, &store, |it| it.backup_name = "by-another".into()).await;
        let former = published(&database, &store, |it| it.schedule_uid = "uid-former".into()).await;
        published(&database, &store, |it| it.schedule = "nightly-2".into()).await;
        let found = inventory_of(&store, vec![known(&recorded)]).await;
        assert_eq!((found.published, found.foreign, found.unreadable, found.not_listed), (4, 0, 0, 0));
        // By completion: that of the former schedule was made last.
        let runs: Vec<_> = found.unknown.iter().map(|it| it.run.clone()).collect();
        let expected = [&former, &newer, &older].map(|it| run_of(&it.location));
        assert_eq!(runs, expected, "{}", store.kind);
        let earlier: Vec<_> = found.unknown.iter().map(|it| it.earlier_schedule.as_deref()).collect();
        assert_eq!(earlier, [Some("uid-former"), None, None], "{}", store.kind);
        let first = &found.unknown[1];
        assert_eq!((first.backup_name.as_str(), first.database_uid.as_str()), ("by-another", "uid-shop"));
        assert_eq!((first.rows, first.tables, first.size_bytes), (10, 1, newer.size_bytes));
        assert_eq!((&first.sha256, first.completion_time), (&newer.sha256, newer.completion_time));
    }
    database.finish().await;
}

const LOST: &str = "11111111-2222-3333-4444-555555555555";

async fn inventory_with(store: &TestStore, known: Vec<Known>, lost: &str, of_lost: Vec<Known>) -> Inventory {
    let lost = Some(LostCluster { cluster_id: lost.into(), known: of_lost });
    inventory(&store.store, &InventoryRequest { lost, ..request_of(known) }).await.unwrap()
}

#[tokio::test]
async fn dumps_of_a_lost_cluster_are_listed_apart_and_forged_ones_are_not() {
    let database = database().await;
    for store in stores() {
        let ours = published(&database, &store, |_| {}).await;
        let theirs = |it: &mut BackupIdentity| {
            it.cluster_id = LOST.into();
            it.schedule_uid = "uid-theirs".into();
        };
        let lost = published(&database, &store, theirs).await;
        let of_others: [fn(&mut BackupIdentity); 4] = [
            |it| it.schedule = "nightly-2".into(),
            |it| it.schedule = "nightl".into(),
            |it| it.namespace = "another".into(),
            |it| it.cluster_id = "11111111-2222-3333-4444-555555555556".into(),
        ];
        for change in of_others {
            let and = |it: &mut BackupIdentity| {
                theirs(it);
                change(it);
            };
            published(&database, &store, and).await;
        }
        // In its directory, but of another cluster, or as if this schedule had made them.
        let manifest = fs::read_to_string(store.files.join(&lost.location).join("manifest.json")).unwrap();
        let forge = |run: &str, field: &str, value: String| {
            let location = lost.location.replace(&run_of(&lost.location), run);
            let mut forged: serde_json::Value = serde_json::from_str(&manifest).unwrap();
            forged["location"] = location.clone().into();
            forged["identity"][field] = value.into();
            let directory = store.files.join(location);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("manifest.json"), forged.to_string()).unwrap();
        };
        let own = identity();
        forge("20270101T000000Z-cluster", "clusterId", own.cluster_id.clone());
        forge("20270101T000000Z-namespace", "namespace", "another".into());
        forge("20270101T000000Z-uid", "scheduleUid", own.schedule_uid.clone());
        forge("20270101T000000Z-uidlike", "scheduleUid", format!("/{}\n", own.schedule_uid));

        let found = inventory_with(&store, vec![known(&ours)], LOST, Vec::new()).await;
        let mut own = found.clone();
        let of_lost = own.lost.take().unwrap();
        assert_eq!(own, Inventory { published: 1, ..Inventory::default() }, "{}: the schedule's own", store.kind);
        assert_eq!((of_lost.published, of_lost.foreign, of_lost.unreadable), (5, 4, 0), "{}", store.kind);
        let runs: Vec<_> = of_lost.unknown.iter().map(|it| (it.run.clone(), it.earlier_schedule.clone())).collect();
        assert_eq!(runs, [(run_of(&lost.location), Some("uid-theirs".into()))], "{}", store.kind);

        // Recorded ones are compared as the schedule's own.
        fs::remove_file(store.files.join(&lost.location).join("manifest.json")).unwrap();
        let found = inventory_with(&store, vec![known(&ours)], LOST, vec![known(&lost)]).await;
        let of_lost = found.lost.unwrap();
        assert!(found.missing.is_empty() && of_lost.missing.has(0) && of_lost.unknown.is_empty(), "{}", store.kind);
    }
    database.finish().await;
}

#[tokio::test]
async fn a_lost_cluster_that_cannot_be_listed_hides_nothing_of_the_schedule() {
    let database = database().await;
    for store in stores() {
        let ours = published(&database, &store, |_| {}).await;
        for id in ["", "..", "../other", "a/b", "x\u{1}", &"x".repeat(2000)] {
            let found = inventory_with(&store, vec![known(&ours)], id, Vec::new()).await;
            assert_eq!((found.published, found.missing.len()), (1, 0), "{}", store.kind);
            let failure = found.lost_failure.unwrap();
            assert_eq!((failure.reason, found.lost), (Reason::StoreInvalid, None), "{id:?}: {}", failure.message);
            assert!(failure.message.len() <= 310, "{}", failure.message);
        }
    }
    database.finish().await;
}

#[tokio::test]
async fn other_clusters_are_named_if_they_have_dumps_of_the_same_name() {
    let database = database().await;
    for store in stores() {
        let of = |cluster: &str| {
            let cluster = cluster.to_owned();
            move |it: &mut BackupIdentity| it.cluster_id = cluster
        };
        assert!(inventory_of(&store, Vec::new()).await.clusters.is_empty(), "{}: empty", store.kind);
        published(&database, &store, of(LOST)).await;
        published(&database, &store, of("not-the-id-of-a-cluster")).await;
        let unpublished = published(&database, &store, of("22222222-2222-3333-4444-555555555555")).await;
        fs::remove_file(store.files.join(unpublished.location).join("manifest.json")).unwrap();
        published(&database, &store, |it| {
            it.cluster_id = "33333333-2222-3333-4444-555555555555".into();
            it.namespace = "another".into();
        })
        .await;
        published(&database, &store, |it| {
            it.cluster_id = "44444444-2222-3333-4444-555555555555".into();
            it.schedule = "nightly-2".into();
        })
        .await;
        assert_eq!(inventory_of(&store, Vec::new()).await.clusters, [LOST], "{}", store.kind);
        let of_lost = inventory_with(&store, Vec::new(), LOST, Vec::new()).await;
        assert!(of_lost.clusters.is_empty() && of_lost.lost.is_some(), "{}: it is known", store.kind);
        let ours = published(&database, &store, |_| {}).await;
        assert!(inventory_of(&store, vec![known(&ours)]).await.clusters.is_empty(), "{}", store.kind);
        let request = InventoryRequest { find_clusters: true, ..request_of(vec![known(&ours)]) };
        assert_eq!(inventory(&store.store, &request).await.unwrap().clusters, [LOST], "{}", store.kind);
    }
    database.finish().await;
}

/// What others can write into a bucket.
#[tokio::test]
async fn a_hostile_store_is_bounded_and_its_names_are_checked() {
    let database = database().await;
    for store in stores() {
        let ours = published(&database, &store, |_| {}).await;
        let directory = store.files.join(identity().schedule_identity().directory().unwrap());
        let manifest = fs::read_to_string(store.files.join(&ours.location).join("manifest.json")).unwrap();
        let put = |run: &str, text: &str| {
            let run: PathBuf = directory.join(run);
            fs::create_dir_all(&run).unwrap();
            fs::write(run.join("manifest.json"), text).unwrap();
        };
        // A copy under another name, a name that no run has, no JSON, and one that is too large.
        put("20270101T000000Z-copied", &manifest);
        put("not-a-run", &manifest);
        put("20270101T000000Z-broken", "{");
        put("20270101T000000Z-large", &format!("{}{}", " ".repeat(17 * 1024 * 1024), manifest));
        let found = inventory_of(&store, vec![known(&ours)]).await;
        assert_eq!((found.published, found.unreadable), (5, 4), "{}: {:?}", store.kind, found.problem);
        assert!(found.unknown.is_empty() && found.missing.is_empty());
        // One whose texts would not be names.
        let forged = manifest
            .replace(&run_of(&ours.location), "20270101T000000Z-forged")
            .replace("nightly-20261123-021500", "../x\\\" $(id)");
        put("20270101T000000Z-forged", &forged);
        let found = inventory_of(&store, vec![known(&ours)]).await;
        assert_eq!(found.unknown[0].backup_name, "..xid", "{}", store.kind);
    }
    database.finish().await;
}

#[tokio::test]
async fn a_list_that_is_too_long_is_an_error_and_not_an_empty_store() {
    let store = support::file_store();
    let run = store.files.join(identity().schedule_identity().directory().unwrap()).join("20270101T000000Z-flood");
    fs::create_dir_all(&run).unwrap();
    for number in 0..=50_000 {
        fs::write(run.join(number.to_string()), "").unwrap();
    }
    let error = inventory(&store.store, &request_of(Vec::new())).await.unwrap_err();
    assert!(error.to_string().contains("more than 50000 objects"), "{error}");
    let many = request_of(vec![Known("x".into(), None); KNOWN_AT_MOST]);
    let lost = LostCluster { cluster_id: LOST.into(), known: vec![Known("x".into(), None)] };
    let error = inventory(&store.store, &InventoryRequest { lost: Some(lost), ..many }).await.unwrap_err();
    assert!(error.to_string().contains("2001 dumps"), "{error}");
}
