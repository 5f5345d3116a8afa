//! Partitioned tables at every level, inheritance, and cross-partition updates.
#![allow(missing_docs)]
mod common;

use common::{count, guard, install, limited, reconcile, remove, run, stopped, verify};
use pgrail_guard::{GuardSpec, Protect, TableLimits, TableState};
use pgrail_testing::{Client, Database, for_each_server};

const ORDERS: &[(&str, &str)] = &[("public", "orders")];

/// orders by year, the second by month below; items partitioned by hash; notes with SET NULL.
const SCHEMA: &str = "
CREATE TABLE orders (id int, year int, month int, PRIMARY KEY (id, year, month)) PARTITION BY LIST (year);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);
CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN (2) PARTITION BY LIST (month);
CREATE TABLE orders_2_1 PARTITION OF orders_2 FOR VALUES IN (1);
CREATE TABLE orders_2_2 PARTITION OF orders_2 FOR VALUES IN (2);
CREATE TABLE items (id int, order_id int, year int, month int,
  FOREIGN KEY (order_id, year, month) REFERENCES orders ON DELETE CASCADE) PARTITION BY HASH (id);
CREATE TABLE items_0 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE items_1 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO orders SELECT i, 1, 1 FROM generate_series(1, 100) i;
INSERT INTO orders SELECT i, 2, i % 2 + 1 FROM generate_series(1, 100) i;
INSERT INTO items SELECT i, (i - 1) / 3 + 1, 1, 1 FROM generate_series(1, 300) i;
CREATE INDEX ON items (order_id, year, month);";

async fn set_up(database: &Database, rows: i64, cascade: i64) -> (Client, GuardSpec) {
    let mut client = database.connect().await;
    run(&client, SCHEMA).await;
    let spec = limited("shop/orders", ORDERS, rows, cascade);
    install(&mut client, &spec).await;
    (client, spec)
}

