//! What all transactions together may remove within some time.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::rehearse::rehearse;
use common::{count, friday, guard, install, reconcile, refused, remove, run, stopped, verify};
use pgrail_guard::rehearse::Verdict;
use pgrail_guard::{
    Allowance, ClusterId, ExemptionSpec, GuardName, GuardSpec, Mode, Operation, PartialLimits, TableLimits, Window,
    apply, observe, plan_exemption,
};
use pgrail_testing::{Client, Database, for_each_server};
use tokio_postgres::error::DbError;

const USERS: &[(&str, &str)] = &[("public", "users")];

fn windowed(tables: &[(&str, &str)], max_rows: Option<i64>, max_cascade_rows: Option<i64>) -> GuardSpec {
    let window = Some(Window { duration: 3600, max_rows, max_cascade_rows });
    GuardSpec { limits: TableLimits { window, ..TableLimits::default() }, ..guard("a/b", tables) }
}

async fn users(database: &Database, rows: i32) -> Client {
    let client = database.connect().await;
    run(&client, &format!("CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, {rows}) i")).await;
    client
}

/// Deletes one row after the other, each in a transaction, from `first` on, until it is stopped; returns how many.
async fn one_by_one(client: &Client, first: i32) -> (i32, DbError) {
    let statement = client.prepare("DELETE FROM users WHERE id = $1").await.expect("prepare");
    for deleted in 0.. {
        match client.execute(&statement, &[&(first + deleted)]).await {
            Ok(1) => {}
            Ok(rows) => panic!("{rows} rows after {deleted}"),
            Err(error) => return (deleted, error.as_db_error().expect("an error of the server").clone()),
        }
    }
    unreachable!()
}

/// Lets time pass: everything that is in buckets becomes as old as if it were counted so many buckets ago.
async fn age(client: &Client, assignment: i32, buckets: i64) {
    for (kind, blocks) in [("rows", ""), ("rows", "64"), ("cascade", ""), ("cascade", "64")] {
        let (even, odd) = (
            format!("pgrail.window_{kind}_even{blocks}_{assignment}"),
            format!("pgrail.window_{kind}_odd{blocks}_{assignment}"),
        );
        let sql = format!(
            "DO $$ DECLARE even bigint := pg_sequence_last_value(to_regclass('{even}')); odd bigint := pg_sequence_last_value(to_regclass('{odd}'));
             BEGIN
               IF {buckets} % 2 = 1 THEN SELECT odd, even INTO even, odd; END IF;
               IF even >> 36 > 0 THEN PERFORM setval('{even}', even - ({buckets}::bigint << 36)); ELSIF {buckets} % 2 = 1 AND odd IS NOT NULL THEN PERFORM setval('{even}', 0); END IF;
               IF odd >> 36 > 0 THEN PERFORM setval('{odd}', odd - ({buckets}::bigint << 36)); ELSIF {buckets} % 2 = 1 AND even IS NOT NULL THEN PERFORM setval('{odd}', 0); END IF;
             END $$"
        );
        run(client, &sql).await;
    }
}

#[tokio::test]
async fn the_loop_of_one_session_is_stopped_at_the_limit() {
    for_each_server(async |server| {
        for limit in [0, 1, 7, 100, 500] {
            let database = server.database("loop").await;
            let mut client = users(&database, 600).await;
            install(&mut client, &windowed(USERS, Some(limit.into()), None)).await;
            let app = database.connect().await;
            let (deleted, error) = one_by_one(&app, 1).await;
            assert_eq!(deleted, limit);
            assert_eq!(error.code().code(), "PGR01");
            assert_eq!(
                error.message(),
                format!(
                    "pgrail: DELETE on public.users would remove more than {limit} of its rows within 1 h (window.maxRows)"
                )
            );
            assert!(error.detail().unwrap_or_default().ends_with("Guard: a/b."), "{error:?}");
            assert_eq!((error.schema(), error.table()), (Some("public"), Some("users")));
            // Others too, and in batches; what removes nothing is not stopped.
            stopped(&database.connect().await, "PGR01", "DELETE FROM users WHERE id > 599").await;
            run(&app, "DELETE FROM users WHERE id = 9999").await;
            assert_eq!(count(&client, "users").await, i64::from(600 - limit));
            assert!(verify(&client, &windowed(USERS, Some(limit.into()), None)).await.is_empty());
            drop(app);
            database.finish().await;
        }
    })
    .await;
}

