//! DROP protection by event trigger and by view, and the facts about who could tamper.
#![allow(missing_docs)]
mod common;

use common::{FRIDAY, friday, guard, install, limited, reconcile, refused, remove, run, stopped, verify};
use pgrail_guard::{
    Allowance, DropProtection, GuardSpec, Mode, Operation, PartialLimits, Protect, StepKind, TableState, apply,
    observe, tamper,
};
use pgrail_testing::for_each_server;

const USERS: &[(&str, &str)] = &[("public", "users")];

#[tokio::test]
async fn the_event_trigger_stops_every_way_to_drop_a_root() {
    for_each_server(async |server| {
        let database = server.database("drop").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        run(&client, "CREATE SCHEMA other; CREATE TABLE other.things (id int)").await;
        let spec = guard("shop/core", &[("public", "users"), ("other", "things")]);
        install(&mut client, &spec).await;
        let plan = verify(&client, &spec).await;
        assert!(plan.tables().iter().all(|table| table.drop_protection == DropProtection::EventTrigger));
        let role = server.role_name("dropper");
        run(&client, &format!("CREATE ROLE {role}; ALTER TABLE other.things OWNER TO {role}")).await;
        let error = stopped(&client, "PGR03", "DROP TABLE users CASCADE").await;
        assert_eq!((error.schema(), error.table()), (Some("public"), Some("users")), "{error:?}");
        assert!(error.message().contains("public.users") && error.detail().unwrap_or_default().contains("shop/core"), "{error:?}");
        stopped(&client, "PGR03", "DROP SCHEMA other CASCADE").await;
        stopped(&client, "PGR03", &format!("DROP OWNED BY {role}")).await;
        stopped(&client, "PGR03", "SET session_replication_role = replica; DROP TABLE users CASCADE").await;
        run(&client, "RESET session_replication_role").await;
        stopped(&client, "PGR03", "ALTER TABLE users RENAME TO old_users; DROP TABLE old_users CASCADE").await;
        // Tables of the closure, and everything else, are free.
        run(&client, "DROP TABLE analytics; DROP TABLE messages, conversations; CREATE TEMP TABLE users (id int); DROP TABLE pg_temp.users").await;
        run(&client, "ALTER TABLE users DROP COLUMN name, ADD COLUMN mail text; ALTER TABLE users ALTER COLUMN mail TYPE varchar(10)").await;
        // What was dropped is no drift.
        reconcile(&mut client, &spec).await;
        let plan = verify(&client, &spec).await;
        assert!(plan.is_empty() && plan.drift().is_empty(), "{:?}", plan.sql());
        // Missing event trigger: drift, put back.
        run(&client, "DROP EVENT TRIGGER pgrail_drop").await;
        assert_eq!(verify(&client, &spec).await.drift().len(), 1);
        install(&mut client, &spec).await;
        stopped(&client, "PGR03", "DROP TABLE users CASCADE").await;
        // A guard that only warns lets it pass.
        install(&mut client, &pgrail_guard::GuardSpec { mode: Mode::Warn, ..spec.clone() }).await;
        run(&client, "DROP TABLE other.things").await;
        assert!(remove(&mut client, "shop/core").await.is_complete());
        run(&client, &format!("DROP TABLE users CASCADE; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

fn with_columns(spec: GuardSpec) -> GuardSpec {
    GuardSpec { protect: Protect { drop_column: true, ..Protect::default() }, ..spec }
}

#[tokio::test]
async fn one_step_creates_the_event_triggers() {
    for_each_server(async |server| {
        let database = server.database("events").await;
        let client = database.connect().await;
        run(&client, FRIDAY).await;
        let plan = verify(&client, &with_columns(guard("shop/core", USERS))).await;
        let of_events: Vec<_> = plan.steps().iter().filter(|step| step.kind == StepKind::DropProtection).collect();
        assert_eq!(of_events.len(), 1, "{of_events:?}");
        assert_eq!(of_events[0].sql().matches("CREATE EVENT TRIGGER").count(), 3);
        database.finish().await;
    })
    .await;
}

/// Columns of an ordinary table, of a partitioned one, of an inheritance parent; composite types; a typed table.
const COLUMNS: &str = "
CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN mail AS text; CREATE TYPE address AS (street text, zip int, moods mood[]);
CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
CREATE DOMAIN home AS address; CREATE TABLE others (id int, note text, mood mood, twice int GENERATED ALWAYS AS (twice(id)) STORED);
CREATE TABLE people (id int, age int, note varchar(20), mood mood, mail mail, homes home[], other others);
CREATE TABLE events (id int, note text, extra int) PARTITION BY LIST (id);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1) PARTITION BY LIST (extra);
CREATE TABLE events_1_1 PARTITION OF events_1 DEFAULT;
CREATE TABLE parent (id int, note text); CREATE TABLE child (extra text) INHERITS (parent);
CREATE TYPE thing AS (a int, b text); CREATE TABLE things OF thing;
INSERT INTO people (id, note, mood, mail) SELECT i, 'x', 'good', 'a@b' FROM generate_series(1, 10) i;
INSERT INTO events SELECT 1, 'x', i FROM generate_series(1, 10) i; INSERT INTO child VALUES (1, 'x', 'y'); INSERT INTO things VALUES (1, 'x');";

const WITH_COLUMNS: &[(&str, &str)] =
    &[("public", "people"), ("public", "events"), ("public", "parent"), ("public", "things")];

#[tokio::test]
async fn no_way_to_drop_or_rewrite_a_column_passes() {
    for_each_server(async |server| {
        let database = server.database("columns").await;
        let mut client = database.connect().await;
        run(&client, COLUMNS).await;
        // Where it is not asked for, columns are the owner's.
        install(&mut client, &guard("shop/core", WITH_COLUMNS)).await;
        run(&client, "BEGIN; ALTER TABLE people DROP COLUMN age; ALTER TABLE people ALTER COLUMN id TYPE bigint; DROP TYPE mood CASCADE; ROLLBACK").await;
        let spec = with_columns(guard("shop/core", WITH_COLUMNS));
        install(&mut client, &spec).await;
        for table in verify(&client, &spec).await.tables() {
            assert_eq!((table.column_protection, table.partition_protection), (DropProtection::EventTrigger, DropProtection::NotAsked));
        }
        let app = database.connect().await;
        for (sql, what, table) in [
            ("ALTER TABLE people DROP COLUMN age", "public.people.age", "people"),
            ("ALTER TABLE people DROP COLUMN IF EXISTS age CASCADE", "public.people.age", "people"),
            ("ALTER TABLE people RENAME TO humans; ALTER TABLE humans DROP COLUMN age", "public.humans.age", "humans"),
            ("ALTER TABLE events DROP COLUMN note", "public.events.note", "events"),
            ("ALTER TABLE parent DROP COLUMN note", "public.parent.note", "parent"),
            ("ALTER TABLE ONLY parent DROP COLUMN note", "public.parent.note", "parent"),
            ("ALTER TABLE child DROP COLUMN extra", "public.child.extra", "child"),
            ("DROP TYPE mood CASCADE", "public.", "people"),
            ("DROP DOMAIN mail CASCADE", "public.people.mail", "people"),
            ("DROP TYPE address CASCADE", "public.people.homes", "people"),
            ("ALTER TYPE address DROP ATTRIBUTE street", "public.address.street", "people"),
            ("ALTER TABLE others DROP COLUMN note", "public.others.note", "people"),
            ("DROP FUNCTION twice CASCADE", "public.others.twice", "people"),
            ("ALTER TYPE thing DROP ATTRIBUTE a CASCADE", "public.things.a", "things"),
            ("ALTER TABLE people ALTER COLUMN id TYPE bigint", "rewrites public.people", "people"),
            ("ALTER TABLE people ALTER COLUMN note TYPE varchar(1) USING left(note, 1)", "rewrites public.people", "people"),
            ("ALTER TABLE people ADD COLUMN z int, ALTER COLUMN age SET DATA TYPE text USING ''", "rewrites public.people", "people"),
            ("ALTER TABLE events ALTER COLUMN note TYPE varchar(1)", "rewrites public.events_1_1", "events_1_1"),
            ("ALTER TABLE events_1 ALTER COLUMN note TYPE varchar(1)", "", ""),
            ("ALTER TABLE child ALTER COLUMN extra TYPE int USING 1", "rewrites public.child", "child"),
            ("ALTER TYPE thing ALTER ATTRIBUTE b TYPE varchar(1) CASCADE", "rewrites public.things", "things"),
            ("SET session_replication_role = replica; ALTER TABLE people DROP COLUMN age", "public.people.age", "people"),
            ("DO $$ BEGIN ALTER TABLE people DROP COLUMN age; EXCEPTION WHEN undefined_column THEN NULL; END $$", "public.people.age", "people"),
        ] {
            // A partition's own columns cannot be changed.
            if what.is_empty() {
                assert_eq!(refused(&app, sql).await.code().code(), "42P16");
                continue;
            }
            let error = stopped(&app, "PGR03", sql).await;
            assert!(error.message().contains(what), "{sql}: {error:?}");
            assert_eq!((error.schema(), error.table()), (Some("public"), Some(table)), "{sql}: {error:?}");
            assert!(error.detail().is_some_and(|it| it.contains("guarded") && it.contains("shop/core")) && error.hint().is_some(), "{sql}: {error:?}");
            run(&app, "RESET ALL").await;
        }
        let blocked = verify(&client, &spec).await.tables().iter().map(|table| table.blocked_attempts).sum::<i64>();
        assert_eq!(blocked, 22);
        // What loses nothing of these tables passes.
        run(
            &app,
            "ALTER TABLE people ALTER COLUMN note TYPE text; ALTER TABLE people ADD COLUMN at timestamptz DEFAULT clock_timestamp();
             ALTER TABLE people SET UNLOGGED; ALTER TABLE people SET LOGGED; ALTER TABLE people RENAME COLUMN age TO years;
             CREATE TEMP TABLE people (id int, age int); ALTER TABLE people DROP COLUMN age, ALTER COLUMN id TYPE bigint; DROP TABLE pg_temp.people;
             CREATE TABLE free (id int, mood mood, x int); ALTER TABLE free DROP COLUMN mood, ALTER COLUMN x TYPE text; DROP TABLE free",
        )
        .await;
        // A new child is part of the tree at the next moment.
        run(&app, "CREATE TABLE child_2 (more text) INHERITS (parent)").await;
        stopped(&app, "PGR03", "ALTER TABLE child_2 DROP COLUMN more").await;
        // Drift.
        install(&mut client, &spec).await;
        run(&client, "DROP EVENT TRIGGER pgrail_rewrite").await;
        let plan = verify(&client, &spec).await;
        assert!(plan.drift().iter().any(|drift| drift.table == "pgrail.on_rewrite"), "{:?}", plan.drift());
        assert_eq!(plan.tables()[0].column_protection, DropProtection::None);
        install(&mut client, &spec).await;
        stopped(&app, "PGR03", "ALTER TABLE people ALTER COLUMN id TYPE bigint").await;
        // Without a function of it, the application's DDL does not fail.
        run(&client, "DROP FUNCTION pgrail.check_columns, pgrail.check_rewrite").await;
        run(&app, "BEGIN; ALTER TABLE people DROP COLUMN years; ALTER TABLE people ALTER COLUMN id TYPE bigint; ROLLBACK").await;
        install(&mut client, &spec).await;
        stopped(&app, "PGR03", "ALTER TABLE people DROP COLUMN years").await;
        // Not asked for any more: its event trigger goes.
        install(&mut client, &guard("shop/core", WITH_COLUMNS)).await;
        run(&app, "ALTER TABLE people DROP COLUMN years; ALTER TABLE people ALTER COLUMN id TYPE bigint").await;
        let left = "SELECT FROM pg_event_trigger WHERE evtname = 'pgrail_rewrite'";
        assert!(client.query_opt(left, &[]).await.expect("events").is_none());
        assert!(remove(&mut client, "shop/core").await.is_complete());
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn columns_may_be_dropped_by_allowance_and_in_a_guard_that_warns() {
    for_each_server(async |server| {
        let database = server.database("columns_allowed").await;
        let mut client = friday(&database, 2).await;
        let role = server.role_name("migrations");
        run(&client, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE users OWNER TO {role}")).await;
        let allowance = Allowance { role: role.clone(), limits: PartialLimits::default(), operations: vec![Operation::Drop] };
        let spec = with_columns(GuardSpec { allowances: vec![allowance], ..guard("shop/core", USERS) });
        install(&mut client, &spec).await;
        let migrations = database.connect_as(&role, "secret").await;
        run(&migrations, "BEGIN; ALTER TABLE users DROP COLUMN name; ALTER TABLE users ALTER COLUMN id TYPE bigint; ROLLBACK").await;
        let error = stopped(&client, "PGR03", "ALTER TABLE users DROP COLUMN name").await;
        assert!(error.message().contains("public.users.name"), "{error:?}");
        // Another operation of the same role is no DROP.
        let other = Allowance { role: role.clone(), limits: PartialLimits::default(), operations: vec![Operation::Delete] };
        install(&mut client, &GuardSpec { allowances: vec![other], ..spec.clone() }).await;
        stopped(&migrations, "PGR03", "ALTER TABLE users ALTER COLUMN id TYPE bigint").await;
        install(&mut client, &GuardSpec { mode: Mode::Warn, ..spec.clone() }).await;
        assert_eq!(verify(&client, &spec).await.tables()[0].blocked_attempts, 2);
        run(&client, "ALTER TABLE users ALTER COLUMN id TYPE bigint").await;
        run(&client, "ALTER TABLE users DROP COLUMN name").await;
        let warn = verify(&client, &GuardSpec { mode: Mode::Warn, ..spec.clone() }).await;
        assert_eq!((warn.tables()[0].blocked_attempts, warn.tables()[0].column_protection), (4, DropProtection::NotAsked));
        drop(migrations);
        run(&client, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn our_schema_can_be_dropped_as_a_whole_and_is_found_missing() {
    for_each_server(async |server| {
        let database = server.database("schema").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        install(&mut client, &guard("a/b", USERS)).await;
        run(&client, "DROP SCHEMA pgrail CASCADE").await;
        run(&client, "DELETE FROM users").await;
        assert!(!verify(&client, &guard("a/b", USERS)).await.is_empty());
        install(&mut client, &guard("a/b", USERS)).await;
        run(&client, "DROP VIEW pgrail.assignment CASCADE").await;
        // Half of ours gone must not break the application's DDL.
        run(&client, "CREATE TABLE x (id int); DROP TABLE x").await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn without_event_triggers_a_view_pins_the_table() {
    for_each_server(async |server| {
        let database = server.database("pin").await;
        let client = database.connect().await;
        let (owner, app) = (server.role_name("owner"), server.role_name("app"));
        run(
            &client,
            &format!(
                "CREATE ROLE {owner} LOGIN PASSWORD 'secret'; CREATE ROLE {app} LOGIN PASSWORD 'secret';
                 GRANT CREATE ON SCHEMA public TO {owner}; GRANT CREATE ON DATABASE {} TO {owner}",
                database.name
            ),
        )
        .await;
        let mut rail = database.connect_as(&owner, "secret").await;
        run(&rail, FRIDAY).await;
        run(&rail, &format!("GRANT DELETE, TRIGGER ON users TO {app}")).await;
        let spec = limited("a/b", USERS, 10, 10);
        // What an interrupted installation did not create was not removed by others.
        for steps in 0..verify(&rail, &spec).await.steps().len() {
            let plan = verify(&rail, &spec).await.interrupted_after(steps);
            assert!(apply(rail.as_mut(), &plan).await.expect("apply").is_complete());
            assert_eq!(verify(&rail, &spec).await.drift(), [], "after {steps} steps");
            assert!(remove(&mut rail, "a/b").await.is_complete());
        }
        install(&mut rail, &spec).await;
        let plan = verify(&rail, &spec).await;
        assert_eq!((plan.tables()[0].state, plan.tables()[0].drop_protection), (TableState::Enforced, DropProtection::Pinned));
        assert_eq!(refused(&rail, "DROP TABLE users").await.code().code(), "2BP01");
        assert_eq!(refused(&rail, "DROP TABLE users, leads, analytics").await.code().code(), "2BP01");
        run(&rail, "ALTER TABLE users DROP COLUMN name; ALTER TABLE users ADD COLUMN mail text; ALTER TABLE users ALTER COLUMN id TYPE bigint").await;
        run(&rail, "DROP VIEW pgrail.pin_1").await;
        assert_eq!(verify(&rail, &spec).await.drift().len(), 1);
        install(&mut rail, &spec).await;

        let observed = observe(&rail).await.expect("observe");
        let tables: Vec<_> = observed.guarded_tables().into_iter().collect();
        let facts = tamper::read(&client, &tables).await.expect("facts");
        assert_eq!(facts.tables[0].can_disable, vec![owner.clone()], "to another role, the owner of pgrail's schema is one");
        let facts = tamper::read(&rail, &tables).await.expect("facts");
        assert_eq!(facts.tables.len(), 1);
        assert!(facts.tables[0].can_disable.is_empty(), "the owner is pgrail's own role here: {facts:?}");
        assert_eq!(facts.tables[0].can_replace_triggers, vec![app.clone()]);
        assert!(facts.tables[0].can_delete.contains(&app));
        assert!(facts.replica_role.is_empty() && facts.function_owner.is_empty());
        run(&client, &format!("GRANT {owner} TO {app}; GRANT SET ON PARAMETER session_replication_role TO {app}")).await;
        let facts = tamper::read(&rail, &tables).await.expect("facts");
        assert_eq!(facts.tables[0].can_disable, vec![app.clone()]);
        assert_eq!((facts.replica_role, facts.function_owner), (vec![app.clone()], vec![app.clone()]));

        assert!(remove(&mut rail, "a/b").await.is_complete());
        run(&rail, "DROP TABLE analytics, messages, conversations, leads, users").await;
        drop(rail);
        run(&client, &format!("DROP OWNED BY {owner}, {app} CASCADE; DROP ROLE {owner}, {app}")).await;
        database.finish().await;
    })
    .await;
}
