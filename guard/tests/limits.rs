//! Limits of the rows of other tables, whichever way the rows go: exact, and not a row further.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
mod common;

use std::fmt::Write as _;

use common::{count, guard, install, limited, run, stopped};
use pgrail_guard::{Allowance, GuardSpec, Mode, Operation, PartialLimits, TableLimits, counters};
use pgrail_testing::{Client, Database, for_each_server};

const ROOT: &[(&str, &str)] = &[("public", "root")];

/// A root of 40 rows, and `tables` tables that reference it; each of its rows has `rows` rows in each of them.
async fn star(database: &Database, tables: i32, rows: i32) -> Client {
    let client = database.connect().await;
    let mut sql =
        String::from("CREATE TABLE root (id int PRIMARY KEY); INSERT INTO root SELECT generate_series(1, 40);");
    for table in 1..=tables {
        let _ = write!(
            sql,
            "CREATE TABLE t{table} (id int PRIMARY KEY, root_id int REFERENCES root ON DELETE CASCADE);
             INSERT INTO t{table} SELECT i, (i - 1) / {rows} + 1 FROM generate_series(1, 40 * {rows}) i; CREATE INDEX ON t{table} (root_id);"
        );
    }
    run(&client, &sql).await;
    client
}

#[tokio::test]
async fn a_limit_is_exact_in_whichever_tables_the_rows_are() {
    for_each_server(async |server| {
        let database = server.database("exact").await;
        let mut client = star(&database, 4, 25).await;
        run(&client, "CREATE TABLE odd (root_id int REFERENCES root ON DELETE CASCADE); INSERT INTO odd SELECT 10 + i % 2 FROM generate_series(1, 3) i").await;
        install(&mut client, &limited("a/b", ROOT, 40, 1000)).await;
        let app = database.connect().await;
        run(&app, "BEGIN; DELETE FROM root WHERE id BETWEEN 1 AND 9 OR id = 30; ROLLBACK").await;
        // 1,000 rows are within the limit, 1,001 are not, in whichever order the tables come.
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 9; DELETE FROM root WHERE id = 20; ROLLBACK").await;
        let error = stopped(&app, "PGR01", "DELETE FROM root WHERE id <= 10").await;
        assert!(error.message().contains("take more than 1000 rows of other tables in one transaction (maxCascadeRows)"), "{error:?}");
        stopped(&app, "PGR01", "BEGIN; DELETE FROM root WHERE id = 11; DELETE FROM root WHERE id <= 9").await;
        assert_eq!((count(&client, "root").await, count(&client, "t4").await), (40, 1000));
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, 2);
        database.finish().await;
    })
    .await;
}

