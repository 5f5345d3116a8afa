//! Rehearsals: counted exactly, judged as the guards do, bounded, and without a trace.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]
mod common;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::{FRIDAY, count, friday, guard, install, limited, run, stopped, verify};
use pgrail_guard::rehearse::{Rows, TableRows, Verdict};
use pgrail_guard::{
    Allowance, GuardSpec, Mode, Operation, PartialLimits, Rehearsal, RehearseError, Request, TableLimits, counters,
    light_check,
};
use pgrail_testing::{Client, Database, for_each_server};
use tokio_postgres::NoTls;

const USERS: &[(&str, &str)] = &[("public", "users")];

async fn try_rehearse(client: &Client, request: &Request) -> Result<Rehearsal, RehearseError> {
    let token = client.cancel_token();
    let cancel = async || token.cancel_query(NoTls).await.expect("cancel");
    pgrail_guard::rehearse(client, request, cancel).await
}

async fn rehearse(client: &Client, statement: &str) -> Rehearsal {
    let result = try_rehearse(client, &Request::new(statement)).await;
    result.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
}

async fn fails(client: &Client, request: &Request) -> RehearseError {
    match try_rehearse(client, request).await {
        Ok(rehearsal) => panic!("passed, but should not: {request:?}: {rehearsal:?}"),
        Err(error) => error,
    }
}

/// The tree as text: indentation, table, deleted, and what else there is.
fn tree(tables: &[TableRows]) -> String {
    fn draw(table: &TableRows, depth: usize, text: &mut String) {
        let Rows { deleted, nulled, updated, inserted, moved } = table.rows;
        let _ = write!(text, "{}{} {deleted}", "  ".repeat(depth), table.table.trim_start_matches("public."));
        for (rows, what) in [(nulled, "nulled"), (updated, "updated"), (inserted, "inserted"), (moved, "moved")] {
            if rows != 0 {
                let _ = write!(text, " {what} {rows}");
            }
        }
        text.push('\n');
        for below in &table.below {
            draw(below, depth + 1, text);
        }
    }
    let mut text = String::new();
    for table in tables {
        draw(table, 0, &mut text);
    }
    text
}

fn stop_code(rehearsal: &Rehearsal) -> &str {
    match &rehearsal.verdict {
        Verdict::Passes => "passes",
        Verdict::Stopped(stop) => &stop.code,
    }
}

/// Everything that a rehearsal could leave behind: rows, attempts, functions, locks.
async fn traces(client: &Client, tables: &[&str]) -> String {
    let mut all = Vec::new();
    for table in tables {
        let sql = format!(
            "SELECT md5(coalesce(string_agg(t::text || t.xmin || t.ctid, ',' ORDER BY t::text), '')) FROM {table} t"
        );
        all.push(client.query_one(&sql, &[]).await.expect("rows").get::<_, String>(0));
    }
    let held =
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.datname = current_database()
                AND l.pid <> pg_backend_pid() AND a.backend_type = 'client backend'";
    assert_eq!(client.query_one(held, &[]).await.expect("locks").get::<_, i64>(0), 0, "locks are left");
    all.push(format!("{:?}", light_check(client).await.expect("light check")));
    if let Ok(counters) = counters(client).await {
        all.push(format!("{counters:?}"));
    }
    all.join("\n")
}

