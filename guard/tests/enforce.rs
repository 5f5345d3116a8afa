//! One guard on ordinary tables: what is stopped, what passes, what the client is told.
#![allow(missing_docs)]
mod common;

use common::{FRIDAY, count, friday, guard, install, limited, remove, run, stopped, verify};
use pgrail_guard::{Mode, TableState, counters, observe};
use pgrail_testing::for_each_server;

const USERS: &[(&str, &str)] = &[("public", "users")];

#[tokio::test]
async fn the_friday_delete_is_stopped_and_small_ones_pass() {
    for_each_server(async |server| {
        let database = server.database("friday").await;
        let mut client = friday(&database, 200).await;
        install(&mut client, &guard("shop/core", USERS)).await;
        let app = database.connect().await;

        let error = stopped(&app, "PGR01", "DELETE FROM users").await;
        assert!(error.message().contains("public.users") && error.message().contains("100"), "{error:?}");
        assert_eq!((error.schema(), error.table()), (Some("public"), Some("users")));
        assert!(error.detail().unwrap_or_default().contains("shop/core"), "{error:?}");
        assert!(error.hint().unwrap_or_default().contains("GuardExemption"), "{error:?}");
        assert_eq!(count(&app, "users").await, 200);

        // 117 rows go with one user; 8 users take 936, the 9th passes the limit of 1000.
        run(&app, "DELETE FROM users WHERE id <= 8").await;
        assert_eq!(count(&app, "messages").await, 19_200);
        let error = stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 17").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        assert!(error.detail().unwrap_or_default().contains("public.users -> public."), "{error:?}");
        assert_eq!(count(&app, "users").await, 192);

        // Direct deletes on tables of the closure are free, and updates are no deletes.
        run(&app, "DELETE FROM messages WHERE id > 5000; UPDATE users SET name = 'x'; DELETE FROM analytics").await;
        stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
        run(&app, "TRUNCATE messages").await;

        let counters = counters(&client).await.expect("counters");
        assert_eq!(counters.len(), 1);
        assert_eq!(
            (counters[0].guard.as_str(), counters[0].table.as_str(), counters[0].blocked_attempts),
            ("shop/core", "public.users", 3)
        );
        let plan = verify(&client, &guard("shop/core", USERS)).await;
        assert_eq!(plan.tables()[0].blocked_attempts, 3);
        assert_eq!(plan.tables()[0].closure, 4);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn limits_hold_exactly() {
    for_each_server(async |server| {
        let database = server.database("exact").await;
        let mut client = friday(&database, 300).await;
        install(&mut client, &limited("a/b", USERS, 7, 117 * 5)).await;
        let app = database.connect().await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 5; ROLLBACK").await;
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 6").await;
        run(&app, "DELETE FROM messages; DELETE FROM analytics; DELETE FROM conversations; DELETE FROM leads").await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 7; ROLLBACK").await;
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 8").await;
        // Both limits hold per transaction.
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 4; DELETE FROM users WHERE id <= 8").await;
        run(&app, "DELETE FROM users WHERE id <= 4").await;
        run(&app, "DELETE FROM users WHERE id <= 11").await;
        // Changing the limits changes them everywhere.
        install(&mut client, &limited("a/b", USERS, 0, 0)).await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id = 20").await;
        run(&app, "DELETE FROM users WHERE id = -1").await;
        install(&mut client, &limited("a/b", USERS, 1000, 0)).await;
        run(&app, "DELETE FROM users").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn warn_lets_it_pass_and_counts_once_per_statement() {
    for_each_server(async |server| {
        let database = server.database("warn").await;
        let mut client = friday(&database, 200).await;
        let mut spec = guard("shop/core", USERS);
        spec.mode = Mode::Warn;
        install(&mut client, &spec).await;
        let app = database.connect().await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 150; ROLLBACK").await;
        run(&app, "BEGIN").await;
        run(&app, "DELETE FROM users WHERE id <= 100").await;
        run(&app, "DELETE FROM users WHERE id <= 150; COMMIT").await;
        run(&app, "TRUNCATE users CASCADE").await;
        assert_eq!(count(&app, "users").await, 0);
        let counters = counters(&client).await.expect("counters");
        assert_eq!(counters[0].blocked_attempts, 4);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn removal_leaves_nothing() {
    for_each_server(async |server| {
        let database = server.database("removal").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        let before = observe(&client).await.expect("observe");
        install(&mut client, &guard("shop/core", USERS)).await;
        assert!(remove(&mut client, "shop/core").await.is_complete());
        let mut after = observe(&client).await.expect("observe");
        after.live.may_create_schema = before.live.may_create_schema;
        assert_eq!(after, before);
        let left: i64 = client
            .query_one(
                "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail%') + (SELECT count(*) FROM pg_proc WHERE proname LIKE '%pgrail%')
                      + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrail') + (SELECT count(*) FROM pg_event_trigger)",
                &[],
            )
            .await
            .expect("count")
            .get(0);
        assert_eq!(left, 0);
        // Nothing there: nothing to do.
        assert_eq!(remove(&mut client, "shop/core").await.steps.len(), 0);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn missing_and_refused_relations_are_told() {
    for_each_server(async |server| {
        let database = server.database("missing").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        run(&client, "CREATE VIEW people AS SELECT * FROM users").await;
        let spec =
            guard("a/b", &[("public", "users"), ("public", "later"), ("public", "people"), ("pg_catalog", "pg_class")]);
        let (plan, applied) = common::reconcile(&mut client, &spec).await;
        assert!(applied.is_complete());
        assert_eq!(plan.missing(), ["public.later"]);
        assert_eq!(plan.refused().len(), 2);
        let states: Vec<_> =
            verify(&client, &spec).await.tables().iter().map(|table| (table.table.clone(), table.state)).collect();
        assert_eq!(
            states,
            [("public.later".to_owned(), TableState::Missing), ("public.users".to_owned(), TableState::Enforced)]
        );
        run(&client, "CREATE TABLE later (id int)").await;
        common::reconcile(&mut client, &spec).await;
        stopped(&client, "PGR02", "TRUNCATE later").await;
        database.finish().await;
    })
    .await;
}
