//! A dump taken from a standby.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::process::{Child, Command, Stdio};

use pgrail_dump::{dump, verify};
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
            .args(["--listen_addresses=127.0.0.1", "--ssl=off", "--fsync=off"])
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

#[tokio::test]
async fn a_standby_is_dumped_without_what_it_cannot_read() {
    let server = server(18);
    let database = server.database("standby").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
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
    drop(client);

    let mut request = request_for(&database.uri, 18);
    request.connection = connection;
    let store = file_store();
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    // The unlogged table's one row is not there.
    assert_eq!((result.tables, result.rows), (SHOP_TABLES - 1, SHOP_ROWS - 1));
    verify(&verify_request(&result, 18), &store.store, &quiet).await.unwrap();
    drop(standby);
    database.finish().await;
}