#[tokio::test]
async fn a_partitioned_root_is_guarded_at_every_level() {
    for_each_server(async |server| {
        let database = server.database("partitions").await;
        let (client, spec) = set_up(&database, 10, 20).await;
        let app = database.connect().await;
        for table in ["orders", "orders_1", "orders_2", "orders_2_1"] {
            stopped(&app, "PGR01", &format!("DELETE FROM {table} WHERE id <= 50")).await;
            stopped(&app, "PGR02", &format!("TRUNCATE {table} CASCADE")).await;
        }
        run(&app, "BEGIN; DELETE FROM orders WHERE year = 2 AND id <= 10; ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM orders WHERE year = 2 AND id <= 11").await;
        // Together from two leaves.
        stopped(&app, "PGR01", "BEGIN; DELETE FROM orders_2_1 WHERE id <= 12; DELETE FROM orders_2_2 WHERE id <= 12").await;
        // 3 items with every order of the first year: 6 orders take 18, 7 take 21.
        run(&app, "BEGIN; DELETE FROM orders WHERE year = 1 AND id <= 6; ROLLBACK").await;
        let error = stopped(&app, "PGR01", "DELETE FROM orders WHERE year = 1 AND id <= 7").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        assert!(error.detail().unwrap_or_default().contains("public.orders -> public.items"), "{error:?}");
        run(&app, "DELETE FROM items WHERE id > 100; TRUNCATE items_0; DELETE FROM items_1").await;
        assert_eq!(count(&client, "orders").await, 200);
        // A new partition is guarded at once but for TRUNCATE of itself, which takes a reconcile.
        run(&client, "CREATE TABLE orders_3 PARTITION OF orders FOR VALUES IN (3); INSERT INTO orders SELECT i, 3, 1 FROM generate_series(1, 50) i").await;
        stopped(&app, "PGR01", "DELETE FROM orders_3").await;
        stopped(&app, "PGR01", "DELETE FROM orders WHERE year = 3").await;
        run(&app, "BEGIN; DELETE FROM orders WHERE year = 3 AND id <= 10; ROLLBACK").await;
        let mut client = client;
        install(&mut client, &spec).await;
        stopped(&app, "PGR02", "TRUNCATE orders_3 CASCADE").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_update_that_moves_rows_is_no_delete() {
    for_each_server(async |server| {
        let database = server.database("moves").await;
        let (client, _) = set_up(&database, 10, 20).await;
        let app = database.connect().await;
        run(&client, "TRUNCATE items").await;
        run(&app, "UPDATE orders SET year = 2, month = 1, id = id + 1000 WHERE year = 1").await;
        run(&app, "UPDATE orders SET month = 3 - month WHERE year = 2").await;
        run(&app, "BEGIN; UPDATE orders SET month = 3 - month WHERE year = 2; DELETE FROM orders WHERE id <= 10; ROLLBACK").await;
        assert_eq!(count(&app, "orders").await, 200);
        stopped(&app, "PGR01", "BEGIN; UPDATE orders SET month = 3 - month WHERE year = 2; DELETE FROM orders WHERE id <= 11").await;
        // Rows that were inserted do not make a delete a move.
        stopped(&app, "PGR01", "BEGIN; INSERT INTO orders SELECT i, 1, 1 FROM generate_series(5000, 9000) i; DELETE FROM orders WHERE id <= 11").await;
        stopped(&app, "PGR01", "DO $$ BEGIN INSERT INTO orders SELECT i, 1, 1 FROM generate_series(5000, 9000) i; DELETE FROM orders WHERE id <= 11; END $$").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn attach_and_detach_work_and_end_in_the_same_guard() {
    for_each_server(async |server| {
        let database = server.database("attach").await;
        let (client, _) = set_up(&database, 10, 20).await;
        let mut client = client;
        let spec = GuardSpec { limits: TableLimits { max_rows: 10, max_cascade_rows: 20, ..TableLimits::default() }, ..guard("shop/orders", &[("public", "orders*")]) };
        install(&mut client, &spec).await;
        assert_eq!(verify(&client, &spec).await.tables().len(), 1);
        run(&client, "CREATE TABLE orders_9 (id int NOT NULL, year int NOT NULL, month int NOT NULL); INSERT INTO orders_9 SELECT i, 9, 1 FROM generate_series(1, 40) i").await;
        install(&mut client, &spec).await;
        assert_eq!(verify(&client, &spec).await.tables().len(), 2);
        stopped(&client, "PGR01", "DELETE FROM orders_9").await;
        run(&client, "ALTER TABLE orders ATTACH PARTITION orders_9 FOR VALUES IN (9)").await;
        stopped(&client, "PGR01", "DELETE FROM orders_9").await;
        install(&mut client, &spec).await;
        assert_eq!(verify(&client, &spec).await.tables().len(), 1);
        stopped(&client, "PGR01", "DELETE FROM orders_9").await;
        run(&client, "ALTER TABLE orders DETACH PARTITION orders_9").await;
        install(&mut client, &spec).await;
        stopped(&client, "PGR01", "DELETE FROM orders_9").await;
        // Retention by dropping partitions is free unless asked otherwise.
        run(&client, "DROP TABLE items; DROP TABLE orders_2_1").await;
        reconcile(&mut client, &spec).await;
        assert!(verify(&client, &spec).await.is_empty());
        install(&mut client, &GuardSpec { protect: Protect { drop_partition: true, ..Protect::default() }, ..spec.clone() }).await;
        stopped(&client, "PGR03", "DROP TABLE orders_2_2").await;
        stopped(&client, "PGR03", "DROP TABLE orders_2 CASCADE").await;
        let error = stopped(&client, "PGR03", "ALTER TABLE orders_2 DETACH PARTITION orders_2_2").await;
        assert!(error.message().contains("DETACH of public.orders_2_2") && error.detail().unwrap_or_default().contains("orders"), "{error:?}");
        stopped(&client, "PGR03", "ALTER TABLE orders DETACH PARTITION orders_2").await;
        stopped(&client, "PGR03", "ALTER TABLE orders DETACH PARTITION orders_1; DROP TABLE orders_1").await;
        // Other changes of the tree, and other trees, are free.
        run(&client, "ALTER TABLE orders ADD COLUMN note text; CREATE TABLE others (id int) PARTITION BY LIST (id); CREATE TABLE others_1 PARTITION OF others FOR VALUES IN (1); ALTER TABLE others DETACH PARTITION others_1").await;
        // Our own changes of the parent's triggers are no such drop.
        install(&mut client, &limited("shop/orders", &[("public", "orders*")], 11, 21)).await;
        assert!(remove(&mut client, "shop/orders").await.is_complete());
        run(&client, "DROP TABLE orders CASCADE").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_leaf_can_be_a_root_of_its_own() {
    for_each_server(async |server| {
        let database = server.database("leaf").await;
        let mut client = database.connect().await;
        run(&client, SCHEMA).await;
        let leaf = limited("a/leaf", &[("public", "orders_1")], 5, 9);
        install(&mut client, &leaf).await;
        stopped(&client, "PGR01", "DELETE FROM orders WHERE year = 1 AND id <= 6").await;
        let error = stopped(&client, "PGR01", "DELETE FROM orders_1 WHERE id <= 4").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        run(&client, "BEGIN; DELETE FROM orders WHERE year = 2; ROLLBACK").await;
        // With the whole, at other limits, both hold.
        let all = limited("a/all", ORDERS, 50, 10_000);
        install(&mut client, &all).await;
        install(&mut client, &leaf).await;
        stopped(&client, "PGR01", "DELETE FROM orders WHERE year = 2").await;
        let error = stopped(&client, "PGR01", "DELETE FROM orders WHERE year = 1 AND id <= 4").await;
        assert!(error.detail().unwrap_or_default().contains("a/leaf"), "{error:?}");
        assert!(remove(&mut client, "a/leaf").await.is_complete());
        run(&client, "BEGIN; DELETE FROM orders WHERE year = 1 AND id <= 50; ROLLBACK").await;
        assert!(verify(&client, &all).await.is_empty());
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_disabled_copy_on_a_partition_is_drift() {
    for_each_server(async |server| {
        let database = server.database("clones").await;
        let (mut client, spec) = set_up(&database, 10, 20).await;
        run(&client, "ALTER TABLE orders_2_2 DISABLE TRIGGER USER").await;
        let plan = verify(&client, &spec).await;
        assert_eq!(plan.tables()[0].state, TableState::Drifted);
        assert!(plan.drift().iter().all(|drift| drift.table == "public.orders_2_2"), "{:?}", plan.drift());
        install(&mut client, &spec).await;
        stopped(&client, "PGR01", "DELETE FROM orders_2_2").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn inheritance_children_are_part_of_their_parent() {
    for_each_server(async |server| {
        let database = server.database("inherit").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE people (id int PRIMARY KEY); CREATE TABLE staff (PRIMARY KEY (id)) INHERITS (people);
             CREATE TABLE badges (staff_id int REFERENCES staff ON DELETE CASCADE);
             INSERT INTO people SELECT generate_series(1, 50); INSERT INTO staff SELECT generate_series(101, 150);
             INSERT INTO badges SELECT s.id FROM staff s, generate_series(1, 4)",
        )
        .await;
        install(&mut client, &limited("a/b", &[("public", "people")], 10, 8)).await;
        stopped(&client, "PGR01", "DELETE FROM people WHERE id <= 11").await;
        stopped(&client, "PGR01", "DELETE FROM ONLY people").await;
        stopped(&client, "PGR01", "BEGIN; DELETE FROM people WHERE id <= 9; DELETE FROM people WHERE id IN (101, 102)")
            .await;
        let error = stopped(&client, "PGR01", "DELETE FROM staff WHERE id <= 103").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        stopped(&client, "PGR02", "TRUNCATE staff CASCADE").await;
        stopped(&client, "PGR02", "TRUNCATE ONLY people").await;
        run(&client, "DELETE FROM people WHERE id <= 8; DELETE FROM badges").await;
        database.finish().await;
    })
    .await;
}