/// Rows can be deleted in savepoints that are rolled back, or directly, in between: that hides nothing.
#[tokio::test]
async fn what_is_rolled_back_or_deleted_directly_hides_no_row() {
    for_each_server(async |server| {
        let database = server.database("hidden").await;
        let mut client = star(&database, 2, 5).await;
        run(&client, "INSERT INTO root SELECT generate_series(41, 400); INSERT INTO t1 SELECT i + 100000, 41 + i / 5 FROM generate_series(0, 1799) i;
            CREATE TABLE free (id int PRIMARY KEY, root_id int REFERENCES root ON DELETE CASCADE); INSERT INTO free SELECT i, 1 FROM generate_series(1, 10) i").await;
        install(&mut client, &limited("a/b", ROOT, 1000, 100)).await;
        let app = database.connect().await;
        // 15 rows, then one that is rolled back, and so on. The one may be stopped: what is before it was not, then.
        run(&client, "CREATE FUNCTION games(how text) RETURNS int LANGUAGE plpgsql AS $$ DECLARE i int := 40; done int := 0; BEGIN
            WHILE i < 390 LOOP
              DELETE FROM root WHERE id > i AND id <= i + 3;
              i := i + 3; done := done + 15;
              IF how = 'savepoint' THEN
                BEGIN DELETE FROM t1 WHERE id = (SELECT min(id) FROM t1); DELETE FROM root WHERE id = 400; RAISE EXCEPTION 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END;
                BEGIN DELETE FROM root WHERE id = i + 1; RAISE EXCEPTION 'undone'; EXCEPTION WHEN OTHERS THEN NULL; END;
              ELSE
                DELETE FROM t1 WHERE id = (SELECT min(id) FROM t1);
              END IF;
            END LOOP; RETURN done; END $$").await;
        for how in ["savepoint", "direct"] {
            let before = count(&client, "t1").await;
            stopped(&app, "PGR01", &format!("SELECT games('{how}')")).await;
            assert_eq!(count(&client, "t1").await, before, "{how}");
        }
        // The same from outside, with an error that is ignored: no more than the limit is ever committed.
        run(&app, "BEGIN").await;
        let mut removed = 0;
        for first in (41..380).step_by(3) {
            run(&app, "SAVEPOINT a").await;
            if app.batch_execute(&format!("DELETE FROM root WHERE id BETWEEN {first} AND {}", first + 2)).await.is_err() {
                run(&app, "ROLLBACK TO a").await;
                continue;
            }
            removed += 15;
            run(&app, "SAVEPOINT b").await;
            _ = app.batch_execute("DELETE FROM root WHERE id = 400 OR id = 1").await;
            run(&app, "ROLLBACK TO b").await;
        }
        run(&app, "COMMIT").await;
        assert!((15..=100).contains(&removed), "{removed}");
        assert_eq!(count(&client, "t1").await, 2000 - removed);
        database.finish().await;
    })
    .await;
}

/// Constraints, two-phase commit, procedures, settings and notes change nothing: no decision waits for the COMMIT.
#[tokio::test]
async fn no_setting_and_no_kind_of_commit_changes_a_limit() {
    for_each_server(async |server| {
        let database = server.database("kinds").await;
        let mut client = star(&database, 4, 25).await;
        install(&mut client, &limited("a/b", ROOT, 1000, 1000)).await;
        let app = database.connect().await;
        for (before, sql) in [
            ("BEGIN; SET CONSTRAINTS ALL IMMEDIATE", "DELETE FROM root WHERE id <= 11"),
            ("BEGIN; SET CONSTRAINTS ALL DEFERRED", "DELETE FROM root WHERE id <= 11"),
            ("BEGIN; SAVEPOINT a; DELETE FROM root WHERE id <= 10; ROLLBACK TO a", "DELETE FROM root WHERE id = 20"),
            ("BEGIN; DELETE FROM root WHERE id <= 10; SET CONSTRAINTS ALL IMMEDIATE", "DELETE FROM root WHERE id = 20"),
            ("BEGIN; SELECT set_config('pgrail.note_1', 'garbage', true)", "DELETE FROM root WHERE id <= 11"),
            ("BEGIN; DELETE FROM root WHERE id <= 5", "DO $$ BEGIN FOR i IN 6..11 LOOP DELETE FROM root WHERE id = i; END LOOP; END $$"),
        ] {
            run(&app, before).await;
            stopped(&app, "PGR01", sql).await;
            assert_eq!(count(&client, "t1").await, 1000, "{before}");
        }
        // A procedure that commits counts each of its transactions, as before: what it removed before is no transaction's.
        run(&client, "CREATE PROCEDURE purge(batch int) LANGUAGE plpgsql AS $$ DECLARE i int := 0; BEGIN
            WHILE i < 40 LOOP DELETE FROM root WHERE id > i AND id <= i + batch; COMMIT; i := i + batch; END LOOP; END $$").await;
        stopped(&app, "PGR01", "CALL purge(11)").await;
        assert_eq!(count(&client, "t1").await, 1000);
        run(&app, "CALL purge(10)").await;
        assert_eq!(count(&client, "t1").await, 0);
        database.finish().await;
    })
    .await;
}

/// The counters contain an earlier transaction too, where PostgreSQL has no pause in which it resets them.
#[tokio::test]
async fn transactions_that_follow_each_other_without_a_pause_count_alone() {
    for_each_server(async |server| {
        let database = server.database("chained").await;
        let mut client = star(&database, 4, 25).await;
        install(&mut client, &limited("a/b", ROOT, 10, 1000)).await;
        let app = database.connect().await;
        // Each statement a message of its own.
        run(&app, "BEGIN").await;
        run(&app, "DELETE FROM root WHERE id <= 10").await;
        run(&app, "COMMIT AND CHAIN").await;
        run(&app, "DELETE FROM root WHERE id > 10 AND id <= 19").await;
        run(&app, "DELETE FROM root WHERE id = 20").await;
        run(&app, "COMMIT AND CHAIN").await;
        run(&app, "DELETE FROM root WHERE id > 20 AND id <= 30").await;
        stopped(&app, "PGR01", "DELETE FROM root WHERE id = 31").await;
        assert_eq!((count(&client, "root").await, count(&client, "t1").await), (20, 500));
        // What was rolled back, and direct deletes on another table, are the former transaction's, too.
        run(&app, "BEGIN").await;
        run(&app, "DELETE FROM root WHERE id <= 29").await;
        run(&app, "ROLLBACK AND CHAIN").await;
        run(&app, "DELETE FROM t2 WHERE root_id > 20").await;
        run(&app, "COMMIT AND CHAIN").await;
        run(&app, "DELETE FROM root WHERE id <= 30").await;
        stopped(&app, "PGR01", "DELETE FROM root WHERE id = 31").await;
        assert_eq!((count(&client, "root").await, count(&client, "t2").await), (20, 0));
        // All in one message.
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 25; COMMIT; BEGIN; DELETE FROM root WHERE id <= 35; COMMIT").await;
        assert_eq!(count(&client, "root").await, 5);
        stopped(&app, "PGR01", "INSERT INTO root SELECT generate_series(1, 30); BEGIN; DELETE FROM root WHERE id <= 10; COMMIT; BEGIN; DELETE FROM root WHERE id <= 21").await;
        assert_eq!(count(&client, "root").await, 25);
        database.finish().await;
    })
    .await;
}

/// Rows that are set to NULL count by the counters of updates; the total counts all; warnings and allowances are as exact.
#[tokio::test]
async fn updates_totals_warnings_and_allowances_are_as_exact() {
    for_each_server(async |server| {
        let database = server.database("others").await;
        let mut client = star(&database, 2, 25).await;
        run(&client, "CREATE TABLE marks (id int PRIMARY KEY, root_id int REFERENCES root ON DELETE SET NULL);
            INSERT INTO marks SELECT i, (i - 1) / 50 + 1 FROM generate_series(1, 2000) i; CREATE INDEX ON marks (root_id)").await;
        let app = database.connect().await;
        install(&mut client, &limited("a/b", ROOT, 1000, 1000)).await;
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 10; ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM root WHERE id <= 11").await;
        run(&app, "BEGIN; UPDATE marks SET id = id; ROLLBACK").await;
        // Two levels: 100 rows per root row, and itself.
        let limits = TableLimits { max_rows: 30, max_cascade_rows: 900, max_transaction_rows: Some(1515), ..TableLimits::default() };
        let total = GuardSpec { limits, ..guard("a/b", ROOT) };
        install(&mut client, &total).await;
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 9").await;
        run(&app, "DELETE FROM root WHERE id BETWEEN 10 AND 15; ROLLBACK").await;
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 9").await;
        let error = stopped(&app, "PGR01", "DELETE FROM root WHERE id BETWEEN 10 AND 16").await;
        assert!(error.message().contains("maxTransactionRows"), "{error:?}");
        let error = stopped(&app, "PGR01", "DELETE FROM root WHERE id <= 10").await;
        assert!(error.message().contains("maxCascadeRows"), "{error:?}");
        // Warned of once, and not stopped.
        install(&mut client, &GuardSpec { mode: Mode::Warn, ..limited("a/b", ROOT, 1000, 1000) }).await;
        let before = counters(&client).await.expect("counters")[0].blocked_attempts;
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 10; ROLLBACK").await;
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, before);
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 11; ROLLBACK").await;
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, before + 1);
        // With an allowance, up to what it allows.
        let role: String = client.query_one("SELECT session_user::text", &[]).await.expect("role").get(0);
        let limits = PartialLimits { max_cascade_rows: Some(1500), ..PartialLimits::default() };
        let allowances = vec![Allowance { role, limits, operations: vec![Operation::Delete] }];
        install(&mut client, &GuardSpec { allowances, ..limited("a/b", ROOT, 1000, 1000) }).await;
        run(&app, "BEGIN; DELETE FROM root WHERE id <= 15; ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM root WHERE id <= 16").await;
        database.finish().await;
    })
    .await;
}
