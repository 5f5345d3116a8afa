//! Verifying a published backup again: its manifest, its objects with every byte, and the rows of its tables. Nothing is written.

use std::{
    collections::BTreeSet,
    future::{Future, pending},
    path::PathBuf,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Archive, ClientTools, DecodeError, Failure, Identities, Manifest, ManifestError, Phase, Progress, Reason, Segment,
    Store, StoreError, TablesDiffer, ToolError, VerifyError,
    archive::{ArchiveRows, Decoded, Decoder},
    encryption::decrypt_stream,
    manifest::{digest_of, segments_of_archives},
    tables::{compare, index},
    text::{error_chain, hex},
    verify::{read_segment, same_content},
};

/// How many tables of an index a message names.
const NAMED: usize = 5;

/// Which backup is verified.
#[derive(Debug, Clone)]
pub struct ReverifyRequest {
    /// Its directory below the store's prefix.
    pub location: String,
    /// SHA-256 of the manifest that was published, in hexadecimal; none: the one in the store is believed.
    pub manifest_sha256: Option<String>,
    /// The directory of `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

impl ReverifyRequest {
    /// The backup in a directory.
    pub fn new(location: String) -> Self {
        Self { location, manifest_sha256: None, client_directory: None, clock: Timestamp::now }
    }
}

/// What was compared with the manifest, as far as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compared {
    /// Nothing: there is no manifest that can be used.
    Nothing,
    /// Every byte of every object.
    Bytes,
    /// The rows of every table, too.
    Rows,
}

/// Something that is not as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// What it means.
    pub reason: Reason,
    /// What it is.
    pub message: String,
}

/// What was found of a published backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reverified {
    /// Its directory below the store's prefix.
    pub location: String,
    /// SHA-256 of its manifest, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// The moment that it shows the database at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_time: Option<Timestamp>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// What was compared.
    pub compared: Compared,
    /// Objects that have the size and the SHA-256 of the manifest.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// Tables whose rows were counted. Absent if not all of them were, or one has other rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// Their rows together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What is not as the manifest says.
    pub mismatches: Vec<Mismatch>,
    /// What was not compared, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it was verified.
    pub time: Timestamp,
    /// How long it took, in seconds.
    pub seconds: u64,
}

impl Reverified {
    fn new(location: &str, time: Timestamp) -> Self {
        Self {
            location: location.to_owned(),
            manifest_sha256: None,
            snapshot_time: None,
            encrypted: false,
            compared: Compared::Nothing,
            objects: 0,
            bytes: 0,
            tables: None,
            rows: None,
            mismatches: Vec::new(),
            notes: Vec::new(),
            time,
            seconds: 0,
        }
    }

    /// Records what is not as the manifest says. An error that shows nothing of the backup is returned.
    fn record(&mut self, store: &Store, error: impl Into<ReverifyError>) -> Result<(), ReverifyError> {
        let error = error.into();
        if !error.is_of_the_backup() {
            return Err(error);
        }
        let message = store.secrets().clean(&error_chain(&error));
        self.mismatches.push(Mismatch { reason: error.reason(), message });
        Ok(())
    }
}

/// Why a backup could not be verified. Nothing is known of it.
#[derive(Debug, thiserror::Error)]
pub enum ReverifyError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An object or an archive cannot be read.
    #[error(transparent)]
    Object(#[from] VerifyError),
    /// The manifest contradicts itself, or the archive.
    #[error("the manifest is invalid: {0}")]
    Inconsistent(String),
    /// The client programs are too old.
    #[error("the backup was made by pg_dump {made_by}, and pg_restore {reader} cannot read it")]
    ClientTooOld {
        /// The version that made it.
        made_by: String,
        /// That of the client.
        reader: String,
    },
}

