//! The dumps that a schedule of the same name and namespace made in another cluster, which is lost. Pure.
//!
//! They are recorded, so that they can be restored. Nothing is written to the directory of another cluster, and nothing is
//! removed from it.

use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::rejection::{Reason, Rejection};
use crate::kubernetes::text::truncated;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::annotations::ADOPT_CLUSTER;
use pgrail_crds::conditions::CLUSTER_ADOPTED;
use pgrail_crds::{BackupSchedule, LostClusterCheck, StoreCheck};
use pgrail_dump::is_cluster_id;

/// How long after a failure the directory is listed again.
const RETRY: SignedDuration = SignedDuration::from_mins(30);
/// How much of an annotation that is no ID is repeated, in bytes.
const SHOWN: usize = 64;

/// The cluster that the annotation names.
pub(super) fn declared(schedule: &BackupSchedule, cluster_id: &str) -> Option<Result<String, Rejection>> {
    let id = schedule.annotations().get(ADOPT_CLUSTER)?;
    let problem = if !is_cluster_id(id) {
        "is not the ID of a cluster, which is the UID of its namespace kube-system"
    } else if id == cluster_id {
        "is the ID of this cluster, whose dumps are recorded anyway"
    } else {
        return Some(Ok(id.clone()));
    };
    let shown = truncated(id, SHOWN);
    let message = format!(
        "the annotation {ADOPT_CLUSTER}: {shown:?} {problem}: set it to the first directory of the locations that `pgrail backups \
         list` prints, or remove it"
    );
    Some(Err(Rejection::new(Reason::InvalidAnnotation, message)))
}

/// Whether the cluster was not listed yet, or could not be.
pub(super) fn is_due(check: &StoreCheck, cluster: Option<&str>, now: Timestamp) -> bool {
    let Some(cluster) = cluster else { return false };
    match check.lost_cluster.as_ref().filter(|lost| lost.id == cluster) {
        Some(LostClusterCheck { failure: Some(_), .. }) => now.duration_since(check.time.0) >= RETRY,
        Some(_) => false,
        None => true,
    }
}

/// The condition exists while a cluster is declared, or while others were found.
pub(super) fn report(
    schedule: &BackupSchedule,
    declared: Option<&Result<String, Rejection>>,
    check: Option<&StoreCheck>,
    conditions: &mut Conditions,
) {
    let (status, reason, message) = match declared {
        Some(Err(Rejection { reason, message })) => (Status::False, *reason, message.clone()),
        Some(Ok(cluster)) => {
            let lost = check.and_then(|check| check.lost_cluster.as_ref());
            evaluate(schedule, cluster, lost.filter(|lost| lost.id == *cluster))
        }
        None => {
            let clusters = check.map_or(&[][..], |check| &check.other_clusters);
            let Some(first) = clusters.first() else { return };
            (Status::False, Reason::OtherCluster, others(schedule, first, clusters))
        }
    };
    conditions.set(CLUSTER_ADOPTED, status, reason, message);
}

fn evaluate(schedule: &BackupSchedule, cluster: &str, check: Option<&LostClusterCheck>) -> (Status, Reason, String) {
    let (namespace, name) = (schedule.namespace().unwrap_or_default(), schedule.name_any());
    let directory = format!("{cluster}/{namespace}/{name}");
    match check {
        None => {
            let message = format!("the directory {directory} of the store was not listed yet");
            (Status::Unknown, Reason::Pending, message)
        }
        Some(LostClusterCheck { failure: Some(failure), .. }) => {
            let message =
                format!("the directory {directory} of the store could not be listed, which is retried: {failure}");
            (Status::False, Reason::StoreUnchecked, message)
        }
        Some(check) if check.dumps == 0 => {
            let message = format!(
                "there are no dumps in the directory {directory} of the store: compare {ADOPT_CLUSTER}, and the name and namespace of this \
                 object, with the locations that `pgrail backups list` prints"
            );
            (Status::False, Reason::NoDumps, message)
        }
        Some(check) => {
            let recorded = check.dumps - check.unrecorded - check.unreadable;
            let more = if check.unrecorded > 0 {
                "; the newest come first, and at most 100 are recorded of all that were found"
            } else {
                ""
            };
            let unusable = match check.unreadable {
                0 => String::new(),
                count => format!("; the manifests of {count} cannot be used, or are of others"),
            };
            let message = format!(
                "{recorded} of {} dumps in the directory {directory} of the store are recorded{more}{unusable}. To restore one: kubectl \
                 pgrail adopt NAME",
                check.dumps
            );
            (if recorded > 0 { Status::True } else { Status::False }, Reason::Discovered, message)
        }
    }
}

