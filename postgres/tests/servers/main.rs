//! Connections to real servers, which `e2e/postgres/servers.sh` starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod certificates;
mod connecting;
mod failing;
mod hostile;
mod pooler;
mod programs;
mod tls;

use std::path::Path;

use pgrail_postgres::{ConnectError, Connection, ConnectionSettings, Password, TlsMode, connect, parse_uri};
use pgrail_testing::Server;

/// Settings of the superuser of a test server.
fn settings(server: &Server) -> ConnectionSettings {
    of_uri(&server.uri)
}

fn of_uri(uri: &str) -> ConnectionSettings {
    parse_uri(uri).unwrap().into_settings(None).unwrap()
}

fn with_mode(server: &Server, mode: TlsMode, authority: Option<&Path>) -> ConnectionSettings {
    let mut settings = settings(server);
    settings.tls = mode;
    settings.ca_pem = authority.map(|file| std::fs::read(file).unwrap());
    settings
}

/// All texts of an error: `Display` of the error and its sources, and `Debug`.
fn texts(error: &ConnectError) -> String {
    let mut texts = format!("{error:?} {error}");
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        texts = format!("{texts} {source} {source:?}");
        next = source.source();
    }
    texts
}

/// The error of a connection that must fail with this reason. No text contains the password, host, database or user.
async fn fails(settings: &ConnectionSettings, reason: &str) -> ConnectError {
    let error = connect(settings).await.expect_err("a failed connection");
    assert_eq!(error.reason(), reason, "{error:?}");
    let texts = texts(&error);
    for secret in
        [settings.password.as_ref().map_or("", Password::reveal), &settings.host, &settings.database, &settings.user]
    {
        assert!(secret.len() < 4 || secret == "postgres" || !texts.contains(secret), "{secret:?} shows in {texts}");
    }
    error
}

async fn text(connection: &Connection, query: &str) -> String {
    connection.query_one(query, &[]).await.unwrap().get(0)
}
