//! Schedules and backups: from a manifest to a verified dump in a real store, and its faults.

use crate::fixture::Fixture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pgrail_crds::{BackupSchedule, DatabaseBackup};
use pgrail_e2e::{Node, ObjectStore, Operator, STORE_ENDPOINT, condition, eventually, field, holds, wait_for};
use pgrail_testing::{Server, programs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fixture whose namespace has a node, and the Secret `s3` of its store.
pub(crate) struct Backups {
    pub(crate) fixture: Fixture,
    store: ObjectStore,
    node: Option<Node>,
}

impl Backups {
    pub(crate) async fn new(server: &Server, name: &str) -> Self {
        Self::with_store(server, name, ObjectStore::of_this_run()).await
    }

    async fn with_store(server: &Server, name: &str, store: ObjectStore) -> Self {
        let fixture = Fixture::with_database(server, name).await;
        fixture.namespace.secret("s3", &store.keys()).await;
        let node = Node::start(&fixture.namespace, &store, programs(18));
        Self { fixture, store, node: Some(node) }
    }

    /// A schedule that makes its first backup at once.
    pub(crate) fn schedule(&self, patch: &Value) -> Value {
        let storage = json!({
            "url": format!("s3://{}/{}", self.store.bucket, self.fixture.namespace.name),
            "endpoint": STORE_ENDPOINT, "region": "us-east-1", "secretRef": {"name": "s3"},
        });
        let mut manifest = pgrail_e2e::backup_schedule(&storage);
        manifest["spec"]["runOnCreate"] = true.into();
        for (key, value) in patch.as_object().unwrap() {
            manifest["spec"][key] = value.clone();
        }
        manifest
    }

    pub(crate) async fn apply(&self, patch: &Value) {
        self.fixture.namespace.apply::<BackupSchedule>(&self.schedule(patch)).await;
    }

    pub(crate) async fn until(&self, kind: &str, status: &str, reason: &str) -> BackupSchedule {
        let what = format!("nightly has {kind}={status}, reason {reason}");
        wait_for(&self.fixture.namespace, "nightly", &what, |it: &BackupSchedule| holds(it, kind, status, reason)).await
    }

    pub(crate) async fn message(&self, kind: &str, status: &str, reason: &str) -> String {
        condition(&self.until(kind, status, reason).await, kind).unwrap().2
    }

    /// A backup by hand, after it has ended.
    pub(crate) async fn by_hand(&self, name: &str) -> DatabaseBackup {
        let manifest = json!({"metadata": {"name": name}, "spec": {"scheduleRef": {"name": "nightly"}}});
        self.fixture.namespace.apply::<DatabaseBackup>(&manifest).await;
        self.ended(name).await
    }

    async fn ended(&self, name: &str) -> DatabaseBackup {
        let over = |it: &DatabaseBackup| matches!(phase(it).as_str(), "Succeeded" | "Failed");
        wait_for(&self.fixture.namespace, name, "the backup has ended", over).await
    }

    /// Until the store was compared after the newest backup.
    pub(crate) async fn compared(&self) {
        let compared = |it: &BackupSchedule| {
            let (check, newest) = (field(it, "/status/storeCheck/time"), field(it, "/status/lastVerifiedTime"));
            check.as_str().is_some_and(|check| newest.as_str().is_none_or(|newest| check > newest))
        };
        wait_for(&self.fixture.namespace, "nightly", "the store was compared", compared).await;
    }

    /// Has the store compared, as happens once a day: the last comparison was the day before.
    async fn compare(&self) {
        let schedules = self.fixture.namespace.api::<BackupSchedule>();
        self.compared().await;
        let patch = Patch::Merge(json!({"status": {"storeCheck": {"time": "2026-01-01T00:00:00Z"}}}));
        schedules.patch_status("nightly", &PatchParams::default(), &patch).await.unwrap();
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"touched": Timestamp::now().to_string()}}}));
        schedules.patch("nightly", &PatchParams::default(), &touch).await.unwrap();
    }

    pub(crate) async fn list(&self) -> Vec<DatabaseBackup> {
        self.fixture.namespace.api().list(&ListParams::default()).await.unwrap().items
    }

    /// Another operator, with other options.
    async fn restart(&mut self, options: &[&str]) {
        let next = Operator::start_with(&self.fixture.namespace, "next", options).await;
        std::mem::replace(&mut self.fixture.operator, next).stop().await;
    }

    pub(crate) async fn finish(self) {
        self.fixture.finish().await;
    }
}

