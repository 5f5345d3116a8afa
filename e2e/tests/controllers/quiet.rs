//! A reconcile that finds nothing to do does nothing, shown by counting.

use crate::fixture::Fixture;
use kube::ResourceExt;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::eventually;
use pgrail_testing::for_each_server;

#[tokio::test]
async fn nothing_to_do_means_no_ddl_and_no_status_write() {
    for_each_server(async |server| {
        let fixture = Fixture::with_guard(&server, "quiet").await;
        // The database's look at its new guard belongs to the change, not to the quiet after it.
        pgrail_e2e::wait_for(
            &fixture.namespace,
            "shop",
            "the guard is in the blast radius",
            |it: &ProtectedDatabase| {
                it.status.as_ref().is_some_and(|status| status.blast_radius.iter().any(|row| row.guarded))
            },
        )
        .await;
        let before = look(&fixture).await;
        let runs = async |controller: &str| {
            fixture.operator.metric("pgrail_reconciles_total", &[&format!("controller=\"{controller}\"")]).await
        };
        let (guards, databases) = (runs("tableguard").await, runs("protecteddatabase").await);
        eventually("three more rounds of both controllers", async || {
            (runs("tableguard").await >= guards + 3.0 && runs("protecteddatabase").await >= databases + 3.0)
                .then_some(())
        })
        .await;
        assert_eq!(look(&fixture).await, before);
        assert!(fixture.operator.memory() < 64 << 20, "{} bytes resident", fixture.operator.memory());
        fixture.finish().await;
    })
    .await;
}

/// Everything that a write would move: resource versions, counters of the operator, and the catalog's own rows.
async fn look(fixture: &Fixture) -> (String, String, u64, u64, String) {
    let guard = fixture.namespace.api::<TableGuard>().get("core").await.unwrap();
    let shop = fixture.namespace.api::<ProtectedDatabase>().get("shop").await.unwrap();
    let catalog = "SELECT string_agg(xmin::text, ',' ORDER BY oid) FROM (
        SELECT oid, xmin FROM pg_trigger UNION ALL SELECT oid, xmin FROM pg_proc UNION ALL SELECT oid, xmin FROM pg_class
    ) ours";
    let writes = fixture.operator.metric("pgrail_status_writes_total", &[]).await;
    let steps = fixture.operator.metric("pgrail_guard_steps_total", &[]).await;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (
        guard.resource_version().unwrap(),
        shop.resource_version().unwrap(),
        writes as u64,
        steps as u64,
        fixture.app.query_one(catalog, &[]).await.unwrap().get(0),
    )
}
