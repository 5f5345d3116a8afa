//! What a plan runs, as text: a change of it should be seen in review.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::format_collect)]
mod common;

use common::{FRIDAY, run, verify};
use pgrail_guard::{GuardSpec, StepKind, TableLimits, Window, counters};
use pgrail_testing::server;

async fn numbered(spec: &GuardSpec, schema: &str) -> String {
    let database = server(15).database("snapshot").await;
    let client = database.connect().await;
    run(&client, schema).await;
    let observed = pgrail_guard::observe(&client).await.expect("observe");
    let plan = verify(&client, spec).await;
    // The fixed part is in .sql files already.
    let mut text: String = plan
        .steps()
        .iter()
        .zip(plan.sql())
        .filter(|(step, _)| matches!(step.kind, StepKind::Routines | StepKind::Triggers))
        .map(|(step, sql)| {
            format!("-- {:?} {}\n{sql}\n\n", step.kind, step.table.as_ref().map_or("", |(_, label)| label))
        })
        .collect();
    // What is recorded repeats what is run.
    text = text.lines().filter(|line| !line.starts_with("SELECT pgrail.record_")).collect::<Vec<_>>().join("\n");
    let mut oids: Vec<_> = observed.catalog.tables().map(|table| (table.oid, table.name.clone())).collect();
    oids.sort_by_key(|(oid, _)| std::cmp::Reverse(*oid));
    for (oid, name) in oids {
        text = text.replace(&oid.to_string(), &format!("<{name}>"));
    }
    drop(client);
    database.finish().await;
    text
}

#[tokio::test]
async fn a_guard_on_ordinary_tables() {
    insta::assert_snapshot!(numbered(&common::guard("shop/core", &[("public", "users")]), FRIDAY).await);
}

#[tokio::test]
async fn a_guard_with_everything_on_a_partitioned_table() {
    let limits = TableLimits {
        max_rows: 10,
        max_cascade_rows: 20,
        max_transaction_rows: Some(100),
        max_updated_rows: Some(50),
        window: Some(Window { duration: 3600, max_rows: Some(1000), max_cascade_rows: Some(20_000) }),
    };
    let spec = GuardSpec { limits, ..common::guard("shop/orders", &[("public", "orders")]) };
    let schema = "CREATE TABLE orders (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (1) TO (100);
        CREATE TABLE items (order_id int REFERENCES orders ON DELETE CASCADE);
        CREATE TABLE marks (order_id int REFERENCES orders ON DELETE SET NULL)";
    insta::assert_snapshot!(numbered(&spec, schema).await);
}

#[tokio::test]
async fn a_crash_that_advances_a_counter_is_no_attempt() {
    pgrail_testing::for_each_server(async |server| {
        let database = server.database("crash").await;
        let mut client = common::friday(&database, 20).await;
        common::install(&mut client, &common::limited("a/b", &[("public", "users")], 3, 1000)).await;
        let blocked = async |client: &pgrail_testing::Client| counters(client).await.expect("counters")[0].blocked_attempts;
        common::stopped(&client, "PGR01", "DELETE FROM users").await;
        assert_eq!(blocked(&client).await, 1);
        // What a crash leaves behind: another start, and a sequence that is ahead.
        let crash = "SELECT pgrail.write_document('counters', pgrail.document('counters') || jsonb_build_object('server_start', now() - interval '1 hour')); SELECT setval('pgrail.blocked_1', 33)";
        run(&client, crash).await;
        assert_eq!(blocked(&client).await, 1);
        assert_eq!(blocked(&client).await, 1);
        common::stopped(&client, "PGR01", "DELETE FROM users").await;
        assert_eq!(verify(&client, &common::limited("a/b", &[("public", "users")], 3, 1000)).await.tables()[0].blocked_attempts, 2);
        assert_eq!(blocked(&client).await, 2);
        database.finish().await;
    })
    .await;
}
