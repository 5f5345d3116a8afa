//! What a guard must never hurt: everyday work, maintenance, dumps and restores, replication.
#![allow(missing_docs)]
mod common;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{FRIDAY, count, friday, guard, install, limited, run, stopped, verify};
use pgrail_guard::{GuardSpec, TableLimits};
use pgrail_testing::{for_each_server, programs};

const USERS: &[(&str, &str)] = &[("public", "users")];

#[tokio::test]
async fn everyday_work_and_maintenance_go_on() {
    for_each_server(async |server| {
        let database = server.database("everyday").await;
        let mut client = friday(&database, 40).await;
        let spec = limited("a/b", &[("public", "*")], 0, 0);
        install(&mut client, &spec).await;
        for sql in [
            "INSERT INTO users SELECT i, 'n' FROM generate_series(1000, 3000) i",
            "UPDATE users SET name = 'u'",
            "UPDATE leads SET user_id = 1",
            "INSERT INTO users VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y'",
            "MERGE INTO users USING (SELECT 1 AS id) s ON users.id = s.id WHEN MATCHED THEN UPDATE SET name = 'm'",
            "VACUUM users",
            "VACUUM FULL users",
            "ANALYZE",
            "REINDEX TABLE users",
            "CLUSTER users USING users_pkey",
            "ALTER TABLE users ADD COLUMN mail text DEFAULT 'x'",
            "ALTER TABLE users ALTER COLUMN name TYPE varchar(100)",
            "ALTER TABLE users ADD CONSTRAINT c CHECK (id >= 0), ALTER COLUMN name SET NOT NULL",
            "CREATE INDEX CONCURRENTLY ON users (name)",
            "ALTER TABLE users RENAME COLUMN mail TO email",
            "ALTER TABLE users SET (fillfactor = 90)",
            "CREATE MATERIALIZED VIEW m AS SELECT * FROM users",
            "REFRESH MATERIALIZED VIEW m",
            "CREATE TABLE copies AS SELECT * FROM users",
            "DELETE FROM copies",
            "DROP TABLE copies",
            "CREATE TEMP TABLE t (LIKE users INCLUDING ALL)",
            "INSERT INTO t SELECT * FROM users",
            "DELETE FROM t",
            "TRUNCATE t",
            "DROP TABLE t",
            "DELETE FROM users WHERE false",
            "SELECT * FROM users FOR UPDATE",
        ] {
            // Statements that cannot run in a transaction go one by one.
            run(&client, sql).await;
        }
        let plan = verify(&client, &spec).await;
        assert!(plan.drift().is_empty(), "{:?}", plan.drift());
        database.finish().await;
    })
    .await;
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_dump_restores_elsewhere_guarded_at_once_and_as_data_into_a_guarded_database() {
    for_each_server(async |server| {
        let database = server.database("dumped").await;
        let mut client = friday(&database, 40).await;
        run(&client, "CREATE TABLE parts (id int) PARTITION BY LIST (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts SELECT 1 FROM generate_series(1, 30)").await;
        let spec = limited("a/b", &[("public", "users"), ("public", "parts")], 3, 500);
        install(&mut client, &spec).await;
        let folder = tempfile::tempdir().expect("folder");
        let dump = folder.path().join("dump");
        let bin = programs(server.major);
        succeeded(&Command::new(bin.join("pg_dump")).args(["-Fc", "-f"]).arg(&dump).args(["--dbname", &database.uri]).output().expect("pg_dump"));

        // Schema and data, guards and all: other numbers, so every verdict is taken by the slow way, and right.
        let copy = server.database("restored").await;
        succeeded(&Command::new(bin.join("pg_restore")).args(["--exit-on-error", "--dbname", &copy.uri]).arg(&dump).output().expect("pg_restore"));
        let restored = copy.connect().await;
        assert_eq!(count(&restored, "messages").await, 4000);
        let app = copy.connect().await;
        stopped(&app, "PGR01", "DELETE FROM users").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 5").await;
        stopped(&app, "PGR01", "DELETE FROM parts").await;
        stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 3; DELETE FROM parts WHERE ctid IN (SELECT ctid FROM parts LIMIT 3); ROLLBACK").await;
        run(&app, "BEGIN; DELETE FROM messages; ROLLBACK").await;
        let mut restored = restored;
        install(&mut restored, &spec).await;
        stopped(&app, "PGR01", "DELETE FROM users").await;

        // Data alone, into tables that are guarded, with triggers disabled meanwhile: what that leaves is drift.
        run(&restored, "DROP SCHEMA pgrail CASCADE; TRUNCATE users CASCADE; TRUNCATE parts").await;
        install(&mut restored, &spec).await;
        succeeded(
            &Command::new(bin.join("pg_restore"))
                .args(["--exit-on-error", "--data-only", "--disable-triggers", "-n", "public", "--dbname", &copy.uri])
                .arg(&dump)
                .output()
                .expect("pg_restore"),
        );
        assert_eq!(count(&restored, "messages").await, 4000);
        assert!(!verify(&restored, &spec).await.drift().is_empty());
        install(&mut restored, &spec).await;
        stopped(&app, "PGR01", "DELETE FROM users").await;
        drop(restored);
        copy.finish().await;
        database.finish().await;
    })
    .await;
}

/// A transaction that notified could not be prepared: where two-phase commit is possible, DDL tells nobody.
#[tokio::test]
async fn a_transaction_with_ddl_and_deletes_can_be_prepared() {
    let database = pgrail_testing::plain_server().database("prepared").await;
    let mut client = friday(&database, 20).await;
    let spec = limited("a/b", USERS, 5, 1000);
    install(&mut client, &spec).await;
    let app = database.connect().await;
    run(&app, "BEGIN; CREATE TABLE more (id int); ALTER TABLE leads ADD COLUMN note text; DROP TABLE analytics; DELETE FROM users WHERE id <= 3; PREPARE TRANSACTION 'guarded'").await;
    run(&app, "COMMIT PREPARED 'guarded'").await;
    assert_eq!(count(&client, "users").await, 17);
    install(&mut client, &spec).await;
    stopped(&app, "PGR01", "DELETE FROM users").await;
    database.finish().await;
}

#[tokio::test]
async fn a_subscriber_is_not_stalled_and_nobody_else_passes_as_one() {
    for_each_server(async |server| {
        let publisher = server.database("publisher").await;
        let subscriber = server.database("subscriber").await;
        let source = friday(&publisher, 40).await;
        let mut target = subscriber.connect().await;
        let level: String = source.query_one("SHOW wal_level", &[]).await.expect("wal_level").get(0);
        assert_eq!(level, "logical", "the test servers must run with wal_level = logical");
        run(&target, FRIDAY).await;
        run(&source, "CREATE PUBLICATION p FOR ALL TABLES").await;
        run(&source, &format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", publisher.name)).await;
        install(&mut target, &limited("a/b", &[("public", "*")], 3, 10)).await;
        let uri = publisher.uri.replace('\'', "''");
        run(&target, &format!("CREATE SUBSCRIPTION {0} CONNECTION '{uri}' PUBLICATION p WITH (create_slot = false, slot_name = '{0}')", publisher.name)).await;
        let wait = async |expected: i64| {
            let deadline = Instant::now() + Duration::from_mins(1);
            while count(&target, "messages").await != expected {
                assert!(Instant::now() < deadline, "the subscriber is stalled at {}", count(&target, "messages").await);
                tokio::task::yield_now().await;
            }
        };
        // Initial copy, a bulk delete with its cascades, a truncate.
        wait(4000).await;
        run(&source, "DELETE FROM users WHERE id <= 20").await;
        wait(2000).await;
        run(&source, "TRUNCATE users CASCADE").await;
        wait(0).await;
        // The setting alone makes nobody a worker.
        run(&target, "INSERT INTO users SELECT generate_series(1, 10)").await;
        stopped(&target, "PGR01", "SET session_replication_role = replica; DELETE FROM users").await;
        run(&target, "RESET session_replication_role").await;
        for sql in ["ALTER SUBSCRIPTION {} DISABLE", "ALTER SUBSCRIPTION {} SET (slot_name = NONE)", "DROP SUBSCRIPTION {}"] {
            run(&target, &sql.replace("{}", &publisher.name)).await;
        }
        let slot = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots WHERE slot_name = current_database() AND NOT active";
        let deadline = Instant::now() + Duration::from_secs(30);
        while source.query_one(slot, &[]).await.map_or(0, |row| row.get::<_, i64>(0)) == 0 {
            assert!(Instant::now() < deadline, "the slot stays active");
        }
        subscriber.finish().await;
        publisher.finish().await;
    })
    .await;
}

#[tokio::test]
async fn orms_that_emulate_cascades_pass_or_meet_the_budget() {
    for_each_server(async |server| {
        let database = server.database("orm").await;
        let mut client = friday(&database, 60).await;
        // Without a total, what an ORM deletes itself is direct, and the cascade finds nothing left.
        install(&mut client, &guard("a/b", USERS)).await;
        let app = database.connect().await;
        let django = |users: &str| {
            format!(
                "BEGIN;
                 DELETE FROM messages WHERE conversation_id IN (SELECT c.id FROM conversations c JOIN leads l ON l.id = c.lead_id WHERE l.user_id IN ({users}));
                 DELETE FROM conversations WHERE lead_id IN (SELECT id FROM leads WHERE user_id IN ({users}));
                 DELETE FROM leads WHERE user_id IN ({users}); DELETE FROM analytics WHERE user_id IN ({users});
                 DELETE FROM users WHERE id IN ({users})"
            )
        };
        run(&app, &django("SELECT id FROM users WHERE id <= 50")).await;
        run(&app, "ROLLBACK").await;
        stopped(&app, "PGR01", &django("SELECT id FROM users UNION ALL SELECT generate_series(1000, 2000)").replace("BEGIN;", "BEGIN; INSERT INTO users SELECT generate_series(1000, 2000);")).await;
        // With one, everything of the transaction counts as soon as the root is touched.
        let limits = TableLimits { max_transaction_rows: Some(2000), ..TableLimits::default() };
        install(&mut client, &GuardSpec { limits, ..guard("a/b", USERS) }).await;
        run(&app, &django("SELECT id FROM users WHERE id <= 10")).await;
        run(&app, "ROLLBACK").await;
        let error = stopped(&app, "PGR01", &django("SELECT id FROM users WHERE id <= 50")).await;
        assert!(error.message().contains("maxTransactionRows"), "{error:?}");
        // Rails, `dependent: :destroy`: reads each child and deletes it by its key, one statement each, then the parent.
        let destroy = |users: &[i32]| {
            let each = users.iter().map(|user| {
                format!(
                    "DO $$ DECLARE x int; BEGIN
                       FOR x IN SELECT m.id FROM messages m JOIN conversations c ON c.id = m.conversation_id JOIN leads l ON l.id = c.lead_id WHERE l.user_id = {user} LOOP DELETE FROM \"messages\" WHERE \"messages\".\"id\" = x; END LOOP;
                       FOR x IN SELECT c.id FROM conversations c JOIN leads l ON l.id = c.lead_id WHERE l.user_id = {user} LOOP DELETE FROM \"conversations\" WHERE \"conversations\".\"id\" = x; END LOOP;
                       FOR x IN SELECT id FROM leads WHERE user_id = {user} LOOP DELETE FROM \"leads\" WHERE \"leads\".\"id\" = x; END LOOP;
                     END $$; DELETE FROM \"analytics\" WHERE \"analytics\".\"user_id\" = {user}; DELETE FROM \"users\" WHERE \"users\".\"id\" = {user};"
                )
            });
            format!("BEGIN;{}", each.collect::<String>())
        };
        run(&app, &destroy(&[1, 2, 3])).await;
        run(&app, "ROLLBACK").await;
        let error = stopped(&app, "PGR01", &destroy(&(1..=20).collect::<Vec<_>>())).await;
        assert!(error.message().contains("maxTransactionRows"), "{error:?}");
        // Hibernate: `orphanRemoval` and `CascadeType.REMOVE`, prepared statements by primary key in one transaction, sent as
        // a JDBC batch.
        let statements = [
            ("delete from messages where id=$1", "SELECT m.id FROM messages m JOIN conversations c ON c.id = m.conversation_id JOIN leads l ON l.id = c.lead_id WHERE l.user_id = $1"),
            ("delete from conversations where id=$1", "SELECT c.id FROM conversations c JOIN leads l ON l.id = c.lead_id WHERE l.user_id = $1"),
            ("delete from leads where id=$1", "SELECT id FROM leads WHERE user_id = $1"),
            ("delete from analytics where id=$1", "SELECT id FROM analytics WHERE user_id = $1"),
            ("delete from users where id=$1", "SELECT id FROM users WHERE id = $1"),
        ];
        for (users, passes) in [(1..=10_i32, true), (11..=40_i32, false)] {
            run(&app, "BEGIN").await;
            let mut outcome = Ok(());
            'users: for user in users {
                for (delete, children) in statements {
                    let ids = app.query(children, &[&user]).await.expect("children");
                    let delete = app.prepare(delete).await.expect("prepare");
                    for id in ids {
                        outcome = app.execute(&delete, &[&id.get::<_, i32>(0)]).await.map(drop);
                        if outcome.is_err() {
                            break 'users;
                        }
                    }
                }
            }
            run(&app, "ROLLBACK").await;
            let code = outcome.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
            assert_eq!(code.as_deref(), (!passes).then_some("PGR01"));
        }
        database.finish().await;
    })
    .await;
}

/// Drivers put all that the server sends into one text.
#[tokio::test]
async fn the_context_of_an_error_names_functions_and_no_statement_of_pgrails() {
    for_each_server(async |server| {
        let database = server.database("context").await;
        let mut client = friday(&database, 20).await;
        install(&mut client, &limited("a/b", USERS, 3, 1_000_000)).await;
        let error = stopped(&database.connect().await, "PGR01", "DELETE FROM users").await;
        let context = error.where_().unwrap_or_default();
        assert!(context.lines().count() == 3 && context.len() < 220, "{context}");
        let error = stopped(&database.connect().await, "PGR02", "TRUNCATE users CASCADE").await;
        assert!(error.where_().unwrap_or_default().len() < 220, "{error:?}");
        install(&mut client, &limited("a/b", USERS, 300, 10)).await;
        // The server's own lines about foreign keys come on top.
        let error = stopped(&database.connect().await, "PGR01", "DELETE FROM users").await;
        let ours = error.where_().unwrap_or_default().lines().filter(|line| line.contains("pgrail")).count();
        assert_eq!(ours, 3, "{error:?}");
        database.finish().await;
    })
    .await;
}
