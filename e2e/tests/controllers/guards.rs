//! A guard from its manifest to a stopped delete, and back.

use crate::fixture::{Fixture, count, refused};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DeleteParams;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::{eventually, holds, protected_database, table_guard, wait_for};
use pgrail_testing::for_each_server;
use serde_json::json;

const OURS: &str = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail%' AND NOT tgisinternal";

#[tokio::test]
async fn a_manifest_becomes_a_guard_that_stops_deletes_and_tells_of_them() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "story").await;
        let guard = fixture.guard_until("core", "Ready", "True", "AsDeclared").await;
        let status = guard.status.unwrap();
        assert_eq!((status.tables_matched, status.tables_enforced), (Some(1), Some(1)));
        assert_eq!((status.tables[0].table.as_str(), status.tables[0].closure), ("public.users", 4));

        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        assert_eq!(refused(&fixture.app, "TRUNCATE users CASCADE").await, "PGR02");
        assert_eq!(count(&fixture.app, "users").await, 500);
        assert_eq!(fixture.app.execute("DELETE FROM users WHERE id = 7", &[]).await.unwrap(), 1);

        let guard = wait_for(&fixture.namespace, "core", "two attempts are counted", |guard: &TableGuard| {
            guard.status.as_ref().is_some_and(|status| status.blocked_attempts == Some(2))
        })
        .await;
        assert!(guard.status.unwrap().last_blocked_time.is_some());
        fixture.namespace.event("core", "GuardInstalled", "").await;
        fixture.namespace.event("core", "BulkDeleteBlocked", "public.users").await;
        let metric = fixture.operator.metric("pgrail_blocked_attempts_total", &["table=\"public.users\""]).await;
        assert!((metric - 2.0).abs() < f64::EPSILON, "{metric}");

        let shop =
            wait_for(&fixture.namespace, "shop", "the blast radius knows the guard", |it: &ProtectedDatabase| {
                it.status.as_ref().is_some_and(|status| status.blast_radius.iter().any(|row| row.guarded))
            })
            .await;
        let status = shop.status.unwrap();
        let worst = status.blast_radius.iter().find(|row| row.table == "public.users").unwrap();
        assert_eq!((worst.cascade_tables, worst.guarded), (4, true));
        assert!((35_000..=45_000).contains(&worst.rows_at_risk), "{worst:?}");
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_change_of_limits_or_mode_is_in_force_at_once() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "change").await;
        let mut manifest = table_guard(&["users"]);
        manifest["spec"]["limits"] = json!({"maxRows": 1, "maxCascadeRows": 1000});
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id <= 2").await, "PGR01");
        manifest["spec"]["mode"] = "Warn".into();
        fixture.guard(&manifest, "Enforced", "False", "Warn").await;
        assert_eq!(fixture.app.execute("DELETE FROM users WHERE id <= 2", &[]).await.unwrap(), 2);
        wait_for(&fixture.namespace, "core", "the warnings are counted", |guard: &TableGuard| {
            guard.status.as_ref().is_some_and(|status| status.blocked_attempts == Some(2))
        })
        .await;
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn globs_guard_what_comes_later_too() {
    for_each_server(async |server| {
        let fixture = Fixture::with_database(&server, "globs").await;
        fixture.app.batch_execute("CREATE TABLE order_1 (id int); CREATE TABLE order_tmp (id int)").await.unwrap();
        let mut manifest = table_guard(&["order_*"]);
        manifest["spec"]["tables"][0]["exclude"] = json!(["*_tmp"]);
        manifest["spec"]["limits"] = json!({"maxRows": 0});
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
        fixture.app.batch_execute("CREATE TABLE order_2 (id int); INSERT INTO order_2 VALUES (1)").await.unwrap();
        wait_for(&fixture.namespace, "core", "two tables are enforced", |guard: &TableGuard| {
            guard.status.as_ref().is_some_and(|status| status.tables_enforced == Some(2))
        })
        .await;
        assert_eq!(refused(&fixture.app, "DELETE FROM order_2").await, "PGR01");
        fixture.app.batch_execute("INSERT INTO order_tmp VALUES (1); DELETE FROM order_tmp").await.unwrap();
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_was_dropped_or_disabled_is_put_back_and_that_is_told() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "drift").await;
        let name: String = fixture
            .app
            .query_one(
                "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'users'::regclass AND NOT tgisinternal ORDER BY 1 LIMIT 1",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        fixture.app.batch_execute(&format!("DROP TRIGGER {name} ON users")).await.unwrap();
        let repaired = |times| {
            move |guard: &TableGuard| guard.status.as_ref().is_some_and(|status| status.drift_repairs == Some(times))
        };
        wait_for(&fixture.namespace, "core", "the dropped trigger is back", repaired(1)).await;
        fixture.app.batch_execute("ALTER TABLE users DISABLE TRIGGER USER").await.unwrap();
        wait_for(&fixture.namespace, "core", "the disabled triggers are back", repaired(2)).await;
        fixture.guard_until("core", "Enforced", "True", "Verified").await;
        assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
        fixture.namespace.event("core", "DriftRepaired", "public.users").await;
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn deleting_a_guard_takes_its_triggers_and_retain_leaves_them() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "removal").await;
        let mut kept = table_guard(&["leads"]);
        kept["metadata"]["name"] = "kept".into();
        kept["spec"]["deletionPolicy"] = "Retain".into();
        let kept = fixture.guard(&kept, "Enforced", "True", "Verified").await;
        assert!(kept.finalizers().is_empty());
        let guards = fixture.namespace.api::<TableGuard>();
        for name in ["core", "kept"] {
            guards.delete(name, &DeleteParams::default()).await.unwrap();
            eventually("the guard is gone", async || guards.get_opt(name).await.unwrap().is_none().then_some(())).await;
        }
        assert!(fixture.app.query_one(OURS, &[]).await.unwrap().get::<_, i64>(0) > 0, "Retain leaves triggers");
        // And is told on the database, as long as nobody declares it.
        let orphan = format!("{}/kept", fixture.namespace.name);
        wait_for(&fixture.namespace, "shop", "the orphan is told", |shop: &ProtectedDatabase| {
            shop.status.as_ref().is_some_and(|status| status.orphaned_guards == [orphan.clone()])
        })
        .await;
        fixture.namespace.event("shop", "OrphanedGuards", &orphan).await;
        assert_eq!(refused(&fixture.app, "DELETE FROM leads").await, "PGR01");
        // Reached by cascade from a table that is no longer guarded, a guarded table is a root itself.
        assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id <= 200").await, "PGR01");
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_left_in_the_database_by_the_last_guard() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "clean").await;
        let guards = fixture.namespace.api::<TableGuard>();
        guards.delete("core", &DeleteParams::default()).await.unwrap();
        eventually("the guard is gone", async || guards.get_opt("core").await.unwrap().is_none().then_some(())).await;
        assert_eq!(fixture.app.query_one(OURS, &[]).await.unwrap().get::<_, i64>(0), 0);
        let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrail'";
        assert_eq!(fixture.app.query_one(schemas, &[]).await.unwrap().get::<_, i64>(0), 0);
        let events = "SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'pgrail%'";
        assert_eq!(fixture.app.query_one(events, &[]).await.unwrap().get::<_, i64>(0), 0);
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_guard_is_let_go_with_an_event_when_its_database_is_no_longer_declared() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "letgo").await;
    fixture.namespace.delete::<ProtectedDatabase>("shop").await;
    fixture.guard_until("core", "Ready", "False", "DatabaseNotFound").await;
    fixture.namespace.delete::<TableGuard>("core").await;
    let guards = fixture.namespace.api::<TableGuard>();
    eventually("the guard is gone", async || guards.get_opt("core").await.unwrap().is_none().then_some(())).await;
    fixture.namespace.event("core", "GuardsLeftBehind", "").await;
    assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
    fixture.finish().await;
}

