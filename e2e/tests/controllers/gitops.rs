//! What Flux, Argo CD and Helm do all day: the same manifests, applied again.

use crate::fixture::Fixture;
use kube::ResourceExt;
use pgrail_crds::{BackupSchedule, ProtectedDatabase, TableGuard};
use pgrail_e2e::{TestNamespace, backup_schedule, condition, protected_database, table_guard, wait_for};
use pgrail_testing::servers;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than two intervals of checks.
const ROUNDS: usize = 60;

/// Applies each manifest, and returns the versions of the objects, which any write changes.
async fn apply(namespace: &TestNamespace, manifests: &[Value; 3]) -> [Option<String>; 3] {
    [
        namespace.apply::<ProtectedDatabase>(&manifests[0]).await.resource_version(),
        namespace.apply::<TableGuard>(&manifests[1]).await.resource_version(),
        namespace.apply::<BackupSchedule>(&manifests[2]).await.resource_version(),
    ]
}

#[tokio::test]
async fn the_same_manifests_applied_again_change_nothing() {
    let fixture = Fixture::with_guard(&servers().remove(0), "gitops").await;
    let mut schedule =
        backup_schedule(&json!({"url": "file:///shop", "persistentVolumeClaim": {"claimName": "dumps"}}));
    schedule["spec"]["runOnCreate"] = false.into();
    schedule["spec"]["schedule"] = "15 2 1 1 *".into();
    let manifests = [protected_database(), table_guard(&["users"]), schedule];
    apply(&fixture.namespace, &manifests).await;
    wait_for(&fixture.namespace, "nightly", "the schedule was observed", |it: &BackupSchedule| {
        condition(it, "Ready").is_some_and(|(status, _, _)| status == "True")
    })
    .await;
    wait_for(&fixture.namespace, "shop", "the guard is in the blast radius", |it: &ProtectedDatabase| {
        it.status.as_ref().is_some_and(|status| status.blast_radius.iter().any(|row| row.guarded))
    })
    .await;
    let settled = apply(&fixture.namespace, &manifests).await;
    for _ in 0..ROUNDS {
        assert_eq!(apply(&fixture.namespace, &manifests).await, settled);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fixture.finish().await;
}

#[tokio::test]
async fn a_new_object_is_not_observed() {
    let namespace = pgrail_e2e::Cluster::connect().await.namespace("unobserved").await;
    // No operator runs. What waits for these objects must not take them for complete.
    let guard = namespace.apply::<TableGuard>(&table_guard(&["users"])).await;
    let status = guard.status.expect("a status");
    assert_eq!((status.observed_generation, status.conditions.len()), (Some(-1), 0));
    namespace.finish().await;
}
