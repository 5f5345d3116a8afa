//! Role set-ups as platforms have them: who can install what, and what the guarded roles cannot do about it.
#![allow(missing_docs)]
mod common;

use common::{FRIDAY, count, friday, friday_rows, install, limited, reconcile, refused, remove, run, stopped, verify};
use pgrail_guard::{DropProtection, TableState, observe, tamper};
use pgrail_testing::for_each_server;

const USERS: &[(&str, &str)] = &[("public", "users")];

/// `postgres` is no superuser there but owns the tables; requests come in as `authenticator` and switch to `anon` or
/// `authenticated`; row level security is forced, with default deny.
#[tokio::test]
async fn a_set_up_like_supabase() {
    for_each_server(async |server| {
        let database = server.database("supabase").await;
        let admin = database.connect().await;
        let name = |role: &str| server.role_name(role);
        let (owner, authenticator, anon, service) = (name("postgres"), name("authenticator"), name("anon"), name("service"));
        run(
            &admin,
            &format!(
                "CREATE ROLE {owner} LOGIN PASSWORD 'secret' CREATEDB CREATEROLE BYPASSRLS; CREATE ROLE {anon} NOLOGIN; CREATE ROLE {service} NOLOGIN BYPASSRLS;
                 CREATE ROLE {authenticator} LOGIN NOINHERIT PASSWORD 'secret'; GRANT {anon}, {service} TO {authenticator};
                 GRANT CREATE ON DATABASE {} TO {owner}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}",
                database.name
            ),
        )
        .await;
        let mut rail = database.connect_as(&owner, "secret").await;
        // Default privileges give every new table and function away.
        run(
            &rail,
            &format!(
                "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {anon}, {service}; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {anon}, {service};
                 ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {anon}; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
            ),
        )
        .await;
        run(&rail, FRIDAY).await;
        run(&rail, &friday_rows(30)).await;
        run(
            &rail,
            &format!(
                "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY;
                 ALTER TABLE leads ENABLE ROW LEVEL SECURITY; ALTER TABLE leads FORCE ROW LEVEL SECURITY;
                 CREATE POLICY few ON users FOR ALL TO {anon} USING (id <= 20)"
            ),
        )
        .await;
        install(&mut rail, &limited("a/b", USERS, 3, 400)).await;
        let app = database.connect_as(&authenticator, "secret").await;
        for role in [&anon, &service] {
            run(&app, &format!("SET ROLE {role}")).await;
            // Cascades pass row security, and are counted all the same.
            run(&app, "BEGIN; DELETE FROM users WHERE id <= 3; ROLLBACK").await;
            stopped(&app, "PGR01", "DELETE FROM users").await;
            stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 4").await;
            // Nothing of ours can be read or written, whatever default privileges say.
            for sql in [
                "SELECT * FROM pgrail.assignment",
                "SELECT count(*) FROM pgrail.pin_1",
                "SELECT pgrail.write_document('root_1', NULL)",
                "DROP FUNCTION pgrail.config_root_1",
                "SELECT nextval('pgrail.blocked_1')",
                "SELECT setval('pgrail.blocked_1', 9223372036854775807)",
                "SELECT pgrail.report(NULL)",
                "CREATE TABLE pgrail.mine (id int)",
                "ALTER TABLE users DISABLE TRIGGER ALL",
                "DROP TRIGGER pgrail_delete_1 ON users",
                "DROP FUNCTION pgrail.gate_1",
            ] {
                let code = refused(&app, sql).await;
                assert_eq!(code.code().code(), "42501", "{sql}: {code:?}");
            }
            run(&app, "RESET ROLE").await;
        }
        let plan = verify(&rail, &limited("a/b", USERS, 3, 400)).await;
        assert_eq!((plan.tables()[0].state, plan.tables()[0].drop_protection), (TableState::Enforced, DropProtection::Pinned));
        let observed = observe(&rail).await.expect("observe");
        let facts = tamper::read(&rail, &observed.guarded_tables().into_iter().collect::<Vec<_>>()).await.expect("facts");
        assert!(facts.tables[0].can_disable.is_empty() && facts.function_owner.is_empty(), "{facts:?}");
        drop((rail, app));
        for role in [&owner, &authenticator, &anon, &service] {
            run(&admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_guarded_role_can_try() {
    for_each_server(async |server| {
        let database = server.database("tamper").await;
        let mut client = friday(&database, 30).await;
        let app_role = server.role_name("app");
        run(
            &client,
            &format!(
                "CREATE ROLE {app_role} LOGIN PASSWORD 'secret'; GRANT CREATE ON SCHEMA public TO {app_role}; GRANT TEMP ON DATABASE {} TO {app_role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app_role}",
                database.name
            ),
        )
        .await;
        let spec = limited("a/b", USERS, 3, 400);
        install(&mut client, &spec).await;
        let app = database.connect_as(&app_role, "secret").await;
        // Shadowing: nothing is looked up by the caller's path, not even operators and casts.
        run(
            &app,
            "CREATE TEMP TABLE assignment (id int); CREATE TEMP TABLE pg_class (oid oid);
             CREATE FUNCTION public.never(int8, int4) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT false';
             CREATE OPERATOR public.> (LEFTARG = int8, RIGHTARG = int4, FUNCTION = public.never);
             CREATE FUNCTION public.pg_trigger_depth() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';
             CREATE FUNCTION public.pg_stat_get_xact_tuples_deleted(oid) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT 0::int8';
             SET search_path = public, pg_temp, pg_catalog",
        )
        .await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id <= 4").await;
        run(&app, "INSERT INTO users SELECT generate_series(1000, 1010)").await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id >= 1000").await;
        run(&app, "RESET search_path").await;
        // Settings of ours, forged: they are not looked at where limits hold per transaction.
        for forged in ["'x'", "repeat('f', 16)", "encode(timestamptz_send(statement_timestamp()), 'hex') || ':99999:99999:99999:99999:99999:99999'"] {
            stopped(&app, "PGR01", &format!("BEGIN; SELECT set_config('pgrail.note_1', {forged}, true); SELECT set_config('pgrail.warned_1', {forged}, false); DELETE FROM users WHERE id <= 10")).await;
        }
        // Calling our functions: no effect, no count.
        run(&app, "SELECT pgrail.check_limits(1, 0, 0), pgrail.check_limits(1, 1, 0), pgrail.check_limits(1, 2, 0), pgrail.check_limits(99, 0, 0), pgrail.gate_1(0, 0), pgrail.check_truncate('users'::regclass), pgrail.note_1()").await;
        assert_eq!(refused(&app, "SET session_replication_role = replica").await.code().code(), "42501");
        assert_eq!(refused(&app, "SET track_counts = off").await.code().code(), "42501");
        assert_eq!(refused(&app, "SELECT pg_stat_reset()").await.code().code(), "42501");
        // Statistics that are reset, by whom it is allowed to, are not what is counted by.
        stopped(&client, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 3; SELECT pg_stat_reset(); DELETE FROM users WHERE id <= 6").await;
        stopped(&client, "PGR01", "BEGIN; DELETE FROM users WHERE id <= 3; SELECT pg_stat_clear_snapshot(); DELETE FROM users WHERE id <= 6").await;
        // Savepoints that are rolled back still count.
        stopped(&app, "PGR01", "BEGIN; SAVEPOINT s; DELETE FROM users WHERE id <= 3; ROLLBACK TO s; DELETE FROM users WHERE id <= 3").await;
        assert_eq!(count(&client, "users").await, 41);
        let counters = pgrail_guard::counters(&client).await.expect("counters");
        assert_eq!(counters[0].blocked_attempts, 8);
        // With TRIGGER, ours can be replaced: drift, repaired.
        run(&client, &format!("GRANT TRIGGER ON users TO {app_role}")).await;
        run(&app, "CREATE FUNCTION public.calm() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE OR REPLACE TRIGGER pgrail_delete_1 AFTER INSERT ON users EXECUTE FUNCTION public.calm()").await;
        run(&app, "BEGIN; DELETE FROM users WHERE id >= 1000; ROLLBACK").await;
        assert!(!verify(&client, &spec).await.drift().is_empty());
        install(&mut client, &spec).await;
        stopped(&app, "PGR01", "DELETE FROM users WHERE id >= 1000").await;
        // A counter that is used up or gone changes nothing but the count.
        for change in ["SELECT setval('pgrail.blocked_1', 9223372036854775807)", "DROP SEQUENCE pgrail.blocked_1"] {
            run(&client, change).await;
            stopped(&app, "PGR01", "DELETE FROM users WHERE id >= 1000").await;
        }
        install(&mut client, &spec).await;
        // Who may stop the counting of his session passes, and is told of before.
        let observed = observe(&client).await.expect("observe");
        let tables: Vec<_> = observed.guarded_tables().into_iter().collect();
        assert!(tamper::read(&client, &tables).await.expect("facts").uncounted.is_empty());
        run(&client, &format!("GRANT SET ON PARAMETER track_counts TO {app_role}")).await;
        run(&app, "SET track_counts = off; BEGIN; DELETE FROM users WHERE id >= 1000; ROLLBACK; RESET track_counts").await;
        assert_eq!(tamper::read(&client, &tables).await.expect("facts").uncounted, std::slice::from_ref(&app_role));
        run(&client, &format!("REVOKE SET ON PARAMETER track_counts FROM {app_role}; ALTER ROLE {app_role} SET track_counts = off")).await;
        assert_eq!(tamper::read(&client, &tables).await.expect("facts").uncounted, std::slice::from_ref(&app_role));
        run(&client, &format!("ALTER ROLE {app_role} RESET track_counts")).await;
        drop(app);
        run(&client, &format!("DROP OWNED BY {app_role} CASCADE; DROP ROLE {app_role}")).await;
        database.finish().await;
    })
    .await;
}

/// TRIGGER on the tables and nothing else: a guard that stops, says what it lacks, and can be taken off again.
#[tokio::test]
async fn a_role_with_nothing_but_trigger() {
    for_each_server(async |server| {
        let database = server.database("trigger").await;
        let admin = friday(&database, 30).await;
        let (rail, app) = (server.role_name("rail"), server.role_name("app"));
        run(
            &admin,
            &format!(
                "CREATE ROLE {rail} LOGIN PASSWORD 'secret'; GRANT CREATE ON DATABASE {} TO {rail}; GRANT TRIGGER ON ALL TABLES IN SCHEMA public TO {rail};
                 CREATE ROLE {app} LOGIN PASSWORD 'secret'; GRANT SELECT, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO {app};
                 GRANT SET ON PARAMETER session_replication_role TO {app}",
                database.name
            ),
        )
        .await;
        let mut client = database.connect_as(&rail, "secret").await;
        let mut spec = limited("a/b", USERS, 3, 400);
        reconcile(&mut client, &spec).await;
        let plan = verify(&client, &spec).await;
        assert!(plan.is_empty(), "{}", plan.sql().join("\n"));
        let table = &plan.tables()[0];
        assert_eq!((table.state, table.drop_protection), (TableState::Degraded, DropProtection::Pinned), "{table:?}");
        assert!(table.message.contains(&rail) && table.message.contains("must be a member of the owner"), "{table:?}");
        let session = database.connect_as(&app, "secret").await;
        stopped(&session, "PGR01", "DELETE FROM users").await;
        stopped(&session, "PGR02", "TRUNCATE users CASCADE").await;
        run(&session, "BEGIN; DELETE FROM users WHERE id <= 3; ROLLBACK").await;
        // The gap that the message speaks of.
        run(&session, "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM users; ROLLBACK").await;
        spec.limits.max_rows = 1;
        reconcile(&mut client, &spec).await;
        stopped(&session, "PGR01", "DELETE FROM users WHERE id <= 2").await;
        assert!(remove(&mut client, "a/b").await.is_complete());
        run(&session, "BEGIN; DELETE FROM users; ROLLBACK").await;
        let left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail%'";
        assert_eq!(admin.query_one(left, &[]).await.expect("count").get::<_, i64>(0), 0);
        drop((client, session));
        run(&admin, &format!("DROP OWNED BY {rail}, {app} CASCADE; DROP ROLE {rail}, {app}")).await;
        database.finish().await;
    })
    .await;
}

/// Managed services have an administrator that is no superuser, and may let its members create event triggers. Where that
/// is tried and refused, nothing breaks and the truth is told.
#[tokio::test]
async fn a_set_up_like_rds_and_cloud_sql() {
    for_each_server(async |server| {
        for administrator in ["rds_superuser", "cloudsqlsuperuser"] {
            let database = server.database("managed").await;
            let admin = database.connect().await;
            let (rail, owner) = (server.role_name("rail"), server.role_name("owner"));
            run(
                &admin,
                &format!(
                    "DO $$ BEGIN CREATE ROLE {administrator} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
                     CREATE ROLE {owner} LOGIN PASSWORD 'secret'; CREATE ROLE {rail} LOGIN PASSWORD 'secret';
                     GRANT {administrator}, {owner} TO {rail}; GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE ON SCHEMA public TO {owner}",
                    database.name
                ),
            )
            .await;
            let session = database.connect_as(&owner, "secret").await;
            run(&session, FRIDAY).await;
            run(&session, &friday_rows(20)).await;
            let mut client = database.connect_as(&rail, "secret").await;
            let spec = limited("a/b", USERS, 3, 400);
            install(&mut client, &spec).await;
            let observed = observe(&client).await.expect("observe");
            assert!(observed.live.managed_administrator && !observed.live.may_create_event_triggers);
            assert_eq!(verify(&client, &spec).await.tables()[0].drop_protection, DropProtection::Pinned);
            // The owner is the application here: it is stopped, and could take the guard off.
            stopped(&session, "PGR01", "DELETE FROM users").await;
            stopped(&session, "PGR02", "TRUNCATE users CASCADE").await;
            let tables: Vec<_> = observed.guarded_tables().into_iter().collect();
            let facts = tamper::read(&client, &tables).await.expect("facts");
            assert_eq!(facts.tables[0].can_disable, std::slice::from_ref(&owner));
            drop((client, session));
            run(&admin, &format!("DROP OWNED BY {rail}, {owner} CASCADE; DROP ROLE {rail}, {owner}; DROP ROLE {administrator}")).await;
            database.finish().await;
        }
    })
    .await;
}
