//! Rehearsals: what a statement would do, counted to the row.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]
mod common;

use common::rehearse::*;
use common::{count, friday, guard, install, limited, run, stopped, verify};
use pgrail_guard::rehearse::{Rows, Verdict};
use pgrail_guard::{Allowance, GuardSpec, Mode, Operation, PartialLimits, Request, TableLimits, counters};
use pgrail_testing::for_each_server;

#[tokio::test]
async fn what_passes_is_counted_to_the_row() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 20).await;
        install(&mut client, &limited("a/b", USERS, 5, 1000)).await;
        let session = database.connect().await;
        let before = traces(&client, FRIDAY_TABLES).await;
        let passing = rehearse(&session, "DELETE FROM users WHERE id <= 3").await;
        assert_eq!(passing.verdict, Verdict::Passes);
        assert_eq!(
            tree(&passing.tables),
            "users 3\n  leads 6\n    conversations 30\n      messages 300\n  analytics 15\n"
        );
        assert_eq!((passing.total.deleted, passing.incomplete, passing.other_tables.len()), (354, None, 0));
        // Again on the same session: the counters begin at zero.
        let again = rehearse(&session, "-- a comment\n DELETE FROM users WHERE id BETWEEN 4 AND 8 RETURNING *;").await;
        assert_eq!((again.verdict.clone(), again.total.deleted), (Verdict::Passes, 590));
        // A delete that starts below the root, and one of nothing.
        assert_eq!(
            tree(&rehearse(&session, "DELETE FROM leads WHERE id = 1").await.tables),
            "leads 1\n  conversations 5\n    messages 50\n"
        );
        let nothing = rehearse(&session, "DELETE FROM users WHERE id = -1").await;
        assert_eq!((tree(&nothing.tables).as_str(), nothing.total), ("users 0\n", Rows::default()));
        assert_eq!(traces(&client, FRIDAY_TABLES).await, before);
        assert!(verify(&client, &limited("a/b", USERS, 5, 1000)).await.is_empty());
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_guard_stops_is_counted_to_the_end_and_is_no_attempt() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 30).await;
        let spec = limited("a/b", USERS, 5, 1000);
        install(&mut client, &spec).await;
        let session = database.connect().await;
        let before = traces(&client, FRIDAY_TABLES).await;
        let all = rehearse(&session, "DELETE FROM users").await;
        let Verdict::Stopped(stop) = &all.verdict else { panic!("{all:?}") };
        assert_eq!(stop.code, "PGR01");
        assert!(
            stop.message.contains("maxRows") && stop.detail.contains("Guard: a/b.") && !stop.hint.is_empty(),
            "{stop:?}"
        );
        assert_eq!(
            tree(&all.tables),
            "users 30\n  leads 60\n    conversations 300\n      messages 3000\n  analytics 150\n"
        );
        let text = serde_json::to_value(&all).expect("json");
        assert_eq!((&text["verdict"], &text["stop"]["code"]), (&"Stopped".into(), &"PGR01".into()));
        assert_eq!((all.incomplete, all.counted_as_attempt), (None, false));
        // By the rows of other tables.
        install(&mut client, &limited("a/b", USERS, 5, 200)).await;
        let before_cascade = traces(&client, FRIDAY_TABLES).await;
        let cascade = rehearse(&session, "DELETE FROM users WHERE id <= 4").await;
        assert_eq!((stop_code(&cascade), cascade.total.deleted), ("PGR01", 4 * 118));
        assert_eq!(traces(&client, FRIDAY_TABLES).await, before_cascade);
        install(&mut client, &spec).await;
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, 0);
        // Nothing of it stays with the session: what it really tries is stopped, and counts.
        stopped(&session, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, 1);
        run(&session, "BEGIN; DELETE FROM users WHERE id <= 5; ROLLBACK").await;
        assert_ne!(traces(&client, FRIDAY_TABLES).await, before, "a trace is seen if there is one");
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn limits_per_statement_updates_merges_and_upserts() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 50).await;
        let limits = TableLimits { max_rows: 5, max_cascade_rows: 1000, max_transaction_rows: Some(2000), max_updated_rows: Some(10), window: None };
        install(&mut client, &GuardSpec { limits, ..guard("a/b", USERS) }).await;
        let session = database.connect().await;
        let before = traces(&client, FRIDAY_TABLES).await;
        for (statement, code, expected) in [
            ("UPDATE users SET name = 'x' WHERE id <= 10", "passes", "users 0 updated 10\n"),
            ("UPDATE users SET name = 'x'", "PGR04", "users 0 updated 50\n"),
            ("DELETE FROM users WHERE id <= 5", "passes", "users 5\n  leads 10\n    conversations 50\n      messages 500\n  analytics 25\n"),
            ("DELETE FROM users WHERE id <= 6", "PGR01", "users 6\n  leads 12\n    conversations 60\n      messages 600\n  analytics 30\n"),
            (
                "MERGE INTO users USING generate_series(1, 8) i ON users.id = i WHEN MATCHED AND id > 2 THEN UPDATE SET name = 'y' WHEN MATCHED THEN DELETE",
                "passes",
                "users 2 updated 6\n  leads 4\n    conversations 20\n      messages 200\n  analytics 10\n",
            ),
            ("MERGE INTO users USING generate_series(1, 20) i ON users.id = i WHEN MATCHED THEN DELETE", "PGR01", "users 20\n  leads 40\n    conversations 200\n      messages 2000\n  analytics 100\n"),
            ("INSERT INTO users SELECT i, 'z' FROM generate_series(41, 60) i ON CONFLICT (id) DO UPDATE SET name = 'z'", "passes", "users 0 updated 10 inserted 10\n"),
            ("INSERT INTO users SELECT i, 'z' FROM generate_series(1, 60) i ON CONFLICT (id) DO UPDATE SET name = 'z'", "PGR04", "users 0 updated 50 inserted 10\n"),
            ("WITH gone AS (DELETE FROM analytics WHERE id <= 7 RETURNING *), m AS (DELETE FROM messages WHERE id <= 9) SELECT count(*) FROM gone", "passes", "analytics 7\nmessages 9\n"),
            ("WITH gone AS (DELETE FROM users WHERE id <= 6 RETURNING id) UPDATE analytics SET user_id = NULL WHERE id > 245", "PGR01", "analytics 30 updated 5\nusers 6\n  leads 12\n    conversations 60\n      messages 600\n"),
        ] {
            let rehearsal = rehearse(&session, statement).await;
            assert_eq!((stop_code(&rehearsal), tree(&rehearsal.tables).as_str()), (code, expected), "{statement}: {rehearsal:?}");
            assert_eq!(rehearsal.incomplete, None, "{statement}");
        }
        assert_eq!(traces(&client, FRIDAY_TABLES).await, before);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn partitions_set_null_and_triggers() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE orders (id int, year int, PRIMARY KEY (id, year)) PARTITION BY LIST (year);
             CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1); CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN (2);
             CREATE TABLE items (id int, order_id int, year int, FOREIGN KEY (order_id, year) REFERENCES orders ON DELETE CASCADE) PARTITION BY HASH (id);
             CREATE TABLE items_0 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE items_1 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             CREATE TABLE notes (order_id int, year int, FOREIGN KEY (order_id, year) REFERENCES orders ON DELETE SET NULL);
             CREATE TABLE audit (what text); CREATE TABLE untouched (order_id int, year int, FOREIGN KEY (order_id, year) REFERENCES orders ON DELETE CASCADE);
             INSERT INTO orders SELECT i, i % 2 + 1 FROM generate_series(1, 40) i;
             INSERT INTO items SELECT i, (i - 1) / 3 + 1, ((i - 1) / 3 + 1) % 2 + 1 FROM generate_series(1, 120) i;
             INSERT INTO notes SELECT i, i % 2 + 1 FROM generate_series(1, 40) i;
             CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES ('gone'); RETURN NULL; END $$;
             CREATE TRIGGER record AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION record();
             CREATE TRIGGER asleep AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION record(); ALTER TABLE notes DISABLE TRIGGER asleep",
        )
        .await;
        let unguarded = rehearse(&database.connect().await, "DELETE FROM orders WHERE id <= 8").await;
        let expected = "orders 8\n  items 24\n  notes 0 nulled 8\n";
        assert_eq!(tree(&unguarded.tables), expected);
        assert_eq!(tree(&unguarded.other_tables), "audit 0 inserted 8\n");
        let triggers: Vec<_> = unguarded.triggers.iter().map(|it| format!("{} {} {}", it.table, it.name, it.function)).collect();
        assert_eq!(triggers, ["public.orders record public.record()"]);

        install(&mut client, &limited("a/b", &[("public", "orders")], 5, 10)).await;
        let session = database.connect().await;
        let tables = ["orders", "items", "notes", "audit"];
        let before = traces(&client, &tables).await;
        let rehearsal = rehearse(&session, "DELETE FROM orders WHERE id <= 8").await;
        assert_eq!((stop_code(&rehearsal), tree(&rehearsal.tables).as_str()), ("PGR01", expected));
        // By one of its partitions: told of the whole table.
        let leaf = rehearse(&session, "DELETE FROM orders_1 WHERE id <= 8").await;
        assert_eq!((stop_code(&leaf), tree(&leaf.tables).as_str()), ("PGR01", "orders 4\n  items 12\n  notes 0 nulled 4\n"));
        // An UPDATE that moves rows neither deletes nor inserts any; without children, since it would take them along.
        run(&client, "ALTER TABLE items DROP CONSTRAINT items_order_id_year_fkey; ALTER TABLE notes DROP CONSTRAINT notes_order_id_year_fkey; ALTER TABLE untouched DROP CONSTRAINT untouched_order_id_year_fkey").await;
        install(&mut client, &limited("a/b", &[("public", "orders")], 5, 10)).await;
        let moved = rehearse(&session, "UPDATE orders SET year = 2 WHERE id <= 10").await;
        assert_eq!((stop_code(&moved), moved.tables[0].rows.moved, moved.tables[0].rows.deleted), ("passes", 5, 0), "{moved:?}");
        run(&client, "DROP TABLE untouched").await;
        assert_eq!(traces(&client, &tables).await.lines().take(4).collect::<Vec<_>>(), before.lines().take(4).collect::<Vec<_>>());
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_only_warns_and_a_role_with_a_right() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 30).await;
        let purge = server.role_name("purge");
        run(&client, &format!("CREATE ROLE {purge} LOGIN PASSWORD 'secret'; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO {purge}")).await;
        install(&mut client, &GuardSpec { mode: Mode::Warn, ..limited("a/b", USERS, 5, 10_000) }).await;
        let session = database.connect().await;
        let warned = rehearse(&session, "DELETE FROM users WHERE id <= 20").await;
        assert_eq!((stop_code(&warned), warned.total.deleted), ("passes", 20 * 118));
        assert_eq!(warned.warned, ["a/b on public.users"]);
        assert!(rehearse(&session, "DELETE FROM users WHERE id <= 5").await.warned.is_empty());
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, 0);

        let limits = PartialLimits { max_rows: Some(20), max_cascade_rows: Some(10_000), ..PartialLimits::default() };
        let allowance = Allowance { role: purge.clone(), limits, operations: vec![Operation::Delete] };
        install(&mut client, &GuardSpec { allowances: vec![allowance], ..limited("a/b", USERS, 5, 10_000) }).await;
        let before = traces(&client, FRIDAY_TABLES).await;
        // A superuser logs in as the role, so its rights hold; and nothing of them is used up.
        let purge_as = |statement: &str| Request { role: Some(purge.clone()), ..Request::new(statement) };
        let allowed = try_rehearse(&session, &purge_as("DELETE FROM users WHERE id <= 20")).await.expect("rehearse");
        assert_eq!((stop_code(&allowed), allowed.total.deleted), ("passes", 20 * 118));
        assert!(allowed.rights_of_role && allowed.login != purge, "{allowed:?}");
        let stopped = try_rehearse(&session, &purge_as("DELETE FROM users WHERE id <= 21")).await.expect("rehearse");
        assert_eq!((stop_code(&stopped), stopped.total.deleted), ("PGR01", 21 * 118));
        assert_eq!(stop_code(&rehearse(&session, "DELETE FROM users WHERE id <= 6").await), "PGR01");
        assert_eq!(count(&client, "pgrail.usage").await, 0);
        assert_eq!(traces(&client, FRIDAY_TABLES).await, before);
        drop(session);
        run(&client, &format!("DROP OWNED BY {purge} CASCADE; DROP ROLE {purge}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn without_pgrail_in_the_database() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let client = friday(&database, 20).await;
        // What is reported after ANALYZE would count twice.
        run(&client, "SELECT pg_stat_force_next_flush()").await;
        run(&client, "ANALYZE").await;
        let before = traces(&client, FRIDAY_TABLES).await;
        let session = database.connect().await;
        let rehearsal = rehearse(&session, "DELETE FROM users").await;
        assert_eq!(
            (stop_code(&rehearsal), rehearsal.total.deleted, rehearsal.counted_as_attempt),
            ("passes", 20 * 118, false)
        );
        assert_eq!(rehearsal.estimated_rows, 20 * 118);
        let text = serde_json::to_value(&rehearsal).expect("json");
        assert_eq!((&text["verdict"], &text["tables"][0]["below"][0]["deleted"]), (&"Passes".into(), &40.into()));
        assert_eq!(traces(&client, FRIDAY_TABLES).await, before);
        database.finish().await;
    })
    .await;
}
