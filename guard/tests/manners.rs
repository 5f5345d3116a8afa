//! Installing beside a living application: locks, second operators, kills, drift, ownership, crashes.
#![allow(missing_docs, clippy::expect_used)]
mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{FRIDAY, friday, guard, install, limited, reconcile, remove, run, stopped, verify};
use pgrail_guard::{
    ApplyError, ClusterId, GuardName, GuardSpec, Outcome, PlanError, Progress, StepKind, TableSelector, TableState,
    apply, ensure, light_check, observe, plan, plan_removal, plan_uninstall,
};
use pgrail_testing::{Client, for_each_server, programs};

const USERS: &[(&str, &str)] = &[("public", "users")];

#[tokio::test]
async fn a_lock_held_by_somebody_leaves_the_table_pending_and_writers_going() {
    for_each_server(async |server| {
        let database = server.database("locks").await;
        let mut client = friday(&database, 20).await;
        let holder = database.connect().await;
        run(&holder, "BEGIN; INSERT INTO leads VALUES (100000, 1)").await;
        let writer = database.connect().await;
        let spec = guard("a/b", USERS);
        let plan_now = verify(&client, &spec).await;
        let writing = async {
            // As soon as pgrail waits for its lock, a writer that comes later waits behind it; not for long.
            let watcher = database.connect().await;
            loop {
                let waiting: i64 = watcher
                    .query_one("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock' AND relation = 'leads'::regclass", &[])
                    .await
                    .expect("locks")
                    .get(0);
                if waiting > 0 {
                    break;
                }
            }
            let started = Instant::now();
            run(&writer, "INSERT INTO leads VALUES (100001, 1)").await;
            started.elapsed()
        };
        let (applied, waited) = tokio::join!(apply(client.as_mut(), &plan_now), writing);
        let applied = applied.expect("apply");
        assert!(waited < Duration::from_millis(900), "a writer waited {waited:?}");
        let unfinished = applied.unfinished();
        assert_eq!(unfinished.len(), 1, "{unfinished:?}");
        assert!(matches!(unfinished[0], (Some("public.leads"), Outcome::Pending { .. })), "{unfinished:?}");
        let status = verify(&client, &spec).await;
        assert_eq!(status.tables()[0].state, TableState::Pending);
        assert!(status.tables()[0].message.contains("public.leads"), "{:?}", status.tables());
        run(&holder, "COMMIT").await;
        install(&mut client, &spec).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_second_operator_is_kept_out() {
    for_each_server(async |server| {
        let database = server.database("fence").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        let other = database.connect().await;
        let row = other.query_one("SELECT pg_advisory_lock(123589602929004)", &[]).await;
        row.expect("lock");
        let plan = verify(&client, &guard("a/b", USERS)).await;
        assert!(matches!(apply(client.as_mut(), &plan).await, Err(ApplyError::Busy)));
        // An operator that is no superuser, but can act as the owner of the guards, keeps us out as well; a stranger does not.
        drop(other);
        install(&mut client, &guard("a/b", USERS)).await;
        run(&client, "DROP TRIGGER pgrail_truncate ON users").await;
        let plan = verify(&client, &guard("a/b", USERS)).await;
        let (stranger, operator) = (server.role_name("stranger"), server.role_name("operator"));
        for (role, kept_out) in [(&stranger, false), (&operator, true)] {
            run(&client, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
            if kept_out {
                run(&client, &format!("DO $$ BEGIN EXECUTE format('GRANT %I TO {role}', current_user); END $$")).await;
            }
            let other = database.connect_as(role, "secret").await;
            other.query_one("SELECT pg_advisory_lock(123589602929004)", &[]).await.expect("lock");
            let applied = apply(client.as_mut(), &plan).await;
            assert_eq!(matches!(applied, Err(ApplyError::Busy)), kept_out, "{role}: {applied:?}");
            drop(other);
            run(&client, "DROP TRIGGER IF EXISTS pgrail_truncate ON users").await;
        }
        run(&client, &format!("DROP ROLE {stranger}, {operator}")).await;
        let other = database.connect().await;
        other.query_one("SELECT pg_advisory_lock(123589602929004)", &[]).await.expect("lock");
        drop(other);
        // The lock goes with the session that held it.
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(apply(client.as_mut(), &plan).await, Err(ApplyError::Busy)) {
            assert!(Instant::now() < deadline);
        }
        install(&mut client, &guard("a/b", USERS)).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_apply_leaves_no_lock_no_transaction_and_no_setting() {
    for_each_server(async |server| {
        let database = server.database("cancelled").await;
        let mut client = friday(&database, 20).await;
        let holder = database.connect().await;
        let watcher = database.connect().await;
        run(&holder, "BEGIN; INSERT INTO leads VALUES (100000, 1)").await;
        let plan = verify(&client, &guard("a/b", USERS)).await;
        // Dropped while it waits for a lock in the middle of a step.
        let waits = async {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'leads'::regclass";
            while watcher.query_one(waiting, &[]).await.expect("locks").get::<_, i64>(0) == 0 {}
        };
        tokio::select! {
            biased;
            () = waits => {}
            applied = apply(client.as_mut(), &plan) => panic!("ended: {applied:?}"),
        }
        let left = "SELECT (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), current_setting('lock_timeout'), now() = statement_timestamp()";
        let row = client.query_one(left, &[]).await.expect("the session is usable");
        assert_eq!((row.get::<_, i64>(0), row.get::<_, String>(1)), (0, "0".to_owned()));
        // The same in the middle of reading, and between any two messages to the server.
        for polls in 0..60 {
            {
                let mut observing = std::pin::pin!(observe(&client));
                for _ in 0..polls {
                    if futures::poll!(observing.as_mut()).is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            run(&client, "BEGIN; CREATE TABLE in_a_transaction_that_writes (); ROLLBACK").await;
        }
        run(&holder, "ROLLBACK").await;
        let other = database.connect().await;
        let free: bool = other.query_one("SELECT pg_try_advisory_lock(123589602929004)", &[]).await.expect("lock").get(0);
        assert!(free);
        drop(other);
        install(&mut client, &guard("a/b", USERS)).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_kill_between_any_two_steps_leaves_nothing_called_enforced_and_the_application_working() {
    for_each_server(async |server| {
        let database = server.database("kill").await;
        let mut client = friday(&database, 20).await;
        let spec = limited("a/b", USERS, 3, 1000);
        // Of a session of its own each time: what one deleted before there was a guard may not have been reported yet.
        let works =
            "BEGIN; DELETE FROM users WHERE id = 1; INSERT INTO users VALUES (1000); DELETE FROM messages; ROLLBACK";
        let whole = verify(&client, &spec).await;
        for steps in 0..whole.steps().len() {
            let plan = verify(&client, &spec).await;
            assert!(apply(client.as_mut(), &plan.interrupted_after(steps)).await.expect("apply").is_complete());
            let after = verify(&client, &spec).await;
            assert!(
                after.tables().iter().all(|table| table.state != TableState::Enforced)
                    || after.steps().iter().all(|step| step.kind == StepKind::DropProtection),
                "after {steps} steps: {:?}",
                after.tables()
            );
            // What was not created yet was not dropped by anybody.
            assert!(after.drift().is_empty(), "after {steps} steps: {:?}", after.drift());
            run(&database.connect().await, works).await;
            install(&mut client, &spec).await;
            stopped(&database.connect().await, "PGR01", "DELETE FROM users").await;
            // And the way back, broken off at the same place.
            let name = GuardName::new("a/b").unwrap();
            let removal = plan_removal(&name, &observe(&client).await.expect("observe"));
            assert!(apply(client.as_mut(), &removal.interrupted_after(steps)).await.expect("apply").is_complete());
            run(&database.connect().await, works).await;
            // From there both ways are open.
            if steps % 2 == 0 {
                install(&mut client, &spec).await;
                stopped(&database.connect().await, "PGR01", "DELETE FROM users").await;
            }
            let uninstall = plan_uninstall(&observe(&client).await.expect("observe"));
            let removed = apply(client.as_mut(), &uninstall).await.expect("apply");
            assert!(removed.is_complete(), "{:?}", removed.unfinished());
            let left: i64 = client
                .query_one("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail%'", &[])
                .await
                .expect("count")
                .get(0);
            assert_eq!(left, 0);
            assert!(observe(&client).await.expect("observe").live.schema_owner.is_none());
        }
        database.finish().await;
    })
    .await;
}

async fn members(client: &Client) -> String {
    let sql = "SELECT coalesce(string_agg(concat_ws(' ', m.roleid, m.member), ',' ORDER BY m.roleid, m.member), '') FROM pg_auth_members m";
    client.query_one(sql, &[]).await.expect("members").get(0)
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    for_each_server(async |server| {
        let database = server.database("idempotent").await;
        let mut client = friday(&database, 20).await;
        let spec = guard("a/b", &[("public", "*")]);
        install(&mut client, &spec).await;
        let writes = "SELECT count(*), md5(string_agg(p.oid || p.xmin::text, ',' ORDER BY p.oid)) FROM pg_proc p WHERE p.pronamespace = 'pgrail'::regnamespace";
        let before: (i64, String) = client.query_one(writes, &[]).await.map(|row| (row.get(0), row.get(1))).expect("rows");
        loop {
            // Memberships of the whole server matter, and other tests change them.
            let (members_before, print) = (members(&client).await, light_check(&client).await.expect("light check"));
            for _ in 0..2 {
                let (plan, applied) = reconcile(&mut client, &spec).await;
                assert!(plan.is_empty() && plan.drift().is_empty() && applied.steps.is_empty());
            }
            let after: (i64, String) = client.query_one(writes, &[]).await.map(|row| (row.get(0), row.get(1))).expect("rows");
            assert_eq!(after, before);
            let print_after = light_check(&client).await.expect("light check");
            if print_after == print {
                break;
            }
            assert_ne!(members(&client).await, members_before);
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn drift_is_found_named_and_repaired() {
    for_each_server(async |server| {
        let database = server.database("drift").await;
        let mut client = friday(&database, 20).await;
        let spec = limited("a/b", USERS, 3, 1000);
        install(&mut client, &spec).await;
        for (change, table, what) in [
            ("ALTER TABLE users DISABLE TRIGGER USER", "public.users", "disabled"),
            ("ALTER TABLE users DISABLE TRIGGER USER; ALTER TABLE users ENABLE TRIGGER USER", "public.users", "ALWAYS"),
            ("DROP TRIGGER pgrail_delete_1 ON users", "public.users", "dropped"),
            ("CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE OR REPLACE TRIGGER pgrail_truncate BEFORE TRUNCATE ON users FOR EACH STATEMENT EXECUTE FUNCTION evil()", "public.users", "replaced"),
            ("CREATE OR REPLACE TRIGGER pgrail_truncate BEFORE TRUNCATE ON users FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION pgrail.noop()", "public.users", "changed"),
            ("DROP FUNCTION pgrail.noop CASCADE", "pgrail.noop", "dropped"),
            ("CREATE OR REPLACE FUNCTION pgrail.check_limits(p_root int, p_kind int, p_rel oid) RETURNS bool LANGUAGE sql AS 'SELECT false'", "pgrail.check_limits", "changed"),
            ("REVOKE EXECUTE ON FUNCTION pgrail.check_limits FROM PUBLIC", "pgrail.check_limits", "changed"),
            ("CREATE OR REPLACE FUNCTION pgrail.gate_1(rel oid, event int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN false; END'", "pgrail.gate_1", "changed"),
            ("ALTER TABLE messages DISABLE TRIGGER USER", "public.messages", "disabled"),
            ("SELECT pgrail.write_document('root_1', jsonb_set(pgrail.document('root_1'), '{assignments,0,max_rows}', '1000000'))", "pgrail.assignment", "the configuration was changed"),
            ("SELECT pgrail.write_document('root_1', jsonb_set(pgrail.document('root_1'), '{members}', '[]'))", "pgrail.member", "the configuration was changed"),
            ("SELECT pgrail.write_document('guards', jsonb_set(pgrail.document('guards'), '{0,enforce}', 'false'))", "pgrail.guard", "the configuration was changed"),
            ("SELECT pgrail.write_document('allowances', jsonb_build_array(jsonb_build_object('id', 99, 'guards', '[1]'::jsonb, 'role', current_user, 'operations', '[\"Delete\"]'::jsonb, 'unlimited', true)))", "pgrail.allowance", "the configuration was changed"),
            ("GRANT UPDATE ON pgrail.assignment TO PUBLIC", "pgrail.assignment", "granted privileges"),
            ("GRANT CREATE ON SCHEMA pgrail TO PUBLIC", "pgrail.schema", "granted privileges"),
            ("REVOKE USAGE ON SCHEMA pgrail FROM PUBLIC", "pgrail.schema", "revoked"),
            ("ALTER VIEW pgrail.member OWNER TO pg_monitor", "pgrail.member", "belongs to another role"),
            ("ALTER FUNCTION pgrail.check_limits OWNER TO pg_monitor", "pgrail.check_limits", "changed"),
            ("DROP EVENT TRIGGER pgrail_ddl", "pgrail.on_ddl", "missing"),
            // Also where the configuration changes with the next table.
            ("DROP EVENT TRIGGER pgrail_ddl; CREATE TABLE more (id int, user_id int REFERENCES users ON DELETE CASCADE)", "pgrail.on_ddl", "missing"),
            ("ALTER EVENT TRIGGER pgrail_drop DISABLE", "pgrail.on_drop", "ALWAYS"),
        ] {
            run(&client, change).await;
            let plan = verify(&client, &spec).await;
            assert!(plan.drift().iter().any(|drift| drift.table == table && drift.what.contains(what)), "{change}: {:?}", plan.drift());
            assert_eq!(plan.tables()[0].state, TableState::Drifted, "{change}: {:?}", plan.tables());
            install(&mut client, &spec).await;
            run(&client, "ALTER TABLE messages ENABLE TRIGGER ALL").await;
            install(&mut client, &spec).await;
            stopped(&client, "PGR01", "DELETE FROM users").await;
            stopped(&client, "PGR02", "TRUNCATE users CASCADE").await;
        }
        // What the owner of the tables changes in them is followed, and is no drift.
        run(&client, "ALTER TABLE users RENAME TO people").await;
        let people = limited("a/b", &[("public", "people")], 3, 1000);
        assert!(verify(&client, &people).await.drift().is_empty());
        install(&mut client, &people).await;
        let error = stopped(&client, "PGR01", "DELETE FROM people").await;
        assert_eq!(error.table(), Some("people"));
        run(&client, "CREATE TABLE notes (id int, user_id int REFERENCES people ON DELETE CASCADE)").await;
        assert!(verify(&client, &people).await.drift().is_empty());
        install(&mut client, &people).await;
        run(&client, "DROP TABLE analytics; DROP TABLE messages").await;
        install(&mut client, &people).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn another_clusters_database_is_left_alone_until_taken_over() {
    for_each_server(async |server| {
        let database = server.database("owner").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        let mine = GuardSpec { owner: ClusterId::new("cluster-1").unwrap(), ..guard("a/b", USERS) };
        install(&mut client, &mine).await;
        let theirs = GuardSpec { owner: ClusterId::new("cluster-2").unwrap(), ..guard("c/d", USERS) };
        let observed = observe(&client).await.expect("observe");
        assert_eq!(plan(&theirs, &observed), Err(PlanError::OwnedByOther { owner: "cluster-1".to_owned() }));
        let over = GuardSpec { take_over: true, ..theirs };
        install(&mut client, &over).await;
        let observed = observe(&client).await.expect("observe");
        assert_eq!(observed.owner(), Some("cluster-2"));
        assert_eq!(observed.orphaned_guards(std::slice::from_ref(&over.name)), [GuardName::new("a/b").unwrap()]);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_dump_of_the_schema_is_the_same_after_removal() {
    for_each_server(async |server| {
        let database = server.database("dump").await;
        let mut client = friday(&database, 20).await;
        run(&client, "CREATE TABLE parts (id int) PARTITION BY LIST (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE \"We\"\"ird 'name\" (\"Id\" int)").await;
        let dump = || {
            let output = Command::new(programs(server.major).join("pg_dump")).args(["--schema-only", "--dbname", &database.uri]).output().expect("pg_dump");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // Newer minor versions fence their output with a random key.
            String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict")).collect::<Vec<_>>().join("\n")
        };
        let before = dump();
        install(&mut client, &guard("a/b", &[("public", "*")])).await;
        assert!(dump().contains("pgrail"));
        stopped(&client, "PGR02", "TRUNCATE \"We\"\"ird 'name\"").await;
        assert!(remove(&mut client, "a/b").await.is_complete());
        assert_eq!(dump(), before);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_thousand_tables_install_quickly_and_once() {
    for_each_server(async |server| {
        let database = server.database("thousand").await;
        let mut client = database.connect().await;
        run(&client, "DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, up int %s)', i, CASE WHEN i % 10 <> 1 THEN format('REFERENCES t%s ON DELETE CASCADE', i - 1) END); END LOOP; END $$").await;
        let spec = GuardSpec::new(GuardName::new("a/b").unwrap(), ClusterId::local(), vec![TableSelector::table("*", "*").unwrap()]);
        let started = Instant::now();
        install(&mut client, &spec).await;
        println!("PostgreSQL {}: 1,000 tables in {:?}", server.major, started.elapsed());
        let started = Instant::now();
        let (plan, _) = reconcile(&mut client, &spec).await;
        assert!(plan.is_empty());
        println!("second run in {:?}", started.elapsed());
        let started = Instant::now();
        light_check(&client).await.expect("light check");
        println!("light check in {:?}", started.elapsed());
        let started = Instant::now();
        assert!(remove(&mut client, "a/b").await.is_complete());
        println!("removed in {:?}", started.elapsed());
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_removal_waits_for_is_named_and_the_next_one_finds_what_is_left() {
    for_each_server(async |server| {
        let database = server.database("removal").await;
        let mut client = friday(&database, 20).await;
        install(&mut client, &limited("a/b", USERS, 3, 1000)).await;
        let writer = database.connect().await;
        run(&writer, "SET application_name = 'migration'; BEGIN; INSERT INTO users VALUES (1000)").await;
        let uninstall = plan_uninstall(&observe(&client).await.expect("observe"));
        let applied = apply(client.as_mut(), &uninstall).await.expect("apply");
        assert!(applied.waits());
        let problems: Vec<String> = applied.unfinished().iter().filter_map(|(_, outcome)| outcome.problem()).collect();
        let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).await.expect("pid").get(0);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let expected = format!("waits for a lock on public.users, held by pid {pid} (login postgres, application migration, in a transaction since ");
        assert!(problems[0].starts_with(&expected), "{problems:?}");
        // The configuration is gone, the rest is found all the same.
        run(&writer, "COMMIT").await;
        let left = observe(&client).await.expect("observe");
        assert!(left.guards().is_empty() && left.live.schema_owner.is_some());
        assert!(apply(client.as_mut(), &plan_uninstall(&left)).await.expect("apply").is_complete());
        let left = observe(&client).await.expect("observe");
        assert!(left.live.schema_owner.is_none() && plan_uninstall(&left).is_empty());
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail%'";
        assert_eq!(client.query_one(triggers, &[]).await.expect("triggers").get::<_, i64>(0), 0);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_waiting_does_not_help_against_is_reported_with_its_cause_at_once() {
    for_each_server(async |server| {
        let database = server.database("causes").await;
        let client = friday(&database, 20).await;
        let (rail, owner) = (server.role_name("rail"), server.role_name("owner"));
        run(&client, &format!("CREATE ROLE {rail} LOGIN PASSWORD 'secret'; CREATE ROLE {owner}")).await;
        for table in ["users", "leads", "conversations", "messages", "analytics"] {
            run(&client, &format!("ALTER TABLE {table} OWNER TO {owner}")).await;
        }
        let spec = guard("a/b", USERS);
        let fails = async |code: &str, text: &str| {
            let mut session = database.connect_as(&rail, "secret").await;
            let ensured = ensure(session.as_mut(), &spec).await.expect("ensure");
            assert!(!ensured.waits());
            let Progress::Applied { applied, .. } = &ensured.progress else { panic!("{:?}", ensured.progress) };
            let failed: Vec<_> = applied.unfinished().iter().filter(|(_, outcome)| outcome.problem().is_some()).map(|(_, outcome)| (*outcome).clone()).collect();
            let Outcome::Failed { code: found, .. } = &failed[0] else { panic!("{failed:?}") };
            let problem = failed[0].problem().unwrap();
            assert!(found.code() == code && problem.contains(text), "{problem}");
        };
        fails("42501", &format!("permission denied for database {0}: run GRANT CREATE ON DATABASE {0} TO {rail}", database.name)).await;
        run(&client, &format!("GRANT CREATE ON DATABASE {} TO {rail}", database.name)).await;
        fails("42501", &format!("run GRANT {owner} TO {rail}")).await;
        run(&client, &format!("GRANT {owner} TO {rail}; ALTER ROLE {rail} SET default_transaction_read_only TO on; DROP SCHEMA pgrail CASCADE")).await;
        fails("25006", "set default_transaction_read_only to off").await;
        run(&client, &format!("REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {rail}, {owner}; DROP ROLE {rail}, {owner}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_and_one_of_another_cluster_are_left_alone() {
    for_each_server(async |server| {
        let database = server.database("upgrade").await;
        let mut client = friday(&database, 20).await;
        let mine = GuardSpec { owner: ClusterId::new("cluster-1").unwrap(), ..limited("a/b", USERS, 3, 400) };
        install(&mut client, &mine).await;
        // Another cluster does not touch a part, either.
        let observed = observe(&client).await.expect("observe");
        let theirs = GuardSpec { owner: ClusterId::new("cluster-2").unwrap(), ..mine.clone() };
        assert_eq!(plan(&theirs, &observed), Err(PlanError::OwnedByOther { owner: "cluster-1".to_owned() }));
        run(&client, "BEGIN; DROP VIEW pgrail.guard CASCADE").await;
        let row = client.query_one("SELECT owner FROM pgrail.install", &[]).await.expect("install");
        assert_eq!(row.get::<_, String>(0), "cluster-1");
        run(&client, "COMMIT").await;
        assert_eq!(
            plan(&theirs, &observe(&client).await.expect("observe")),
            Err(PlanError::OwnedByOther { owner: "cluster-1".to_owned() })
        );
        install(&mut client, &mine).await;
        stopped(&client, "PGR01", "DELETE FROM users").await;
        run(
            &client,
            "SELECT pgrail.write_document('install', pgrail.document('install') || '{\"schema_version\": 99}')",
        )
        .await;
        let observed = observe(&client).await.expect("observe");
        assert!(matches!(plan(&mine, &observed), Err(PlanError::NewerSchema { found: 99, .. })));
        database.finish().await;
    })
    .await;
}
