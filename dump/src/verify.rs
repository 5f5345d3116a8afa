//! Reading a dump back from the store, and publishing it: what was not read again is not a backup.

use std::{
    future::{Future, pending},
    path::PathBuf,
};

use futures::StreamExt;
use jiff::Timestamp;
use pgrail_postgres::ConnectionSettings;
use sha2::{Digest, Sha256};

use crate::{
    ClientTools, DecodeError, DumpDetails, DumpResult, Extract, ExtractError, Failure, Manifest, ManifestError,
    NotRestorable, Phase, Progress, Reason, RowsKey, Segment, ShrinkAlarm, Store, StoreError, Structure,
    StructureOutcome, TablesDiffer, ToolError, Verification, VerificationLevel, VerifyResult, drill,
    manifest::{digest_of, segments_of_archives},
    shrink,
    text::hex,
};

/// What is to be verified, and how.
#[derive(Debug, Clone)]
pub struct VerifyRequest {
    /// What [`crate::dump`] returned, with its details.
    pub dump: DumpResult,
    /// How it is verified.
    pub level: VerificationLevel,
    /// When a loss of rows since the backup before raises the alarm; none: nothing is compared.
    pub shrink_alarm: Option<ShrinkAlarm>,
    /// The key of the row counts of encrypted dumps, as in [`crate::DumpRequest`].
    pub rows_key: Option<RowsKey>,
    /// The throwaway server of the structural drill; none: it is not done.
    pub structure: Option<ConnectionSettings>,
    /// The directory of `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

impl VerifyRequest {
    /// Every byte is read back.
    pub fn new(dump: DumpResult) -> Self {
        Self {
            dump,
            level: VerificationLevel::ReadBack,
            shrink_alarm: None,
            rows_key: None,
            structure: None,
            client_directory: None,
            clock: Timestamp::now,
        }
    }
}

/// Why a dump is not a backup. No manifest was written.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The dump's details are missing: it was read from a container's message.
    #[error("the dump's details are missing: the whole result is needed")]
    NoDetails,
    /// An object was deleted.
    #[error("{0} is not in the store")]
    Missing(String),
    /// An object has another size.
    #[error("{key} has {found} bytes instead of {expected}")]
    Size {
        /// The object.
        key: String,
        /// What it was when it was written.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// An object has other bytes.
    #[error("{key} has the SHA-256 {found} instead of {expected}")]
    Content {
        /// The object.
        key: String,
        /// What it was when it was written.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The store has another object than it acknowledged.
    #[error("{0} is not the object that was written: the store's mark of it changed")]
    Replaced(String),
    /// It does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It does not hold the rows it should.
    #[error(transparent)]
    Differs(#[from] TablesDiffer),
    /// It cannot be restored.
    #[error(transparent)]
    Structure(#[from] NotRestorable),
    /// Its head cannot be read for the structural drill.
    #[error("the head of the archive cannot be read for the structural drill")]
    Head(#[source] ExtractError),
    /// The client programs cannot be used.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest could not be written.
    #[error("the manifest could not be published")]
    Publish(#[from] ManifestError),
    /// The agent was stopped before the step ended.
    #[error("the verification was interrupted")]
    Interrupted,
}

impl VerifyError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoDetails => Reason::InvalidRequest,
            Self::Missing(_) => Reason::ObjectMissing,
            Self::Size { .. } | Self::Content { .. } | Self::Replaced(_) => Reason::ChecksumMismatch,
            Self::Decode(error) => error.reason(),
            Self::Differs(_) => Reason::RowCountMismatch,
            Self::Structure(_) => Reason::NotRestorable,
            Self::Head(error) => error.reason(),
            Self::Tool(error) => error.reason(Reason::ClientMissing),
            Self::Store(error) => error.reason(),
            Self::Publish(error) => error.reason(),
            Self::Interrupted => Reason::Interrupted,
        }
    }

    /// The failure as it is reported, without the store's secrets.
    pub fn failure(&self, store: &Store) -> Failure {
        Failure::new(Phase::Verify, self.reason(), self, &[store.secrets()])
    }
}

/// Verifies a dump and publishes it: the manifest is written last, once, and only here.
///
/// # Errors
/// See [`VerifyError`]. The dump stays unpublished, so it does not exist for anyone, and is swept later.
pub async fn verify(
    request: &VerifyRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<VerifyResult, VerifyError> {
    verify_until(request, store, progress, pending()).await
}

/// The same, aborted when `stop` is ready: then it was not published.
pub async fn verify_until(
    request: &VerifyRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<VerifyResult, VerifyError> {
    let (mut result, manifest) = tokio::select! {
        verified = run(request, store, progress) => verified?,
        () = stop => return Err(VerifyError::Interrupted),
    };
    (result.manifest, result.manifest_sha256) = manifest.publish(store).await?;
    Ok(result)
}

/// Everything but the publication.
async fn run(
    request: &VerifyRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(VerifyResult, Manifest), VerifyError> {
    let started = (request.clock)();
    let mut backup = request.dump.clone();
    let details = backup.details.take().ok_or(VerifyError::NoDetails)?;
    check_sizes(&backup.location, &details, store).await?;
    let level = match request.level {
        VerificationLevel::None => VerificationLevel::None,
        VerificationLevel::Checksum => compare_checksums(&backup.location, &details, store).await?,
        VerificationLevel::ReadBack => {
            read_back(&backup, &details, store, progress).await?;
            VerificationLevel::ReadBack
        }
    };
    let comparison = match request.shrink_alarm {
        Some(alarm) => Some(shrink::compare(store, (&backup, &details), alarm, request.rows_key.as_ref()).await),
        None => None,
    };
    let time = (request.clock)();
    let seconds = u64::try_from(time.duration_since(started).as_secs()).unwrap_or_default();
    let mut manifest = Manifest::new(&backup, &details, Verification { level, time, seconds, structure: None });
    manifest.verification.structure = restore_structure(request, &manifest, store).await?;
    let structure = manifest.verification.structure.clone();
    let (key, manifest_sha256) = (String::new(), String::new());
    let result = VerifyResult { backup, level, time, seconds, comparison, structure, manifest: key, manifest_sha256 };
    Ok((result, manifest))
}

/// The structural drill, if it was asked for.
async fn restore_structure(
    request: &VerifyRequest,
    manifest: &Manifest,
    store: &Store,
) -> Result<Option<Structure>, VerifyError> {
    let Some(server) = &request.structure else { return Ok(None) };
    let not_run = |message: String| {
        Ok(Some(Structure { outcome: StructureOutcome::NotRun, message, time: (request.clock)(), milliseconds: 0 }))
    };
    if manifest.is_encrypted() && store.identities().is_none() {
        let remedy = "name a Secret with the age identity in spec.decryption.identitySecretRef";
        return not_run(format!("the dump is encrypted, and its run has no private key: {remedy}"));
    }
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    let extract = match Extract::open(store, manifest.clone()).await {
        Ok(extract) => extract,
        Err(error @ ExtractError::NoIndex(_)) => return not_run(error.to_string()),
        // A key that does not fit says nothing about the dump.
        Err(error) if error.reason() == Reason::IdentityRequired => return not_run(error.to_string()),
        Err(error) => return Err(VerifyError::Head(error)),
    };
    Ok(Some(drill::structure(&extract, &tools, server, request.clock).await?))
}

/// Every object is there with its size and, where the store gave one, its mark.
async fn check_sizes(location: &str, details: &DumpDetails, store: &Store) -> Result<(), VerifyError> {
    for segment in details.segments.iter().chain(details.small_objects()) {
        let key = format!("{location}/{}", segment.name);
        let Some(found) = store.head(&key).await? else { return Err(VerifyError::Missing(key)) };
        if found.size != segment.size_bytes {
            return Err(VerifyError::Size { key, expected: segment.size_bytes, found: found.size });
        }
        if segment.e_tag.is_some() && found.e_tag.is_some() && segment.e_tag != found.e_tag {
            return Err(VerifyError::Replaced(key));
        }
    }
    Ok(())
}

/// Compares the SHA-256 that the store computed of every object with ours. `None` where the store has none: that the store
/// returns the mark that it gave an object itself would prove nothing.
async fn compare_checksums(
    location: &str,
    details: &DumpDetails,
    store: &Store,
) -> Result<VerificationLevel, VerifyError> {
    for segment in details.segments.iter().chain(details.small_objects()) {
        let key = format!("{location}/{}", segment.name);
        let (Some(expected), Some(found)) = (&segment.store_checksum, store.sha256(&key).await?) else {
            return Ok(VerificationLevel::None);
        };
        if *expected != found {
            return Err(VerifyError::Content { key, expected: expected.clone(), found });
        }
    }
    Ok(VerificationLevel::Checksum)
}

/// Reads every byte again. The same bytes decode to the same rows, which were counted while they were written.
async fn read_back(
    backup: &DumpResult,
    details: &DumpDetails,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), VerifyError> {
    for small in details.small_objects() {
        read_segment(store, &backup.location, small, async |_| {}).await?;
    }
    let mut bytes = 0;
    let mut whole = async |key: &str, segments: &[Segment], expected: &str| -> Result<(), VerifyError> {
        let mut digest = Sha256::new();
        for segment in segments {
            let each = async |piece: &[u8]| {
                digest.update(piece);
                bytes += piece.len() as u64;
                progress(Progress::ReadBack { bytes, of: backup.size_bytes });
            };
            read_segment(store, &backup.location, segment, each).await?;
        }
        same_content(key, expected, hex(&digest.finalize()))
    };
    if details.archives.is_empty() {
        return whole(&backup.location, &details.segments, &backup.sha256).await;
    }
    for (archive, segments) in segments_of_archives(&details.archives, &details.segments) {
        whole(&format!("{}/{}", backup.location, archive.name), segments, &archive.sha256).await?;
    }
    same_content(&backup.location, &backup.sha256, digest_of(&details.archives))
}

/// Compares the SHA-256 of what was read with that of what was written.
pub(crate) fn same_content(key: &str, expected: &str, found: String) -> Result<(), VerifyError> {
    if found == expected {
        return Ok(());
    }
    Err(VerifyError::Content { key: key.to_owned(), expected: expected.to_owned(), found })
}

/// Reads an object and compares its SHA-256.
pub(crate) async fn read_segment(
    store: &Store,
    location: &str,
    segment: &Segment,
    mut each: impl AsyncFnMut(&[u8]),
) -> Result<(), VerifyError> {
    let key = format!("{location}/{}", segment.name);
    let mut digest = Sha256::new();
    let mut pieces = std::pin::pin!(store.read(&key, segment.size_bytes));
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        digest.update(&piece);
        each(&piece).await;
    }
    same_content(&key, &segment.sha256, hex(&digest.finalize()))
}
