//! Compares the store's own list of one schedule with the dumps that are recorded.
//!
//! Nothing in a store is trusted: names are checked, manifests are read up to a size and a number, and what one says of itself
//! is returned as a claim.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Failure, MANIFEST, Manifest, ManifestError, Phase, Reason, ScheduleIdentity, Store, StoreError,
    catalog::{self, Run},
    identity::{is_cluster_id, is_run},
    text::{error_chain, truncated},
};

/// The most dumps that one inventory compares.
pub const KNOWN_AT_MOST: usize = 2000;

/// How many manifests of unrecorded dumps are read, newest first.
const READ_AT_MOST: usize = 256;

/// How many of them at once.
const READS: usize = 2;

/// The largest of them, in bytes.
const LARGEST_MANIFEST: u64 = 16 * 1024 * 1024;

/// How names of an archive's parts start.
const PART: &str = "dump.pgc.";

/// How many other clusters are named.
const CLUSTERS_NAMED: usize = 4;

/// How many directories are searched for them.
const CLUSTERS_SEARCHED: usize = 64;

/// How many objects of each.
const OBJECTS_SEARCHED: usize = 1000;

/// What to compare.
#[derive(Debug, Clone)]
pub struct InventoryRequest {
    /// The schedule.
    pub ours: ScheduleIdentity,
    /// The dumps that are recorded.
    pub known: Vec<Known>,
    /// A lost cluster, whose dumps of the same namespace and schedule are listed, too.
    pub lost: Option<LostCluster>,
    /// Whether other clusters with such dumps are named. They are anyway if the schedule's own directory is empty.
    pub find_clusters: bool,
}

impl InventoryRequest {
    /// The schedule's own directory alone.
    pub fn new(ours: ScheduleIdentity, known: Vec<Known>) -> Self {
        Self { ours, known, lost: None, find_clusters: false }
    }
}

/// Another cluster than the schedule's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostCluster {
    /// See [`ScheduleIdentity::cluster_id`].
    pub cluster_id: String,
    /// Its dumps that are recorded.
    pub known: Vec<Known>,
}

/// A dump that is recorded: its directory below the schedule's, and the size of its archive in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known(pub String, pub Option<u64>);

/// What the store holds of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Published dumps in the schedule's directory.
    pub published: u64,
    /// Recorded dumps without a manifest, by their position in the request.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub missing: Marks,
    /// Recorded dumps whose archive has another size than recorded, by their position in the request.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub incomplete: Marks,
    /// Dumps of this schedule, and of earlier ones of the same name, that are not recorded, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Found>,
    /// Unrecorded dumps that are not in `unknown`: they did not fit, or were not read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_listed: u64,
    /// Unrecorded dumps that do not belong in the directory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub foreign: u64,
    /// Unrecorded dumps whose manifest cannot be used.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
    /// Why, for one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The same of the lost cluster's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Box<Inventory>>,
    /// Why that could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_failure: Option<Failure>,
    /// Other clusters with dumps of the same namespace and schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An unrecorded dump, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its directory below the schedule's.
    pub run: String,
    /// The `DatabaseBackup` that it was made for.
    pub backup_name: String,
    /// UID of the `ProtectedDatabase`.
    pub database_uid: String,
    /// UID of the schedule, if it is not the one that was asked for: one of the same name that was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_schedule: Option<String>,
    /// See [`Manifest::snapshot_time`].
    pub snapshot_time: Timestamp,
    /// See [`Manifest::completion_time`].
    pub completion_time: Timestamp,
    /// Size of the archive, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// Number of tables.
    pub tables: u64,
    /// Number of rows.
    pub rows: u64,
    /// Whether it is not the whole database.
    pub partial: bool,
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
}

