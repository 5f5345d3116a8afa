//! Capabilities, the light check, and the least-privilege grants.
#![allow(missing_docs)]
mod common;

use std::collections::HashSet;

use common::{FRIDAY, friday, guard, install, limited, remove, run, stopped, verify};
use pgrail_guard::grants::{self, GrantsFor, Platform};
use pgrail_guard::{TableState, blast_radius, capabilities, counters, counters_mark, light_check, observe};
use pgrail_testing::for_each_server;

/// Roles belong to the whole server: who gives memberships away, and who watches them, take turns.
static ROLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const USERS: &[(&str, &str)] = &[("public", "users")];

#[tokio::test]
async fn the_light_check_moves_with_everything_that_matters_and_with_nothing_else() {
    let _turn = ROLES.lock().await;
    for_each_server(async |server| {
        let database = server.database("light").await;
        let mut client = friday(&database, 20).await;
        install(&mut client, &guard("a/b", USERS)).await;
        let mut last = light_check(&client).await.expect("light check");
        for calm in ["INSERT INTO users VALUES (1000)", "ANALYZE", "VACUUM", "UPDATE users SET name = 'x'", "DELETE FROM users WHERE id = 1000"] {
            run(&client, calm).await;
            assert_eq!(light_check(&client).await.expect("light check"), last, "{calm}");
        }
        stopped(&client, "PGR02", "TRUNCATE users CASCADE").await;
        assert_eq!(light_check(&client).await.expect("light check"), last);
        for change in [
            "ALTER TABLE users DISABLE TRIGGER USER",
            "ALTER TABLE users ENABLE TRIGGER USER",
            "CREATE OR REPLACE FUNCTION pgrail.gate_1(rel oid, event int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN false; END'",
            "DROP TRIGGER pgrail_truncate ON users",
            "SELECT pgrail.write_document('root_1', jsonb_set(pgrail.document('root_1'), '{assignments,0,max_rows}', '101'))",
            "SELECT pgrail.write_document('root_1', jsonb_set(pgrail.document('root_1'), '{members}', '[]'))",
            "CREATE TABLE more (id int PRIMARY KEY)",
            "ALTER TABLE more RENAME TO most",
            "ALTER TABLE most ADD FOREIGN KEY (id) REFERENCES users ON DELETE CASCADE",
            "DROP TABLE most",
            "DROP FUNCTION pgrail.check_limits CASCADE",
            // What the capabilities depend on.
            "CREATE SCHEMA back",
            "COMMENT ON SCHEMA back IS 'restored by pgrail from nightly of today'",
            "ALTER EXTENSION plpgsql ADD TABLE users",
            "ALTER EXTENSION plpgsql DROP TABLE users",
        ] {
            run(&client, change).await;
            let now = light_check(&client).await.expect("light check");
            assert_ne!(now, last, "{change}");
            last = now;
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_light_check_moves_with_what_the_role_may_do() {
    let _turn = ROLES.lock().await;
    for_each_server(async |server| {
        let database = server.database("may").await;
        let (client, role, name) = (database.connect().await, server.role_name("may"), &database.name);
        run(&client, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
        let rail = database.connect_as(&role, "secret").await;
        let mut last = light_check(&rail).await.expect("light check");
        let mut changes = vec![
            format!("GRANT CREATE ON DATABASE {name} TO {role}"),
            format!("GRANT pg_read_all_data TO {role}"),
            format!("ALTER ROLE {role} BYPASSRLS"),
            format!("ALTER ROLE {role} NOINHERIT"),
            format!("ALTER DATABASE {name} OWNER TO {role}"),
            format!("ALTER DATABASE {name} OWNER TO postgres"),
            format!("ALTER ROLE {role} SUPERUSER"),
        ];
        if server.major >= 16 {
            changes.push(format!("GRANT pg_read_all_data TO {role} WITH INHERIT FALSE"));
        }
        for change in &changes {
            run(&client, change).await;
            let now = light_check(&rail).await.expect("light check");
            assert_ne!(now, last, "{change}");
            last = now;
        }
        run(&client, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_mark_of_the_counters_moves_with_each_of_them() {
    for_each_server(async |server| {
        let database = server.database("mark").await;
        let mut client = friday(&database, 20).await;
        let before = counters_mark(&client).await.expect("without pgrail");
        install(&mut client, &limited("a/b", USERS, 3, 1000)).await;
        let mut last = counters_mark(&client).await.expect("mark");
        assert_ne!(last, before);
        run(&client, "DELETE FROM users WHERE id = 1").await;
        counters(&client).await.expect("counters");
        assert_eq!(counters_mark(&client).await.expect("mark"), last);
        for statement in ["TRUNCATE users CASCADE", "DELETE FROM users"] {
            assert!(client.batch_execute(statement).await.is_err(), "{statement}");
            let now = counters_mark(&client).await.expect("mark");
            assert_ne!(now, last, "{statement}");
            last = now;
        }
        // What was read of them is written down, which moves nothing.
        counters(&client).await.expect("counters");
        assert_eq!(counters_mark(&client).await.expect("mark"), last);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_blast_radius_follows_statistics() {
    for_each_server(async |server| {
        let database = server.database("radius").await;
        let client = friday(&database, 100).await;
        // What a session has not reported yet when it analyzes is added to what was found.
        run(&client, "SELECT pg_stat_force_next_flush()").await;
        run(&client, "ANALYZE").await;
        let observed = observe(&client).await.expect("observe");
        let users = observed.catalog.table_named("public", "users").expect("users").oid;
        let all = blast_radius::compute(&observed.catalog, &HashSet::from([users]));
        let labels: Vec<&str> = all.iter().map(|radius| radius.table.as_str()).collect();
        assert_eq!(labels, ["public.users", "public.leads", "public.conversations"]);
        assert_eq!(
            (all[0].rows, all[0].cascade_tables, all[0].rows_at_risk, all[0].per_row, all[0].guarded),
            (100, 4, 11_700, 117, true)
        );
        assert_eq!(
            (all[1].rows, all[1].cascade_tables, all[1].rows_at_risk, all[1].per_row, all[1].guarded),
            (200, 2, 11_000, 55, false)
        );
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn capabilities_are_those_of_the_role() {
    let _turn = ROLES.lock().await;
    for_each_server(async |server| {
        let database = server.database("capabilities").await;
        let client = database.connect().await;
        run(&client, FRIDAY).await;
        let all = capabilities::read(&client).await.expect("capabilities");
        assert!(
            all.superuser
                && all.owns_tables
                && all.event_triggers
                && all.read_all_data
                && all.bypass_rls
                && all.track_counts
                && !all.in_recovery
        );
        assert_eq!(u32::try_from(all.server_version_num).expect("positive") / 10_000, server.major);
        assert!(all.server_version.starts_with(&server.major.to_string()));
        assert_eq!((all.tables, all.own_tables), (5, 5));
        let role = server.role_name("plain");
        run(&client, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
        let plain = database.connect_as(&role, "secret").await;
        // In a transaction, since any error that the server would log aborts it.
        run(&plain, "BEGIN").await;
        let poor = capabilities::read(&plain).await.expect("capabilities");
        run(&plain, "SELECT 1; COMMIT").await;
        assert!(
            !poor.superuser
                && !poor.owns_tables
                && !poor.event_triggers
                && !poor.read_all_data
                && !poor.bypass_rls
                && !poor.create_schema
        );
        // A table of its own, and those that a restore made for it in a new schema.
        let tables = format!(
            "CREATE SCHEMA back AUTHORIZATION {role}; CREATE TABLE back.users (id int); CREATE TABLE mine (id int);
             ALTER TABLE back.users OWNER TO {role}; ALTER TABLE mine OWNER TO {role}"
        );
        run(&client, &tables).await;
        assert_eq!(capabilities::read(&plain).await.expect("capabilities").own_tables, 2);
        run(&client, "COMMENT ON SCHEMA back IS 'restored by pgrail from nightly of today'").await;
        let owner = capabilities::read(&plain).await.expect("capabilities");
        assert_eq!((owner.tables, owner.own_tables, owner.owns_tables), (7, 1, false));
        run(&client, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_printed_grants_are_enough() {
    let _turn = ROLES.lock().await;
    for_each_server(async |server| {
        let database = server.database("grants").await;
        let client = database.connect().await;
        let (role, owner, app) = (server.role_name("rail"), server.role_name("owner"), server.role_name("app"));
        run(&client, &format!("CREATE ROLE {owner}; CREATE ROLE {app} LOGIN PASSWORD 'secret'; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}")).await;
        run(&client, FRIDAY).await;
        run(&client, &common::friday_rows(20)).await;
        run(&client, &format!("GRANT SELECT, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO {app}; RESET ROLE")).await;
        for (name, platform) in Platform::ALL {
            assert_eq!(Platform::named(name), Some(platform));
            for table_owners in [vec![owner.clone()], vec![]] {
                let by_owner = !table_owners.is_empty();
                let sql = grants::sql(&GrantsFor {
                    platform,
                    role: role.clone(),
                    database: database.name.clone(),
                    table_owners,
                    schemas: vec!["public".to_owned()],
                    backups: platform == Platform::Plain,
                });
                run(&client, &sql).await;
                run(&client, &format!("ALTER ROLE {role} PASSWORD 'secret'")).await;
                let mut rail = database.connect_as(&role, "secret").await;
                let spec = limited("a/b", USERS, 3, 1000);
                let (plan, applied) = common::reconcile(&mut rail, &spec).await;
                assert!(applied.is_complete(), "{name} {by_owner}: {:?}\n{}", applied.unfinished(), plan.sql().join("\n"));
                let plan = verify(&rail, &spec).await;
                assert!(plan.is_empty(), "{name} {by_owner}");
                let expected = if by_owner { TableState::Enforced } else { TableState::Degraded };
                assert_eq!(plan.tables()[0].state, expected, "{name} {by_owner}: {:?}", plan.tables());
                assert!(by_owner || plan.tables()[0].message.contains(&owner), "{:?}", plan.tables());

                let guarded = database.connect_as(&app, "secret").await;
                stopped(&guarded, "PGR01", "DELETE FROM users").await;
                stopped(&guarded, "PGR02", "TRUNCATE users, leads, conversations, messages, analytics").await;
                run(&guarded, "BEGIN; DELETE FROM users WHERE id <= 3; ROLLBACK").await;

                assert!(remove(&mut rail, "a/b").await.is_complete(), "{name} {by_owner}");
                run(&guarded, "BEGIN; DELETE FROM users; ROLLBACK").await;
                drop(rail);
                run(&client, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
            }
        }
        run(&client, &format!("DROP OWNED BY {app}, {owner}; DROP ROLE {app}, {owner}")).await;
        database.finish().await;
    })
    .await;
}
