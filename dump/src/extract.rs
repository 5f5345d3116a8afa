//! Parts of a published dump, read straight from the store: no more than the head of the archive and the rows of the tables
//! that are asked for.

use std::{collections::BTreeMap, io::Write as _, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::ChildStdout,
    sync::{Mutex, OnceCell},
    task::JoinHandle,
};

use crate::{
    Block, ClientTools, Manifest, ManifestError, Reason, Store, StoreError, TableRows, ToolError,
    archive::{Merged, RowReader, without_attver},
    clients::Running,
    encryption::decrypt_part,
    segments::{segment_stream, segments_of},
    text::hex,
};

/// How much is read from pg_restore's pipe at once.
const PIECE: usize = 64 * 1024;

/// The largest head that is kept in memory: a catalog of some 100,000 tables.
const LARGEST_HEAD: u64 = 256 * 1024 * 1024;

/// A dump, or a part of it, that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// It has no index.
    #[error(
        "the backup {0} has no table index: it was made by an earlier version of pgrail, or by a pg_dump that is newer than it"
    )]
    NoIndex(String),
    /// Its index is of another archive.
    #[error("the table index of the backup is invalid: {0}")]
    Index(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is encrypted of the manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The store has other bytes than were written.
    #[error("{part} has the SHA-256 {found} instead of {expected}")]
    Content {
        /// Which part.
        part: String,
        /// What it was when it was written.
        expected: String,
        /// What it is.
        found: String,
    },
    /// pg_restore failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// pg_restore failed to restore the archive into a database.
    #[error(transparent)]
    Load(ToolError),
    /// What pg_restore wrote is not a script of rows.
    #[error("the rows of {table} cannot be read: {problem}")]
    Script {
        /// `schema.table`
        table: String,
        /// Why.
        problem: String,
    },
    /// The archive holds another number of rows.
    #[error("{table} has {found} rows in the archive instead of {expected}")]
    RowCount {
        /// `schema.table`
        table: String,
        /// What the manifest says.
        expected: u64,
        /// What the archive holds.
        found: u64,
    },
    /// A file for pg_restore could not be written.
    #[error("a temporary file for pg_restore cannot be written")]
    File(#[source] std::io::Error),
    /// The target of the bytes failed.
    #[error("the bytes of the archive cannot be passed on")]
    Sink(#[source] std::io::Error),
}

impl ExtractError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoIndex(_) => Reason::InvalidRequest,
            Self::Index(_) | Self::Script { .. } => Reason::ArchiveInvalid,
            Self::Store(error) => error.reason(),
            Self::Manifest(error) => error.reason(),
            Self::Content { .. } => Reason::ChecksumMismatch,
            Self::Tool(error) => error.reason(Reason::ArchiveInvalid),
            Self::Load(error) => error.reason_of_restore(),
            Self::RowCount { .. } => Reason::RowCountMismatch,
            Self::File(_) | Self::Sink(_) => Reason::Internal,
        }
    }
}

/// A published dump of which parts are read.
#[derive(Debug, Clone)]
pub struct Extract {
    pub(crate) store: Store,
    manifest: Arc<Manifest>,
    /// The head of the only archive, or of the first one: definitions.
    first: HeadBytes,
    /// The heads of other archives that were read.
    others: Arc<Mutex<BTreeMap<u32, HeadBytes>>>,
    /// What the heads list, once they were read.
    pub(crate) contents: Arc<OnceCell<Merged>>,
}

/// The head of an archive.
#[derive(Debug, Clone)]
pub(crate) struct HeadBytes {
    /// As it is in the store.
    pub(crate) stored: Bytes,
    /// As pg_restore gets it, for a server of any version. As long as the other.
    pub(crate) restored: Bytes,
}

impl Extract {
    /// Reads the head of the archive and checks it. An encrypted one needs a store with private keys.
    pub async fn open(store: &Store, manifest: Manifest) -> Result<Self, ExtractError> {
        let manifest = manifest.reveal(store).await?;
        let first = read_head(store, &manifest, 0).await?;
        let (others, contents) = (Arc::default(), Arc::default());
        Ok(Self { store: store.clone(), manifest: Arc::new(manifest), first, others, contents })
    }