impl Found {
    fn new(run: &str, manifest: &Manifest, manifest_sha256: String, ours: &ScheduleIdentity) -> Self {
        let uid = plain(&manifest.identity.schedule_uid, 63);
        Self {
            run: run.to_owned(),
            backup_name: plain(&manifest.identity.backup_name, 253),
            database_uid: plain(&manifest.identity.database_uid, 63),
            earlier_schedule: (uid != ours.schedule_uid).then_some(uid),
            snapshot_time: manifest.snapshot_time,
            completion_time: manifest.completion_time,
            size_bytes: manifest.size_bytes,
            sha256: plain(&manifest.sha256, 64),
            manifest_sha256,
            tables: manifest.table_count(),
            rows: manifest.rows,
            partial: manifest.is_partial(),
            encrypted: manifest.is_encrypted(),
        }
    }
}

/// What names and hashes consist of.
fn plain(text: &str, longest: usize) -> String {
    text.chars().filter(|sign| sign.is_ascii_alphanumeric() || "-.".contains(*sign)).take(longest).collect()
}

/// A set of positions, as the hexadecimal digits of its bits: always short enough for a container's message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Marks(BTreeSet<usize>);

impl Marks {
    /// Whether no position is marked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of marked positions.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a position is marked.
    pub fn has(&self, position: usize) -> bool {
        self.0.contains(&position)
    }
}

impl FromIterator<usize> for Marks {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        Self(positions.into_iter().collect())
    }
}

impl From<Marks> for String {
    fn from(Marks(positions): Marks) -> Self {
        let digits = positions.last().map_or(0, |last| last / 4 + 1);
        let bit = |position: usize| u32::from(positions.contains(&position));
        let digit = |start: usize| (0..4).fold(0, |digit, offset| digit | bit(start + offset) << offset);
        (0..digits).filter_map(|index| char::from_digit(digit(index * 4), 16)).collect()
    }
}

impl From<String> for Marks {
    fn from(text: String) -> Self {
        let digits = text.chars().take(KNOWN_AT_MOST).map(|digit| digit.to_digit(16).unwrap_or(0)).enumerate();
        let bits = |(index, digit): (usize, u32)| {
            (0..4).filter(move |offset| digit & (1 << offset) != 0).map(move |offset| index * 4 + offset)
        };
        digits.flat_map(bits).collect()
    }
}

impl Inventory {
    /// Takes the oldest unrecorded dump out, so that the rest fits into a container's message.
    pub(crate) fn shorten(&mut self) -> bool {
        if self.lost.as_mut().is_some_and(|lost| lost.shorten()) {
            return true;
        }
        let dropped = self.unknown.pop().is_some();
        self.not_listed += u64::from(dropped);
        dropped
    }
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More than [`KNOWN_AT_MOST`].
    #[error("{0} dumps are more than the {KNOWN_AT_MOST} that are compared at once")]
    TooMany(usize),
}

impl InventoryError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Store(error) => error.reason(),
            Self::TooMany(_) => Reason::InvalidRequest,
        }
    }

    /// The failure as it is reported.
    pub fn failure(&self, store: &Store) -> Failure {
        Failure::new(Phase::Inventory, self.reason(), self, &[store.secrets()])
    }
}

/// Lists the schedule's directory once, and reads the manifests of dumps that are not recorded.
///
/// If the directory of the lost cluster cannot be listed, the rest is returned nevertheless.
pub async fn inventory(store: &Store, request: &InventoryRequest) -> Result<Inventory, InventoryError> {
    let known = request.known.len() + request.lost.as_ref().map_or(0, |lost| lost.known.len());
    if known > KNOWN_AT_MOST {
        return Err(InventoryError::TooMany(known));
    }
    let mut inventory = inventory_of(store, &request.ours, &request.known).await?;
    if let Some(lost) = &request.lost {
        match inventory_of_lost(store, &request.ours, lost).await {
            Ok(found) => inventory.lost = Some(Box::new(found)),
            Err(error) => {
                let mut failure = InventoryError::from(error).failure(store);
                failure.message = truncated(&failure.message.replace(char::is_control, " "), 300);
                inventory.lost_failure = Some(failure);
            }
        }
    } else if request.find_clusters || inventory.published == 0 {
        // The credentials need not allow it.
        inventory.clusters = other_clusters(store, &request.ours).await.unwrap_or_default();
    }
    Ok(inventory)
}

