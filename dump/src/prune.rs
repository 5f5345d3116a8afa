//! Removing backups that retention does not keep, and leftovers of failed runs, of one schedule only.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Listed, MANIFEST, Manifest, ManifestError, Phase, Reason, ScheduleIdentity, Store, StoreError,
    catalog::{self, Run},
    identity::is_running,
    text::{error_chain, truncated},
};

/// The age from which a run without a manifest is a leftover.
pub const GRACE: Duration = Duration::from_hours(24);

/// How many entries of each list fit into a container's message.
const SHORT: usize = 8;

/// What to remove.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// The schedule. Nothing that belongs to another one is removed.
    pub ours: ScheduleIdentity,
    /// Locations to remove: what retention decided.
    pub delete: Vec<String>,
    /// How the run ids of runs that are still running start: never swept, whatever their age.
    pub running: Vec<String>,
    /// How old leftovers must be.
    pub grace: Duration,
    /// The time now.
    pub now: Timestamp,
}

impl PruneRequest {
    /// Removes these and leftovers older than a day.
    pub fn new(ours: ScheduleIdentity, delete: Vec<String>, now: Timestamp) -> Self {
        Self { ours, delete, running: Vec::new(), grace: GRACE, now }
    }
}

/// A location that was requested and not removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Where it is.
    pub location: String,
    /// `NotOurs`, or the store's reason.
    pub reason: Reason,
    /// Why.
    pub message: String,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Locations that were removed, or did not exist.
    pub deleted: Vec<String>,
    /// Locations that were requested and not removed.
    pub refused: Vec<Refused>,
    /// Leftovers of failed runs that were removed.
    pub swept: Vec<String>,
    /// Unfinished uploads that were ended.
    pub aborted_uploads: u64,
    /// Entries of these lists that did not fit into a container's message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_listed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl PruneReport {
    /// Whether every requested location was removed.
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty()
    }

    /// Cuts it to what fits into a container's message. What was refused matters most.
    pub(crate) fn shorten(&mut self) {
        let before = self.deleted.len() + self.refused.len() + self.swept.len();
        self.deleted.truncate(SHORT);
        self.refused.truncate(3);
        self.swept.truncate(0);
        for refused in &mut self.refused {
            refused.message = truncated(&refused.message.replace(char::is_control, " "), 150);
            refused.location = truncated(&refused.location, 250);
        }
        for location in &mut self.deleted {
            *location = truncated(location, 250);
        }
        self.not_listed += (before - self.deleted.len() - self.refused.len()) as u64;
    }
}

/// Why a prune failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PruneError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Store(error) => error.reason(),
        }
    }

    /// The failure as it is reported.
    pub fn failure(&self, store: &Store) -> Failure {
        Failure::new(Phase::Prune, self.reason(), self, &[store.secrets()])
    }
}

/// Removes dumps of this schedule and sweeps what its failed runs left.
///
/// Every manifest is read again first; what is not exactly this schedule's (its cluster, namespace, name and UID) stays.
/// One that cannot be removed does not prevent the others: see [`PruneReport::refused`].
pub async fn prune(store: &Store, request: &PruneRequest) -> Result<PruneReport, PruneError> {
    let directory = catalog::directory_of(&request.ours)?;
    let mut runs = catalog::runs(store, &directory).await?;
    let mut report = PruneReport::default();
    for location in &request.delete {
        let refuse = |reason, message: String| Refused { location: location.clone(), reason, message };
        if !is_below(location, &directory) {
            report.refused.push(refuse(Reason::NotOurs, format!("it is not below {directory}")));
            continue;
        }
        let Some(run) = runs.remove(location) else {
            report.deleted.push(location.clone());
            continue;
        };
        match remove(store, request, location, &run).await {
            Ok(()) => report.deleted.push(location.clone()),
            Err(Keep { reason, message }) => report.refused.push(refuse(reason, message)),
        }
    }
    for (location, run) in &runs {
        if run.has_manifest()
            || is_running(location, &request.running)
            || !run.objects.iter().all(|object| is_old(request, object))
        {
            continue;
        }
        match remove_objects(store, run).await {
            Ok(()) => report.swept.push(location.clone()),
            Err(error) => {
                report.refused.push(Refused {
                    location: location.clone(),
                    reason: error.reason(),
                    message: error_chain(&error),
                });
            }
        }
    }
    report.aborted_uploads = store.abort_uploads(&directory, &request.running, older_than(request)).await?;
    Ok(report)
}

/// Why a dump stays.
struct Keep {
    reason: Reason,
    message: String,
}

async fn remove(store: &Store, request: &PruneRequest, location: &str, run: &Run) -> Result<(), Keep> {
    let manifest = Manifest::read(store, location).await.map_err(|error| match &error {
        ManifestError::Store(cause) if catalog::is_gone(cause) => Keep {
            reason: Reason::NotOurs,
            message: "it has no manifest, so its owner is unknown; it is swept when it is old".to_owned(),
        },
        _ => Keep { reason: error.reason(), message: error_chain(&error) },
    })?;
    if manifest.location != location || !manifest.belongs_to(&request.ours) {
        let other = &manifest.identity;
        return Err(Keep {
            reason: Reason::NotOurs,
            message: format!(
                "its manifest names schedule {}/{} ({}) of cluster {}",
                other.namespace, other.schedule, other.schedule_uid, other.cluster_id
            ),
        });
    }
    remove_objects(store, run).await.map_err(|error| Keep { reason: error.reason(), message: error_chain(&error) })
}

/// The manifest is deleted first: what an interruption leaves is no backup any more, and is swept.
async fn remove_objects(store: &Store, run: &Run) -> Result<(), StoreError> {
    let is_manifest = |object: &&Listed| object.key.rsplit('/').next() == Some(MANIFEST);
    for object in run.objects.iter().filter(is_manifest).chain(run.objects.iter().filter(|object| !is_manifest(object)))
    {
        store.delete(&object.key).await?;
    }
    Ok(())
}

/// Whether a location is a run's directory right below this schedule's.
fn is_below(location: &str, directory: &str) -> bool {
    location
        .strip_prefix(directory)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|run| !run.is_empty() && !run.contains('/') && !run.starts_with('.'))
}

fn older_than(request: &PruneRequest) -> Timestamp {
    jiff::SignedDuration::try_from(request.grace)
        .ok()
        .and_then(|grace| request.now.checked_sub(grace).ok())
        .unwrap_or(Timestamp::MIN)
}

fn is_old(request: &PruneRequest, object: &Listed) -> bool {
    object.modified < older_than(request)
}
