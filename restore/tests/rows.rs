//! Rows of every kind of table, and rows that are in the way.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use pgrail_dump::Reason;
use pgrail_restore::{Conflicts, RestoreError};
use pgrail_testing::for_each_server;
use support::{backup, contents, count, numbers, request, restore, run, selection};

#[tokio::test]
async fn rows_that_exist_are_no_conflict_unless_they_are_different() {
    for_each_server(async |server| {
        let database = server.database("conflicts").await;
        let client = database.connect().await;
        run(
            &client,
            "CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE, name text);
             CREATE TABLE posts (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
             INSERT INTO users SELECT i, 'mail' || i, 'user ' || i FROM generate_series(1, 10) i;
             INSERT INTO posts SELECT i, (i + 1) / 2 FROM generate_series(1, 20) i",
        )
        .await;
        let backup = backup(&database).await;
        let before = contents(&client, &["users", "posts"]).await;
        // 1 and 2 are deleted, 3 is another by now, and what was 4 has registered again.
        run(
            &client,
            "DELETE FROM users WHERE id IN (1, 2, 4); UPDATE users SET name = 'changed' WHERE id = 3; INSERT INTO users VALUES (99, 'mail4', 'x')",
        )
        .await;
        let changed = contents(&client, &["users", "posts"]).await;
        let mut request = request(&database, &database.uri, "users", "id <= 5");
        for dry_run in [true, false] {
            request.dry_run = dry_run;
            let failed = restore(&request, &backup).await.unwrap();
            assert!(!failed.done);
            assert_eq!(numbers(&failed, "users"), [5, 2, 1, 2, 0, 0], "{failed:#?}");
            let problems = failed.problems.join("\n");
            assert!(problems.contains("2 rows of public.users exist and are different, by (id): 3; 4"), "{problems}");
            // Rows of a user that is not restored.
            assert!(problems.contains("2 rows of public.posts have no parent in public.users"), "{problems}");
            assert_eq!(contents(&client, &["users", "posts"]).await, changed, "nothing is changed");
        }
        request.conflicts = Conflicts::SkipExisting;
        request.tables = vec![selection("users", "id <= 3")];
        let restored = restore(&request, &backup).await.unwrap();
        assert!(restored.done, "{restored:#?}");
        assert_eq!(numbers(&restored, "users"), [3, 2, 0, 1, 0, 0]);
        assert_eq!(numbers(&restored, "posts"), [6, 4, 2, 0, 0, 0]);
        run(&client, "DELETE FROM users WHERE id = 99; UPDATE users SET name = 'user 3' WHERE id = 3").await;
        request.tables = vec![selection("users", "")];
        assert!(restore(&request, &backup).await.unwrap().done);
        assert_eq!(contents(&client, &["users", "posts"]).await, before);
        drop(client);
        database.finish().await;
    })
    .await;
}

/// Values of types that are read as text first, and every kind of table.
const ODD: &str = r#"
CREATE TYPE pair AS (a int, "b c" text); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE floats AS RANGE (subtype = float8);
CREATE TABLE "Odd ""table""" ("the ""id""" int PRIMARY KEY, p pair, ps pair[], d positive, ds positive[], r floats, x xml, j json, b bytea, t text, n numeric, i interval,
  ts timestamptz, at tsrange, g int GENERATED ALWAYS AS ("the ""id""" * 2) STORED, dropped int, s bigserial);
ALTER TABLE "Odd ""table""" DROP dropped;
INSERT INTO "Odd ""table""" VALUES (1, ROW(1, E'a, "b" (c) \\ '' \n'), ARRAY[ROW(NULL, ''), NULL]::pair[], 7, '{1,NULL}', '[1.5,2)', '<a>1</a>', '{"a":  1}', '\x00ff', E'\\.\n\t', 1.500, '1 mon 2 days', '2026-11-23 02:15:00.123456+02', '[2026-01-01,2026-02-01)'),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE events (id int, at date, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 (what text, at date NOT NULL, id int NOT NULL); ALTER TABLE events ATTACH PARTITION events_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO events SELECT i, '2025-06-01'::date + i, 'x' FROM generate_series(1, 400) i;
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree ON DELETE CASCADE);
INSERT INTO tree SELECT i, NULLIF(i / 2, 0) FROM generate_series(1, 100) i;
CREATE TABLE hen (id int PRIMARY KEY, egg int); CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen ON DELETE CASCADE);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg ON DELETE CASCADE;
INSERT INTO hen VALUES (1, NULL), (2, NULL); INSERT INTO egg VALUES (1, 1), (2, 2); UPDATE hen SET egg = 3 - id;
CREATE TABLE keyless (a int, b text); INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL), (3, 'z');
CREATE TABLE owners (id int PRIMARY KEY); INSERT INTO owners VALUES (0), (1), (2);
CREATE TABLE things (id int PRIMARY KEY, owner int DEFAULT 0 REFERENCES owners ON DELETE SET DEFAULT, note text);
INSERT INTO things VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 1, 'd');
"#;

