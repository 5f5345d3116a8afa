//! Rehearsals as another role. A program of its own: memberships of roles are the server's, and other rehearsals check that
//! nothing changed there.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]
mod common;

use common::rehearse::*;
use common::{FRIDAY, install, limited, run};
use pgrail_guard::{RehearseError, Request, counters};
use pgrail_testing::{Client, Database, for_each_server};

/// pgrail's role is no superuser; the application's has row level security, and settings that its policies read.
async fn with_policies(database: &Database, rail: &str, app: &str) -> Client {
    let admin = database.connect().await;
    run(
        &admin,
        &format!(
            "CREATE ROLE {rail} LOGIN PASSWORD 'secret'; CREATE ROLE {app} LOGIN PASSWORD 'secret'; GRANT {app} TO {rail};
             GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE, USAGE ON SCHEMA public TO {rail}",
            database.name
        ),
    )
    .await;
    let rail = database.connect_as(rail, "secret").await;
    run(&rail, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC").await;
    run(&rail, FRIDAY).await;
    run(&rail, &common::friday_rows(30)).await;
    run(
        &rail,
        &format!(
            "GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app}; ALTER TABLE users ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON users TO {app} USING (id <= current_setting('app.up_to', true)::int)"
        ),
    )
    .await;
    rail
}

#[tokio::test]
async fn as_the_application_with_its_settings_and_policies() {
    for_each_server(async |server| {
        let database = server.database("rehearse").await;
        let (rail_role, app_role) = (server.role_name("rail"), server.role_name("app"));
        let mut rail = with_policies(&database, &rail_role, &app_role).await;
        install(&mut rail, &limited("a/b", USERS, 5, 10_000)).await;
        let before = traces(&rail, FRIDAY_TABLES).await;
        let as_app = |statement: &str, up_to: &str| Request {
            role: Some(app_role.clone()),
            settings: vec![
                ("app.up_to".to_owned(), up_to.to_owned()),
                ("request.jwt.claims".to_owned(), "{\"a\": \"=;'\"}".to_owned()),
            ],
            ..Request::new(statement)
        };
        // pgrail's role, which owns the tables, would delete all of them; the application only what it sees.
        let session = database.connect_as(&rail_role, "secret").await;
        assert_eq!(rehearse(&session, "DELETE FROM users").await.total.deleted, 30 * 118);
        let own = try_rehearse(&session, &as_app("DELETE FROM users", "4")).await.expect("rehearse");
        assert_eq!((stop_code(&own), own.total.deleted, own.login.as_str()), ("passes", 4 * 118, rail_role.as_str()));
        assert!(!own.rights_of_role, "{own:?}");
        let stopped_at = try_rehearse(&session, &as_app("DELETE FROM users", "20")).await.expect("rehearse");
        assert_eq!(
            (stop_code(&stopped_at), stopped_at.total.deleted, stopped_at.incomplete.clone()),
            ("PGR01", 20 * 118, None)
        );
        let denied =
            fails(&session, &as_app("INSERT INTO users VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'x'", "4"))
                .await;
        assert!(matches!(&denied, RehearseError::Statement { code, .. } if code == "42501"), "{denied:?}");
        // Nothing stays: neither the role nor the settings.
        let row = session
            .query_one("SELECT current_user::text, coalesce(current_setting('app.up_to', true), '')", &[])
            .await
            .expect("row");
        assert_eq!((row.get::<_, String>(0), row.get::<_, String>(1)), (rail_role.clone(), String::new()));
        assert_eq!(traces(&rail, FRIDAY_TABLES).await, before);

        // The application's own login: it can be judged, and counted up to where the guard stops it.
        let app = database.connect_as(&app_role, "secret").await;
        let up_to = |statement: &str, up_to: &str| Request { role: None, ..as_app(statement, up_to) };
        let passing = try_rehearse(&app, &up_to("DELETE FROM users", "5")).await.expect("rehearse");
        assert_eq!(
            (stop_code(&passing), passing.total.deleted, passing.counted_as_attempt),
            ("passes", 5 * 118, false)
        );
        let partly = try_rehearse(&app, &up_to("DELETE FROM users", "20")).await.expect("rehearse");
        let why = partly.incomplete.clone().unwrap_or_default();
        assert!(why.contains("up to where the guard stopped it") && why.contains(&app_role), "{why}");
        assert_eq!((stop_code(&partly), partly.tables[0].rows.deleted), ("PGR01", 6));
        // It may not say of itself that it is a rehearsal, and neither may anybody else.
        assert!(partly.counted_as_attempt);
        assert_eq!(counters(&rail).await.expect("counters")[0].blocked_attempts, 1);
        let forged = format!("CREATE FUNCTION pgrail.rehearsal_{}() RETURNS void LANGUAGE sql AS ''", 1);
        assert_eq!(common::refused(&app, &forged).await.code().code(), "42501");
        let estimated = fails(&app, &Request { max_rows: 100, ..up_to("DELETE FROM users", "20") }).await;
        assert!(matches!(estimated, RehearseError::TooManyByEstimate { .. }), "{estimated:?}");
        drop((session, app, rail));
        let admin = database.connect().await;
        run(&admin, &format!("DROP OWNED BY {app_role}, {rail_role} CASCADE; DROP ROLE {app_role}, {rail_role}")).await;
        database.finish().await;
    })
    .await;
}