/// Of the same namespace and schedule in another cluster, which has given the schedule another UID: a manifest with that of
/// this schedule is forged.
async fn inventory_of_lost(
    store: &Store,
    ours: &ScheduleIdentity,
    lost: &LostCluster,
) -> Result<Inventory, StoreError> {
    let theirs = ours.in_cluster(&lost.cluster_id);
    let mut inventory = inventory_of(store, &theirs, &lost.known).await?;
    let before = inventory.unknown.len();
    inventory.unknown.retain(|found| found.earlier_schedule.is_some());
    inventory.foreign += (before - inventory.unknown.len()) as u64;
    Ok(inventory)
}

/// The clusters that have published dumps of the same namespace and schedule. No manifest is read.
async fn other_clusters(store: &Store, ours: &ScheduleIdentity) -> Result<Vec<String>, StoreError> {
    let names = store.directories().await?.into_iter();
    let mut clusters = Vec::new();
    for cluster_id in names.filter(|it| is_cluster_id(it) && *it != ours.cluster_id).take(CLUSTERS_SEARCHED) {
        let directory = catalog::directory_of(&ours.in_cluster(&cluster_id))?;
        let objects = store.list(&directory)?.take(OBJECTS_SEARCHED);
        let is_manifest = |key: &str| {
            let run = key.strip_prefix(&directory).and_then(|rest| rest.strip_prefix('/')?.split_once('/'));
            run.is_some_and(|(run, name)| is_run(run) && name == MANIFEST)
        };
        let mut manifests = std::pin::pin!(objects.try_filter(|object| std::future::ready(is_manifest(&object.key))));
        if manifests.try_next().await?.is_some() {
            clusters.push(cluster_id);
        }
        if clusters.len() == CLUSTERS_NAMED {
            break;
        }
    }
    Ok(clusters)
}

async fn inventory_of(store: &Store, identity: &ScheduleIdentity, known: &[Known]) -> Result<Inventory, StoreError> {
    let directory = catalog::directory_of(identity)?;
    let listed = catalog::runs(store, &directory).await?;
    let published: BTreeMap<&str, &Run> = listed
        .iter()
        .filter(|(_, run)| run.is_published())
        .filter_map(|(location, run)| Some((location.strip_prefix(&directory)?.strip_prefix('/')?, run)))
        .collect();
    let numbered = || known.iter().enumerate();
    let missing = numbered().filter(|(_, Known(run, _))| !published.contains_key(run.as_str()));
    let differs = |Known(run, size): &Known| {
        published.get(run.as_str()).zip(*size).is_some_and(|(run, size)| archive_bytes(run) != size)
    };
    let mut inventory = Inventory {
        published: published.len() as u64,
        missing: missing.map(|(position, _)| position).collect(),
        incomplete: numbered().filter(|(_, known)| differs(known)).map(|(position, _)| position).collect(),
        ..Inventory::default()
    };
    let known: BTreeSet<&str> = known.iter().map(|Known(run, _)| run.as_str()).collect();
    let unknown: Vec<&str> = published.keys().rev().copied().filter(|run| !known.contains(run)).collect();
    read_unknown(store, identity, &directory, &unknown, &mut inventory).await?;
    Ok(inventory)
}

fn archive_bytes(run: &Run) -> u64 {
    let parts =
        run.objects.iter().filter(|object| object.key.rsplit('/').next().is_some_and(|it| it.starts_with(PART)));
    parts.map(|object| object.size).sum()
}

