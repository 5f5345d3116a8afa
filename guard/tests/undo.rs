//! Undo: captured rows come back as they were, or not at all.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::capture::*;
use common::{count, friday, guard, install, limited, run, stopped};
use pgrail_guard::{Conflicts, UndoError, undo};
use pgrail_testing::{Client, for_each_server};

#[tokio::test]
async fn a_cascade_is_restored_exactly() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = friday(&database, 40).await;
        install(&mut client, &capturing(limited("shop/core", USERS, 10, 1000))).await;
        let role = server.role_name("app");
        run(
            &client,
            &format!(
                "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
                 GRANT SELECT ON pg_catalog.pg_class TO {role}"
            ),
        )
        .await;
        let app = database.connect_as(&role, "secret").await;
        run(&app, "SET application_name = 'shop-backend'").await;
        let before = contents(&client, FRIDAY_TABLES).await;

        // What is rolled back, stopped, or an update leaves nothing.
        run(&app, "BEGIN; DELETE FROM users WHERE id <= 3; ROLLBACK; UPDATE users SET name = name; DELETE FROM users WHERE id = -1").await;
        stopped(&app, "PGR01", "DELETE FROM users").await;
        run(&app, "BEGIN; SAVEPOINT s; DELETE FROM users WHERE id = 5; ROLLBACK TO s; COMMIT").await;
        assert_eq!(kept(&client).await, []);

        run(&app, "BEGIN").await;
        let xid: String = app.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
        run(&app, "SAVEPOINT s; DELETE FROM users WHERE id = 1; RELEASE s; DELETE FROM users WHERE id IN (2, 3); COMMIT").await;
        let kept_now = kept(&client).await;
        assert_eq!(kept_now.len(), 1);
        let one = &kept_now[0];
        assert_eq!((one.transaction.to_string(), &one.login, &one.application), (xid, &role, &"shop-backend".to_owned()));
        assert_eq!((&one.role, one.client.as_str(), one.guards.as_slice()), (&role, "127.0.0.1", ["shop/core".to_owned()].as_slice()));
        assert_eq!((&one.incomplete, &one.undone), (&None, &None));
        let mut tables: Vec<_> = one.tables.iter().map(|table| (table.table.as_str(), table.deleted, table.nulled)).collect();
        tables.sort_unstable();
        assert_eq!(
            tables,
            [("public.analytics", 15, 0), ("public.conversations", 30, 0), ("public.leads", 6, 0), ("public.messages", 300, 0), ("public.users", 3, 0)]
        );

        let undone = undo_newest(&mut client).await;
        assert_eq!(undone.tables.iter().map(|table| table.inserted).sum::<i64>(), 354);
        assert_eq!(undone.tables[0].table, "public.users", "parents first: {:?}", undone.tables);
        assert_eq!(contents(&client, FRIDAY_TABLES).await, before);
        let one = &kept(&client).await[0];
        assert_eq!(one.undone_by.as_deref(), Some("postgres"));
        let again = problems(&mut client, Conflicts::SkipExisting).await;
        assert!(again.len() == 1 && again[0].contains("undone already"), "{again:?}");
        assert!(matches!(undo(client.as_mut(), 1, Conflicts::Refuse, true).await, Err(UndoError::NoSuchTransaction(1))));

        // A direct delete on a table of the closure is kept too.
        run(&app, "DELETE FROM analytics WHERE id <= 7").await;
        assert_eq!(undo_newest(&mut client).await.tables[0].inserted, 7);
        assert_eq!(contents(&client, FRIDAY_TABLES).await, before);
        drop(app);
        run(&client, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn every_type_is_restored_whatever_the_settings_of_the_session() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = database.connect().await;
        run(
            &client,
            r#"CREATE TYPE mood AS ENUM ('glad', 'so "so"'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN short AS text CHECK (length(value) < 9);
            CREATE TYPE span AS RANGE (subtype = float8);
            CREATE SCHEMA "Odd schema";
            CREATE TABLE "Odd schema"."Odd, ""table""" (
              gone int, "Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "gone" text, label text, "pgrail's row" int, most int, me int,
              b bytea, n numeric, f4 float4, f8 float8, t text, c char(5), v varchar(20), j json, jb jsonb, ts timestamp, tz timestamptz, tt timetz, d date, i interval,
              a int[], ta text[], p pair, pa pair[], r tsrange, rz tstzrange, mr int4multirange, fr span, m mood, s short, x xml, u uuid, ip inet, bits bit varying(9), bo bool, mo money,
              tv tsvector, pt point, reg regclass, up text GENERATED ALWAYS AS (upper(t)) STORED, dead text)"#
                .replace("gone int, ", "")
                .as_str(),
        )
        .await;
        run(
            &client,
            r#"ALTER TABLE "Odd schema"."Odd, ""table""" DROP COLUMN dead, DROP COLUMN v, ADD COLUMN v varchar(20);
            INSERT INTO "Odd schema"."Odd, ""table""" ("gone", label, "pgrail's row", most, me, b, n, f4, f8, t, c, v, j, jb, ts, tz, tt, d, i, a, ta, p, pa, r, rz, mr, fr, m, s, x, u, ip, bits, bo, mo, tv, pt, reg) VALUES
              ('g', 'l', 1, 2, 3, '\x00ff5c27', 'NaN', 1.1, 0.1::float8 + 0.2, E'q"''\\,( )\n\t', 'ab', '', '{"a":  1, "a":null}', '{"z": [1, {"y": null}]}', 'infinity', '0044-03-15 12:00:00.000001+00 BC', '12:00:00.5+05:30', '-infinity',
               '-1 year 2 mons -3 days 04:05:06.789', '[2:3]={7,NULL}', ARRAY['NULL', NULL, '', 'a"b\c', ' x '], ROW(NULL, ''), ARRAY[ROW(1, 'a,b')::pair, NULL], '[2001-02-03 04:05:06,)', '[2001-02-03 04:05:06+09,2002-01-01 00:00:00Z)', '{[1,3),[5,)}', '[0.1,0.30000000000000004)',
               'so "so"', 'kurz', '<a>&amp; <b/></a>', '00000000-0000-0000-0000-00000000abcd', '10.1.2.3/8', '10110', true, 12.34, 'a:1A b', '(0.1,0.30000000000000004)', 'pg_class'),
              (NULL, NULL, NULL, NULL, NULL, '', '-Infinity', '-0', 'NaN', '', '', NULL, 'null', 'null', '1999-12-31 23:59:59.999999', '1890-01-01 00:00:00+00:53:28', '23:59:60', '0001-01-01 BC', 'P1Y', '{}', '{}', NULL, '{}', 'empty', 'empty', '{}', 'empty',
               'glad', NULL, 'text &lt; only', NULL, '::1', '', false, -1, '', '(NaN,-Infinity)', NULL),
              (NULL, NULL, NULL, NULL, NULL, NULL, 123456789012345678901234567890.1234567890, 3.4028235e38, 5e-324, NULL, NULL, NULL, '"A"', '"A"', NULL, NULL, NULL, NULL, NULL, ARRAY[[1,2],[3,4]], NULL, NULL, NULL, NULL, NULL, NULL, NULL,
               NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#,
        )
        .await;
        install(&mut client, &capturing(guard("a/b", &[("Odd schema", "Odd, \"table\"")]))).await;
        let odd = r#""Odd schema"."Odd, ""table""""#;
        let exact = async |client: &Client| {
            run(client, "SET extra_float_digits = 3; SET datestyle = 'ISO'; SET intervalstyle = postgres; SET bytea_output = hex").await;
            contents(client, &[odd]).await
        };
        let before = exact(&client).await;
        let app = database.connect().await;
        for settings in [
            "SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SET extra_float_digits = -10; SET bytea_output = escape; SET timezone = 'Asia/Kathmandu'; SET search_path = pg_temp; SET xmloption = document",
            "SET datestyle = 'German'; SET intervalstyle = iso_8601; SET extra_float_digits = 0; SET standard_conforming_strings = off; SET timezone = 'UTC'",
        ] {
            run(&app, settings).await;
            run(&app, &format!("DELETE FROM {odd}")).await;
            assert_eq!(count(&client, odd).await, 0);
            run(&client, settings).await;
            run(&client, "SET search_path TO DEFAULT; SET standard_conforming_strings = on").await;
            assert_eq!(undo_newest(&mut client).await.tables[0].inserted, 3);
            assert_eq!(exact(&client).await, before);
            run(&app, "RESET ALL").await;
        }
        database.finish().await;
    })
    .await;
}