#[tokio::test]
async fn seven_hundred_connections_in_turn_are_stopped_at_the_limit() {
    for_each_server(async |server| {
        let database = server.database("turn").await;
        let mut client = users(&database, 700).await;
        install(&mut client, &windowed(USERS, Some(500), None)).await;
        let mut deleted = 0;
        for id in 1..=700 {
            let app = database.connect().await;
            match app.batch_execute(&format!("DELETE FROM users WHERE id = {id}")).await {
                Ok(()) => deleted += 1,
                Err(error) => assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("PGR01")),
            }
        }
        assert_eq!(deleted, 500);
        drop(client);
        database.finish().await;
    })
    .await;
}

/// With rows one by one, and in batches: at most what every session may remove in one transaction is beyond the limit.
#[tokio::test]
async fn thirty_two_sessions_at_once_overshoot_by_no_more_than_a_transaction_each() {
    for_each_server(async |server| {
        for batch in [1, 20] {
            let database = server.database("at_once").await;
            let mut client = users(&database, 6000).await;
            install(&mut client, &windowed(USERS, Some(1000), None)).await;
            let mut sessions = tokio::task::JoinSet::new();
            for session in 0..32 {
                let app = database.connect().await;
                sessions.spawn(async move {
                    let statement = app.prepare("DELETE FROM users WHERE id > $1 AND id <= $2").await.expect("prepare");
                    let mut from = session * 180;
                    while from < (session + 1) * 180 {
                        if let Err(error) = app.execute(&statement, &[&from, &(from + batch)]).await {
                            assert_eq!(error.code().expect("a code").code(), "PGR01");
                            return;
                        }
                        from += batch;
                    }
                });
            }
            while let Some(ended) = sessions.join_next().await {
                ended.expect("a session");
            }
            let deleted = 6000 - count(&client, "users").await;
            // Sessions that look at once may count the same rows twice, while it is little.
            assert!((500..=1000 + 32 * i64::from(batch)).contains(&deleted), "{deleted} with batches of {batch}");
            database.finish().await;
        }
    })
    .await;
}

