//! The CronJob of a schedule. Pure.

use super::validate::Validated;
use crate::backup_jobs::names::cron_job_name;
use crate::backup_jobs::pod::{Installation, dump_job};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use pgrail_crds::BackupSchedule;

pub(super) fn desired(
    schedule: &BackupSchedule,
    validated: &Validated,
    image: &Installation,
) -> Result<CronJob, serde_json::Error> {
    let spec = &schedule.spec;
    let job_template = dump_job(&validated.job, image, None)?;
    let labels = job_template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    let cron_job_spec = CronJobSpec {
        schedule: validated.schedule.expression().to_owned(),
        time_zone: Some(validated.schedule.time_zone_name().to_owned()),
        concurrency_policy: Some("Forbid".to_owned()),
        starting_deadline_seconds: Some(spec.starting_deadline_seconds),
        suspend: Some(validated.suspended.is_some()),
        successful_jobs_history_limit: Some(spec.successful_jobs_history_limit),
        failed_jobs_history_limit: Some(spec.failed_jobs_history_limit),
        job_template,
    };
    Ok(CronJob {
        metadata: ObjectMeta {
            name: Some(cron_job_name(&schedule.name_any())),
            namespace: schedule.namespace(),
            labels,
            owner_references: schedule.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(cron_job_spec),
        status: None,
    })
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
