//! The CronJob of a schedule. Pure.

use super::validate::Validated;
use crate::agent::config::cron_job_name;
use crate::backup_jobs::names::fingerprint;
use crate::backup_jobs::pod::{Image, dump_job};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use pgrail_crds::BackupSchedule;
use pgrail_crds::annotations::APPLIED;
use serde_json::Value;
use std::collections::BTreeMap;

/// The CronJob that a schedule should have.
pub(super) fn desired(
    schedule: &BackupSchedule,
    validated: &Validated,
    image: &Image,
) -> Result<CronJob, serde_json::Error> {
    let spec = &schedule.spec;
    let job_template = dump_job(&validated.order, image, None)?;
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
    let mark = fingerprint(&serde_json::to_string(&cron_job_spec)?);
    Ok(CronJob {
        metadata: ObjectMeta {
            name: Some(cron_job_name(&schedule.name_any())),
            namespace: schedule.namespace(),
            labels,
            annotations: Some(BTreeMap::from([(APPLIED.to_owned(), mark)])),
            owner_references: schedule.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(cron_job_spec),
        status: None,
    })
}

/// Whether a CronJob is this schedule's.
pub(super) fn is_ours(cron_job: &CronJob, schedule: &BackupSchedule) -> bool {
    cron_job.owner_references().iter().any(|owner| Some(&owner.uid) == schedule.metadata.uid.as_ref())
}

/// Whether a CronJob must be written: something else is declared than was last applied, or somebody changed it since.
pub(super) fn must_apply(current: &CronJob, desired: &CronJob) -> Result<bool, serde_json::Error> {
    if current.annotations().get(APPLIED) != desired.annotations().get(APPLIED) {
        return Ok(true);
    }
    let (current, desired) = (serde_json::to_value(&current.spec)?, serde_json::to_value(&desired.spec)?);
    Ok(!has(&current, &desired))
}

/// Whether everything in `desired` is in `current`, which may have defaults besides.
fn has(current: &Value, desired: &Value) -> bool {
    match (current, desired) {
        (Value::Object(current), Value::Object(desired)) => desired.iter().all(|(field, desired)| {
            // The apiserver writes quantities in its own way ("0.1" becomes "100m"): the mark is enough for these.
            ["resources", "sizeLimit"].contains(&field.as_str())
                || current.get(field).map_or_else(|| is_empty(desired), |current| has(current, desired))
        }),
        (Value::Array(current), Value::Array(desired)) => {
            current.len() == desired.len()
                && current.iter().zip(desired).all(|(current, desired)| has(current, desired))
        }
        (current, desired) => current == desired,
    }
}

/// Empty and absent are the same to the apiserver.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::backup_schedule::validate::example;
    use serde_json::json;

    fn cron_job(patch: Value) -> CronJob {
        let (schedule, validated) = example(patch);
        desired(&schedule, &validated, &Image::for_tests()).unwrap()
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

    #[test]
    fn it_is_written_only_when_there_is_something_to_write() {
        let desired = cron_job(json!({}));
        let mut current = desired.clone();
        assert!(!must_apply(&current, &desired).unwrap());
        // What the apiserver adds.
        let spec = current.spec.as_mut().unwrap();
        let pod = spec.job_template.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.dns_policy = Some("ClusterFirst".into());
        pod.containers[0].termination_message_path = Some("/dev/termination-log".into());
        assert!(!must_apply(&current, &desired).unwrap());
        // What somebody changed.
        current.spec.as_mut().unwrap().suspend = Some(true);
        assert!(must_apply(&current, &desired).unwrap());
        // What is declared no longer.
        let with = cron_job(json!({"activeDeadlineSeconds": 60}));
        assert!(must_apply(&with, &desired).unwrap());
        assert!(must_apply(&desired, &with).unwrap());
    }
}
