//! What a published dump is, written last and once.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    BackupIdentity, Compression, Contents, DumpDetails, DumpResult, Filter, Head, INDEX, ROWS, Reason, Remarks,
    RowCounts, RowsKey, Segment, Source, Store, StoreError, Structure, TableRows, VerificationLevel,
    encryption::decrypt, text::sha256,
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
    /// SHA-256 of all segments in order, in hexadecimal; of a dump with several archives, of their SHA-256 in order.
    pub sha256: String,
    /// The objects that it consists of, in order.
    pub segments: Vec<Segment>,
    /// The archives of a dump that has several, in the order in which they are restored: definitions, the rows of everything
    /// that is in no other, groups of tables, then indexes and constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// Roles and memberships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<Segment>,
    /// Of an encrypted dump, the object with everything that is not in clear here: names of tables and their rows, what was
    /// left out, warnings, what a restore must know, and where everything is in the archive. See [`Manifest::reveal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Segment>,
    /// Of an encrypted dump, the object with its row counts for the next run, which has the [`RowsKey`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Segment>,
    /// Its table of contents in short.
    #[serde(default)]
    pub contents: Contents,
    /// Its beginning up to the rows of the first table: with the block of a table it is an archive. Absent in backups of
    /// earlier versions, and if pg_dump is newer than this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Length and SHA-256 of the archive before it was encrypted; never in clear.
    #[serde(skip)]
    plain: Option<Head>,
    /// What a restore must know of the database. Absent in backups of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Large objects.
    pub large_objects: u64,
    /// The rows of all tables together.
    pub rows: u64,
    /// Where the row counts are from.
    pub row_counts: RowCounts,
    /// How many tables it has the rows of. Absent in backups of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_count: Option<u64>,
    /// The rows of every table.
    #[serde(default)]
    pub tables: Vec<TableRows>,
}

/// One of the archives of a dump that was made by several pg_dump at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// `pre`, `rest`, `data1`, …, `post`
    pub name: String,
    /// How many of the segments it consists of, after those of the archives before it.
    pub segments: usize,
    /// Its size in the store, in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its segments in order, in hexadecimal.
    pub sha256: String,
    /// Its table of contents in short; not in clear if it is encrypted.
    #[serde(default)]
    pub contents: Contents,
    /// Its beginning up to the rows of the first table; not in clear if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Length and SHA-256 before it was encrypted; never in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<Head>,
}

/// SHA-256 of a dump: of its only archive, or of the SHA-256 of each.
pub(crate) fn digest_of(archives: &[Archive]) -> String {
    match archives {
        [only] => only.sha256.clone(),
        all => sha256(all.iter().map(|archive| archive.sha256.as_str()).collect::<String>().as_bytes()),
    }
}

/// The segments of each archive of a dump.
pub(crate) fn segments_of_archives<'a>(
    archives: &'a [Archive],
    segments: &'a [Segment],
) -> impl Iterator<Item = (&'a Archive, &'a [Segment])> {
    let mut rest = segments;
    archives.iter().map(move |archive| {
        let (own, others) = rest.split_at_checked(archive.segments).unwrap_or((rest, &[]));
        rest = others;
        (archive, own)
    })
}

/// What the manifest of an encrypted dump does not hold in clear.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    filter: Filter,
    #[serde(default)]
    unlogged_tables: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
    contents: Contents,
    #[serde(default)]
    head: Option<Head>,
    #[serde(default)]
    plain: Option<Head>,
    #[serde(default)]
    archives: Vec<Archive>,
    #[serde(default)]
    source: Option<Source>,
    tables: Vec<TableRows>,
}

impl Index {
    pub(crate) fn new(remarks: &Remarks, details: &DumpDetails) -> Self {
        Self {
            filter: details.filter.clone(),
            unlogged_tables: remarks.unlogged_tables.clone(),
            warnings: remarks.warnings.clone(),
            contents: details.contents.clone(),
            head: details.head.clone(),
            plain: details.plain.clone(),
            archives: details.archives.clone(),
            source: details.source.clone(),
            tables: details.table_rows.clone(),
        }
    }
}

/// What the next run compares its own row counts with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Counts {
    location: String,
    tables: Vec<TableRows>,
}