const TABLES: &[&str] = &["\"Odd \"\"table\"\"\"", "events", "tree", "hen", "egg", "keyless", "owners", "things"];

#[tokio::test]
async fn rows_of_every_kind_come_back_as_they_were() {
    for_each_server(async |server| {
        let database = server.database("odd").await;
        let client = database.connect().await;
        run(&client, ODD).await;
        let before = contents(&client, TABLES).await;
        let backup = backup(&database).await;
        run(
            &client,
            r#"DELETE FROM "Odd ""table"""; SELECT setval('"Odd ""table""_s_seq"', 1, false); DELETE FROM events WHERE at BETWEEN '2025-12-01' AND '2026-01-31';
               DELETE FROM tree WHERE id = 3; DELETE FROM hen; DELETE FROM keyless WHERE ctid IN (SELECT min(ctid) FROM keyless WHERE a = 1); DELETE FROM keyless WHERE a = 2;
               DELETE FROM owners WHERE id = 1; UPDATE things SET owner = 2 WHERE id = 4; DELETE FROM things WHERE id = 2"#,
        )
        .await;
        for (table, condition, expected) in [
            ("Odd \"table\"", "d IS NULL OR d = 7", [2, 2, 0, 0, 0, 0]),
            ("events", "at >= '2025-11-01'", [248, 62, 186, 0, 0, 0]),
            ("tree", "id = 3", [36, 36, 0, 0, 0, 0]),
            ("hen", "id = 1", [2, 2, 0, 0, 0, 0]),
            ("keyless", "", [5, 2, 3, 0, 0, 0]),
            ("owners", "id = 1", [1, 1, 0, 0, 0, 0]),
        ] {
            let restored = restore(&request(&database, &database.uri, table, condition), &backup).await;
            let restored = restored.unwrap_or_else(|error| panic!("{table}: {error:?}"));
            assert!(restored.done, "{restored:#?}");
            assert_eq!(numbers(&restored, table), expected, "{restored:#?}");
            if table == "owners" {
                // One has the default, one is gone, and one has another owner by now, as the rule is only to insert.
                assert_eq!(numbers(&restored, "things"), [0, 0, 0, 0, 1, 1]);
            }
        }
        run(&client, "UPDATE things SET owner = 1 WHERE id = 4; INSERT INTO things VALUES (2, 1, 'b')").await;
        let after = contents(&client, TABLES).await;
        for (table, (before, after)) in TABLES.iter().zip(before.iter().zip(&after)) {
            assert_eq!(before, after, "{table}");
        }
        let next: i64 = client.query_one(r#"SELECT nextval('"Odd ""table""_s_seq"')"#, &[]).await.unwrap().get(0);
        assert_eq!(next, 3, "the sequence is ahead of the restored values");
        drop(client);
        database.finish().await;
    })
    .await;
}

/// Whatever goes wrong, the target is as it was, and nothing is left in it.
#[tokio::test]
async fn a_failed_restore_leaves_the_target_as_it_was() {
    for_each_server(async |server| {
        let database = server.database("failed").await;
        let client = database.connect().await;
        run(
            &client,
            "CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE);
             INSERT INTO a SELECT i, 'x' FROM generate_series(1, 50) i; INSERT INTO b SELECT i, i FROM generate_series(1, 50) i",
        )
        .await;
        let backup = backup(&database).await;
        run(&client, "DELETE FROM a").await;
        // A trigger that keeps rows out, and one that fails after most of the work is done.
        for (body, reason) in [
            ("RETURN NULL;", Reason::RestoreFailed),
            ("IF NEW.id = 50 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW;", Reason::RestoreFailed),
        ] {
            run(
                &client,
                &format!(
                    "CREATE OR REPLACE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
                     CREATE OR REPLACE TRIGGER no BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION no()"
                ),
            )
            .await;
            let error = restore(&request(&database, &database.uri, "a", ""), &backup).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{error:?}");
            assert_eq!((count(&client, "a").await, count(&client, "b").await), (0, 0));
        }
        run(&client, "DROP TRIGGER no ON b; ALTER TABLE a DROP note").await;
        let error = restore(&request(&database, &database.uri, "a", ""), &backup).await.unwrap_err();
        assert!(error.to_string().contains("no longer has the columns note"), "{error}");
        let error = restore(&request(&database, &database.uri, "c", ""), &backup).await.unwrap_err();
        assert!(matches!(&error, RestoreError::Request(text) if text.contains("does not exist")), "{error:?}");
        run(&client, "ALTER TABLE a ADD note text; ALTER TABLE a FORCE ROW LEVEL SECURITY; ALTER TABLE a ENABLE ROW LEVEL SECURITY").await;

        // A session that is ended in the middle: its staging ends with it, without anybody's help.
        run(&client, "ALTER TABLE a DISABLE ROW LEVEL SECURITY; BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE").await;
        let waiting = request(&database, &database.uri, "a", "");
        let restoring = restore(&waiting, &backup);
        let end = async {
            let admin = database.connect().await;
            loop {
                let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'";
                if admin.query_opt(ended, &[]).await.unwrap().is_some() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let (failed, ()) = tokio::join!(restoring, end);
        assert_eq!(failed.unwrap_err().reason(), Reason::ConnectionFailed);
        run(&client, "COMMIT").await;
        let left = "(SELECT relname AS name FROM pg_class UNION ALL SELECT proname FROM pg_proc UNION ALL SELECT typname FROM pg_type) t WHERE name LIKE 'pgrail%'";
        let admin = database.connect().await;
        while count(&admin, "pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'").await > 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(count(&client, left).await, 0);
        let restored = restore(&waiting, &backup).await.unwrap();
        assert_eq!(numbers(&restored, "b"), [50, 50, 0, 0, 0, 0]);
        drop((client, admin));
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn tables_that_came_later_and_names_in_other_encodings() {
    for_each_server(async |server| {
        let database = server.database("latin").await;
        let client = database.connect().await;
        let name = format!("{}_latin", database.name);
        run(&client, &format!("CREATE DATABASE \"{name}\" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")).await;
        let uri = server.uri_of(&name);
        let latin = pgrail_testing::connect(&uri).await;
        run(&latin, "CREATE TABLE \"Übung\" (\"ä\" int PRIMARY KEY, t text); INSERT INTO \"Übung\" VALUES (1, 'größer'), (2, 'y')").await;
        let before = contents(&latin, &["\"Übung\""]).await;
        let backup = support::backup_of(&uri, server.major).await;
        run(&latin, "DELETE FROM \"Übung\"; CREATE TABLE later (id int REFERENCES \"Übung\" ON DELETE CASCADE)").await;
        let restored = restore(&request(&database, &uri, "Übung", "t LIKE '%ö%' OR \"ä\" = 2"), &backup).await.unwrap();
        assert_eq!(numbers(&restored, "Übung"), [2, 2, 0, 0, 0, 0]);
        assert_eq!(restored.notes, ["public.later is not in the backup: it was created later"]);
        assert_eq!(contents(&latin, &["\"Übung\""]).await, before);
        drop(latin);
        run(&client, &format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
        drop(client);
        database.finish().await;
    })
    .await;
}
