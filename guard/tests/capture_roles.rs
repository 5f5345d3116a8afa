//! Capture and undo between roles: who can read what is captured, and whose code runs as whom.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::capture::*;
use common::{FRIDAY, count, friday, guard, install, reconcile, refused, run, verify};
use pgrail_guard::{Conflicts, undo};
use pgrail_testing::for_each_server;

#[tokio::test]
async fn captured_rows_are_for_pgrail_alone() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = friday(&database, 10).await;
        let role = server.role_name("app");
        run(
            &client,
            &format!(
                "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT CREATE ON SCHEMA public TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
                 ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {role}; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {role}"
            ),
        )
        .await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let app = database.connect_as(&role, "secret").await;
        run(&app, "CREATE TABLE mine (id int)").await;
        run(&app, "SET search_path = public, pg_catalog; DELETE FROM users WHERE id = 1; RESET search_path").await;
        for sql in [
            "SELECT * FROM pgrail.captured",
            "SELECT * FROM pgrail.captured_transaction",
            "INSERT INTO pgrail.captured (xid, began, guard, rel, label, effect, attributes, fields, before) VALUES ('1', now(), 1, 'users', '', 'd', 2, 2, '(1,x)')",
            "UPDATE pgrail.captured_transaction SET incomplete = 'x'",
            "DELETE FROM pgrail.captured",
            "TRUNCATE pgrail.captured",
            "SELECT nextval('pgrail.captured_id_seq')",
            "SELECT pgrail.prune_captured(NULL, 1)",
            "CREATE TRIGGER t AFTER DELETE ON mine REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION pgrail.capture_1()",
            "ALTER TABLE users DISABLE TRIGGER pgrail_capture",
        ] {
            let error = refused(&app, sql).await;
            assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
        }
        assert_eq!(count(&client, "pgrail.captured").await, 1 + 2 + 10 + 100 + 5);
        // Taken off by somebody who may, it is drift like any other.
        run(&client, "ALTER TABLE messages DISABLE TRIGGER pgrail_capture").await;
        let plan = verify(&client, &capturing(guard("a/b", USERS))).await;
        assert!(plan.drift().iter().any(|drift| drift.to_string() == "public.messages: trigger pgrail_capture was disabled"), "{:?}", plan.drift());
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        drop(app);
        run(&client, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

/// pgrail's own login, as `pgrail grants` makes it: member of the owner, no superuser.
#[tokio::test]
async fn by_a_member_of_the_owner_and_under_row_level_security() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let admin = database.connect().await;
        let (owner, rail, app) = (server.role_name("owner"), server.role_name("rail"), server.role_name("app"));
        run(
            &admin,
            &format!(
                "CREATE ROLE {owner}; CREATE ROLE {rail} LOGIN PASSWORD 'secret' IN ROLE {owner}; CREATE ROLE {app} LOGIN PASSWORD 'secret';
                 GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; SET ROLE {owner}",
                database.name
            ),
        )
        .await;
        run(&admin, FRIDAY).await;
        run(&admin, &common::friday_rows(10)).await;
        run(
            &admin,
            &format!(
                "GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO {app}; ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON users TO {app} USING (id <= 5);
                 RESET ROLE"
            ),
        )
        .await;
        let mut client = database.connect_as(&rail, "secret").await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let before = contents(&admin, FRIDAY_TABLES).await;
        let session = database.connect_as(&app, "secret").await;
        run(&session, "DELETE FROM users").await;
        assert_eq!(count(&admin, "users").await, 5);
        undo_newest(&mut client).await;
        assert_eq!(contents(&admin, FRIDAY_TABLES).await, before);
        // Forced, policies hold for the owner too: refused with what mends it.
        run(&admin, "ALTER TABLE users FORCE ROW LEVEL SECURITY").await;
        run(&session, "DELETE FROM users WHERE id = 1").await;
        let newest = kept(&client).await[0].transaction;
        for dry_run in [true, false] {
            let error = undo(client.as_mut(), newest, Conflicts::Refuse, dry_run).await.expect_err("forced");
            assert!(error.to_string().contains("row-level security") && error.to_string().contains("BYPASSRLS"), "{error}");
        }
        run(&admin, &format!("ALTER ROLE {rail} BYPASSRLS")).await;
        undo_newest(&mut client).await;
        assert_eq!(contents(&admin, FRIDAY_TABLES).await, before);
        // A table that is not pgrail's to write is not captured, and that is said.
        run(&admin, &format!("ALTER TABLE messages OWNER TO postgres; GRANT TRIGGER ON messages TO {rail}")).await;
        reconcile(&mut client, &capturing(guard("a/b", USERS))).await;
        let plan = verify(&client, &capturing(guard("a/b", USERS))).await;
        assert!(plan.is_empty(), "{:?}\n{}", plan.drift(), plan.sql().join("\n-- next\n"));
        assert!(plan.tables()[0].message.contains("deleted rows are not captured"), "{:?}", plan.tables());
        drop((client, session));
        for role in [&rail, &app, &owner] {
            run(&admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        }
        database.finish().await;
    })
    .await;
}

