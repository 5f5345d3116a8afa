use std::time::Duration;

use pgrail_postgres::{AddressPolicy, ConnectError, connect, connect_within, resolve};
use pgrail_testing::for_each_server;

use crate::{of_uri, settings, text};

#[tokio::test]
async fn a_session_has_the_application_name() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        let connection = connect(&of_uri(&database.uri)).await.unwrap();
        assert_eq!(text(&connection, "SELECT current_database()::text").await, database.name);
        assert_eq!(text(&connection, "SHOW application_name").await, "pgrail");
        assert_eq!(connection.reached().address, Some("127.0.0.1".parse().unwrap()));
        assert!(connection.reached().encrypted, "prefer takes TLS where it is offered");
        drop(connection);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_session_ends_during_a_statement() {
    for_each_server(async |server| {
        let watcher = connect(&settings(&server)).await.unwrap();
        let connection = connect(&settings(&server)).await.unwrap();
        let process: i32 = connection.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&process];
        // The server checks the connection while a statement runs.
        connection.batch_execute("SET client_connection_check_interval = '100ms'").await.unwrap();
        {
            let statement = connection.batch_execute("SELECT pg_sleep(600)");
            tokio::pin!(statement);
            // The statement is running.
            let running = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'";
            loop {
                tokio::select! {
                    biased;
                    result = &mut statement => panic!("the statement ended: {result:?}"),
                    rows = watcher.query_one(running, &parameters) => if rows.unwrap().get::<_, i64>(0) == 1 { break },
                }
            }
        }
        drop(connection);
        let there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
        tokio::time::timeout(Duration::from_secs(30), async {
            while watcher.query_one(there, &parameters).await.unwrap().get::<_, i64>(0) != 0 {}
        })
        .await
        .expect("the session to end");
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_session_is_detected() {
    for_each_server(async |server| {
        let watcher = connect(&settings(&server)).await.unwrap();
        let connection = connect(&settings(&server)).await.unwrap();
        let process: i32 = connection.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        watcher.execute("SELECT pg_terminate_backend($1)", &[&process]).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), connection.closed()).await.expect("the end to be detected");
        assert!(connection.is_closed());
    })
    .await;
}

#[tokio::test]
async fn a_statement_can_be_cancelled_with_and_without_tls() {
    for_each_server(async |server| {
        for mode in [pgrail_postgres::TlsMode::Disable, pgrail_postgres::TlsMode::Require] {
            let mut settings = settings(&server);
            settings.tls = mode;
            let connection = connect(&settings).await.unwrap();
            let statement = connection.batch_execute("SELECT pg_sleep(600)");
            tokio::pin!(statement);
            // A request that arrives before the statement starts has no effect, so it is repeated.
            let error = loop {
                tokio::select! {
                    biased;
                    result = &mut statement => break result.unwrap_err(),
                    cancelled = connection.cancel() => cancelled.unwrap(),
                }
            };
            assert_eq!(error.code().unwrap().code(), "57014");
        }
    })
    .await;
}

#[tokio::test]
async fn only_allowed_addresses_are_connected_to() {
    for_each_server(async |server| {
        let mut settings = settings(&server);
        settings.host = "localhost".into();
        let strict = AddressPolicy::restricted(vec![], vec![]);
        let error = connect_within(&settings, &strict).await.expect_err("loopback is refused");
        assert!(matches!(error, ConnectError::HostNotAllowed(_)));
        assert_eq!(error.reason(), "HostNotAllowed");

        let lifted = AddressPolicy::restricted(vec![], vec!["127.0.0.0/8".parse().unwrap()]);
        assert_eq!(resolve(&settings, &lifted).await.unwrap(), ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
        assert!(connect_within(&settings, &lifted).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn the_lookup_name_is_resolved_instead_of_the_host() {
    for_each_server(async |server| {
        let mut settings = settings(&server);
        settings.host = "shop-rw".into();
        settings.lookup = Some("localhost".into());
        assert!(connect(&settings).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_supported() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        let client = database.connect().await;
        let folder: String = client.query_one("SHOW unix_socket_directories", &[]).await.unwrap().get(0);
        let mut settings = of_uri(&database.uri);
        settings.host = folder;
        let connection = connect(&settings).await.unwrap();
        assert_eq!((connection.reached().address, connection.reached().encrypted), (None, false));
        assert_eq!(text(&connection, "SELECT coalesce(inet_server_addr()::text, 'local')").await, "local");
    })
    .await;
}
