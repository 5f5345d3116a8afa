//! Published backups that are verified again: whole ones, and ones of which something is not as the manifest says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::path::PathBuf;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use pgrail_dump::{
    Compared, DumpRequest, Identities, Reason, Reverified, ReverifyError, ReverifyRequest, Store, dump, reverify,
    verify,
};
use pgrail_testing::{Database, client_programs, for_each_server, programs, server};
use serde_json::{Value, json};
use support::{
    BLOB, SHOP, SHOP_ROWS, SHOP_TABLES, TestStore, clients_with, file_store, in_parts, quiet, request, stores,
    verify_request,
};

/// A published backup, and what is done to it.
struct Published {
    store: TestStore,
    location: String,
    major: u32,
}

/// Of a dump with several segments.
async fn publish(request: &DumpRequest, store: TestStore, major: u32) -> Published {
    let mut request = in_parts(request.clone(), 1);
    request.identity.run_id = support::unique("r").replace('-', "");
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    let mut verification = verify_request(&result);
    verification.client_directory.clone_from(&request.client_directory);
    verify(&verification, &store.store, &quiet).await.unwrap();
    Published { store, location: result.location, major }
}

impl Published {
    fn request(&self) -> ReverifyRequest {
        let mut request = ReverifyRequest::new(self.location.clone());
        request.client_directory = Some(client_programs(self.major));
        request
    }

    async fn reverify(&self) -> Result<Reverified, ReverifyError> {
        reverify(&self.request(), &self.store.store, &quiet).await
    }

    async fn reverify_with(&self, identity: &Identity) -> Result<Reverified, ReverifyError> {
        let text = identity.to_string();
        let identities = Identities::parse(text.expose_secret()).unwrap();
        let store = Store::open(&self.store.settings).unwrap().with_identities(identities);
        reverify(&self.request(), &store, &quiet).await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.store.files.join(&self.location).join(name)
    }

