//! Guards under faults: what cannot be done on one table, what others change in the database.

use crate::fixture::{Fixture, refused};
use pgrail_crds::{ProtectedDatabase, TableGuard, TableState};
use pgrail_e2e::{condition, eventually, holds, protected_database, table_guard, wait_for};
use pgrail_testing::{Server, for_each_server};

fn repaired(times: i64) -> impl Fn(&TableGuard) -> bool {
    move |guard| guard.status.as_ref().is_some_and(|status| status.drift_repairs == Some(times))
}

fn attempts(times: i64) -> impl Fn(&TableGuard) -> bool {
    move |guard| guard.status.as_ref().is_some_and(|status| status.blocked_attempts == Some(times))
}

/// Waits for an Event: it is written after the status.
async fn event(fixture: &Fixture, object: &str, reason: &str, part: &str) {
    eventually(&format!("the Event {reason} with {part:?}"), async || {
        let events = fixture.namespace.events(object).await;
        events.iter().any(|(why, note)| why == reason && note.contains(part)).then_some(())
    })
    .await;
}

/// Roles of one test: pgrail's, a member of the owner of every table but `leads`, which has another owner.
struct Roles {
    pgrail: String,
    owner: String,
    other: String,
}

impl Roles {
    async fn create(server: &Server, fixture: &Fixture) -> Self {
        let roles = Self {
            pgrail: server.role_name("rail"),
            owner: server.role_name("owner"),
            other: server.role_name("other"),
        };
        let Self { pgrail, owner, other } = &roles;
        let database = &fixture.database.name;
        let sql = format!(
            "CREATE ROLE {owner}; CREATE ROLE {other}; CREATE ROLE {pgrail} LOGIN PASSWORD 'secret' IN ROLE {owner};
             GRANT CREATE ON DATABASE \"{database}\" TO {pgrail};
             ALTER TABLE users OWNER TO {owner}; ALTER TABLE conversations OWNER TO {owner};
             ALTER TABLE messages OWNER TO {owner}; ALTER TABLE analytics OWNER TO {owner};
             ALTER TABLE leads OWNER TO {other}"
        );
        fixture.app.batch_execute(&sql).await.unwrap();
        fixture.namespace.secret("shop-login", &[("uri", &fixture.database.uri_for(pgrail, "secret"))]).await;
        roles
    }

