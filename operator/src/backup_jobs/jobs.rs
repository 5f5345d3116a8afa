//! Requests to the apiserver about Jobs and their pods.

use super::names::{Task, backup_name};
use super::outcome::{container, failure, message, terminated};
use super::pod::INVENTORY_CONTAINER;
use crate::agent::config::{AgentConfig, CONFIG_VARIABLE};
use crate::agent::run_name::run_id_prefix;
use crate::context::Context;
use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{BACKUP_LABEL, SCHEDULE_LABEL, TASK_LABEL};
use pgrail_dump::{Inventory, Message, PruneReport};

pub(crate) fn job_of(template: JobTemplateSpec, name: &str) -> Job {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..template.metadata.unwrap_or_default() };
    Job { metadata, spec: template.spec, status: None }
}

/// Creates a Job. An existing one is observed by the next reconcile.
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

/// Why a Job with one container failed, as its newest pod reports it.
pub(crate) async fn failure_of(job: &Job, name: &str, context: &Context) -> Result<String, kube::Error> {
    let pods = pods_of(job, context).await?;
    let failure = newest(&pods).and_then(|pod| failure_of_pod(pod, name));
    Ok(failure.unwrap_or_else(|| "its Job failed, and its pods report no reason".to_owned()))
}

/// What a complete inventory found; `None` if its pod was deleted.
pub(crate) async fn inventory_of(job: &Job, context: &Context) -> Result<Option<Inventory>, kube::Error> {
    let pods = pods_of(job, context).await?;
    let ended = |pod: &Pod| terminated(container(pod, INVENTORY_CONTAINER)?).cloned();
    let of_pod = |pod: &Pod| match message(&ended(pod).filter(|ended| ended.exit_code == 0)?)? {
        Message::Inventory(inventory) => Some(inventory),
        _ => None,
    };
    Ok(pods.iter().find_map(of_pod))
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0))
}

fn failure_of_pod(pod: &Pod, name: &str) -> Option<String> {
    let ended = terminated(container(pod, name)?)?;
    if let Some(Message::Prune(PruneReport { refused, .. })) = message(ended) {
        let first = refused.first()?;
        let more = if refused.len() > 1 { format!(" (and {} more)", refused.len() - 1) } else { String::new() };
        Some(format!("{}: {}: {}{more}", first.location, first.reason, first.message))
    } else {
        let failed = failure(name, ended);
        Some(format!("{}: {}", failed.reason.as_str(), failed.message))
    }
}

pub(crate) async fn pods_of(job: &Job, context: &Context) -> Result<Vec<Pod>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &job.namespace().unwrap_or_default());
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", job.name_any()));
    let mut pods = pods.list(&selector).await?.items;
    // A label is not enough: anyone who can create pods can set it. Nor is the name: an earlier Job may have had it.
    pods.retain(|pod| is_controlled_by(pod, job));
    Ok(pods)
}

/// Whether an object's controller is this very one.
pub(crate) fn is_controlled_by(object: &impl ResourceExt, owner: &impl ResourceExt) -> bool {
    let controllers = object.owner_references().iter().filter(|reference| reference.controller == Some(true));
    controllers.into_iter().any(|reference| owner.uid().is_some_and(|uid| uid == reference.uid))
}

/// How the run ids of the dumps that run for a schedule start.
pub(crate) async fn running_run_ids(
    namespace: &str,
    schedule: &str,
    context: &Context,
) -> Result<Vec<String>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let labels = format!("{SCHEDULE_LABEL}={schedule},{TASK_LABEL}={}", Task::Dump.as_str());
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pods = pods.list(&ListParams::default().labels(&labels)).await?.items;
    Ok(pods.iter().filter(|pod| !has_ended(pod)).filter_map(|pod| Some(run_id_prefix(&pod.uid()?))).collect())
}

/// The configuration of a Job's agent. The schedule may have changed since.
pub(crate) fn config_of(job: &Job) -> Option<AgentConfig> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let variables = pod.containers.first()?.env.as_ref()?;
    let config = variables.iter().find(|variable| variable.name == CONFIG_VARIABLE)?.value.as_deref()?;
    serde_json::from_str(config).ok()
}

/// The name of the `DatabaseBackup` of a Job or of its pod.
pub(crate) fn backup_of(object: &impl ResourceExt, job: &str) -> Option<String> {
    if let Some(name) = object.annotations().get(BACKUP_LABEL) {
        return Some(name.clone());
    }
    let schedule = object.labels().get(SCHEDULE_LABEL)?;
    Some(backup_name(schedule, job))
}
