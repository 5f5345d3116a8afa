//! Dumps by several pg_dump at the same time: the same rows, under one snapshot, in archives that restore in order.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use pgrail_dump::{
    ClientTools, Compression, CompressionMethod, DumpRequest, Extract, Identities, Manifest, PruneRequest, Reason,
    RowCounts, Rows, Store, UploadLimits, dump, prune, verify,
};
use pgrail_testing::{Client, Database, client_programs, for_each_server, programs, server};
use support::{SHOP, SHOP_ROWS, SHOP_TABLES, TestStore, pg_restore, quiet, stores, verify_request};

/// Tables of 1 to 4 MiB besides those of the shop.
const LARGE: &str = "
    CREATE TABLE \"Large \"\"one\"\" *\" AS SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 20000) n;
    CREATE TABLE large_2 AS SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 15000) n;
    CREATE TABLE large_3 (n bigserial PRIMARY KEY, text text);
    INSERT INTO large_3 (text) SELECT repeat(md5(n::text), 3) FROM generate_series(1, 25000) n;
    CREATE INDEX ON large_2 (n);
    CREATE TABLE refers (n bigint REFERENCES large_3);
    INSERT INTO refers SELECT generate_series(1, 100)";
const LARGE_ROWS: u64 = 20_000 + 15_000 + 25_000 + 100;

fn request(database: &Database, jobs: u32) -> DumpRequest {
    let mut request = support::request(database);
    request.jobs = jobs;
    request.upload = UploadLimits { part_bytes: 16 * 1024 * 1024, parts_in_flight: 3, parts_per_segment: 1 };
    request
}

/// The directory of a dump on the disk of the store, and its archives in order.
fn archives(store: &TestStore, manifest: &Manifest) -> Vec<(String, PathBuf)> {
    let directory = store.files.join(&manifest.location);
    let file = |name: &str| directory.join(format!("dump.pgc.{name}.000"));
    manifest.archives.iter().map(|archive| (archive.name.clone(), file(&archive.name))).collect()
}

/// The rows of every table, and what is in the catalog of indexes, constraints and sequences.
async fn contents(client: &Client) -> String {
    let tables = "SELECT string_agg(format('SELECT %L, count(*), md5(string_agg(t::text, ''|'' ORDER BY t::text)) FROM ONLY %I.%I t', c.oid::regclass, n.nspname, c.relname), ' UNION ALL ' ORDER BY c.oid::regclass::text)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)";
    let statement: String = client.query_one(tables, &[]).await.unwrap().get(0);
    let rows = client.query(&format!("{statement} ORDER BY 1"), &[]).await.unwrap();
    let mut text: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {:?}", row.get::<_, &str>(0), row.get::<_, i64>(1), row.get::<_, Option<&str>>(2)))
        .collect();
    for statement in [
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indexrelid >= 16384 AND indrelid::regclass::text !~ '^pg_' ORDER BY 1",
        "SELECT conrelid::regclass || conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1",
        "SELECT schemaname || sequencename || coalesce(last_value, 0) FROM pg_sequences ORDER BY 1",
        "SELECT md5(string_agg(encode(lo_get(oid), 'hex'), ',' ORDER BY oid)) FROM pg_largeobject_metadata",
    ] {
        text.extend(
            client
                .query(statement, &[])
                .await
                .unwrap()
                .iter()
                .map(|row| format!("{:?}", row.get::<_, Option<&str>>(0))),
        );
    }
    text.join("\n")
}

