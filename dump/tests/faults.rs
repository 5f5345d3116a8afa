//! Faults: none of them may leave anything that looks like a backup.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use pgrail_dump::{
    CompressionMethod, DumpError, DumpRequest, Failure, Manifest, Progress, Reason, Store, StoreCredentials,
    StoreSettings, StoreUrl, dump, dump_until, verify,
};
use pgrail_testing::{Pooler, SmallDisk, for_each_server, pooler, programs, server};
use support::{
    SHOP, TestStore, clients_with, file_store, quiet, request, request_for, s3_settings, stores, verify_request,
};
use tempfile::TempDir;

/// The dump fails for that reason and leaves nothing; what is reported holds no password.
async fn fails(request: &DumpRequest, store: &TestStore, reason: Reason) -> Failure {
    let error = dump(request, &store.store, &quiet).await.unwrap_err();
    let failure = failed(&error, request, &store.store, reason);
    assert_eq!(store.list_files(), [""; 0], "{}: nothing is left behind", store.kind);
    failure
}

fn failed(error: &DumpError, request: &DumpRequest, store: &Store, reason: Reason) -> Failure {
    let failure = error.failure(request, store);
    assert_eq!(failure.reason, reason, "{error:?}");
    assert_eq!(failure.retryable, reason.retryable());
    let password = request.connection.password.as_ref().unwrap().reveal();
    for text in [format!("{failure:?}"), format!("{error:?}"), format!("{request:?}")] {
        assert!(!text.contains(password), "{text}");
    }
    failure
}

