//! Parts of a dump, read straight from the store.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pgrail_dump::{
    ClientTools, Compression, CompressionMethod, DumpDetails, Extract, Manifest, Reason, Rows, Setting, Store,
    TableRows, UploadLimits, dump, verify,
};
use pgrail_testing::{Database, client_programs, for_each_server, programs};
use support::{SHOP, TestStore, pg_restore, quiet, request, stores, verify_request};

/// What may be read besides the head and the block: the manifest is counted, too.
const OVERHEAD: u64 = 1024 * 1024;

/// A published dump, opened again as a restore does it: by what the operator keeps of it.
async fn published(database: &Database, store: &TestStore) -> (Store, Extract) {
    let mut request = request(database);
    request.upload = UploadLimits { part_bytes: 5 * 1024 * 1024, parts_in_flight: 2, parts_per_segment: 1 };
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    let verified = verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let again = Store::open(&store.settings).unwrap();
    let manifest = Manifest::read_published(&again, &result.location, &verified.manifest_sha256).await.unwrap();
    let extract = Extract::open(&again, manifest).await.unwrap();
    (again, extract)
}

#[tokio::test]
async fn the_head_and_one_block_are_an_archive_for_pg_restore() {
    for_each_server(async |server| {
        let database = server.database("index").await;
        let client = database.connect().await;
        client.batch_execute(SHOP).await.unwrap();
        // What is not asked for is not read: text that does not compress.
        client
            .batch_execute(
                "CREATE TABLE bulk AS SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400000) n GROUP BY n % 2000",
            )
            .await
            .unwrap();
        for store in stores() {
            let (reading, extract) = published(&database, &store).await;
            assert!(extract.manifest().size_bytes > 6 * OVERHEAD, "{}", extract.manifest().size_bytes);
            assert!(extract.manifest().segments.len() > 1);
            let tables = extract.tables("public", "orders");
            let [orders] = &tables[..] else { panic!("{tables:#?}") };
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("orders.pgc");
            let mut file = tokio::fs::File::create(&path).await.unwrap();
            extract.write_archive(&tables, &mut file).await.unwrap();
            let read = reading.bytes_read();
            assert!(read <= Extract::size(orders).unwrap() + OVERHEAD, "{read} bytes, {}", store.kind);
            assert_eq!(read, std::fs::metadata(&path).unwrap().len());

            let target = server.database("target").await;
            let path = path.to_str().unwrap();
            pg_restore(server.major, &["--schema-only", "--dbname", &target.uri, path]);
            let there = target.connect().await;
            there.batch_execute("ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey").await.unwrap();
            pg_restore(server.major, &["--data-only", "--table=orders", "--dbname", &target.uri, path]);
            let digest = "SELECT md5(string_agg(o::text, ';' ORDER BY o.id)) FROM orders o";
            assert_eq!(
                there.query_one(digest, &[]).await.unwrap().get::<_, String>(0),
                client.query_one(digest, &[]).await.unwrap().get::<_, String>(0)
            );
            target.finish().await;
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_rows_of_every_table_come_out_as_they_went_in() {
    for_each_server(async |server| {
        let database = server.database("rows").await;
        let client = database.connect().await;
        client.batch_execute(SHOP).await.unwrap();
        let store = support::file_store();
        let (_, extract) = published(&database, &store).await;
        let tools = ClientTools::find(Some(&client_programs(server.major))).await.unwrap();
        for table in &extract.manifest().tables {
            let mut rows = extract.rows(table, &tools).await.unwrap();
            let mut text = Vec::new();
            while let Some(piece) = rows.next().await.unwrap() {
                text.extend_from_slice(&piece);
            }
            assert_eq!(table.rows, Rows::Counted(rows.rows()));
            assert_eq!(text, copied(&client, table).await, "{}.{}", table.schema, table.name);
            assert_eq!(rows.columns.is_empty(), table.name == "no_columns");
        }
        let events = extract.tables("public", "events");
        let names: Vec<_> = events.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["events_2025", "events_2026"], "the partitions of a table are its rows");
        assert!(extract.tables("public", "nothing").is_empty());
        database.finish().await;
    })
    .await;
}

async fn copied(client: &pgrail_testing::Client, table: &TableRows) -> Vec<u8> {
    use futures::TryStreamExt;
    let statement = "SELECT format('COPY %I.%I TO STDOUT', $1::text, $2::text)";
    let copy: String = client.query_one(statement, &[&table.schema, &table.name]).await.unwrap().get(0);
    let pieces: Vec<bytes::Bytes> = client.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test]
async fn a_damaged_block_is_an_error_before_its_rows_are_complete() {
    let database = pgrail_testing::server(18).database("damaged").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let store = support::file_store();
    let mut request = request(&database);
    // Uncompressed, so that the rows decode whatever they hold.
    request.compression = Compression { method: CompressionMethod::None, level: None };
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    let verified = verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let file = store.files.join(&result.location).join("dump.pgc.000");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(9).position(|window| window == b"\tuser 777").unwrap();
    bytes[at + 6] = b'9';
    std::fs::write(&file, &bytes).unwrap();

    let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
    let extract = Extract::open(&store.store, manifest.clone()).await.unwrap();
    let tools = ClientTools::find(Some(&programs(18))).await.unwrap();
    let users = &extract.tables("public", "users")[0];
    let mut rows = extract.rows(users, &tools).await.unwrap();
    let error = loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("damaged rows were taken for those of the backup"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error:?}");

    // Nor is another head used, or another manifest.
    bytes[40] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = Extract::open(&store.store, manifest).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error:?}");
    let manifest = store.files.join(&result.location).join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, format!("{text} ")).unwrap();
    let read = Manifest::read_published(&store.store, &result.location, &verified.manifest_sha256).await;
    assert_eq!(read.unwrap_err().reason(), Reason::ChecksumMismatch);
    database.finish().await;
}

#[tokio::test]
async fn manifests_of_earlier_versions_are_read() {
    let database = pgrail_testing::server(18).database("earlier").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let store = support::file_store();
    let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let file = store.files.join(&result.location).join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for field in ["head", "source"] {
        assert!(manifest.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    for table in manifest["tables"].as_array_mut().unwrap() {
        assert!(table.as_object_mut().unwrap().remove("block").is_some());
        table.as_object_mut().unwrap().remove("partitionOf");
    }
    std::fs::write(&file, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
    let error = Extract::open(&store.store, manifest).await.unwrap_err();
    assert!(error.to_string().contains("has no table index"), "{error}");
    database.finish().await;
}

#[tokio::test]
async fn the_manifest_has_what_a_restore_must_know() {
    for_each_server(async |server| {
        let database = server.database("source").await;
        let client = database.connect().await;
        let role = server.role_name("source");
        client
            .batch_execute(&format!(
                "CREATE ROLE {role}; CREATE EXTENSION citext; CREATE TABLE t (id int); GRANT SELECT ON t TO {role};
                 ALTER DATABASE {name} SET work_mem = '7MB'; ALTER DATABASE {name} SET app.token = 'hidden-token'",
                name = database.name
            ))
            .await
            .unwrap();
        let store = support::file_store();
        let result = dump(&request(&database), &store.store, &quiet).await.unwrap();
        let details: &DumpDetails = result.details.as_ref().unwrap();
        let source = details.source.clone().unwrap();
        assert!(source.roles.contains(&role) && source.roles.contains(&source.owner), "{source:?}");
        let citext = source.extensions.iter().find(|extension| extension.name == "citext").unwrap();
        assert_eq!(citext.schema, "public");
        assert_eq!(
            source.settings,
            [
                Setting { name: "app.token".into(), value: None },
                Setting { name: "work_mem".into(), value: Some("7MB".into()) }
            ]
        );
        let collate: String = client
            .query_one("SELECT datcollate FROM pg_database WHERE datname = current_database()", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!((source.collate, source.locale_provider.as_str()), (collate, "libc"));
        let verified = verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
        let text = std::fs::read_to_string(store.files.join(verified.manifest)).unwrap();
        assert!(!text.contains("hidden-token"));
        client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
        database.finish().await;
    })
    .await;
}
