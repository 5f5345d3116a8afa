//! Roles with a right to go beyond the limits: how far, and not a row further.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
mod common;

use common::{count, friday, guard, install, limited, refused, run, stopped};
use pgrail_guard::{
    Allowance, ClusterId, ExemptionSpec, GuardName, GuardSpec, Operation, PartialLimits, TableLimits, apply,
    exemption_uses, observe, plan_exemption, plan_revocation,
};
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
        // What is told is the limit of the right.
        assert!(error.message().contains("more than 4680 rows of other tables"), "{error:?}");
        assert!(
            error.detail().unwrap_or_default().ends_with(&format!("Under the allowance of {purge}. Guard: a/b.")),
            "{error:?}"
        );
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 20; DELETE FROM users WHERE id <= 41").await;
        assert_eq!(used(&client).await, []);
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 20; DELETE FROM users WHERE id <= 30; COMMIT").await;
        assert_eq!(used(&client).await, [("Delete".to_owned(), 30 * 118, 1)]);
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
            let base = TableLimits {
                max_rows: 5,
                max_cascade_rows: 5,
                max_transaction_rows: total,
                max_updated_rows: None,
                window: None,
            };
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
            assert!(
                error.message().contains("more than 120 rows in one transaction (maxTransactionRows)"),
                "{error:?}"
            );
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
            "SELECT * FROM pgrail.allowance",
            "UPDATE pgrail.budget SET used = 0",
            "INSERT INTO pgrail.baseline VALUES (1, pg_current_xact_id(), pg_backend_pid(), 1000, 1000, 1000)",
            "SELECT pgrail.write_document('allowances', NULL)",
            "CREATE OR REPLACE FUNCTION pgrail.config_allowances() RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'",
            "DELETE FROM pgrail.usage",
            "INSERT INTO pgrail.allowed_1 SELECT FROM generate_series(1, 100)",
            "SELECT pgrail.charge(1, NULL, '', 1, 1, 1)",
            "SELECT pgrail.measure(1, NULL)",
            "SELECT pgrail.allowances_for(1, 1, '')",
        ] {
            assert_eq!(refused(&app, sql).await.code().code(), "42501", "{sql}");
        }
        // Settling early gains nothing.
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 6; SET CONSTRAINTS ALL IMMEDIATE; DELETE FROM users WHERE id <= 11").await;
        // Asking without deleting: nothing is written down.
        run(&app, "SELECT pgrail.check_limits(1, 0, 'users'::regclass), pgrail.check_limits(1, 1, 'leads'::regclass), pgrail.check_limits(1, 2, 'users'::regclass)").await;
        assert_eq!(used(&client).await, []);
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}

fn exemption(name: &str, role: &str, now: i64) -> ExemptionSpec {
    ExemptionSpec {
        name: GuardName::new(name).unwrap(),
        object: "one".to_owned(),
        owner: ClusterId::local(),
        guards: vec![GuardName::new("a/b").unwrap()],
        role: role.to_owned(),
        tables: Vec::new(),
        limits: PartialLimits::default(),
        unlimited: false,
        total_rows: None,
        operations: vec![Operation::Delete],
        not_before: None,
        not_after: now + 3600,
    }
}

async fn give(client: &mut Client, spec: &ExemptionSpec) {
    let plan = plan_exemption(spec, &observe(client).await.expect("observe")).expect("plan");
    assert!(apply(client.as_mut(), &plan).await.expect("apply").is_complete());
    let again = plan_exemption(spec, &observe(client).await.expect("observe")).expect("plan");
    assert!(again.is_empty(), "{}", again.sql().join("\n"));
}

async fn now(client: &Client) -> i64 {
    client.query_one("SELECT extract(epoch FROM clock_timestamp())::int8", &[]).await.expect("now").get(0)
}