pub(crate) fn phase(backup: &DatabaseBackup) -> String {
    field(backup, "/status/phase").as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_schedule_makes_verified_backups_and_reports_freshness() {
    for server in pgrail_testing::servers() {
        let backups = Backups::new(&server, "dumps").await;
        backups.apply(&json!({})).await;
        let schedule = backups.until("BackupFresh", "True", "Fresh").await;
        assert!(holds(&schedule, "Ready", "True", "Scheduled"), "{schedule:?}");
        assert!(holds(&schedule, "LastBackupSucceeded", "True", "Succeeded"));
        assert!(holds(&schedule, "Verified", "True", "ReadBack"));
        let first = backups.list().await.remove(0);
        // 500 users, 5,000 leads, 10,000 conversations, 20,000 messages, 5,000 analytics.
        assert_eq!((field(&first, "/status/rows"), field(&first, "/status/tables")), (json!(40_500), json!(5)));
        assert_eq!(field(&first, "/status/verification/level"), json!("ReadBack"));
        backups.fixture.namespace.event(&first.name_any(), "BackupVerified", "").await;
        // The CronJob that goes on with it is Kubernetes' own.
        let cron_jobs = backups.fixture.namespace.api::<CronJob>().list(&ListParams::default()).await.unwrap();
        let cron_job = cron_jobs.items.first().unwrap();
        assert_eq!(field(cron_job, "/spec/schedule"), field(&schedule, "/spec/schedule"));
        assert_eq!(field(cron_job, "/spec/timeZone"), json!("UTC"));
        assert_eq!(field(cron_job, "/spec/concurrencyPolicy"), json!("Forbid"));
        // One by hand, of a table that has grown.
        backups.fixture.app.batch_execute("INSERT INTO users VALUES (1000)").await.unwrap();
        let second = backups.by_hand("before-the-migration").await;
        assert_eq!((phase(&second).as_str(), field(&second, "/status/rows")), ("Succeeded", json!(40_501)));
        backups.finish().await;
    }
}

/// A Job as the CronJob's controller makes it at its hour, made now: `kubectl create job --from=cronjob/…`.
#[tokio::test]
async fn a_run_of_the_cron_job_gets_a_backup_of_its_own() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "cron").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    backups.until("BackupFresh", "Unknown", "FirstRunPending").await;
    let namespace = &backups.fixture.namespace;
    let cron_jobs = || async { namespace.api::<CronJob>().list(&ListParams::default()).await.unwrap().items };
    let cron_job = eventually("the CronJob", async || cron_jobs().await.into_iter().next()).await;
    let template = cron_job.spec.as_ref().unwrap().job_template.clone();
    let mut job: Value = json!({"metadata": template.metadata, "spec": template.spec});
    job["metadata"]["name"] = format!("{}-29858535", cron_job.name_any()).into();
    job["metadata"]["annotations"] = json!({"batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-10-10T02:15:00Z"});
    job["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job.name_any(), "uid": cron_job.uid(), "controller": true}]);
    namespace.apply::<Job>(&job).await;
    backups.until("LastBackupSucceeded", "True", "Succeeded").await;
    let schedule = backups.until("BackupFresh", "True", "Fresh").await;
    assert_eq!(field(&schedule, "/status/verifiedBackups"), json!(1));
    assert_eq!(backups.list().await.len(), 1);
    backups.finish().await;
}

#[tokio::test]
async fn too_many_backups_are_removed_and_the_newest_good_one_is_kept() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "retention").await;
    backups
        .apply(&json!({"retention": {"keepLast": 2, "minKeep": 1, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0}}))
        .await;
    backups.until("BackupFresh", "True", "Fresh").await;
    for name in ["second", "third", "fourth"] {
        assert_eq!(phase(&backups.by_hand(name).await), "Succeeded");
    }
    eventually("two backups are left, and say why", async || {
        let left = backups.list().await;
        let explained = left.iter().all(|it| field(it, "/status/keptBecause").is_array());
        (left.len() == 2 && explained).then_some(())
    })
    .await;
    let left: Vec<_> = backups.list().await.iter().map(ResourceExt::name_any).collect();
    assert!(left.contains(&"fourth".to_owned()) && left.contains(&"third".to_owned()), "{left:?}");
    backups.until("RetentionHealthy", "True", "Retained").await;
    backups.finish().await;
}

