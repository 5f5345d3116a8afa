//! Bad input gets a condition with its reason and remedy, and nothing is lost because of it.

use crate::fixture::{Fixture, refused};
use pgrail_crds::{BackupSchedule, ProtectedDatabase, TableGuard};
use pgrail_e2e::{condition, holds, table_guard, wait_for};
use serde_json::json;

#[tokio::test]
async fn a_table_that_does_not_exist_is_named_and_guarded_once_it_does() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_database(&server, "missing").await;
    let guard = fixture.guard(&table_guard(&["users", "invoices"]), "Enforced", "False", "TablesMissing").await;
    assert!(condition(&guard, "Enforced").unwrap().2.contains("public.invoices"));
    assert!(holds(&guard, "Ready", "True", "AsDeclared"), "the migration may be waiting for us");
    assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
    fixture.app.batch_execute("CREATE TABLE invoices (id int)").await.unwrap();
    fixture.guard_until("core", "Enforced", "True", "Verified").await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_view_is_refused_by_name_and_tables_beside_it_are_guarded() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_database(&server, "view").await;
    fixture.app.batch_execute("CREATE VIEW everyone AS SELECT * FROM users").await.unwrap();
    let guard = fixture.guard(&table_guard(&["users", "everyone"]), "Stalled", "True", "NotATable").await;
    let (_, _, message) = condition(&guard, "Stalled").unwrap();
    assert!(message.contains("public.everyone") && message.contains("view"), "{message}");
    assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
    fixture.finish().await;
}

#[tokio::test]
async fn a_guard_without_its_database_waits_and_starts_when_it_comes() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::new(&server, "nodatabase").await;
    let guard = fixture.guard(&table_guard(&["users"]), "Stalled", "True", "DatabaseNotFound").await;
    assert!(condition(&guard, "Ready").unwrap().2.contains("shop"));
    fixture.namespace.apply::<ProtectedDatabase>(&pgrail_e2e::protected_database()).await;
    fixture.guard_until("core", "Enforced", "True", "Verified").await;
    fixture.finish().await;
}

#[tokio::test]
async fn an_object_that_the_types_cannot_read_is_told_so_and_harms_no_other() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "unparsable").await;
    // Affinity is Kubernetes' own business: the schema takes any object there, the types do not.
    let mut manifest = pgrail_e2e::backup_schedule(&json!({"url": "s3://bucket/prefix"}));
    manifest["spec"]["podTemplate"] = json!({"affinity": {"nodeAffinity": "none"}});
    fixture.namespace.apply_untyped::<BackupSchedule>(&manifest).await;
    let told = fixture.namespace.wait_for_untyped::<BackupSchedule>("nightly", "Stalled", "Unparsable").await;
    assert!(told.contains("cannot be read"), "{told}");
    manifest["spec"]["podTemplate"] = json!({});
    manifest["spec"]["suspend"] = true.into();
    fixture.namespace.apply::<BackupSchedule>(&manifest).await;
    wait_for(&fixture.namespace, "nightly", "no longer unparsable", |it: &BackupSchedule| {
        condition(it, "Ready").is_some() && !holds(it, "Stalled", "True", "Unparsable")
    })
    .await;
    let guard = fixture.guard_until("core", "Enforced", "True", "Verified").await;
    assert!(guard.status.is_some());
    fixture.finish().await;
}

#[tokio::test]
async fn more_than_ten_deletions_within_a_minute_wait_for_a_human() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_database(&server, "mass").await;
    let name = |number: usize| format!("guard-{number}");
    for number in 0..12 {
        let mut manifest = table_guard(&["users"]);
        manifest["metadata"]["name"] = name(number).into();
        fixture.guard(&manifest, "Enforced", "True", "Verified").await;
    }
    for number in 0..12 {
        fixture.namespace.delete::<TableGuard>(&name(number)).await;
    }
    let paused = pgrail_e2e::eventually("one guard is paused", async || {
        let guards = fixture.namespace.api::<TableGuard>().list(&kube::api::ListParams::default()).await.unwrap();
        guards.into_iter().find(|guard| holds(guard, "Stalled", "True", "MassDeletion"))
    })
    .await;
    assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01", "what is paused still protects");
    let guard = paused.metadata.name.unwrap();
    fixture.namespace.annotate::<TableGuard>(&guard, "pgrail.dev/allow-mass-deletion", Some("true")).await;
    let guards = fixture.namespace.api::<TableGuard>();
    pgrail_e2e::eventually("it is let go", async || guards.get_opt(&guard).await.unwrap().is_none().then_some(()))
        .await;
    fixture.finish().await;
}
