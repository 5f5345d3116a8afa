//! What breaks between the database and the store, while a dump runs: the true reason is reported, nothing that looks like a
//! backup is left, and the next run is a backup. What is seen is the table of the book.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pgrail_dump::{
    DumpRequest, Failure, Phase, Progress, PruneRequest, Reason, RowCounts, Scope, Store, StoreSettings, dump, list,
    prune, verify,
};
use pgrail_testing::{
    Database, Fault, OwnServer, Proxy, Request, connect, documented, no_other_rows, programs, server,
};
use support::{TestStore, clients_with, in_parts, quiet, request, request_for, s3, s3_store, unique, verify_request};
use tempfile::TempDir;

type Decide = Box<dyn Fn(&Request) -> Fault + Send + Sync>;

const PAGE: &str = "operations/backup-faults.md";

/// Some 25 MB: five parts.
const BLOB: &str = "CREATE TABLE blob AS SELECT n, repeat(md5(n::text), 40) AS text FROM generate_series(1, 20000) n; \
     CREATE TABLE users AS SELECT generate_series(1, 1000) AS id";

/// A dump and its verification, as the containers of a pod make them.
async fn run(request: &DumpRequest, store: &Store) -> Result<(), Failure> {
    let mut request = request.clone();
    request.identity.run_id = unique("r").replace('-', "");
    let result = dump(&request, store, &quiet).await.map_err(|error| error.failure(&request, store))?;
    verify(&verify_request(&result), store, &quiet).await.map_err(|error| error.failure(store))?;
    Ok(())
}

/// How a failure is described in the book.
fn described(failure: &Failure) -> String {
    let step = if failure.phase == Phase::Dump { "dump" } else { "verification" };
    let again = if failure.retryable { "the run is repeated" } else { "the run is not repeated" };
    format!("the {step} fails with `{}`, {again}", failure.reason)
}

/// There is no backup; what is left of the failed runs is removed by the retention; then a run is a backup. Returns what was left.
async fn recovers(request: &DumpRequest, store: &TestStore) -> String {
    let schedule = request.identity.schedule_identity();
    let listed = async || list(&store.store, Scope::Schedule(&schedule)).await.unwrap();
    let found = listed().await;
    assert!(found.ours.is_empty() && found.unreadable.is_empty(), "{found:?}");
    let objects = store.list_files();
    assert!(!objects.iter().any(|file| file.contains("manifest")), "{objects:?}");
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    let sweep = PruneRequest { grace: Duration::ZERO, ..PruneRequest::new(schedule.clone(), Vec::new(), now) };
    let swept = prune(&store.store, &sweep).await.unwrap();
    assert_eq!(swept.swept.is_empty(), objects.is_empty(), "{swept:?} {objects:?}");
    assert_eq!((store.list_files(), swept.refused.len()), (Vec::new(), 0), "{swept:?}");
    run(request, &store.store).await.unwrap();
    assert_eq!(listed().await.ours.len(), 1);
    match (objects.is_empty(), swept.aborted_uploads) {
        (true, 0) => "nothing is left in the store".to_owned(),
        (true, _) => "the parts that were written are removed by the retention".to_owned(),
        (false, _) => "the objects without a manifest are removed by the retention".to_owned(),
    }
}

/// One run through the proxy.
async fn through_proxy(
    database: &Database,
    fault: &str,
    change: impl Fn(&mut StoreSettings),
    decide: Decide,
) -> Option<Failure> {
    let store = s3_store();
    let proxy = Proxy::start(&s3("endpoint"), decide).await;
    let mut settings = store.settings.clone();
    settings.endpoint = Some(proxy.endpoint.clone());
    change(&mut settings);
    let request = in_parts(request(database), 100);
    match run(&request, &Store::open(&settings).unwrap()).await {
        Ok(()) => {
            let found = list(&store.store, Scope::Schedule(&request.identity.schedule_identity())).await.unwrap();
            assert_eq!(found.ours.len(), 1, "{found:?}");
            documented(PAGE, fault, "the request is repeated, and the run succeeds");
            None
        }
        Err(failure) => {
            let left = recovers(&request, &store).await;
            documented(PAGE, fault, &format!("{}; {left}; the next run succeeds", described(&failure)));
            Some(failure)
        }
    }
}