/// users <- profiles (cascade), users -> best profile (set null): a cycle. people refer to their manager. marks lose their link.
const KNOTTED: &str = "
CREATE TABLE users (id int PRIMARY KEY, manager int REFERENCES users ON DELETE CASCADE, best int);
CREATE TABLE profiles (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
ALTER TABLE users ADD FOREIGN KEY (best) REFERENCES profiles ON DELETE CASCADE;
CREATE TABLE marks (id int PRIMARY KEY, user_id int DEFAULT 0 REFERENCES users ON DELETE SET NULL, profile_id int DEFAULT 100 REFERENCES profiles ON DELETE SET DEFAULT, note text);
CREATE TABLE notes (a int, b int, user_id int, best int, note text, PRIMARY KEY (a, b), FOREIGN KEY (user_id, best) REFERENCES users ON DELETE SET NULL (best));
";

#[tokio::test]
async fn cycles_self_references_and_links_are_restored() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = database.connect().await;
        let schema = KNOTTED
            .replace("id int PRIMARY KEY, manager", "id int PRIMARY KEY, other int, UNIQUE (id, other), manager")
            .replace("REFERENCES users ON DELETE SET NULL (best)", "REFERENCES users (id, other) ON DELETE SET NULL (best)");
        run(&client, &schema).await;
        run(
            &client,
            "INSERT INTO users SELECT i, i * 10, nullif(i - 1, 0) FROM generate_series(1, 5) i; INSERT INTO users VALUES (100, 1000, NULL);
             INSERT INTO profiles SELECT i, i FROM generate_series(1, 5) i; INSERT INTO profiles VALUES (100, 100);
             UPDATE users SET best = id;
             INSERT INTO marks SELECT i, (i - 1) % 5 + 1, (i - 1) % 5 + 1, 'm' FROM generate_series(1, 20) i;
             INSERT INTO notes SELECT i, i, i, i * 10, 'n' FROM generate_series(1, 5) i",
        )
        .await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let tables = &["users", "profiles", "marks", "notes"];
        let before = contents(&client, tables).await;
        // The managed go with their manager, profiles with users, users with profiles.
        run(&client, "DELETE FROM users WHERE id = 2").await;
        assert_eq!(count(&client, "users").await, 2);
        assert_eq!(count(&client, "marks WHERE user_id IS NULL AND profile_id = 100").await, 16);
        assert_eq!(count(&client, "notes WHERE best IS NULL AND user_id IS NOT NULL").await, 4);
        let undone = undo_newest(&mut client).await;
        let links: i64 = undone.tables.iter().map(|table| table.links_restored).sum();
        assert_eq!(links, 16 + 16 + 4, "{:?}", undone.tables);
        assert_eq!(contents(&client, tables).await, before);

        // A link that was set anew meanwhile is not overwritten.
        run(&client, "DELETE FROM users WHERE id = 5").await;
        run(&client, "UPDATE marks SET user_id = 1 WHERE id = 5; DELETE FROM marks WHERE id = 10").await;
        let first = kept(&client).await.into_iter().find(|it| it.tables.iter().any(|table| table.table == "public.users" && table.deleted == 1)).expect("kept");
        let refused = undo(client.as_mut(), first.transaction, Conflicts::Refuse, false).await.expect("undo");
        assert!(!refused.done && refused.problems.iter().any(|it| it.contains("public.marks") && it.contains("point elsewhere") && it.contains("5; 10")), "{:?}", refused.problems);
        let skipped = undo(client.as_mut(), first.transaction, Conflicts::SkipExisting, false).await.expect("undo");
        assert!(skipped.done);
        assert_eq!(count(&client, "marks WHERE user_id = 5").await, 2);
        assert_eq!(count(&client, "marks WHERE id = 5 AND user_id = 1 AND profile_id = 5").await, 1);

        // A nested update that lets go of nothing is not kept.
        run(
            &client,
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.marks SET note = 'touched' WHERE user_id = NEW.id; RETURN NULL; END $$;
             CREATE TRIGGER touch AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch()",
        )
        .await;
        let many = kept(&client).await.len();
        run(&client, "UPDATE users SET other = other WHERE id = 1").await;
        assert_eq!(count(&client, "marks WHERE note = 'touched'").await, 5);
        assert_eq!(kept(&client).await.len(), many);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_row_whose_link_was_set_to_null_and_that_was_then_deleted_is_restored_with_it() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE teams (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
             CREATE TABLE seats (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE SET NULL, team_id int REFERENCES teams ON DELETE CASCADE);
             INSERT INTO users VALUES (1), (2); INSERT INTO teams VALUES (1, 1), (2, 2); INSERT INTO seats VALUES (1, 1, 1), (2, 2, 1), (3, 1, 2)",
        )
        .await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let tables = &["users", "teams", "seats"];
        let before = contents(&client, tables).await;
        run(&client, "DELETE FROM users WHERE id = 1").await;
        assert_eq!(contents(&client, &["seats"]).await, ["(3,,2)"]);
        undo_newest(&mut client).await;
        assert_eq!(contents(&client, tables).await, before);
        // Deleted, made anew, deleted again in one transaction: as it was first.
        run(&client, "BEGIN; DELETE FROM seats WHERE id = 3; INSERT INTO seats VALUES (3, 2, 1); DELETE FROM seats WHERE id = 3; COMMIT").await;
        undo_newest(&mut client).await;
        assert_eq!(contents(&client, tables).await, before);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn partitions_are_restored_and_moved_rows_are_not_captured() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE orders (id int, year int, dead int, note text, PRIMARY KEY (id, year)) PARTITION BY LIST (year);
             CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);
             CREATE TABLE orders_2 PARTITION OF orders FOR VALUES IN (2) PARTITION BY HASH (id);
             CREATE TABLE orders_2_0 PARTITION OF orders_2 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE other (note text, x int, year int NOT NULL, id int NOT NULL, dead int); ALTER TABLE other DROP COLUMN x; ALTER TABLE orders ATTACH PARTITION other FOR VALUES IN (4);
             ALTER TABLE orders DROP COLUMN dead;
             CREATE TABLE items (id int, order_id int, year int, FOREIGN KEY (order_id, year) REFERENCES orders ON DELETE CASCADE) PARTITION BY HASH (id);
             CREATE TABLE items_0 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE items_1 PARTITION OF items FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             CREATE TABLE marks (id int PRIMARY KEY, order_id int, year int, FOREIGN KEY (order_id, year) REFERENCES orders ON DELETE SET NULL (order_id)) PARTITION BY RANGE (id);
             CREATE TABLE marks_1 PARTITION OF marks DEFAULT;
             INSERT INTO orders SELECT i, y, 'n' || i FROM generate_series(1, 20) i, unnest('{1,2,4}'::int[]) y;
             INSERT INTO items SELECT i, (i - 1) % 20 + 1, 1 FROM generate_series(1, 60) i; INSERT INTO marks SELECT i, i, 2 FROM generate_series(1, 20) i",
        )
        .await;
        let spec = capturing(guard("shop/orders", &[("public", "orders")]));
        install(&mut client, &spec).await;
        let tables = &["orders", "items", "marks", "orders_1", "orders_2_0", "other", "items_0"];
        let before = contents(&client, tables).await;
        run(&client, "BEGIN; DELETE FROM orders WHERE id <= 5; DELETE FROM orders_1 WHERE id = 6; DELETE FROM orders_2 WHERE id = 7; DELETE FROM other WHERE id = 8; DELETE FROM items_0 WHERE id > 50; COMMIT").await;
        let undone = undo_newest(&mut client).await;
        assert_eq!(undone.tables.iter().map(|table| table.inserted).sum::<i64>(), 15 + 3 + 15 + 3 + count(&client, "items_0 WHERE id > 50 AND (id - 1) % 20 + 1 > 6").await);
        assert_eq!(undone.tables.iter().map(|table| table.links_restored).sum::<i64>(), 6);
        assert_eq!(contents(&client, tables).await, before);

        // An UPDATE that moves rows deletes them here and inserts them there.
        let many = kept(&client).await.len();
        run(&client, "DELETE FROM items; DELETE FROM marks; UPDATE orders SET year = 4, id = id + 100 WHERE year = 2 AND id > 15").await;
        let transactions = kept(&client).await;
        assert_eq!(transactions.len(), many + 1);
        assert!(transactions[0].tables.iter().all(|table| table.table == "public.items"), "{:?}", transactions[0]);

        // A new partition, before anybody looked: what goes through the parent is kept.
        run(&client, "CREATE TABLE orders_5 PARTITION OF orders FOR VALUES IN (5); INSERT INTO orders SELECT i, 5, 'new' FROM generate_series(1, 9) i").await;
        let before = contents(&client, tables).await;
        run(&client, "DELETE FROM orders WHERE year = 5").await;
        assert_eq!(undo_newest(&mut client).await.tables[0].inserted, 9);
        // And what names it, after the next look.
        install(&mut client, &spec).await;
        run(&client, "DELETE FROM orders_5").await;
        assert_eq!(undo_newest(&mut client).await.tables[0].inserted, 9);
        assert_eq!(contents(&client, tables).await, before);
        // Detached, it is a table like any other; rows kept through the parent have no place to go, and that is said.
        run(&client, "DELETE FROM orders WHERE year = 5 AND id = 1; ALTER TABLE orders DETACH PARTITION orders_5").await;
        let newest = kept(&client).await[0].transaction;
        let error = undo(client.as_mut(), newest, Conflicts::Refuse, false).await.expect_err("no partition");
        assert!(error.to_string().contains("no partition of relation"), "{error}");
        install(&mut client, &spec).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn inheritance_children_are_restored_whole() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = database.connect().await;
        run(
            &client,
            "CREATE TABLE people (id int PRIMARY KEY); CREATE TABLE staff (badge text, PRIMARY KEY (id)) INHERITS (people);
             INSERT INTO people VALUES (1), (2); INSERT INTO staff VALUES (3, 'three'), (4, 'four')",
        )
        .await;
        let spec = capturing(guard("a/b", &[("public", "people")]));
        install(&mut client, &spec).await;
        let tables = &["ONLY people", "staff"];
        let before = contents(&client, tables).await;
        run(&client, "DELETE FROM people WHERE id IN (1, 3)").await;
        undo_newest(&mut client).await;
        assert_eq!(contents(&client, tables).await, before);
        // A child that came since the last look, on a table that had none: cut short, so not kept at all, and said.
        run(&client, "CREATE TABLE lone (id int PRIMARY KEY); INSERT INTO lone VALUES (1)").await;
        let lone = capturing(guard("a/lone", &[("public", "lone")]));
        install(&mut client, &lone).await;
        run(&client, "CREATE TABLE child (extra text) INHERITS (lone); INSERT INTO child VALUES (2, 'x'); DELETE FROM lone WHERE id = 2").await;
        let found = problems(&mut client, Conflicts::SkipExisting).await;
        assert!(found[0].contains("inheritance children of public.lone"), "{found:?}");
        install(&mut client, &lone).await;
        run(&client, "INSERT INTO child VALUES (3, 'y'); DELETE FROM lone WHERE id = 3").await;
        undo_newest(&mut client).await;
        assert_eq!(contents(&client, &["child"]).await, ["(3,y)"]);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn conflicts_are_named_and_nothing_is_changed() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = friday(&database, 20).await;
        run(&client, "ALTER TABLE users ADD mail text UNIQUE; UPDATE users SET mail = name || '@x'").await;
        install(&mut client, &capturing(guard("a/b", USERS))).await;
        let before = contents(&client, FRIDAY_TABLES).await;
        // Rows with the same key.
        run(&client, "DELETE FROM users WHERE id IN (1, 2)").await;
        run(&client, "INSERT INTO users VALUES (1, 'new', 'new'); INSERT INTO users VALUES (1001, 'taken', 'u2@x')").await;
        let found = problems(&mut client, Conflicts::Refuse).await;
        assert!(found.len() == 2 && found[0].contains("by (id): 1") && found[1].contains("by (mail): u2@x"), "{found:?}");
        run(&client, "UPDATE users SET mail = NULL WHERE id = 1001").await;
        let newest = kept(&client).await[0].transaction;
        let skipped = undo(client.as_mut(), newest, Conflicts::SkipExisting, false).await.expect("undo");
        assert!(skipped.done, "{skipped:?}");
        assert_eq!((skipped.tables[0].inserted, skipped.tables[0].existing), (1, 1));
        run(&client, "DELETE FROM leads WHERE user_id = 1; UPDATE users SET name = 'u1', mail = 'u1@x' WHERE id = 1").await;
        undo_newest(&mut client).await;
        run(&client, "DELETE FROM users WHERE id = 1001").await;
        let all = FRIDAY_TABLES;
        assert_eq!(contents(&client, all).await, before);

        // Parents that went in another transaction.
        run(&client, "DELETE FROM messages WHERE id = 1").await;
        run(&client, "DELETE FROM users WHERE id = 1").await;
        let transactions = kept(&client).await;
        let found = undo(client.as_mut(), transactions[1].transaction, Conflicts::Refuse, false).await.expect("undo").problems;
        assert!(found.len() == 1 && found[0].contains("1 rows of public.messages have no parent in public.conversations"), "{found:?}");
        for transaction in transactions.iter().take(2) {
            let undone = undo(client.as_mut(), transaction.transaction, Conflicts::Refuse, false).await.expect("undo");
            assert!(undone.done, "{undone:?}");
        }
        assert_eq!(contents(&client, all).await, before);

        // A check at the end: all or nothing.
        run(&client, "DELETE FROM users WHERE id = 1; ALTER TABLE analytics ADD CONSTRAINT none CHECK (id > 5)").await;
        let newest = kept(&client).await[0].transaction;
        let error = undo(client.as_mut(), newest, Conflicts::Refuse, false).await.expect_err("a check");
        assert!(error.to_string().contains("\"none\""), "{error}");
        assert_eq!(count(&client, "users WHERE id = 1").await, 0);
        run(&client, "ALTER TABLE analytics DROP CONSTRAINT none").await;
        // A trigger that keeps rows out is noticed by the count.
        run(&client, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER no BEFORE INSERT ON leads FOR EACH ROW EXECUTE FUNCTION no()").await;
        run(&client, "ALTER TABLE conversations DROP CONSTRAINT conversations_lead_id_fkey").await;
        let error = undo(client.as_mut(), newest, Conflicts::Refuse, false).await.expect_err("a trigger");
        assert!(matches!(error, UndoError::KeptOut { arrived: 0, rows: 2, .. }), "{error}");
        run(&client, "DROP TRIGGER no ON leads").await;
        undo_newest(&mut client).await;
        assert_eq!(contents(&client, all).await, before);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn tables_may_be_altered_meanwhile() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = friday(&database, 20).await;
        let spec = capturing(guard("a/b", USERS));
        install(&mut client, &spec).await;
        run(&client, "DELETE FROM users WHERE id = 1").await;
        run(
            &client,
            "ALTER TABLE users RENAME TO accounts; ALTER TABLE accounts RENAME COLUMN name TO title; ALTER TABLE accounts ADD age int NOT NULL DEFAULT 7;
             ALTER TABLE accounts ALTER COLUMN id TYPE bigint; CREATE SCHEMA crm; ALTER TABLE leads SET SCHEMA crm",
        )
        .await;
        // Still captured, under names that nobody reconciled yet, in a statement with a column more.
        run(&client, "DELETE FROM accounts WHERE id = 2").await;
        let newest = kept(&client).await;
        assert!(newest[0].tables.iter().any(|table| table.table == "public.accounts") && newest[0].tables.iter().any(|table| table.table == "crm.leads"));
        undo_newest(&mut client).await;
        let undone = undo(client.as_mut(), newest[1].transaction, Conflicts::Refuse, false).await.expect("undo");
        assert!(undone.done, "{undone:?}");
        assert_eq!(undone.tables[0].columns_added, 1);
        assert_eq!(contents(&client, &["accounts"]).await[0].lines().take(2).collect::<Vec<_>>(), ["(1,u1,7)", "(10,u10,7)"]);
        // A column that went takes what was in it along; another in its place is not it.
        run(&client, "DELETE FROM accounts WHERE id = 3; ALTER TABLE accounts DROP COLUMN title; ALTER TABLE accounts ADD title text").await;
        let found = problems(&mut client, Conflicts::SkipExisting).await;
        assert!(found.len() == 1 && found[0].contains("1 columns of public.accounts were dropped"), "{found:?}");
        run(&client, "DELETE FROM accounts WHERE id = 4; DROP TABLE messages").await;
        let found = problems(&mut client, Conflicts::SkipExisting).await;
        assert!(found.len() == 1 && found[0].contains("the table public.messages no longer exists; restore its 100 rows"), "{found:?}");
        run(&client, "ALTER TABLE accounts DROP COLUMN age").await;
        run(&client, "DELETE FROM accounts WHERE id = 5").await;
        undo_newest(&mut client).await;
        database.finish().await;
    })
    .await;
}
