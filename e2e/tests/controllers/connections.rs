//! The operator's connections: few per server, however many of its databases are protected.

use futures::future::join_all;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::{Cluster, Operator, TestNamespace, eventually, eventually_within, holds};
use pgrail_testing::{OwnServer, Server, connect};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const DATABASES: usize = 300;
/// A bound against hanging: all databases share two connections.
const LONG: Duration = Duration::from_mins(10);
/// Between two logins of the application.
const PAUSE: Duration = Duration::from_millis(20);
/// 5 % of the server's 50.
const BUDGET: i64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_databases_of_one_server_leave_its_connections_to_the_application() {
    let own = OwnServer::start(18, &["max_connections=50"]).await;
    let superuser = connect(&own.server.uri).await;
    superuser.batch_execute("CREATE DATABASE shop").await.unwrap();
    let shop = connect(&own.server.uri_of("shop")).await;
    shop.batch_execute("CREATE TABLE users (id int PRIMARY KEY)").await.unwrap();
    drop(shop);
    eventually("the template has no sessions", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'";
        let sessions: i64 = superuser.query_one(sql, &[]).await.unwrap().get(0);
        (sessions == 0).then_some(())
    })
    .await;
    for number in 0..DATABASES {
        let sql = format!("CREATE DATABASE shop_{number} TEMPLATE shop STRATEGY file_copy");
        superuser.batch_execute(&sql).await.unwrap();
    }
    let namespace = Cluster::connect().await.namespace("budget").await;
    declare(&namespace, &own.server).await;

    let application = Application::start(&own.server);
    let operator = Operator::start(&namespace).await;
    eventually_within(LONG, "every guard is enforced", async || {
        let guards = namespace.api::<TableGuard>().list(&kube::api::ListParams::default()).await.unwrap();
        let enforced = guards.items.iter().filter(|guard| holds(*guard, "Enforced", "True", "Verified")).count();
        (enforced == DATABASES).then_some(())
    })
    .await;
    let (logins, most) = application.stop().await;
    // One that is closing may still be listed beside the one that takes its place.
    assert!(most <= BUDGET + 1, "the operator had {most} connections at once");
    assert!(logins > 0, "the application logged in");
    operator.kill().await;
    namespace.finish().await;
}

async fn declare(namespace: &TestNamespace, server: &Server) {
    for chunk in (0..DATABASES).collect::<Vec<_>>().chunks(50) {
        join_all(chunk.iter().map(|number| async move {
            let (login, name) = (format!("login-{number}"), format!("shop-{number}"));
            namespace.secret(&login, &[("uri", &server.uri_of(&format!("shop_{number}")))]).await;
            let database = json!({"metadata": {"name": name},
                "spec": {"connection": {"secretRef": {"name": login}}, "checkInterval": "30s"}});
            namespace.apply::<ProtectedDatabase>(&database).await;
            let guard = json!({"metadata": {"name": name},
                "spec": {"databaseRef": {"name": name}, "tables": [{"schema": "public", "name": "users"}]}});
            namespace.apply::<TableGuard>(&guard).await;
        }))
        .await;
    }
}

/// Logs in again and again, and counts what the operator has open meanwhile.
struct Application {
    stop: Arc<AtomicBool>,
    logins: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<i64>,
}

impl Application {
    fn start(server: &Server) -> Self {
        let (stop, logins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (uri, stopped, counted) = (server.uri.clone(), Arc::clone(&stop), Arc::clone(&logins));
        let task = tokio::spawn(async move {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                // Fails the test where the server has no connection left.
                let client = connect(&uri).await;
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgrail%'";
                most = most.max(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0));
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            most
        });
        Self { stop, logins, task }
    }

    async fn stop(self) -> (usize, i64) {
        self.stop.store(true, Ordering::Relaxed);
        let most = self.task.await.expect("the application could always log in");
        (self.logins.load(Ordering::Relaxed), most)
    }
}