#[tokio::test]
async fn a_rejected_backup_does_not_stop_retention() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "rejected").await;
    backups.apply(&json!({"retention": retention(1)})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    // The annotation names a Job that is not the schedule's.
    let job = json!({"metadata": {"name": "other"}, "spec": {"suspend": true, "template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "verify", "image": "other"}]}}}});
    backups.fixture.namespace.apply::<Job>(&job).await;
    let manifest = json!({"metadata": {"name": "rejected", "annotations": {"pgrail.dev/job": "other"}},
        "spec": {"scheduleRef": {"name": "nightly"}}});
    backups.fixture.namespace.apply::<DatabaseBackup>(&manifest).await;
    let rejected = |it: &DatabaseBackup| holds(it, "Stalled", "True", "NameTaken");
    wait_for(&backups.fixture.namespace, "rejected", "it is rejected", rejected).await;
    assert_eq!(phase(&backups.by_hand("second").await), "Succeeded");
    eventually("the first backup is removed", async || {
        let mut left: Vec<_> = backups.list().await.iter().map(ResourceExt::name_any).collect();
        left.sort();
        (left == ["rejected", "second"]).then_some(())
    })
    .await;
    backups.finish().await;
}

#[tokio::test]
async fn an_invalid_schedule_is_rejected_with_its_field_and_runs_once_corrected() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "malformed").await;
    for (patch, reason, parts) in [
        // What the rules of the CRD cannot refuse.
        (json!({"schedule": "0 22-2 * * *"}), "InvalidSchedule", ["spec.schedule", "22-2"]),
        (json!({"schedule": "H/70 2 * * *"}), "InvalidSchedule", ["spec.schedule", "H/15"]),
        (json!({"schedule": "0 0 31 4-4 *"}), "InvalidSchedule", ["spec.schedule", "never fires"]),
        (json!({"timeZone": "Europe/Springfield"}), "InvalidTimeZone", ["spec.timeZone", "Europe/Springfield"]),
    ] {
        backups.apply(&patch).await;
        let message = backups.message("Stalled", "True", reason).await;
        assert!(parts.iter().all(|part| message.contains(part)), "{patch}: {message}");
    }
    assert!(backups.list().await.is_empty(), "an invalid schedule has no runs");
    backups.apply(&json!({"schedule": "0 22-2 * * *"})).await;
    backups.until("Stalled", "True", "InvalidSchedule").await;
    backups.apply(&json!({})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    // Invalid again: existing backups still count, and the runs continue.
    backups.apply(&json!({"schedule": "0 22-2 * * *"})).await;
    assert!(backups.message("Stalled", "True", "InvalidSchedule").await.contains("Runs continue as last applied"));
    backups.until("BackupFresh", "True", "Fresh").await;
    backups.finish().await;
}

#[tokio::test]
async fn a_missing_or_incomplete_secret_of_the_store_is_named() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "nosecret").await;
    let namespace = &backups.fixture.namespace;
    let mut manifest = backups.schedule(&json!({}));
    manifest["spec"]["storage"]["secretRef"]["name"] = "absent".into();
    namespace.apply::<BackupSchedule>(&manifest).await;
    let message = backups.message("Stalled", "True", "SecretMissing").await;
    assert!(message.contains("absent") && message.contains("spec.storage.secretRef"), "{message}");
    // A schedule that cannot run is not fresh from the start.
    backups.until("BackupFresh", "False", "SecretMissing").await;
    namespace.secret("absent", &[("AWS_ACCESS_KEY_ID", "half")]).await;
    eventually("the missing key is named", async || {
        let message = backups.message("Stalled", "True", "SecretMissing").await;
        message.contains("AWS_SECRET_ACCESS_KEY").then_some(())
    })
    .await;
    namespace.secret("absent", &backups.store.keys()).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    backups.finish().await;
}

