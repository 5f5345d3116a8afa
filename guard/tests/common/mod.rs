//! What the tests of the engine share.
#![allow(dead_code, clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod capture;
pub mod rehearse;

use std::time::{Duration, Instant};

use pgrail_guard::{
    Applied, ClusterId, GuardName, GuardSpec, Plan, TableLimits, TableSelector, TableState, apply, observe, plan,
    plan_removal,
};
use pgrail_testing::{Client, Database};
use tokio_postgres::error::DbError;

/// users -> leads -> conversations -> messages, users -> analytics.
pub const FRIDAY: &str = "
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE leads (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
CREATE TABLE conversations (id int PRIMARY KEY, lead_id int REFERENCES leads ON DELETE CASCADE);
CREATE TABLE messages (id int PRIMARY KEY, conversation_id int REFERENCES conversations ON DELETE CASCADE);
CREATE TABLE analytics (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
CREATE INDEX ON leads (user_id); CREATE INDEX ON conversations (lead_id);
CREATE INDEX ON messages (conversation_id); CREATE INDEX ON analytics (user_id);";

/// Each user has 2 leads, 10 conversations and 100 messages, and 5 rows of analytics.
pub fn friday_rows(users: i32) -> String {
    format!(
        "INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, {users}) i;
         INSERT INTO leads SELECT i, (i - 1) / 2 + 1 FROM generate_series(1, {users} * 2) i;
         INSERT INTO conversations SELECT i, (i - 1) / 5 + 1 FROM generate_series(1, {users} * 10) i;
         INSERT INTO messages SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, {users} * 100) i;
         INSERT INTO analytics SELECT i, (i - 1) / 5 + 1 FROM generate_series(1, {users} * 5) i;"
    )
}

pub fn guard(name: &str, tables: &[(&str, &str)]) -> GuardSpec {
    let selectors = tables.iter().map(|(schema, table)| TableSelector::table(*schema, *table).unwrap()).collect();
    GuardSpec::new(GuardName::new(name).unwrap(), ClusterId::local(), selectors)
}

pub fn limited(name: &str, tables: &[(&str, &str)], max_rows: i64, max_cascade_rows: i64) -> GuardSpec {
    GuardSpec { limits: TableLimits { max_rows, max_cascade_rows, ..TableLimits::default() }, ..guard(name, tables) }
}

/// Observes, plans, applies.
pub async fn reconcile(client: &mut Client, spec: &GuardSpec) -> (Plan, Applied) {
    let observed = observe(client).await.expect("observe");
    let plan = plan(spec, &observed).expect("plan");
    let applied = apply(client.as_mut(), &plan).await.expect("apply");
    (plan, applied)
}

/// Reconciles and insists on the result: nothing left to do, every table enforced.
pub async fn install(client: &mut Client, spec: &GuardSpec) {
    let (first, applied) = reconcile(client, spec).await;
    assert!(applied.is_complete(), "{:?}\n{}", applied.unfinished(), first.sql().join("\n-- next\n"));
    let second = verify(client, spec).await;
    assert!(
        second.is_empty(),
        "a second plan is not empty: {:?}\n{}",
        second.drift(),
        second.sql().join("\n-- next\n")
    );
    assert!(!second.tables().is_empty());
    for table in second.tables() {
        assert_eq!(table.state, TableState::Enforced, "{table:?}");
    }
}

pub async fn verify(client: &Client, spec: &GuardSpec) -> Plan {
    plan(spec, &observe(client).await.expect("observe")).expect("plan")
}

pub async fn remove(client: &mut Client, name: &str) -> Applied {
    let plan = plan_removal(&GuardName::new(name).unwrap(), &observe(client).await.expect("observe"));
    apply(client.as_mut(), &plan).await.expect("apply")
}

pub async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

pub async fn refused(client: &Client, sql: &str) -> DbError {
    let started = Instant::now();
    let error = client.batch_execute(sql).await.expect_err(&format!("passed, but should have been stopped: {sql}"));
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}: {sql}", started.elapsed());
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
}

/// The statement is stopped with this code, and a transaction it left open is ended.
pub async fn stopped(client: &Client, code: &str, sql: &str) -> DbError {
    let error = refused(client, sql).await;
    assert_eq!(error.code().code(), code, "{sql}: {error:?}");
    client.batch_execute("ROLLBACK").await.expect("rollback");
    error
}

pub async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.expect("count").get(0)
}

pub async fn friday(database: &Database, users: i32) -> Client {
    let client = database.connect().await;
    run(&client, FRIDAY).await;
    run(&client, &friday_rows(users)).await;
    client
}
