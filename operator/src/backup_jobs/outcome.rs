//! The progress and the result of a backup, from its Job and that Job's pods. Pure.

use super::pod::{DUMP_CONTAINER, VERIFY_CONTAINER};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use pgrail_dump::{DumpResult, Message, VerifyResult};

/// How long after its deletion was due a pod counts as lost.
const LOST_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// Exit status of a process that was killed.
const KILLED: i32 = 137;

/// The progress of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No container runs yet; the message says why.
    Waiting(String),
    Dumping(String),
    /// The dump is in the store and is being read back.
    Verifying(Option<Box<DumpResult>>),
    /// Verified and published.
    Succeeded(Box<VerifyResult>),
    /// There is no backup.
    Failed(Rejection),
}

/// The progress of a Job. `pods` are its own: see [`super::jobs::pods_of`].
pub(crate) fn progress(job: &Job, pods: &[Pod], now: Timestamp) -> Progress {
    let pods = newest_first(pods);
    if let Some((reason, message)) = condition(job, "Failed") {
        return Progress::Failed(failure_of_job(&pods, reason, message));
    }
    if condition(job, "Complete").is_some() {
        // A result counts only once the Job is complete: until then its pods may still be replaced.
        if let Some(result) = pods.iter().find_map(|pod| verified(pod)) {
            return Progress::Succeeded(Box::new(result));
        }
        let message = "the Job succeeded, but its pod was deleted before its result was read: the dump is in the store, \
                       but is not counted";
        return Progress::Failed(Rejection::new(Reason::ResultLost, message));
    }
    match pods.first() {
        None => Progress::Waiting("waiting for the pod of the Job".to_owned()),
        Some(pod) if is_lost(pod, now) => Progress::Failed(Rejection::new(
            Reason::NodeLost,
            format!("the node {:?} of the pod was lost", node_of(pod).unwrap_or_default()),
        )),
        Some(pod) => progress_of_pod(pod, pods.get(1).copied()),
    }
}

