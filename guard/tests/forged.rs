//! Settings that any role can write: what a forged one gains.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
mod common;

use common::{count, guard, install, limited, run, stopped};
use pgrail_guard::{GuardSpec, TableLimits};
use pgrail_testing::for_each_server;

const USERS: &[(&str, &str)] = &[("public", "users")];

/// What roles may set is only what they could do without it: several statements where one is limited.
#[tokio::test]
async fn forged_notes_lift_no_limit_of_a_transaction_and_none_of_updates() {
    for_each_server(async |server| {
        let database = server.database("forged").await;
        let mut client = common::friday(&database, 300).await;
        run(&client, "CREATE TABLE marks (id int, user_id int REFERENCES users ON DELETE SET NULL); INSERT INTO marks SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, 3000) i; CREATE INDEX ON marks (user_id)").await;
        let limits = TableLimits { max_rows: 100, max_cascade_rows: 1_000_000, max_updated_rows: Some(50), ..TableLimits::default() };
        install(&mut client, &GuardSpec { limits, ..guard("a/b", USERS) }).await;
        let app = database.connect().await;
        let key = "encode(timestamptz_send(statement_timestamp()), 'hex')";
        let note = |fields: usize| format!("PERFORM set_config('pgrail.note_1', {key} || repeat(':99999999999', {fields}), true)");
        // After a COMMIT in a procedure, what was there before is another transaction's.
        for fields in [4, 6] {
            let forged = format!("DO $$ BEGIN DELETE FROM users WHERE id = 1; COMMIT; {}; DELETE FROM users; END $$", note(fields));
            stopped(&app, "PGR01", &forged).await;
            assert_eq!(count(&client, "users").await, 299);
            run(&client, "INSERT INTO users VALUES (1)").await;
            let cleared = "DO $$ BEGIN DELETE FROM users WHERE id = 1; COMMIT; FOR i IN 2..300 LOOP PERFORM set_config('pgrail.note_1', '', true); DELETE FROM users WHERE id = i; END LOOP; END $$";
            stopped(&app, "PGR01", cleared).await;
            assert_eq!(count(&client, "users").await, 299);
            run(&client, "INSERT INTO users VALUES (1)").await;
        }
        // The honest procedure that commits its batches passes.
        run(&app, "DO $$ BEGIN FOR i IN 0..2 LOOP DELETE FROM users WHERE id > i * 50 AND id <= (i + 1) * 50; COMMIT; END LOOP; END $$").await;
        assert_eq!(count(&client, "users").await, 150);
        // Updates.
        let updated = format!("DO $$ BEGIN PERFORM set_config('pgrail.updated_1', {key} || ':99999999999', true); UPDATE users SET name = 'x'; END $$");
        stopped(&app, "PGR04", &updated).await;
        stopped(&app, "PGR04", "DO $$ BEGIN FOR i IN 151..300 LOOP UPDATE users SET name = 'y' WHERE id = i; END LOOP; END $$").await;
        for sql in ["SELECT setval('pgrail.updated_1', 9000000000000000000)", "SELECT nextval('pgrail.updated_1')"] {
            let role = server.role_name("app");
            run(&client, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
            let session = database.connect_as(&role, "secret").await;
            assert_eq!(common::refused(&session, sql).await.code().code(), "42501", "{sql}");
            run(&client, &format!("DROP ROLE {role}")).await;
        }
        // One statement after another in a transaction is allowed, in a session whose notes were discarded as well.
        run(&app, "BEGIN; UPDATE users SET name = 'a' WHERE id <= 200").await;
        run(&app, "UPDATE users SET name = 'b' WHERE id > 200 AND id <= 250").await;
        run(&app, "DISCARD SEQUENCES; UPDATE users SET name = 'c' WHERE id > 250; ROLLBACK").await;
        database.finish().await;
    })
    .await;
}

/// Keys that a cascade sets to NULL count, whatever a note says of updates before it.
#[tokio::test]
async fn a_forged_note_hides_no_updates() {
    for_each_server(async |server| {
        let database = server.database("nulled").await;
        let mut client = database.connect().await;
        run(&client, "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE marks (id int, user_id int REFERENCES users ON DELETE SET NULL);
            INSERT INTO users SELECT generate_series(1, 100); INSERT INTO marks SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, 1000) i").await;
        install(&mut client, &limited("a/b", USERS, 50, 100)).await;
        let app = database.connect().await;
        run(&app, "BEGIN; UPDATE marks SET id = id WHERE id <= 500").await;
        run(&app, "DELETE FROM users WHERE id <= 10; ROLLBACK").await;
        let key = "encode(timestamptz_send(statement_timestamp()), 'hex')";
        let forged = format!("DO $$ BEGIN PERFORM set_config('pgrail.note_1', {key} || ':0:0:99999999999:0', true); DELETE FROM users WHERE id <= 11; END $$");
        stopped(&app, "PGR01", &forged).await;
        let late = format!("BEGIN; DO $$ BEGIN PERFORM set_config('pgrail.note_1', {key} || ':0:0:0:0', true); DELETE FROM users WHERE id <= 10; PERFORM set_config('pgrail.note_1', '', true); DELETE FROM users WHERE id = 11; END $$");
        stopped(&app, "PGR01", &late).await;
        database.finish().await;
    })
    .await;
}
