//! What breaks between the store and the database while a backup is restored into a new database: the true reason is reported,
//! nothing that looks like a finished restore is left, and the next one succeeds. What is seen is in the table of the book.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrail_dump::{
    Compression, CompressionMethod, Extract, Manifest, Reason, Store, StoreCredentials, StoreSettings, StoreUrl,
    error_chain,
};
use pgrail_postgres::AddressPolicy;
use pgrail_restore::{DatabaseRequest, DatabaseRestored, RestoreError, RestoreProgress, restore_database};
use pgrail_testing::{
    Fault, OwnServer, Proxy, Request, Server, SmallDisk, client_programs, connect, documented, programs, server,
};
use support::{Backup, backup, backup_in, run, settings_of};
use tempfile::TempDir;

const PAGE: &str = "operations/backup-faults.md";

/// Some 25 MB, and a role that exists in the source only.
const BLOB: &str = "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 20000) n; \
     CREATE TABLE users AS SELECT generate_series(1, 1000) AS id; CREATE INDEX ON users (id)";

fn request_of(server: &Server, name: &str) -> DatabaseRequest {
    DatabaseRequest {
        connection: settings_of(&server.uri),
        addresses: AddressPolicy::any(),
        name: name.to_owned(),
        id: format!("uid-of-{name}"),
        client_directory: Some(client_programs(server.major)),
    }
}

async fn restored(request: &DatabaseRequest, extract: &Extract) -> Result<DatabaseRestored, RestoreError> {
    restore_database(request, extract, &|_: RestoreProgress| {}, pending()).await
}

fn described(error: &RestoreError) -> String {
    let reason = error.reason();
    let again = if reason.retryable() { "the run is repeated" } else { "the run is not repeated" };
    format!("the restore fails with `{reason}`, {again}")
}

/// What the failed restore left is replaced by the next one, if anything is left.
async fn recovers(server: &Server, request: &DatabaseRequest, backup: &Backup) -> &'static str {
    let admin = connect(&server.uri).await;
    let left = admin
        .query_opt(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = $1",
            &[&request.name],
        )
        .await
        .unwrap();
    if let Some(row) = &left {
        let mark: String = row.get(0);
        assert!(mark.starts_with("pgrail: unfinished restore"), "{mark}");
    }
    assert_eq!(restored(request, &backup.extract).await.unwrap().rows(), 21_000);
    run(&admin, &format!("DROP DATABASE {} WITH (FORCE)", request.name)).await;
    if left.is_some() {
        "the database is marked as unfinished, and replaced by the next restore"
    } else {
        "no database is left"
    }
}

async fn seen(fault: &str, server: &Server, request: &DatabaseRequest, backup: &Backup, error: &RestoreError) {
    let left = recovers(server, request, backup).await;
    documented(PAGE, fault, &format!("{}; {left}; the next restore succeeds", described(error)));
}