/// Directories begin with the time of their run, so the last names are of the newest.
async fn read_unknown(
    store: &Store,
    identity: &ScheduleIdentity,
    directory: &str,
    newest_first: &[&str],
    inventory: &mut Inventory,
) -> Result<(), StoreError> {
    let read: Vec<String> = newest_first.iter().take(READ_AT_MOST).map(|run| (*run).to_owned()).collect();
    inventory.not_listed = (newest_first.len() - read.len()) as u64;
    let mut manifests = futures::stream::iter(read)
        .map(|run| async move {
            let manifest = if is_run(&run) {
                Manifest::read_within(store, &format!("{directory}/{run}"), LARGEST_MANIFEST).await.map(Some)
            } else {
                Ok(None)
            };
            (run, manifest)
        })
        .buffered(READS);
    while let Some((run, manifest)) = manifests.next().await {
        let problem = match manifest {
            Ok(Some((manifest, _))) if manifest.location != format!("{directory}/{run}") => {
                Some("its manifest is of another directory".to_owned())
            }
            Ok(Some((manifest, sha256))) if manifest.is_of_name(identity) => {
                inventory.unknown.push(Found::new(&run, &manifest, sha256, identity));
                None
            }
            Ok(Some(_)) => {
                inventory.foreign += 1;
                None
            }
            Ok(None) => Some("its directory has no name of a run".to_owned()),
            Err(ManifestError::Store(error)) if catalog::is_gone(&error) => None,
            // A manifest that is too large is the store's content, not its failure.
            Err(ManifestError::Store(error)) if error.reason() != Reason::ArchiveInvalid => return Err(error),
            Err(error) => Some(error_chain(&error)),
        };
        if let Some(problem) = problem {
            inventory.unreadable += 1;
            inventory
                .problem
                .get_or_insert(truncated(&format!("{run}: {problem}").replace(char::is_control, " "), 200));
        }
    }
    inventory.unknown.sort_by(|a, b| (b.completion_time, &b.run).cmp(&(a.completion_time, &a.run)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MESSAGE_BYTES, Message};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_survive_the_message(positions in prop::collection::btree_set(0_usize..KNOWN_AT_MOST, 0..200)) {
            let marks: Marks = positions.into_iter().collect();
            prop_assert_eq!(Marks::from(String::from(marks.clone())), marks);
        }
    }

    fn found(index: usize) -> Found {
        let time = "2026-11-23T02:15:00Z".parse().unwrap();
        Found {
            run: format!("20261123T021500Z-{index:013}"),
            backup_name: "b".repeat(253),
            database_uid: "u".repeat(63),
            earlier_schedule: Some("u".repeat(63)),
            snapshot_time: time,
            completion_time: time,
            size_bytes: u64::MAX,
            sha256: "a".repeat(64),
            manifest_sha256: "a".repeat(64),
            tables: u64::MAX,
            rows: u64::MAX,
            partial: true,
            encrypted: true,
        }
    }

    #[test]
    fn an_inventory_of_many_dumps_fits_into_a_message() {
        let every_other: Marks = (0..KNOWN_AT_MOST).filter(|position| position % 2 == 1).collect();
        let lost = Inventory {
            unknown: (0..300).map(found).collect(),
            not_listed: 7,
            problem: Some("\"".repeat(200)),
            ..Inventory::default()
        };
        let inventory = Inventory {
            published: 5000,
            missing: every_other.clone(),
            incomplete: every_other.clone(),
            unknown: (0..300).map(found).collect(),
            not_listed: 5,
            foreign: 7,
            unreadable: 9,
            problem: Some("\"".repeat(200)),
            lost: Some(Box::new(lost)),
            lost_failure: None,
            clusters: vec!["c".repeat(36); CLUSTERS_NAMED],
        };
        let message = Message::Inventory(inventory).to_json();
        assert!(message.len() <= MESSAGE_BYTES, "{}", message.len());
        let Message::Inventory(read) = Message::parse(&message).unwrap() else { panic!("{message}") };
        assert_eq!((read.missing.len(), read.missing), (KNOWN_AT_MOST / 2, every_other));
        assert!(read.unknown.len() > 1 && read.unknown[0] == found(0), "{}", read.unknown.len());
        assert_eq!(read.unknown.len() as u64 + read.not_listed, 305);
        let lost = read.lost.unwrap();
        assert_eq!((lost.unknown.len(), lost.not_listed), (0, 307), "the schedule's own come first");
    }
}
