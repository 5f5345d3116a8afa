//! A namespace with an operator, a database with the Friday schema, and the Secret that leads to it.

use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::{Cluster, Operator, TestNamespace, holds, protected_database, table_guard, wait_for};
use pgrail_testing::{Client, Database, Server};
use serde_json::Value;

/// users -> leads -> conversations -> messages and users -> analytics, all ON DELETE CASCADE.
const SCHEMA: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE TABLE leads (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE TABLE conversations (id int PRIMARY KEY, lead_id int NOT NULL REFERENCES leads ON DELETE CASCADE);
    CREATE TABLE messages (id int PRIMARY KEY, conversation_id int NOT NULL REFERENCES conversations ON DELETE CASCADE);
    CREATE TABLE analytics (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE INDEX ON leads (user_id);
    CREATE INDEX ON conversations (lead_id);
    CREATE INDEX ON messages (conversation_id);
    CREATE INDEX ON analytics (user_id);
    INSERT INTO users SELECT id, 'user ' || id FROM generate_series(1, 500) id;
    INSERT INTO leads SELECT id, id % 500 + 1 FROM generate_series(1, 5000) id;
    INSERT INTO conversations SELECT id, id % 5000 + 1 FROM generate_series(1, 10000) id;
    INSERT INTO messages SELECT id, id % 10000 + 1 FROM generate_series(1, 20000) id;
    INSERT INTO analytics SELECT id, id % 500 + 1 FROM generate_series(1, 5000) id;
    ANALYZE";

pub(crate) struct Fixture {
    pub(crate) namespace: TestNamespace,
    pub(crate) operator: Operator,
    pub(crate) database: Database,
    /// The application, as it were.
    pub(crate) app: Client,
}

impl Fixture {
    /// Everything there, nothing declared yet but the Secret `shop-login`.
    pub(crate) async fn new(server: &Server, name: &str) -> Self {
        Self::with_options(server, name, &[]).await
    }

    /// As [`Self::new`], with more options of the operator.
    pub(crate) async fn with_options(server: &Server, name: &str, options: &[&str]) -> Self {
        let database = server.database(name).await;
        let app = database.connect().await;
        app.batch_execute(SCHEMA).await.unwrap();
        let namespace = Cluster::connect().await.namespace(name).await;
        namespace.secret("shop-login", &[("uri", &database.uri)]).await;
        let operator = Operator::start_with(&namespace, "test", options).await;
        Self { namespace, operator, database, app }
    }

    /// With the `ProtectedDatabase` `shop` ready.
    pub(crate) async fn with_database(server: &Server, name: &str) -> Self {
        Self::new(server, name).await.database_ready().await
    }

    /// Declares the `ProtectedDatabase` `shop` and waits until it is ready.
    pub(crate) async fn database_ready(self) -> Self {
        let fixture = self;
        fixture.namespace.apply::<ProtectedDatabase>(&protected_database()).await;
        wait_for::<ProtectedDatabase>(&fixture.namespace, "shop", "the database is ready", |database| {
            holds(database, "Ready", "True", "AsDeclared")
        })
        .await;
        fixture
    }

    /// With the `TableGuard` `core` on `users` enforced as well.
    pub(crate) async fn with_guard(server: &Server, name: &str) -> Self {
        let fixture = Self::with_database(server, name).await;
        fixture.guard(&table_guard(&["users"]), "Enforced", "True", "Verified").await;
        fixture
    }

    /// Applies a guard and waits for one of its conditions.
    pub(crate) async fn guard(&self, manifest: &Value, kind: &str, status: &str, reason: &str) -> TableGuard {
        self.namespace.apply::<TableGuard>(manifest).await;
        let name = manifest["metadata"]["name"].as_str().unwrap();
        self.guard_until(name, kind, status, reason).await
    }

    /// Waits for a condition of a guard.
    pub(crate) async fn guard_until(&self, name: &str, kind: &str, status: &str, reason: &str) -> TableGuard {
        let what = format!("{name} has {kind}={status}, reason {reason}");
        wait_for(&self.namespace, name, &what, |guard: &TableGuard| holds(guard, kind, status, reason)).await
    }

    pub(crate) async fn finish(self) {
        self.operator.kill().await;
        self.database.finish().await;
        self.namespace.finish().await;
    }
}

/// SQLSTATE of a statement that must fail.
pub(crate) async fn refused(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

pub(crate) async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}
