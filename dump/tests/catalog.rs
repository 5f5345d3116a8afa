//! Listing and pruning: this schedule's dumps, foreign ones, and leftovers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pgrail_dump::{BackupIdentity, PruneRequest, Reason, Scope, dump, list, prune, verify};
use pgrail_testing::{Database, server};
use support::{TestStore, identity, quiet, request, stores, verify_request};

async fn database() -> Database {
    let database = server(18).database("catalog").await;
    database.connect().await.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS n").await.unwrap();
    database
}

/// A published dump of that identity; its location.
async fn published(database: &Database, store: &TestStore, change: impl FnOnce(&mut BackupIdentity)) -> String {
    let location = unpublished(database, store, change).await;
    let result = location.1;
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    location.0
}

async fn unpublished(
    database: &Database,
    store: &TestStore,
    change: impl FnOnce(&mut BackupIdentity),
) -> (String, pgrail_dump::DumpResult) {
    let mut request = request(database);
    change(&mut request.identity);
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    (result.location.clone(), result)
}

fn prune_request(delete: &[&String]) -> PruneRequest {
    PruneRequest::new(
        identity().schedule_identity(),
        delete.iter().map(|location| (*location).clone()).collect(),
        Timestamp::now(),
    )
}

/// Makes everything in a run's directory look old.
fn age(store: &TestStore, location: &str, by: Duration) {
    for entry in std::fs::read_dir(store.files.join(location)).unwrap().flatten() {
        let file = std::fs::File::options().write(true).open(entry.path()).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }
}

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn only_published_dumps_are_listed_and_others_are_foreign() {
    let database = database().await;
    for store in stores() {
        let schedule = identity().schedule_identity();
        let empty = list(&store.store, Scope::Schedule(&schedule)).await.unwrap();
        assert!(empty.ours.is_empty() && empty.discovered.is_empty() && empty.unreadable.is_empty());

        let ours = published(&database, &store, |_| {}).await;
        let newer = published(&database, &store, |_| {}).await;
        let hidden = published(&database, &store, |_| {}).await;
        std::fs::write(store.files.join(&hidden).join("hidden.json"), "{}").unwrap();
        let (unpublished, _) = unpublished(&database, &store, |_| {}).await;
        // A neighbour whose name merely starts alike, a recreated schedule of our name, another cluster's.
        let sibling = published(&database, &store, |identity| identity.schedule = "nightly-2".into()).await;
        let former = published(&database, &store, |identity| identity.schedule_uid = "uid-former".into()).await;
        let cluster = published(&database, &store, |identity| identity.cluster_id = "cluster-2".into()).await;
        let damaged = published(&database, &store, |_| {}).await;
        std::fs::write(store.files.join(&damaged).join("manifest.json"), "{").unwrap();
        let future = published(&database, &store, |_| {}).await;
        std::fs::write(store.files.join(&future).join("manifest.json"), r#"{"pgrailManifest": 99}"#).unwrap();

        let found = list(&store.store, Scope::Schedule(&schedule)).await.unwrap();
        let locations = |manifests: &[pgrail_dump::Manifest]| {
            manifests.iter().map(|manifest| manifest.location.clone()).collect::<Vec<_>>()
        };
        assert_eq!(locations(&found.ours), [newer.clone(), ours.clone()], "{}: newest first", store.kind);
        assert_eq!(locations(&found.discovered), std::slice::from_ref(&former));
        let mut unreadable: Vec<_> = found.unreadable.iter().map(|entry| entry.location.clone()).collect();
        unreadable.sort();
        let mut expected = vec![damaged, future];
        expected.sort();
        assert_eq!(unreadable, expected);
        assert!(found.unreadable.iter().any(|entry| entry.problem.contains("version 99")), "{:?}", found.unreadable);

        let everything = list(&store.store, Scope::Everything(&schedule)).await.unwrap();
        let mut foreign = locations(&everything.discovered);
        foreign.sort();
        let mut expected = vec![former, sibling, cluster];
        expected.sort();
        assert_eq!(foreign, expected);
        assert_eq!(locations(&everything.ours), [newer, ours]);
        assert!(!locations(&everything.ours).contains(&unpublished));
    }
    database.finish().await;
}

#[tokio::test]
async fn pruning_removes_what_is_ours_and_refuses_the_rest() {
    let database = database().await;
    for store in stores() {
        let first = published(&database, &store, |_| {}).await;
        let second = published(&database, &store, |_| {}).await;
        let sibling = published(&database, &store, |identity| identity.schedule = "nightly-2".into()).await;
        let former = published(&database, &store, |identity| identity.schedule_uid = "uid-former".into()).await;
        let cluster = published(&database, &store, |identity| identity.cluster_id = "cluster-2".into()).await;
        let (running, _) = unpublished(&database, &store, |_| {}).await;
        let outside = format!("{}/../nightly-2/x", identity().schedule_identity().directory().unwrap());
        let whole = identity().schedule_identity().directory().unwrap();
        let gone = format!("{whole}/20200101T000000Z-gone");
        let before = store.list_files();

        let asked = [&first, &sibling, &former, &cluster, &running, &outside, &whole, &gone];
        let report = prune(&store.store, &prune_request(&asked)).await.unwrap();
        assert_eq!(report.deleted, [first.clone(), gone], "{}", store.kind);
        let refused: Vec<_> = report.refused.iter().map(|entry| (&entry.location, entry.reason)).collect();
        let expected: Vec<_> = [&sibling, &former, &cluster, &running, &outside, &whole]
            .iter()
            .map(|location| (*location, Reason::NotOurs))
            .collect();
        assert_eq!(refused, expected);
        assert!(report.swept.is_empty());
        let after: Vec<_> = before.iter().filter(|file| !file.starts_with(&first)).cloned().collect();
        assert_eq!(store.list_files(), after, "nothing else changed");
        assert!(after.iter().any(|file| file.starts_with(&second)));

        // Once more: the same outcome.
        let again = prune(&store.store, &prune_request(&[&first])).await.unwrap();
        assert_eq!(again.deleted, [first]);
        assert_eq!(store.list_files(), after);
    }
    database.finish().await;
}

#[tokio::test]
async fn leftovers_are_swept_when_they_are_old() {
    let database = database().await;
    for store in stores() {
        let kept = published(&database, &store, |_| {}).await;
        let (young, _) = unpublished(&database, &store, |_| {}).await;
        let (old, _) = unpublished(&database, &store, |_| {}).await;
        let (going_on, _) = unpublished(&database, &store, |_| {}).await;
        let (sibling, _) = unpublished(&database, &store, |identity| identity.schedule = "nightly-2".into()).await;
        for location in [&kept, &old, &going_on, &sibling] {
            age(&store, location, DAY + Duration::from_mins(1));
        }
        age(&store, &young, Duration::from_hours(23));
        let mut request = prune_request(&[]);
        request.running = vec![going_on.rsplit_once('-').unwrap().1.to_owned()];
        let report = prune(&store.store, &request).await.unwrap();
        assert_eq!(report.swept, std::slice::from_ref(&old), "{}", store.kind);
        let files = store.list_files();
        for (location, stays) in [(&kept, true), (&young, true), (&old, false), (&going_on, true), (&sibling, true)] {
            assert_eq!(files.iter().any(|file| file.starts_with(location.as_str())), stays, "{location}");
        }
    }
    database.finish().await;
}

#[tokio::test]
async fn unfinished_uploads_are_ended() {
    use pgrail_dump::{Compression, CompressionMethod, Progress};
    let database = server(18).database("unfinished").await;
    database
        .connect()
        .await
        .batch_execute(
            "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 50000) n",
        )
        .await
        .unwrap();
    for store in stores() {
        for schedule in ["nightly", "nightly-2"] {
            let mut request = request(&database);
            request.identity.schedule = schedule.into();
            request.compression = Compression { method: CompressionMethod::None, level: None };
            request.upload.part_bytes = 5 * 1024 * 1024;
            let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
            let progress = move |progress| {
                if matches!(progress, Progress::Written { bytes } if bytes > 12_000_000) {
                    let _ = reached.send(());
                }
            };
            // Dropped, as when a pod is killed: the upload stays unfinished.
            tokio::select! {
                _ = dump(&request, &store.store, &progress) => panic!("the dump was to be interrupted"),
                _ = wait.recv() => {}
            }
            if store.kind == "file" {
                // Within a process that lives on, the client library cleans up; a killed one leaves its staged file.
                let directory = store.files.join(request.identity.location().unwrap());
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(directory.join("dump.pgc.000#77"), "half").unwrap();
            }
        }
        let young = prune(&store.store, &prune_request(&[])).await.unwrap();
        assert_eq!(young.aborted_uploads, 0, "{}", store.kind);
        let mut request = prune_request(&[]);
        request.now = Timestamp::now().checked_add(jiff::SignedDuration::from_hours(25)).unwrap();
        let report = prune(&store.store, &request).await.unwrap();
        assert_eq!(report.aborted_uploads, 1, "{}: the sibling's stays", store.kind);
        let again = prune(&store.store, &request).await.unwrap();
        assert_eq!(again.aborted_uploads, 0, "{}", store.kind);
        let mut siblings = request.clone();
        siblings.ours.schedule = "nightly-2".into();
        assert_eq!(prune(&store.store, &siblings).await.unwrap().aborted_uploads, 1, "{}", store.kind);
    }
    database.finish().await;
}
