//! On a real server, since what counts is what the server keeps.

use super::*;
use crate::kubernetes::line::Cause;
use crate::kubernetes::places::with_cause;
use pgrail_testing::{Database, Server};
use serde_json::json;
use std::future::pending;
use std::pin::Pin;
use tokio::time::timeout;

/// A reconcile that has not ended after this time waits.
const SOON: Duration = Duration::from_millis(500);

fn databases() -> Databases {
    databases_with(5)
}

fn databases_with(per_server: usize) -> Databases {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Never asked: the settings are cached already.
    let apiserver = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let limits = Limits { allowed_hosts: AllowedHosts::default(), addresses: AddressPolicy::any(), per_server };
    Databases::new(Client::try_from(apiserver).unwrap(), limits, Timestamp::now)
}

fn declared() -> ProtectedDatabase {
    named("shop")
}

fn named(name: &str) -> ProtectedDatabase {
    serde_json::from_value(json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "ProtectedDatabase",
        "metadata": {"name": name, "namespace": "shop"}, "spec": {"connection": {"secretRef": {"name": "login"}}}}))
    .unwrap()
}

/// As if the Secret had just been read.
async fn cache(databases: &Databases, database: &Database) {
    cache_as("shop", databases, database).await;
}

async fn cache_as(name: &str, databases: &Databases, database: &Database) {
    let settings = pgrail_postgres::parse_uri(&database.uri).unwrap().into_settings(None).unwrap();
    let source = ConnectionSource { settings, ignored_keys: Vec::new(), secret_uid: String::new() };
    let entry = databases.entry(&("shop".to_owned(), name.to_owned()));
    entry.lock().await.source =
        Some(Resolved { declared: declared().spec.connection, source: Arc::new(source), at: Timestamp::now() });
}

async fn pid(session: &Session) -> Result<i32, DatabaseError> {
    let row = session.query_one("SELECT pg_backend_pid()", &[]).await.map_err(|error| DatabaseError::lost(&error))?;
    Ok(row.get(0))
}

async fn lock(session: &Session) -> Result<bool, DatabaseError> {
    let row = session.query_one("SELECT pg_try_advisory_lock(42)", &[]).await;
    Ok(row.map_err(|error| DatabaseError::lost(&error))?.get(0))
}

