//! Archives that are decoded when they are read back: what is found, and what is published, is the same as if they had been
//! decoded while they were written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use age::x25519::Identity;
use pgrail_dump::{
    Decoding, DumpRequest, DumpResult, Manifest, Reason, RowCounts, Segment, Store, VerificationLevel, dump, verify,
};
use pgrail_testing::{Database, for_each_server, programs, server};
use support::{BLOB, SHOP, clients_with, file_store, in_parts, quiet, request, stores, unique, verify_request};

fn decoded_later(database: &Database) -> DumpRequest {
    let mut request = request(database);
    request.decoding = Decoding::WithReadBack;
    request
}

fn is_undecoded(result: &DumpResult) -> bool {
    result.details.as_ref().unwrap().undecoded
}

/// The manifest of a dump that is verified, without what every run has of its own.
async fn published(request: &DumpRequest, store: &Store) -> Manifest {
    let mut request = request.clone();
    request.identity.run_id = unique("r").replace('-', "");
    let result = dump(&request, store, &quiet).await.unwrap();
    assert_eq!(is_undecoded(&result), request.decoding == Decoding::WithReadBack);
    let mut verification = verify_request(&result);
    verification.client_directory.clone_from(&request.client_directory);
    let verified = verify(&verification, store, &quiet).await.unwrap();
    assert_eq!(verified.level, VerificationLevel::ReadBack);
    assert_eq!((verified.backup.tables, verified.backup.rows), (result.tables, result.rows));
    Manifest::read(store, &result.location).await.unwrap()
}

#[tokio::test]
async fn the_table_index_is_the_same_whenever_the_archive_is_decoded() {
    for_each_server(async |server| {
        let database = server.database("decoding").await;
        let client = database.connect().await;
        client.batch_execute(SHOP).await.unwrap();
        client.batch_execute(BLOB).await.unwrap();
        // The rows of these partitions are inserted into the partitioned table, which only the decoded archive shows.
        let hashed = "CREATE TYPE mood AS ENUM ('good', 'bad');
            CREATE TABLE moods (mood mood) PARTITION BY HASH (mood);
            CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);
            INSERT INTO moods VALUES ('good'), ('bad'), ('good')";
        client.batch_execute(hashed).await.unwrap();
        for store in stores() {
            for jobs in [1, 2] {
                let mut request = in_parts(decoded_later(&database), 2);
                request.jobs = jobs;
                let later = published(&request, &store.store).await;
                request.decoding = Decoding::WithDump;
                let at_once = published(&request, &store.store).await;
                assert_eq!(later.tables, at_once.tables, "{} {jobs}", store.kind);
                assert_eq!(later.contents, at_once.contents);
                assert_eq!(later.large_objects, at_once.large_objects);
                let through = later.tables.iter().filter(|table| table.through_root).count();
                assert_eq!(through, 2, "{:?}", later.tables);
            }
        }
        database.finish().await;
    })
    .await;
}

/// It is complete in the store, and is not published.
async fn is_not_published(database: &Database, script: &str, reason: Reason) -> String {
    let directory = clients_with("pg_dump", script);
    let mut message = String::new();
    for store in stores() {
        let mut request = decoded_later(database);
        request.client_directory = Some(directory.path().to_owned());
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        let mut verification = verify_request(&result);
        verification.client_directory = Some(programs(18));
        let error = verify(&verification, &store.store, &quiet).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{}: {error:?}", store.kind);
        assert!(!store.list_files().iter().any(|file| file.contains("manifest")), "{}", store.kind);
        message = error.failure(&store.store).message;
    }
    message
}

#[tokio::test]
async fn an_archive_that_does_not_hold_what_the_snapshot_had_is_not_published() {
    let database = server(18).database("undecoded").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let script = "exec REAL \"$@\" --exclude-table-data=orders";
    let message = is_not_published(&database, script, Reason::RowCountMismatch).await;
    assert!(message.contains("public.orders is missing"), "{message}");
    database.finish().await;
}

#[tokio::test]
async fn an_archive_that_does_not_decode_is_not_published() {
    let database = server(18).database("damaged").await;
    database.connect().await.batch_execute(BLOB).await.unwrap();
    // What is compressed does not begin with the mark of Zstandard. The framing is as it must be.
    let script = r#"REAL "$@" | LC_ALL=C sed 's/\x28\xb5\x2f\xfd/XXXX/g'"#;
    let message = is_not_published(&database, script, Reason::ArchiveInvalid).await;
    assert!(message.contains("pg_restore"), "{message}");
    database.finish().await;
}

#[tokio::test]
async fn what_the_store_damaged_is_not_called_an_archive_that_does_not_decode() {
    let database = server(18).database("damaged").await;
    database.connect().await.batch_execute(BLOB).await.unwrap();
    let store = file_store();
    let mut result = dump(&decoded_later(&database), &store.store, &quiet).await.unwrap();
    if let Some(details) = &mut result.details {
        details.segments.iter_mut().for_each(|segment: &mut Segment| segment.e_tag = None);
    }
    let file = store.files.join(&result.location).join("dump.pgc.000");
    let mut bytes = std::fs::read(&file).unwrap();
    // The beginning, so that pg_restore ends immediately.
    bytes[..5].copy_from_slice(b"XXXXX");
    std::fs::write(&file, bytes).unwrap();
    let error = verify(&verify_request(&result), &store.store, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error:?}");
    database.finish().await;
}

#[tokio::test]
async fn what_nobody_has_decoded_is_read_back_whatever_is_asked_for() {
    let database = server(18).database("level").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    for level in [VerificationLevel::None, VerificationLevel::Checksum] {
        let store = file_store();
        let result = dump(&decoded_later(&database), &store.store, &quiet).await.unwrap();
        let mut verification = verify_request(&result);
        verification.level = level;
        verification.client_directory = Some(programs(18));
        let verified = verify(&verification, &store.store, &quiet).await.unwrap();
        assert_eq!(verified.level, VerificationLevel::ReadBack);
    }
    database.finish().await;
}

#[tokio::test]
async fn encrypted_dumps_and_counts_of_the_archive_are_decoded_while_they_are_written() {
    let database = server(18).database("at_once").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let mut encrypted = decoded_later(&database);
    encrypted.age_recipients = vec![Identity::generate().to_public().to_string()];
    let mut counted = decoded_later(&database);
    counted.row_counts = RowCounts::Archive;
    for request in [encrypted, counted] {
        let store = file_store();
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        assert!(!is_undecoded(&result));
        assert!(result.rows > 0);
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    }
    database.finish().await;
}