#[tokio::test]
async fn wrong_keys_a_missing_bucket_and_a_wrong_login_have_their_reasons() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "refusals").await;
    let namespace = &backups.fixture.namespace;
    backups.apply(&json!({"runOnCreate": false, "backoffLimit": 0})).await;
    backups.until("Ready", "True", "Scheduled").await;

    namespace.secret("s3", &[("AWS_ACCESS_KEY_ID", &backups.store.key), ("AWS_SECRET_ACCESS_KEY", "wrong")]).await;
    let refused = backups.by_hand("wrong-keys").await;
    assert!(holds(&refused, "Stalled", "True", "AccessDenied"), "{refused:?}");
    assert!(field(&refused, "/status/location").is_null(), "an unpublished dump has no location");
    backups.until("LastBackupSucceeded", "False", "Failed").await;
    namespace.event("wrong-keys", "BackupFailed", "").await;
    namespace.secret("s3", &[("AWS_ACCESS_KEY_ID", "no-such-key"), ("AWS_SECRET_ACCESS_KEY", "wrong")]).await;
    let unknown = backups.by_hand("unknown-key").await;
    assert!(holds(&unknown, "Stalled", "True", "AccessDenied"), "{unknown:?}");
    let (_, _, message) = condition(&unknown, "Stalled").unwrap();
    assert!(message.len() < 400 && !message.contains('<'), "{message}");
    namespace.secret("s3", &backups.store.keys()).await;

    let mut elsewhere = backups.schedule(&json!({"runOnCreate": false, "backoffLimit": 0}));
    elsewhere["spec"]["storage"]["url"] = "s3://no-such-bucket/x".into();
    namespace.apply::<BackupSchedule>(&elsewhere).await;
    let missing = backups.by_hand("no-bucket").await;
    assert!(holds(&missing, "Stalled", "True", "BucketMissing"), "{missing:?}");

    backups.apply(&json!({"runOnCreate": false, "backoffLimit": 0})).await;
    namespace.secret("shop-login", &[("uri", &backups.fixture.database.uri.replace("://", "://nobody-"))]).await;
    let unknown = backups.by_hand("wrong-login").await;
    assert!(holds(&unknown, "Stalled", "True", "AuthenticationFailed"), "{unknown:?}");
    wait_for(namespace, "nightly", "it counts four failures", |it: &BackupSchedule| {
        holds(it, "BackupFresh", "False", "Failing") && field(it, "/status/consecutiveFailures") == json!(4)
    })
    .await;
    // No message, Event or log shows a password.
    let secret = &backups.store.secret;
    assert!(!backups.fixture.operator.log().contains(secret.as_str()));

    namespace.secret("shop-login", &[("uri", &backups.fixture.database.uri)]).await;
    assert_eq!(phase(&backups.by_hand("corrected").await), "Succeeded");
    backups.until("BackupFresh", "True", "Fresh").await;
    backups.finish().await;
}

#[tokio::test]
async fn a_full_bucket_fails_the_run_and_keeps_the_good_backup() {
    let server = pgrail_testing::servers().remove(0);
    let small = SmallStore::new("6m");
    let backups = Backups::with_store(&server, "full", small.store.clone()).await;
    backups.apply(&json!({"backoffLimit": 0, "retention": {"keepLast": 1, "minKeep": 1, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0}})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let good = backups.list().await.remove(0).name_any();
    let grow = "CREATE TABLE noise AS SELECT n, string_agg(md5(random()::text || n || m), '') AS text
        FROM generate_series(1, 4000) n, generate_series(1, 100) m GROUP BY n";
    backups.fixture.app.batch_execute(grow).await.unwrap();
    let full = backups.by_hand("too-large").await;
    assert_eq!(phase(&full), "Failed");
    let (_, reason, message) = condition(&full, "Stalled").unwrap();
    assert!(["StoreFull", "StoreUnavailable"].contains(&reason.as_str()), "{reason}: {message}");
    let schedule = backups.until("LastBackupSucceeded", "False", "Failed").await;
    assert!(holds(&schedule, "BackupFresh", "True", "Fresh"), "the good backup still counts");
    // What failed runs left in a full store is removed at once.
    wait_for(&backups.fixture.namespace, "nightly", "leftovers were removed", |it: &BackupSchedule| {
        holds(it, "RetentionHealthy", "True", "Retained") && !field(it, "/status/lastPruneTime").is_null()
    })
    .await;
    assert!(backups.list().await.iter().any(|it| it.name_any() == good && phase(it) == "Succeeded"));
    backups.finish().await;
}

#[tokio::test]
async fn a_schedule_that_no_longer_runs_becomes_late() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "late").await;
    // Without the drill, which takes a part of this time.
    backups.apply(&json!({"maxAge": "20s", "verification": {"structure": false}})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let message = backups.message("BackupFresh", "False", "Late").await;
    assert!(message.contains("too old since"), "{message}");
    let name = backups.fixture.namespace.name.as_str();
    let fresh = backups.fixture.operator.metric("pgrail_backup_fresh", &[name]).await;
    assert!(fresh.abs() < f64::EPSILON, "{fresh}");
    backups.finish().await;
}

#[tokio::test]
async fn a_recreated_schedule_inherits_no_backups() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "recreated").await;
    backups.apply(&json!({})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let earlier = backups.list().await.remove(0);
    backups.fixture.namespace.delete::<BackupSchedule>("nightly").await;
    let schedules = backups.fixture.namespace.api::<BackupSchedule>();
    eventually("it is deleted", async || schedules.get_opt("nightly").await.unwrap().is_none().then_some(())).await;
    backups.apply(&json!({"runOnCreate": false})).await;
    let schedule = backups.until("BackupFresh", "Unknown", "FirstRunPending").await;
    assert_eq!(field(&schedule, "/status/backups"), json!(0));
    let kept = |it: &DatabaseBackup| field(it, "/status/keptBecause") == json!(["EarlierSchedule"]);
    wait_for(&backups.fixture.namespace, &earlier.name_any(), "it says why it is kept", kept).await;
    backups.finish().await;
}