/// Whether a pod should have been deleted long ago: its kubelet does not answer. Its Job waits for it for ever.
fn is_lost(pod: &Pod, now: Timestamp) -> bool {
    let deletion = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    node_of(pod).is_some()
        && !matches!(phase, Some("Succeeded" | "Failed"))
        && deletion.is_some_and(|deletion| now.duration_since(deletion) > LOST_AFTER)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn newest_first(pods: &[Pod]) -> Vec<&Pod> {
    let mut pods: Vec<_> = pods.iter().collect();
    let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    pods.sort_by_key(|pod| std::cmp::Reverse((age(pod), pod.metadata.name.clone())));
    pods
}

fn verified(pod: &Pod) -> Option<VerifyResult> {
    let ended = terminated(container(pod, VERIFY_CONTAINER)?)?;
    match message(ended) {
        Some(Message::Verify(result)) if ended.exit_code == 0 => Some(result),
        _ => None,
    }
}

fn dumped(pod: &Pod) -> Option<DumpResult> {
    let ended = terminated(container(pod, DUMP_CONTAINER)?)?;
    match message(ended) {
        Some(Message::Dump(result)) if ended.exit_code == 0 => Some(result),
        _ => None,
    }
}

/// The message of the newest attempt that has one, else the Job's own.
fn failure_of_job(pods: &[&Pod], reason: &str, message: &str) -> Rejection {
    let of_pod = pods.iter().find_map(|pod| failure_of_pod(pod));
    match (reason, of_pod) {
        ("DeadlineExceeded", _) => {
            Rejection::new(Reason::Stopped, "the run took longer than activeDeadlineSeconds and was stopped")
        }
        (_, Some(failed)) => failed,
        _ => Rejection::new(
            Reason::Failed,
            format!("the Job failed, and its pods report no reason: {reason}: {message}"),
        ),
    }
}

/// Why a pod failed, from the first of its containers that did.
fn failure_of_pod(pod: &Pod) -> Option<Rejection> {
    let containers = [DUMP_CONTAINER, VERIFY_CONTAINER];
    let ended = containers.iter().filter_map(|name| Some((*name, terminated(container(pod, name)?)?)));
    let of_container = ended.filter(|(_, ended)| ended.exit_code != 0).map(|(name, ended)| failure(name, ended)).next();
    of_container.or_else(|| {
        let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"))?;
        let message = status.message.clone().or_else(|| status.reason.clone())?;
        Some(Rejection::new(Reason::Failed, format!("the pod failed: {message}")))
    })
}

/// Why a container of the agent failed.
pub(crate) fn failure(name: &str, ended: &ContainerStateTerminated) -> Rejection {
    match message(ended) {
        Some(Message::Failed(failure)) => Rejection::new(agent_reason(failure.reason), failure.message),
        _ if ended.reason.as_deref() == Some("OOMKilled") => Rejection::new(
            Reason::OutOfMemory,
            format!("{name} exceeded its memory limit: raise it in spec.podTemplate.resources"),
        ),
        _ => {
            let killed = if ended.exit_code == KILLED { " (killed)" } else { "" };
            let message = ended.message.as_deref().unwrap_or_default().trim();
            let message = if message.is_empty() { "it wrote no message" } else { message };
            Rejection::new(Reason::Failed, format!("{name} ended with status {}{killed}: {message}", ended.exit_code))
        }
    }
}

/// The agent's reasons are reasons of conditions, too.
fn agent_reason(reason: pgrail_dump::Reason) -> Reason {
    Reason::named(reason.as_str()).unwrap_or(Reason::Failed)
}

fn progress_of_pod(pod: &Pod, before: Option<&Pod>) -> Progress {
    if let Some(failed) = failure_of_pod(pod) {
        return Progress::Waiting(format!(
            "this attempt failed and is retried: {}: {}",
            failed.reason.as_str(),
            failed.message
        ));
    }
    let earlier = before.and_then(failure_of_pod).map_or_else(String::new, |failed| {
        format!(" (the previous attempt failed: {}: {})", failed.reason.as_str(), failed.message)
    });
    let dump = container(pod, DUMP_CONTAINER);
    let state = dump.and_then(|status| status.state.as_ref());
    match state {
        Some(ContainerState { running: Some(_), .. }) => Progress::Dumping(format!("the dump is running{earlier}")),
        Some(ContainerState { terminated: Some(_), .. }) => match obstacle(container(pod, VERIFY_CONTAINER)) {
            Some(obstacle) => Progress::Waiting(format!("the dump is complete; {obstacle}{earlier}")),
            None => Progress::Verifying(dumped(pod).map(Box::new)),
        },
        _ => {
            let message =
                obstacle(dump).or_else(|| unscheduled(pod)).unwrap_or_else(|| "its pod is starting".to_owned());
            Progress::Waiting(format!("{message}{earlier}"))
        }
    }
}

/// What prevents a container from starting, if anything does.
fn obstacle(status: Option<&ContainerStatus>) -> Option<String> {
    let waiting = status?.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if ["ContainerCreating", "PodInitializing"].contains(&reason) {
        return None;
    }
    Some(format!("{} cannot start: {reason}: {}", status?.name, waiting.message.as_deref().unwrap_or_default()))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
    Some(format!("its pod cannot be scheduled: {}", scheduled.message.as_deref().unwrap_or_default()))
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
    Some((found.reason.as_deref().unwrap_or_default(), found.message.as_deref().unwrap_or_default()))
}

/// Whether an ended Job succeeded; `None` while it runs.
pub(crate) fn outcome(job: &Job) -> Option<bool> {
    match (condition(job, "Complete"), condition(job, "Failed")) {
        (Some(_), _) => Some(true),
        (None, Some(_)) => Some(false),
        (None, None) => None,
    }
}

pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    all.into_iter().flatten().flatten().find(|container| container.name == name)
}

