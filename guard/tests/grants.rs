//! The script of `pgrail grants`, run by psql as the role that would run it on each platform.
#![allow(missing_docs, clippy::expect_used, reason = "tests fail by panicking")]
mod common;

use common::{FRIDAY, friday_rows, limited, run, verify};
use pgrail_guard::TableState;
use pgrail_guard::grants::{GrantsFor, Platform, sql};
use pgrail_testing::{Database, Server, for_each_server};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use tokio_postgres::Client;

const USERS: &[(&str, &str)] = &[("public", "users")];

/// psql with the options that the script names, and the script on standard input.
fn psql(server: &Server, uri: &str, script: &str) -> Output {
    let mut child = Command::new(pgrail_testing::programs(server.major).join("psql"))
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-d", uri])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql");
    child.stdin.take().expect("stdin").write_all(script.as_bytes()).expect("script");
    child.wait_with_output().expect("psql")
}

fn script(platform: Platform, role: &str, database: &Database, owner: &str) -> String {
    sql(&GrantsFor {
        platform,
        role: role.to_owned(),
        database: database.name.clone(),
        table_owners: vec![owner.to_owned()],
        schemas: vec!["public".to_owned()],
        backups: true,
    })
}

/// The administrator of a managed service: no superuser, but he may create roles; on some, with BYPASSRLS and with
/// ADMIN OPTION on predefined roles.
async fn managed(server: &Server, platform: Platform, attributes: &str, own_tables: bool) {
    let database = server.database("grants").await;
    let root = database.connect().await;
    let (admin, owner, rail) = (server.role_name("admin"), server.role_name("owner"), server.role_name("rail"));
    run(&root, &format!("CREATE ROLE {admin} LOGIN PASSWORD 'secret' CREATEDB CREATEROLE {attributes}; ALTER DATABASE {} OWNER TO {admin}", database.name)).await;
    if attributes.contains("BYPASSRLS") {
        run(&root, &format!("GRANT pg_read_all_data TO {admin} WITH ADMIN OPTION")).await;
    }
    let session = database.connect_as(&admin, "secret").await;
    let table_owner = if own_tables { &admin } else { &owner };
    if !own_tables {
        run(&session, &format!("CREATE ROLE {owner}; GRANT {owner} TO {admin}; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}")).await;
    }
    run(&session, FRIDAY).await;
    run(&session, &friday_rows(20)).await;
    run(&session, "RESET ROLE").await;

    let script = script(platform, &rail, &database, table_owner);
    for time in ["first", "second"] {
        let output = psql(server, &database.uri_for(&admin, "secret"), &script);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{platform:?}, {time} time: {text}");
        // What could not be had is said.
        let member: bool = root
            .query_one("SELECT pg_has_role($1::text::regrole, $2::text::regrole, 'MEMBER')", &[&rail, table_owner])
            .await
            .expect("membership")
            .get(0);
        assert_eq!(member, !text.contains("WARNING:  membership in"), "{text}");
        assert_eq!(member, !own_tables || server.major < 16, "{text}");
        let row = root
            .query_one(
                "SELECT rolbypassrls, pg_has_role(oid, 'pg_read_all_data', 'MEMBER') FROM pg_roles WHERE rolname = $1",
                &[&rail],
            )
            .await
            .expect("role");
        assert_eq!(row.get::<_, bool>(0), !text.contains("BYPASSRLS could not be given"), "{text}");
        assert_eq!(row.get::<_, bool>(1), !text.contains("pg_read_all_data could not be granted"), "{text}");
    }
    run(&session, &format!("ALTER ROLE {rail} PASSWORD 'secret'")).await;
    let mut client = database.connect_as(&rail, "secret").await;
    let spec = limited("a/b", USERS, 3, 400);
    let (_, applied) = common::reconcile(&mut client, &spec).await;
    assert!(applied.is_complete(), "{platform:?}: {:?}", applied.unfinished());
    let member = !own_tables || server.major < 16;
    let expected = if member { TableState::Enforced } else { TableState::Degraded };
    assert_eq!(verify(&client, &spec).await.tables()[0].state, expected, "{platform:?}");
    let readable = client.query_one("SELECT count(*) FROM messages", &[]).await;
    assert!(readable.is_ok(), "backups can read: {readable:?}");
    common::stopped(&session, "PGR01", "DELETE FROM users").await;
    drop((client, session));
    let owners = if own_tables { admin.clone() } else { format!("{admin}, {owner}") };
    run(&root, &format!("DROP OWNED BY {rail} CASCADE; ALTER DATABASE {} OWNER TO CURRENT_USER; DROP OWNED BY {owners} CASCADE; DROP ROLE {rail}; DROP ROLE {owners}", database.name)).await;
    database.finish().await;
}