/// Tables of a role that wishes pgrail ill, with everything that it can define for its own types. Whatever of it runs
/// leaves the role that it ran as in `ran`.
const HOSTILE: &str = r"
CREATE TABLE ran (who name, what text);
CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ran VALUES (current_user, what)';
CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TYPE pair AS (a int, b mood);
CREATE TABLE users (id int PRIMARY KEY, m mood UNIQUE, p pair, ms mood[]);
CREATE TABLE posts (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, m mood, p pair);
CREATE TABLE marks (id int PRIMARY KEY, m mood DEFAULT 'sad' REFERENCES users (m) ON DELETE SET NULL, p pair);
INSERT INTO users VALUES (1, 'glad', ROW(1, 'sad')::pair, '{glad,sad}'), (2, 'sad', NULL, NULL);
INSERT INTO posts SELECT i, i % 2 + 1, 'glad', ROW(i, 'glad')::pair FROM generate_series(1, 10) i;
INSERT INTO marks SELECT i, 'glad', ROW(i, NULL)::pair FROM generate_series(1, 5) i;
";

/// Casts of every type of [`HOSTILE`], rows included, to and from every type that text is made by.
fn hostile_casts() -> String {
    let mut sql = String::new();
    for (number, source) in ["mood", "mood[]", "pair", "users", "posts", "marks"].iter().enumerate() {
        // Implicit casts of an enum would make PostgreSQL's own foreign keys ambiguous.
        let how = if number < 2 { "ASSIGNMENT" } else { "IMPLICIT" };
        for target in ["text", "json", "jsonb", "varchar"] {
            let name = format!("cast_{number}_{target}");
            let body = |from: &str, to: &str, value: &str| {
                format!(
                    "CREATE FUNCTION {name}({from}) RETURNS {to} LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('{from} as {to}'); RETURN {value}; END $$;
                     CREATE CAST ({from} AS {to}) WITH FUNCTION {name}({from}) AS {how};"
                )
            };
            sql.push_str(&body(source, target, "'1'"));
            sql.push_str(&body(target, source, "NULL"));
        }
    }
    sql
}

#[tokio::test]
async fn capture_evaluates_nothing_that_an_owner_defines() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let admin = database.connect().await;
        let (owner, rail) = (server.role_name("owner"), server.role_name("rail"));
        run(
            &admin,
            &format!(
                "CREATE ROLE {owner}; CREATE ROLE {rail} LOGIN PASSWORD 'secret' IN ROLE {owner};
                 GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; SET ROLE {owner}",
                database.name
            ),
        )
        .await;
        run(&admin, HOSTILE).await;
        run(&admin, "GRANT INSERT ON ran TO PUBLIC").await;
        run(&admin, &hostile_casts()).await;
        let mut client = database.connect_as(&rail, "secret").await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        run(&admin, "DELETE FROM users WHERE id = 1; DELETE FROM marks WHERE id = 1").await;
        let ran: Vec<String> = admin
            .query("SELECT who || ': ' || what FROM ran", &[])
            .await
            .expect("ran")
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(ran, Vec::<String>::new(), "as {rail}");
        let kept = kept(&client).await;
        let cascade = kept.last().expect("kept");
        let mut rows: Vec<_> = cascade.tables.iter().map(|it| (it.table.as_str(), it.deleted, it.nulled)).collect();
        rows.sort_unstable();
        assert_eq!(rows, [("public.marks", 0, 5), ("public.posts", 5, 0), ("public.users", 1, 0)], "{cascade:?}");
        drop(client);
        run(&admin, "RESET ROLE").await;
        for role in [&rail, &owner] {
            run(&admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        }
        database.finish().await;
    })
    .await;
}