    async fn drop(self, server: &Server) {
        let admin = pgrail_testing::connect(&server.uri).await;
        let Self { pgrail, owner, other } = self;
        admin.batch_execute(&format!("DROP ROLE {pgrail}, {owner}, {other}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_guarded_is_named_and_delays_no_check_of_the_others() {
    for_each_server(async |server| {
        let fixture = Fixture::new(&server, "blind").await;
        let roles = Roles::create(&server, &fixture).await;
        fixture.namespace.apply::<ProtectedDatabase>(&protected_database()).await;
        let guard = fixture.guard(&table_guard(&["users"]), "Enforced", "False", "NoPrivilege").await;
        let (_, _, message) = condition(&guard, "Enforced").unwrap();
        let grant = format!("GRANT {} TO {}", roles.other, roles.pgrail);
        assert!(message.contains("public.leads") && message.contains(&grant), "{message}");
        assert!(holds(&guard, "Stalled", "True", "NoPrivilege"));
        let tables = guard.status.unwrap().tables;
        let leads = tables.iter().find(|row| row.table == "public.leads").unwrap();
        assert_eq!(leads.state, TableState::Failed);
        assert!(leads.message.contains(&grant), "{}", leads.message);

        // What others change on the other tables is found and repaired all the same, and what was stopped is counted.
        fixture.app.batch_execute("ALTER TABLE users DISABLE TRIGGER USER").await.unwrap();
        wait_for(&fixture.namespace, "core", "the triggers of users are enabled again", repaired(1)).await;
        event(&fixture, "core", "DriftRepaired", "public.users").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        wait_for(&fixture.namespace, "core", "the attempt is counted", attempts(1)).await;

        // The missing grant is a change of the database: it is acted on at the next check.
        fixture.app.batch_execute(&grant).await.unwrap();
        let guard = fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert_eq!(guard.status.unwrap().tables.len(), 1);
        fixture.finish().await;
        roles.drop(&server).await;
    })
    .await;
}

#[tokio::test]
async fn dropping_pgrails_schema_is_drift_and_takes_no_counted_attempt_away() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "schema").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        wait_for(&fixture.namespace, "core", "two attempts are counted", attempts(2)).await;

        fixture.app.batch_execute("DROP SCHEMA pgrail CASCADE").await.unwrap();
        let guard = wait_for(&fixture.namespace, "core", "the drop is drift", repaired(1)).await;
        assert_eq!(guard.status.unwrap().blocked_attempts, Some(2));
        event(&fixture, "core", "DriftRepaired", "schema was dropped").await;
        let events = fixture.namespace.events("core").await;
        assert_eq!(events.iter().filter(|(reason, _)| reason == "GuardInstalled").count(), 1, "{events:?}");
        let metric = fixture.operator.metric("pgrail_drift_repairs_total", &["name=\"core\""]).await;
        assert!((metric - 1.0).abs() < f64::EPSILON, "{metric}");

        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        wait_for(&fixture.namespace, "core", "the third attempt is counted", attempts(3)).await;
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn foreign_keys_that_were_disabled_with_the_guard_are_reported() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "keys").await;
        fixture.app.batch_execute("ALTER TABLE leads DISABLE TRIGGER ALL").await.unwrap();
        wait_for(&fixture.namespace, "core", "the guard's triggers are enabled again", repaired(1)).await;
        let guard = fixture.guard_until("core", "Enforced", "False", "Drifted").await;
        let (_, _, message) = condition(&guard, "Enforced").unwrap();
        assert!(
            message.contains("foreign keys") && message.contains("ALTER TABLE public.leads ENABLE TRIGGER ALL"),
            "{message}"
        );
        // With the keys the guard's own triggers are enabled, but no longer ALWAYS: that is drift again.
        fixture.app.batch_execute("ALTER TABLE leads ENABLE TRIGGER ALL").await.unwrap();
        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_and_its_end_are_events() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "events").await;
    let admin = pgrail_testing::connect(&server.uri).await;
    let name = &fixture.database.name;
    admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'pgrail'";
    admin.query(end, &[&name]).await.unwrap();
    let event = async |wanted: &str| {
        pgrail_e2e::eventually(&format!("the Event {wanted}"), async || {
            let events = fixture.namespace.events("shop").await;
            events.iter().any(|(reason, _)| reason == wanted).then_some(())
        })
        .await;
    };
    event("DatabaseUnreachable").await;
    admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
    event("DatabaseRecovered").await;
    fixture.guard_until("core", "Ready", "True", "AsDeclared").await;
    fixture.finish().await;
}

#[tokio::test]
async fn where_no_event_trigger_is_possible_enforced_says_the_interval() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::new(&server, "interval").await;
    let roles = Roles::create(&server, &fixture).await;
    fixture.app.batch_execute(&format!("GRANT {} TO {}", roles.other, roles.pgrail)).await.unwrap();
    fixture.namespace.apply::<ProtectedDatabase>(&protected_database()).await;
    let guard = fixture.guard(&table_guard(&["users"]), "Enforced", "True", "Verified").await;
    let (_, _, message) = condition(&guard, "Enforced").unwrap();
    assert!(message.contains("within 5s (checkInterval)"), "{message}");
    fixture.finish().await;
    roles.drop(&server).await;
}

#[tokio::test]
async fn a_new_owner_is_evaluated_at_the_next_check() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "newowner").await;
    fixture.guard_until("core", "TamperResistant", "True", "AdministratorsOnly").await;
    let role = server.role_name("shopapp");
    let sql = format!("CREATE ROLE {role} LOGIN; ALTER TABLE users OWNER TO {role}");
    fixture.app.batch_execute(&sql).await.unwrap();
    let guard = fixture.guard_until("core", "TamperResistant", "False", "OwnerCanDisable").await;
    let (_, _, message) = condition(&guard, "TamperResistant").unwrap();
    assert!(message.contains(&role), "{message}");
    fixture.finish().await;
    pgrail_testing::connect(&server.uri).await.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn the_installation_names_what_is_enforced() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "installed").await;
    event(&fixture, "core", "GuardInstalled", "enforced: public.users").await;
    fixture.finish().await;
}

