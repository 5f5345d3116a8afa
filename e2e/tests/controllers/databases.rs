//! How databases are reached, and what is said when they are not.

use crate::fixture::{Fixture, refused};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DeleteParams;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::{condition, eventually, holds, protected_database, table_guard, wait_for};
use pgrail_testing::for_each_server;
use serde_json::{Value, json};

async fn until(fixture: &Fixture, kind: &str, status: &str, reason: &str) -> ProtectedDatabase {
    let what = format!("shop has {kind}={status}, reason {reason}");
    wait_for(&fixture.namespace, "shop", &what, |it: &ProtectedDatabase| holds(it, kind, status, reason)).await
}

/// The parts of a URI as the keys of other operators' Secrets.
fn parts(uri: &str) -> (String, String, String, String, String) {
    let rest = uri.strip_prefix("postgres://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let (address, database) = place.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let database = database.split('?').next().unwrap();
    (host.into(), port.into(), user.into(), password.into(), database.into())
}

#[tokio::test]
async fn every_shape_of_secret_leads_to_the_database() {
    for_each_server(async |server| {
        let fixture = Fixture::new(&server, "secrets").await;
        let (host, port, user, password, database) = parts(&fixture.database.uri);
        let shapes: Vec<(&str, Vec<(&str, &str)>, Value)> = vec![
            (
                "cnpg",
                vec![
                    ("username", &user),
                    ("password", &password),
                    ("host", &host),
                    ("port", &port),
                    ("dbname", &database),
                ],
                json!({}),
            ),
            (
                "pgo",
                vec![
                    ("user", &user),
                    ("password", &password),
                    ("host", &host),
                    ("port", &port),
                    ("dbname", &database),
                    ("pgbouncer-host", "nowhere"),
                ],
                json!({}),
            ),
            (
                "zalando",
                vec![("username", &user), ("password", &password)],
                json!({"host": host, "port": port.parse::<i32>().unwrap(), "database": database}),
            ),
            ("uri", vec![("uri", &fixture.database.uri)], json!({})),
        ];
        for (name, keys, connection) in shapes {
            fixture.namespace.secret(name, &keys).await;
            let mut manifest = protected_database();
            manifest["metadata"]["name"] = name.into();
            manifest["spec"]["connection"] = connection;
            manifest["spec"]["connection"]["secretRef"] = json!({"name": name});
            fixture.namespace.apply::<ProtectedDatabase>(&manifest).await;
            let reached: ProtectedDatabase =
                wait_for(&fixture.namespace, name, "reachable", |it| holds(it, "Reachable", "True", "Connected")).await;
            let status = reached.status.unwrap();
            assert!(status.server_version.unwrap().starts_with(&server.major.to_string()));
            assert_eq!(status.tables, Some(5), "{name}");
        }
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_a_new_one_picked_up() {
    for_each_server(async |server| {
        let fixture = Fixture::new(&server, "password").await;
        let (.., password, _) = parts(&fixture.database.uri);
        fixture
            .namespace
            .secret("shop-login", &[("uri", &fixture.database.uri.replace(&password, "wr0ng-s3cret"))])
            .await;
        fixture.namespace.apply::<ProtectedDatabase>(&protected_database()).await;
        fixture.namespace.apply::<TableGuard>(&table_guard(&["users"])).await;
        let shop = until(&fixture, "Reachable", "False", "AuthenticationFailed").await;
        let (_, _, message) = condition(&shop, "Reachable").unwrap();
        assert!(!message.contains("wr0ng-s3cret") && !fixture.operator.log().contains("wr0ng-s3cret"), "{message}");
        assert!(holds(&shop, "Stalled", "True", "AuthenticationFailed"));
        fixture.guard_until("core", "Ready", "False", "DatabaseUnreachable").await;

        fixture.namespace.secret("shop-login", &[("uri", &fixture.database.uri)]).await;
        until(&fixture, "Ready", "True", "AsDeclared").await;
        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert!(!fixture.operator.log().contains(&password), "a password in the log");
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn each_way_to_be_unreachable_has_its_reason() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::new(&server, "reasons").await;
    let (host, port, _, _, database) = parts(&fixture.database.uri);
    let uri = &fixture.database.uri;
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let cases = [
        ("ConnectionRefused", vec![("uri", uri.replace(&port, &refused))], "refused"),
        ("NameResolution", vec![("uri", uri.replace(&host, "no-such-host.invalid"))], "cannot be resolved"),
        ("DatabaseMissing", vec![("uri", uri.replace(&database, "no_such_database"))], "create it"),
        ("SecretIncomplete", vec![("username", "somebody".to_owned())], "dbname"),
        ("SecretIncomplete", vec![("uri", "postgres://somebody@[bad".to_owned())], "uri"),
        ("HostNotAllowed", vec![("uri", uri.replace(&host, "169.254.169.254"))], "link-local"),
    ];
    for (number, (reason, keys, remedy)) in cases.into_iter().enumerate() {
        let name = format!("case-{number}");
        let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        fixture.namespace.secret(&name, &keys).await;
        let manifest = json!({"metadata": {"name": name}, "spec": {"connection": {"secretRef": {"name": name}}}});
        fixture.namespace.apply::<ProtectedDatabase>(&manifest).await;
        let object: ProtectedDatabase = wait_for(&fixture.namespace, &name, reason, |it: &ProtectedDatabase| {
            condition(it, "Reachable").is_some_and(|(status, why, _)| status == "False" && why == reason)
        })
        .await;
        let (_, _, message) = condition(&object, "Reachable").unwrap();
        assert!(message.to_lowercase().contains(remedy), "{reason}: {message}");
        for held in [&host, &port, &database, "no-such-host", "no_such_database", "169.254.169.254"] {
            assert!(!message.contains(held), "{held} comes from the Secret: {message}");
        }
    }
    let manifest = json!({"metadata": {"name": "none"}, "spec": {"connection": {"secretRef": {"name": "none"}}}});
    fixture.namespace.apply::<ProtectedDatabase>(&manifest).await;
    let missing = |it: &ProtectedDatabase| holds(it, "Stalled", "True", "SecretMissing");
    wait_for(&fixture.namespace, "none", "the missing Secret is named", missing).await;
    fixture.namespace.secret("none", &[("uri", uri)]).await;
    fixture.namespace.annotate::<ProtectedDatabase>("none", "example.com/look", Some("again")).await;
    wait_for(&fixture.namespace, "none", "ready", |it: &ProtectedDatabase| holds(it, "Ready", "True", "AsDeclared"))
        .await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_suspended_database_is_left_alone_and_never_called_ready() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "suspend").await;
    let mut manifest = protected_database();
    manifest["spec"]["suspend"] = true.into();
    fixture.namespace.apply::<ProtectedDatabase>(&manifest).await;
    until(&fixture, "Ready", "Unknown", "Suspended").await;
    fixture.guard_until("core", "Enforced", "Unknown", "Suspended").await;
    manifest["spec"]["suspend"] = false.into();
    fixture.namespace.apply::<ProtectedDatabase>(&manifest).await;
    fixture.guard_until("core", "Enforced", "True", "Verified").await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_superuser_is_told_that_it_is_more_than_pgrail_needs() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_database(&server, "superuser").await;
    let shop = until(&fixture, "LeastPrivilege", "False", "Superuser").await;
    assert!(shop.status.unwrap().capabilities.unwrap().superuser);
    fixture.finish().await;
}

/// As with the Secret that CloudNativePG writes for the application.
#[tokio::test]
async fn the_owner_of_the_tables_is_not_a_role_of_its_own() {
    for_each_server(async |server| {
        let fixture = Fixture::new(&server, "owner").await;
        let (owner, rail) = (server.role_name("owner"), server.role_name("rail"));
        let database = &fixture.database.name;
        fixture
            .app
            .batch_execute(&format!(
                "CREATE ROLE {owner} LOGIN PASSWORD 'secret'; CREATE ROLE {rail} LOGIN PASSWORD 'secret' IN ROLE {owner};
                 GRANT CREATE ON DATABASE {database} TO {owner}, {rail}; ALTER TABLE users OWNER TO {owner};
                 ALTER TABLE leads OWNER TO {owner}; ALTER TABLE conversations OWNER TO {owner};
                 ALTER TABLE messages OWNER TO {owner}; ALTER TABLE analytics OWNER TO {owner}"
            ))
            .await
            .unwrap();
        fixture.namespace.secret("shop-login", &[("uri", &fixture.database.uri_for(&owner, "secret"))]).await;
        let fixture = fixture.database_ready().await;
        let shop = until(&fixture, "LeastPrivilege", "False", "TableOwner").await;
        let (_, _, message) = condition(&shop, "LeastPrivilege").unwrap();
        assert!(message.contains(&format!("logs in as {owner}, which owns 5 of the 5 tables itself")), "{message}");
        fixture.guard(&table_guard(&["users"]), "Enforced", "True", "Verified").await;

        // The same database with a role of its own: the guards stay, and what the owner can do is reported.
        fixture.namespace.secret("shop-login", &[("uri", &fixture.database.uri_for(&rail, "secret"))]).await;
        // A Secret is read again when its login fails.
        fixture.app.batch_execute(&format!("ALTER ROLE {owner} PASSWORD 'another'")).await.unwrap();
        fixture
            .app
            .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1::text", &[&owner])
            .await
            .unwrap();
        until(&fixture, "LeastPrivilege", "True", "DedicatedRole").await;
        fixture.guard_until("core", "TamperResistant", "False", "OwnerCanDisable").await;
        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert_eq!(crate::fixture::refused(&fixture.app, "DELETE FROM users").await, "PGR01");

        fixture.namespace.api::<TableGuard>().delete("core", &DeleteParams::default()).await.unwrap();
        eventually("the guard is gone", async || {
            fixture.namespace.api::<TableGuard>().get_opt("core").await.unwrap().is_none().then_some(())
        })
        .await;
        fixture.app.batch_execute(&format!("DROP OWNED BY {rail}, {owner} CASCADE")).await.unwrap();
        fixture.app.batch_execute(&format!("DROP ROLE {rail}, {owner}")).await.unwrap();
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_told_with_the_last_known_state_and_over_when_it_is_over() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "outage").await;
        let admin = pgrail_testing::connect(&server.uri).await;
        let name = &fixture.database.name;
        admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'pgrail'";
        admin.query(end, &[&name]).await.unwrap();
        let guard = fixture.guard_until("core", "Ready", "False", "DatabaseUnreachable").await;
        assert_eq!(condition(&guard, "Enforced").unwrap().0, "True", "the triggers are still there");
        assert_eq!(guard.status.unwrap().tables_enforced, Some(1));
        admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await.unwrap();
        until(&fixture, "Ready", "True", "AsDeclared").await;
        fixture.guard_until("core", "Ready", "True", "AsDeclared").await;
        fixture.finish().await;
    })
    .await;
}

/// A user who may create a `ProtectedDatabase`, but not read Secrets, must not be able to have a login sent to a host of
/// his choice.
#[tokio::test]
async fn a_spec_cannot_send_the_login_of_a_secret_to_another_host() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::new(&server, "override").await;
    let mut manifest = protected_database();
    manifest["spec"]["connection"]["host"] = "localhost".into();
    fixture.namespace.apply::<ProtectedDatabase>(&manifest).await;
    let refused: ProtectedDatabase = wait_for(&fixture.namespace, "shop", "the other host is refused", |it| {
        holds(it, "Stalled", "True", "HostNotAllowed")
    })
    .await;
    let (_, _, message) = condition(&refused, "Reachable").unwrap();
    assert!(
        message.contains("spec.connection.host") && message.contains("pgrail.dev/allow-host-override"),
        "{message}"
    );
    assert!(!message.contains("127.0.0.1"), "the Secret's own host is not shown: {message}");
    fixture.namespace.annotate::<Secret>("shop-login", "pgrail.dev/allow-host-override", Some("true")).await;
    fixture.namespace.annotate::<ProtectedDatabase>("shop", "example.com/check", Some("again")).await;
    wait_for::<ProtectedDatabase>(&fixture.namespace, "shop", "connected", |it| {
        holds(it, "Reachable", "True", "Connected")
    })
    .await;
    fixture.finish().await;
}

fn protecting(protect: bool) -> Value {
    let mut manifest = protected_database();
    manifest["spec"]["protectDatabase"] = protect.into();
    manifest["spec"]["checkInterval"] = "5s".into();
    manifest
}

#[tokio::test]
async fn drop_database_is_refused_where_that_is_asked_for_and_only_what_pgrail_did_is_undone() {
    for_each_server(async |server| {
        let fixture = Fixture::with_database(&server, "protect").await;
        let databases = fixture.namespace.api::<ProtectedDatabase>();
        let admin = pgrail_testing::connect(&server.uri).await;
        let name = &fixture.database.name;
        let is_template = async || {
            let row = admin.query_one("SELECT datistemplate FROM pg_database WHERE datname = $1", &[&name]).await;
            row.unwrap().get::<_, bool>(0)
        };
        until(&fixture, "DatabaseProtected", "False", "NotRequested").await;
        fixture.namespace.apply::<ProtectedDatabase>(&protecting(true)).await;
        let shop = until(&fixture, "DatabaseProtected", "True", "IsTemplate").await;
        assert!(shop.status.as_ref().unwrap().template_set && !shop.finalizers().is_empty());
        for drop in [format!("DROP DATABASE {name}"), format!("DROP DATABASE {name} WITH (FORCE)")] {
            assert_eq!(refused(&admin, &drop).await, "42809");
        }
        // Reset by others: restored, counted, announced.
        admin.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE false")).await.unwrap();
        wait_for(&fixture.namespace, "shop", "one repair is counted", |it: &ProtectedDatabase| {
            it.status.as_ref().is_some_and(|status| status.drift_repairs == Some(1))
        })
        .await;
        fixture.namespace.event("shop", "DriftRepaired", "DROP DATABASE").await;
        assert!(is_template().await);
        // No longer asked for: ended, and nothing of it holds the object.
        fixture.namespace.apply::<ProtectedDatabase>(&protecting(false)).await;
        until(&fixture, "DatabaseProtected", "False", "NotRequested").await;
        assert!(!is_template().await);
        wait_for(&fixture.namespace, "shop", "no finalizer", |it: &ProtectedDatabase| it.finalizers().is_empty()).await;
        // What others arranged stays.
        admin.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE true")).await.unwrap();
        fixture.namespace.apply::<ProtectedDatabase>(&protecting(true)).await;
        let shop = until(&fixture, "DatabaseProtected", "True", "IsTemplate").await;
        assert!(!shop.status.unwrap().template_set);
        fixture.namespace.apply::<ProtectedDatabase>(&protecting(false)).await;
        until(&fixture, "DatabaseProtected", "False", "NotRequested").await;
        assert!(is_template().await);
        // A deleted object ends what pgrail arranged.
        admin.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE false")).await.unwrap();
        fixture.namespace.apply::<ProtectedDatabase>(&protecting(true)).await;
        wait_for(&fixture.namespace, "shop", "arranged", |it: &ProtectedDatabase| {
            it.status.as_ref().is_some_and(|status| status.template_set)
                && holds(it, "DatabaseProtected", "True", "IsTemplate")
        })
        .await;
        assert!(is_template().await);
        databases.delete("shop", &DeleteParams::default()).await.unwrap();
        eventually("it is gone", async || databases.get_opt("shop").await.unwrap().is_none().then_some(())).await;
        assert!(!is_template().await);
        drop(admin);
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_role_that_cannot_protect_the_database_is_told_what_it_lacks() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::new(&server, "unprotected").await;
    let admin = pgrail_testing::connect(&server.uri).await;
    let (owner, rail) = (server.role_name("owner"), server.role_name("rail"));
    let name = &fixture.database.name;
    let roles = format!(
        "CREATE ROLE {owner}; CREATE ROLE {rail} LOGIN PASSWORD 'secret'; ALTER DATABASE {name} OWNER TO {owner}"
    );
    admin.batch_execute(&roles).await.unwrap();
    fixture.namespace.secret("shop-login", &[("uri", &fixture.database.uri_for(&rail, "secret"))]).await;
    fixture.namespace.apply::<ProtectedDatabase>(&protecting(true)).await;
    let shop = until(&fixture, "DatabaseProtected", "False", "NoPrivilege").await;
    let (_, _, message) = condition(&shop, "DatabaseProtected").unwrap();
    let grant = format!("GRANT {owner} TO {rail}");
    assert!(
        message.contains(&grant) && message.contains(&format!("ALTER DATABASE {name} IS_TEMPLATE true")),
        "{message}"
    );
    assert!(!shop.status.unwrap().template_set);
    admin.batch_execute(&grant).await.unwrap();
    until(&fixture, "DatabaseProtected", "True", "IsTemplate").await;
    // Deleted without the privilege, it is let go only by force, with an Event.
    admin.batch_execute(&format!("REVOKE {owner} FROM {rail}")).await.unwrap();
    let databases = fixture.namespace.api::<ProtectedDatabase>();
    databases.delete("shop", &DeleteParams::default()).await.unwrap();
    let stalled = until(&fixture, "Stalled", "True", "DatabaseUnreachable").await;
    assert!(condition(&stalled, "Stalled").unwrap().2.contains("IS_TEMPLATE false"), "{stalled:?}");
    fixture.namespace.annotate::<ProtectedDatabase>("shop", "pgrail.dev/force-delete", Some("true")).await;
    eventually("it is gone", async || databases.get_opt("shop").await.unwrap().is_none().then_some(())).await;
    fixture.namespace.event("shop", "GuardsLeftBehind", "template database").await;
    let clean = format!(
        "ALTER DATABASE {name} IS_TEMPLATE false; ALTER DATABASE {name} OWNER TO postgres; DROP OWNED BY {rail}; DROP ROLE {owner}, {rail}"
    );
    admin.batch_execute(&clean).await.unwrap();
    drop(admin);
    fixture.finish().await;
}
