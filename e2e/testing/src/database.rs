//! A database per test.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, thread};

use tokio::task::JoinHandle;
use tokio_postgres::{Config, NoTls};

use crate::Server;

/// A fresh database, dropped with everything in it (and every session on it) at the end of the test.
pub struct Database {
    /// Major version of its server.
    pub major: u32,
    /// URI of the database for the superuser, with the password.
    pub uri: String,
    /// Name of the database.
    pub name: String,
    server_uri: String,
    finished: bool,
}

/// Shows no password.
impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Database({} on PostgreSQL {})", self.name, self.major)
    }
}

impl Server {
    /// Creates a database for one test; `prefix` (lower case letters, digits, `_`) says whose it is.
    pub async fn database(&self, prefix: &str) -> Database {
        let name = fresh_name(prefix);
        let client = connect(&self.uri).await;
        client
            .batch_execute(&format!("CREATE DATABASE \"{name}\""))
            .await
            .unwrap_or_else(|error| panic!("creating the database {name} on PostgreSQL {}: {error}", self.major));
        Database { major: self.major, uri: self.uri_of(&name), name, server_uri: self.uri.clone(), finished: false }
    }

    /// A name that no other test run uses, for a role (roles belong to the server, not to a database).
    pub fn role_name(&self, prefix: &str) -> String {
        fresh_name(prefix)
    }

    /// URI of another database of this server, for the superuser.
    pub fn uri_of(&self, database: &str) -> String {
        let authority = self.uri.rsplit_once('/').map_or(self.uri.as_str(), |(authority, _)| authority);
        format!("{authority}/{database}")
    }
}

impl Database {
    /// A connection as the superuser.
    pub async fn connect(&self) -> Client {
        connect(&self.uri).await
    }

    /// A connection as another role, whose password is `password`.
    pub async fn connect_as(&self, role: &str, password: &str) -> Client {
        connect(&self.uri_for(role, password)).await
    }

    /// URI of the database for another role. Both parts are taken as they are: letters and digits, please.
    pub fn uri_for(&self, role: &str, password: &str) -> String {
        let address = self.uri.rsplit_once('@').map_or(self.uri.as_str(), |(_, address)| address);
        format!("postgres://{role}:{password}@{address}")
    }

    /// Drops the database now, with every session on it. Without it, that happens when the value goes out of scope,
    /// which blocks the thread for it.
    pub async fn finish(mut self) {
        self.finished = true;
        drop_database(&self.server_uri, &self.name).await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (uri, name) = (self.server_uri.clone(), self.name.clone());
        // A thread with a runtime of its own: the test's runtime may be shutting down, or be this very thread.
        let worker = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime to drop the database in").block_on(drop_database(&uri, &name));
        });
        let dropped = worker.join().is_ok();
        assert!(dropped || thread::panicking(), "the database {} could not be dropped", self.name);
    }
}

async fn drop_database(server_uri: &str, name: &str) {
    let client = connect(server_uri).await;
    client
        .batch_execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"))
        .await
        .unwrap_or_else(|error| panic!("dropping the database {name}: {error}"));
}

/// A connection whose background task ends with it.
pub struct Client {
    client: tokio_postgres::Client,
    driver: JoinHandle<()>,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.client
    }
}

impl AsMut<tokio_postgres::Client> for Client {
    fn as_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects without TLS. Panics when that fails, without the password.
pub async fn connect(uri: &str) -> Client {
    let config: Config = uri.parse().unwrap_or_else(|_| panic!("a test server's URI does not parse"));
    let address = format!("{:?} port {:?} database {:?}", config.get_hosts(), config.get_ports(), config.get_dbname());
    let (client, connection) = config
        .connect(NoTls)
        .await
        .unwrap_or_else(|error| panic!("connecting to {address} as {:?}: {error}", config.get_user()));
    let driver = tokio::spawn(async move {
        // How a session ends is for the statements on it to say.
        let _ = connection.await;
    });
    Client { client, driver }
}

fn fresh_name(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    assert!(
        prefix.len() <= 24
            && prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
        "a prefix of lower case letters, digits and underscores, at most 24: {prefix:?}"
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    format!("{prefix}_{}_{}_{}", std::process::id(), now % 1_000_000_000, COUNTER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use crate::for_each_server;

    #[tokio::test]
    async fn a_database_is_gone_after_finish_and_after_drop() {
        for_each_server(async |server| {
            let admin = super::connect(&server.uri).await;
            let finished = server.database("testing").await;
            let dropped = server.database("testing").await;
            let names = vec![finished.name.clone(), dropped.name.clone()];
            // An open session must not keep it alive.
            let held = dropped.connect().await;
            let count = "SELECT count(*) FROM pg_database WHERE datname = ANY($1)";
            assert_eq!(admin.query_one(count, &[&names]).await.unwrap().get::<_, i64>(0), 2);
            finished.finish().await;
            drop(dropped);
            assert_eq!(admin.query_one(count, &[&names]).await.unwrap().get::<_, i64>(0), 0);
            drop(held);
        })
        .await;
    }

    #[tokio::test]
    async fn the_server_is_the_version_it_says() {
        for_each_server(async |server| {
            let client = super::connect(&server.uri).await;
            let number: String = client.query_one("SHOW server_version_num", &[]).await.unwrap().get(0);
            assert_eq!(number.parse::<u32>().unwrap() / 10_000, server.major);
            let settings = "SELECT current_setting('track_counts') || current_setting('wal_level') || current_setting('max_connections')";
            assert_eq!(client.query_one(settings, &[]).await.unwrap().get::<_, String>(0), "onlogical200");
        })
        .await;
    }
}
