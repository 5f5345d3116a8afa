//! The client of another store, against an emulator: not part of `make test`, see `make test-stores`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::pending;
use std::time::Duration;

use pgrail_dump::{
    ClientTools, Compression, CompressionMethod, DumpRequest, Extract, Manifest, Progress, PruneRequest, Reason, Scope,
    Store, StoreSettings, StoreUrl, UploadLimits, VerifyRequest, dump, dump_until, list, prune, verify,
};
use pgrail_postgres::AddressPolicy;
use pgrail_restore::{DatabaseRequest, restore_database};
use pgrail_testing::{Database, Server, client_programs, connect, servers};
use support::{digest, identity, run, settings_of};

/// Some 25 MB: several parts, and a table that is a small part of them.
const ROWS: &str = "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 20000) n; \
     CREATE TABLE users AS SELECT n AS id, 'user ' || n AS name FROM generate_series(1, 1000) n";

/// Every byte of a dump goes through it.
async fn store_keeps_dumps(url: &str, server: &Server, database: &Database) {
    let url = format!("{url}/{}", server.role_name("run"));
    let mut settings = StoreSettings::new(StoreUrl::parse(&url).unwrap());
    (settings.allow_http, settings.retries) = (true, 2);
    let store = Store::open(&settings).unwrap();
    let mut request = DumpRequest::new(settings_of(&database.uri), identity());
    request.client_directory = Some(client_programs(server.major));
    request.compression = Compression { method: CompressionMethod::None, level: None };
    request.upload = UploadLimits { part_bytes: 5 * 1024 * 1024, parts_in_flight: 2, parts_per_segment: 3 };
    let schedule = request.identity.schedule_identity();
    let listed = async || list(&store, Scope::Schedule(&schedule)).await.unwrap().ours.len();

    // An interrupted dump leaves nothing.
    let stop = tokio::sync::Notify::new();
    let progress = |progress| {
        if matches!(progress, Progress::Written { bytes } if bytes > 12_000_000) {
            stop.notify_one();
        }
    };
    let error = dump_until(&request, &store, &progress, stop.notified()).await.unwrap_err();
    assert_eq!((error.reason(), listed().await), (Reason::Interrupted, 0), "{error}");

    for jobs in [1, 2] {
        request.jobs = jobs;
        request.identity.run_id = format!("run{jobs}");
        let dumped = dump(&request, &store, &|_| {}).await.unwrap();
        assert!(dumped.details.as_ref().unwrap().segments.len() > 1, "{dumped:?}");
        let location = dumped.location.clone();
        let wanted = VerifyRequest::new(dumped.clone());
        let verified = verify(&wanted, &store, &|_| {}).await.unwrap();
        // Published once: the same again is no error, another one in its place is.
        verify(&wanted, &store, &|_| {}).await.unwrap();
        let mut other = VerifyRequest::new(dumped);
        other.dump.details.as_mut().unwrap().identity.backup_name = "another".into();
        assert_eq!(verify(&other, &store, &|_| {}).await.unwrap_err().reason(), Reason::AlreadyPublished);
        assert_eq!(listed().await, 1);

        let reading = Store::open(&settings).unwrap();
        let manifest = Manifest::read_published(&reading, &location, &verified.manifest_sha256).await.unwrap();
        let extract = Extract::open(&reading, manifest).await.unwrap();
        let tools = ClientTools::find(request.client_directory.as_deref()).await.unwrap();
        let users = extract.tables("public", "users");
        let mut rows = extract.rows(&users[0], &tools).await.unwrap();
        while rows.next().await.unwrap().is_some() {}
        assert_eq!(rows.rows(), 1000);
        assert!(reading.bytes_read() < 1_000_000, "{} bytes for one table", reading.bytes_read());

        let into = DatabaseRequest {
            connection: settings_of(&server.uri),
            addresses: AddressPolicy::any(),
            name: format!("{}_copy", database.name),
            id: "1".into(),
            client_directory: request.client_directory.clone(),
        };
        assert_eq!(restore_database(&into, &extract, &|_| {}, pending()).await.unwrap().rows(), 21_000);
        let (source, copy) = (database.connect().await, connect(&server.uri_of(&into.name)).await);
        for table in ["blob t", "users t"] {
            assert_eq!(digest(&copy, table).await, digest(&source, table).await);
        }
        drop(copy);
        run(&source, &format!("DROP DATABASE {} WITH (FORCE)", into.name)).await;

        let now = jiff::Timestamp::now();
        let pruned = prune(&store, &PruneRequest::new(schedule.clone(), vec![location.clone()], now)).await.unwrap();
        assert_eq!((pruned.deleted, pruned.refused.len(), listed().await), (vec![location], 0, 0));
        // What a killed run leaves is swept, too.
        request.identity.run_id = format!("left{jobs}");
        dump(&request, &store, &|_| {}).await.unwrap();
        let later = now + jiff::SignedDuration::from_secs(3600);
        let sweep = PruneRequest { grace: Duration::ZERO, ..PruneRequest::new(schedule.clone(), Vec::new(), later) };
        assert_eq!(prune(&store, &sweep).await.unwrap().swept.len(), 1);
    }
    let mut missing = settings.clone();
    missing.url = StoreUrl::parse(&url.replacen("://backups", "://missing-one", 1)).unwrap();
    let error = dump(&request, &Store::open(&missing).unwrap(), &|_| {}).await.unwrap_err();
    assert_eq!(error.reason(), Reason::BucketMissing, "{error:?}");
}

/// The URL of the emulator's container is in the variable; the rest is in the environment that the client reads.
#[tokio::test(flavor = "multi_thread")]
async fn azure_blob_storage() {
    let url = std::env::var("PGRAIL_TEST_AZURE").expect("PGRAIL_TEST_AZURE: make test-stores");
    for server in servers() {
        let database = server.database("stores").await;
        run(&database.connect().await, ROWS).await;
        store_keeps_dumps(&url, &server, &database).await;
        database.finish().await;
    }
}