    /// The head of an archive.
    pub(crate) async fn head(&self, archive: u32) -> Result<HeadBytes, ExtractError> {
        if archive == 0 {
            return Ok(self.first.clone());
        }
        let mut others = self.others.lock().await;
        if let Some(head) = others.get(&archive) {
            return Ok(head.clone());
        }
        let head = read_head(&self.store, &self.manifest, archive).await?;
        others.insert(archive, head.clone());
        Ok(head)
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many bytes of dumps were read from the store since it was opened.
    pub fn bytes_read(&self) -> u64 {
        self.store.bytes_read()
    }

    /// The entries with rows of that table: itself, or its partitions.
    pub fn tables(&self, schema: &str, name: &str) -> Vec<TableRows> {
        self.manifest.tables.iter().filter(|table| table.is_of(schema, name)).cloned().collect()
    }

    /// How many bytes of the store it takes to read the rows of a table.
    pub fn size(table: &TableRows) -> Result<u64, ExtractError> {
        Ok(block_of(table)?.length)
    }

    /// Writes an archive with the rows of these tables, and with the definitions of everything unless the dump has several
    /// archives: pg_restore restores it, with a list that names no other rows. An error means that what was written is worth
    /// nothing: the SHA-256 of a block is known at its end. Tables of several archives are refused.
    pub async fn write_archive<W: AsyncWrite + Unpin>(
        &self,
        tables: &[TableRows],
        out: &mut W,
    ) -> Result<(), ExtractError> {
        let archives =
            tables.iter().map(|table| Ok(block_of(table)?.archive)).collect::<Result<Vec<_>, ExtractError>>()?;
        let archive = archives.first().copied().unwrap_or(0);
        if archives.iter().any(|other| *other != archive) {
            return Err(ExtractError::Index("these tables are in several archives".to_owned()));
        }
        self.write_part(archive, tables, out).await
    }

    /// The same for an archive by its number, of which `tables` are; without any, its head.
    pub(crate) async fn write_part<W: AsyncWrite + Unpin>(
        &self,
        archive: u32,
        tables: &[TableRows],
        out: &mut W,
    ) -> Result<(), ExtractError> {
        let blocks = tables.iter().map(|table| Ok((block_of(table)?, table)));
        let mut blocks = blocks.collect::<Result<Vec<_>, ExtractError>>()?;
        let head = self.head(archive).await?.restored;
        out.write_all(&head).await.map_err(ExtractError::Sink)?;
        // pg_restore reads a pipe in one direction only.
        blocks.sort_by_key(|(block, _)| block.offset);
        for (block, table) in blocks {
            let end = block.offset.checked_add(block.length).filter(|_| block.offset >= head.len() as u64);
            let end = end.ok_or_else(|| ExtractError::Index(format!("{}.{}", table.schema, table.name)))?;
            let mut digest = Sha256::new();
            let mut parts = archive_part(&self.store, &self.manifest, archive, block.offset..end)?;
            while let Some(part) = parts.try_next().await? {
                digest.update(&part);
                out.write_all(&part).await.map_err(ExtractError::Sink)?;
            }
            let found = hex(&digest.finalize());
            if found != block.sha256 {
                let part = format!("the block of {}.{}", table.schema, table.name);
                return Err(ExtractError::Content { part, expected: block.sha256.clone(), found });
            }
        }
        out.flush().await.map_err(ExtractError::Sink)
    }

    /// The rows of one table, in the text format of COPY and in the encoding of the dumped database.
    pub async fn rows(&self, table: &TableRows, tools: &ClientTools) -> Result<RowStream, ExtractError> {
        let label = format!("{}.{}", table.schema, table.name);
        let mut list = NamedTempFile::new().map_err(ExtractError::File)?;
        writeln!(list, "{};", block_of(table)?.entry).map_err(ExtractError::File)?;
        let mut use_list = std::ffi::OsString::from("--use-list=");
        use_list.push(list.path());
        let arguments = ["--format=custom".into(), "--data-only".into(), "--file=-".into(), use_list];
        let mut restore = tools.start("pg_restore", arguments, None, true, true)?;
        let (input, output) = (restore.input.take(), restore.output.take());
        let (extract, tables) = (self.clone(), vec![table.clone()]);
        let feed = tokio::spawn(async move {
            match input {
                Some(mut input) => extract.write_archive(&tables, &mut input).await,
                None => Ok(()),
            }
        });
        let mut stream = RowStream {
            columns: Vec::new(),
            label,
            expected: table.rows.number(),
            restore,
            output,
            feed: Some(feed),
            reader: Some(RowReader::keeping()),
            rows: 0,
            _list: list,
        };
        stream.read_columns().await?;
        Ok(stream)
    }
}

/// The rows of one table.
pub struct RowStream {
    /// The columns, as their names are in the archive.
    pub columns: Vec<Vec<u8>>,
    label: String,
    expected: Option<u64>,
    restore: Running,
    output: Option<ChildStdout>,
    feed: Option<JoinHandle<Result<(), ExtractError>>>,
    reader: Option<RowReader>,
    rows: u64,
    _list: NamedTempFile,
}

impl RowStream {
    /// The next rows. The end comes only after everything was checked: the SHA-256 of the block, the exit status of
    /// pg_restore, and the number of rows. Before that, nothing may be committed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ExtractError> {
        loop {
            if let Some(kept) = self.reader.as_mut().and_then(RowReader::kept).filter(|kept| !kept.rows.is_empty()) {
                return Ok(Some(std::mem::take(&mut kept.rows).into()));
            }
            if !self.read_piece().await? {
                return Ok(None);
            }
        }
    }

