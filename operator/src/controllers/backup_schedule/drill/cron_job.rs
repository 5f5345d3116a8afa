//! The CronJob of the drills. Pure.

use crate::agent::config::DrillConfig;
use crate::backup_jobs::names::{drill_cron_job_name, location_in};
use crate::backup_jobs::pod::{DrillJob, Installation, drill_job};
use crate::backup_jobs::record::snapshot_time;
use crate::controllers::backup_schedule::cron_job::{self, is_ours};
use crate::controllers::backup_schedule::history::Scope;
use crate::controllers::backup_schedule::observe::Observed;
use crate::controllers::backup_schedule::validate::Validated;
use k8s_openapi::api::batch::v1::CronJob;
use kube::ResourceExt;
use pgrail_crds::{BackupSchedule, DatabaseBackup};

/// The newest backup that counts, and what the agent needs to know of it.
fn target<'a>(
    validated: &Validated,
    observed: &'a Observed,
    scope: &Scope<'_>,
) -> Option<(&'a DatabaseBackup, String, String)> {
    let store = &validated.job.destination.store.config.url;
    let usable = observed.backups.iter().filter(|it| scope.is_run(it) && scope.counted(it).is_ok());
    let usable = usable.filter_map(|backup| {
        let manifest_sha256 = backup.status.as_ref()?.manifest_sha256.clone()?;
        Some((backup, location_in(store, backup)?, manifest_sha256))
    });
    usable.max_by_key(|(backup, ..)| (snapshot_time(backup), backup.name_any()))
}

/// The CronJob of the drills. `None` while there is nothing that could be restored, and never was.
pub(in crate::controllers::backup_schedule) fn desired(
    declared: &BackupSchedule,
    validated: &Validated,
    observed: &Observed,
    scope: &Scope<'_>,
    image: &Installation,
) -> Result<Option<CronJob>, serde_json::Error> {
    let Some(Ok(plan)) = &validated.drill else { return Ok(None) };
    let target = target(validated, observed, scope);
    if target.is_none() && observed.drill_cron_job.is_none() {
        return Ok(None);
    }
    let suspend = validated.suspended.is_some() || target.is_none();
    let encrypted = target.as_ref().is_some_and(|(backup, ..)| is_encrypted(backup));
    let (backup, location, manifest_sha256) =
        target.map_or_else(Default::default, |(backup, location, sha256)| (backup.name_any(), location, sha256));
    let config = DrillConfig { backup, location, manifest_sha256, queries: plan.queries.clone() };
    let job = DrillJob { encrypted, ..plan.job.clone() };
    let job_template = drill_job(&validated.job.destination, &job, image, config)?;
    let name = drill_cron_job_name(&declared.name_any());
    Ok(Some(cron_job::of(declared, name, &plan.schedule, suspend, job_template)))
}

fn is_encrypted(backup: &DatabaseBackup) -> bool {
    backup.status.as_ref().is_some_and(|status| status.encrypted == Some(true))
}

/// Whether another object has the name of the CronJob.
pub(in crate::controllers::backup_schedule) fn is_taken(declared: &BackupSchedule, observed: &Observed) -> bool {
    observed.drill_cron_job.as_ref().is_some_and(|it| !is_ours(it, declared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, succeeded};
    use crate::controllers::backup_schedule::validate::example;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    fn declared(drill: Value) -> (BackupSchedule, Validated) {
        example(json!({"verification": {"drill": drill}}))
    }

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn good(name: &str, time: &str) -> DatabaseBackup {
        let mut status = succeeded(time);
        status["manifestSha256"] = json!("ab");
        backup(name, time, status)
    }

    fn cron_job(schedule: &BackupSchedule, validated: &Validated, observed: &Observed) -> Option<Value> {
        let scope = Scope::new(schedule, Some(validated), now());
        let desired = desired(schedule, validated, observed, &scope, &Installation::for_tests()).unwrap();
        desired.map(|it| serde_json::to_value(it).unwrap())
    }

    #[test]
    fn the_cron_job_names_the_newest_backup_that_counts() {
        let (schedule, validated) = declared(json!({"schedule": "H 5 * * 0",
            "queries": [{"name": "users", "sql": "SELECT count(*) FROM users", "expect": "> 0"}]}));
        let mut observed = Observed::default();
        assert!(cron_job(&schedule, &validated, &observed).is_none(), "there is nothing to restore");
        let mut unpublished = good("c", "2026-11-23T02:15:00Z");
        unpublished.status.as_mut().unwrap().manifest_sha256 = None;
        observed.backups = vec![good("a", "2026-11-21T02:15:00Z"), good("b", "2026-11-22T02:15:00Z"), unpublished];
        let found = cron_job(&schedule, &validated, &observed).unwrap();
        assert_eq!((&found["metadata"]["name"], &found["spec"]["suspend"]), (&json!("nightly-drill"), &json!(false)));
        assert!(!found["spec"]["schedule"].as_str().unwrap().contains('H'));
        let pod = &found["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        let config: Value = serde_json::from_str(pod["containers"][0]["env"][0]["value"].as_str().unwrap()).unwrap();
        assert_eq!((&config["drill"]["backup"], &config["drill"]["manifestSha256"]), (&json!("b"), &json!("ab")));
        assert_eq!(config["drill"]["queries"][0]["expect"], "> 0");
        // What it named was removed: nothing runs until there is another.
        observed.drill_cron_job = Some(serde_json::from_value(found).unwrap());
        observed.backups.clear();
        assert_eq!(cron_job(&schedule, &validated, &observed).unwrap()["spec"]["suspend"], true);
    }
}