const FRIDAY_TABLES: &[&str] = &["users", "leads", "conversations", "messages", "analytics"];

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
        let limits = TableLimits { max_rows: 5, max_cascade_rows: 1000, max_transaction_rows: Some(2000), max_updated_rows: Some(10) };
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
async fn the_row_cap_is_exact_where_gates_are_and_an_estimate_elsewhere() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 100).await;
        // On average a user has some 230 rows below; the hundredth has half of all conversations and messages.
        run(&client, "UPDATE conversations SET lead_id = 200 WHERE id > 500; ANALYZE").await;
        install(&mut client, &limited("a/b", USERS, 5, 1000)).await;
        let session = database.connect().await;
        let before = traces(&client, FRIDAY_TABLES).await;
        let capped = |statement: &str, max_rows: i64| Request { max_rows, ..Request::new(statement) };
        let hot = "DELETE FROM users WHERE id = 100";
        let whole = rehearse(&session, hot).await;
        assert_eq!((stop_code(&whole), whole.total.deleted), ("PGR01", 5508));
        // One row less than it takes: broken off, and what was counted is exactly the cap and the row too many.
        let rehearsal = try_rehearse(&session, &capped(hot, 5507)).await.expect("rehearse");
        let why = rehearsal.incomplete.clone().unwrap_or_default();
        assert!(why.contains("broken off after 5508 rows, the row cap being 5507"), "{why}");
        assert_eq!((stop_code(&rehearsal), rehearsal.total.deleted), ("PGR01", 5508));
        let rehearsal = try_rehearse(&session, &capped(hot, 3500)).await.expect("rehearse");
        assert_eq!((stop_code(&rehearsal), rehearsal.total.deleted), ("PGR01", 3501));
        assert_eq!(try_rehearse(&session, &capped(hot, 5508)).await.expect("rehearse").incomplete, None);
        // The estimate says beforehand that it is too much: judged, since the guard ends that, but not counted.
        let rehearsal = try_rehearse(&session, &capped("DELETE FROM users", 500)).await.expect("rehearse");
        let why = rehearsal.incomplete.clone().unwrap_or_default();
        assert!(
            stop_code(&rehearsal) == "PGR01" && why.contains("estimate") && rehearsal.total.deleted <= 1001,
            "{rehearsal:?}"
        );
        let forced = Request { force: true, ..capped("DELETE FROM users", 2000) };
        let rehearsal = try_rehearse(&session, &forced).await.expect("rehearse");
        assert_eq!((stop_code(&rehearsal), rehearsal.total.deleted), ("PGR01", 2001));
        // The cap holds for those whom the guard lets pass, too.
        install(&mut client, &GuardSpec { mode: Mode::Warn, ..limited("a/b", USERS, 5, 1000) }).await;
        let error = fails(&session, &capped(hot, 3000)).await;
        assert!(matches!(error, RehearseError::TooManyRows { rows: 3001, cap: 3000 }), "{error:?}");
        install(&mut client, &limited("a/b", USERS, 5, 1000)).await;
        assert_eq!(
            traces(&client, FRIDAY_TABLES).await.lines().take(5).collect::<Vec<_>>(),
            before.lines().take(5).collect::<Vec<_>>()
        );
        // No gates there.
        for statement in [
            "DELETE FROM messages",
            "DELETE FROM leads",
            "UPDATE users SET name = 'x'",
            "WITH d AS (DELETE FROM users) DELETE FROM analytics",
        ] {
            let error = fails(&session, &capped(statement, 50)).await;
            assert!(matches!(error, RehearseError::TooManyByEstimate { cap: 50, .. }), "{statement}: {error:?}");
        }
        let forced = try_rehearse(&session, &Request { force: true, ..capped("DELETE FROM messages", 50) })
            .await
            .expect("rehearse");
        assert_eq!((stop_code(&forced), forced.total.deleted), ("passes", 10_000));
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn it_ends_in_time_whatever_the_statement_does() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 10).await;
        run(
            &client,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
             CREATE FUNCTION stubborn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM pg_sleep(60); RETURN NULL; EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); RETURN NULL; END $$;
             CREATE TABLE sleepy (id int); CREATE TABLE stubborn (id int); CREATE TABLE late (id int);
             INSERT INTO sleepy VALUES (1); INSERT INTO stubborn VALUES (1); INSERT INTO late VALUES (1);
             CREATE TRIGGER slow AFTER DELETE ON sleepy FOR EACH ROW EXECUTE FUNCTION slow();
             CREATE TRIGGER stubborn AFTER DELETE ON stubborn FOR EACH ROW EXECUTE FUNCTION stubborn();
             CREATE CONSTRAINT TRIGGER late AFTER DELETE ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
        install(&mut client, &limited("a/b", USERS, 5, 1000)).await;
        let tables = ["sleepy", "stubborn", "late", "users"];
        let before = traces(&client, &tables).await;
        let session = database.connect().await;
        let short = |statement: &str| Request { timeout: Duration::from_secs(1), ..Request::new(statement) };
        for table in ["sleepy", "stubborn", "late"] {
            let started = Instant::now();
            let error = fails(&session, &short(&format!("DELETE FROM {table}"))).await;
            assert!(matches!(error, RehearseError::Timeout { rows: 1, .. }), "{table}: {error:?}");
            assert!(started.elapsed() < Duration::from_secs(20), "{table} took {:?}", started.elapsed());
            assert_eq!(traces(&client, &tables).await, before);
        }
        // Settings that would lift the limits come before them.
        let lifting = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"].map(|name| (name.to_owned(), "0".to_owned()));
        let error = fails(&session, &Request { settings: lifting.to_vec(), ..short("DELETE FROM sleepy") }).await;
        assert!(matches!(error, RehearseError::Timeout { .. }), "{error:?}");
        // A row that somebody else holds.
        let holder = database.connect().await;
        run(&holder, "BEGIN; UPDATE users SET name = 'held' WHERE id = 3").await;
        let started = Instant::now();
        let error = fails(&session, &Request { timeout: Duration::from_mins(1), settings: lifting.to_vec(), ..Request::new("DELETE FROM users WHERE id = 3") }).await;
        assert!(matches!(error, RehearseError::Locked { .. }) && error.to_string().contains("lock"), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
        // A table that somebody else holds, from the plan on.
        run(&holder, "ROLLBACK; BEGIN; LOCK TABLE users").await;
        let error = fails(&session, &Request::new("DELETE FROM users WHERE id = 3")).await;
        assert!(matches!(error, RehearseError::Locked { .. }), "{error:?}");
        run(&holder, "ROLLBACK").await;
        assert_eq!(rehearse(&session, "DELETE FROM users WHERE id = 3").await.total.deleted, 118);
        assert_eq!(traces(&client, &tables).await, before);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_second_rehearsal_of_the_same_tables_is_told_to_come_back_and_others_never_wait() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 20).await;
        run(
            &client,
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               WHILE NOT pg_try_advisory_xact_lock(7) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL; END $$;
             CREATE TRIGGER wait AFTER DELETE ON users FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION wait()",
        )
        .await;
        install(&mut client, &limited("a/b", USERS, 5, 1000)).await;
        let (first, second, holder) = (database.connect().await, database.connect().await, database.connect().await);
        run(&holder, "BEGIN; SELECT pg_advisory_xact_lock(7)").await;
        let slow = Request { timeout: Duration::from_mins(2), ..Request::new("DELETE FROM users WHERE id = 1") };
        let meanwhile = async {
            let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
            while client.query_one(asleep, &[]).await.expect("activity").get::<_, i64>(0) == 0 {}
            // Others work as ever: no table is locked, and the guard stops them.
            let app = database.connect().await;
            run(&app, "SET lock_timeout = '10ms'; BEGIN; UPDATE users SET name = 'x' WHERE id = 2; DELETE FROM users WHERE id = 3; ROLLBACK").await;
            stopped(&app, "PGR01", "DELETE FROM users WHERE id > 10").await;
            let error = fails(&second, &Request::new("DELETE FROM users WHERE id = 4")).await;
            run(&holder, "ROLLBACK").await;
            error
        };
        let (first, error) = tokio::join!(try_rehearse(&first, &slow), meanwhile);
        assert!(matches!(error, RehearseError::Busy), "{error:?}");
        assert_eq!(first.expect("rehearse").total.deleted, 118);
        assert_eq!(rehearse(&second, "DELETE FROM users WHERE id = 4").await.total.deleted, 118);
        // The attempt of somebody else at the same time was one.
        assert_eq!(counters(&client).await.expect("counters")[0].blocked_attempts, 1);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_rehearsal_that_is_dropped_leaves_nothing_running() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let client = friday(&database, 10).await;
        run(
            &client,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
             CREATE TRIGGER slow AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
        let session = database.connect().await;
        let request = Request { timeout: Request::LONGEST, ..Request::new("DELETE FROM users") };
        let others = "SELECT count(*) FILTER (WHERE wait_event = 'PgSleep'), count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let until_asleep = async {
            while client.query_one(others, &[]).await.expect("activity").get::<_, i64>(0) == 0 {}
        };
        tokio::select! {
            ended = try_rehearse(&session, &request) => panic!("{ended:?}"),
            () = until_asleep => {}
        }
        drop(session);
        // Nobody cancels: the server itself notices, within a second or so, that the client is gone.
        let deadline = Instant::now() + Duration::from_secs(30);
        while client.query_one(others, &[]).await.expect("activity").get::<_, i64>(1) > 0 {
            assert!(Instant::now() < deadline, "the statement still runs");
        }
        assert_eq!(count(&client, "users").await, 10);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_cancelled_is_left_to_the_server_which_ends_it() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let client = friday(&database, 10).await;
        run(
            &client,
            "CREATE FUNCTION deaf() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$;
             CREATE TRIGGER deaf AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION deaf()",
        )
        .await;
        let session = database.connect().await;
        let request = Request { timeout: Request::SHORTEST, ..Request::new("DELETE FROM users") };
        let error = fails(&session, &request).await;
        assert!(matches!(error, RehearseError::Unresponsive), "{error:?}");
        drop(session);
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let deadline = Instant::now() + Duration::from_secs(30);
        while client.query_one(others, &[]).await.expect("activity").get::<_, i64>(0) > 0 {
            assert!(Instant::now() < deadline, "the statement still runs");
        }
        assert_eq!(count(&client, "users").await, 10);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_rehearsed_is_refused_and_what_fails_says_why() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let mut client = friday(&database, 10).await;
        run(
            &client,
            "CREATE TABLE parents (id int PRIMARY KEY); CREATE TABLE kept (id int REFERENCES parents);
             CREATE TABLE later (id int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO parents VALUES (1), (2), (3); INSERT INTO kept VALUES (1); INSERT INTO later VALUES (2);
             CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
             CREATE TABLE logs (id int) PARTITION BY LIST (id); CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
             CREATE FOREIGN TABLE logs_2 PARTITION OF logs FOR VALUES IN (2) SERVER files OPTIONS (filename '/dev/null');
             CREATE VIEW nothing AS SELECT * FROM parents; CREATE RULE nothing AS ON DELETE TO nothing DO INSTEAD NOTHING",
        )
        .await;
        install(&mut client, &limited("a/b", USERS, 5, 1000)).await;
        let tables = ["users", "parents", "kept", "later"];
        let before = traces(&client, &tables).await;
        let session = database.connect().await;
        let error = async |statement: &str| fails(&session, &Request::new(statement)).await;
        for statement in ["DELETE FROM users; DELETE FROM leads", "DELETE FROM parents WHERE id = 3; COMMIT", "DELETE FROM users;; VACUUM"] {
            assert!(matches!(error(statement).await, RehearseError::SeveralStatements), "{statement}");
        }
        for statement in ["TRUNCATE users", "DROP TABLE users", "VACUUM", "COMMIT", "PREPARE TRANSACTION 'x'", "CALL p()", "DO ''", "COPY users TO PROGRAM 'true'", "SELECT 1", "EXPLAIN ANALYZE DELETE FROM users", "/* DELETE */"] {
            assert!(matches!(error(statement).await, RehearseError::Refused { .. }), "{statement}");
        }
        assert!(matches!(error("DELETE FROM users WHERE id = $1").await, RehearseError::Parameters));
        for statement in ["INSERT INTO parents VALUES (9)", "INSERT INTO parents VALUES (1) ON CONFLICT DO NOTHING", "WITH x AS (SELECT 1) SELECT * FROM x", "DELETE FROM nothing"] {
            assert!(matches!(error(statement).await, RehearseError::ChangesNothing), "{statement}");
        }
        let foreign = error("DELETE FROM logs WHERE id = 1").await;
        assert!(matches!(&foreign, RehearseError::Foreign(table) if table == "public.logs_2"), "{foreign:?}");
        for (statement, expected) in [
            ("DELETE FROM nosuch", "42P01"),
            ("DELETE users", "42601"),
            ("DELETE FROM parents WHERE id = 1", "23503"),
            // Only COMMIT would have said so.
            ("DELETE FROM parents WHERE id = 2", "23503"),
            ("UPDATE users SET id = 1", "23505"),
        ] {
            let failed = error(statement).await;
            assert!(matches!(&failed, RehearseError::Statement { code, .. } if code == expected), "{statement}: {failed:?}");
        }
        assert_eq!(rehearse(&session, "DELETE FROM parents WHERE id = 3").await.total.deleted, 1);
        let forged = Request { settings: vec![("pgrail.note_1".to_owned(), "x".to_owned())], ..Request::new("DELETE FROM users") };
        assert!(matches!(fails(&session, &forged).await, RehearseError::Setting { .. }));
        let unknown = Request { settings: vec![("nosuch".to_owned(), "x".to_owned())], ..Request::new("DELETE FROM users") };
        assert!(matches!(fails(&session, &unknown).await, RehearseError::Setting { .. }));
        let nobody = Request { role: Some("nobody \"; DROP".to_owned()), ..Request::new("DELETE FROM users") };
        assert!(matches!(fails(&session, &nobody).await, RehearseError::Role { .. }));
        // After every failure the session is as it was.
        assert_eq!(rehearse(&session, "DELETE FROM users WHERE id = 1").await.total.deleted, 118);
        assert_eq!(traces(&client, &tables).await, before);
        run(&session, "SET track_counts = off").await;
        assert!(matches!(error("DELETE FROM users").await, RehearseError::TrackCountsOff));
        run(&session, "RESET track_counts").await;
        run(&session, "SET default_transaction_read_only = on").await;
        assert!(matches!(error("DELETE FROM users").await, RehearseError::Query(_) | RehearseError::Statement { .. }));
        database.finish().await;
    })
    .await;
}

