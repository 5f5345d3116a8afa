//! Comparing the store's own list with the dumps that are recorded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pgrail_dump::{
    BackupIdentity, DumpResult, Inventory, InventoryRequest, KNOWN_AT_MOST, Known, dump, inventory, verify,
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

async fn inventory_of(store: &TestStore, known: Vec<Known>) -> Inventory {
    let request = InventoryRequest { ours: identity().schedule_identity(), known };
    inventory(&store.store, &request).await.unwrap()
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
    let request = |known| InventoryRequest { ours: identity().schedule_identity(), known };
    let error = inventory(&store.store, &request(Vec::new())).await.unwrap_err();
    assert!(error.to_string().contains("more than 50000 objects"), "{error}");
    let error = inventory(&store.store, &request(vec![Known("x".into(), None); KNOWN_AT_MOST + 1])).await.unwrap_err();
    assert!(error.to_string().contains("2001 dumps"), "{error}");
}