pub(crate) fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// The agent's termination message.
pub(crate) fn message(ended: &ContainerStateTerminated) -> Option<Message> {
    Message::parse(ended.message.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(condition: Option<(&str, &str)>) -> Job {
        let conditions: Vec<Value> = condition
            .iter()
            .map(|(kind, reason)| json!({"type": kind, "status": "True", "reason": reason, "message": "said the Job"}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "nightly-dump-1"}, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn pod(created: &str, dump: Value, verify: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("pod-{created}"), "creationTimestamp": created},
            "status": {
                "initContainerStatuses": [status("dump", &dump)],
                "containerStatuses": [status("verify", &verify)],
            }
        }))
        .unwrap()
    }

    fn status(name: &str, state: &Value) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    fn running() -> Value {
        json!({"running": {"startedAt": "2026-11-23T02:15:00Z"}})
    }

    fn waiting(reason: &str) -> Value {
        json!({"waiting": {"reason": reason, "message": "said the kubelet"}})
    }

    fn ended(exit_code: i32, message: &str) -> Value {
        json!({"terminated": {"exitCode": exit_code, "reason": "Error", "message": message}})
    }

    fn dump_message() -> Value {
        json!({"kind": "dump", "location": "c/shop/nightly/x", "backupName": "nightly-20261123-021500",
               "startTime": "2026-11-23T02:15:00Z", "snapshotTime": "2026-11-23T02:15:01Z", "completionTime": "2026-11-23T02:16:00Z",
               "sizeBytes": 8, "databaseBytes": 100, "tables": 2, "rows": 1_300_000, "largeObjects": 0, "serverVersion": "17.2",
               "clientVersion": "18.1", "sha256": "ab", "encrypted": false, "partial": false})
    }

    fn verify_message() -> String {
        json!({"kind": "verify", "backup": dump_message(), "level": "ReadBack", "decoded": true, "time": "2026-11-23T02:17:00Z",
               "seconds": 60, "manifest": "c/shop/nightly/x/manifest.json"})
        .to_string()
    }

    fn failed_message(reason: &str) -> String {
        json!({"kind": "failed", "phase": "dump", "reason": reason, "message": "pg_dump: error: lock", "retryable": true}).to_string()
    }

    fn now() -> Timestamp {
        "2026-11-23T03:00:00Z".parse().unwrap()
    }

    const FIRST: &str = "2026-11-23T02:15:00Z";
    const SECOND: &str = "2026-11-23T02:20:00Z";

    #[test]
    fn progress_of_a_run_that_succeeds() {
        let initializing = waiting("PodInitializing");
        let text_of = |progress: Progress| match progress {
            Progress::Waiting(message) => format!("Pending: {message}"),
            Progress::Dumping(message) => format!("Running: {message}"),
            Progress::Verifying(dump) => format!("Verifying: {}", dump.unwrap().rows),
            Progress::Succeeded(result) => format!("Succeeded: {}", result.backup.rows),
            Progress::Failed(failed) => format!("Failed: {}: {}", failed.reason.as_str(), failed.message),
        };
        let dumped = ended(0, &dump_message().to_string());
        let complete = Some(("Complete", ""));
        for (pods, condition, expected) in [
            (vec![], None, "Pending: waiting for the pod of the Job"),
            (vec![pod(FIRST, initializing.clone(), initializing.clone())], None, "Pending: its pod is starting"),
            (
                vec![pod(FIRST, waiting("ImagePullBackOff"), initializing.clone())],
                None,
                "Pending: dump cannot start: ImagePullBackOff: said the kubelet",
            ),
            (vec![pod(FIRST, running(), initializing.clone())], None, "Running: the dump is running"),
            (vec![pod(FIRST, dumped.clone(), running())], None, "Verifying: 1300000"),
            (vec![pod(FIRST, dumped.clone(), initializing.clone())], None, "Verifying: 1300000"),
            (vec![pod(FIRST, dumped.clone(), ended(0, &verify_message()))], None, "Verifying: 1300000"),
            (vec![pod(FIRST, dumped.clone(), ended(0, &verify_message()))], complete, "Succeeded: 1300000"),
            (
                vec![pod(FIRST, ended(1, &failed_message("LockTimeout")), initializing.clone())],
                None,
                "Pending: this attempt failed and is retried: LockTimeout: pg_dump: error: lock",
            ),
            (
                vec![
                    pod(FIRST, ended(1, &failed_message("LockTimeout")), initializing.clone()),
                    pod(SECOND, running(), initializing.clone()),
                ],
                None,
                "Running: the dump is running (the previous attempt failed: LockTimeout: pg_dump: error: lock)",
            ),
        ] {
            assert_eq!(text_of(progress(&job(condition), &pods, now())), expected);
        }
    }

    #[test]
    fn a_result_counts_only_once_the_job_is_complete() {
        let good = pod(FIRST, ended(0, &dump_message().to_string()), ended(0, &verify_message()));
        let result = |condition| progress(&job(condition), std::slice::from_ref(&good), now());
        assert!(matches!(result(Some(("Complete", ""))), Progress::Succeeded(_)));
        assert!(matches!(result(None), Progress::Verifying(_)));
        assert!(matches!(result(Some(("Failed", "DeadlineExceeded"))), Progress::Failed(_)));
    }

    #[test]
    fn a_pod_that_its_node_does_not_delete_is_lost() {
        let mut pod = pod(FIRST, running(), waiting("PodInitializing"));
        pod.spec = serde_json::from_value(json!({"containers": [], "nodeName": "node-1"})).unwrap();
        let state = |pod: &Pod| progress(&job(None), std::slice::from_ref(pod), now());
        assert!(matches!(state(&pod), Progress::Dumping(_)));
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-23T02:56:00Z")).unwrap();
        assert!(matches!(state(&pod), Progress::Dumping(_)), "it may still stop");
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-23T02:54:00Z")).unwrap();
        let Progress::Failed(rejection) = state(&pod) else { panic!() };
        assert_eq!((rejection.reason, rejection.message.contains("node-1")), (Reason::NodeLost, true));
    }

    #[test]
    fn a_message_of_a_failed_container_is_no_success() {
        let odd = pod(FIRST, ended(0, &dump_message().to_string()), ended(1, &verify_message()));
        assert!(!matches!(progress(&job(Some(("Complete", ""))), &[odd], now()), Progress::Succeeded(_)));
    }

    fn failed(pods: &[Pod], reason: &str) -> (String, String) {
        match progress(&job(Some(("Failed", reason))), pods, now()) {
            Progress::Failed(failed) => (failed.reason.as_str().to_owned(), failed.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_reported_failure_is_the_jobs() {
        let initializing = waiting("PodInitializing");
        let newest = [
            pod(FIRST, ended(1, &failed_message("LockTimeout")), initializing.clone()),
            pod(SECOND, ended(78, &failed_message("StoreFull")), initializing.clone()),
        ];
        assert_eq!(failed(&newest, "PodFailurePolicy"), ("StoreFull".into(), "pg_dump: error: lock".into()));
        let unreadable = [pod(FIRST, ended(0, &dump_message().to_string()), ended(101, "thread panicked"))];
        assert_eq!(
            failed(&unreadable, "BackoffLimitExceeded"),
            ("Failed".into(), "verify ended with status 101: thread panicked".into())
        );
        let mut killed = ended(137, "");
        killed["terminated"]["reason"] = json!("OOMKilled");
        assert_eq!(failed(&[pod(FIRST, killed, initializing.clone())], "BackoffLimitExceeded").0, "OutOfMemory");
        assert_eq!(failed(&[], "DeadlineExceeded").0, "Stopped");
        assert!(failed(&[], "BackoffLimitExceeded").1.contains("BackoffLimitExceeded: said the Job"));
    }

    #[test]
    fn a_lost_result_is_reported() {
        match progress(&job(Some(("Complete", ""))), &[], now()) {
            Progress::Failed(failed) => assert_eq!(failed.reason, Reason::ResultLost),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_that_cannot_be_scheduled_is_reported() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": FIRST},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}
        }))
        .unwrap();
        assert_eq!(
            progress(&job(None), &[pod], now()),
            Progress::Waiting("its pod cannot be scheduled: 0/3 nodes are available".into())
        );
    }
}