#[tokio::test]
async fn the_administrator_of_a_managed_service_can_run_its_script() {
    for_each_server(async |server| {
        for platform in [Platform::Rds, Platform::CloudSql, Platform::Supabase] {
            for attributes in ["", "BYPASSRLS"] {
                for own_tables in [true, false] {
                    managed(&server, platform, attributes, own_tables).await;
                }
            }
        }
    })
    .await;
}

/// The entry of `spec.managed.roles` that the script names.
fn managed_role(script: &str) -> Value {
    let line = script.lines().find_map(|line| line.strip_prefix("-- {")).expect("an entry");
    serde_json::from_str(&format!("{{{line}")).expect("JSON, which is YAML")
}

/// What CloudNativePG compares with that entry.
async fn role_in_the_database(client: &Client, role: &str) -> Value {
    let row = client
        .query_one(
            "SELECT rolcanlogin, rolbypassrls, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication, \
             (SELECT array_agg(roleid::regrole::text ORDER BY roleid DESC) FROM pg_auth_members WHERE member = r.oid) \
             FROM pg_roles r WHERE rolname = $1",
            &[&role],
        )
        .await
        .expect("role");
    assert!(!row.get::<_, bool>(2), "an attribute that the entry does not have");
    let roles: Vec<String> = row.get(3);
    json!({"name": role, "login": row.get::<_, bool>(0), "bypassrls": row.get::<_, bool>(1), "inRoles": roles})
}

#[test]
fn names_of_a_managed_role_do_not_end_the_comment() {
    let grants = GrantsFor {
        platform: Platform::CloudNativePg,
        role: "rail\nDROP TABLE users; --".to_owned(),
        database: "shop".to_owned(),
        table_owners: Vec::new(),
        schemas: Vec::new(),
        backups: false,
    };
    assert_eq!(managed_role(&sql(&grants)), json!({"name": grants.role, "login": true, "inRoles": []}));
}

#[tokio::test]
async fn a_superuser_runs_it_elsewhere_and_an_error_changes_nothing() {
    for_each_server(async |server| {
        let database = server.database("grants").await;
        let root = database.connect().await;
        let (owner, rail) = (server.role_name("owner"), server.role_name("rail"));
        run(&root, &format!("CREATE ROLE {owner}")).await;
        for platform in [Platform::Plain, Platform::CloudNativePg] {
            let output = psql(&server, &database.uri, &script(platform, &rail, &database, &owner));
            assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            if platform == Platform::CloudNativePg {
                let script = script(platform, &rail, &database, &owner);
                assert_eq!(managed_role(&script), role_in_the_database(&root, &rail).await);
            }
            run(&root, &format!("DROP OWNED BY {rail}; DROP ROLE {rail}")).await;
            let output = psql(&server, &database.uri, &script(platform, &rail, &database, "no such owner"));
            assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
            let left =
                root.query_one("SELECT count(*) FROM pg_roles WHERE rolname = $1", &[&rail]).await.expect("roles");
            assert_eq!(left.get::<_, i64>(0), 0, "the role was not created");
        }
        run(&root, &format!("DROP ROLE {owner}")).await;
        database.finish().await;
    })
    .await;
}