fn others(schedule: &BackupSchedule, first: &str, clusters: &[String]) -> String {
    format!(
        "the store contains dumps that a BackupSchedule of this name and namespace made in another cluster ({}). If that cluster is \
         lost, record its dumps here: kubectl -n {} annotate bsched {} {ADOPT_CLUSTER}={first}",
        clusters.join(", "),
        schedule.namespace().unwrap_or_default(),
        schedule.name_any(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples;
    use serde_json::{Value, json};

    const LOST: &str = "11111111-2222-3333-4444-555555555555";
    const HERE: &str = "99999999-2222-3333-4444-555555555555";

    fn annotated(value: &str) -> BackupSchedule {
        let mut schedule = examples::schedule(json!({}));
        schedule.annotations_mut().insert(ADOPT_CLUSTER.into(), value.into());
        schedule
    }

    fn check(change: &Value) -> StoreCheck {
        let time = "2026-11-23T12:00:00Z";
        let mut check =
            json!({"time": time, "dumps": 0, "missing": 0, "unrecorded": 0, "unreadable": 0, "newestTime": time});
        check.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(check).unwrap()
    }

    fn lost(dumps: i64, unrecorded: i64, failure: Option<&str>) -> StoreCheck {
        check(
            &json!({"lostCluster": {"id": LOST, "dumps": dumps, "unrecorded": unrecorded, "unreadable": 0, "failure": failure}}),
        )
    }

    #[test]
    fn the_annotation_is_the_id_of_another_cluster() {
        assert!(declared(&examples::schedule(json!({})), HERE).is_none());
        assert_eq!(declared(&annotated(LOST), HERE), Some(Ok(LOST.to_owned())));
        let long = "a".repeat(200_000);
        for bad in ["", "..", "../../x", "a/b", "local", HERE, &format!("{LOST}/other"), &format!("{LOST}\n"), &long] {
            let rejection = declared(&annotated(bad), HERE).unwrap().unwrap_err();
            assert_eq!(rejection.reason, Reason::InvalidAnnotation, "{bad}");
            let message = rejection.message;
            assert!(message.contains(ADOPT_CLUSTER) && message.contains("or remove it"), "{message}");
            assert!(message.len() < 400 && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_cluster_is_listed_once_it_is_named_and_again_after_a_failure() {
        let due = |check: &StoreCheck, cluster, now: &str| is_due(check, cluster, now.parse().unwrap());
        let (soon, later) = ("2026-11-23T12:29:00Z", "2026-11-23T12:30:00Z");
        assert!(due(&check(&json!({})), Some(LOST), soon));
        assert!(due(&lost(1, 0, None), Some(HERE), soon), "another one");
        assert!(!due(&lost(1, 0, None), Some(LOST), later));
        assert!(!due(&lost(1, 0, None), None, later));
        let failed = lost(0, 0, Some("AccessDenied"));
        assert!(!due(&failed, Some(LOST), soon) && due(&failed, Some(LOST), later));
    }

    #[test]
    fn the_condition_shows_what_was_found_and_what_to_do() {
        let reported = |value: Option<&str>, check: Option<&StoreCheck>| {
            let schedule = value.map_or_else(|| examples::schedule(json!({})), annotated);
            let mut conditions = Conditions::new(&[], None, "2026-11-23T12:00:00Z".parse().unwrap());
            report(&schedule, declared(&schedule, HERE).as_ref(), check, &mut conditions);
            conditions.finish().pop().map(|it| (format!("{} {}", it.status, it.reason), it.message))
        };
        assert_eq!(reported(None, Some(&check(&json!({})))), None);
        for (value, check, expected, text) in [
            (Some(LOST), check(&json!({})), "Unknown Pending", "not listed yet"),
            (Some("x"), check(&json!({})), "False InvalidAnnotation", ADOPT_CLUSTER),
            (Some(LOST), lost(0, 0, None), "False NoDumps", "/shop/nightly of the store"),
            (Some(LOST), lost(0, 0, Some("AccessDenied: no")), "False StoreUnchecked", "AccessDenied: no"),
            (Some(LOST), lost(3, 0, None), "True Discovered", "3 of 3 dumps"),
            (Some(LOST), lost(300, 200, None), "True Discovered", "at most 100"),
            (Some(HERE), lost(3, 0, None), "False InvalidAnnotation", "this cluster"),
            (
                None,
                check(&json!({"otherClusters": [LOST]})),
                "False OtherCluster",
                "annotate bsched nightly pgrail.dev/adopt-cluster=11111111-2222",
            ),
        ] {
            let (state, message) = reported(value, Some(&check)).unwrap();
            assert_eq!(state, expected, "{message}");
            assert!(message.contains(text), "{message}");
        }
    }
}