/// pgrail's role is no superuser; the application's has row level security, and settings that its policies read.
async fn with_policies(database: &Database, rail: &str, app: &str) -> Client {
    let admin = database.connect().await;
    run(
        &admin,
        &format!(
            "CREATE ROLE {rail} LOGIN PASSWORD 'secret'; CREATE ROLE {app} LOGIN PASSWORD 'secret'; GRANT {app} TO {rail};
             GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE, USAGE ON SCHEMA public TO {rail}",
            database.name
        ),
    )
    .await;
    let rail = database.connect_as(rail, "secret").await;
    run(&rail, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC").await;
    run(&rail, FRIDAY).await;
    run(&rail, &common::friday_rows(30)).await;
    run(
        &rail,
        &format!(
            "GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app}; ALTER TABLE users ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON users TO {app} USING (id <= current_setting('app.up_to', true)::int)"
        ),
    )
    .await;
    rail
}

#[tokio::test]
async fn as_the_application_with_its_settings_and_policies() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let (rail_role, app_role) = (server.role_name("rail"), server.role_name("app"));
        let mut rail = with_policies(&database, &rail_role, &app_role).await;
        install(&mut rail, &limited("a/b", USERS, 5, 10_000)).await;
        let before = traces(&rail, FRIDAY_TABLES).await;
        let as_app = |statement: &str, up_to: &str| Request {
            role: Some(app_role.clone()),
            settings: vec![
                ("app.up_to".to_owned(), up_to.to_owned()),
                ("request.jwt.claims".to_owned(), "{\"a\": \"=;'\"}".to_owned()),
            ],
            ..Request::new(statement)
        };
        // pgrail's role, which owns the tables, would delete all of them; the application only what it sees.
        let session = database.connect_as(&rail_role, "secret").await;
        assert_eq!(rehearse(&session, "DELETE FROM users").await.total.deleted, 30 * 118);
        let own = try_rehearse(&session, &as_app("DELETE FROM users", "4")).await.expect("rehearse");
        assert_eq!((stop_code(&own), own.total.deleted, own.login.as_str()), ("passes", 4 * 118, rail_role.as_str()));
        assert!(!own.rights_of_role, "{own:?}");
        let stopped_at = try_rehearse(&session, &as_app("DELETE FROM users", "20")).await.expect("rehearse");
        assert_eq!(
            (stop_code(&stopped_at), stopped_at.total.deleted, stopped_at.incomplete.clone()),
            ("PGR01", 20 * 118, None)
        );
        let denied =
            fails(&session, &as_app("INSERT INTO users VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x'", "4"))
                .await;
        assert!(matches!(&denied, RehearseError::Statement { code, .. } if code == "42501"), "{denied:?}");
        // Nothing stays: neither the role nor the settings.
        let row = session
            .query_one("SELECT current_user::text, coalesce(current_setting('app.up_to', true), '')", &[])
            .await
            .expect("row");
        assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), (rail_role.clone(), String::new()));
        assert_eq!(traces(&rail, FRIDAY_TABLES).await, before);

        // The application's own login: it can be judged, and counted up to where the guard stops it.
        let app = database.connect_as(&app_role, "secret").await;
        let up_to = |statement: &str, up_to: &str| Request { role: None, ..as_app(statement, up_to) };
        let passing = try_rehearse(&app, &up_to("DELETE FROM users", "5")).await.expect("rehearse");
        assert_eq!(
            (stop_code(&passing), passing.total.deleted, passing.counted_as_attempt),
            ("passes", 5 * 118, false)
        );
        let partly = try_rehearse(&app, &up_to("DELETE FROM users", "20")).await.expect("rehearse");
        let why = partly.incomplete.clone().unwrap_or_default();
        assert!(why.contains("up to where the guard stopped it") && why.contains(&app_role), "{why}");
        assert_eq!((stop_code(&partly), partly.tables[0].rows.deleted), ("PGR01", 6));
        // It may not say of itself that it is a rehearsal, and neither may anybody else.
        assert!(partly.counted_as_attempt);
        assert_eq!(counters(&rail).await.expect("counters")[0].blocked_attempts, 1);
        let forged = format!("CREATE FUNCTION pgrail.rehearsal_{}() RETURNS void LANGUAGE sql AS ''", 1);
        assert_eq!(common::refused(&app, &forged).await.code().code(), "42501");
        let estimated = fails(&app, &Request { max_rows: 100, ..up_to("DELETE FROM users", "20") }).await;
        assert!(matches!(estimated, RehearseError::TooManyByEstimate { .. }), "{estimated:?}");
        drop((session, app, rail));
        let admin = database.connect().await;
        run(&admin, &format!("DROP OWNED BY {app_role}, {rail_role} CASCADE; DROP ROLE {app_role}, {rail_role}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn without_pgrail_in_the_database() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let client = friday(&database, 20).await;
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
