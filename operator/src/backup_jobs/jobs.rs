//! Jobs and their pods at the apiserver.

use super::outcome::{container, failure, message, terminated};
use super::pod::PRUNE_CONTAINER;
use crate::agent::config::{AgentConfig, CONFIG_VARIABLE, backup_name};
use crate::context::Context;
use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{BACKUP_LABEL, SCHEDULE_LABEL};
use pgrail_dump::{Message, PruneReport};

/// A Job from a template.
pub(crate) fn job_of(template: JobTemplateSpec, name: &str) -> Job {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..template.metadata.unwrap_or_default() };
    Job { metadata, spec: template.spec, status: None }
}

/// Creates a Job. One that is there already is looked at the next time.
pub(crate) async fn create(jobs: &Api<Job>, job: &Job) -> Result<(), kube::Error> {
    match jobs.create(&PostParams::default(), job).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Deletes a Job with its pods.
pub(crate) async fn delete(jobs: &Api<Job>, name: &str) -> Result<(), kube::Error> {
    match jobs.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Why a prune failed, in the words of its newest pod.
pub(crate) async fn prune_failure(context: &Context, namespace: &str, job: &Job) -> Result<String, kube::Error> {
    let pods = pods_of(context, namespace, &job.name_any()).await?;
    let newest = pods.iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
    Ok(newest.and_then(words).unwrap_or_else(|| "its Job failed without a word".to_owned()))
}

fn words(pod: &Pod) -> Option<String> {
    let ended = terminated(container(pod, PRUNE_CONTAINER)?)?;
    if let Some(Message::Prune(PruneReport { refused, .. })) = message(ended) {
        let first = refused.first()?;
        let more = if refused.len() > 1 { format!(" (and {} more)", refused.len() - 1) } else { String::new() };
        Some(format!("{}: {}: {}{more}", first.location, first.reason, first.message))
    } else {
        let failed = failure(PRUNE_CONTAINER, ended);
        Some(format!("{}: {}", failed.reason, failed.message))
    }
}

/// The pods of a Job.
pub(crate) async fn pods_of(context: &Context, namespace: &str, job: &str) -> Result<Vec<Pod>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    Ok(pods.list(&selector).await?.items)
}

/// What the agent of a Job was told: true for its pods whatever became of the schedule meanwhile.
pub(crate) fn config_of(job: &Job) -> Option<AgentConfig> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let variables = pod.containers.first()?.env.as_ref()?;
    let config = variables.iter().find(|variable| variable.name == CONFIG_VARIABLE)?.value.as_deref()?;
    serde_json::from_str(config).ok()
}

/// The name of the `DatabaseBackup` that a Job or a pod of ours belongs to.
pub(crate) fn backup_of(object: &impl ResourceExt, job: &str) -> Option<String> {
    if let Some(name) = object.annotations().get(BACKUP_LABEL) {
        return Some(name.clone());
    }
    let schedule = object.labels().get(SCHEDULE_LABEL)?;
    Some(backup_name(schedule, job))
}
