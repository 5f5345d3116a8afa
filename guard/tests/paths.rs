//! Every way to lose rows in bulk, and everything that must not be hurt.
#![allow(missing_docs)]
mod common;

use futures::TryStreamExt as _;

use common::{count, friday, guard, install, limited, reconcile, run, stopped};
use pgrail_guard::{GuardSpec, Mode, TableLimits};
use pgrail_testing::for_each_server;

const USERS: &[(&str, &str)] = &[("public", "users")];

#[tokio::test]
async fn every_statement_that_deletes_is_counted() {
    for_each_server(async |server| {
        let database = server.database("paths").await;
        let mut client = friday(&database, 30).await;
        run(&client, "DELETE FROM leads; DELETE FROM analytics; CREATE TABLE doomed AS SELECT id FROM users").await;
        run(
            &client,
            "CREATE FUNCTION wipe() RETURNS void LANGUAGE sql AS 'DELETE FROM users';
             CREATE FUNCTION wipe_each() RETURNS void LANGUAGE plpgsql AS $$ DECLARE x int; BEGIN FOR x IN SELECT id FROM users LOOP DELETE FROM users WHERE id = x; END LOOP; END $$;
             CREATE FUNCTION swallow() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM users; RETURN 0; EXCEPTION WHEN OTHERS THEN RETURN 1; END $$;
             CREATE VIEW people AS SELECT * FROM users;
             CREATE TABLE bell (id int); CREATE FUNCTION ring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM users; RETURN NULL; END $$;
             CREATE TRIGGER ring AFTER INSERT ON bell FOR EACH ROW EXECUTE FUNCTION ring();
             CREATE TABLE ruled (id int); CREATE RULE r AS ON INSERT TO ruled DO INSTEAD DELETE FROM users;
             CREATE PROCEDURE purge() LANGUAGE plpgsql AS $$ DECLARE i int; BEGIN FOR i IN 0..5 LOOP DELETE FROM users WHERE id BETWEEN i * 5 + 1 AND i * 5 + 5; COMMIT; END LOOP; END $$",
        )
        .await;
        install(&mut client, &limited("a/b", USERS, 5, 0)).await;
        let app = database.connect().await;
        for sql in [
            "DELETE FROM users",
            "DELETE FROM users USING doomed WHERE users.id = doomed.id",
            "WITH gone AS (DELETE FROM users RETURNING id) SELECT count(*) FROM gone",
            "WITH a AS (DELETE FROM users WHERE id <= 3), b AS (DELETE FROM users WHERE id BETWEEN 4 AND 6) SELECT 1",
            "MERGE INTO users USING doomed ON users.id = doomed.id WHEN MATCHED THEN DELETE",
            "SELECT wipe()",
            "SELECT wipe_each()",
            "DO $$ DECLARE i int; BEGIN FOR i IN 1..6 LOOP DELETE FROM users WHERE id = i; END LOOP; END $$",
            "DELETE FROM users WHERE id <= 3; DELETE FROM users WHERE id <= 6",
            "BEGIN; DELETE FROM users WHERE id <= 3; SAVEPOINT s; DELETE FROM users WHERE id <= 6",
            "DELETE FROM people",
            "INSERT INTO bell VALUES (1)",
            "INSERT INTO ruled VALUES (1)",
            "PREPARE d AS DELETE FROM users WHERE id <= $1; EXECUTE d(10)",
            "BEGIN; SET CONSTRAINTS ALL DEFERRED; DELETE FROM users",
            "DELETE FROM ONLY users",
            "BEGIN; DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE; FETCH c; DELETE FROM users WHERE CURRENT OF c; FETCH c; DELETE FROM users WHERE CURRENT OF c; FETCH c; DELETE FROM users WHERE CURRENT OF c; FETCH c; DELETE FROM users WHERE CURRENT OF c; FETCH c; DELETE FROM users WHERE CURRENT OF c; FETCH c; DELETE FROM users WHERE CURRENT OF c",
        ] {
            stopped(&app, "PGR01", sql).await;
            assert_eq!(count(&client, "users").await, 30, "{sql}");
        }
        let copy = app.copy_out("COPY (DELETE FROM users RETURNING *) TO STDOUT").await;
        let error = match copy {
            Ok(rows) => rows.try_collect::<Vec<_>>().await.err(),
            Err(error) => Some(error),
        };
        assert_eq!(error.and_then(|error| error.code().map(|code| code.code().to_owned())), Some("PGR01".to_owned()));
        // An error that is swallowed has undone the delete all the same.
        assert_eq!(app.query_one("SELECT swallow()", &[]).await.expect("swallow").get::<_, i32>(0), 1);
        assert_eq!(count(&client, "users").await, 30);
        // Prepared statements, one transaction each: five rows at a time are fine.
        let statement = app.prepare("DELETE FROM users WHERE id = $1").await.expect("prepare");
        for id in 1..=10_i32 {
            app.execute(&statement, &[&id]).await.expect("delete");
        }
        // Pipelined: sent together, each a statement and a transaction of its own; in one transaction they count together.
        let many = app.prepare("DELETE FROM users WHERE id = ANY ($1)").await.expect("prepare");
        let delete = async |from: i32| app.execute(&many, &[&(from..from + 3).collect::<Vec<i32>>()]).await;
        let (first, second) = tokio::join!(delete(20), delete(23));
        assert_eq!((first.expect("three rows"), second.expect("three more")), (3, 3));
        let (begun, first, second) = tokio::join!(app.batch_execute("BEGIN"), delete(26), delete(11));
        begun.expect("begin");
        assert_eq!(first.expect("three rows"), 3);
        assert_eq!(second.expect_err("six rows").code().map(tokio_postgres::error::SqlState::code), Some("PGR01"));
        run(&app, "ROLLBACK").await;
        // A session that deleted up to the limit starts at zero with its next transaction.
        for _ in 0..3 {
            run(&app, "BEGIN; DELETE FROM users WHERE id BETWEEN 11 AND 15; ROLLBACK").await;
        }
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id BETWEEN 11 AND 16").await;
        // A temporary table of the same name is nobody's business.
        run(&app, "CREATE TEMP TABLE users AS SELECT generate_series(1, 100) AS id; DELETE FROM users; DROP TABLE pg_temp.users").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_procedure_that_commits_its_batches_passes() {
    for_each_server(async |server| {
        let database = server.database("procedure").await;
        let mut client = friday(&database, 60).await;
        run(
            &client,
            "DELETE FROM leads; DELETE FROM analytics;
             CREATE PROCEDURE purge(batch int) LANGUAGE plpgsql AS $$ DECLARE i int := 0; BEGIN
               WHILE EXISTS (SELECT FROM users) LOOP DELETE FROM users WHERE id IN (SELECT id FROM users ORDER BY id LIMIT batch); COMMIT; END LOOP; END $$",
        )
        .await;
        install(&mut client, &limited("a/b", USERS, 5, 0)).await;
        let app = database.connect().await;
        stopped(&app, "PGR01", "CALL purge(6)").await;
        assert_eq!(count(&client, "users").await, 60);
        run(&app, "CALL purge(5)").await;
        assert_eq!(count(&client, "users").await, 0);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn cascades_of_every_shape_are_counted() {
    for_each_server(async |server| {
        let database = server.database("shapes").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE root (id int PRIMARY KEY, code text UNIQUE, a int, b int, UNIQUE (a, b));
             CREATE TABLE by_code (code text REFERENCES root (code) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE composite (a int, b int, FOREIGN KEY (a, b) REFERENCES root (a, b) ON DELETE CASCADE);
             CREATE TABLE nulled (id int, root_id int REFERENCES root ON DELETE SET NULL);
             CREATE TABLE defaulted (id int, root_id int DEFAULT 0 REFERENCES root ON DELETE SET DEFAULT);
             CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE);
             CREATE TABLE left_side (id int PRIMARY KEY, root_id int REFERENCES root ON DELETE CASCADE);
             CREATE TABLE right_side (id int PRIMARY KEY, root_id int REFERENCES root ON DELETE CASCADE, left_id int REFERENCES left_side ON DELETE CASCADE);
             CREATE TABLE bottom (left_id int REFERENCES left_side ON DELETE CASCADE, right_id int REFERENCES right_side ON DELETE CASCADE);
             CREATE TABLE no_action (root_id int REFERENCES root);
             INSERT INTO root SELECT i, i::text, i, i FROM generate_series(0, 40) i;
             INSERT INTO by_code SELECT (i % 10 + 1)::text FROM generate_series(1, 30) i;
             INSERT INTO composite SELECT 11, 11 FROM generate_series(1, 20);
             INSERT INTO nulled SELECT i, 12 FROM generate_series(1, 20) i;
             INSERT INTO defaulted SELECT i, 13 FROM generate_series(1, 20) i;
             INSERT INTO left_side VALUES (1, 14); INSERT INTO right_side VALUES (1, NULL, 1), (2, 14, NULL);
             INSERT INTO bottom SELECT 1, 1 FROM generate_series(1, 8); INSERT INTO bottom SELECT NULL, 2 FROM generate_series(1, 8);
             INSERT INTO tree SELECT i, nullif(i - 1, 0) FROM generate_series(1, 40) i",
        )
        .await;
        install(&mut client, &limited("a/b", &[("public", "root"), ("public", "tree")], 12, 15)).await;
        for sql in [
            "DELETE FROM root WHERE id BETWEEN 1 AND 6",
            "DELETE FROM root WHERE id = 11",
            "DELETE FROM root WHERE id = 12",
            "DELETE FROM root WHERE id = 13",
            "DELETE FROM root WHERE id = 14",
        ] {
            let error = stopped(&client, "PGR01", sql).await;
            assert!(error.message().contains("maxCascadeRows"), "{sql}: {error:?}");
        }
        // 3 rows each: 5 of them are 15, which is the limit.
        run(&client, "BEGIN; DELETE FROM root WHERE id BETWEEN 1 AND 5; ROLLBACK").await;
        // Rows that go by self-reference are the root's own.
        let error = stopped(&client, "PGR01", "DELETE FROM tree WHERE id = 28").await;
        assert!(error.message().contains("maxRows"), "{error:?}");
        run(&client, "BEGIN; DELETE FROM tree WHERE id = 29; ROLLBACK").await;
        // Updates that came first are not nulled rows.
        run(&client, "BEGIN; UPDATE nulled SET id = id + 1; UPDATE nulled SET root_id = 20 WHERE id < 5; DELETE FROM root WHERE id = 20; ROLLBACK").await;
        stopped(&client, "PGR01", "BEGIN; UPDATE nulled SET id = id + 1; DELETE FROM root WHERE id = 12").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_cascade_counts_at_the_root_it_started_from() {
    for_each_server(async |server| {
        let database = server.database("nested").await;
        let mut client = friday(&database, 40).await;
        run(&client, "CREATE TABLE tenants (id int PRIMARY KEY); INSERT INTO tenants VALUES (1); ALTER TABLE users ADD tenant int DEFAULT 1 REFERENCES tenants ON DELETE CASCADE").await;
        // leads are guarded too, tightly: what a user takes of them counts for the user.
        install(&mut client, &limited("a/users", USERS, 5, 1000)).await;
        install(&mut client, &limited("a/leads", &[("public", "leads")], 3, 1000)).await;
        run(&client, "BEGIN; DELETE FROM users WHERE id <= 5; ROLLBACK").await;
        let error = stopped(&client, "PGR01", "DELETE FROM leads WHERE id <= 4").await;
        assert!(error.detail().unwrap_or_default().contains("a/leads"), "{error:?}");
        run(&client, "BEGIN; DELETE FROM leads WHERE id <= 3; ROLLBACK").await;
        // Neither rows of leads nor what hangs on them: 5 users' worth of messages is beyond what leads allow.
        install(&mut client, &limited("a/leads", &[("public", "leads")], 3, 20)).await;
        run(&client, "BEGIN; DELETE FROM users WHERE id <= 5; ROLLBACK").await;
        stopped(&client, "PGR01", "DELETE FROM leads WHERE id = 1").await;
        install(&mut client, &limited("a/leads", &[("public", "leads")], 3, 1000)).await;
        // A guard above that only warns takes nothing from one that stops.
        reconcile(&mut client, &GuardSpec { mode: Mode::Warn, ..limited("a/users", USERS, 5, 1000) }).await;
        let error = stopped(&client, "PGR01", "DELETE FROM users WHERE id <= 5").await;
        assert_eq!(error.table(), Some("leads"), "{error:?}");
        install(&mut client, &limited("a/users", USERS, 5, 1000)).await;
        // From an unguarded parent, the first guarded table on the way is the root.
        let error = stopped(&client, "PGR01", "DELETE FROM tenants").await;
        assert_eq!(error.table(), Some("users"), "{error:?}");
        // A cascade from an unguarded parent that passes by is none of a root's business.
        run(&client, "BEGIN; DELETE FROM conversations; ROLLBACK").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_strictest_of_two_guards_holds_and_is_named() {
    for_each_server(async |server| {
        let database = server.database("two").await;
        let mut client = friday(&database, 40).await;
        run(&client, "DELETE FROM leads; DELETE FROM analytics").await;
        let (loose, tight) = (limited("x/loose", USERS, 20, 0), limited("y/tight", USERS, 5, 0));
        install(&mut client, &loose).await;
        install(&mut client, &tight).await;
        let error = stopped(&client, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        assert!(error.detail().unwrap_or_default().contains("y/tight"), "{error:?}");
        // A stricter guard that only warns does so at its limit; the other stops at its own.
        let warning = GuardSpec { mode: pgrail_guard::Mode::Warn, ..tight.clone() };
        install(&mut client, &warning).await;
        run(&client, "BEGIN; DELETE FROM users WHERE id <= 20; ROLLBACK").await;
        let error = stopped(&client, "PGR01", "DELETE FROM users WHERE id <= 21").await;
        assert!(error.detail().unwrap_or_default().contains("x/loose"), "{error:?}");
        assert!(common::remove(&mut client, "x/loose").await.is_complete());
        run(&client, "BEGIN; DELETE FROM users; ROLLBACK").await;
        install(&mut client, &tight).await;
        stopped(&client, "PGR01", "DELETE FROM users WHERE id <= 6").await;
        let counts: Vec<_> = pgrail_guard::counters(&client)
            .await
            .expect("counters")
            .into_iter()
            .map(|counter| (counter.guard, counter.blocked_attempts))
            .collect();
        assert_eq!(counts, [("y/tight".to_owned(), 5)]);
        database.finish().await;
    })
    .await;
}

fn two_levels(rows: i64, cascade: i64, total: i64) -> GuardSpec {
    let limits = TableLimits {
        max_rows: rows,
        max_cascade_rows: cascade,
        max_transaction_rows: Some(total),
        max_updated_rows: None,
        window: None,
    };
    GuardSpec { limits, ..guard("a/b", USERS) }
}

#[tokio::test]
async fn with_a_transaction_total_the_limits_hold_per_client_statement() {
    for_each_server(async |server| {
        let database = server.database("levels").await;
        let mut client = friday(&database, 60).await;
        install(&mut client, &two_levels(3, 400, 1000)).await;
        let app = database.connect().await;
        // 118 rows go with each user: 3 make 354.
        run(&app, "BEGIN").await;
        for first in [1, 4] {
            run(&app, &format!("DELETE FROM users WHERE id BETWEEN {first} AND {}", first + 2)).await;
        }
        let error = common::refused(&app, "DELETE FROM users WHERE id BETWEEN 7 AND 9").await;
        assert!(error.message().contains("maxTransactionRows"), "{error:?}");
        run(&app, "ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 4").await;
        // What is sent in one message is one statement, however it loops.
        stopped(&app, "PGR01", "DO $$ DECLARE i int; BEGIN FOR i IN 1..4 LOOP DELETE FROM users WHERE id = i; END LOOP; END $$").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 2; DELETE FROM users WHERE id <= 4").await;
        // Deletes on the closure are free until the root is touched, then all of the transaction counts to the total.
        run(&app, "BEGIN; DELETE FROM messages; DELETE FROM analytics; ROLLBACK").await;
        run(&app, "BEGIN; DELETE FROM messages; DELETE FROM analytics").await;
        let error = common::refused(&app, "DELETE FROM users WHERE id = 1").await;
        assert!(error.message().contains("maxTransactionRows"), "{error:?}");
        run(&app, "ROLLBACK").await;
        // Forging the note does not lift the total.
        stopped(&app, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 3 AND set_config('pgrail.note_1', 'garbage', true) IS NOT NULL; DELETE FROM users WHERE id <= 10").await;
        // The cascade limit alone.
        install(&mut client, &two_levels(10, 400, 1000)).await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 3; ROLLBACK").await;
        let error = stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 4").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn updates_are_limited_where_asked_per_statement() {
    for_each_server(async |server| {
        let database = server.database("updates").await;
        let mut client = friday(&database, 60).await;
        let limits = TableLimits { max_updated_rows: Some(10), ..TableLimits::default() };
        install(&mut client, &GuardSpec { limits, ..guard("a/b", USERS) }).await;
        let app = database.connect().await;
        let error = stopped(&app, "PGR04", "UPDATE users SET name = 'x'").await;
        assert_eq!(error.table(), Some("users"));
        run(&app, "UPDATE users SET name = 'x' WHERE id <= 10").await;
        stopped(&app, "PGR04", "UPDATE users SET name = 'x' WHERE id <= 11").await;
        run(&app, "BEGIN").await;
        for _ in 0..3 {
            run(&app, "UPDATE users SET name = 'y' WHERE id <= 10").await;
        }
        run(&app, "COMMIT").await;
        stopped(&app, "PGR04", "INSERT INTO users SELECT id, 'z' FROM users ON CONFLICT (id) DO UPDATE SET name = 'z'")
            .await;
        run(&app, "UPDATE leads SET user_id = 1").await;
        assert_eq!(pgrail_guard::counters(&client).await.expect("counters")[0].blocked_attempts, 3);
        database.finish().await;
    })
    .await;
}
