//! What a published dump is, written last and once.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    BackupIdentity, Compression, Contents, DumpDetails, DumpResult, Filter, Head, Reason, Remarks, RowCounts, Segment,
    Source, Store, StoreError, Structure, TableRows, VerificationLevel, text::sha256,
};

/// The name of a manifest within its dump's directory.
pub const MANIFEST: &str = "manifest.json";

/// The version of the manifest's form that this version writes, and the newest that it reads.
pub const MANIFEST_VERSION: u32 = 1;

/// The largest manifest that is read, in bytes: a catalog of a million tables.
const LARGEST: u64 = 256 * 1024 * 1024;

/// What a published dump is. A dump without one does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of this form: a reader refuses what is newer than it knows.
    pub pgrail_manifest: u32,
    /// Cluster, schedule and database.
    pub identity: BackupIdentity,
    /// Its directory below the store's prefix when it was written.
    pub location: String,
    /// When the run was started.
    pub start_time: Timestamp,
    /// The moment that it shows the database at.
    pub snapshot_time: Timestamp,
    /// When its last byte was in the store.
    pub completion_time: Timestamp,
    /// How and when it was verified before it was published.
    pub verification: Verification,
    /// The database's own name on its server.
    pub database_name: String,
    /// Its encoding.
    pub encoding: String,
    /// Its size on the server's disk, in bytes.
    pub database_bytes: u64,
    /// The server's version.
    pub server_version: String,
    /// pg_dump's version: the oldest pg_restore that reads it is of the same major version.
    pub client_version: String,
    /// How it is compressed.
    pub compression: Compression,
    /// The recipients that it is encrypted for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub age_recipients: Vec<String>,
    /// What was left out.
    pub filter: Filter,
    /// What it lacks.
    #[serde(flatten)]
    pub remarks: Remarks,
    /// Its size in the store, in bytes.
    pub size_bytes: u64,
    /// SHA-256 of all segments in order, in hexadecimal.
    pub sha256: String,
    /// The objects that it consists of, in order.
    pub segments: Vec<Segment>,
    /// Roles and memberships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<Segment>,
    /// Its table of contents in short.
    pub contents: Contents,
    /// Its beginning up to the rows of the first table: with the block of a table it is an archive. Absent in backups of
    /// earlier versions, and if pg_dump is newer than this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// What a restore must know of the database. Absent in backups of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Large objects.
    pub large_objects: u64,
    /// The rows of all tables together.
    pub rows: u64,
    /// Where the row counts are from.
    pub row_counts: RowCounts,
    /// The rows of every table.
    pub tables: Vec<TableRows>,
}

/// How a dump was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// How.
    pub level: VerificationLevel,
    /// When.
    pub time: Timestamp,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// The structural drill, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<Structure>,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not a manifest of ours.
    #[error("{key} is not a manifest")]
    Form {
        /// The object.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It is another manifest than the one that was published.
    #[error("{key} has the SHA-256 {found} instead of {expected}: it is not the manifest that was published")]
    Replaced {
        /// The object.
        key: String,
        /// What it was when it was published.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It was written by a newer version.
    #[error("{key} has version {version}; this version reads up to {MANIFEST_VERSION}")]
    Version {
        /// The object.
        key: String,
        /// Its version.
        version: u32,
    },
}

impl ManifestError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Store(error) => error.reason(),
            Self::Form { .. } | Self::Version { .. } => Reason::ArchiveInvalid,
            Self::Replaced { .. } => Reason::ChecksumMismatch,
        }
    }
}

impl Manifest {
    pub(crate) fn new(result: &DumpResult, details: &DumpDetails, verification: Verification) -> Self {
        Self {
            pgrail_manifest: MANIFEST_VERSION,
            identity: details.identity.clone(),
            location: result.location.clone(),
            start_time: result.start_time,
            snapshot_time: result.snapshot_time,
            completion_time: result.completion_time,
            verification,
            database_name: details.database_name.clone(),
            encoding: details.encoding.clone(),
            database_bytes: result.database_bytes,
            server_version: result.server_version.clone(),
            client_version: result.client_version.clone(),
            compression: details.compression,
            age_recipients: details.age_recipients.clone(),
            filter: details.filter.clone(),
            remarks: result.remarks.clone(),
            size_bytes: result.size_bytes,
            sha256: result.sha256.clone(),
            segments: details.segments.clone(),
            globals: details.globals.clone(),
            contents: details.contents.clone(),
            head: details.head.clone(),
            source: details.source.clone(),
            large_objects: result.large_objects,
            rows: result.rows,
            row_counts: details.row_counts,
            tables: details.table_rows.clone(),
        }
    }

    /// Whether it holds less than the whole database.
    pub fn is_partial(&self) -> bool {
        !self.remarks.partial_because.is_empty() || !self.filter.partial_because().is_empty()
    }

    /// Reads the manifest of the dump in a directory.
    pub async fn read(store: &Store, location: &str) -> Result<Self, ManifestError> {
        Ok(Self::read_with_sha256(store, location).await?.0)
    }

    /// The same, and refuses it unless it is the one that was published: with this SHA-256, in hexadecimal. A user
    /// who can write to the store could otherwise have SQL run by a restore.
    pub async fn read_published(store: &Store, location: &str, expected: &str) -> Result<Self, ManifestError> {
        let (manifest, found) = Self::read_with_sha256(store, location).await?;
        if found == expected {
            return Ok(manifest);
        }
        Err(ManifestError::Replaced { key: format!("{location}/{MANIFEST}"), expected: expected.to_owned(), found })
    }

    /// Reads it with its SHA-256.
    pub async fn read_with_sha256(store: &Store, location: &str) -> Result<(Self, String), ManifestError> {
        Self::read_within(store, location, LARGEST).await
    }

    /// The same, and refuses a manifest that is larger than `limit`, in bytes.
    pub(crate) async fn read_within(
        store: &Store,
        location: &str,
        limit: u64,
    ) -> Result<(Self, String), ManifestError> {
        let key = format!("{location}/{MANIFEST}");
        let bytes = store.get_small(&key, limit).await?;
        let found = sha256(&bytes);
        Ok((Self::parse(key, &bytes)?, found))
    }

    fn parse(key: String, bytes: &Bytes) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            pgrail_manifest: u32,
        }
        let version = match serde_json::from_slice(bytes) {
            Ok(Version { pgrail_manifest }) => pgrail_manifest,
            Err(source) => return Err(ManifestError::Form { key, source }),
        };
        if version > MANIFEST_VERSION {
            return Err(ManifestError::Version { key, version });
        }
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Form { key, source })
    }

    /// Publishes it. Written once: the same dump published twice (by a restarted agent) succeeds, anything else
    /// in its place is an error.
    ///
    /// Returns its key and its SHA-256.
    pub(crate) async fn publish(&self, store: &Store) -> Result<(String, String), ManifestError> {
        let key = format!("{}/{MANIFEST}", self.location);
        let text = serde_json::to_vec(self).map_err(|source| ManifestError::Form { key: key.clone(), source })?;
        let published = sha256(&text);
        match store.put_once(&key, text.into()).await {
            Ok(()) => Ok((key, published)),
            Err(StoreError::Exists { path }) => {
                let (there, published) = Self::read_with_sha256(store, &self.location).await?;
                if there.identity == self.identity && there.sha256 == self.sha256 {
                    return Ok((key, published));
                }
                Err(StoreError::Exists { path }.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}