#[tokio::test]
async fn a_total_whose_count_a_crash_lost_is_used_up_and_stays_so() {
    for_each_server(async |server| {
        let database = server.database("lost").await;
        let mut client = friday(&database, 50).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        let guard = limited("a/b", USERS, 5, 2000);
        install(&mut client, &guard).await;
        let spec = ExemptionSpec { unlimited: true, total_rows: Some(10_000), ..exemption("a/purge", &purge, now(&client).await) };
        give(&mut client, &spec).await;
        let app = database.connect_as(&purge, "secret").await;
        run(&app, "DELETE FROM users WHERE id <= 10").await;
        let unlogged = "SELECT bool_and(relpersistence = 'u') FROM pg_class WHERE oid IN ('pgrail.budget'::regclass, 'pgrail.usage'::regclass)";
        assert!(client.query_one(unlogged, &[]).await.expect("tables").get::<_, bool>(0), "a crash empties them");
        // What a crash leaves.
        run(&client, "TRUNCATE pgrail.budget, pgrail.usage, pgrail.baseline").await;
        let error = stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 20").await;
        assert!(error.message().contains("lost in a crash"), "{error:?}");
        assert!(exemption_uses(&client).await.expect("uses")[0].lost);
        // Nothing grants it again but another object.
        give(&mut client, &spec).await;
        install(&mut client, &GuardSpec { limits: TableLimits { max_rows: 6, ..guard.limits }, ..guard.clone() }).await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 20").await;
        give(&mut client, &ExemptionSpec { object: "two".to_owned(), ..spec }).await;
        assert!(!exemption_uses(&client).await.expect("uses")[0].lost);
        run(&app, "DELETE FROM users WHERE id <= 20").await;
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn a_budget_is_never_overspent_and_what_was_not_used_is_given_back() {
    for_each_server(async |server| {
        let database = server.database("budget").await;
        let mut client = friday(&database, 300).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        install(&mut client, &limited("a/b", USERS, 5, 10)).await;
        // 118 rows go with each user.
        let spec = ExemptionSpec {
            unlimited: true,
            total_rows: Some(100 * 118),
            ..exemption("a/purge", &purge, now(&client).await)
        };
        give(&mut client, &spec).await;
        let app = database.connect_as(&purge, "secret").await;
        let error = stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 101").await;
        assert!(error.message().contains("the 11800 rows of the GuardExemption a/purge (totalRows)"), "{error:?}");
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 100; ROLLBACK").await;
        // Two at once: together no more than there is.
        let other = database.connect_as(&purge, "secret").await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 60").await;
        let second = async { other.batch_execute("DELETE FROM users WHERE id BETWEEN 201 AND 250").await };
        let (second, ()) = tokio::join!(second, run(&app, "COMMIT"));
        assert_eq!(second.expect_err("40 users are left").code().expect("a code").code(), "PGR01");
        run(&other, "DELETE FROM users WHERE id BETWEEN 201 AND 240").await;
        stopped(&other, "PGR01", "DELETE FROM users WHERE id BETWEEN 241 AND 246").await;
        // Within the guard's own limits nothing is spent, and everything goes on.
        run(&other, "DELETE FROM messages WHERE conversation_id IN (SELECT id FROM conversations WHERE lead_id IN (SELECT id FROM leads WHERE user_id = 241))").await;
        let uses = exemption_uses(&client).await.expect("uses");
        assert_eq!((uses[0].rows, uses[0].statements, uses[0].active), (100 * 118, 2, true));
        // The same again in another object starts anew; taken back, nothing is left.
        give(&mut client, &ExemptionSpec { object: "two".to_owned(), ..spec.clone() }).await;
        assert_eq!(exemption_uses(&client).await.expect("uses")[0].rows, 0);
        run(&app, "DELETE FROM users WHERE id BETWEEN 61 AND 70").await;
        let plan = plan_revocation(&spec.name, &observe(&client).await.expect("observe"));
        assert!(apply(client.as_mut(), &plan).await.expect("apply").is_complete());
        stopped(&app, "PGR01", "DELETE FROM users WHERE id BETWEEN 71 AND 80").await;
        assert!(exemption_uses(&client).await.expect("uses").is_empty());
        assert!(common::verify(&client, &limited("a/b", USERS, 5, 10)).await.is_empty());
        drop((app, other));
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn an_exemption_holds_between_its_times_for_its_tables_and_operations() {
    for_each_server(async |server| {
        let database = server.database("window").await;
        let mut client = friday(&database, 50).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        let tables = [("public", "users"), ("public", "leads")];
        install(&mut client, &limited("a/b", &tables, 5, 10)).await;
        let app = database.connect_as(&purge, "secret").await;
        let from = now(&client).await;
        let spec = |from: i64, until: i64| ExemptionSpec {
            unlimited: true,
            tables: vec![("public".to_owned(), "users".to_owned())],
            not_before: Some(from),
            not_after: until,
            ..exemption("a/window", &purge, from)
        };
        for (from, until, passes) in
            [(from - 60, from - 30, false), (from + 600, from + 900, false), (from - 60, from + 900, true)]
        {
            give(&mut client, &spec(from, until)).await;
            let sql = "BEGIN; DELETE FROM users WHERE id <= 40; ROLLBACK";
            if passes { run(&app, sql).await } else { drop(stopped(&app, "PGR01", sql).await) }
        }
        // Narrowed to one table of the guard, and to one operation.
        stopped(&app, "PGR01", "DELETE FROM leads").await;
        stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
        let unknown =
            ExemptionSpec { tables: vec![("public".to_owned(), "messages".to_owned())], ..spec(from, from + 60) };
        let error = plan_exemption(&unknown, &observe(&client).await.expect("observe")).expect_err("not guarded");
        assert_eq!(error.to_string(), "public.messages is not a table of these guards");
        // It ends while a transaction is at work: judged anew at every limit, by the clock and not by the snapshot.
        let narrow = ExemptionSpec { unlimited: false, limits: rows(10, 10 * 117), ..spec(from - 60, from + 900) };
        give(&mut client, &narrow).await;
        run(&app, "BEGIN ISOLATION LEVEL READ COMMITTED; DELETE FROM users WHERE id <= 8").await;
        run(&client, "SELECT pgrail.write_document('allowances', jsonb_set(pgrail.document('allowances'), '{0,not_after}', '1'))").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id = 41").await;
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn what_has_drifted_is_left_to_the_check_of_its_guard_which_reports_it() {
    for_each_server(async |server| {
        let database = server.database("drifted").await;
        let mut client = friday(&database, 50).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        let guard = limited("a/b", USERS, 5, 10);
        install(&mut client, &guard).await;
        let spec = exemption("a/purge", &purge, now(&client).await);
        for sql in ["ALTER TABLE users DISABLE TRIGGER USER", "DROP TRIGGER pgrail_truncate ON users"] {
            run(&client, sql).await;
            give(&mut client, &spec).await;
            let drift = common::verify(&client, &guard).await.drift().to_vec();
            assert!(!drift.is_empty(), "{sql}: repaired, and nobody hears of it");
            let plan = plan_revocation(&spec.name, &observe(&client).await.expect("observe"));
            assert!(apply(client.as_mut(), &plan).await.expect("apply").is_complete());
            assert_eq!(common::verify(&client, &guard).await.drift(), drift, "{sql}");
            install(&mut client, &guard).await;
            assert!(common::verify(&client, &guard).await.is_empty(), "{sql}");
        }
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn a_right_without_its_lock_is_stricter_and_never_looser() {
    for_each_server(async |server| {
        let database = server.database("locked").await;
        let mut client = friday(&database, 50).await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        install(&mut client, &limited("a/b", USERS, 5, 10)).await;
        let spec = ExemptionSpec { unlimited: true, ..exemption("a/purge", &purge, now(&client).await) };
        let plan = plan_exemption(&spec, &observe(&client).await.expect("observe")).expect("plan");
        // Broken off after any step: the role has the right already, or not yet; everybody else is held as before.
        for steps in 0..=plan.steps().len() {
            let plan = plan_exemption(&spec, &observe(&client).await.expect("observe")).expect("plan");
            apply(client.as_mut(), &plan.interrupted_after(1.min(steps))).await.expect("apply");
            stopped(&client, "PGR01", "DELETE FROM users").await;
        }
        give(&mut client, &spec).await;
        let app = database.connect_as(&purge, "secret").await;
        run(&app, "BEGIN; DELETE FROM users; ROLLBACK").await;
        drop(app);
        gone(&client, database, &purge).await;
    })
    .await;
}

#[tokio::test]
async fn a_purge_asks_seldom_and_ends_with_its_budget() {
    for_each_server(async |server| {
        let database = server.database("budget").await;
        let mut client = database.connect().await;
        run(&client, "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 60000)").await;
        let purge = server.role_name("purge");
        login(&client, &purge).await;
        let guard = limited("a/b", USERS, 5, 10);
        install(&mut client, &guard).await;
        let exemption = ExemptionSpec {
            name: GuardName::new("a/purge").expect("name"),
            object: "1".to_owned(),
            owner: guard.owner.clone(),
            guards: vec![guard.name.clone()],
            role: purge.clone(),
            tables: Vec::new(),
            limits: rows(60_000, 0),
            unlimited: false,
            total_rows: Some(51_234),
            operations: vec![Operation::Delete],
            not_before: None,
            not_after: 4_000_000_000,
        };
        let plan = plan_exemption(&exemption, &observe(&client).await.expect("observe")).expect("plan");
        assert!(apply(client.as_mut(), &plan).await.expect("apply").is_complete());
        let app = database.connect_as(&purge, "secret").await;
        let calls = "SELECT coalesce(max(calls) FILTER (WHERE funcname LIKE 'gate%'), 0), coalesce(max(calls) FILTER (WHERE funcname = 'check_limits'), 0) FROM pg_stat_xact_user_functions";
        run(&client, &format!("ALTER ROLE {purge} SET track_functions = 'pl'")).await;
        let counted = database.connect_as(&purge, "secret").await;
        run(&counted, "BEGIN; DELETE FROM users WHERE id <= 50000").await;
        let asked = counted.query_one(calls, &[]).await.expect("calls");
        let (gate, trip): (i64, i64) = (asked.get(0), asked.get(1));
        assert!((2..=20).contains(&trip) && gate <= 20, "the gate was asked {gate} times, trip {trip} times");
        run(&counted, "ROLLBACK").await;
        // Not a row further than the budget, which is no multiple of anything.
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 51235").await;
        run(&app, "DELETE FROM users WHERE id <= 20000").await;
        run(&app, "DELETE FROM users WHERE id <= 51234").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 51240").await;
        run(&app, "DELETE FROM users WHERE id <= 51239").await;
        assert_eq!(used(&client).await.iter().map(|(_, rows, _)| *rows).collect::<Vec<_>>(), [20_000, 31_234]);
        drop((app, counted));
        gone(&client, database, &purge).await;
    })
    .await;
}
