//! Many small databases on a few servers, and the objects that protect them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::TestNamespace;
use pgrail_testing::{Client, Server, connect};
use serde_json::{Value, json};

use crate::Result;

/// Guarded tables of each database.
pub(super) const TABLES: usize = 10;
/// Objects applied at the same time.
const APPLIED_AT_ONCE: usize = 8;
/// How often an object that was applied is asked for.
const POLL: Duration = Duration::from_millis(20);

/// Databases with the same tables, in turn on each server.
pub(super) struct Fleet {
    servers: Vec<Server>,
    admins: Vec<Client>,
    namespace: TestNamespace,
    /// How many there are now.
    count: usize,
}

/// The object of a database, and of its guard.
pub(super) fn name(number: usize) -> String {
    format!("database-{number}")
}

impl Fleet {
    /// No database yet, but the template of them.
    pub(super) async fn new(servers: &[Server], namespace: TestNamespace) -> Result<Self> {
        let mut admins = Vec::new();
        for server in servers {
            let admin = connect(&server.uri).await;
            // Vacuuming hundreds of databases would be a load of its own.
            admin.batch_execute("ALTER SYSTEM SET autovacuum = off").await?;
            admin.batch_execute("SELECT pg_reload_conf()").await?;
            admin.batch_execute("CREATE DATABASE scale_template").await?;
            connect(&server.uri_of("scale_template")).await.batch_execute(&schema()).await?;
            admins.push(admin);
        }
        Ok(Self { servers: servers.to_vec(), admins, namespace, count: 0 })
    }

    pub(super) fn namespace(&self) -> &TestNamespace {
        &self.namespace
    }

    /// The superuser's connection to each server.
    pub(super) fn admins(&self) -> &[Client] {
        &self.admins
    }

    /// Creates databases, and the Secrets that lead to them, until there are so many.
    pub(super) async fn create(&mut self, count: usize) -> Result<()> {
        let (from, servers) = (self.count, self.servers.len());
        let each = self.admins.iter().enumerate().map(async |(at, admin)| {
            for number in (from..count).filter(|number| number % servers == at) {
                admin.batch_execute(&create(number)).await?;
            }
            Ok::<(), tokio_postgres::Error>(())
        });
        futures::future::try_join_all(each).await?;
        let secrets = (from..count).map(async |number| {
            let uri = self.servers[number % servers].uri_of(&format!("scale_{number}"));
            self.namespace.secret(&name(number), &[("uri", &uri)]).await;
        });
        stream::iter(secrets).buffer_unordered(APPLIED_AT_ONCE).collect::<()>().await;
        self.count = count.max(from);
        Ok(())
    }

    /// Replaces every database by a new one, and removes the objects without asking the operator, which must not run.
    pub(super) async fn reset(&mut self) -> Result<()> {
        let (guards, databases) = (self.namespace.api::<TableGuard>(), self.namespace.api::<ProtectedDatabase>());
        let without_finalizer = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let listed = guards.list_metadata(&kube::api::ListParams::default()).await?;
        stream::iter(listed.items.into_iter().filter_map(|guard| guard.metadata.name).map(Ok))
            .try_for_each_concurrent(APPLIED_AT_ONCE, async |guard: String| {
                guards.patch(&guard, &kube::api::PatchParams::default(), &without_finalizer).await.map(drop)
            })
            .await?;
        let everything = kube::api::ListParams::default();
        guards.delete_collection(&kube::api::DeleteParams::default(), &everything).await?;
        databases.delete_collection(&kube::api::DeleteParams::default(), &everything).await?;
        let (count, servers) = (self.count, self.servers.len());
        let each = self.admins.iter().enumerate().map(async |(at, admin)| {
            for number in (0..count).filter(|number| number % servers == at) {
                admin.batch_execute(&format!("DROP DATABASE scale_{number} WITH (FORCE)")).await?;
                admin.batch_execute(&create(number)).await?;
            }
            Ok::<(), tokio_postgres::Error>(())
        });
        futures::future::try_join_all(each).await?;
        Ok(())
    }

    /// Declares databases and a guard over all tables of each, as `kubectl apply` of all of them does.
    pub(super) async fn declare(&self, numbers: impl Iterator<Item = usize>) {
        let applied = numbers.map(async |number| {
            self.namespace.apply::<ProtectedDatabase>(&database(number)).await;
            self.namespace.apply::<TableGuard>(&guard(&name(number), number, "t*")).await;
        });
        stream::iter(applied).buffer_unordered(APPLIED_AT_ONCE).collect::<()>().await;
    }

    /// Declares one more guard, over one table, and waits until it is enforced. Answers how long that took.
    pub(super) async fn guard_one_more(&self, number: usize, prefix: &str) -> Duration {
        let name = format!("{prefix}-{number}");
        let started = std::time::Instant::now();
        self.namespace.apply::<TableGuard>(&guard(&name, number, "t1")).await;
        loop {
            let found = self.namespace.api::<TableGuard>().get(&name).await;
            if found.is_ok_and(|guard| pgrail_e2e::holds(&guard, "Enforced", "True", "Verified")) {
                return started.elapsed();
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Copies files: the log of a thousand databases would take as much room again.
fn create(number: usize) -> String {
    format!("CREATE DATABASE scale_{number} TEMPLATE scale_template STRATEGY file_copy")
}

fn database(number: usize) -> Value {
    json!({"metadata": {"name": name(number)}, "spec": {"connection": {"secretRef": {"name": name(number)}}}})
}

fn guard(called: &str, number: usize, tables: &str) -> Value {
    let tables = [json!({"schema": "public", "name": tables})];
    json!({"metadata": {"name": called}, "spec": {"databaseRef": {"name": name(number)}, "tables": tables}})
}

/// The odd tables reference the even ones.
fn schema() -> String {
    format!(
        "DO $$ BEGIN FOR i IN 1..{TABLES} LOOP
           EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, r int)', i);
           IF i % 2 = 1 AND i > 1 THEN EXECUTE format('ALTER TABLE t%s ADD FOREIGN KEY (r) REFERENCES t%s ON DELETE CASCADE', i, i - 1); END IF;
         END LOOP; END $$; ANALYZE"
    )
}
