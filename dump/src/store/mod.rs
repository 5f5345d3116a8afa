//! Object stores and directories, as far as dumps need them.

mod buffer;
mod credentials;
mod error;
mod renewal;
mod settings;
mod signed;
mod unfinished;
mod upload;
mod url;

use std::{
    io::{Error as IoError, Read, Seek, SeekFrom},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::{
    GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};
use tokio::{sync::mpsc, task::spawn_blocking};

use buffer::Buffer;
pub use credentials::StoreCredentials;
pub use error::StoreError;
pub use renewal::CredentialSource;
pub use settings::StoreSettings;
pub use upload::{Segment, UploadLimits};
pub(crate) use upload::{Upload, Uploaded};
pub use url::{Scheme, StoreUrl, StoreUrlError};

use crate::{Identities, Reason, secrets::Redactor, text::error_chain};

/// How much of an object is asked for at once when it is read back.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// How many such requests are under way at once.
const READS_IN_FLIGHT: usize = 2;

/// How many pages of directories are listed: what else can write to a store is not trusted.
const DIRECTORY_PAGES: usize = 4;

/// A store that was opened: everything in it lies below the URL's prefix.
#[derive(Clone)]
pub struct Store {
    settings: StoreSettings,
    objects: Arc<dyn ObjectStore>,
    pages: Option<Arc<dyn PaginatedListStore>>,
    secrets: Redactor,
    bytes_read: Arc<AtomicU64>,
    identities: Option<Identities>,
}

/// One object as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key below the URL's prefix.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
    /// The store's own mark of its content.
    pub e_tag: Option<String>,
}

