//! Whose code runs as whom when rows are restored.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use pgrail_restore::{Condition, Conflicts, RestoreError, RowsRequest, TableSelection, Triggers};
use pgrail_testing::for_each_server;
use support::{
    backup, contents, count, drop_roles, numbers, ran, request, restore, roles, run, selection, settings_of,
};

/// Tables of a role that wishes pgrail ill, with everything that it can define for its own types. Whatever of it runs leaves the role
/// that it ran as in `ran`. `noted` tries to become another role.
const HOSTILE: &str = r"
CREATE TABLE ran (who name, what text);
CREATE FUNCTION note(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO public.ran VALUES (current_user, what);
  EXCEPTION WHEN read_only_sql_transaction THEN
    IF current_user <> (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'public.ran'::regclass) THEN
      RAISE EXCEPTION 'caught: % ran as %', what, current_user; END IF; END $$;
CREATE FUNCTION noted(what text) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION immutable(what text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.noted(what); RETURN 1; END $$;
CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TYPE pair AS (a int, b mood);
CREATE TABLE deferring (id int);
CREATE FUNCTION deferred() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note('deferred'); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER deferring AFTER INSERT ON deferring DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION deferred();
CREATE SCHEMA evil;
CREATE FUNCTION evil.equal(tid, tid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM public.noted('operator'); RETURN true; END $$;
CREATE OPERATOR evil.= (LEFTARG = tid, RIGHTARG = tid, FUNCTION = evil.equal);
CREATE FUNCTION evil.count(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM public.noted('count'); RETURN 1; END $$;
CREATE DOMAIN checked AS text CHECK (noted('domain'));
CREATE TABLE users (id int PRIMARY KEY, m mood UNIQUE, p pair, ms mood[], d checked DEFAULT 'x', ds checked[]);
CREATE TABLE posts (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, m mood, p pair, g int GENERATED ALWAYS AS (1) STORED);
CREATE TABLE marks (id int PRIMARY KEY, m mood DEFAULT 'sad' REFERENCES users (m) ON DELETE SET NULL, p pair);
INSERT INTO users VALUES (1, 'glad', ROW(1, 'sad')::pair, '{glad,sad}', 'a, (b) \ '' quoted', '{x,NULL}'), (2, 'sad', NULL, NULL, NULL, NULL);
INSERT INTO posts SELECT i, i % 2 + 1, 'glad', ROW(i, 'glad')::pair FROM generate_series(1, 10) i;
INSERT INTO marks SELECT i, 'glad', ROW(i, NULL)::pair FROM generate_series(1, 5) i;
";

/// What the owner puts in the way after the backup was made.
const TRAPS: &str = r"
ALTER TABLE users ADD CONSTRAINT traps CHECK (noted('check'));
CREATE INDEX ON posts (immutable('index')); CREATE INDEX ON users (id) WHERE immutable('predicate') = 1;
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.noted('trigger'); RETURN NEW; END $$;
CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION trap();
CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON marks FOR EACH ROW EXECUTE FUNCTION trap();
CREATE OR REPLACE FUNCTION noted(what text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE attempt text; BEGIN
  PERFORM public.note(what);
  FOREACH attempt IN ARRAY ARRAY[
    'RESET ROLE', 'SET ROLE NONE', 'RESET SESSION AUTHORIZATION',
    'ALTER FUNCTION pg_temp.pgrail_restore(text, bool) SECURITY INVOKER', 'DROP FUNCTION pg_temp.pgrail_restore(text, bool)',
    'CREATE FUNCTION pg_temp.pgrail_restore(varchar, bool) RETURNS text LANGUAGE sql AS $x$ SELECT public.noted(''overload'')::text $x$',
    'SET search_path = evil, pg_catalog', 'SET row_security = on', 'SET standard_conforming_strings = off',
    'DECLARE held CURSOR WITH HOLD FOR SELECT public.noted(''cursor'')',
    'SET CONSTRAINTS ALL DEFERRED', 'INSERT INTO public.deferring VALUES (1)'
  ] LOOP
    BEGIN EXECUTE attempt; PERFORM public.note('after ' || attempt); EXCEPTION WHEN OTHERS THEN NULL; END;
  END LOOP;
  RETURN true; END $$;
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
                    "CREATE FUNCTION {name}({from}) RETURNS {to} LANGUAGE plpgsql AS $$ BEGIN PERFORM public.noted('{from} as {to}'); RETURN {value}; END $$;
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
async fn what_an_owner_defines_runs_as_that_owner() {
    for_each_server(async |server| {
        let database = server.database("hostile").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        run(&admin, HOSTILE).await;
        run(&admin, "GRANT INSERT ON ran, deferring TO PUBLIC; GRANT USAGE ON SCHEMA evil TO PUBLIC").await;
        run(&admin, &hostile_casts()).await;
        let tables = ["users", "posts", "marks"];
        let before = contents(&admin, &tables).await;
        let backup = backup(&database).await;
        run(&admin, "DELETE FROM users WHERE id = 1").await;
        run(&admin, TRAPS).await;
        for superuser in [false, true] {
            for dry_run in [true, false] {
                let uri = if superuser { database.uri.clone() } else { database.uri_for(&rail, "secret") };
                let mut request = request(&database, &uri, "users", "id = 1 AND m = 'glad' AND p IS NOT NULL");
                request.dry_run = dry_run;
                let restored = restore(&request, &backup).await.unwrap();
                assert_eq!((restored.problems.as_slice(), restored.done), ([].as_slice(), !dry_run), "{restored:#?}");
                assert_eq!(numbers(&restored, "users"), [1, 1, 0, 0, 0, 0]);
                assert_eq!(numbers(&restored, "posts"), [5, 5, 0, 0, 0, 0]);
                assert_eq!(numbers(&restored, "marks"), [0, 0, 0, 0, 5, 5]);
                assert!(restored.triggers.contains(&"public.users: trap".to_owned()));
            }
            let ran = ran(&admin).await;
            let others: Vec<_> = ran.iter().filter(|it| !it.starts_with(&format!("{owner}: "))).collect();
            assert!(others.is_empty(), "superuser {superuser}: {others:?}");
            for what in ["trigger", "deferred", "check", "domain", "index", "predicate"] {
                assert!(ran.contains(&format!("{owner}: {what}")), "{what}: {ran:?}");
            }
            for what in ["cursor", "operator", "count", "overload", "after RESET ROLE", "after SET ROLE NONE"] {
                assert!(!ran.contains(&format!("{owner}: {what}")), "{what}: {ran:?}");
            }
            // What is run here falls into the traps, too: in a session of its own, with qualified names.
            let after = contents(&database.connect().await, &["public.users", "public.posts", "public.marks"]).await;
            assert_eq!(after, before);
            let again = database.connect().await;
            run(&again, &format!("SET ROLE {owner}; DELETE FROM public.users WHERE id = 1")).await;
            run(&database.connect().await, "DELETE FROM public.ran; DELETE FROM public.deferring").await;
        }
        drop_roles(&admin, &[&rail, &owner]).await;
        database.finish().await;
    })
    .await;
}

/// A condition is evaluated while the server is read-only, as the owner of the table: code that it reaches can change nothing.
#[tokio::test]
async fn a_condition_changes_nothing() {
    for_each_server(async |server| {
        let database = server.database("condition").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        run(
            &admin,
            "CREATE TABLE written (who name);
             CREATE DOMAIN word AS text; CREATE TABLE t (id int PRIMARY KEY, w word); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        )
        .await;
        let backup = backup(&database).await;
        run(
            &admin,
            "DELETE FROM t; GRANT INSERT ON written TO PUBLIC;
             CREATE FUNCTION write() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
               BEGIN SET transaction_read_only = off; EXCEPTION WHEN OTHERS THEN NULL; END;
               INSERT INTO public.written VALUES (current_user); RETURN true; END $$;
             ALTER DOMAIN word ADD CHECK (write())",
        )
        .await;
        let uri = database.uri_for(&rail, "secret");
        let error = restore(&request(&database, &uri, "t", "w = 'a'"), &backup).await.unwrap_err();
        assert!(matches!(&error, RestoreError::Refused { code, .. } if code == "25006"), "{error:?}");
        assert_eq!((count(&admin, "written").await, count(&admin, "t").await), (0, 0));

        // What is not a condition on columns is refused before anything is read.
        for text in ["id = 1) OR (SELECT true", "pg_catalog.pg_sleep(9) IS NULL", "query_to_xml('select 1', true, true, '') IS NULL"] {
            Condition::parse(text).unwrap_err();
        }
        // What is one, and is not valid, is the author's error, and not a failure of the connection.
        let error = restore(&request(&database, &uri, "t", "nothing = 1"), &backup).await.unwrap_err();
        assert!(matches!(&error, RestoreError::Refused { code, .. } if code == "42703"), "{error:?}");
        drop_roles(&admin, &[&rail, &owner]).await;
        database.finish().await;
    })
    .await;
}

/// Tables of two owners, who cannot read each other's.
#[tokio::test]
async fn owners_see_nothing_of_each_other() {
    for_each_server(async |server| {
        let database = server.database("owners").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        let other = server.role_name("other");
        run(&admin, "CREATE TABLE users (id int PRIMARY KEY, secret text); INSERT INTO users VALUES (1, 'a'), (2, 'b')").await;
        run(
            &admin,
            &format!(
                "RESET ROLE; CREATE ROLE {other}; GRANT {other} TO {rail}; GRANT CREATE, USAGE ON SCHEMA public TO {other};
                 SET ROLE {owner}; GRANT REFERENCES ON users TO {other}; RESET ROLE; SET ROLE {other};
                 CREATE TABLE posts (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
                 INSERT INTO posts VALUES (10, 1), (20, 2); RESET ROLE; SET ROLE {owner}"
            ),
        )
        .await;
        let backup = backup(&database).await;
        run(&admin, "DELETE FROM users WHERE id = 1").await;
        let uri = database.uri_for(&rail, "secret");
        let restored = restore(&request(&database, &uri, "users", "id = 1"), &backup).await.unwrap();
        assert_eq!((numbers(&restored, "users"), numbers(&restored, "posts")), ([1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]));
        run(&admin, "RESET ROLE").await;
        assert_eq!(count(&admin, "posts").await, 2);

        // Without membership in an owner nothing is read, and the remedy is named.
        run(&admin, &format!("DELETE FROM users WHERE id = 1; REVOKE {other} FROM {rail}")).await;
        let error = restore(&request(&database, &uri, "users", "id = 1"), &backup).await.unwrap_err();
        assert!(error.to_string().contains("must be a member of the owner"), "{error}");
        assert_eq!(count(&admin, "users").await, 1);
        drop_roles(&admin, &[&rail, &other, &owner]).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn triggers_are_skipped_and_enabled_again_as_they_were() {
    for_each_server(async |server| {
        let database = server.database("triggers").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        run(
            &admin,
            "CREATE TABLE log (what text);
             CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (TG_NAME); RETURN NEW; END $$;
             CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
             CREATE TRIGGER origin BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION log();
             CREATE TRIGGER always BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION log(); ALTER TABLE t ENABLE ALWAYS TRIGGER always;
             CREATE TRIGGER off BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION log(); ALTER TABLE t DISABLE TRIGGER off",
        )
        .await;
        run(&admin, "INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2)").await;
        run(&admin, "DELETE FROM log").await;
        let backup = backup(&database).await;
        let state = "SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal";
        let before: String = admin.query_one(state, &[]).await.unwrap().get(0);
        for (triggers, logged) in [(Triggers::Skip, 0), (Triggers::Fire, 6)] {
            run(&admin, "DELETE FROM t").await;
            let uri = database.uri_for(&rail, "secret");
            let mut request = request(&database, &uri, "t", "");
            request.triggers = triggers;
            let restored = restore(&request, &backup).await.unwrap();
            assert_eq!(numbers(&restored, "t"), [3, 3, 0, 0, 0, 0]);
            assert_eq!(restored.triggers.len(), if logged == 0 { 0 } else { 2 });
            assert_eq!((count(&admin, "log").await, count(&admin, "t").await), (logged, 3));
            assert_eq!(admin.query_one(state, &[]).await.unwrap().get::<_, String>(0), before);
        }
        drop_roles(&admin, &[&rail, &owner]).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn tables_of_others_are_no_targets() {
    let database = pgrail_testing::server(18).database("targets").await;
    let admin = database.connect().await;
    run(&admin, "CREATE TABLE t (id int) PARTITION BY LIST (id); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE VIEW v AS SELECT 1").await;
    let backup = backup(&database).await;
    for (schema, name, expected) in [
        ("pg_catalog", "pg_authid", "not a table of the application"),
        ("pgrail", "config", "not a table of the application"),
        ("public", "nothing", "does not exist in the target"),
        ("public", "v", "is not a table"),
        ("public", "t1", "name the partitioned table public.t"),
    ] {
        let table = TableSelection { schema: schema.into(), name: name.into(), condition: None };
        let mut request = RowsRequest::new(settings_of(&database.uri), vec![table]);
        request.client_directory = Some(pgrail_testing::programs(18));
        let error = restore(&request, &backup).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut request = RowsRequest::new(settings_of(&database.uri), vec![selection("t", ""), selection("t", "id = 1")]);
    request.conflicts = Conflicts::SkipExisting;
    request.client_directory = Some(pgrail_testing::programs(18));
    assert!(restore(&request, &backup).await.unwrap_err().to_string().contains("named twice"));
    drop(admin);
    database.finish().await;
}