#[tokio::test]
async fn a_declared_partial_dump_counts_and_is_reported() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "partial").await;
    backups.apply(&json!({"dump": {"excludeTableData": ["public.nothing"]}})).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let backup = backups.list().await.remove(0);
    assert_eq!(field(&backup, "/status/partial"), json!(true));
    assert_eq!(field(&backup, "/status/partialBecause"), json!(["ExcludeTableData"]));
    // The schedule declares more now: the dump of before is not what it asks for.
    backups.apply(&json!({"maxAge": "1s"})).await;
    let message = backups.message("BackupFresh", "False", "Partial").await;
    assert!(message.contains(&backup.name_any()), "{message}");
    backups.finish().await;
}

#[tokio::test]
async fn a_replaced_backup_takes_no_result_of_the_one_before() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "replaced").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    let before = backups.by_hand("b").await;
    assert_eq!(phase(&before), "Succeeded");
    // As `kubectl replace --force` does it: the Job of the first object may still be there.
    backups.fixture.namespace.delete::<DatabaseBackup>("b").await;
    let after = backups.by_hand("b").await;
    assert_eq!(phase(&after), "Succeeded");
    assert_ne!(after.uid(), before.uid());
    assert_ne!(field(&after, "/status/location"), field(&before, "/status/location"));
    backups.finish().await;
}

#[tokio::test]
async fn a_job_that_is_not_the_schedules_is_not_believed() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "forged").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    backups.until("Ready", "True", "Scheduled").await;
    let labels = json!({"pgrail.dev/schedule": "nightly", "pgrail.dev/task": "dump"});
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "verify", "image": "forged"}]});
    let job = json!({"metadata": {"name": "forged", "labels": labels},
        "spec": {"suspend": true, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    backups.fixture.namespace.apply::<Job>(&job).await;
    let manifest = json!({"metadata": {"name": "forged", "annotations": {"pgrail.dev/job": "forged"}},
        "spec": {"scheduleRef": {"name": "nightly"}}});
    backups.fixture.namespace.apply::<DatabaseBackup>(&manifest).await;
    let rejected = |it: &DatabaseBackup| holds(it, "Stalled", "True", "NameTaken");
    wait_for(&backups.fixture.namespace, "forged", "its Job is rejected", rejected).await;
    backups.finish().await;
}

#[tokio::test]
async fn the_cron_job_is_written_only_where_it_differs() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "cronjob").await;
    let resources =
        json!({"podTemplate": {"resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}}, "runOnCreate": false});
    backups.apply(&resources).await;
    backups.until("Ready", "True", "Scheduled").await;
    let cron_jobs = backups.fixture.namespace.api::<CronJob>();
    let before = cron_jobs.get("nightly-dump").await.unwrap().resource_version();
    let runs =
        async || backups.fixture.operator.metric("pgrail_reconciles_total", &["controller=\"backupschedule\""]).await;
    for round in 0..3 {
        let earlier = runs().await;
        let touch = Patch::Merge(json!({"metadata": {"annotations": {"round": round.to_string()}}}));
        let schedules = backups.fixture.namespace.api::<BackupSchedule>();
        schedules.patch("nightly", &PatchParams::default(), &touch).await.unwrap();
        eventually("another reconcile", async || (runs().await > earlier).then_some(())).await;
    }
    assert_eq!(cron_jobs.get("nightly-dump").await.unwrap().resource_version(), before);
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    cron_jobs.patch("nightly-dump", &PatchParams::default(), &suspend).await.unwrap();
    eventually("the change is reverted", async || {
        let spec = cron_jobs.get("nightly-dump").await.unwrap().spec.unwrap();
        (spec.suspend == Some(false)).then_some(())
    })
    .await;
    backups.finish().await;
}

#[tokio::test]
async fn a_backup_without_its_schedule_or_database_waits_for_it() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "dangling").await;
    let manifest = json!({"metadata": {"name": "now"}, "spec": {"scheduleRef": {"name": "nightly"}}});
    backups.fixture.namespace.apply::<DatabaseBackup>(&manifest).await;
    let dangling = |it: &DatabaseBackup| holds(it, "Stalled", "True", "ScheduleNotFound");
    wait_for(&backups.fixture.namespace, "now", "it names the missing schedule", dangling).await;
    backups.apply(&json!({"runOnCreate": false})).await;
    assert_eq!(phase(&backups.ended("now").await), "Succeeded");
    backups.finish().await;
}

#[tokio::test]
async fn deleting_a_backup_removes_its_dump_only_where_asked() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "deletion").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    assert_eq!(phase(&backups.by_hand("kept").await), "Succeeded");
    assert_eq!(phase(&backups.by_hand("removed").await), "Succeeded");
    let api = backups.fixture.namespace.api::<DatabaseBackup>();
    let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}}));
    api.patch("removed", &PatchParams::default(), &policy).await.unwrap();
    eventually("it carries the finalizer", async || {
        let backup = api.get("removed").await.unwrap();
        (!backup.finalizers().is_empty()).then_some(())
    })
    .await;
    let (kept, removed) = (api.get("kept").await.unwrap(), api.get("removed").await.unwrap());
    let (kept, removed) = (directory_of(&kept), directory_of(&removed));
    assert!(kept.exists() && removed.exists());
    backups.fixture.namespace.delete::<DatabaseBackup>("kept").await;
    backups.fixture.namespace.delete::<DatabaseBackup>("removed").await;
    for name in ["kept", "removed"] {
        eventually("the object is deleted", async || api.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }
    assert!(kept.exists(), "the object was deleted, the dump stays");
    let left = std::fs::read_dir(&removed).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{}", removed.display());
    backups.finish().await;
}

