//! The operator's clock is set while it runs, forwards and back. Those of the apiserver, of PostgreSQL and of the pods are right.

use crate::backups::Backups;
use crate::exemptions::in_seconds;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use pgrail_crds::{BackupSchedule, ExemptionPhase, GuardExemption, TableGuard};
use pgrail_e2e::{Clock, Operator, eventually, table_guard, wait_for};
use serde_json::json;
use std::time::Duration;

/// Reconciles of all controllers in a time in which a loop without a pause would make thousands.
async fn reconciles(backups: &Backups) -> f64 {
    let count = || backups.fixture.operator.metric("pgrail_reconciles_total", &[]);
    let before = count().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    count().await - before
}

/// A trigger is disabled, and enabled again by the next check.
async fn is_checked(backups: &Backups, repairs: i64) {
    let fixture = &backups.fixture;
    fixture.app.batch_execute("ALTER TABLE users DISABLE TRIGGER USER").await.unwrap();
    let repaired =
        |guard: &TableGuard| guard.status.as_ref().is_some_and(|status| status.drift_repairs == Some(repairs));
    wait_for(&fixture.namespace, "core", "the disabled triggers are back", repaired).await;
    fixture.guard_until("core", "Enforced", "True", "Verified").await;
}

/// The schedule is reconciled now: its next look is up to ten minutes away, of the clock that only counts.
async fn touch(backups: &Backups) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"touched": Timestamp::now().to_string()}}}));
    let schedules = backups.fixture.namespace.api::<BackupSchedule>();
    schedules.patch("nightly", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
#[ignore = "needs libfaketime, which the stage `controllers` downloads"]
async fn a_clock_that_is_set_forwards_and_back_stops_no_check_and_makes_no_loop() {
    let server = pgrail_testing::servers().remove(0);
    let mut backups = Backups::new(&server, "clock").await;
    let clock = Clock::new(&backups.fixture.namespace);
    let operator = Operator::start_with_clock(&backups.fixture.namespace, "clock", &clock).await;
    std::mem::replace(&mut backups.fixture.operator, operator).stop().await;
    backups.fixture.guard(&table_guard(&["users"]), "Enforced", "True", "Verified").await;
    backups.apply(&json!({})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let role = server.role_name("clock");
    backups.fixture.app.batch_execute(&format!("CREATE ROLE {role}")).await.unwrap();
    let exemption = json!({"metadata": {"name": "purge"}, "spec": {"guardRefs": [{"name": "core"}], "role": role,
        "notAfter": in_seconds(3600), "reason": "ticket 4711", "limits": {"maxRows": 400, "maxCascadeRows": 100_000}}});
    backups.fixture.namespace.apply::<GuardExemption>(&exemption).await;
    let in_phase =
        |phase| move |it: &GuardExemption| it.status.as_ref().is_some_and(|status| status.phase == Some(phase));
    let namespace = &backups.fixture.namespace;
    wait_for(namespace, "purge", "it is active", in_phase(ExemptionPhase::Active)).await;

    clock.set(SignedDuration::from_hours(72));
    touch(&backups).await;
    backups.until("BackupFresh", "False", "Late").await;
    is_checked(&backups, 1).await;
    let made = reconciles(&backups).await;
    assert!(made < 100.0, "{made} reconciles in 10 s");
    // The database decides by its own clock, which is right.
    wait_for(namespace, "purge", "it is active", in_phase(ExemptionPhase::Active)).await;
    for _ in 0..5 {
        let operator = &backups.fixture.operator;
        let looks = || operator.metric("pgrail_reconciles_total", &["controller=\"backupschedule\""]);
        let before = looks().await;
        touch(&backups).await;
        eventually("the schedule is reconciled", async || (looks().await > before).then_some(())).await;
    }
    let runs = backups.list().await.len();
    assert!(runs <= 2, "{runs} backups: one makes up for all runs that seem to be missed");

    clock.set(SignedDuration::ZERO);
    touch(&backups).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    is_checked(&backups, 2).await;
    let made = reconciles(&backups).await;
    assert!(made < 100.0, "{made} reconciles in 10 s");

    // The Lease that it leaves was renewed three days later.
    clock.set(SignedDuration::from_hours(72));
    is_checked(&backups, 3).await;
    let next = Operator::start_as(namespace, "next").await;
    std::mem::replace(&mut backups.fixture.operator, next).kill().await;
    is_checked(&backups, 4).await;
    backups.fixture.app.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    backups.finish().await;
}