#[tokio::test]
async fn on_real_servers_a_connection_is_used_again_after_work_that_ended_well() {
    pgrail_testing::for_each_server(async |server| {
        let (databases, database) = (databases(), server.database("kept").await);
        cache(&databases, &database).await;
        let first = databases.with(&declared(), async |session| pid(session).await).await.unwrap();
        let second = databases.with(&declared(), async |session| pid(session).await).await.unwrap();
        assert_eq!(first, second);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn on_real_servers_a_cancelled_reconcile_leaves_no_lock_behind() {
    pgrail_testing::for_each_server(async |server| {
        let (databases, database) = (databases(), server.database("cancelled").await);
        cache(&databases, &database).await;
        let (locked, is_locked) = tokio::sync::oneshot::channel();
        let object = declared();
        let reconcile = databases.with(&object, async |session| {
            assert!(lock(session).await?);
            locked.send(()).unwrap();
            pending::<()>().await;
            Ok::<_, DatabaseError>(())
        });
        tokio::select! {
            _ = reconcile => panic!("it waits for ever"),
            sent = is_locked => sent.unwrap(),
        }
        // Dropped in the middle, as by a timeout. The next one must get the lock, on a connection of its own.
        let other = database.connect().await;
        let free = "SELECT pg_try_advisory_lock(42) AND pg_advisory_unlock(42)";
        while !other.query_one(free, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
        assert!(databases.with(&declared(), async |session| lock(session).await).await.unwrap());
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn on_real_servers_work_that_fails_leaves_no_setting_behind() {
    pgrail_testing::for_each_server(async |server| {
        let (databases, database) = (databases(), server.database("failed").await);
        cache(&databases, &database).await;
        let object = declared();
        let failed = databases.with(&object, async |session| {
            session.batch_execute("SET statement_timeout = 77").await.map_err(|error| DatabaseError::lost(&error))?;
            Err::<(), _>(DatabaseError::busy(1))
        });
        failed.await.unwrap_err();
        let setting = databases.with(&object, async |session| {
            let row = session.query_one("SHOW statement_timeout", &[]).await;
            Ok::<String, DatabaseError>(row.map_err(|error| DatabaseError::lost(&error))?.get(0))
        });
        assert_eq!(setting.await.unwrap(), "0");
        database.finish().await;
    })
    .await;
}

/// `shop` and `other`, two objects of one database, with one connection for both.
async fn two_with_one_connection(server: &Server, label: &str) -> (Databases, Database, [ProtectedDatabase; 2]) {
    let (databases, database) = (databases_with(1), server.database(label).await);
    for name in ["shop", "other"] {
        cache_as(name, &databases, &database).await;
    }
    (databases, database, ["shop", "other"].map(named))
}

/// A reconcile that holds the connection until `end`.
async fn held(
    databases: &Databases,
    object: &ProtectedDatabase,
    end: tokio::sync::oneshot::Receiver<()>,
) -> Result<i32, DatabaseError> {
    let work = async |session: &mut Session| {
        let pid = pid(session).await?;
        end.await.unwrap();
        Ok(pid)
    };
    databases.with(object, work).await
}

async fn waits(reconcile: &mut Pin<Box<impl Future<Output = Result<i32, DatabaseError>>>>) -> bool {
    timeout(SOON, reconcile).await.is_err()
}

#[tokio::test]
async fn on_real_servers_a_reconcile_that_waits_for_the_same_database_gets_its_connection() {
    pgrail_testing::for_each_server(async |server| {
        let (databases, database, [shop, other]) = two_with_one_connection(&server, "handed_on").await;
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(held(&databases, &shop, ended));
        let mut of_other = Box::pin(databases.with(&other, async |session| pid(session).await));
        let mut second = Box::pin(databases.with(&shop, async |session| pid(session).await));
        assert!(waits(&mut first).await && waits(&mut of_other).await && waits(&mut second).await);
        end.send(()).unwrap();
        let first = first.await.unwrap();
        assert_eq!(second.await.unwrap(), first);
        assert_ne!(of_other.await.unwrap(), first);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn on_real_servers_a_reconcile_that_is_cancelled_while_it_waits_keeps_no_connection() {
    pgrail_testing::for_each_server(async |server| {
        let (databases, database, [shop, other]) = two_with_one_connection(&server, "not_handed_on").await;
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(held(&databases, &shop, ended));
        assert!(waits(&mut first).await);
        let mut second = Box::pin(databases.with(&shop, async |session| pid(session).await));
        assert!(waits(&mut second).await);
        end.send(()).unwrap();
        first.await.unwrap();
        // It has the connection now, and never learns of it.
        drop(second);
        timeout(SOON * 20, databases.with(&other, async |session| pid(session).await)).await.unwrap().unwrap();
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn on_real_servers_what_is_declared_does_not_wait_for_the_checks_of_other_databases_behind_one_of_its_own() {
    pgrail_testing::for_each_server(async |server| {
        let (databases, database, [shop, other]) = two_with_one_connection(&server, "declared").await;
        for name in ["third", "fourth", "fifth"] {
            cache_as(name, &databases, &database).await;
        }
        let [third, fourth, fifth] = ["third", "fourth", "fifth"].map(named);
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(held(&databases, &shop, ended));
        assert!(waits(&mut first).await);
        let order = Mutex::new(Vec::new());
        let check = |object, name: &'static str| {
            let (databases, order) = (&databases, &order);
            Box::pin(databases.with(object, async move |session: &mut Session| {
                locked(order).push(name);
                pid(session).await
            }))
        };
        // The first of them has the turn. The others wait in this order, and the last of them holds up what is declared.
        let mut checks =
            vec![check(&other, "other"), check(&third, "third"), check(&fourth, "fourth"), check(&fifth, "fifth")];
        for check in &mut checks {
            assert!(timeout(SOON, check).await.is_err());
        }
        let mut all = Box::pin(futures::future::join(
            futures::future::join_all(checks),
            with_cause(Cause::Declared, check(&fifth, "declared")),
        ));
        assert!(timeout(SOON, &mut all).await.is_err());
        end.send(()).unwrap();
        let (first, (checks, declared)) = futures::join!(first, all);
        assert!(first.is_ok() && declared.is_ok() && checks.iter().all(Result::is_ok));
        assert_eq!(*locked(&order), ["other", "third", "fifth", "declared", "fourth"]);
        database.finish().await;
    })
    .await;
}
