//! DROP protection by event trigger and by view, and the facts about who could tamper.
#![allow(missing_docs)]
mod common;

use common::{FRIDAY, guard, install, limited, reconcile, refused, remove, run, stopped, verify};
use pgrail_guard::{DropProtection, Mode, TableState, observe, tamper};
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
        assert_eq!(facts.tables.len(), 1);
        assert!(facts.tables[0].can_disable.is_empty(), "the owner is pgrail's own role here: {facts:?}");
        assert_eq!(facts.tables[0].can_replace_triggers, vec![app.clone()]);
        assert!(facts.tables[0].can_delete.contains(&app));
        assert!(facts.replica_role.is_empty() && facts.function_owner.is_empty());
        run(&client, &format!("GRANT {owner} TO {app}; GRANT SET ON PARAMETER session_replication_role TO {app}")).await;
        let facts = tamper::read(&client, &tables).await.expect("facts");
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