/// The order in which the objects of a namespace are deleted is not defined.
#[tokio::test]
async fn a_namespace_is_deleted_with_its_guards_when_the_secret_and_the_database_go_first() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "gone").await;
        fixture.namespace.delete::<Secret>("shop-login").await;
        fixture.namespace.delete::<ProtectedDatabase>("shop").await;
        fixture.guard_until("core", "Ready", "False", "DatabaseNotFound").await;
        fixture.namespace.delete_all().await;
        let guards = fixture.namespace.api::<TableGuard>();
        eventually("the guard is gone", async || guards.get_opt("core").await.unwrap().is_none().then_some(())).await;
        assert_eq!(fixture.app.query_one(OURS, &[]).await.unwrap().get::<_, i64>(0), 0);
        fixture.operator.kill().await;
        fixture.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn another_clusters_guards_are_not_touched_until_taken_over() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "owner").await;
    fixture.namespace.delete::<ProtectedDatabase>("shop").await;
    fixture.guard_until("core", "Ready", "False", "DatabaseNotFound").await;
    let other =
        "SELECT pgrail.write_document('install', pgrail.document('install') || '{\"owner\": \"another-cluster\"}')";
    fixture.app.batch_execute(other).await.unwrap();
    fixture.namespace.apply::<ProtectedDatabase>(&pgrail_e2e::protected_database()).await;
    let guard = fixture.guard_until("core", "Stalled", "True", "OwnedByOther").await;
    assert!(!holds(&guard, "Enforced", "True", "Verified"));
    fixture.namespace.annotate::<TableGuard>("core", "pgrail.dev/take-over", Some("true")).await;
    fixture.guard_until("core", "Enforced", "True", "Verified").await;
    fixture.finish().await;
}