#[tokio::test]
async fn cascades_have_a_limit_of_their_own_and_direct_deletes_take_nothing_from_it() {
    for_each_server(async |server| {
        let database = server.database("cascades").await;
        let mut client = friday(&database, 60).await;
        install(&mut client, &windowed(USERS, None, Some(2340))).await;
        let app = database.connect().await;
        // 117 rows depend on each user: twenty users.
        let (deleted, error) = one_by_one(&app, 1).await;
        assert_eq!(deleted, 20, "{error:?}");
        assert!(
            error
                .message()
                .ends_with("would take more than 2340 rows of other tables within 1 h (window.maxCascadeRows)"),
            "{error:?}"
        );
        age(&client, 1, 2).await;
        // Once each transaction is counted, what is deleted directly, or rolled back, is not.
        run(&app, "DELETE FROM messages WHERE id > 5000").await;
        run(&app, "BEGIN; DELETE FROM users WHERE id BETWEEN 21 AND 25; ROLLBACK").await;
        let (deleted, _) = one_by_one(&app, 21).await;
        // Less what was rolled back before.
        assert_eq!(deleted, 15);
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn blocks_and_procedures_that_commit_are_counted() {
    for_each_server(async |server| {
        let database = server.database("procedures").await;
        let mut client = users(&database, 2000).await;
        run(&client, "CREATE PROCEDURE purge(a int, b int, size int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN a..b LOOP DELETE FROM users WHERE id > (i - 1) * size AND id <= i * size; COMMIT; END LOOP; END $$").await;
        install(&mut client, &windowed(USERS, Some(500), None)).await;
        let app = database.connect().await;
        stopped(&app, "PGR01", "DO $$ BEGIN FOR i IN 1..2000 LOOP DELETE FROM users WHERE id = i; COMMIT; END LOOP; END $$").await;
        assert_eq!(2000 - count(&client, "users").await, 500);
        age(&client, 1, 2).await;
        stopped(&app, "PGR01", "CALL purge(51, 200, 10)").await;
        assert_eq!(2000 - count(&client, "users").await, 1000);
        age(&client, 1, 2).await;
        // In one transaction with savepoints, one row at a time: the window, not the limit of the transaction.
        run(&app, "DO $$ BEGIN FOR i IN 1001..1100 LOOP BEGIN DELETE FROM users WHERE id = i; EXCEPTION WHEN others THEN RAISE; END; END LOOP; END $$").await;
        assert_eq!(2000 - count(&client, "users").await, 1100);
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn chained_transactions_are_counted_once_each() {
    for_each_server(async |server| {
        let database = server.database("chained").await;
        let mut client = users(&database, 300).await;
        install(&mut client, &windowed(USERS, Some(100), None)).await;
        let app = database.connect().await;
        run(&app, "BEGIN").await;
        for id in 1..=100 {
            run(&app, &format!("DELETE FROM users WHERE id = {id}")).await;
            run(&app, "COMMIT AND CHAIN").await;
        }
        stopped(&app, "PGR01", "DELETE FROM users WHERE id = 101").await;
        assert_eq!(count(&client, "users").await, 200);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_stopped_or_rolled_back_does_not_use_it_up() {
    for_each_server(async |server| {
        let database = server.database("rolled_back").await;
        let mut client = users(&database, 2000).await;
        install(&mut client, &windowed(USERS, Some(500), None)).await;
        let app = database.connect().await;
        for _ in 0..30 {
            stopped(&app, "PGR01", "DELETE FROM users").await;
            run(&app, "BEGIN; DELETE FROM users WHERE id <= 100; ROLLBACK").await;
        }
        // Half of it may be taken by them, no more.
        let (deleted, _) = one_by_one(&app, 1).await;
        assert!((220..=500).contains(&deleted), "{deleted}");
        age(&client, 1, 2).await;
        // The same when each transaction is counted: nothing at all. With savepoints, and as constraints are set to immediate.
        let (deleted, _) = one_by_one(&app, 501).await;
        assert_eq!(deleted, 500);
        age(&client, 1, 2).await;
        run(&app, "DELETE FROM users WHERE id BETWEEN 1001 AND 1100").await;
        run(&app, "DELETE FROM users WHERE id BETWEEN 1101 AND 1200").await;
        for _ in 0..30 {
            stopped(&app, "PGR01", "DELETE FROM users").await;
        }
        run(&app, "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; DELETE FROM users WHERE id BETWEEN 1201 AND 1250; SAVEPOINT s; DELETE FROM users WHERE id BETWEEN 1251 AND 1260; ROLLBACK TO s; SET CONSTRAINTS ALL IMMEDIATE; DELETE FROM users WHERE id BETWEEN 1261 AND 1300; COMMIT").await;
        run(&app, "BEGIN; SAVEPOINT s; DELETE FROM users WHERE id = 1301; ROLLBACK TO s; DELETE FROM users WHERE id BETWEEN 1302 AND 1310; COMMIT").await;
        // 200, then 50 + 10 that were rolled back within the transaction + 40, then 1 + 9.
        let (deleted, _) = one_by_one(&app, 1311).await;
        assert_eq!(deleted, 190);
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn it_slides_with_the_time() {
    for_each_server(async |server| {
        let database = server.database("slides").await;
        let mut client = users(&database, 2000).await;
        install(&mut client, &windowed(USERS, Some(300), None)).await;
        let app = database.connect().await;
        assert_eq!(one_by_one(&app, 1).await.0, 300);
        // One bucket later, what is in the former one counts by the share that is still in the window.
        age(&client, 1, 1).await;
        let at = "SELECT (extract(epoch FROM clock_timestamp()) / 3600 % 1)::float8";
        let before: f64 = client.query_one(at, &[]).await.expect("share").get(0);
        let (deleted, _) = one_by_one(&app, 301).await;
        let after: f64 = client.query_one(at, &[]).await.expect("share").get(0);
        if before <= after {
            let deleted = f64::from(deleted);
            assert!(
                deleted >= (300.0 * before).floor() - 1.0 && deleted <= (300.0 * after).ceil() + 1.0,
                "{deleted} of {before} to {after}"
            );
        }
        age(&client, 1, 2).await;
        assert_eq!(one_by_one(&app, 701).await.0, 300);
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_the_statistics_starts_it_anew() {
    for_each_server(async |server| {
        let database = server.database("reset").await;
        let mut client = users(&database, 2000).await;
        install(&mut client, &windowed(USERS, Some(300), None)).await;
        let app = database.connect().await;
        assert_eq!(one_by_one(&app, 1).await.0, 300);
        run(&client, "SELECT setval('pgrail.window_since_1', pg_sequence_last_value('pgrail.window_since_1') - (1000::bigint << 24)); SELECT pg_stat_reset()").await;
        let since = "SELECT since FROM pgrail.windows(NULL)";
        let before: i64 = client.query_one(since, &[]).await.expect("since").get(0);
        assert_eq!(one_by_one(&app, 301).await.0, 300);
        let after: i64 = client.query_one(since, &[]).await.expect("since").get(0);
        assert!(after - before >= 1000, "{before} {after}");
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn partitions_and_their_leaves_are_one_table_and_a_dropped_one_resets_nothing() {
    for_each_server(async |server| {
        let database = server.database("partitions").await;
        let mut client = database.connect().await;
        run(&client, "CREATE TABLE users (id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
            CREATE TABLE users_0 PARTITION OF users FOR VALUES IN (0); CREATE TABLE users_1 PARTITION OF users FOR VALUES IN (1); CREATE TABLE users_2 PARTITION OF users FOR VALUES IN (2);
            INSERT INTO users SELECT i, i % 3 FROM generate_series(1, 900) i").await;
        install(&mut client, &windowed(USERS, Some(300), None)).await;
        let app = database.connect().await;
        for id in 1..=200 {
            run(&app, &format!("DELETE FROM users_{} WHERE id = {id}", id % 3)).await;
        }
        // Rows that an UPDATE moves are not removed.
        run(&app, "UPDATE users SET part = 2 WHERE part = 1 AND id > 700").await;
        run(&client, "SET session_replication_role = replica; DROP TABLE users_0; RESET session_replication_role").await;
        let (_, applied) = reconcile(&mut client, &windowed(USERS, Some(300), None)).await;
        assert!(applied.is_complete());
        let mut deleted = 200;
        for id in (202..=690).filter(|id| id % 3 == 1) {
            // A row that the same transaction inserts does not make up for it.
            match app.batch_execute(&format!("BEGIN; INSERT INTO users VALUES ({}, 1); DELETE FROM users WHERE id = {id}; COMMIT", id + 10_000)).await {
                Ok(()) => deleted += 1,
                Err(error) => {
                    assert_eq!(error.code().expect("a code").code(), "PGR01");
                    run(&app, "ROLLBACK").await;
                    break;
                }
            }
        }
        assert_eq!(deleted, 300);
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_self_referencing_table_counts_its_own_rows() {
    for_each_server(async |server| {
        let database = server.database("tree").await;
        let mut client = database.connect().await;
        run(&client, "CREATE TABLE users (id int PRIMARY KEY, parent int REFERENCES users ON DELETE CASCADE); CREATE INDEX ON users (parent);
            INSERT INTO users SELECT i, CASE WHEN i > 100 THEN (i - 101) / 9 + 1 END FROM generate_series(1, 1000) i").await;
        install(&mut client, &windowed(USERS, Some(300), None)).await;
        let app = database.connect().await;
        let (deleted, _) = one_by_one(&app, 1).await;
        // Ten rows each.
        assert_eq!((deleted, count(&client, "users").await), (30, 700));
        drop(app);
        database.finish().await;
    })
    .await;
}

/// Rows that are deleted because of a root above are counted there only.
#[tokio::test]
async fn what_another_root_takes_by_cascade_leaves_half_of_the_window() {
    for_each_server(async |server| {
        let database = server.database("above").await;
        let mut client = friday(&database, 60).await;
        let spec = windowed(&[("public", "users"), ("public", "messages")], Some(100), None);
        install(&mut client, &spec).await;
        let app = database.connect().await;
        // 40 users have 4,000 messages.
        for id in 1..=40 {
            run(&app, &format!("DELETE FROM users WHERE id = {id}")).await;
        }
        let mut deleted = 0;
        for id in 5001..6000 {
            if let Err(error) = app.batch_execute(&format!("DELETE FROM messages WHERE id = {id}")).await {
                assert_eq!(error.code().expect("a code").code(), "PGR01");
                break;
            }
            deleted += 1;
        }
        assert!((44..=100).contains(&deleted), "{deleted}");
        // And those do not stop the users.
        run(&app, "DELETE FROM users WHERE id BETWEEN 41 AND 45").await;
        drop(app);
        database.finish().await;
    })
    .await;
}

async fn login(server: &pgrail_testing::Server, admin: &Client, role: &str) -> String {
    let role = server.role_name(role);
    run(admin, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")).await;
    role
}

#[tokio::test]
async fn an_allowance_has_a_window_of_its_own_and_takes_little_from_the_others() {
    for_each_server(async |server| {
        let database = server.database("allowance").await;
        let mut client = users(&database, 5000).await;
        let job = login(&server, &client, "job").await;
        let window = Some(Window { duration: 7200, max_rows: Some(1000), max_cascade_rows: None });
        let limits = PartialLimits { max_rows: Some(400), window, ..PartialLimits::default() };
        let allowance = Allowance { role: job.clone(), limits, operations: vec![Operation::Delete] };
        install(&mut client, &GuardSpec { allowances: vec![allowance], ..windowed(USERS, Some(300), None) }).await;
        let (app, purge) = (database.connect().await, database.connect_as(&job, "secret").await);
        let (deleted, error) = one_by_one(&purge, 1).await;
        // Up to half of the guard's window is not attributed to anybody.
        assert!((1000..=1000 + 300).contains(&deleted), "{deleted}");
        let (of_others, _) = one_by_one(&app, 2001).await;
        assert!((0..=300).contains(&of_others) && deleted + of_others <= 1300, "{deleted} {of_others} {error:?}");
        // Later, a purge in large transactions.
        age(&client, 1, 2).await;
        run(&client, "DROP TABLE IF EXISTS nothing").await;
        for parity in ["even", "odd"] {
            run(&client, &format!("SELECT setval('pgrail.window_rows_{parity}_w1_1', 0)")).await;
        }
        run(&purge, "DELETE FROM users WHERE id BETWEEN 3001 AND 3400").await;
        run(&purge, "DELETE FROM users WHERE id BETWEEN 3401 AND 3800").await;
        let error = stopped(&purge, "PGR01", "DELETE FROM users WHERE id BETWEEN 3801 AND 4200").await;
        assert!(error.message().contains("more than 1000 of its rows within 2 h (window.maxRows)"), "{error:?}");
        assert!(error.detail().unwrap_or_default().contains("Under the allowance of"), "{error:?}");
        assert!(one_by_one(&app, 4201).await.0 >= 130);
        // Withdrawn: so are its counters.
        install(&mut client, &windowed(USERS, Some(300), None)).await;
        assert_eq!(count(&client, "pg_class c WHERE c.relname LIKE 'window%\\_w%'").await, 0);
        drop((app, purge));
        run(&client, &format!("DROP OWNED BY {job}; DROP ROLE {job}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_exemption_goes_beyond_the_window_within_its_limits() {
    for_each_server(async |server| {
        let database = server.database("exemption").await;
        let mut client = users(&database, 5000).await;
        let admin = login(&server, &client, "admin").await;
        install(&mut client, &windowed(USERS, Some(300), None)).await;
        let (app, purge) = (database.connect().await, database.connect_as(&admin, "secret").await);
        assert_eq!(one_by_one(&app, 1).await.0, 300);
        stopped(&purge, "PGR01", "DELETE FROM users WHERE id = 301").await;
        let now: i64 =
            client.query_one("SELECT extract(epoch FROM clock_timestamp())::int8", &[]).await.expect("now").get(0);
        let mut spec = ExemptionSpec {
            name: GuardName::new("a/purge").unwrap(),
            object: "one".to_owned(),
            owner: ClusterId::local(),
            guards: vec![GuardName::new("a/b").unwrap()],
            role: admin.clone(),
            tables: Vec::new(),
            limits: PartialLimits { max_rows: Some(1000), ..PartialLimits::default() },
            unlimited: false,
            total_rows: None,
            operations: vec![Operation::Delete],
            not_before: None,
            not_after: now + 3600,
        };
        let give = async |client: &mut Client, spec: &ExemptionSpec| {
            let plan = plan_exemption(spec, &observe(client).await.expect("observe")).expect("plan");
            assert!(apply(client.as_mut(), &plan).await.expect("apply").is_complete());
        };
        // Without a window of its own: as much as it may remove in one transaction.
        give(&mut client, &spec).await;
        run(&purge, "DELETE FROM users WHERE id BETWEEN 301 AND 1300").await;
        stopped(&purge, "PGR01", "DELETE FROM users WHERE id = 1301").await;
        spec.unlimited = true;
        spec.limits = PartialLimits::default();
        give(&mut client, &spec).await;
        run(&purge, "DELETE FROM users WHERE id BETWEEN 1301 AND 3300").await;
        run(&purge, "DELETE FROM users WHERE id BETWEEN 3301 AND 4300").await;
        let used: i64 = client.query_one("SELECT sum(rows)::int8 FROM pgrail.usage", &[]).await.expect("usage").get(0);
        assert_eq!(used, 4000);
        stopped(&app, "PGR01", "DELETE FROM users WHERE id = 4301").await;
        // What the exemption allowed is not in the window of the others.
        age(&client, 1, 2).await;
        assert_eq!(one_by_one(&app, 4301).await.0, 300);
        drop((app, purge));
        run(&client, &format!("DROP OWNED BY {admin}; DROP ROLE {admin}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_warns_warns() {
    for_each_server(async |server| {
        let database = server.database("warn").await;
        let mut client = users(&database, 500).await;
        install(&mut client, &GuardSpec { mode: Mode::Warn, ..windowed(USERS, Some(100), None) }).await;
        let app = database.connect().await;
        for id in 1..=150 {
            run(&app, &format!("DELETE FROM users WHERE id = {id}")).await;
        }
        let counters = pgrail_guard::counters(&client).await.expect("counters");
        assert_eq!(counters[0].blocked_attempts, 50);
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn no_role_of_the_application_can_reset_it() {
    for_each_server(async |server| {
        let database = server.database("hostile").await;
        let mut client = users(&database, 500).await;
        let role = login(&server, &client, "app").await;
        install(&mut client, &windowed(USERS, Some(100), None)).await;
        let app = database.connect_as(&role, "secret").await;
        assert_eq!(one_by_one(&app, 1).await.0, 100);
        for sql in [
            "SELECT setval('pgrail.window_rows_1', 1000000)",
            "SELECT nextval('pgrail.window_rows_even_1')",
            "SELECT setval('pgrail.window_rows_odd_1', 0)",
            "SELECT setval('pgrail.window_counted_1', 0)",
            "DROP SEQUENCE pgrail.window_rows_1",
            "ALTER SEQUENCE pgrail.window_rows_even_1 RESTART",
            "INSERT INTO pgrail.removal VALUES (1, 0, '{}', '{}', '{}')",
            "SELECT pgrail.count_in_window('rows', '1', 3600, 1)",
            "SELECT pgrail.observe_window('{}', 'rows', 1, 100, 3600, 100, 0, 0, 0, 0)",
            "CREATE OR REPLACE FUNCTION pgrail.window_1() RETURNS bool LANGUAGE sql AS 'SELECT false'",
        ] {
            assert_eq!(refused(&app, sql).await.code().code(), "42501", "{sql}");
        }
        // Calls without deletes count nothing, and forged operators and settings change nothing.
        run(&app, "SELECT pgrail.check_window(1), pgrail.window_1()").await;
        run(&client, &format!("CREATE SCHEMA forged AUTHORIZATION {role}")).await;
        run(&app, "CREATE FUNCTION forged.yes(int8, int8) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR forged.= (FUNCTION = forged.yes, LEFTARG = int8, RIGHTARG = int8);
            CREATE FUNCTION forged.to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT NULL::regclass'").await;
        for set in ["SET search_path = forged, pg_catalog, public", "SET stats_fetch_consistency = snapshot", "SET CONSTRAINTS ALL IMMEDIATE", "SET pgrail.note_1 = 'x'"] {
            stopped(&app, "PGR01", &format!("{set}; DELETE FROM public.users WHERE id = 101")).await;
        }
        drop(app);
        run(&client, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

/// Where no other table can lose rows, only the counter of the table is read; a foreign key that comes later counts.
#[tokio::test]
async fn a_limit_for_other_tables_costs_nothing_until_there_are_some() {
    for_each_server(async |server| {
        let database = server.database("alone").await;
        let mut client = users(&database, 200).await;
        install(&mut client, &windowed(USERS, None, Some(100))).await;
        let reads = "pg_proc p WHERE p.proname = 'window_1' AND p.prosrc ~ 'window_cascade|pg_stat_get'";
        assert_eq!(count(&client, reads).await, 0);
        let app = database.connect().await;
        for id in 1..=100 {
            run(&app, &format!("DELETE FROM users WHERE id = {id}")).await;
        }
        // Used up by its rows, each transaction is counted by then.
        install(&mut client, &windowed(USERS, Some(20), Some(100))).await;
        assert_eq!(one_by_one(&app, 101).await.0, 20);
        run(&client, "CREATE TABLE leads (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE); CREATE INDEX ON leads (user_id);
                      INSERT INTO leads SELECT i, 121 + i % 80 FROM generate_series(1, 800) i").await;
        install(&mut client, &windowed(USERS, None, Some(100))).await;
        assert_eq!(count(&client, reads).await, 1);
        let (deleted, error) = one_by_one(&app, 121).await;
        assert_eq!(deleted, 10, "{error:?}");
        assert!(error.message().ends_with("(window.maxCascadeRows)"), "{error:?}");
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn it_can_be_added_changed_and_removed() {
    for_each_server(async |server| {
        let database = server.database("changed").await;
        let mut client = users(&database, 1000).await;
        install(&mut client, &guard("a/b", USERS)).await;
        let app = database.connect().await;
        for id in 1..=150 {
            run(&app, &format!("DELETE FROM users WHERE id = {id}")).await;
        }
        // What was before does not count.
        install(&mut client, &windowed(USERS, Some(100), Some(10))).await;
        assert_eq!(one_by_one(&app, 151).await.0, 100);
        // A larger limit: what was removed still counts.
        install(&mut client, &windowed(USERS, Some(130), None)).await;
        assert_eq!(one_by_one(&app, 251).await.0, 30);
        install(&mut client, &windowed(USERS, Some(100), None)).await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id = 281").await;
        // Changed by others: reported and repaired.
        run(&client, "DROP SEQUENCE pgrail.window_rows_1; DROP TRIGGER pgrail_window_1 ON users").await;
        let (plan, applied) = reconcile(&mut client, &windowed(USERS, Some(100), None)).await;
        assert!(applied.is_complete() && !plan.drift().is_empty());
        install(&mut client, &guard("a/b", USERS)).await;
        run(&app, "DELETE FROM users WHERE id BETWEEN 281 AND 380").await;
        run(&app, "DELETE FROM users WHERE id BETWEEN 381 AND 480").await;
        assert_eq!(count(&client, "pg_class c WHERE c.relname LIKE 'window%'").await, 0);
        install(&mut client, &windowed(USERS, Some(100), None)).await;
        assert!(remove(&mut client, "a/b").await.is_complete());
        assert_eq!(count(&client, "pg_namespace n WHERE n.nspname = 'pgrail'").await, 0);
        run(&app, "DELETE FROM users").await;
        drop(app);
        database.finish().await;
    })
    .await;
}

/// A sequence that others dropped stops no statement until it is there again.
#[tokio::test]
async fn a_dropped_sequence_fails_no_delete() {
    for_each_server(async |server| {
        let database = server.database("dropped").await;
        let mut client = users(&database, 300).await;
        install(&mut client, &windowed(USERS, Some(100), Some(100))).await;
        let app = database.connect().await;
        assert_eq!(one_by_one(&app, 1).await.0, 100);
        run(&client, "DO $$ DECLARE s text; BEGIN FOR s IN SELECT relname FROM pg_class WHERE relkind = 'S' AND relname LIKE 'window%' LOOP EXECUTE 'DROP SEQUENCE pgrail.' || s; END LOOP; END $$").await;
        run(&app, "DELETE FROM users WHERE id = 101").await;
        drop(app);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_rehearsal_uses_nothing_and_says_what_is_left() {
    for_each_server(async |server| {
        let database = server.database("rehearsal").await;
        let mut client = users(&database, 500).await;
        install(&mut client, &windowed(USERS, Some(100), None)).await;
        let app = database.connect().await;
        for id in 1..=80 {
            run(&app, &format!("DELETE FROM users WHERE id = {id}")).await;
        }
        for _ in 0..5 {
            let rehearsal = rehearse(&client, "DELETE FROM users WHERE id BETWEEN 81 AND 100").await;
            assert_eq!(rehearsal.verdict, Verdict::Passes);
            assert_eq!(rehearsal.windows[0].rows, Some((80, 100)));
            let rehearsal = rehearse(&client, "DELETE FROM users WHERE id BETWEEN 81 AND 101").await;
            let Verdict::Stopped(stop) = &rehearsal.verdict else { panic!("{rehearsal:?}") };
            assert!(stop.message.ends_with("(window.maxRows)"), "{stop:?}");
            assert_eq!((rehearsal.total.deleted, rehearsal.incomplete), (21, None));
        }
        assert_eq!(one_by_one(&app, 81).await.0, 20);
        drop(app);
        database.finish().await;
    })
    .await;
}

/// Transactions of several sessions that commit and roll back, while time passes. What an oracle counts by the same clock is
/// never exceeded; and what it allows is stopped only where rows count that were rolled back, or were not counted in time.
#[tokio::test]
async fn random_schedules_agree_with_an_oracle() {
    for_each_server(async |server| {
        let mut stopped_at_all = 0;
        for seed in 1..=4_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |below: i64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                i64::try_from(state % u64::try_from(below).unwrap()).unwrap()
            };
            let database = server.database("schedule").await;
            let mut client = users(&database, 4000).await;
            let limit = 8 + random(250);
            let window = Some(Window { duration: 86_400, max_rows: Some(limit), max_cascade_rows: None });
            let spec = GuardSpec { limits: TableLimits { window, ..TableLimits::default() }, ..guard("a/b", USERS) };
            install(&mut client, &spec).await;
            let apps = [database.connect().await, database.connect().await, database.connect().await];
            let share = async || -> f64 {
                let sql = "SELECT 1 - (extract(epoch FROM clock_timestamp())::float8 / 86400 - floor(extract(epoch FROM clock_timestamp())::float8 / 86400))";
                client.query_one(sql, &[]).await.expect("clock").get(0)
            };
            let (mut present, mut former, mut rolled_back, mut next, mut allowed, mut refused) = (0, 0, 0, 1, 0, 0);
            for step in 0..150 {
                let app = &apps[usize::try_from(random(3)).unwrap()];
                let most = if random(4) == 0 { 90 } else { 4 };
                let (what, rows) = (random(20), 1 + random(most));
                let delete = format!("DELETE FROM users WHERE id >= {next} AND id < {}", next + rows);
                match what {
                    0 => {
                        age(&client, 1, 1).await;
                        (former, present) = (present, 0);
                    }
                    1 => {
                        age(&client, 1, 2).await;
                        (former, present) = (0, 0);
                    }
                    2 | 3 => {
                        rolled_back += rows;
                        let _ = app.batch_execute(&format!("BEGIN; {delete}")).await;
                        run(app, "ROLLBACK").await;
                    }
                    _ => {
                        let halves = format!("BEGIN; DELETE FROM users WHERE id = {next}; {delete}; COMMIT");
                        let result = app.batch_execute(if what % 2 == 0 { &delete } else { &halves }).await;
                        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "hundreds")]
                        let counted = present + (former as f64 * share().await).floor() as i64 + rows;
                        let about = format!("seed {seed}, step {step}, limit {limit}: {present} + {former} + {rows}, {rolled_back} rolled back");
                        match result {
                            Ok(()) => {
                                assert!(counted <= limit, "exceeded: {about}");
                                present += rows;
                                next += rows;
                                allowed += 1;
                            }
                            Err(error) => {
                                assert_eq!(error.code().map(|code| code.code().to_owned()).as_deref(), Some("PGR01"), "{about}: {error:?}");
                                run(app, "ROLLBACK").await;
                                let late = limit / 4 + limit / 16 + 2;
                                let tolerated = late + rolled_back.min(limit / 2);
                                assert!(present + former + rows + tolerated > limit, "stopped too early: {about}");
                                refused += 1;
                            }
                        }
                    }
                }
            }
            stopped_at_all += refused;
            assert!(allowed > 10, "seed {seed}: {allowed} allowed, {refused} stopped");
            drop(apps);
            drop(client);
            database.finish().await;
        }
        assert!(stopped_at_all > 10, "{stopped_at_all} stopped");
    })
    .await;
}

/// What removes many rows is counted in a few steps, and exactly.
#[tokio::test]
async fn many_rows_are_counted_in_blocks_and_exactly() {
    for_each_server(async |server| {
        let database = server.database("blocks").await;
        let mut client = users(&database, 20_000).await;
        let window = Some(Window { duration: 86_400, max_rows: Some(12_000), max_cascade_rows: None });
        let limits = TableLimits { max_rows: 20_000, window, ..TableLimits::default() };
        install(&mut client, &GuardSpec { limits, ..guard("a/b", USERS) }).await;
        let app = database.connect().await;
        let used = async || pgrail_guard::windows(&client, None).await.expect("windows")[0].rows;
        run(&app, "DELETE FROM users WHERE id <= 5000").await;
        run(&app, "DELETE FROM users WHERE id <= 9999").await;
        assert_eq!(used().await, Some((9999, 12_000)));
        run(&app, "DELETE FROM users WHERE id <= 10063").await;
        assert_eq!(used().await, Some((10_063, 12_000)));
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 12001").await;
        run(&app, "DELETE FROM users WHERE id <= 12000").await;
        assert_eq!(used().await, Some((12_000, 12_000)));
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 12001").await;
        age(&client, 1, 2).await;
        run(&app, "DELETE FROM users WHERE id <= 12001").await;
        database.finish().await;
    })
    .await;
}