#[tokio::test]
async fn a_wrong_password_or_database() {
    for_each_server(async |server| {
        let store = file_store();
        let database = server.database("wrong").await;
        let request = request_for(&database.uri_for("postgres", "not-the-password"), server.major);
        fails(&request, &store, Reason::AuthenticationFailed).await;
        let request = request_for(&server.uri_of("does_not_exist"), server.major);
        let failure = fails(&request, &store, Reason::DatabaseMissing).await;
        assert!(!failure.retryable);
        let mut request = support::request(&database);
        request.connection.port = 1;
        let failure = fails(&request, &store, Reason::ConnectionFailed).await;
        assert!(failure.retryable);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_too_old_or_missing() {
    let store = file_store();
    let database = server(18).database("client").await;
    let failure = fails(&request_for(&database.uri, 15), &store, Reason::VersionMismatch).await;
    assert!(failure.message.contains("client 18 or later"), "{}", failure.message);
    let mut request = request(&database);
    request.client_directory = Some("/does/not/exist".into());
    fails(&request, &store, Reason::ClientMissing).await;
    database.finish().await;

    let database = server(15).database("client").await;
    let mut request = support::request(&database);
    request.compression.method = CompressionMethod::Zstd;
    let failure = fails(&request, &store, Reason::CompressionUnsupported).await;
    assert!(failure.message.contains("use gzip"), "{}", failure.message);
    // A newer client works.
    let request = request_for(&database.uri, 18);
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    database.finish().await;
}

#[tokio::test]
async fn a_role_that_cannot_read_everything() {
    for_each_server(async |server| {
        let database = server.database("rights").await;
        let client = database.connect().await;
        client.batch_execute(SHOP).await.unwrap();
        let role = server.role_name("reader");
        client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'reader-word'")).await.unwrap();
        let request = request_for(&database.uri_for(&role, "reader-word"), server.major);
        let store = file_store();

        let failure = fails(&request, &store, Reason::PermissionDenied).await;
        assert!(
            failure.message.contains("pg_read_all_data") && failure.message.contains("more"),
            "{}",
            failure.message
        );

        // The predefined role reads every table, but no large object.
        client.batch_execute(&format!("GRANT pg_read_all_data TO {role}")).await.unwrap();
        let failure = fails(&request, &store, Reason::PermissionDenied).await;
        assert!(failure.message.contains("2 of 2 large objects"), "{}", failure.message);
        let mut narrowed = request.clone();
        narrowed.filter.schemas = vec!["public".into()];
        dump(&narrowed, &store.store, &quiet).await.unwrap();
        client
            .batch_execute(
                "DO $$ DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_largeobject_metadata LOOP \
                EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO PUBLIC', o); END LOOP; END $$",
            )
            .await
            .unwrap();
        let mut again = request.clone();
        again.identity.run_id = support::unique("again").replace('-', "");
        let result = dump(&again, &store.store, &quiet).await.unwrap();
        assert_eq!(result.large_objects, 2);
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();

        // Row security: refused, not dumped in part. The owner of the table would be let through, FORCE stops him too.
        let store = file_store();
        client
            .batch_execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON users USING (id < 10)")
            .await
            .unwrap();
        let failure = fails(&request, &store, Reason::RowSecurity).await;
        assert!(failure.message.contains("public.users"), "{}", failure.message);
        let mut without = request.clone();
        without.filter.exclude_table_data = vec!["public.users".into()];
        dump(&without, &store.store, &quiet).await.unwrap();
        client.batch_execute(&format!("ALTER ROLE {role} BYPASSRLS")).await.unwrap();
        again.identity.run_id = support::unique("again").replace('-', "");
        dump(&again, &store.store, &quiet).await.unwrap();

        client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_transaction_mode_pooler_is_refused_and_a_session_mode_one_is_not() {
    let store = file_store();
    let major = server(18).major;
    fails(&request_for(&pooler(Pooler::Transaction), major), &store, Reason::PoolerDetected).await;
    dump(&request_for(&pooler(Pooler::Session), major), &store.store, &quiet).await.unwrap();
}

#[tokio::test]
async fn a_table_that_stays_locked() {
    let database = server(18).database("locked").await;
    let client = database.connect().await;
    client.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    client.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let mut request = request(&database);
    request.lock_wait = Duration::from_millis(300);
    let store = file_store();
    // The counts wait as well, and must not outlive pg_dump's patience.
    let failure =
        tokio::time::timeout(Duration::from_secs(20), fails(&request, &store, Reason::LockTimeout)).await.unwrap();
    assert!(failure.retryable);
    drop(client);
    database.finish().await;
}

#[tokio::test]
async fn stores_that_do_not_exist_or_deny_access() {
    let database = server(18).database("stores").await;
    let request = request(&database);
    let attempt = async |settings: &StoreSettings, reason| {
        let store = Store::open(settings).unwrap();
        let error = dump(&request, &store, &quiet).await.unwrap_err();
        let failure = failed(&error, &request, &store, reason);
        assert!(!failure.message.contains(&support::s3("secret")), "{}", failure.message);
        assert!(failure.message.len() < 400 && !failure.message.contains('<'), "{}", failure.message);
    };
    let mut wrong = s3_settings("x");
    wrong.credentials = StoreCredentials::from_keys([
        ("AWS_ACCESS_KEY_ID".to_owned(), support::s3("key")),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "not-the-secret".to_owned()),
    ]);
    attempt(&wrong, Reason::AccessDenied).await;
    let mut unknown = s3_settings("x");
    unknown.credentials = StoreCredentials::from_keys([
        ("AWS_ACCESS_KEY_ID".to_owned(), "no-such-key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), support::s3("secret")),
    ]);
    attempt(&unknown, Reason::AccessDenied).await;
    unknown.url = StoreUrl::parse("s3://does-not-exist/x").unwrap();
    attempt(&unknown, Reason::AccessDenied).await;
    let mut missing = s3_settings("x");
    missing.url = StoreUrl::parse("s3://does-not-exist/x").unwrap();
    attempt(&missing, Reason::BucketMissing).await;
    let mut nobody = s3_settings("x");
    nobody.endpoint = Some("http://127.0.0.1:1".into());
    attempt(&nobody, Reason::StoreUnavailable).await;
    database.finish().await;
}

#[tokio::test]
async fn a_full_disk() {
    let small = SmallDisk::new("6m");
    let database = server(18).database("full").await;
    database
        .connect()
        .await
        .batch_execute(
            "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 20000) n",
        )
        .await
        .unwrap();
    let mut settings = StoreSettings::new(StoreUrl::parse("file:///dumps").unwrap());
    settings.root = Some(small.path().to_owned());
    let store = TestStore::at(Store::open(&settings).unwrap(), settings, small.path().join("dumps"));
    let mut request = request(&database);
    request.compression.method = CompressionMethod::None;
    request.upload.part_bytes = 1024 * 1024;
    let failure = fails(&request, &store, Reason::StoreFull).await;
    assert!(!failure.retryable);
    // Not a single byte stays: the next dump has all the space that there was.
    request.filter.exclude_table_data = vec!["blob".into()];
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    database.finish().await;
}

#[tokio::test]
async fn a_full_object_store() {
    let small = SmallServer::new("6m");
    let database = server(18).database("full").await;
    database
        .connect()
        .await
        .batch_execute(
            "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 20000) n",
        )
        .await
        .unwrap();
    let settings = small.settings();
    let store = TestStore::at(Store::open(&settings).unwrap(), settings, small.files.join("backups").join("small"));
    let mut request = request(&database);
    request.compression.method = CompressionMethod::None;
    request.upload.part_bytes = 5 * 1024 * 1024;
    let error = dump(&request, &store.store, &quiet).await.unwrap_err();
    let failure = error.failure(&request, &store.store);
    assert!(matches!(failure.reason, Reason::StoreFull | Reason::StoreUnavailable), "{error:?}");
    assert_eq!(store.list_files(), [""; 0]);
    // The uploaded parts were deleted too.
    request.filter.exclude_table_data = vec!["blob".into()];
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    database.finish().await;
}

async fn with_clients(name: &str, script: &str, reason: Reason) -> Failure {
    let database = server(18).database("broken").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let directory = clients_with(name, script);
    let mut failure = None;
    for store in stores() {
        let mut request = request(&database);
        request.client_directory = Some(directory.path().to_owned());
        failure = Some(fails(&request, &store, reason).await);
    }
    database.finish().await;
    failure.unwrap()
}

#[tokio::test]
async fn pg_dump_killed_midway() {
    let failure = with_clients("pg_dump", "REAL \"$@\" | head -c 20000; kill -9 $$", Reason::DumpFailed).await;
    assert!(failure.message.contains("killed by signal 9"), "{}", failure.message);
}

#[tokio::test]
async fn pg_dump_fails_with_a_message() {
    let script =
        "REAL \"$@\" | head -c 3000; echo \"pg_dump: error: out of luck, password is $PGPASSWORD\" >&2; exit 1";
    let failure = with_clients("pg_dump", script, Reason::DumpFailed).await;
    assert!(failure.message.contains("out of luck, password is ***"), "{}", failure.message);
}

#[tokio::test]
async fn warnings_of_a_successful_pg_dump_are_kept() {
    let database = server(18).database("warnings").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let script =
        "echo \"pg_dump: warning: could not find where to insert IF EXISTS, $PGPASSWORD\" >&2; exec REAL \"$@\"";
    let directory = clients_with("pg_dump", script);
    for store in stores() {
        let mut request = request(&database);
        request.client_directory = Some(directory.path().to_owned());
        let result = dump(&request, &store.store, &quiet).await.unwrap();
        let expected = ["pg_dump: warning: could not find where to insert IF EXISTS, ***"];
        assert_eq!(result.remarks.warnings, expected);
        verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
        assert_eq!(Manifest::read(&store.store, &result.location).await.unwrap().remarks.warnings, expected);
    }
    database.finish().await;
}

#[tokio::test]
async fn a_truncated_archive_from_a_pg_dump_that_reports_success() {
    with_clients("pg_dump", "REAL \"$@\" | head -c 20000; exit 0", Reason::ArchiveInvalid).await;
    with_clients("pg_dump", "exit 0", Reason::ArchiveInvalid).await;
}

#[tokio::test]
async fn a_damaged_archive_from_a_pg_dump_that_reports_success() {
    with_clients("pg_dump", "REAL \"$@\" | tr 'PGDMP' 'XXXXX'; exit 0", Reason::ArchiveInvalid).await;
}

#[tokio::test]
async fn rows_that_are_missing_from_a_sound_archive() {
    let database = server(18).database("missing").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let directory = clients_with("pg_dump", "exec REAL \"$@\" --exclude-table-data=orders");
    for store in stores() {
        let mut request = request(&database);
        request.client_directory = Some(directory.path().to_owned());
        let failure = fails(&request, &store, Reason::RowCountMismatch).await;
        assert!(failure.message.contains("public.orders is missing"), "{}", failure.message);
    }
    database.finish().await;
}

#[tokio::test]
async fn a_pg_dump_that_ignores_the_snapshot() {
    let database = server(18).database("ignores").await;
    let client = database.connect().await;
    // The second table is counted in another way: its index calls a function.
    let tables = "CREATE TABLE t AS SELECT generate_series(1, 100) AS n; CREATE TABLE u AS TABLE t;
        CREATE FUNCTION same(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE INDEX ON u (same(n))";
    client.batch_execute(tables).await.unwrap();
    // Rows appear between the snapshot and a dump that takes its own.
    let insert = format!("{}/psql -qc 'INSERT INTO t VALUES (0); INSERT INTO u VALUES (0)'", programs(18).display());
    let script = format!(
        "{insert}; args=(); for a in \"$@\"; do [[ $a = --snapshot* ]] || args+=(\"$a\"); done; exec REAL \"${{args[@]}}\""
    );
    let directory = clients_with("pg_dump", &script);
    let store = file_store();
    let mut request = request(&database);
    request.client_directory = Some(directory.path().to_owned());
    let failure = fails(&request, &store, Reason::RowCountMismatch).await;
    for table in ["t", "u"] {
        let difference = format!("public.{table} has 101 rows instead of 100");
        assert!(failure.message.contains(&difference), "{}", failure.message);
    }
    database.finish().await;
}

#[tokio::test]
async fn no_program_is_given_a_password_as_an_argument() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let script = format!("printf '%s\\n' \"$@\" >>{0}; env >>{0}.env; exec REAL \"$@\"", log.display());
    let clients = clients_with("pg_dump", &script);
    let database = server(18).database("arguments").await;
    let store = support::s3_store();
    let mut request = request(&database);
    request.client_directory = Some(clients.path().to_owned());
    dump(&request, &store.store, &quiet).await.unwrap();
    let password = request.connection.password.as_ref().unwrap().reveal();
    let arguments = std::fs::read_to_string(&log).unwrap();
    assert!(arguments.contains("--format=custom") && !arguments.contains(password), "{arguments}");
    let environment = std::fs::read_to_string(format!("{}.env", log.display())).unwrap();
    assert!(environment.contains(password), "it is passed in the environment");
    assert!(!environment.contains(&support::s3("secret")), "the store's secrets are not passed to it");
    database.finish().await;
}

#[tokio::test]
async fn stopping_leaves_nothing() {
    let database = server(18).database("stopped").await;
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 50000) n",
        )
        .await
        .unwrap();
    for store in stores() {
        let mut request = request(&database);
        request.compression.method = CompressionMethod::None;
        request.upload.part_bytes = 5 * 1024 * 1024;
        // Stopped while the second part is being uploaded.
        let stop = tokio::sync::Notify::new();
        let progress = |progress| {
            if matches!(progress, Progress::Written { bytes } if bytes > 12_000_000) {
                stop.notify_one();
            }
        };
        let error = dump_until(&request, &store.store, &progress, stop.notified()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Interrupted);
        assert_eq!(store.list_files(), [""; 0], "{}", store.kind);
    }
    // The server's sessions end as well: no rows are counted for an aborted dump.
    loop {
        let sessions: i64 = client
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        if sessions == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    database.finish().await;
}

#[tokio::test]
async fn the_server_closes_the_sessions_midway() {
    let database = server(18).database("gone").await;
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 50000) n",
        )
        .await
        .unwrap();
    let store = file_store();
    let mut request = request(&database);
    request.compression.method = CompressionMethod::None;
    let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |progress| {
        if matches!(progress, Progress::Written { bytes } if bytes > 4_000_000) {
            let _ = reached.send(());
        }
    };
    let end_sessions = async {
        wait.recv().await;
        client
            .batch_execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await
            .unwrap();
    };
    let (result, ()) = tokio::join!(dump(&request, &store.store, &progress), end_sessions);
    failed(&result.unwrap_err(), &request, &store.store, Reason::ConnectionFailed);
    assert_eq!(store.list_files(), [""; 0]);
    database.finish().await;
}

type Damage = fn(&Path);

/// What each kind of damage to the stored archive is called.
#[tokio::test]
async fn damage_in_the_store_is_found() {
    let database = server(18).database("damage").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let flip: Damage = |file| {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    };
    let truncate: Damage = |file| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
    };
    let remove: Damage = |file| std::fs::remove_file(file).unwrap();
    for (name, damage, reasons) in [
        ("dump.pgc.000", flip, &[Reason::ChecksumMismatch][..]),
        ("dump.pgc.000", truncate, &[Reason::ChecksumMismatch]),
        ("dump.pgc.000", remove, &[Reason::ObjectMissing]),
        ("globals.sql", flip, &[Reason::ChecksumMismatch]),
        ("globals.sql", remove, &[Reason::ObjectMissing]),
    ] {
        for store in stores() {
            let mut result = dump(&request(&database), &store.store, &quiet).await.unwrap();
            // Without the store's mark only reading finds a flipped byte.
            if let Some(details) = &mut result.details {
                details.segments.iter_mut().for_each(|segment| segment.e_tag = None);
            }
            damage(&store.files.join(&result.location).join(name));
            let error = verify(&verify_request(&result), &store.store, &quiet).await.unwrap_err();
            assert!(reasons.contains(&error.reason()), "{} {name}: {error:?}", store.kind);
            assert!(!store.list_files().iter().any(|file| file.contains("manifest")), "{}", store.kind);
        }
    }
    database.finish().await;
}

/// An S3 server whose disk has a few megabytes.
struct SmallServer {
    endpoint: String,
    key: String,
    secret: String,
    files: PathBuf,
    state: String,
}

fn server_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/s3/server.sh")
}

impl SmallServer {
    fn new(size: &str) -> Self {
        let output =
            std::process::Command::new(server_script()).arg("up").env("PGRAIL_S3_SIZE", size).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).unwrap();
        let part = |name: &str| {
            let value = line.split([' ', '"', '\n']).find_map(|entry| entry.strip_prefix(&format!("{name}=")));
            value.unwrap().to_owned()
        };
        Self {
            endpoint: part("endpoint"),
            key: part("key"),
            secret: part("secret"),
            files: part("folder").into(),
            state: part("state"),
        }
    }

    fn settings(&self) -> StoreSettings {
        let mut settings = StoreSettings::new(StoreUrl::parse("s3://backups/small").unwrap());
        settings.endpoint = Some(self.endpoint.clone());
        settings.allow_http = true;
        settings.retries = 1;
        settings.credentials = StoreCredentials::from_keys([
            ("AWS_ACCESS_KEY_ID".to_owned(), self.key.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), self.secret.clone()),
        ]);
        settings
    }
}

impl Drop for SmallServer {
    fn drop(&mut self) {
        let _ = std::process::Command::new(server_script()).args(["down", &self.state]).status();
    }
}
