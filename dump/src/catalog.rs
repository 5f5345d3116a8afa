//! The manifests in a store: this schedule's, foreign ones, and unreadable ones.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use crate::{
    Listed, MANIFEST, Manifest, ManifestError, ScheduleIdentity, Store, StoreError, StoreUrlError, text::error_chain,
};

/// An object of this name in a dump's directory removes the dump from every listing. Dumps are never changed.
pub const HIDDEN: &str = "hidden.json";

/// The most objects that are listed of one schedule, whose memory is bounded: what else can write to a store is not trusted.
const LISTED_OF_A_SCHEDULE: usize = 50_000;

/// The most objects that are listed of a whole store.
const LISTED_OF_A_STORE: usize = 1_000_000;

/// How many manifests are read at once.
const READS: usize = 4;

/// Directories between a store's prefix and a dump's objects: cluster, namespace, schedule, run.
const DEPTH: usize = 4;

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The whole store below its prefix: whatever is not of this schedule is foreign.
    Everything(&'a ScheduleIdentity),
    /// One schedule's directory. A manifest in it may still be foreign: of an earlier schedule of the same name.
    Schedule(&'a ScheduleIdentity),
}

/// What was found, newest first.
#[derive(Debug, Default)]
pub struct Listing {
    /// The schedule's own published dumps.
    pub ours: Vec<Manifest>,
    /// Published dumps of others: read-only until adopted.
    pub discovered: Vec<Manifest>,
    /// Locations whose manifest cannot be read, and why: damaged, of a newer version, or not where it belongs.
    pub unreadable: Vec<Unreadable>,
}

/// A manifest that is there and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The directory below the store's prefix.
    pub location: String,
    /// Why.
    pub problem: String,
}

impl Manifest {
    /// Whether this dump belongs to exactly that schedule: the same name is not enough.
    pub fn belongs_to(&self, schedule: &ScheduleIdentity) -> bool {
        self.identity.schedule_identity() == *schedule
    }

    /// Whether this schedule, or an earlier one of the same name in the same namespace and cluster, made the dump.
    pub(crate) fn is_of_name(&self, schedule: &ScheduleIdentity) -> bool {
        let identity = self.identity.schedule_identity();
        ScheduleIdentity { schedule_uid: schedule.schedule_uid.clone(), ..identity } == *schedule
    }
}

/// Lists published dumps. Dumps without a manifest do not exist and are not mentioned.
pub async fn list(store: &Store, scope: Scope<'_>) -> Result<Listing, StoreError> {
    let (schedule, directory) = match scope {
        Scope::Everything(schedule) => (schedule, String::new()),
        Scope::Schedule(schedule) => (schedule, directory_of(schedule)?),
    };
    let runs = runs(store, &directory).await?;
    let published: Vec<String> =
        runs.into_iter().filter(|(_, run)| run.is_published()).map(|(location, _)| location).collect();
    let mut found = futures::stream::iter(published)
        .map(|location| async move {
            let manifest = Manifest::read(store, &location).await;
            (location, manifest)
        })
        .buffer_unordered(READS);
    let mut listing = Listing::default();
    while let Some((location, manifest)) = found.next().await {
        match manifest {
            Ok(manifest) if manifest.location != location => listing
                .unreadable
                .push(Unreadable { problem: format!("its manifest is of {}", manifest.location), location }),
            Ok(manifest) if manifest.belongs_to(schedule) => listing.ours.push(manifest),
            Ok(manifest) => listing.discovered.push(manifest),
            Err(ManifestError::Store(error)) if is_gone(&error) => {}
            Err(ManifestError::Store(error)) => return Err(error),
            Err(error) => listing.unreadable.push(Unreadable { location, problem: error_chain(&error) }),
        }
    }
    for manifests in [&mut listing.ours, &mut listing.discovered] {
        manifests.sort_by(|a, b| (b.snapshot_time, &b.location).cmp(&(a.snapshot_time, &a.location)));
    }
    listing.unreadable.sort_by(|a, b| b.location.cmp(&a.location));
    Ok(listing)
}

/// Pruned between being listed and being read.
pub(crate) fn is_gone(error: &StoreError) -> bool {
    error.reason() == crate::Reason::ObjectMissing
}

pub(crate) fn directory_of(schedule: &ScheduleIdentity) -> Result<String, StoreError> {
    schedule
        .directory()
        .map_err(|error| StoreError::Url(StoreUrlError::Segment { segment: error.value, problem: error.problem }))
}

/// The objects of one run's directory.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) objects: Vec<Listed>,
}

impl Run {
    fn has(&self, name: &str) -> bool {
        self.objects.iter().any(|object| object.key.rsplit('/').next() == Some(name))
    }

    pub(crate) fn has_manifest(&self) -> bool {
        self.has(MANIFEST)
    }

    pub(crate) fn is_published(&self) -> bool {
        self.has_manifest() && !self.has(HIDDEN)
    }
}

/// Every run below a directory with its objects; objects at another depth are ignored.
pub(crate) async fn runs(store: &Store, directory: &str) -> Result<BTreeMap<String, Run>, StoreError> {
    let mut runs: BTreeMap<String, Run> = BTreeMap::new();
    let mut objects = std::pin::pin!(store.list(directory)?);
    let limit = if directory.is_empty() { LISTED_OF_A_STORE } else { LISTED_OF_A_SCHEDULE };
    let mut listed = 0;
    while let Some(object) = objects.try_next().await? {
        listed += 1;
        if listed > limit {
            let below = if directory.is_empty() { "the store's prefix" } else { directory };
            return Err(StoreError::Settings(format!("there are more than {limit} objects below {below}")));
        }
        let Some((location, _)) = object.key.rsplit_once('/') else { continue };
        if location.split('/').count() == DEPTH {
            runs.entry(location.to_owned()).or_default().objects.push(object);
        }
    }
    Ok(runs)
}