    /// What is found while an object has other bytes, or is missing.
    async fn while_changed(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Reverified {
        let file = self.file(name);
        let before = std::fs::read(&file).unwrap();
        match change(before.clone()) {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let found = self.reverify().await;
        std::fs::write(&file, before).unwrap();
        found.unwrap()
    }

    /// What is found with another manifest.
    async fn with_manifest(&self, change: impl FnOnce(&mut Value)) -> Reverified {
        self.while_changed("manifest.json", |bytes| {
            let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
            let before = manifest.clone();
            change(&mut manifest);
            assert_ne!(manifest, before, "the test changes nothing");
            Some(serde_json::to_vec(&manifest).unwrap())
        })
        .await
    }
}

fn is_whole(found: &Reverified) {
    assert!(found.mismatches.is_empty(), "{:?}", found.mismatches);
}

/// Exactly this is wrong.
#[track_caller]
fn differs(found: &Reverified, reason: Reason, text: &str) {
    let [mismatch] = &found.mismatches[..] else { panic!("{text}: {:#?}", found.mismatches) };
    assert_eq!(mismatch.reason, reason, "{mismatch:?}");
    assert!(mismatch.message.contains(text), "{text}: {mismatch:?}");
    if found.compared != Compared::Rows || reason == Reason::RowCountMismatch {
        assert_eq!((found.tables, found.rows), (None, None), "{text}: no more is claimed than was found");
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a change of an object")]
fn flipped(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Some(bytes)
}

async fn shop(database: &Database) {
    let client = database.connect().await;
    client.batch_execute(SHOP).await.unwrap();
    client.batch_execute(BLOB).await.unwrap();
}

#[tokio::test]
async fn every_byte_and_every_row_of_a_whole_backup_is_compared() {
    for_each_server(async |server| {
        let database = server.database("reverify").await;
        shop(&database).await;
        let identity = Identity::generate();
        for (jobs, encrypted) in [(1, false), (2, false), (1, true), (2, true)] {
            for store in stores() {
                let mut request = request(&database);
                request.jobs = jobs;
                if encrypted {
                    request.age_recipients = vec![identity.to_public().to_string()];
                }
                let backup = publish(&request, store, server.major).await;
                let files = backup.store.list_files();
                let found = if encrypted { backup.reverify_with(&identity).await } else { backup.reverify().await };
                let found = found.unwrap();
                is_whole(&found);
                assert_eq!(found.compared, Compared::Rows, "{jobs} {encrypted}");
                assert_eq!((found.tables, found.rows), (Some(SHOP_TABLES + 1), Some(SHOP_ROWS + 20_000)));
                assert_eq!(found.objects, files.len() as u64 - 1, "all but the manifest: {files:?}");
                let size = |file: &String| std::fs::metadata(backup.store.files.join(file)).unwrap().len();
                let bytes: u64 = files.iter().filter(|file| !file.ends_with("manifest.json")).map(size).sum();
                assert_eq!((found.bytes, found.notes.len()), (bytes, 0));
                assert_eq!(backup.store.list_files(), files, "nothing is written");
            }
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_as_it_was_written_is_found() {
    let database = server(18).database("reverify").await;
    shop(&database).await;
    for store in stores() {
        let backup = publish(&request(&database), store, 18).await;
        assert!(backup.file("dump.pgc.002").exists(), "{:?}", backup.store.list_files());
        for name in ["dump.pgc.000", "dump.pgc.002", "globals.sql"] {
            let found = backup.while_changed(name, flipped).await;
            differs(&found, Reason::ChecksumMismatch, &format!("{name} has the SHA-256"));
            let shorter = |mut bytes: Vec<u8>| {
                bytes.pop();
                Some(bytes)
            };
            let found = backup.while_changed(name, shorter).await;
            differs(&found, Reason::ChecksumMismatch, &format!("{name} has "));
            let found = backup.while_changed(name, |_| None).await;
            differs(&found, Reason::ObjectMissing, &format!("{name} is not in the store"));
            let archive = name.starts_with("dump");
            assert_eq!(found.compared, if archive { Compared::Bytes } else { Compared::Rows });
            assert_eq!(found.notes.len(), usize::from(archive), "that the rows were not compared: {:?}", found.notes);
        }
        // All of it, not only the first.
        let third = std::fs::read(backup.file("dump.pgc.002")).unwrap();
        std::fs::remove_file(backup.file("dump.pgc.002")).unwrap();
        let found = backup.while_changed("dump.pgc.000", flipped).await;
        let reasons: Vec<_> = found.mismatches.iter().map(|mismatch| mismatch.reason).collect();
        assert_eq!(reasons, [Reason::ObjectMissing, Reason::ChecksumMismatch], "{:?}", found.mismatches);
        std::fs::write(backup.file("dump.pgc.002"), third).unwrap();
        is_whole(&backup.reverify().await.unwrap());
    }
    database.finish().await;
}

#[tokio::test]
async fn a_manifest_that_is_not_that_of_its_archive_is_found() {
    let database = server(18).database("reverify").await;
    shop(&database).await;
    let backup = publish(&request(&database), file_store(), 18).await;
    let users = |manifest: &Value| {
        let tables = manifest["tables"].as_array().unwrap();
        tables.iter().position(|table| table["name"] == "users").unwrap()
    };
    let found = backup
        .with_manifest(|manifest| {
            let users = users(manifest);
            manifest["tables"][users]["rows"] = json!({"counted": 1001});
            manifest["rows"] = json!(manifest["rows"].as_u64().unwrap() + 1);
        })
        .await;
    differs(&found, Reason::RowCountMismatch, "public.users has 1000 rows instead of 1001");
    let found = backup
        .with_manifest(|manifest| {
            let users = users(manifest);
            manifest["tables"].as_array_mut().unwrap().remove(users);
            manifest["tableCount"] = json!(manifest["tableCount"].as_u64().unwrap() - 1);
            manifest["rows"] = json!(manifest["rows"].as_u64().unwrap() - 1000);
        })
        .await;
    differs(&found, Reason::RowCountMismatch, "public.users is not in the snapshot");
    let found = backup.with_manifest(|manifest| manifest["largeObjects"] = json!(3)).await;
    differs(&found, Reason::RowCountMismatch, "2 large objects instead of 3");
    let found = backup.with_manifest(|manifest| manifest["rows"] = json!(7)).await;
    differs(&found, Reason::ArchiveInvalid, "all tables together 7");
    let found = backup.with_manifest(|manifest| manifest["tableCount"] = json!(7)).await;
    differs(&found, Reason::ArchiveInvalid, "tables instead of 7");
    let found = backup
        .with_manifest(|manifest| {
            let users = users(manifest);
            manifest["tables"][users]["block"]["offset"] = json!(1);
        })
        .await;
    differs(&found, Reason::ArchiveInvalid, "wrong for the rows of public.users");
    let found = backup.with_manifest(|manifest| manifest["head"]["length"] = json!(9)).await;
    differs(&found, Reason::ArchiveInvalid, "the beginning of the archive");
    let found = backup.with_manifest(|manifest| manifest["sizeBytes"] = json!(9)).await;
    differs(&found, Reason::ArchiveInvalid, "its archive has 9 bytes");
    let found = backup.with_manifest(|manifest| manifest["sha256"] = json!("00")).await;
    differs(&found, Reason::ChecksumMismatch, "instead of 00");
    let found = backup.with_manifest(|manifest| manifest["globals"]["name"] = json!("../../x")).await;
    differs(&found, Reason::ArchiveInvalid, "\"../../x\" is not the name of an object");
    // A segment is left out, and the rest is consistent.
    let found = backup
        .with_manifest(|manifest| {
            let last = manifest["segments"].as_array_mut().unwrap().pop().unwrap();
            manifest["sizeBytes"] =
                json!(manifest["sizeBytes"].as_u64().unwrap() - last["sizeBytes"].as_u64().unwrap());
        })
        .await;
    differs(&found, Reason::ChecksumMismatch, "has the SHA-256");

    let elsewhere = backup.with_manifest(|manifest| manifest["location"] = json!("a/b/c/d")).await;
    differs(&elsewhere, Reason::ArchiveInvalid, "is that of a/b/c/d");
    let damaged = backup.while_changed("manifest.json", |_| Some(b"{".to_vec())).await;
    differs(&damaged, Reason::ArchiveInvalid, "is not a manifest");
    let missing = backup.while_changed("manifest.json", |_| None).await;
    differs(&missing, Reason::ObjectMissing, "manifest.json");
    for found in [elsewhere, damaged, missing] {
        assert_eq!((found.compared, found.objects, found.bytes), (Compared::Nothing, 0, 0));
    }
    let mut published = backup.request();
    published.manifest_sha256 = Some("00".to_owned());
    let found = reverify(&published, &backup.store.store, &quiet).await.unwrap();
    differs(&found, Reason::ChecksumMismatch, "is not the manifest that was published");
    published.manifest_sha256 = backup.reverify().await.unwrap().manifest_sha256;
    is_whole(&reverify(&published, &backup.store.store, &quiet).await.unwrap());
    database.finish().await;
}

#[tokio::test]
async fn a_dump_with_several_archives_is_verified_archive_by_archive() {
    let database = server(18).database("reverify").await;
    shop(&database).await;
    let mut request = request(&database);
    request.jobs = 2;
    let backup = publish(&request, file_store(), 18).await;
    let files = backup.store.list_files();
    let data = files.iter().find_map(|file| file.rsplit('/').next().filter(|name| name.contains(".data")));
    for name in ["dump.pgc.pre.000", data.unwrap(), "dump.pgc.post.000"] {
        let found = backup.while_changed(name, flipped).await;
        differs(&found, Reason::ChecksumMismatch, &format!("{name} has the SHA-256"));
        assert_eq!(found.compared, Compared::Bytes);
        assert_eq!(found.objects, files.len() as u64 - 2, "every other one was read");
        let found = backup.while_changed(name, |_| None).await;
        differs(&found, Reason::ObjectMissing, name);
    }
    // Nobody would restore the last one.
    let found = backup
        .with_manifest(|manifest| {
            manifest["archives"].as_array_mut().unwrap().pop();
        })
        .await;
    let messages: Vec<_> = found.mismatches.iter().map(|mismatch| mismatch.message.as_str()).collect();
    assert!(messages.iter().any(|message| message.contains("do not consist of its objects")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("together have the SHA-256")), "{messages:?}");
    let found = backup
        .with_manifest(|manifest| {
            let tables = manifest["tables"].as_array_mut().unwrap();
            let blob = tables.iter_mut().find(|table| table["name"] == "blob").unwrap();
            blob["block"]["archive"] = json!(1);
        })
        .await;
    differs(&found, Reason::ArchiveInvalid, "wrong for the rows of public.blob");
    database.finish().await;
}

#[tokio::test]
async fn of_an_encrypted_backup_no_more_is_claimed_than_the_keys_allow() {
    let database = server(18).database("reverify").await;
    shop(&database).await;
    let identity = Identity::generate();
    let mut request = request(&database);
    request.age_recipients = vec![identity.to_public().to_string()];
    let backup = publish(&request, file_store(), 18).await;

    let found = backup.reverify().await.unwrap();
    is_whole(&found);
    assert_eq!((found.compared, found.tables, found.rows), (Compared::Bytes, None, None));
    assert!(found.notes[0].contains("the rows were not compared: the backup is encrypted"), "{:?}", found.notes);
    for name in ["dump.pgc.age.000", "dump.pgc.age.002", "index.json.age", "globals.sql.age"] {
        let found = backup.while_changed(name, flipped).await;
        differs(&found, Reason::ChecksumMismatch, &format!("{name} has the SHA-256"));
    }
    // A key that does not fit shows nothing of the backup.
    let error = backup.reverify_with(&Identity::generate()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::IdentityRequired, "{error:?}");

    for name in ["dump.pgc.age.000", "dump.pgc.age.002", "index.json.age"] {
        let before = std::fs::read(backup.file(name)).unwrap();
        std::fs::write(backup.file(name), flipped(before.clone()).unwrap()).unwrap();
        let found = backup.reverify_with(&identity).await.unwrap();
        differs(&found, Reason::ChecksumMismatch, &format!("{name} has the SHA-256"));
        assert_eq!(found.compared, Compared::Bytes, "{name}");
        std::fs::write(backup.file(name), before).unwrap();
    }
    // Total rows are in clear, and are compared with those of the tables, which are not.
    let file = backup.file("manifest.json");
    let before = std::fs::read(&file).unwrap();
    let mut manifest: Value = serde_json::from_slice(&before).unwrap();
    manifest["rows"] = json!(7);
    std::fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
    is_whole(&backup.reverify().await.unwrap());
    differs(&backup.reverify_with(&identity).await.unwrap(), Reason::ArchiveInvalid, "all tables together 7");
    std::fs::write(&file, before).unwrap();
    is_whole(&backup.reverify_with(&identity).await.unwrap());
    database.finish().await;
}

#[tokio::test]
async fn an_archive_that_others_encrypted_is_found_although_every_sum_is_right() {
    let database = server(18).database("reverify").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let identity = Identity::generate();
    let mut request = request(&database);
    request.age_recipients = vec![identity.to_public().to_string()];
    let mut backup = publish(&request, file_store(), 18).await;
    // Another dump for the same recipient, whose archive takes the place of this one.
    database.connect().await.batch_execute("DELETE FROM orders WHERE id <= 10").await.unwrap();
    let other = publish(&request, file_store(), 18).await;
    let content = std::fs::read(other.file("dump.pgc.age.000")).unwrap();
    let from: Value = serde_json::from_slice(&std::fs::read(other.file("manifest.json")).unwrap()).unwrap();
    std::fs::write(backup.file("dump.pgc.age.000"), content).unwrap();
    let file = backup.file("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for field in ["segments", "sizeBytes", "sha256"] {
        manifest[field] = from[field].clone();
    }
    std::fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
    is_whole(&backup.reverify().await.unwrap());
    let found = backup.reverify_with(&identity).await.unwrap();
    differs(&found, Reason::ChecksumMismatch, "has the SHA-256");

    // An archive that age cannot decrypt to its end.
    backup = other;
    let cut = std::fs::read(backup.file("dump.pgc.age.000")).unwrap();
    let cut = &cut[..cut.len() - 1];
    std::fs::write(backup.file("dump.pgc.age.000"), cut).unwrap();
    let file = backup.file("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let sha256 = sha256(cut);
    manifest["segments"][0]["sizeBytes"] = json!(cut.len());
    manifest["segments"][0]["sha256"] = json!(sha256);
    manifest["sizeBytes"] = json!(cut.len());
    manifest["sha256"] = json!(sha256);
    std::fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let found = backup.reverify_with(&identity).await.unwrap();
    differs(&found, Reason::ArchiveInvalid, "cannot be decrypted");
    database.finish().await;
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test]
async fn what_does_not_decode_is_found_although_every_sum_is_right() {
    let database = server(18).database("reverify").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let backup = publish(&request(&database), file_store(), 18).await;
    let whole = std::fs::read(backup.file("dump.pgc.000")).unwrap();
    let cut = &whole[..whole.len() - 20];
    std::fs::write(backup.file("dump.pgc.000"), cut).unwrap();
    let found = backup
        .with_manifest(|manifest| {
            let sha256 = sha256(cut);
            manifest["segments"][0]["sizeBytes"] = json!(cut.len());
            manifest["segments"][0]["sha256"] = json!(sha256);
            manifest["sizeBytes"] = json!(cut.len());
            manifest["sha256"] = json!(sha256);
        })
        .await;
    differs(&found, Reason::ArchiveInvalid, "archive");
    database.finish().await;
}

#[tokio::test]
async fn backups_of_earlier_versions_are_verified_without_a_table_index() {
    let database = server(18).database("earlier").await;
    shop(&database).await;
    let backup = publish(&request(&database), file_store(), 18).await;
    let found = backup
        .with_manifest(|manifest| {
            for field in ["head", "source", "tableCount"] {
                assert!(manifest.as_object_mut().unwrap().remove(field).is_some(), "{field}");
            }
            for table in manifest["tables"].as_array_mut().unwrap() {
                assert!(table.as_object_mut().unwrap().remove("block").is_some());
                table.as_object_mut().unwrap().remove("partitionOf");
            }
        })
        .await;
    is_whole(&found);
    assert_eq!((found.compared, found.rows), (Compared::Rows, Some(SHOP_ROWS + 20_000)));
    database.finish().await;
}

#[tokio::test]
async fn what_shows_nothing_of_the_backup_is_an_error() {
    let database = server(18).database("reverify").await;
    shop(&database).await;
    let backup = publish(&request(&database), file_store(), 18).await;
    let reason_with = async |directory: PathBuf| {
        let mut request = backup.request();
        request.client_directory = Some(directory);
        reverify(&request, &backup.store.store, &quiet).await.unwrap_err().reason()
    };
    assert_eq!(reason_with("/nonexistent".into()).await, Reason::ClientMissing);
    assert_eq!(reason_with(programs(15)).await, Reason::VersionMismatch);
    // As if it had used too much memory.
    let killed = clients_with("pg_restore", "head -c 100000 >/dev/null; kill -9 $$");
    assert_eq!(reason_with(killed.path().to_owned()).await, Reason::Internal);
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(backup.file("manifest.json")).unwrap()).unwrap();
    manifest["pgrailManifest"] = json!(99);
    std::fs::write(backup.file("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let error = backup.reverify().await.unwrap_err();
    assert!(error.to_string().contains("has version 99"), "{error:?}");
    let mut settings = support::s3_settings("x");
    settings.endpoint = Some("http://127.0.0.1:1".into());
    settings.retries = 0;
    let gone = Store::open(&settings).unwrap();
    let error = reverify(&backup.request(), &gone, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::StoreUnavailable, "{error:?}");
    database.finish().await;
}