#[tokio::test]
async fn metrics_of_an_object_go_with_it() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "series").await;
    assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
    wait_for(&fixture.namespace, "core", "the attempt is counted", attempts(1)).await;
    let series = async |text: &str| fixture.operator.series().await.lines().filter(|line| line.contains(text)).count();
    eventually("series of the guard and of its database", async || {
        (series("name=\"core\"").await > 0 && series("guard=\"core\"").await > 0 && series("name=\"shop\"").await > 0)
            .then_some(())
    })
    .await;
    fixture.namespace.delete::<TableGuard>("core").await;
    eventually("no series of the guard", async || {
        (series("name=\"core\"").await == 0 && series("guard=\"core\"").await == 0).then_some(())
    })
    .await;
    fixture.namespace.delete::<ProtectedDatabase>("shop").await;
    eventually("no series of the database", async || (series("name=\"shop\"").await == 0).then_some(())).await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_rename_is_reported_whatever_else_is_wrong() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "renamedrifted").await;
    fixture.app.batch_execute("ALTER TABLE users DISABLE TRIGGER ALL").await.unwrap();
    fixture.guard_until("core", "Enforced", "False", "Drifted").await;
    fixture.app.batch_execute("ALTER TABLE users RENAME TO users_old").await.unwrap();
    event(&fixture, "core", "TableRenamed", "public.users_old: renamed from public.users,").await;
    // Neither the rename nor the missing name hides that the foreign keys are disabled.
    let guard = wait_for(&fixture.namespace, "core", "the renamed table is listed", |guard: &TableGuard| {
        let mut tables = guard.status.iter().flat_map(|status| &status.tables);
        tables.any(|row| row.table == "public.users_old" && row.renamed_from.as_deref() == Some("public.users"))
    })
    .await;
    let (status, reason, message) = condition(&guard, "Enforced").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Drifted"), "{message}");
    assert!(message.contains("ENABLE TRIGGER ALL"), "{message}");
    assert_eq!(refused(&fixture.app, "DELETE FROM users_old").await, "PGR01");
    fixture.app.batch_execute("ALTER TABLE users_old ENABLE TRIGGER ALL").await.unwrap();
    wait_for(&fixture.namespace, "core", "the foreign keys are enabled", |guard: &TableGuard| {
        let mut tables = guard.status.iter().flat_map(|status| &status.tables);
        tables.any(|row| row.table == "public.users_old" && row.state == TableState::Renamed)
    })
    .await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_renamed_table_stays_guarded_until_it_is_named_or_released() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "rename").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        wait_for(&fixture.namespace, "core", "the attempt is counted", attempts(1)).await;

        fixture.app.batch_execute("ALTER TABLE users RENAME TO users_old").await.unwrap();
        let renamed = |name: &'static str| {
            move |guard: &TableGuard| {
                let tables = guard.status.iter().flat_map(|status| &status.tables);
                tables.clone().any(|row| row.table == name && row.state == TableState::Renamed)
            }
        };
        wait_for(&fixture.namespace, "core", "the renamed table is held", renamed("public.users_old")).await;
        event(&fixture, "core", "TableRenamed", "public.users_old: renamed from public.users,").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users_old").await, "PGR01");
        wait_for(&fixture.namespace, "core", "its attempts are counted on", attempts(2)).await;

        fixture.app.batch_execute("CREATE SCHEMA archive; ALTER TABLE users_old SET SCHEMA archive").await.unwrap();
        wait_for(&fixture.namespace, "core", "the moved table is held", renamed("archive.users_old")).await;
        assert_eq!(refused(&fixture.app, "DELETE FROM archive.users_old").await, "PGR01");

        // Another table takes its name: both are guarded.
        fixture
            .app
            .batch_execute("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 500)")
            .await
            .unwrap();
        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        assert_eq!(refused(&fixture.app, "DELETE FROM archive.users_old").await, "PGR01");
        wait_for(&fixture.namespace, "core", "both are counted", attempts(5)).await;

        fixture.namespace.annotate::<TableGuard>("core", "pgrail.dev/release", Some("archive.users_old")).await;
        wait_for(&fixture.namespace, "core", "it is released", |guard: &TableGuard| {
            guard.status.as_ref().is_some_and(|status| status.tables.len() == 1)
        })
        .await;
        assert_eq!(fixture.app.execute("DELETE FROM archive.users_old", &[]).await.unwrap(), 500);
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_table_that_was_dropped_and_created_again_is_guarded_again_and_reported() {
    for_each_server(async |server| {
        let fixture = Fixture::with_database(&server, "recreate").await;
        let mut manifest = table_guard(&["users"]);
        manifest["spec"]["protect"] = serde_json::json!(["Delete", "Truncate"]);
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
        let sql = "BEGIN; DROP TABLE users CASCADE; CREATE TABLE users (id int PRIMARY KEY);
                   INSERT INTO users SELECT generate_series(1, 500); COMMIT";
        fixture.app.batch_execute(sql).await.unwrap();
        wait_for(&fixture.namespace, "core", "that is drift", repaired(1)).await;
        event(&fixture, "core", "DriftRepaired", "public.users: was dropped and created again").await;
        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        fixture.finish().await;
    })
    .await;
}