impl Counts {
    pub(crate) fn new(location: &str, tables: &[TableRows]) -> Self {
        Self { location: location.to_owned(), tables: tables.iter().map(TableRows::without_block).collect() }
    }
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
        let mut manifest = Self {
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
            archives: details.archives.clone(),
            globals: details.globals.clone(),
            contents: details.contents.clone(),
            head: details.head.clone(),
            plain: None,
            source: details.source.clone(),
            large_objects: result.large_objects,
            rows: result.rows,
            row_counts: details.row_counts,
            table_count: Some(result.tables),
            tables: details.table_rows.clone(),
            index: details.index.clone(),
            counts: details.counts.clone(),
        };
        if manifest.index.is_some() {
            // Everything else is what it takes to find, list and verify it.
            manifest.filter = Filter::default();
            manifest.remarks.unlogged_tables.clear();
            manifest.remarks.warnings.clear();
            manifest.contents = Contents::default();
            (manifest.head, manifest.source) = (None, None);
            for archive in &mut manifest.archives {
                (archive.contents, archive.head, archive.plain) = (Contents::default(), None, None);
            }
            manifest.tables.clear();
        }
        manifest
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        !self.age_recipients.is_empty()
    }

    /// Length and SHA-256 of the archive as pg_dump wrote it. Of an encrypted one, they are known after [`Manifest::reveal`].
    pub fn archive(&self) -> Head {
        let stored = || Head { length: self.size_bytes, sha256: self.sha256.clone() };
        self.plain.clone().unwrap_or_else(stored)
    }

    /// How many archives it has.
    pub(crate) fn archive_count(&self) -> u32 {
        u32::try_from(self.archives.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Its archives, also if it is only one.
    pub(crate) fn all_archives(&self) -> Vec<Archive> {
        if !self.archives.is_empty() {
            return self.archives.clone();
        }
        vec![Archive {
            name: String::new(),
            segments: self.segments.len(),
            size_bytes: self.size_bytes,
            sha256: self.sha256.clone(),
            contents: self.contents.clone(),
            head: self.head.clone(),
            plain: self.plain.clone(),
        }]
    }

    /// The objects besides the archives.
    pub(crate) fn small_objects(&self) -> impl Iterator<Item = &Segment> {
        self.globals.iter().chain(&self.index).chain(&self.counts)
    }

    /// Length and SHA-256 of one of its archives as pg_dump wrote it, as [`Manifest::archive`] of the only one.
    pub(crate) fn archive_at(&self, archive: u32) -> Option<Head> {
        if self.archives.is_empty() {
            return (archive == 0).then(|| self.archive());
        }
        let archive = self.archives.get(usize::try_from(archive).ok()?)?;
        let stored = || Head { length: archive.size_bytes, sha256: archive.sha256.clone() };
        Some(archive.plain.clone().unwrap_or_else(stored))
    }

    /// The segments and the head of an archive by its number; `None` if there is none, or it has no index.
    pub(crate) fn part(&self, archive: u32) -> Option<(&[Segment], &Head)> {
        if self.archives.is_empty() {
            return self.head.as_ref().filter(|_| archive == 0).map(|head| (&self.segments[..], head));
        }
        let place = usize::try_from(archive).ok()?;
        let (archive, segments) = segments_of_archives(&self.archives, &self.segments).nth(place)?;
        Some((segments, archive.head.as_ref()?))
    }

    /// Whether single tables of it can be read.
    pub fn has_index(&self) -> bool {
        self.head.is_some() || self.index.is_some() || !self.archives.is_empty()
    }

    /// How many tables it has the rows of.
    pub fn table_count(&self) -> u64 {
        self.table_count.unwrap_or(self.tables.len() as u64)
    }

    /// Of an encrypted dump, reads what is not in clear, with the private keys of the store. Another manifest is returned as
    /// it is.
    pub async fn reveal(mut self, store: &Store) -> Result<Self, ManifestError> {
        let Some(segment) = &self.index else { return Ok(self) };
        let key = format!("{}/{INDEX}", self.location);
        let sealed = store.get_small(&key, LARGEST).await?;
        let found = sha256(&sealed);
        if found != segment.sha256 {
            return Err(ManifestError::Replaced { key, expected: segment.sha256.clone(), found });
        }
        let text = decrypt(store.identities(), &self.location, &sealed)?;
        let index: Index = serde_json::from_slice(&text).map_err(|source| ManifestError::Form { key, source })?;
        let Index { filter, unlogged_tables, warnings, contents, head, plain, archives, source, tables } = index;
        (self.filter, self.contents, self.head, self.source, self.tables) = (filter, contents, head, source, tables);
        (self.plain, self.archives) = (plain, archives);
        (self.remarks.unlogged_tables, self.remarks.warnings) = (unlogged_tables, warnings);
        Ok(self)
    }

    /// The rows of every table, decrypted with the key of its run. `None` if it was made without one.
    pub(crate) async fn counted(&self, store: &Store, key: &RowsKey) -> Result<Option<Vec<TableRows>>, ManifestError> {
        if self.counts.is_none() {
            return Ok(None);
        }
        let object = format!("{}/{ROWS}", self.location);
        let sealed = store.get_small(&object, LARGEST).await?;
        let text = key.decrypt(&self.location, &sealed)?;
        let form = |source| ManifestError::Form { key: object.clone(), source };
        let Counts { location, tables } = serde_json::from_slice(&text).map_err(form)?;
        // Of another dump: somebody else wrote it there.
        if location == self.location { Ok(Some(tables)) } else { Ok(None) }
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
