//! Roles with a right to go beyond the limits: how far, and not a row further.
#![allow(missing_docs)]
mod common;

use common::{count, friday, guard, install, limited, refused, run, stopped};
use pgrail_guard::{Allowance, GuardSpec, Operation, PartialLimits, TableLimits};
use pgrail_testing::{Client, Database, for_each_server};

const USERS: &[(&str, &str)] = &[("public", "users")];

fn allowing(spec: GuardSpec, role: &str, limits: PartialLimits, operations: &[Operation]) -> GuardSpec {
    let allowance = Allowance { role: role.to_owned(), limits, operations: operations.to_vec() };
    GuardSpec { allowances: vec![allowance], ..spec }
}

fn rows(max_rows: i64, max_cascade_rows: i64) -> PartialLimits {
    PartialLimits { max_rows: Some(max_rows), max_cascade_rows: Some(max_cascade_rows), ..PartialLimits::default() }
}

async fn login(admin: &Client, role: &str) {
    run(
        admin,
        &format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO {role}"
        ),
    )
    .await;
}

async fn gone(admin: &Client, database: Database, role: &str) {
    run(admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
    database.finish().await;
}

/// What the rights of this database were used for: operation, rows, statements.
async fn used(client: &Client) -> Vec<(String, i64, i32)> {
    let rows = client.query("SELECT operation, rows, statements FROM pgrail.usage WHERE leased = rows ORDER BY xid::text::int8, operation", &[]).await;
    rows.expect("usage").iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test]
async fn an_allowance_holds_for_its_role_and_exactly() {
    for_each_server(async |server| {
        let database = server.database("allowance").await;
        let mut client = friday(&database, 300).await;
        let (purge, other) = (server.role_name("purge"), server.role_name("other"));
        login(&client, &purge).await;
        login(&client, &other).await;
        let spec = allowing(limited("a/b", USERS, 5, 5 * 117), &purge, rows(50, 40 * 117), &[Operation::Delete]);
        install(&mut client, &spec).await;
        let (app, stranger) =
            (database.connect_as(&purge, "secret").await, database.connect_as(&other, "secret").await);
        stopped(&stranger, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        // The right follows the login, not the role that is set, and not the owner of a function.
        run(&client, &format!("GRANT {other} TO {purge}")).await;
        run(&app, &format!("BEGIN; SET ROLE {other}; DELETE FROM users WHERE id <= 40; ROLLBACK")).await;
        run(&client, &format!("REVOKE {other} FROM {purge}; GRANT {purge} TO {other}")).await;
        stopped(&stranger, "PGR01", &format!("BEGIN; SET ROLE {purge}; DELETE FROM users WHERE id <= 6")).await;
        run(&stranger, "RESET ROLE").await;
        stopped(&client, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        // 40 users with 117 rows each are the limit, whatever the order.
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 40; ROLLBACK").await;
        let error = stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 41").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 20; DELETE FROM users WHERE id <= 41").await;
        assert_eq!(used(&client).await, []);
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 20; DELETE FROM users WHERE id <= 30; COMMIT").await;
        assert_eq!(used(&client).await, [("Delete".to_owned(), 30 * 118, 2)]);
        // Rows of the root alone.
        run(&client, "DELETE FROM messages; DELETE FROM conversations; DELETE FROM leads; DELETE FROM analytics").await;
        run(&app, "DELETE FROM users WHERE id BETWEEN 101 AND 150").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id BETWEEN 201 AND 251").await;
        assert_eq!(count(&client, "users").await, 220);
        assert_eq!(used(&client).await[1], ("Delete".to_owned(), 50, 1));
        // Not for what it does not name.
        stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
        // What is within the limits is not written down.
        run(&app, "DELETE FROM users WHERE id BETWEEN 151 AND 155").await;
        assert_eq!(used(&client).await.len(), 2);
        // Taken back: at once.
        install(&mut client, &limited("a/b", USERS, 5, 5 * 117)).await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id BETWEEN 201 AND 206").await;
        let left: i64 = client
            .query_one(
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'pass%' AND relnamespace = 'pgrail'::regnamespace",
                &[],
            )
            .await
            .expect("count")
            .get(0);
        assert_eq!(left, 0);
        drop((app, stranger));
        run(&client, &format!("DROP OWNED BY {other} CASCADE; DROP ROLE {other}")).await;
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn large_purges_stay_exact() {
    for_each_server(async |server| {
        let database = server.database("purge").await;
        let mut client = friday(&database, 500).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        // 58,500 rows hang on 500 users; 57,915 on 495.
        let spec = allowing(limited("a/b", USERS, 5, 10), &purge, rows(496, 495 * 117), &[Operation::Delete]);
        install(&mut client, &spec).await;
        let app = database.connect_as(&purge, "secret").await;
        for users in [496, 500] {
            stopped(&app, "PGR01", &format!("DELETE FROM users WHERE id <= {users}")).await;
        }
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 495; ROLLBACK").await;
        // With savepoints that are rolled back: what they deleted counts.
        stopped(&app, "PGR01", "BEGIN; SAVEPOINT s; DELETE FROM users WHERE id <= 300; ROLLBACK TO s; DELETE FROM users WHERE id <= 196").await;
        run(&app, "BEGIN; SAVEPOINT s; DELETE FROM users WHERE id <= 300; ROLLBACK TO s; DELETE FROM users WHERE id <= 195; COMMIT").await;
        assert_eq!(count(&client, "users").await, 305);
        // A purge that commits its batches, each within the right, not all of them together.
        run(&client, "CREATE PROCEDURE purge() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..5 LOOP DELETE FROM users WHERE id <= i * 100; COMMIT; END LOOP; END $$").await;
        install(&mut client, &allowing(limited("a/b", USERS, 5, 10), &purge, rows(100, 100 * 117), &[Operation::Delete])).await;
        run(&app, "CALL purge()").await;
        assert_eq!(count(&client, "users").await, 0);
        let used = used(&client).await;
        assert_eq!(used.iter().skip(1).map(|(_, rows, _)| *rows).sum::<i64>(), 305 * 118, "{used:?}");
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn limits_per_statement_and_per_transaction() {
    for_each_server(async |server| {
        for total in [None, Some(20)] {
            let database = server.database("levels").await;
            let mut client = friday(&database, 300).await;
            run(&client, "DELETE FROM messages; DELETE FROM conversations; DELETE FROM leads; DELETE FROM analytics")
                .await;
            let purge = server.role_name("purge");
            login(&client, &purge).await;
            let limits = PartialLimits { max_transaction_rows: Some(120), ..rows(50, 0) };
            let base =
                TableLimits { max_rows: 5, max_cascade_rows: 5, max_transaction_rows: total, max_updated_rows: None };
            let spec =
                allowing(GuardSpec { limits: base, ..guard("a/b", USERS) }, &purge, limits, &[Operation::Delete]);
            install(&mut client, &spec).await;
            let app = database.connect_as(&purge, "secret").await;
            stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 51").await;
            run(&app, "BEGIN").await;
            for part in [50, 100, 120] {
                run(&app, &format!("DELETE FROM users WHERE id <= {part}")).await;
            }
            // Two messages: what one message did counts together.
            run(&app, "ROLLBACK").await;
            run(&app, "BEGIN").await;
            for part in [50, 100] {
                run(&app, &format!("DELETE FROM users WHERE id <= {part}")).await;
            }
            let error = stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 121").await;
            assert!(error.message().contains("PGR01") || error.message().contains("max"), "{error:?}");
            drop(app);
            gone(&client, database, &purge).await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_operation_needs_to_be_named() {
    for_each_server(async |server| {
        let database = server.database("operations").await;
        let mut client = friday(&database, 50).await;
        let admin = server.role_name("admin");
        login(&client, &admin).await;
        run(&client, &format!("ALTER TABLE users OWNER TO {admin}; GRANT ALL ON SCHEMA public TO {admin}")).await;
        let base = TableLimits { max_updated_rows: Some(10), ..TableLimits { max_rows: 5, ..TableLimits::default() } };
        let base = GuardSpec { limits: base, ..guard("a/b", USERS) };
        let update = PartialLimits { max_updated_rows: Some(20), ..PartialLimits::default() };
        install(&mut client, &allowing(base.clone(), &admin, update, &[Operation::Update])).await;
        let app = database.connect_as(&admin, "secret").await;
        run(&app, "UPDATE users SET name = 'x' WHERE id <= 20").await;
        stopped(&app, "PGR04", "UPDATE users SET name = 'x' WHERE id <= 21").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        stopped(&app, "PGR03", "DROP TABLE users CASCADE").await;
        assert_eq!(used(&client).await, [("Update".to_owned(), 20, 1)]);
        install(&mut client, &allowing(base.clone(), &admin, PartialLimits::default(), &[Operation::Truncate])).await;
        run(&client, &format!("GRANT TRUNCATE ON ALL TABLES IN SCHEMA public TO {admin}")).await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        run(&app, "BEGIN; TRUNCATE users CASCADE; ROLLBACK").await;
        stopped(&app, "PGR03", "DROP TABLE users CASCADE").await;
        install(&mut client, &allowing(base, &admin, PartialLimits::default(), &[Operation::Drop])).await;
        stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
        run(&app, "DROP TABLE users CASCADE").await;
        drop(app);
        gone(&client, database, &admin).await;
    })
    .await;
}

#[tokio::test]
async fn another_guard_of_the_same_table_still_holds() {
    for_each_server(async |server| {
        let database = server.database("second").await;
        let mut client = friday(&database, 100).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        install(&mut client, &limited("c/d", USERS, 60, 1_000_000)).await;
        install(
            &mut client,
            &allowing(limited("a/b", USERS, 5, 10), &purge, rows(1000, 1_000_000), &[Operation::Delete]),
        )
        .await;
        let app = database.connect_as(&purge, "secret").await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 60; ROLLBACK").await;
        let error = stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 61").await;
        assert!(error.detail().unwrap_or_default().contains("c/d"), "{error:?}");
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_but_pgrail_can_give_or_widen_a_right() {
    for_each_server(async |server| {
        let database = server.database("widen").await;
        let mut client = friday(&database, 50).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        install(&mut client, &allowing(limited("a/b", USERS, 5, 10), &purge, rows(10, 10 * 117), &[Operation::Delete])).await;
        let app = database.connect_as(&purge, "secret").await;
        for sql in [
            "UPDATE pgrail.allowance SET max_rows = 1000000",
            "INSERT INTO pgrail.allowance SELECT * FROM pgrail.allowance",
            "DELETE FROM pgrail.usage",
            "SELECT * FROM pgrail.usage",
            "INSERT INTO pgrail.pass_1 SELECT FROM generate_series(1, 100)",
            "SELECT pgrail.spend(NULL, '', 1, 1, 1)",
            "SELECT pgrail.measure(1)",
            "SELECT pgrail.rights(NULL, '')",
        ] {
            assert_eq!(refused(&app, sql).await.code().code(), "42501", "{sql}");
        }
        // Settling early gains nothing.
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 6; SET CONSTRAINTS ALL IMMEDIATE; DELETE FROM users WHERE id <= 11").await;
        // Asking without deleting: nothing is written down.
        run(&app, "SELECT pgrail.trip(1, 0, 'users'::regclass), pgrail.trip(1, 1, 'leads'::regclass), pgrail.trip(1, 2, 'users'::regclass)").await;
        assert_eq!(used(&client).await, []);
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}