/// The first `most` of some requests, or all of them after the first `spared`.
fn some(of: fn(&Request) -> bool, spared: u32, most: u32, fault: Fault) -> Decide {
    let count = AtomicU32::new(0);
    Box::new(move |request| {
        let is_one =
            of(request) && (spared..spared.saturating_add(most)).contains(&count.fetch_add(1, Ordering::Relaxed));
        if is_one { fault.clone() } else { Fault::Pass }
    })
}

fn first(most: u32, of: fn(&Request) -> bool, fault: Fault) -> Decide {
    some(of, 0, most, fault)
}

fn later(of: fn(&Request) -> bool, fault: Fault) -> Decide {
    some(of, 1, u32::MAX, fault)
}

fn all(of: fn(&Request) -> bool, fault: Fault) -> Decide {
    some(of, 0, u32::MAX, fault)
}

fn is_manifest(request: &Request) -> bool {
    request.method == "PUT" && request.target.contains("manifest.json")
}

fn is_archive(request: &Request) -> bool {
    request.is_read() && request.target.contains("dump.pgc")
}

fn busy() -> Fault {
    Fault::error("503 Slow Down", "SlowDown", "Please reduce your request rate.")
}

fn broken() -> Fault {
    Fault::error("500 Internal Server Error", "InternalError", "We encountered an internal error.")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_fails_while_a_dump_is_written() {
    let database = server(18).database("writing").await;
    database.connect().await.batch_execute(BLOB).await.unwrap();
    let through = async |fault: &str, decide: Decide| through_proxy(&database, fault, |_| (), decide).await;
    let part = Request::is_part as fn(&Request) -> bool;
    assert!(through("the store answers with 503 twice", first(2, part, busy())).await.is_none());
    let failure = through("the store answers with 500 from the second part on", later(part, broken())).await.unwrap();
    assert!(failure.message.contains("InternalError"), "{}", failure.message);
    assert!(through("the connection breaks in the middle of a part", first(1, part, Fault::Cut)).await.is_none());
    through("the connection breaks in the middle of every part", later(part, Fault::Cut)).await.unwrap();
    let failure = through("the store acknowledges a part and loses it", first(1, part, Fault::Lose)).await.unwrap();
    assert!(failure.message.contains("complete"), "{}", failure.message);
    let failure = through("a bit of a part changes on the way", first(1, part, Fault::Damage)).await.unwrap();
    assert_eq!(failure.reason, Reason::ChecksumMismatch, "{failure:?}");
    let expired = Fault::error("400 Bad Request", "ExpiredToken", "The provided token has expired.");
    let parts = AtomicU32::new(0);
    let after_two = Box::new(move |request: &Request| {
        let written = parts.fetch_add(u32::from(request.is_part()), Ordering::Relaxed);
        if written > 1 { expired.clone() } else { Fault::Pass }
    });
    let failure = through("the credentials expire in the middle", after_two).await.unwrap();
    assert!(failure.reason == Reason::AccessDenied && failure.message.contains("has expired"), "{failure:?}");
    let completion = Request::is_completion as fn(&Request) -> bool;
    through("the store cannot complete the upload", all(completion, broken())).await.unwrap();
    through("the store completes the upload, and its answer is lost", first(1, completion, Fault::CutAnswer)).await;

    let short = |settings: &mut StoreSettings| (settings.timeout, settings.retries) = (Duration::from_secs(5), 1);
    let once = first(1, part, Fault::Stall);
    assert!(through_proxy(&database, "the store does not answer once", short, once).await.is_none());
    through_proxy(&database, "the store does not answer any more", short, later(part, Fault::Stall)).await.unwrap();
    database.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_fails_while_a_dump_is_verified() {
    let database = server(18).database("reading").await;
    database.connect().await.batch_execute(BLOB).await.unwrap();
    let through = async |fault: &str, decide: Decide| through_proxy(&database, fault, |_| (), decide).await;
    assert!(
        through("the connection breaks once in the read-back", first(1, is_archive, Fault::CutAnswer)).await.is_none()
    );
    through("the connection breaks whenever the archive is read back", all(is_archive, Fault::CutAnswer))
        .await
        .unwrap();
    let changes = all(is_archive, Fault::DamageAnswer);
    let failure = through("a bit changes whenever the archive is read back", changes).await.unwrap();
    assert_eq!(failure.reason, Reason::ChecksumMismatch, "{failure:?}");
    through("the manifest cannot be written", all(is_manifest, broken())).await.unwrap();
    let lost = first(1, is_manifest, Fault::CutAnswer);
    assert!(through("the manifest is written, and the answer is lost", lost).await.is_none());
    database.finish().await;
}

/// A run that fails, and what it leaves.
async fn fails(fault: &str, request: &DumpRequest, next: &DumpRequest) -> Failure {
    let store = s3_store();
    let error = dump(request, &store.store, &quiet).await.unwrap_err();
    let failure = error.failure(request, &store.store);
    let left = recovers(next, &store).await;
    documented(PAGE, fault, &format!("{}; {left}; the next run succeeds", described(&failure)));
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_crashes_in_the_middle() {
    let mut own = OwnServer::start(18, &[]).await;
    connect(&own.server.uri).await.batch_execute(BLOB).await.unwrap();
    let request = in_parts(request_for(&own.server.uri, 18), 100);
    let store = s3_store();
    let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |progress| {
        if matches!(progress, Progress::Written { bytes } if bytes > 8_000_000) {
            let _ = reached.send(());
        }
    };
    let crash = async {
        wait.recv().await;
        own.crash();
    };
    let (dumped, ()) = tokio::join!(dump(&request, &store.store, &progress), crash);
    let failure = dumped.unwrap_err().failure(&request, &store.store);
    assert_eq!(failure.reason, Reason::ConnectionFailed, "{failure:?}");
    let while_down = dump(&request, &store.store, &quiet).await.unwrap_err();
    assert_eq!(while_down.reason(), Reason::ConnectionFailed);
    own.begin().await;
    let left = recovers(&request, &store).await;
    let seen = format!("{}; {left}; the next run succeeds", described(&failure));
    documented(PAGE, "PostgreSQL crashes in the middle of a dump", &seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_connections_left() {
    let own =
        OwnServer::start(18, &["max_connections=4", "superuser_reserved_connections=0", "reserved_connections=0"])
            .await;
    let admin = connect(&own.server.uri).await;
    admin.batch_execute(BLOB).await.unwrap();
    admin
        .batch_execute("CREATE ROLE dumper LOGIN PASSWORD 'word' IN ROLE pg_read_all_data CONNECTION LIMIT 2")
        .await
        .unwrap();
    let good = in_parts(request_for(&own.server.uri, 18), 100);
    let others = [connect(&own.server.uri).await, connect(&own.server.uri).await, connect(&own.server.uri).await];
    let store = s3_store();
    let failure = dump(&good, &store.store, &quiet).await.unwrap_err().failure(&good, &store.store);
    assert!(failure.message.contains("the connection limit is reached"), "{failure:?}");
    drop(others);
    // A session ends a moment after its client.
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    while admin.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = recovers(&good, &store).await;
    let seen = format!("{}; {left}; the next run succeeds", described(&failure));
    documented(PAGE, "the server has no connections left", &seen);

    // Another session of the role takes the last one after the snapshot was taken.
    let psql = programs(18).join("psql");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'dumper'";
    let script = format!(
        "{psql} -qXc 'SELECT pg_sleep(300)' >/dev/null & other=$!\n\
         until [ \"$(PGUSER=postgres PGPASSWORD=postgres {psql} -qXAtc \"{sessions}\")\" -ge 2 ]; do sleep 0.1; done\n\
         REAL \"$@\"; status=$?; kill $other; exit $status",
        psql = psql.display()
    );
    let clients = clients_with("pg_dump", &script);
    let uri = own.server.uri.replace("postgres:postgres@", "dumper:word@");
    let mut request = in_parts(request_for(&uri, 18), 100);
    request.client_directory = Some(clients.path().to_owned());
    let failure = fails("there is no connection left for pg_dump", &request, &good).await;
    assert!(failure.message.contains("too many connections for role"), "{failure:?}");
    assert_eq!(failure.reason, Reason::ConnectionFailed);
}

/// A pg_dump before which something else happens: the snapshot was taken already.
fn after(sql: &str) -> TempDir {
    let psql = programs(18).join("psql");
    clients_with("pg_dump", &format!("{} -qc '{sql}' || exit 9\nexec REAL \"$@\"", psql.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_changes_while_it_is_dumped() {
    let database = server(18).database("changes").await;
    let client = database.connect().await;
    client.batch_execute(BLOB).await.unwrap();
    let of = |clients: &TempDir| {
        let mut request = in_parts(request(&database), 100);
        request.client_directory = Some(clients.path().to_owned());
        request
    };
    let good = in_parts(request(&database), 100);
    // A count would hold a lock on the table.
    let dropping = after("DROP TABLE users");
    let uncounted = DumpRequest { row_counts: RowCounts::Archive, ..of(&dropping) };
    let failure = fails("a table is dropped during a dump", &uncounted, &good).await;
    assert!(failure.message.contains("users") && failure.message.contains("does not exist"), "{failure:?}");
    client.batch_execute("CREATE TABLE users AS SELECT generate_series(1, 1000) AS id").await.unwrap();

    // Several pg_dump: the tables are locked before they start.
    let waits = format!(
        "{}/psql -qc \"SET lock_timeout = '100ms'; DROP TABLE users\" && exit 9\nexec REAL \"$@\"",
        programs(18).display()
    );
    let clients = clients_with("pg_dump", &waits);
    let parallel = DumpRequest { jobs: 2, ..of(&clients) };
    run(&parallel, &s3_store().store).await.unwrap();
    documented(
        PAGE,
        "a table is to be dropped during a dump with several `jobs`",
        "the other session waits, and the run succeeds",
    );

    let role = server(18).role_name("reader");
    let create =
        format!("CREATE ROLE {role} LOGIN PASSWORD 'word'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}");
    client.batch_execute(&create).await.unwrap();
    let password = database.uri.split([':', '@']).nth(2).unwrap().to_owned();
    let revoke = format!(
        "PGUSER=postgres PGPASSWORD={password} {}/psql -qc 'REVOKE SELECT ON users FROM {role}' || exit 9\nexec REAL \"$@\"",
        programs(18).display()
    );
    let clients = clients_with("pg_dump", &revoke);
    let mut request = in_parts(request_for(&database.uri_for(&role, "word"), 18), 100);
    request.client_directory = Some(clients.path().to_owned());
    let failure = fails("a privilege is revoked during a dump", &request, &good).await;
    assert_eq!(failure.reason, Reason::PermissionDenied, "{failure:?}");
    let failure = run(&DumpRequest { client_directory: good.client_directory.clone(), ..request }, &s3_store().store)
        .await
        .unwrap_err();
    assert!(failure.message.contains("public.users"), "the next run names the table: {failure:?}");
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();

    let killed = clients_with("pg_dump", "REAL \"$@\" | head -c 12000000; kill -9 $$");
    let failure = fails("pg_dump is killed", &of(&killed), &good).await;
    assert!(failure.message.contains("killed by signal 9"), "{failure:?}");
    database.finish().await;
}

#[test]
fn every_row_of_the_page_is_of_a_test() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    no_other_rows(PAGE, &[tests.join("tests/pipeline.rs"), tests.join("../restore/tests/faults.rs")]);
}
