//! Rehearsals: their bounds in rows and time, interruption, and what is refused.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]
mod common;

use std::time::{Duration, Instant};

use common::rehearse::*;
use common::{count, friday, install, limited, run, stopped};
use pgrail_guard::{GuardSpec, Mode, RehearseError, Request, counters};
use pgrail_testing::for_each_server;

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
        assert!(why.contains("aborted after 5508 rows, at the row cap of 5507"), "{why}");
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
        // A row that another session has locked.
        let holder = database.connect().await;
        run(&holder, "BEGIN; UPDATE users SET name = 'held' WHERE id = 3").await;
        let started = Instant::now();
        let error = fails(&session, &Request { timeout: Duration::from_mins(1), settings: lifting.to_vec(), ..Request::new("DELETE FROM users WHERE id = 3") }).await;
        assert!(matches!(error, RehearseError::Locked { .. }) && error.to_string().contains("lock"), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
        // A table that another session has locked, from planning on.
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
