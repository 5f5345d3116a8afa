//! What to do for a restore: create its Job, or report the one it has. Pure.

use super::observe::Observed;
use super::validate::{mode, new_name};
use crate::backup_jobs::outcome::{container, failure, message, outcome, terminated};
use crate::backup_jobs::pod::RESTORE_CONTAINER;
use crate::kubernetes::rejection::{Reason, Rejection};
use k8s_openapi::api::core::v1::Pod;
use pgrail_crds::{DatabaseRestore, RestoreMode, RestorePhase};
use pgrail_dump::{Message, RestoreResult};

#[derive(Clone, Debug)]
pub(super) enum Step {
    CreateJob,
    Report(Outcome),
}

/// The state of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It cannot start.
    Rejected(Rejection),
    /// The source resolved to this backup.
    Selected(String),
    /// Its container does not run yet; the message says why.
    Waiting(String),
    Running(String),
    /// The rows were restored, or it is known what prevents it.
    Ended(Box<RestoreResult>),
    Failed(Rejection),
}

pub(super) fn plan(restore: &DatabaseRestore, observed: &Observed) -> Step {
    let Observed { job_name, job, is_ours, pods } = observed;
    Step::Report(match job {
        Some(_) if !is_ours => Outcome::Rejected(Rejection::new(
            Reason::NameTaken,
            format!("a Job {job_name:?} of another owner exists: delete it, or give the restore another name"),
        )),
        Some(job) => match outcome(job) {
            Some(true) => ended(restore, pods),
            Some(false) => Outcome::Failed(failure_of(pods)),
            None => progress(pods),
        },
        // The Job may have inserted rows: it is never created again.
        None if has_run(restore) => Outcome::Failed(lost(restore, "the Job was deleted while it ran")),
        None => return Step::CreateJob,
    })
}

fn has_run(restore: &DatabaseRestore) -> bool {
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(RestorePhase::Running))
}

fn lost(restore: &DatabaseRestore, what: &str) -> Rejection {
    let remedy = match mode(restore) {
        RestoreMode::InPlace => "compare the tables, with another restore and dryRun".to_owned(),
        RestoreMode::NewSchema | RestoreMode::NewDatabase => {
            format!("if {:?} exists, drop it, and create another restore", new_name(restore))
        }
    };
    let message = format!("{what}, before its result was read: {remedy}");
    Rejection::new(Reason::ResultLost, message)
}

fn ended(restore: &DatabaseRestore, pods: &[Pod]) -> Outcome {
    let result = |pod: &Pod| match message(terminated(container(pod, RESTORE_CONTAINER)?)?) {
        Some(Message::Restore(result)) => Some(result),
        _ => None,
    };
    match pods.iter().find_map(result) {
        Some(result) => Outcome::Ended(Box::new(result)),
        None => Outcome::Failed(lost(restore, "the pod of the Job was deleted")),
    }
}

fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn failure_of(pods: &[Pod]) -> Rejection {
    let of_pod =
        newest(pods).and_then(|pod| Some(failure(RESTORE_CONTAINER, terminated(container(pod, RESTORE_CONTAINER)?)?)));
    of_pod.unwrap_or_else(|| Rejection::new(Reason::Failed, "the Job failed, and its pods report no reason"))
}

fn progress(pods: &[Pod]) -> Outcome {
    let Some(pod) = newest(pods) else { return Outcome::Waiting("waiting for the pod of the Job".to_owned()) };
    let status = container(pod, RESTORE_CONTAINER);
    let state = status.and_then(|status| status.state.as_ref());
    if state.is_some_and(|state| state.running.is_some() || state.terminated.is_some()) {
        return Outcome::Running("the restore is running".to_owned());
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let obstacle = waiting.map(|waiting| {
        format!("{}: {}", waiting.reason.as_deref().unwrap_or_default(), waiting.message.as_deref().unwrap_or_default())
    });
    Outcome::Waiting(obstacle.unwrap_or_else(|| "its pod is starting".to_owned()))
}