#[tokio::test]
async fn archives_of_one_snapshot_restore_to_the_same_database() {
    for_each_server(async |server| {
        let database = server.database("parallel").await;
        let client = database.connect().await;
        client.batch_execute(SHOP).await.unwrap();
        client.batch_execute(LARGE).await.unwrap();
        for store in stores() {
            let request = request(&database, 3);
            let result = dump(&request, &store.store, &quiet).await.unwrap();
            assert_eq!(
                (result.rows, result.tables, result.large_objects),
                (SHOP_ROWS + LARGE_ROWS, SHOP_TABLES + 4, 2)
            );
            let details = result.details.as_ref().unwrap();
            assert!(
                details.table_rows.iter().all(|table| matches!(table.rows, Rows::Counted(_)) && table.block.is_some())
            );
            let used: BTreeSet<u32> =
                details.table_rows.iter().filter_map(|it| Some(it.block.as_ref()?.archive)).collect();
            assert_eq!(used.len(), 4, "three groups and the rest: {used:?}");
            let verified = verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
            let manifest =
                Manifest::read_published(&store.store, &result.location, &verified.manifest_sha256).await.unwrap();
            let archives = archives(&store, &manifest);
            let names: Vec<_> = archives.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["pre", "rest", "data1", "data2", "data3", "post"]);

            // As the documentation says: pg_restore, in order.
            let target = server.database("target").await;
            for (name, file) in &archives {
                println!("{name}");
                pg_restore(server.major, &["--dbname", &target.uri, file.to_str().unwrap()]);
            }
            assert_eq!(contents(&target.connect().await).await, contents(&client).await);
            target.finish().await;

            // Single tables of any archive are read like those of a dump with one.
            let reading = Store::open(&store.settings).unwrap();
            let extract = Extract::open(&reading, manifest.clone()).await.unwrap();
            let tools = ClientTools::find(Some(&client_programs(server.major))).await.unwrap();
            for table in &extract.manifest().tables {
                let before = reading.bytes_read();
                let mut rows = extract.rows(table, &tools).await.unwrap();
                while rows.next().await.unwrap().is_some() {}
                assert_eq!(Rows::Counted(rows.rows()), table.rows, "{}.{}", table.schema, table.name);
                let read = reading.bytes_read() - before;
                assert!(read <= Extract::size(table).unwrap() + 256 * 1024, "{read} bytes of {}", table.name);
            }
            // Retention removes all of it.
            let delete = vec![result.location.clone()];
            let request = PruneRequest::new(request.identity.schedule_identity(), delete, jiff::Timestamp::now());
            assert!(prune(&store.store, &request).await.unwrap().is_complete());
            assert!(store.list_files().is_empty());
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn all_archives_show_the_same_moment() {
    let database = server(18).database("moment").await;
    let client = database.connect().await;
    // Money moves between two tables that are in two archives: the sum is the same at every moment.
    client
        .batch_execute(
            "CREATE TABLE a AS SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 20000) n;
             CREATE TABLE b AS SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(20001, 40000) n",
        )
        .await
        .unwrap();
    let store = support::file_store();
    let writer = async {
        for number in 1_u64.. {
            let (from, to) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let step = format!(
                "WITH moved AS (DELETE FROM {from} WHERE n % 50 = {} RETURNING *) INSERT INTO {to} SELECT * FROM moved",
                number % 50
            );
            client.batch_execute(&step).await.unwrap();
        }
    };
    let mut request = request(&database, 2);
    request.row_counts = RowCounts::Archive;
    let result = tokio::select! {
        result = dump(&request, &store.store, &quiet) => result.unwrap(),
        () = writer => unreachable!("the writer goes on for ever"),
    };
    assert_eq!(result.rows, 40_000);
    assert!(result.details.unwrap().archives.len() == 5);
    database.finish().await;
}

#[tokio::test]
async fn an_encrypted_parallel_dump() {
    let database = server(18).database("parallel_age").await;
    let client = database.connect().await;
    client.batch_execute(LARGE).await.unwrap();
    let identity = Identity::generate();
    let store = support::s3_store();
    let mut request = request(&database, 2);
    request.age_recipients = vec![identity.to_public().to_string()];
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
    assert!(manifest.archives.iter().all(|archive| archive.head.is_none() && archive.contents.entries == 0));
    assert!(store.list_files().iter().all(|file| file.ends_with("manifest.json") || file.contains(".age")));
    let identities = Identities::parse(identity.to_string().expose_secret()).unwrap();
    let extract = Extract::open(&store.store.clone().with_identities(identities), manifest).await.unwrap();
    let tools = ClientTools::find(Some(&programs(18))).await.unwrap();
    for table in &extract.manifest().tables {
        let mut rows = extract.rows(table, &tools).await.unwrap();
        while rows.next().await.unwrap().is_some() {}
        assert_eq!(Rows::Counted(rows.rows()), table.rows);
    }
    database.finish().await;
}

#[tokio::test]
async fn a_failure_of_one_leaves_nothing_of_any() {
    let database = server(18).database("failing").await;
    let client = database.connect().await;
    client.batch_execute(LARGE).await.unwrap();
    for store in stores() {
        // A lock that one of them waits for: the others have their rows already.
        let blocker = database.connect().await;
        blocker.batch_execute("BEGIN; LOCK TABLE large_2 IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut request = request(&database, 3);
        request.lock_wait = Duration::from_millis(300);
        let error = dump(&request, &store.store, &quiet).await.unwrap_err();
        assert_eq!(error.reason(), Reason::LockTimeout, "{error:?}");
        assert!(store.list_files().is_empty(), "{:?}", store.list_files());
        blocker.batch_execute("ROLLBACK").await.unwrap();
        // Every archive is read back.
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        let details = result.details.as_ref().unwrap();
        for segment in &details.segments {
            let file = store.files.join(&result.location).join(&segment.name);
            let bytes = fs::read(&file).unwrap();
            let mut damaged = bytes.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            fs::write(&file, damaged).unwrap();
            let error = verify(&verify_request(&result), &store.store, &quiet).await.unwrap_err();
            assert_eq!(error.reason(), Reason::ChecksumMismatch, "{}", segment.name);
            fs::write(&file, bytes).unwrap();
        }
    }
    database.finish().await;
}

#[tokio::test]
async fn jobs_beyond_the_tables_and_segments_of_each_archive() {
    let database = server(18).database("many_jobs").await;
    let client = database.connect().await;
    client.batch_execute("CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 12000) n; CREATE TABLE small (n int)").await.unwrap();
    let store = support::s3_store();
    let mut request = request(&database, 64);
    request.compression = Compression { method: CompressionMethod::None, level: None };
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    let segments = &result.details.as_ref().unwrap().segments;
    assert!(segments.iter().filter(|segment| segment.name.starts_with("dump.pgc.data")).count() > 1, "{segments:#?}");
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
    let extract = Extract::open(&store.store, manifest).await.unwrap();
    let entries = extract.entries().await.unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.kind == "TABLE DATA").count(), 2, "{entries:?}");
    let tools = ClientTools::find(Some(&programs(18))).await.unwrap();
    for table in &extract.manifest().tables {
        let mut rows = extract.rows(table, &tools).await.unwrap();
        while rows.next().await.unwrap().is_some() {}
        assert_eq!(Rows::Counted(rows.rows()), table.rows);
    }
    database.finish().await;
}