#[tokio::test]
async fn a_deletion_that_waits_for_its_job_names_the_way_out() {
    let server = pgrail_testing::servers().remove(0);
    let mut backups = Backups::new(&server, "wayout").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    assert_eq!(phase(&backups.by_hand("b").await), "Succeeded");
    let api = backups.fixture.namespace.api::<DatabaseBackup>();
    let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}}));
    api.patch("b", &PatchParams::default(), &policy).await.unwrap();
    let finalizer = |it: &DatabaseBackup| !it.finalizers().is_empty();
    let backup = wait_for(&backups.fixture.namespace, "b", "it has the finalizer", finalizer).await;
    // Without a node, the pod of the Job never starts.
    backups.node = None;
    backups.fixture.namespace.delete::<DatabaseBackup>("b").await;
    let waits = |it: &DatabaseBackup| {
        holds(it, "Ready", "Unknown", "Pruning")
            && condition(it, "Ready").unwrap().2.contains("pgrail.dev/force-delete: \"true\"")
    };
    wait_for(&backups.fixture.namespace, "b", "it names the annotation", waits).await;
    let force = Patch::Merge(json!({"metadata": {"annotations": {"pgrail.dev/force-delete": "true"}}}));
    api.patch("b", &PatchParams::default(), &force).await.unwrap();
    eventually("the object is deleted", async || api.get_opt("b").await.unwrap().is_none().then_some(())).await;
    assert!(directory_of(&backup).exists(), "the dump stays");
    backups.finish().await;
}

#[tokio::test]
async fn a_store_that_the_operator_does_not_allow_gets_no_dumps() {
    let server = pgrail_testing::servers().remove(0);
    let mut backups = Backups::new(&server, "stores").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    assert_eq!(phase(&backups.by_hand("before").await), "Succeeded");
    let cron_jobs = backups.fixture.namespace.api::<CronJob>();
    let suspended = async || cron_jobs.get("nightly-dump").await.unwrap().spec.unwrap().suspend;
    assert_eq!(suspended().await, Some(false));
    // The bucket's name at another server is another store.
    backups.restart(&["--allowed-stores", &format!("s3://{}/*", backups.store.bucket)]).await;
    let message = backups.message("Stalled", "True", "StoreNotAllowed").await;
    let address = format!("{STORE_ENDPOINT}/{}", backups.store.bucket);
    assert!(message.contains(&address) && !message.contains("continue"), "{message}");
    eventually("no run of before starts", async || (suspended().await == Some(true)).then_some(())).await;
    let manifest = json!({"metadata": {"name": "refused"}, "spec": {"scheduleRef": {"name": "nightly"}}});
    backups.fixture.namespace.apply::<DatabaseBackup>(&manifest).await;
    let rejected = |it: &DatabaseBackup| holds(it, "Stalled", "True", "StoreNotAllowed");
    wait_for(&backups.fixture.namespace, "refused", "it is rejected", rejected).await;
    assert!(backups.fixture.namespace.api::<Job>().get_opt("refused-dump").await.unwrap().is_none());
    backups.restart(&["--allowed-stores", &format!("gs://x/*,{address}/*")]).await;
    backups.until("Ready", "True", "Scheduled").await;
    eventually("the runs go on", async || (suspended().await == Some(false)).then_some(())).await;
    assert_eq!(phase(&backups.ended("refused").await), "Succeeded");
    backups.finish().await;
}