    /// How many rows there were. Known at the end.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    async fn read_columns(&mut self) -> Result<(), ExtractError> {
        loop {
            if let Some(columns) = self.reader.as_mut().and_then(RowReader::kept).and_then(|kept| kept.columns.take()) {
                self.columns = columns;
                return Ok(());
            }
            if !self.read_piece().await? {
                return Ok(());
            }
        }
    }

    /// Reads some of the script; `false` at its end.
    async fn read_piece(&mut self) -> Result<bool, ExtractError> {
        let Some(output) = &mut self.output else { return Ok(false) };
        let mut piece = vec![0; PIECE];
        let size = output.read(&mut piece).await.map_err(|error| self.restore.pipe_error(error))?;
        let Some(reader) = &mut self.reader else { return Ok(false) };
        if size > 0 {
            if let Err(error) = reader.read(&piece[..size]) {
                return Err(self.failed(error.to_string()).await);
            }
            return Ok(true);
        }
        self.output = None;
        self.end().await?;
        Ok(false)
    }

    /// The cause of what cannot be read is rather that the store or pg_restore failed.
    async fn failed(&mut self, problem: String) -> ExtractError {
        self.restore.kill().await;
        let fed = match self.feed.take() {
            Some(feed) => feed.await.unwrap_or(Ok(())),
            None => Ok(()),
        };
        match fed {
            Err(error) if !matches!(error, ExtractError::Sink(_)) => error,
            _ => ExtractError::Script { table: self.label.clone(), problem },
        }
    }

    async fn end(&mut self) -> Result<(), ExtractError> {
        let fed = match self.feed.take() {
            Some(feed) => feed.await.unwrap_or_else(|error| Err(ExtractError::Sink(std::io::Error::other(error)))),
            None => Ok(()),
        };
        match fed {
            // It ended early: its own error is the cause.
            Err(ExtractError::Sink(error)) => {
                self.restore.wait().await?;
                return Err(ExtractError::Sink(error));
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        self.restore.wait().await?;
        let Some(reader) = self.reader.take() else { return Ok(()) };
        let found = reader
            .finish()
            .map_err(|error| ExtractError::Script { table: self.label.clone(), problem: error.to_string() })?;
        self.rows = found.tables.values().sum();
        if found.tables.len() != 1 {
            let problem = format!("{} tables instead of one", found.tables.len());
            return Err(ExtractError::Script { table: self.label.clone(), problem });
        }
        match self.expected {
            Some(expected) if expected != self.rows => {
                Err(ExtractError::RowCount { table: self.label.clone(), expected, found: self.rows })
            }
            _ => Ok(()),
        }
    }
}

/// Reads the head of an archive and checks it.
async fn read_head(store: &Store, manifest: &Manifest, archive: u32) -> Result<HeadBytes, ExtractError> {
    let part = manifest.part(archive).ok_or_else(|| ExtractError::NoIndex(manifest.location.clone()));
    let head = part.map(|(_, head)| head.clone())?;
    if head.length > LARGEST_HEAD {
        return Err(ExtractError::Index(format!("the head has {} bytes", head.length)));
    }
    let mut bytes = Vec::new();
    let mut parts = archive_part(store, manifest, archive, 0..head.length)?;
    while let Some(part) = parts.try_next().await? {
        bytes.extend_from_slice(&part);
    }
    let found = hex(&Sha256::digest(&bytes));
    if found != head.sha256 {
        let part = "the head of the archive".into();
        return Err(ExtractError::Content { part, expected: head.sha256, found });
    }
    let changed = without_attver(&bytes).map_err(|error| ExtractError::Index(error.to_string()))?;
    let stored = Bytes::from(bytes);
    Ok(HeadBytes { restored: changed.map_or_else(|| stored.clone(), Bytes::from), stored })
}

fn block_of(table: &TableRows) -> Result<&Block, ExtractError> {
    table.block.as_ref().ok_or_else(|| ExtractError::Index(format!("{}.{} is missing", table.schema, table.name)))
}

/// The bytes of a part of the archive, which may be encrypted and is cut into segments. Everything that is read of an archive is
/// read here.
pub(crate) fn archive_part(
    store: &Store,
    manifest: &Manifest,
    archive: u32,
    part: Range<u64>,
) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, ExtractError> {
    if part.start > part.end {
        return Err(ExtractError::Index(format!("bytes {} to {}", part.start, part.end)));
    }
    let (segments, _) = manifest.part(archive).ok_or_else(|| ExtractError::Index(format!("archive {archive}")))?;
    if manifest.is_encrypted() {
        return Ok(decrypt_part(store, &manifest.location, segments, part).boxed());
    }
    let ranges = segments_of(segments, &part)
        .ok_or_else(|| ExtractError::Index(format!("bytes {} to {} are not in the archive", part.start, part.end)))?;
    Ok(segment_stream(store, &manifest.location, ranges).boxed())
}
