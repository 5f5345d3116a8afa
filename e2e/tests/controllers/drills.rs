//! Full drills by a manifest: the CronJob, and what its Jobs report.

use crate::backups::Backups;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::{ObjectMeta, PostParams};
use pgrail_crds::{BackupSchedule, DatabaseBackup};
use pgrail_e2e::{eventually, field, holds, wait_for};
use serde_json::{Value, json};

/// The key pair of age's own tests.
const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

/// A drill that never comes by itself while the test runs.
fn declared(queries: &Value) -> Value {
    json!({"drill": {"schedule": "0 5 29 2 *", "queries": queries}})
}

impl Backups {
    /// The CronJob of the drills, once it names a backup.
    async fn drill_cron_job(&self, backup: &str) -> CronJob {
        let named = |it: &CronJob| {
            serde_json::to_string(it).is_ok_and(|text| text.contains(&format!("\\\"backup\\\":\\\"{backup}\\\"")))
        };
        wait_for(&self.fixture.namespace, "nightly-drill", &format!("drills are of {backup}"), named).await
    }

    /// As `kubectl create job --from=cronjob/nightly-drill`.
    async fn drill(&self, cron_job: &CronJob, name: &str) {
        let template = cron_job.spec.clone().unwrap().job_template;
        let owner = kube::Resource::controller_owner_ref(cron_job, &()).unwrap();
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            ..template.metadata.unwrap_or_default()
        };
        let job = Job { metadata, spec: template.spec, status: None };
        self.fixture.namespace.api::<Job>().create(&PostParams::default(), &job).await.unwrap();
    }
}

#[tokio::test]
async fn a_drill_restores_the_newest_backup_and_is_reported() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "drills").await;
    let query = |expect: &str| json!([{"name": "users", "sql": "SELECT count(*) FROM users", "expect": expect}]);
    let storage =
        json!({"verification": declared(&query("= 500")), "scratch": {"size": "3Gi", "storageClassName": "fast"}});
    backups.apply(&storage).await;
    backups.until("BackupFresh", "True", "Fresh").await;
    let first = backups.list().await.remove(0);
    let cron_job = backups.drill_cron_job(&first.name_any()).await;
    backups.until("Drilled", "Unknown", "NeverRan").await;
    let job = serde_json::to_value(&cron_job).unwrap();
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(
        (&pod["initContainers"][0]["name"], &pod["containers"][0]["name"]),
        (&json!("postgres"), &json!("drill"))
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(
        !pod["initContainers"].to_string().contains("s3") && !pod["volumes"].to_string().contains("\"connection\"")
    );
    let volumes = pod["volumes"].as_array().unwrap();
    let scratch = volumes.iter().find(|it| it["name"] == "scratch").unwrap();
    assert_eq!(scratch["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"], "fast");
    assert_eq!(job["spec"]["concurrencyPolicy"], "Forbid");

    backups.drill(&cron_job, "by-hand-1").await;
    let schedule = backups.until("Drilled", "True", "AllRestored").await;
    let last = field(&schedule, "/status/lastDrill");
    assert_eq!((&last["job"], &last["backup"]), (&json!("by-hand-1"), &json!(first.name_any())), "{last}");
    assert_eq!((&last["queries"][0]["found"], &last["server"]["fsync"]), (&json!("500"), &json!("off")), "{last}");
    assert_eq!(last["rows"], field(&first, "/status/rows"));
    assert_eq!(field(&schedule, "/status/lastDrillSeconds"), last["seconds"]);
    let drilled = |it: &DatabaseBackup| field(it, "/status/verification/level") == json!("Drill");
    let backup = wait_for(&backups.fixture.namespace, &first.name_any(), "the drill is recorded", drilled).await;
    assert_eq!(field(&backup, "/status/verification/structure/outcome"), json!("Restored"));
    assert!(holds(&backup, "Ready", "True", "ReadBack"));
    let namespace = backups.fixture.namespace.name.as_str();
    let metric = async |name: &str, labels: &[&str]| backups.fixture.operator.metric(name, labels).await;
    eventually("the metrics are those of the drill", async || {
        let seconds = metric("pgrail_last_drill_duration_seconds", &[namespace]).await;
        let server = metric("pgrail_last_drill_server", &[namespace, "fsync=\"off\""]).await;
        let drilled = metric("pgrail_backup_drilled", &[namespace]).await;
        (seconds >= 1.0 && server > 0.5 && drilled > 0.5).then_some(())
    })
    .await;

    // The next one finds something else: the recovery time stays that of the last success.
    backups.apply(&json!({"verification": declared(&query("> 500"))})).await;
    let changed = |it: &CronJob| serde_json::to_string(it).is_ok_and(|text| text.contains("> 500"));
    let cron_job = wait_for(&backups.fixture.namespace, "nightly-drill", "the query has changed", changed).await;
    backups.drill(&cron_job, "by-hand-2").await;
    let failed = backups.until("Drilled", "False", "QueryFailed").await;
    assert_eq!(field(&failed, "/status/lastDrillTime"), field(&schedule, "/status/lastDrillTime"));
    assert_eq!(field(&failed, "/status/lastDrill/outcome"), json!("Failed"));
    // Not declared any more: nothing runs.
    backups.apply(&json!({})).await;
    backups.until("Drilled", "Unknown", "NotDeclared").await;
    let cron_jobs = backups.fixture.namespace.api::<CronJob>();
    eventually("its CronJob is deleted", async || {
        let found = cron_jobs.get_opt("nightly-drill").await.unwrap();
        found.is_none_or(|it| it.metadata.deletion_timestamp.is_some()).then_some(())
    })
    .await;
    backups.finish().await;
}

