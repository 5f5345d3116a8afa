//! Capture: which deleted rows are kept, how many, and for how long.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::capture::*;
use common::{count, friday, guard, install, limited, reconcile, remove, run};
use pgrail_guard::{Conflicts, UndoError, prune, undo};
use pgrail_testing::{Client, for_each_server};

#[tokio::test]
async fn without_capture_nothing_is_installed_and_its_removal_keeps_captured_rows() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = friday(&database, 10).await;
        let off = guard("a/b", USERS);
        let on = capturing(off.clone());
        let ours = async |client: &Client| -> i64 {
            let sql = "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail_capture%') + (SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture%')";
            client.query_one(sql, &[]).await.expect("count").get(0)
        };
        install(&mut client, &off).await;
        assert_eq!(ours(&client).await, 0);
        run(&client, "DELETE FROM users WHERE id = 1").await;
        assert_eq!(kept(&client).await, []);

        install(&mut client, &on).await;
        assert_eq!(ours(&client).await, 6);
        let before = contents(&client, FRIDAY_TABLES).await;
        run(&client, "DELETE FROM users WHERE id = 2").await;
        // Other bounds change the function and no trigger: no table is locked.
        let (plan, _) = reconcile(&mut client, &bounded(off.clone(), 3600, 5000)).await;
        assert!(plan.steps().iter().all(|step| step.table.is_none()), "{:?}", plan.steps());

        install(&mut client, &off).await;
        assert_eq!(ours(&client).await, 0);
        run(&client, "DELETE FROM users WHERE id = 3").await;
        assert_eq!(kept(&client).await.len(), 1, "what was kept stays until its retention is over");
        run(&client, "INSERT INTO users VALUES (3, 'u3')").await;
        // A second guard goes and comes; then the last one takes everything with it.
        install(&mut client, &capturing(guard("c/d", &[("public", "analytics")]))).await;
        assert!(remove(&mut client, "a/b").await.is_complete());
        assert_eq!(kept(&client).await.len(), 1);
        undo_newest(&mut client).await;
        run(&client, "DELETE FROM users WHERE id = 3").await;
        assert_eq!(contents(&client, &["users"]).await, {
            run(&client, "DELETE FROM users WHERE id = 3").await;
            vec![before[0].replace("\n(3,u3)", "").replace("(3,u3)\n", "")]
        });
        assert!(remove(&mut client, "c/d").await.is_complete());
        let left: i64 = client.query_one("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrail'", &[]).await.unwrap().get(0);
        assert_eq!(left, 0);
        assert!(matches!(undo(client.as_mut(), 1, Conflicts::Refuse, true).await, Err(UndoError::NotInstalled)));
        assert_eq!(prune(&client, "local").await.expect("prune"), 0);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn rows_that_are_too_many_or_too_old_are_removed() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = set_up_plain(&database, 1000).await;
        let base = limited("a/b", USERS, 500, 500);
        install(&mut client, &bounded(base.clone(), 3600, 100)).await;
        // As many as may be, one more, and many in pieces.
        run(&client, "DELETE FROM users WHERE id <= 100").await;
        assert_eq!((kept(&client).await[0].incomplete.as_ref(), count(&client, STORE).await), (None, 100));
        for sql in [
            "DELETE FROM users WHERE id <= 201",
            "BEGIN; DELETE FROM users WHERE id <= 260; DELETE FROM users WHERE id <= 302; DELETE FROM users WHERE id <= 310; COMMIT",
            "DO $$ BEGIN FOR i IN 311..420 LOOP DELETE FROM users WHERE id = i; END LOOP; END $$",
        ] {
            run(&client, sql).await;
            let newest = kept(&client).await.remove(0);
            assert!(newest.incomplete.is_some() && newest.tables.is_empty(), "{sql}: {newest:?}");
        }
        let found = problems(&mut client, Conflicts::SkipExisting).await;
        assert!(found.len() == 1 && found[0].contains("more than 100 rows (capture.maxRows)"), "{found:?}");
        // Rolled back parts do not count against a transaction that keeps within the bound.
        run(&client, "BEGIN; SAVEPOINT s; DELETE FROM users WHERE id <= 500; ROLLBACK TO s; DELETE FROM users WHERE id <= 510; ROLLBACK; BEGIN; SAVEPOINT s; DELETE FROM users WHERE id <= 500; ROLLBACK TO s; DELETE FROM users WHERE id <= 430; COMMIT").await;
        assert_eq!(kept(&client).await[0].tables[0].deleted, 10);
        // Many small transactions, without an operator: the disk does not fill up.
        for id in 431..900 {
            run(&client, &format!("DELETE FROM users WHERE id = {id}")).await;
        }
        let rows = count(&client, STORE).await;
        // On average a quarter more than may be; four times as many would take a chance in a hundred thousand.
        assert!((90..400).contains(&rows), "{rows} rows are kept");
        prune(&client, "somebody else").await.expect("prune");
        assert_eq!(count(&client, STORE).await, rows);
        prune(&client, "local").await.expect("prune");
        assert!(count(&client, STORE).await <= 100);
        assert_eq!(undo_newest(&mut client).await.tables[0].inserted, 1, "the newest are kept");
        assert_eq!(count(&client, "users WHERE id = 899").await, 1);

        // A transaction that is still at it is never pruned in part, however old it is.
        let slow = database.connect().await;
        run(&slow, "BEGIN; DELETE FROM users WHERE id = 950").await;
        run(&client, "DELETE FROM users WHERE id BETWEEN 901 AND 949; DELETE FROM users WHERE id BETWEEN 960 AND 1000").await;
        run(&client, "INSERT INTO users SELECT generate_series(1001, 1100)").await;
        run(&client, "DELETE FROM users WHERE id > 1000").await;
        run(&slow, "SELECT pgrail.prune_captured_rows(10, '[]', NULL, 1000); DELETE FROM users WHERE id = 951; COMMIT").await;
        let of_slow = kept(&client).await.into_iter().filter(|it| it.tables.iter().any(|table| table.deleted == 2)).count();
        assert_eq!(of_slow, 1);
        prune(&client, "local").await.expect("prune");

        // What is too old goes, and what is due is looked for without writing.
        run(&client, "SET default_transaction_read_only = on").await;
        assert_eq!(prune(&client, "local").await.expect("prune"), 0);
        run(&client, "RESET default_transaction_read_only").await;
        let many = kept(&client).await.len() as u64;
        run(&client, "UPDATE pgrail.captured_10 SET began = began - interval '59 minutes'; UPDATE pgrail.captured_transaction_10 SET began = began - interval '59 minutes', kept_until = kept_until - interval '59 minutes'").await;
        assert_eq!(prune(&client, "local").await.expect("prune"), 0);
        // A shorter retention holds for what is kept already.
        install(&mut client, &bounded(base.clone(), 60, 100)).await;
        assert_eq!(prune(&client, "local").await.expect("prune"), many);
        assert_eq!(count(&client, STORE).await, 0);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn guards_with_different_bounds_do_not_disturb_each_other() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE); CREATE TABLE events (id int PRIMARY KEY);
             INSERT INTO users SELECT generate_series(1, 9); INSERT INTO orders SELECT i, i FROM generate_series(1, 9) i; INSERT INTO events SELECT generate_series(1, 1000)",
        )
        .await;
        install(&mut client, &bounded(guard("shop/core", USERS), 3600, 1000)).await;
        install(&mut client, &bounded(guard("shop/orders", &[("public", "orders")]), 7200, 1000)).await;
        install(&mut client, &bounded(limited("shop/events", &[("public", "events")], 1000, 0), 3600, 50)).await;
        let before = contents(&client, &["users", "orders"]).await;
        run(&client, "DELETE FROM users WHERE id <= 3").await;
        let one = kept(&client).await.remove(0);
        assert_eq!(one.guards, ["shop/core", "shop/orders"]);
        for id in 1..400 {
            run(&client, &format!("DELETE FROM events WHERE id = {id}")).await;
        }
        prune(&client, "local").await.expect("prune");
        let undone = undo(client.as_mut(), one.transaction, Conflicts::Refuse, false).await.expect("undo");
        assert!(undone.done, "{undone:?}");
        assert_eq!(contents(&client, &["users", "orders"]).await, before);
        // When one guard's part is too old, the rest is no whole any more.
        run(&client, "DELETE FROM users WHERE id <= 3").await;
        run(&client, "UPDATE pgrail.captured_10 SET began = began - interval '90 minutes'; UPDATE pgrail.captured_transaction_10 SET began = began - interval '90 minutes'").await;
        prune(&client, "local").await.expect("prune");
        let one = kept(&client).await.remove(0);
        assert_eq!(one.guards, ["shop/orders"]);
        let found = problems(&mut client, Conflicts::SkipExisting).await;
        assert!(found.iter().any(|it| it.contains("the rows of other tables were removed")), "{found:?}");
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn serializable_transactions_do_not_fail_because_of_it() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = set_up_plain(&database, 100).await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let (one, two) = (database.connect().await, database.connect().await);
        for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
            for session in [&one, &two] {
                run(session, &format!("BEGIN ISOLATION LEVEL {isolation}")).await;
            }
            // Neither reads what the other deletes.
            run(&one, "SET LOCAL enable_seqscan = off; DELETE FROM users WHERE id = 1; DELETE FROM users WHERE id = 2")
                .await;
            run(
                &two,
                "SET LOCAL enable_seqscan = off; INSERT INTO users VALUES (1000); DELETE FROM users WHERE id = 1000",
            )
            .await;
            run(&one, "COMMIT; INSERT INTO users VALUES (1), (2)").await;
            run(&two, "COMMIT").await;
        }
        assert_eq!(kept(&client).await.len(), 4);
        database.finish().await;
    })
    .await;
}