/// A pg_restore that is replaced by a script.
fn clients_with(script: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    for program in ["pg_dump", "pg_restore"] {
        let (file, real) = (directory.path().join(program), programs(18).join(program));
        let script =
            if program == "pg_restore" { script.replace("REAL", &real.display().to_string()) } else { String::new() };
        let text = format!(
            "#!/bin/bash\n[[ \"$*\" != *--dbname* && \"$*\" != *-d* ]] && exec {} \"$@\"\n{script}\n",
            real.display()
        );
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_restore_is_killed() {
    let server = server(18);
    let database = server.database("killed").await;
    run(&database.connect().await, BLOB).await;
    let backup = backup(&database).await;
    let clients = clients_with("head -c 12000000 | REAL \"$@\"; kill -9 $$");
    let mut request = request_of(&server, &format!("{}_copy", database.name));
    request.client_directory = Some(clients.path().to_owned());
    let error = restored(&request, &backup.extract).await.unwrap_err();
    assert!(error.to_string().contains("pg_restore"), "{error}");
    request.client_directory = Some(programs(18));
    seen("pg_restore is killed", &server, &request, &backup, &error).await;
    database.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_the_target_is_full() {
    let disk = SmallDisk::new("256m");
    let settings =
        ["shared_buffers=16MB", "max_wal_size=32MB", "min_wal_size=32MB", "wal_level=minimal", "max_wal_senders=0"];
    let own = OwnServer::start_on(disk.path(), 18, &settings).await;
    let source = server(18).database("full").await;
    run(&source.connect().await, BLOB).await;
    let backup = backup(&source).await;
    // Room for the definitions, not for the rows.
    let filler = disk.path().join("filler");
    let free = std::process::Command::new("df").args(["--output=avail", "-BM"]).arg(disk.path()).output().unwrap();
    let free: u64 =
        String::from_utf8(free.stdout).unwrap().lines().nth(1).unwrap().trim().trim_end_matches('M').parse().unwrap();
    std::fs::write(&filler, vec![0; usize::try_from((free - 20) * 1024 * 1024).unwrap()]).unwrap();
    let request = request_of(&own.server, "copy");
    let error = restored(&request, &backup.extract).await.unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    std::fs::remove_file(filler).unwrap();
    own.until_it_answers().await;
    seen("the disk of the target is full", &own.server, &request, &backup, &error).await;
    source.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_crashes() {
    let mut own = OwnServer::start(18, &[]).await;
    let source = server(18).database("crash").await;
    run(&source.connect().await, BLOB).await;
    let backup = backup(&source).await;
    let request = request_of(&own.server, "copy");
    let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |progress| {
        if matches!(progress, RestoreProgress::Loading { bytes, .. } if bytes > 0) {
            let _ = reached.send(());
        }
    };
    let crash = async {
        wait.recv().await;
        own.crash();
    };
    let (ended, ()) = tokio::join!(restore_database(&request, &backup.extract, &progress, pending()), crash);
    let error = ended.unwrap_err();
    assert!(error.to_string().contains("copy"), "what is left is named: {error}");
    assert_eq!(restored(&request, &backup.extract).await.unwrap_err().reason(), Reason::ConnectionFailed);
    own.begin().await;
    seen("PostgreSQL crashes in the middle of a restore", &own.server, &request, &backup, &error).await;
    source.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_connections_left() {
    let server = server(18);
    let database = server.database("few").await;
    let admin = database.connect().await;
    run(&admin, BLOB).await;
    let backup = backup(&database).await;
    let role = server.role_name("few");
    run(&admin, &format!("CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'word' CONNECTION LIMIT 0")).await;
    let mut request = request_of(&server, &format!("{}_copy", database.name));
    request.connection = settings_of(&database.uri_for(&role, "word"));
    let error = restored(&request, &backup.extract).await.unwrap_err();
    assert!(error_chain(&error).contains("the connection limit is reached"), "{error:?}");
    // A restore needs two. Statistics are collected by one of their own only where there is one more.
    run(&admin, &format!("ALTER ROLE {role} CONNECTION LIMIT 2")).await;
    // The server has not always closed the last one when the next one is opened.
    let mut tries = 0;
    while let Err(again) = restored(&request, &backup.extract).await {
        assert!(again.reason() == Reason::ConnectionFailed && tries < 50, "{again:?}");
        tries += 1;
    }
    let copy = connect(&server.uri_of(&request.name)).await;
    let analyzed = "SELECT count(*) FROM pg_statistic WHERE starelid = 'users'::regclass";
    assert_eq!(copy.query_one(analyzed, &[]).await.unwrap().get::<_, i64>(0), 1);
    drop(copy);
    run(&admin, &format!("DROP DATABASE {}", request.name)).await;
    run(&admin, &format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    seen("there is no connection left for a restore", &server, &request, &backup, &error).await;
    run(&admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    database.finish().await;
}

/// A value that `e2e/s3/server.sh` printed about its server.
fn s3(part: &str) -> String {
    let all = std::env::var("PGRAIL_TEST_S3").unwrap_or_else(|_| {
        panic!("PGRAIL_TEST_S3 is not set: run the tests with `e2e/s3/server.sh run cargo test …`")
    });
    all.split_whitespace().find_map(|entry| entry.strip_prefix(part)?.strip_prefix('=')).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_fails_while_it_is_read() {
    let server = server(18);
    let database = server.database("reading").await;
    run(&database.connect().await, BLOB).await;
    let url = format!("s3://{}/restore-{}", s3("bucket"), std::process::id());
    let mut settings = StoreSettings::new(StoreUrl::parse(&url).unwrap());
    settings.endpoint = Some(s3("endpoint"));
    settings.credentials = StoreCredentials::from_keys([
        ("AWS_ACCESS_KEY_ID".to_owned(), s3("key")),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), s3("secret")),
    ]);
    (settings.allow_http, settings.retries) = (true, 2);
    let store = Store::open(&settings).unwrap();
    let uncompressed = Compression { method: CompressionMethod::None, level: None };
    let backup = backup_in(&store, &database.uri, 18, |request| request.compression = uncompressed).await;

    let request = request_of(&server, &format!("{}_copy", database.name));
    let through = async |fault: &str, spared: u32, most: u32, kind: Fault| {
        let reads = AtomicU32::new(0);
        let decide = move |request: &Request| {
            let is_archive = request.is_read() && request.target.contains("dump.pgc");
            let is_one =
                is_archive && (spared..spared.saturating_add(most)).contains(&reads.fetch_add(1, Ordering::Relaxed));
            if is_one { kind.clone() } else { Fault::Pass }
        };
        let proxy = Proxy::start(&s3("endpoint"), decide).await;
        let mut settings = settings.clone();
        settings.endpoint = Some(proxy.endpoint.clone());
        let store = Store::open(&settings).unwrap();
        let manifest = Manifest::read_published(&store, &backup.location, &backup.manifest_sha256).await.unwrap();
        let extract = Extract::open(&store, manifest).await.unwrap();
        match restored(&request, &extract).await {
            Ok(restored) => {
                assert_eq!(restored.rows(), 21_000);
                run(&connect(&server.uri).await, &format!("DROP DATABASE {} WITH (FORCE)", request.name)).await;
                documented(PAGE, fault, "the request is repeated, and the restore succeeds");
                None
            }
            Err(error) => {
                seen(fault, &server, &request, &backup, &error).await;
                Some(error)
            }
        }
    };
    let broken = || Fault::error("503 Slow Down", "SlowDown", "Please reduce your request rate.");
    assert!(through("the store answers with 503 once in a restore", 2, 1, broken()).await.is_none());
    assert!(through("the connection to the store breaks once in a restore", 2, 1, Fault::CutAnswer).await.is_none());
    let error =
        through("the store answers with 503 from the middle of a restore on", 2, u32::MAX, broken()).await.unwrap();
    assert_eq!(error.reason(), Reason::StoreUnavailable, "{error}");
    let error = through("a bit changes on the way to a restore", 2, u32::MAX, Fault::DamageAnswer).await.unwrap();
    assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error}");
    database.finish().await;
}
