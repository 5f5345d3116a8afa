//! Capture and undo between roles: who can read what is captured, and whose code runs as whom.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::collections::BTreeSet;

use common::capture::*;
use common::{FRIDAY, count, friday, guard, install, reconcile, refused, run, verify};
use pgrail_guard::{Conflicts, TableState, captured, prune, undo};
use pgrail_testing::{Client, Database, Server, for_each_server};

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
            "SELECT * FROM pgrail.captured_10",
            "SELECT * FROM pgrail.captured_transaction_10",
            "INSERT INTO pgrail.captured_10 (xid, began, guard, rel, label, effect, attributes, fields, before) VALUES ('1', now(), 1, 'users', '', 'd', 2, 2, '(1,x)')",
            "UPDATE pgrail.captured_transaction_10 SET incomplete = 'x'",
            "DELETE FROM pgrail.captured_10",
            "TRUNCATE pgrail.captured_10",
            "SELECT nextval('pgrail.captured_10_id_seq')",
            "SELECT pgrail.prune_captured_rows(10, '[]', NULL, 1)",
            "CREATE TRIGGER t AFTER DELETE ON mine REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION pgrail.capture_10_1()",
            "ALTER TABLE users DISABLE TRIGGER pgrail_capture",
        ] {
            let error = refused(&app, sql).await;
            assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
        }
        assert_eq!(count(&client, STORE).await, 1 + 2 + 10 + 100 + 5);
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
        // Forced, policies hold for the owner too: said when it is declared, and refused.
        run(&admin, "ALTER TABLE users FORCE ROW LEVEL SECURITY").await;
        run(&session, "DELETE FROM users WHERE id = 1").await;
        let newest = kept(&client).await[0].transaction;
        for dry_run in [true, false] {
            let refused = undo(client.as_mut(), newest, Conflicts::Refuse, dry_run).await.expect("undo");
            assert!(!refused.done && refused.problems.len() == 1, "{refused:?}");
            assert!(refused.problems[0].contains(&format!("run ALTER ROLE {owner} BYPASSRLS")), "{refused:?}");
        }
        let plan = verify(&client, &capturing(guard("a/b", USERS))).await;
        let table = &plan.tables()[0];
        assert!(table.state == TableState::Degraded && table.message.contains(&format!("run ALTER ROLE {owner} BYPASSRLS")), "{table:?}");
        run(&admin, &format!("ALTER ROLE {owner} BYPASSRLS")).await;
        let plan = verify(&client, &capturing(guard("a/b", USERS))).await;
        assert_eq!(plan.tables()[0].state, TableState::Enforced);
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

/// What ran, with the role that it ran as.
async fn ran(admin: &Client) -> BTreeSet<String> {
    let rows = admin.query("SELECT DISTINCT who || ': ' || what FROM ran", &[]).await.expect("ran");
    rows.iter().map(|row| row.get(0)).collect()
}

/// A role that owns [`HOSTILE`], as which `admin` works on, and pgrail's role, a member of it.
async fn hostile(server: &Server, database: &Database) -> (Client, String, String) {
    let admin = database.connect().await;
    let (owner, rail) = (server.role_name("owner"), server.role_name("rail"));
    run(
        &admin,
        &format!(
            "CREATE ROLE {owner}; CREATE ROLE {rail} LOGIN PASSWORD 'secret' IN ROLE {owner};
             GRANT CREATE ON DATABASE {} TO {rail}, {owner}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; SET ROLE {owner}",
            database.name
        ),
    )
    .await;
    run(&admin, HOSTILE).await;
    run(&admin, "GRANT INSERT ON ran TO PUBLIC").await;
    run(&admin, &hostile_casts()).await;
    (admin, owner, rail)
}

async fn drop_roles(admin: &Client, roles: &[&String]) {
    run(admin, "RESET ROLE").await;
    for role in roles {
        run(admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
    }
}

#[tokio::test]
async fn capture_evaluates_nothing_that_an_owner_defines() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let (admin, owner, rail) = hostile(&server, &database).await;
        let mut client = database.connect_as(&rail, "secret").await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        run(&admin, "DELETE FROM users WHERE id = 1; DELETE FROM marks WHERE id = 1").await;
        assert_eq!(ran(&admin).await, BTreeSet::new(), "as {rail}");
        let kept = kept(&client).await;
        let cascade = kept.last().expect("kept");
        let mut rows: Vec<_> = cascade.tables.iter().map(|it| (it.table.as_str(), it.deleted, it.nulled)).collect();
        rows.sort_unstable();
        assert_eq!(rows, [("public.marks", 0, 5), ("public.posts", 5, 0), ("public.users", 1, 0)], "{cascade:?}");
        drop(client);
        drop_roles(&admin, &[&rail, &owner]).await;
        database.finish().await;
    })
    .await;
}