#[tokio::test]
async fn where_event_triggers_are_possible_drift_and_new_tables_are_seen_at_once() {
    for_each_server(async |server| {
        let fixture = Fixture::new(&server, "atonce").await;
        // The regular look is a day away: what is seen before was told by the database.
        let mut database = protected_database();
        database["spec"]["checkInterval"] = "24h".into();
        fixture.namespace.apply::<ProtectedDatabase>(&database).await;
        fixture.guard(&table_guard(&["users", "order_*"]), "Enforced", "True", "Verified").await;
        fixture.app.batch_execute("DROP TRIGGER pgrail_truncate ON users").await.unwrap();
        let repaired = |times| {
            move |guard: &TableGuard| guard.status.as_ref().is_some_and(|status| status.drift_repairs == Some(times))
        };
        wait_for(&fixture.namespace, "core", "the dropped trigger is back", repaired(1)).await;
        fixture.app.batch_execute("ALTER TABLE leads DISABLE TRIGGER USER").await.unwrap();
        wait_for(&fixture.namespace, "core", "the disabled triggers are back", repaired(2)).await;
        fixture.app.batch_execute("CREATE TABLE order_1 (id int)").await.unwrap();
        wait_for(&fixture.namespace, "core", "the new table is guarded", |guard: &TableGuard| {
            guard.status.as_ref().is_some_and(|status| status.tables_enforced == Some(2))
        })
        .await;
        assert_eq!(refused(&fixture.app, "TRUNCATE users CASCADE").await, "PGR02");
        fixture.finish().await;
    })
    .await;
}

#[tokio::test]
async fn deleted_rows_are_kept_within_bounds_and_go_with_the_last_guard() {
    for_each_server(async |server| {
        let fixture = Fixture::with_database(&server, "capture").await;
        let mut manifest = table_guard(&["users"]);
        manifest["spec"]["capture"] = json!({"retention": "24h", "maxRows": 200});
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
        // 81 rows go with each user: two transactions may be kept, the third is one too many.
        for id in 1..=3 {
            fixture.app.batch_execute(&format!("DELETE FROM users WHERE id = {id}")).await.unwrap();
        }
        let kept = async || -> Vec<i64> {
            let sql = "SELECT count(*) FROM pgrail.captured_10 c GROUP BY c.xid ORDER BY min(c.id)";
            fixture.app.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        };
        eventually("the oldest is taken away", async || (kept().await == [81, 81]).then_some(())).await;
        let guards = fixture.namespace.api::<TableGuard>();
        guards.delete("core", &DeleteParams::default()).await.unwrap();
        eventually("the guard is gone", async || guards.get_opt("core").await.unwrap().is_none().then_some(())).await;
        fixture.namespace.event("core", "CapturedRowsRemoved", "").await;
        fixture.finish().await;
    })
    .await;
}

/// The watch may show an older status of the guard than the controller wrote: that one must not be written back.
#[tokio::test]
async fn conditions_follow_every_change_of_the_spec() {
    let server = pgrail_testing::server(18);
    let fixture = Fixture::with_guard(&server, "generations").await;
    for rows in 1..=30 {
        let mut manifest = table_guard(&["users"]);
        manifest["spec"]["limits"] = json!({"maxRows": rows, "maxCascadeRows": 1000});
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
        fixture.guard_until("core", "Ready", "True", "AsDeclared").await;
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_loop_that_deletes_one_by_one_is_stopped_and_reported() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "window").await;
        let mut manifest = table_guard(&["users"]);
        manifest["spec"]["limits"] = json!({"window": {"duration": "1h", "maxRows": 60, "maxCascadeRows": 100_000}});
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
        let mut deleted = 0;
        while fixture.app.execute("DELETE FROM users WHERE id = $1", &[&(deleted + 1)]).await.is_ok() {
            deleted += 1;
        }
        assert_eq!(deleted, 60);
        assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id = 400").await, "PGR01");
        let guard = wait_for(&fixture.namespace, "core", "the window is used up", |guard: &TableGuard| {
            let window = guard.status.iter().flat_map(|status| &status.tables).find_map(|row| row.window.as_ref());
            window.is_some_and(|it| it.removed == Some(60) && it.limit == Some(60) && it.since.is_some())
        })
        .await;
        let window = guard.status.unwrap().tables[0].window.clone().unwrap();
        assert_eq!((window.cascade_limit, window.cascade_removed.is_some_and(|rows| rows > 0)), (Some(100_000), true));
        fixture.namespace.event("core", "WindowExhausted", "60 of 60 rows of public.users").await;
        let metric =
            fixture.operator.metric("pgrail_window_removed_rows", &["table=\"public.users\"", "kind=\"rows\""]).await;
        assert!((metric - 60.0).abs() < f64::EPSILON, "{metric}");
        let exhausted = fixture.operator.metric("pgrail_window_exhausted_total", &["table=\"public.users\""]).await;
        assert!((exhausted - 1.0).abs() < f64::EPSILON, "{exhausted}");
        fixture.finish().await;
    })
    .await;
}