impl ReverifyError {
    /// For messages.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Manifest(error) => error.reason(),
            Self::Object(VerifyError::Decode(DecodeError::Tool(error))) if error.was_killed() => Reason::Internal,
            Self::Object(error) => error.reason(),
            Self::Inconsistent(_) => Reason::ArchiveInvalid,
            Self::ClientTooOld { .. } => Reason::VersionMismatch,
        }
    }

    /// The failure as it is reported, without the store's secrets.
    pub fn failure(&self, store: &Store) -> Failure {
        Failure::new(Phase::Verify, self.reason(), self, &[store.secrets()])
    }

    /// Whether the backup is the cause, and not the store, a program, or a key.
    fn is_of_the_backup(&self) -> bool {
        let is_newer = matches!(self, Self::Manifest(ManifestError::Version { .. }));
        let of_its_content = matches!(
            self.reason(),
            Reason::ObjectMissing | Reason::ChecksumMismatch | Reason::ArchiveInvalid | Reason::RowCountMismatch
        );
        of_its_content && !is_newer
    }
}

impl From<StoreError> for ReverifyError {
    fn from(error: StoreError) -> Self {
        Self::Object(error.into())
    }
}

impl From<ToolError> for ReverifyError {
    fn from(error: ToolError) -> Self {
        Self::Object(error.into())
    }
}

impl From<TablesDiffer> for ReverifyError {
    fn from(error: TablesDiffer) -> Self {
        Self::Object(error.into())
    }
}