pub(crate) fn retention(keep: i64) -> Value {
    json!({"keepLast": keep, "minKeep": keep, "keepDaily": 0, "keepWeekly": 0, "keepMonthly": 0})
}

#[tokio::test]
async fn a_dump_that_was_removed_from_the_store_is_missing_and_stops_counting() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "lost").await;
    let namespace = &backups.fixture.namespace;
    backups.apply(&json!({"runOnCreate": false, "retention": retention(1)})).await;
    let first = backups.by_hand("first").await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let (files, aside) = (directory_of(&first), ObjectStore::of_this_run().files.join("aside"));
    // Another program empties the bucket; the next run finds out.
    std::fs::rename(&files, &aside).unwrap();
    let archive = |backup: &DatabaseBackup| directory_of(backup).join("dump.pgc.000");
    assert_eq!(phase(&backups.by_hand("second").await), "Succeeded");
    let missing = |it: &DatabaseBackup| holds(it, "Ready", "False", "Missing");
    let lost = wait_for(namespace, "first", "its dump is missing", missing).await;
    assert!(condition(&lost, "Ready").unwrap().2.contains(field(&lost, "/status/location").as_str().unwrap()));
    namespace.event("first", "BackupMissing", "not in the store").await;
    let one = |it: &BackupSchedule| {
        field(it, "/status/verifiedBackups") == json!(1) && field(it, "/status/storeCheck/missing") == json!(1)
    };
    wait_for(namespace, "nightly", "it does not count, and minKeep keeps the other", one).await;
    let kept = |it: &DatabaseBackup| field(it, "/status/keptBecause") == json!(["Missing"]);
    wait_for(namespace, "first", "the object remains", kept).await;

    // It is there again, and a part of the second one is not.
    std::fs::rename(&aside, &files).unwrap();
    let second = namespace.api::<DatabaseBackup>().get("second").await.unwrap();
    std::fs::File::options().write(true).open(archive(&second)).unwrap().set_len(100).unwrap();
    assert_eq!(phase(&backups.by_hand("third").await), "Succeeded");
    wait_for(namespace, "second", "a part of it is missing", missing).await;
    let back = |it: &DatabaseBackup| holds(it, "Ready", "True", "ReadBack");
    eventually("the first is reported again, or was removed by retention", async || {
        let first = namespace.api::<DatabaseBackup>().get_opt("first").await.unwrap();
        first.as_ref().is_none_or(back).then_some(())
    })
    .await;
    namespace.event("first", "BackupRecovered", "").await;
    backups.finish().await;
}

#[tokio::test]
async fn an_emptied_store_is_not_fresh() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "emptied").await;
    backups.apply(&json!({"runOnCreate": false})).await;
    let only = backups.by_hand("only").await;
    backups.compared().await;
    std::fs::remove_dir_all(directory_of(&only)).unwrap();
    backups.compare().await;
    let message = backups.message("BackupFresh", "False", "Missing").await;
    assert!(message.contains("only"), "{message}");
    backups.finish().await;
}

#[tokio::test]
async fn a_dump_without_an_object_is_recorded_and_counts_for_nothing() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "orphan").await;
    let namespace = &backups.fixture.namespace;
    backups.apply(&json!({"runOnCreate": false, "retention": retention(1)})).await;
    let orphan = backups.by_hand("orphan").await;
    backups.compared().await;
    namespace.delete::<DatabaseBackup>("orphan").await;
    assert_eq!(phase(&backups.by_hand("next").await), "Succeeded");
    let found = eventually("the dump has an object again", async || {
        backups.list().await.into_iter().find(|it| phase(it) == "Discovered")
    })
    .await;
    assert!(found.name_any().starts_with("nightly-found-"), "{}", found.name_any());
    for part in ["/status/location", "/status/sha256", "/status/manifestSha256", "/status/rows", "/status/sizeBytes"] {
        assert_eq!(field(&found, part), field(&orphan, part), "{part}");
    }
    assert!(holds(&found, "Ready", "Unknown", "Discovered"), "{found:?}");
    let kept = |it: &DatabaseBackup| field(it, "/status/keptBecause") == json!(["Discovered"]);
    wait_for(namespace, &found.name_any(), "retention keeps it", kept).await;
    let schedule = namespace.api::<BackupSchedule>().get("nightly").await.unwrap();
    assert_eq!(
        (field(&schedule, "/status/backups"), field(&schedule, "/status/verifiedBackups")),
        (json!(1), json!(1))
    );
    assert!(directory_of(&found).exists());
    // A user removes it with its object.
    let api = namespace.api::<DatabaseBackup>();
    let policy = Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}}));
    api.patch(&found.name_any(), &PatchParams::default(), &policy).await.unwrap();
    let finalizer = |it: &DatabaseBackup| !it.finalizers().is_empty();
    wait_for(namespace, &found.name_any(), "it has the finalizer", finalizer).await;
    namespace.delete::<DatabaseBackup>(&found.name_any()).await;
    eventually("the object is deleted", async || api.get_opt(&found.name_any()).await.unwrap().is_none().then_some(()))
        .await;
    assert_eq!(std::fs::read_dir(directory_of(&found)).map_or(0, Iterator::count), 0);
    backups.finish().await;
}

