//! A dump taken from a standby.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use pgrail_dump::{Manifest, PartialCause, dump, verify};
use pgrail_testing::{as_server_user, reachable_programs, server};
use support::{SHOP, SHOP_ROWS, SHOP_TABLES, file_store, quiet, request_for, settings_of, verify_request};
use tempfile::TempDir;

/// A standby of the test server, stopped and removed at the end.
struct Standby {
    server: Child,
    port: u16,
    _directory: TempDir,
}

impl Standby {
    fn of(uri: &str, major: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("pgrail-standby-").tempdir_in("/tmp").unwrap();
        let data = directory.path().join("data");
        let bin = reachable_programs(directory.path(), major);
        let owned = Command::new("chmod").arg("1777").arg(directory.path()).status().unwrap();
        assert!(owned.success());
        let copied = as_server_user(&bin.join("pg_basebackup"))
            .args(["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync", "--pgdata"])
            .arg(&data)
            .arg(format!("--dbname={uri}"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = as_server_user(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg(format!("--port={port}"))
            .arg(format!("--unix_socket_directories={}", directory.path().display()))
            .args(["--listen_addresses=127.0.0.1", "--ssl=off", "--fsync=off", "--wal_receiver_timeout=1s"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { server, port, _directory: directory }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        // A fast shutdown, so that its children do not outlive it.
        let _ = Command::new("kill").args(["-INT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
    }
}

/// Repeats a query on the standby until it is true.
async fn until(client: &pgrail_postgres::Connection, standby: &mut Standby, query: &str) {
    while !client.query_one(query, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(standby.server.try_wait().unwrap().is_none(), "the standby ended");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dump_from_a_standby_shows_what_it_replayed() {
    let server = server(18);
    let database = server.database("standby").await;
    let primary = database.connect().await;
    primary.batch_execute(SHOP).await.unwrap();
    // What guards keep in unlogged tables is not restored: a standby leaves it out, and the dump is no less complete.
    primary
        .batch_execute("CREATE SCHEMA pgrail; CREATE UNLOGGED TABLE pgrail.usage AS SELECT 1 AS used")
        .await
        .unwrap();
    let mut standby = Standby::of(&server.uri, 18);
    let mut connection = settings_of(&database.uri);
    connection.port = standby.port;
    // Ready when it accepts connections; its own end would show as one.
    let client = loop {
        match pgrail_postgres::connect(&connection).await {
            Ok(client) => break client,
            Err(error) => assert!(standby.server.try_wait().unwrap().is_none(), "the standby ended: {error}"),
        }
        tokio::task::yield_now().await;
    };
    let standing_by: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(standing_by);
    let lsn =
        async || -> String { primary.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0) };
    let now = async || -> Timestamp { primary.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0) };
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", lsn().await);
    until(&client, &mut standby, &replayed).await;

    let mut request = request_for(&database.uri, 18);
    request.connection = connection;
    let store = file_store();
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    // The unlogged table's one row is not there, which the result says.
    assert_eq!((result.tables, result.rows), (SHOP_TABLES - 1, SHOP_ROWS - 1));
    assert_eq!(result.remarks.unlogged_tables, ["public.cache"]);
    assert!(result.partial && result.remarks.partial_because == [PartialCause::UnloggedTables]);
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
    assert!(manifest.is_partial() && manifest.remarks.unlogged_tables == ["public.cache"]);

    // Replay stands still: the dump is as old as what was replayed, whatever the standby's clock says.
    client.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    until(&client, &mut standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    let before_the_insert = now().await;
    primary.batch_execute("INSERT INTO users SELECT n, 'late' FROM generate_series(2000, 2099) n").await.unwrap();
    let received = format!("SELECT pg_last_wal_receive_lsn() >= '{}'", lsn().await);
    until(&client, &mut standby, &received).await;
    until(&client, &mut standby, &format!("SELECT clock_timestamp() > '{before_the_insert}'::timestamptz + '1 s'"))
        .await;
    request.identity.run_id = support::unique("r").replace('-', "");
    let stale = dump(&request, &store.store, &quiet).await.unwrap();
    assert_eq!(stale.rows, SHOP_ROWS - 1);
    assert!(stale.snapshot_time <= before_the_insert, "{} is later than {before_the_insert}", stale.snapshot_time);
    assert!(stale.remarks.replay_lag_seconds >= Some(1), "{:?}", stale.remarks.replay_lag_seconds);

    // Replay goes on, and no commit follows: a standby that has everything is as young as the primary's last message.
    client.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    let later = now().await;
    let current = format!(
        "SELECT last_msg_send_time > '{later}' AND latest_end_lsn <= pg_last_wal_replay_lsn() FROM pg_stat_wal_receiver"
    );
    until(&client, &mut standby, &current).await;
    request.identity.run_id = support::unique("r").replace('-', "");
    let fresh = dump(&request, &store.store, &quiet).await.unwrap();
    assert_eq!(fresh.rows, SHOP_ROWS - 1 + 100);
    assert!(fresh.snapshot_time >= later, "{} is earlier than {later}", fresh.snapshot_time);
    drop(client);
    drop(standby);
    database.finish().await;
}