#[tokio::test]
async fn an_encrypted_parallel_backup_is_drilled_with_the_identity_and_not_without() {
    let server = pgrail_testing::servers().remove(0);
    let backups = Backups::new(&server, "drillkeys").await;
    let encrypted = |decryption: Value| {
        json!({"encryption": {"ageRecipients": [PUBLIC]}, "decryption": decryption, "dump": {"jobs": 2},
               "verification": declared(&json!([])), "runOnCreate": false})
    };
    backups.apply(&encrypted(json!({}))).await;
    let message = backups.message("Drilled", "False", "NotRun").await;
    assert!(message.contains("no verified backup"), "{message}");
    let first = backups.by_hand("first").await;
    assert_eq!(field(&first, "/status/verification/structure/outcome"), json!("NotRun"), "{first:?}");
    backups.drill(&backups.drill_cron_job("first").await, "without").await;
    let not_run =
        |it: &BackupSchedule| holds(it, "Drilled", "False", "NotRun") && field(it, "/status/lastDrill").is_object();
    let schedule = wait_for(&backups.fixture.namespace, "nightly", "the drill did not run", not_run).await;
    let message = field(&schedule, "/status/lastDrill/message");
    assert!(message.as_str().unwrap().contains("spec.decryption.identitySecretRef"), "{message}");
    assert!(field(&schedule, "/status/lastDrillTime").is_null());

    // A Secret that does not exist keeps no backup from being made.
    let identity = json!({"identitySecretRef": {"name": "backup-key"}});
    backups.apply(&encrypted(identity)).await;
    backups.until("Ready", "True", "Scheduled").await;
    let second = backups.by_hand("second").await;
    assert_eq!(field(&second, "/status/verification/structure/outcome"), json!("NotRun"), "{second:?}");
    backups.fixture.namespace.secret("backup-key", &[("identity", SECRET)]).await;
    let third = backups.by_hand("third").await;
    assert_eq!(field(&third, "/status/verification/structure/outcome"), json!("Restored"), "{third:?}");
    let cron_job = backups.drill_cron_job("third").await;
    let pod = serde_json::to_value(&cron_job).unwrap()["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone();
    assert!(pod["containers"][0]["volumeMounts"].to_string().contains("identity"));
    assert!(!pod["initContainers"].to_string().contains("identity"));
    backups.drill(&cron_job, "with").await;
    backups.until("Drilled", "True", "AllRestored").await;
    backups.finish().await;
}