/// As after a cluster was restored from a copy of its etcd while the first one still runs.
#[tokio::test]
async fn newer_dumps_of_another_control_plane_stop_the_removal_until_it_is_decided() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "split").await;
    let namespace = &backups.fixture.namespace;
    backups.apply(&json!({"runOnCreate": false, "retention": retention(1)})).await;
    let first = backups.by_hand("first").await;
    backups.compared().await;
    // What the other one wrote: the same identity, a later run.
    let (mine, run) = (directory_of(&first), "20270101T000000Z-other");
    let other = mine.with_file_name(run);
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(&mine).unwrap().flatten() {
        std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    let manifest = std::fs::read_to_string(mine.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    let location = manifest["location"].as_str().unwrap().to_owned();
    manifest["location"] = format!("{}/{run}", location.rsplit_once('/').unwrap().0).into();
    manifest["completionTime"] = "2027-01-01T00:01:00Z".into();
    std::fs::write(other.join("manifest.json"), manifest.to_string()).unwrap();

    assert_eq!(phase(&backups.by_hand("second").await), "Succeeded");
    let message = backups.message("RetentionHealthy", "False", "SplitBrain").await;
    assert!(message.contains(run) && message.contains("pgrail.dev/take-over"), "{message}");
    assert_eq!(phase(&backups.by_hand("third").await), "Succeeded");
    backups.compare().await;
    backups.until("RetentionHealthy", "False", "SplitBrain").await;
    assert_eq!(backups.list().await.len(), 3, "nothing is removed, and nothing is recorded");

    let take_over = Patch::Merge(json!({"metadata": {"annotations": {"pgrail.dev/take-over": "true"}}}));
    let schedules = namespace.api::<BackupSchedule>();
    schedules.patch("nightly", &PatchParams::default(), &take_over).await.unwrap();
    eventually("its dump is recorded, and retention goes on", async || {
        let left = backups.list().await;
        let found = left.iter().filter(|it| phase(it) == "Discovered").count();
        (left.len() == 2 && found == 1).then_some(())
    })
    .await;
    backups.until("RetentionHealthy", "True", "Retained").await;
    let schedule = schedules.get("nightly").await.unwrap();
    assert!(!schedule.annotations().contains_key("pgrail.dev/take-over"), "it holds once");
    backups.finish().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_is_reported_and_nothing_is_removed() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "unlisted").await;
    let namespace = &backups.fixture.namespace;
    backups.apply(&json!({"runOnCreate": false})).await;
    assert_eq!(phase(&backups.by_hand("first").await), "Succeeded");
    backups.compared().await;
    namespace.secret("s3", &[("AWS_ACCESS_KEY_ID", &backups.store.key), ("AWS_SECRET_ACCESS_KEY", "wrong")]).await;
    backups.compare().await;
    let message = backups.message("RetentionHealthy", "False", "StoreUnchecked").await;
    assert!(message.contains("AccessDenied"), "{message}");
    backups.finish().await;
}

/// The files of a backup in the store.
pub(crate) fn directory_of(backup: &DatabaseBackup) -> PathBuf {
    let location = field(backup, "/status/location").as_str().unwrap().to_owned();
    ObjectStore::of_this_run().files.join(location.strip_prefix("s3://").unwrap())
}

/// An S3 server whose disk has a few megabytes (a tmpfs: needs root).
struct SmallStore {
    store: ObjectStore,
    state: String,
}

impl SmallStore {
    fn new(size: &str) -> Self {
        let output = Command::new(Self::script()).arg("up").env("PGRAIL_S3_SIZE", size).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let line = String::from_utf8(output.stdout).unwrap();
        let state = line.split([' ', '"']).find_map(|entry| entry.strip_prefix("state=")).unwrap().to_owned();
        Self { store: ObjectStore::parse(&line), state }
    }

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("s3/server.sh")
    }
}

impl Drop for SmallStore {
    fn drop(&mut self) {
        let _ = Command::new(Self::script()).args(["down", &self.state]).status();
    }
}
