//! The CronJobs of a schedule. Pure.

use super::cron::Schedule;
use super::validate::Validated;
use crate::backup_jobs::names::cron_job_name;
use crate::backup_jobs::pod::{Installation, dump_job};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobTemplateSpec};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use pgrail_crds::BackupSchedule;

pub(super) fn desired(
    declared: &BackupSchedule,
    validated: &Validated,
    image: &Installation,
) -> Result<CronJob, serde_json::Error> {
    let job_template = dump_job(&validated.job, image, None)?;
    let name = cron_job_name(&declared.name_any());
    Ok(of(declared, name, &validated.schedule, validated.suspended.is_some(), job_template))
}

/// A CronJob of a schedule, with the deadline and the history that it declares.
pub(super) fn of(
    declared: &BackupSchedule,
    name: String,
    schedule: &Schedule,
    suspend: bool,
    job_template: JobTemplateSpec,
) -> CronJob {
    let spec = &declared.spec;
    CronJob {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: declared.namespace(),
            labels: job_template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
            owner_references: declared.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(CronJobSpec {
            schedule: schedule.expression().to_owned(),
            time_zone: Some(schedule.time_zone_name().to_owned()),
            concurrency_policy: Some("Forbid".to_owned()),
            starting_deadline_seconds: Some(spec.starting_deadline_seconds),
            suspend: Some(suspend),
            successful_jobs_history_limit: Some(spec.successful_jobs_history_limit),
            failed_jobs_history_limit: Some(spec.failed_jobs_history_limit),
            job_template,
        }),
        status: None,
    }
}

pub(super) fn is_ours(cron_job: &CronJob, schedule: &BackupSchedule) -> bool {
    cron_job.owner_references().iter().any(|owner| Some(&owner.uid) == schedule.metadata.uid.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::backup_schedule::validate::example;
    use serde_json::{Value, json};

    fn cron_job(patch: Value) -> CronJob {
        let (schedule, validated) = example(patch);
        desired(&schedule, &validated, &Installation::for_tests()).unwrap()
    }

    #[test]
    fn a_cron_job_as_declared() {
        let cron_job =
            serde_json::to_value(cron_job(json!({"timeZone": "europe/berlin", "schedule": "H 2 * * *"}))).unwrap();
        assert_eq!(cron_job["metadata"]["name"], "nightly-dump");
        let owner = &cron_job["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["kind"], &owner["uid"], &owner["controller"]),
            (&json!("BackupSchedule"), &json!("schedule-uid"), &json!(true))
        );
        let spec = &cron_job["spec"];
        assert_eq!((&spec["timeZone"], &spec["concurrencyPolicy"]), (&json!("Europe/Berlin"), &json!("Forbid")));
        assert_eq!((&spec["startingDeadlineSeconds"], &spec["suspend"]), (&json!(3600), &json!(false)));
        assert!(!spec["schedule"].as_str().unwrap().contains('H'));
        assert_eq!(spec["jobTemplate"]["metadata"]["labels"]["pgrail.dev/schedule"], "nightly");
    }
}