/// What an owner can put in the way of rows that are restored. `noted` reports which role it runs as, and tries to become
/// another.
const TRAPS: &str = r"
CREATE FUNCTION noted(what text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note(what); RETURN true; END $$;
CREATE FUNCTION immutable(what text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note(what); RETURN 1; END $$;
CREATE DOMAIN checked AS text CHECK (noted('domain'));
CREATE SCHEMA evil;
CREATE FUNCTION evil.equal(xid8, xid8) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('operator'); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = xid8, RIGHTARG = xid8, FUNCTION = evil.equal);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('now'); RETURN pg_catalog.now(); END $$;
CREATE TABLE deferring (id int);
CREATE FUNCTION deferred() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.note('deferred');
  IF NEW.id < 3 THEN SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.deferring VALUES (NEW.id + 1); END IF;
  RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER deferring AFTER INSERT ON deferring DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION deferred();
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE attempt text; BEGIN
  PERFORM public.note('trigger');
  FOREACH attempt IN ARRAY ARRAY[
    'RESET ROLE', 'SET ROLE NONE', 'RESET SESSION AUTHORIZATION',
    'ALTER FUNCTION pgrail.undo(text, bool) SECURITY INVOKER', 'DROP FUNCTION pgrail.undo(text, bool)',
    'CREATE FUNCTION pgrail.undo(text, bool) RETURNS text LANGUAGE sql AS $x$ SELECT public.noted(''undo'')::text $x$',
    (SELECT format('CREATE TRIGGER trap BEFORE UPDATE ON pgrail.captured_transaction_%s EXECUTE FUNCTION public.trap()', oid::bigint) FROM pg_roles WHERE rolname = current_user),
    'SET search_path = evil, pg_catalog', 'SET row_security = on', 'SET standard_conforming_strings = off',
    'DECLARE held CURSOR WITH HOLD FOR SELECT public.noted(''cursor'')',
    'SET CONSTRAINTS ALL DEFERRED', 'INSERT INTO public.deferring VALUES (1)'
  ] LOOP
    BEGIN EXECUTE attempt; PERFORM public.note('after ' || attempt); EXCEPTION WHEN OTHERS THEN NULL; END;
  END LOOP;
  RETURN coalesce(NEW, OLD); END $$;
ALTER TABLE users ADD d checked DEFAULT 'x';
ALTER TABLE posts ADD d checked[] DEFAULT '{x}', ADD g int GENERATED ALWAYS AS (immutable('generated')) STORED;
ALTER TABLE users ADD CONSTRAINT traps CHECK (noted('check'));
CREATE INDEX ON posts (immutable('index')); CREATE INDEX ON users (id) WHERE immutable('predicate') = 1;
CREATE STATISTICS stats ON (immutable('statistics')), id FROM users;
CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION trap();
CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON marks FOR EACH ROW EXECUTE FUNCTION trap();
";

#[tokio::test]
async fn undo_runs_what_an_owner_defines_as_that_owner() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let (admin, owner, rail) = hostile(&server, &database).await;
        run(&admin, TRAPS).await;
        let before = contents(&admin, &["users", "posts", "marks"]).await;
        let mut client = database.connect_as(&rail, "secret").await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let app = server.role_name("app");
        run(&admin, "RESET ROLE").await;
        run(
            &admin,
            &format!(
                "CREATE ROLE {app} LOGIN PASSWORD 'secret'; GRANT SELECT, DELETE ON users TO {app}; GRANT INSERT ON deferring TO {app}; SET ROLE {owner}"
            ),
        )
        .await;
        run(&database.connect_as(&app, "secret").await, "DELETE FROM users WHERE id = 1").await;
        run(
            &admin,
            "ALTER TABLE users ADD added bool DEFAULT noted('default'); DELETE FROM ran; DELETE FROM deferring",
        )
        .await;
        // Captured rows are the owner's. What the owner did to them, here by the trap, is not evaluated as pgrail's role.
        let error = captured(&client).await.expect_err("altered");
        assert!(error.to_string().contains("was altered by its owner"), "{error}");
        assert_eq!(prune(&client, "local").await.expect_err("altered").to_string(), error.to_string());
        let store: u32 = admin.query_one("SELECT oid FROM pg_roles WHERE rolname = $1", &[&owner]).await.unwrap().get(0);
        run(&admin, &format!("DROP TRIGGER trap ON pgrail.captured_transaction_{store}")).await;
        let newest = kept(&client).await[0].transaction;
        for dry_run in [true, false] {
            // As it would be by the command line: a session of its own.
            let mut session = database.connect_as(&rail, "secret").await;
            let undone = undo(session.as_mut(), newest, Conflicts::Refuse, dry_run).await.expect("undo");
            assert_eq!((undone.problems.as_slice(), undone.done), ([].as_slice(), !dry_run), "{undone:?}");
            let triggers: Vec<_> = undone.triggers.iter().map(|it| (it.table.as_str(), it.name.as_str())).collect();
            assert_eq!(triggers, [("public.users", "trap"), ("public.marks", "trap")], "{undone:?}");
            assert_eq!(ran(&admin).await.is_empty(), dry_run, "what a dry run does is rolled back");
        }
        let ran = ran(&admin).await;
        let others: Vec<_> = ran.iter().filter(|it| !it.starts_with(&format!("{owner}: "))).collect();
        assert!(others.is_empty(), "{others:?}");
        for what in [
            "trigger",
            "deferred",
            "check",
            "domain",
            "generated",
            "index",
            "after INSERT INTO public.deferring VALUES (1)",
        ] {
            assert!(ran.contains(&format!("{owner}: {what}")), "{what}: {ran:?}");
        }
        for what in [
            "after RESET ROLE",
            "after SET ROLE NONE",
            "after RESET SESSION AUTHORIZATION",
            "cursor",
            "operator",
            "now",
            "undo",
        ] {
            assert!(!ran.contains(&format!("{owner}: {what}")), "{what}: {ran:?}");
        }
        run(&admin, "ALTER TABLE users DROP added").await;
        assert_eq!(contents(&admin, &["users", "posts", "marks"]).await, before);
        assert_eq!(count(&admin, "deferring").await, 3 * 6, "once for each row of users and of marks");
        let left = "pg_proc p WHERE p.proname LIKE 'undo%' AND p.pronamespace = 'pgrail'::regnamespace";
        assert_eq!(count(&admin, left).await, 0);
        assert_eq!(count(&admin, "pg_class c WHERE c.relname LIKE 'undo%'").await, 0);
        drop(client);
        drop_roles(&admin, &[&app, &rail, &owner]).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_could_not_be_restored_is_reported_when_it_is_declared() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let admin = database.connect().await;
        let [one, two, rail] = ["one", "two", "rail"].map(|name| server.role_name(name));
        run(
            &admin,
            &format!(
                "CREATE ROLE {one}; CREATE ROLE {two}; CREATE ROLE {rail} LOGIN PASSWORD 'secret' IN ROLE {one}, {two};
                 GRANT CREATE ON DATABASE {} TO {rail}; CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE posts (id int REFERENCES users ON DELETE CASCADE);
                 INSERT INTO users VALUES (1), (2); ALTER TABLE users OWNER TO {one}; ALTER TABLE posts OWNER TO {one};
                 ALTER TABLE posts ENABLE ROW LEVEL SECURITY; ALTER TABLE posts FORCE ROW LEVEL SECURITY",
                database.name
            ),
        )
        .await;
        let mut client = database.connect_as(&rail, "secret").await;
        let spec = capturing(guard("a/b", USERS));
        let told = async |client: &Client, state: TableState, what: &str| {
            let plan = verify(client, &spec).await;
            let table = &plan.tables()[0];
            assert!(table.state == state && table.message.contains(what), "{what}: {table:?}");
        };
        let forced = format!("run ALTER ROLE {one} BYPASSRLS, or ALTER TABLE public.posts NO FORCE ROW LEVEL SECURITY");
        told(&client, TableState::Pending, &forced).await;
        reconcile(&mut client, &spec).await;
        told(&client, TableState::Degraded, &forced).await;
        run(&admin, "ALTER TABLE posts NO FORCE ROW LEVEL SECURITY").await;
        told(&client, TableState::Enforced, "").await;

        // Two owners: a part could be pruned or restored without the other.
        run(&admin, &format!("ALTER TABLE posts OWNER TO {two}")).await;
        reconcile(&mut client, &spec).await;
        told(&client, TableState::Degraded, "give them one owner").await;
        assert!(verify(&client, &spec).await.is_empty());
        run(&admin, "DELETE FROM users WHERE id = 1").await;
        assert_eq!(kept(&client).await, []);

        // With the tables, what is captured can be handed over; so can a table alone, whose new owner must not read it.
        run(&admin, &format!("ALTER TABLE posts OWNER TO {one}")).await;
        install(&mut client, &spec).await;
        run(&admin, "DELETE FROM users WHERE id = 2").await;
        let newest = kept(&client).await[0].transaction;
        run(&admin, &format!("ALTER TABLE users OWNER TO {two}")).await;
        let refused = undo(client.as_mut(), newest, Conflicts::Refuse, false).await.expect("undo");
        assert!(refused.problems[0].contains(&format!("public.users belongs to {two} now")), "{refused:?}");
        run(&admin, &format!("ALTER TABLE users OWNER TO {one}; REASSIGN OWNED BY {one} TO {two}")).await;
        undo_newest(&mut client).await;
        install(&mut client, &spec).await;
        run(&admin, "DELETE FROM users WHERE id = 2").await;
        undo_newest(&mut client).await;
        // What nothing captures into any more goes when it is empty.
        run(&admin, "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT c.oid FROM pg_class c WHERE c.relname ~ '^captured_[a-z_]*[0-9]+$' LOOP EXECUTE format('DELETE FROM %s', t); END LOOP; END $$").await;
        prune(&client, "local").await.expect("prune");
        let stores = "pg_class c WHERE c.relname ~ '^captured_[a-z_]*[0-9]+$' AND c.relkind = 'r'";
        assert_eq!(count(&admin, stores).await, 2);
        install(&mut client, &spec).await;
        drop(client);
        drop_roles(&admin, &[&rail, &one, &two]).await;
        database.finish().await;
    })
    .await;
}
