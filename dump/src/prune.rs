//! Removing what retention let go, and what failed runs left: this schedule's only.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Listed, MANIFEST, Manifest, ManifestError, Phase, Reason, ScheduleIdentity, Store, StoreError,
    catalog::{self, Run},
};

/// How old something without a manifest must be before it counts as left behind.
pub const GRACE: Duration = Duration::from_hours(24);

/// How many entries of each list fit into a container's message.
const SHORT: usize = 8;

/// What is to be removed.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// The schedule. Nothing of anyone else is touched, whatever is asked.
    pub ours: ScheduleIdentity,
    /// Locations to remove: what retention decided.
    pub delete: Vec<String>,
    /// Locations of runs that are still going on: never taken for leftovers, however old.
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

/// Something that was to be removed and was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Where it is.
    pub location: String,
    /// Why, as one word: `NotOurs`, or what the store said.
    pub reason: Reason,
    /// Why.
    pub message: String,
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Locations that were removed, or were gone already.
    pub deleted: Vec<String>,
    /// Locations that stay, against what was asked.
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
    /// Whether everything that was asked was done.
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
            refused.message = refused.message.chars().filter(|c| !c.is_control()).take(150).collect();
            refused.location = refused.location.chars().take(250).collect();
        }
        for location in &mut self.deleted {
            *location = location.chars().take(250).collect();
        }
        self.not_listed += (before - self.deleted.len() - self.refused.len()) as u64;
    }
}

/// Why a prune could not be carried out at all.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PruneError {
    /// The reason as one word.
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
/// One that cannot be removed does not keep the others: see [`PruneReport::refused`].
pub async fn prune(store: &Store, request: &PruneRequest) -> Result<PruneReport, PruneError> {
    let folder = catalog::folder_of(&request.ours)?;
    let mut runs = catalog::runs(store, &folder).await?;
    let mut report = PruneReport::default();
    for location in &request.delete {
        let refuse = |reason, message: String| Refused { location: location.clone(), reason, message };
        if !is_below(location, &folder) {
            report.refused.push(refuse(Reason::NotOurs, format!("it does not lie in {folder}")));
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
            || request.running.contains(location)
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
                    message: error.to_string(),
                });
            }
        }
    }
    report.aborted_uploads = store.abort_uploads(&folder, &request.running, older_than(request)).await?;
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
            message: "it has no manifest, so nothing says whose it is; it is swept when it is old".to_owned(),
        },
        _ => Keep { reason: error.reason(), message: error.to_string() },
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
    remove_objects(store, run).await.map_err(|error| Keep { reason: error.reason(), message: error.to_string() })
}

/// The manifest goes first: what remains when this breaks off is no backup any more, and is swept.
async fn remove_objects(store: &Store, run: &Run) -> Result<(), StoreError> {
    let is_manifest = |object: &&Listed| object.key.rsplit('/').next() == Some(MANIFEST);
    for object in run.objects.iter().filter(is_manifest).chain(run.objects.iter().filter(|object| !is_manifest(object)))
    {
        store.delete(&object.key).await?;
    }
    Ok(())
}

/// Whether a location is a run's folder right below this schedule's.
fn is_below(location: &str, folder: &str) -> bool {
    location
        .strip_prefix(folder)
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