/// Verifies a published backup again: its manifest is read, every object must be there with its size, every byte is read and its
/// SHA-256 compared, the archives are decoded, and the rows of every table are compared. Of an encrypted backup, the rows are
/// compared only if the store has private keys. Nothing is written.
///
/// # Errors
/// See [`ReverifyError`]. What is not as the manifest says is no error, but in the result.
pub async fn reverify(
    request: &ReverifyRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Reverified, ReverifyError> {
    reverify_until(request, store, progress, pending()).await
}

/// The same, aborted when `stop` is ready.
pub async fn reverify_until(
    request: &ReverifyRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<Reverified, ReverifyError> {
    tokio::select! {
        result = Box::pin(run(request, store, progress)) => result,
        () = stop => Err(VerifyError::Interrupted.into()),
    }
}

async fn run(
    request: &ReverifyRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Reverified, ReverifyError> {
    let started = (request.clock)();
    let mut found = Reverified::new(&request.location, started);
    match read_manifest(request, store).await {
        Ok((manifest, sha256)) => {
            found.manifest_sha256 = Some(sha256);
            found.snapshot_time = Some(manifest.snapshot_time);
            found.encrypted = manifest.is_encrypted();
            found.compared = Compared::Bytes;
            let (absent, read) = (BTreeSet::new(), 0);
            Reading { store, manifest: &manifest, progress, found: &mut found, absent, read }.all(request).await?;
        }
        Err(error) => found.record(store, error)?,
    }
    found.time = (request.clock)();
    found.seconds = u64::try_from(found.time.duration_since(started).as_secs()).unwrap_or_default();
    Ok(found)
}

async fn read_manifest(request: &ReverifyRequest, store: &Store) -> Result<(Manifest, String), ReverifyError> {
    let location = &request.location;
    let (manifest, sha256) = match &request.manifest_sha256 {
        Some(sha256) => (Manifest::read_published(store, location, sha256).await?, sha256.clone()),
        None => Manifest::read_with_sha256(store, location).await?,
    };
    if manifest.location != *location {
        return Err(ReverifyError::Inconsistent(format!("in {location} is that of {}", manifest.location)));
    }
    Ok((manifest, sha256))
}

/// A backup that is being read.
struct Reading<'a> {
    store: &'a Store,
    manifest: &'a Manifest,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    found: &'a mut Reverified,
    /// Objects that are not there, or have another size: they are not read.
    absent: BTreeSet<&'a str>,
    /// Bytes of the archives so far.
    read: u64,
}

impl Reading<'_> {
    async fn all(mut self, request: &ReverifyRequest) -> Result<(), ReverifyError> {
        self.check_sizes().await?;
        self.check_sums()?;
        let mut index_is_whole = true;
        for segment in self.manifest.small_objects() {
            let is_whole = self.read(std::slice::from_ref(segment), async |_| {}).await?;
            index_is_whole &= is_whole || Some(segment) != self.manifest.index.as_ref();
        }
        let revealed = if index_is_whole { self.reveal().await? } else { None };
        let tools = match revealed {
            Some(_) => Some(self.tools(request).await?),
            None => None,
        };
        let archives = revealed.as_ref().unwrap_or(self.manifest).all_archives();
        let digest = digest_of(&archives);
        if digest != self.manifest.sha256 {
            let (found, expected) = (digest, &self.manifest.sha256);
            self.inconsistent(format!("its archives together have the SHA-256 {found} instead of {expected}"))?;
        }
        let mut decoded = Vec::new();
        for (archive, segments) in segments_of_archives(&archives, &self.manifest.segments) {
            decoded.push(self.archive(archive, segments, tools.as_ref()).await?);
        }
        match (revealed, decoded.into_iter().collect::<Option<Vec<_>>>()) {
            (Some(revealed), Some(decoded)) => self.compare_rows(&revealed, &archives, decoded),
            (Some(_), None) => {
                let note = "the rows were not compared: the archive cannot be read as a whole";
                self.found.notes.push(note.to_owned());
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn inconsistent(&mut self, problem: String) -> Result<(), ReverifyError> {
        self.found.record(self.store, ReverifyError::Inconsistent(problem))
    }

    /// Every object is there with its size.
    async fn check_sizes(&mut self) -> Result<(), ReverifyError> {
        for segment in self.manifest.segments.iter().chain(self.manifest.small_objects()) {
            if let Err(error) = self.check_size(segment).await {
                self.absent.insert(&segment.name);
                self.found.record(self.store, error)?;
            }
        }
        Ok(())
    }

    async fn check_size(&self, segment: &Segment) -> Result<(), ReverifyError> {
        // The name comes from the store, and must not lead out of the dump's directory.
        if segment.name.contains('/') {
            return Err(ReverifyError::Inconsistent(format!("{:?} is not the name of an object", segment.name)));
        }
        let key = format!("{}/{}", self.manifest.location, segment.name);
        match self.store.head(&key).await? {
            None => Err(VerifyError::Missing(key).into()),
            Some(there) if there.size != segment.size_bytes => {
                Err(VerifyError::Size { key, expected: segment.size_bytes, found: there.size }.into())
            }
            Some(_) => Ok(()),
        }
    }

    /// What the manifest says in two places.
    fn check_sums(&mut self) -> Result<(), ReverifyError> {
        let Manifest { segments, archives, size_bytes, .. } = self.manifest;
        let sum = segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.size_bytes));
        if sum != Some(*size_bytes) {
            self.inconsistent(format!("its archive has {size_bytes} bytes, and its objects have others"))?;
        }
        let of_archives = archives.iter().try_fold(0_usize, |sum, archive| sum.checked_add(archive.segments));
        if !archives.is_empty() && of_archives != Some(segments.len()) {
            self.inconsistent("its archives do not consist of its objects".to_owned())?;
        }
        Ok(())
    }

    /// The manifest with everything that it takes to compare rows; `None` if they cannot be.
    async fn reveal(&mut self) -> Result<Option<Manifest>, ReverifyError> {
        if self.manifest.is_encrypted() && self.store.identities().is_none() {
            let note = "the rows were not compared: the backup is encrypted, and no age identity is given";
            self.found.notes.push(note.to_owned());
            return Ok(None);
        }
        match self.manifest.clone().reveal(self.store).await {
            Ok(revealed) => Ok(Some(revealed)),
            Err(error) => self.found.record(self.store, error).map(|()| None),
        }
    }

    async fn tools(&self, request: &ReverifyRequest) -> Result<ClientTools, ReverifyError> {
        let tools = ClientTools::find(request.client_directory.as_deref()).await?;
        let made_by = &self.manifest.client_version;
        let digits: String = made_by.chars().take_while(char::is_ascii_digit).collect();
        if digits.parse().unwrap_or(0) > tools.major() {
            let (made_by, reader) = (made_by.clone(), tools.version().to_owned());
            return Err(ReverifyError::ClientTooOld { made_by, reader });
        }
        Ok(tools)
    }

    /// Reads objects one after the other; `false` if one is not as the manifest says.
    async fn read(&mut self, segments: &[Segment], mut each: impl AsyncFnMut(&[u8])) -> Result<bool, ReverifyError> {
        let mut whole = true;
        for segment in segments {
            if self.absent.contains(segment.name.as_str()) {
                whole = false;
                continue;
            }
            match read_segment(self.store, &self.manifest.location, segment, &mut each).await {
                Ok(()) => {
                    self.found.objects += 1;
                    self.found.bytes += segment.size_bytes;
                }
                Err(error) => {
                    self.found.record(self.store, error)?;
                    whole = false;
                }
            }
        }
        Ok(whole)
    }

    /// The same for those of an archive.
    async fn read_archive(
        &mut self,
        segments: &[Segment],
        mut each: impl AsyncFnMut(&[u8]),
    ) -> Result<bool, ReverifyError> {
        let (progress, of, mut read) = (self.progress, self.manifest.size_bytes, self.read);
        let counted = async |piece: &[u8]| {
            each(piece).await;
            read = read.saturating_add(piece.len() as u64);
            progress(Progress::ReadBack { bytes: read, of });
        };
        let whole = self.read(segments, counted).await;
        self.read = read;
        whole
    }

    /// Reads an archive, and decodes it if there are programs for that. `None` if it was not decoded, or cannot be.
    async fn archive(
        &mut self,
        archive: &Archive,
        segments: &[Segment],
        tools: Option<&ClientTools>,
    ) -> Result<Option<Decoded>, ReverifyError> {
        let (store, manifest) = (self.store, self.manifest);
        let separator = if archive.name.is_empty() { "" } else { "/" };
        let key = format!("{}{separator}{}", manifest.location, archive.name);
        // What is not whole is not decoded.
        let tools = tools.filter(|_| !segments.iter().any(|segment| self.absent.contains(segment.name.as_str())));
        let identities = store.identities().filter(|_| manifest.is_encrypted());
        let ended = match (tools, identities) {
            (Some(tools), Some(identities)) => self.decrypt(&key, archive, segments, (tools, identities)).await?,
            (tools, _) => {
                let mut stored = ReadArchive::start(tools)?;
                let whole = self.read_archive(segments, async |piece| stored.read(piece).await).await?;
                if whole { stored.end(&key, Some(&archive.sha256)).await } else { Ok(None) }
            }
        };
        match ended {
            Ok(decoded) => Ok(decoded),
            Err(error) => self.found.record(store, error).map(|()| None),
        }
    }

    /// Reads an encrypted archive: the stored bytes are compared, and the decrypted ones are decoded.
    async fn decrypt(
        &mut self,
        key: &str,
        archive: &Archive,
        segments: &[Segment],
        (tools, identities): (&ClientTools, &Identities),
    ) -> Result<Result<Option<Decoded>, VerifyError>, ReverifyError> {
        let (mut stored, mut plain) = (ReadArchive::start(None)?, ReadArchive::start(Some(tools))?);
        let (input, mut pieces) = decrypt_stream(identities, key);
        let read = async {
            let each = async |piece: &[u8]| {
                stored.read(piece).await;
                // If it cannot be decrypted, its bytes are compared nevertheless.
                let _ = input.send(Bytes::copy_from_slice(piece)).await;
            };
            let whole = self.read_archive(segments, each).await;
            drop(input);
            whole
        };
        let decode = async {
            while let Some(piece) = pieces.recv().await {
                plain.read(&piece?).await;
            }
            Ok::<_, VerifyError>(())
        };
        let (whole, decrypted) = tokio::join!(read, decode);
        if !whole? {
            return Ok(Ok(None));
        }
        let ended = async {
            stored.end(key, Some(&archive.sha256)).await?;
            decrypted?;
            plain.end(key, archive.plain.as_ref().map(|plain| plain.sha256.as_str())).await
        };
        Ok(ended.await)
    }

    /// Compares what the archives hold with the manifest: the rows of every table, and the table index.
    fn compare_rows(
        &mut self,
        manifest: &Manifest,
        archives: &[Archive],
        decoded: Vec<Decoded>,
    ) -> Result<(), ReverifyError> {
        self.found.compared = Compared::Rows;
        let before = self.found.mismatches.len();
        let (mut rows, mut tables) = (ArchiveRows::default(), manifest.tables.clone());
        for (place, (archive, decoded)) in archives.iter().zip(decoded).enumerate() {
            // An archive of a form that this version does not know has no index.
            if let (Some(expected), Some(head)) = (&archive.head, &decoded.blocks.head)
                && expected != head
            {
                self.inconsistent("its table index does not describe the beginning of the archive".to_owned())?;
            }
            index(&mut tables, &decoded.blocks, u32::try_from(place).unwrap_or_default());
            if let Err(differ) = rows.add(decoded.rows) {
                self.found.record(self.store, differ)?;
            }
        }
        let indexed = manifest.tables.iter().zip(&tables);
        let mut others: Vec<_> = indexed
            .filter(|(expected, found)| expected.block.is_some() && expected.block != found.block)
            .map(|(table, _)| format!("{}.{}", table.schema, table.name))
            .collect();
        if !others.is_empty() {
            let more = others.len().saturating_sub(NAMED);
            others.truncate(NAMED);
            let more = if more == 0 { String::new() } else { format!(", and of {more} more") };
            self.inconsistent(format!("its table index is wrong for the rows of {}{more}", others.join(", ")))?;
        }
        if let Err(differ) = compare(&mut tables, manifest.large_objects, &rows) {
            self.found.record(self.store, differ)?;
        }
        let sum = tables.iter().filter_map(|table| table.rows.number()).fold(0_u64, u64::saturating_add);
        if sum != manifest.rows {
            self.inconsistent(format!("its tables have {sum} rows, and all tables together {}", manifest.rows))?;
        }
        let count = tables.len() as u64;
        if count != manifest.table_count() {
            self.inconsistent(format!("it names {count} tables instead of {}", manifest.table_count()))?;
        }
        if self.found.mismatches.len() == before {
            (self.found.tables, self.found.rows) = (Some(count), Some(sum));
        }
        Ok(())
    }
}

/// An archive that is read back.
struct ReadArchive {
    digest: Sha256,
    /// Where its rows are to be counted.
    decoder: Option<Decoder>,
    problem: Option<DecodeError>,
}

impl ReadArchive {
    fn start(tools: Option<&ClientTools>) -> Result<Self, ToolError> {
        Ok(Self { digest: Sha256::new(), decoder: tools.map(Decoder::start).transpose()?, problem: None })
    }

    /// Reads on after a problem: if the bytes are not those that were written, that is its cause.
    async fn read(&mut self, piece: &[u8]) {
        self.digest.update(piece);
        if let Some(decoder) = &mut self.decoder
            && let Err(problem) = decoder.write(piece).await
        {
            (self.decoder, self.problem) = (None, Some(problem));
        }
    }

    /// What it holds, if it was decoded. Without an expected SHA-256, none is compared.
    async fn end(self, key: &str, expected: Option<&str>) -> Result<Option<Decoded>, VerifyError> {
        let found = hex(&self.digest.finalize());
        if let Some(expected) = expected {
            same_content(key, expected, found)?;
        }
        match (self.problem, self.decoder) {
            (Some(problem), _) => Err(problem.into()),
            (None, Some(decoder)) => Ok(Some(decoder.finish().await?)),
            (None, None) => Ok(None),
        }
    }
}
