//! Reading the catalog while other sessions create and drop.
#![allow(missing_docs)]
mod common;

use common::run;
use pgrail_guard::catalog;
use pgrail_testing::for_each_server;

/// Functions such as `has_table_privilege` see what was dropped after the snapshot of the query, and return NULL.
#[tokio::test]
async fn a_table_that_is_dropped_meanwhile_does_not_fail_the_catalog() {
    for_each_server(async |server| {
        let database = server.database("dropped_meanwhile").await;
        let client = database.connect().await;
        run(&client, "CREATE TABLE kept (id int); CREATE TABLE dropped (id int)").await;
        run(&client, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await;
        run(&database.connect().await, "DROP TABLE dropped").await;
        let read = catalog::read(&client).await.expect("the catalog");
        assert!(read.table_named("public", "kept").is_some());
        database.finish().await;
    })
    .await;
}