impl Store {
    /// Makes the client. Nothing is asked of the store yet, except that a directory must exist.
    pub fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let settings::Client { objects, pages, secrets } = settings::client(settings)?;
        Ok(Self { settings: settings.clone(), objects, pages, secrets, bytes_read: Arc::default(), identities: None })
    }

    /// With private keys: encrypted backups can be read, too.
    #[must_use]
    pub fn with_identities(mut self, identities: Identities) -> Self {
        self.identities = Some(identities);
        self
    }

    pub(crate) fn identities(&self) -> Option<&Identities> {
        self.identities.as_ref()
    }

    /// How many bytes of dumps were read since it was opened.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The URL that was opened.
    pub fn url(&self) -> &StoreUrl {
        &self.settings.url
    }

    /// Its credentials, which no message may contain.
    pub fn secrets(&self) -> &Redactor {
        &self.secrets
    }

    /// The key in the bucket or directory of something below the prefix.
    pub(crate) fn full_path(&self, key: &str) -> Result<Path, StoreError> {
        let prefix = self.settings.url.prefix();
        let full = match (prefix.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => prefix.to_owned(),
            (false, false) => format!("{prefix}/{key}"),
        };
        // `parse` takes the key as it is; `from` would encode and so hide a bad one.
        Path::parse(&full).map_err(|error| StoreError::Settings(format!("{full:?} is not a key: {error}")))
    }

    fn key_of(&self, path: &Path) -> Option<String> {
        let prefix = self.settings.url.prefix();
        let path = path.as_ref();
        if prefix.is_empty() {
            return Some(path.to_owned());
        }
        path.strip_prefix(prefix)?.strip_prefix('/').map(str::to_owned)
    }

    fn classify(&self, action: String, error: &object_store::Error) -> StoreError {
        StoreError::classify(action, error, &self.secrets)
    }

    /// Writes a small object that must not exist yet.
    ///
    /// Stores that know no conditional writes are asked first whether it exists; two writers at the same time are
    /// then distinguished only by the run id in their location.
    pub(crate) async fn put_once(&self, key: &str, content: Bytes) -> Result<(), StoreError> {
        let path = self.full_path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.objects.put_opts(&path, PutPayload::from(content.clone()), options).await;
        let Err(error) = put else { return Ok(()) };
        let unconditional =
            matches!(error, object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })
                || error_chain(&error).contains("501 Not Implemented");
        if !unconditional {
            return Err(self.classify(format!("write {key}"), &error));
        }
        if self.size(key).await?.is_some() {
            return Err(StoreError::Exists { path: key.to_owned() });
        }
        self.objects
            .put(&path, PutPayload::from(content))
            .await
            .map_err(|error| self.classify(format!("write {key}"), &error))?;
        Ok(())
    }

    /// The size of an object in bytes and its mark, or none when it does not exist.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Listed>, StoreError> {
        match self.objects.head(&self.full_path(key)?).await {
            Ok(meta) => Ok(Some(listed(key.to_owned(), &meta))),
            Err(error) => match self.classify(format!("read the size of {key}"), &error) {
                StoreError::Failed { reason: Reason::ObjectMissing, .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.head(key).await?.map(|found| found.size))
    }

    /// A small object as a whole; refused above `limit` bytes, since what lies in a store need not be ours.
    pub(crate) async fn get_small(&self, key: &str, limit: u64) -> Result<Bytes, StoreError> {
        let action = || format!("read {key}");
        let found = self.objects.get(&self.full_path(key)?).await.map_err(|error| self.classify(action(), &error))?;
        if found.meta.size > limit {
            return Err(StoreError::Failed {
                action: action(),
                reason: Reason::ArchiveInvalid,
                detail: format!("{} bytes are more than the {limit} that are read", found.meta.size),
            });
        }
        found.bytes().await.map_err(|error| self.classify(action(), &error))
    }

    /// The bytes of an object in order, by ranged requests, so that a broken connection costs one range only.
    pub(crate) fn read(&self, key: &str, size: u64) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        self.read_part(key, 0..size)
    }

    /// The same of a part of an object.
    pub(crate) fn read_part(
        &self,
        key: &str,
        part: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let size = part.end.saturating_sub(part.start);
        let ranges: Vec<Range<u64>> = (0..size.div_ceil(READ_BYTES))
            .map(|index| part.start + index * READ_BYTES..part.end.min(part.start + (index + 1) * READ_BYTES))
            .collect();
        let (store, key) = (self.clone(), key.to_owned());
        let (home, mut idle) = mpsc::unbounded_channel();
        futures::stream::iter(ranges)
            .map(move |range| {
                let buffer = Buffer { content: idle.try_recv().unwrap_or_default(), home: home.clone() };
                let (store, key) = (store.clone(), key.clone());
                async move { store.read_range(&key, range, buffer).await }
            })
            .buffered(READS_IN_FLIGHT)
    }

    async fn read_range(&self, key: &str, range: Range<u64>, mut buffer: Buffer) -> Result<Bytes, StoreError> {
        let path = self.full_path(key)?;
        let wanted = range.end - range.start;
        let of_store = |error| self.classify(format!("read {key}"), &error);
        let other = |found: usize| StoreError::Failed {
            action: format!("read {key}"),
            reason: Reason::ChecksumMismatch,
            detail: format!("{found} bytes came back where {wanted} were asked for"),
        };
        let options = GetOptions::new().with_range(Some(range));
        let answer = self.objects.get_opts(&path, options).await.map_err(of_store)?;
        buffer.content.clear();
        buffer.content.reserve_exact(usize::try_from(wanted).unwrap_or_default());
        match answer.payload {
            GetResultPayload::Stream(mut pieces) => {
                while let Some(piece) = pieces.try_next().await.map_err(of_store)? {
                    let size = buffer.content.len() + piece.len();
                    if size as u64 > wanted {
                        return Err(other(size));
                    }
                    buffer.content.extend_from_slice(&piece);
                }
            }
            GetResultPayload::File(mut file, _) => {
                let read = move || {
                    file.seek(SeekFrom::Start(answer.range.start))?;
                    file.take(wanted).read_to_end(&mut buffer.content)?;
                    Ok::<_, IoError>(buffer)
                };
                buffer = spawn_blocking(read).await.unwrap_or_else(|error| Err(error.into())).map_err(|source| {
                    of_store(object_store::Error::Generic { store: "LocalFileSystem", source: source.into() })
                })?;
            }
        }
        if buffer.content.len() as u64 != wanted {
            return Err(other(buffer.content.len()));
        }
        self.bytes_read.fetch_add(wanted, Ordering::Relaxed);
        Ok(Bytes::from_owner(buffer))
    }

    /// Everything below a directory: exactly that directory, never one whose name merely starts alike.
    pub(crate) fn list(
        &self,
        directory: &str,
    ) -> Result<impl Stream<Item = Result<Listed, StoreError>> + use<'_>, StoreError> {
        let path = self.full_path(directory)?;
        let prefix = (!path.as_ref().is_empty()).then_some(path);
        let action = format!("list {}", if directory.is_empty() { "the store" } else { directory });
        Ok(self
            .objects
            .list(prefix.as_ref())
            .map_err(move |error| self.classify(action.clone(), &error))
            .try_filter_map(move |meta| async move { Ok(self.key_of(&meta.location).map(|key| listed(key, &meta))) }))
    }

    /// Names of the directories right below the prefix: those of the first pages, if there are many.
    pub(crate) async fn directories(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error: object_store::Error| self.classify("list the store".to_owned(), &error);
        let prefix = Some(self.full_path("")?).filter(|path| !path.as_ref().is_empty());
        let Some(pages) = &self.pages else {
            let found = self.objects.list_with_delimiter(prefix.as_ref()).await.map_err(failed)?;
            return Ok(names_of(&found.common_prefixes));
        };
        let prefix = prefix.map(|path| format!("{path}/"));
        let (mut names, mut page_token) = (Vec::new(), None);
        for _ in 0..DIRECTORY_PAGES {
            let delimiter = Some("/".into());
            let options = PaginatedListOptions { delimiter, page_token, ..PaginatedListOptions::default() };
            let page = pages.list_paginated(prefix.as_deref(), options).await.map_err(failed)?;
            names.extend(names_of(&page.result.common_prefixes));
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        Ok(names)
    }

    /// Removes an object; a missing object is no error.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.objects.delete(&self.full_path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.classify(format!("delete {key}"), &error)),
        }
    }

    /// Begins an object in parts, see [`Upload`].
    async fn begin(&self, key: &str) -> Result<Box<dyn object_store::MultipartUpload>, StoreError> {
        self.objects
            .put_multipart(&self.full_path(key)?)
            .await
            .map_err(|error| self.missing_is_bucket(format!("begin {key}"), &error))
    }

    /// Writing never misses an object, so "not found" can only mean the bucket.
    fn missing_is_bucket(&self, action: String, error: &object_store::Error) -> StoreError {
        match self.classify(action, error) {
            StoreError::Failed { action, reason: Reason::ObjectMissing, detail } => {
                StoreError::Failed { action, reason: Reason::BucketMissing, detail }
            }
            other => other,
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn names_of(directories: &[Path]) -> Vec<String> {
    directories.iter().filter_map(|path| path.filename().map(str::to_owned)).collect()
}

fn listed(key: String, meta: &object_store::ObjectMeta) -> Listed {
    Listed {
        key,
        size: meta.size,
        modified: Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH),
        e_tag: meta.e_tag.clone(),
    }
}
