//! Taking a dump: one snapshot, one stream, nothing visible in the store before everything ended well.

use std::{
    future::{Future, pending},
    sync::atomic::{AtomicU64, Ordering},
};

use futures::future::try_join_all;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::{
    Archive, Contents, DumpDetails, DumpRequest, DumpResult, Failure, PartialCause, Phase, Progress, Reason, Remarks,
    RowCounts, Segment, Store, StoreError, TableRows, UploadLimits,
    archive::{ArchiveRows, DecodeError, Decoded, Decoder},
    clients::{Running, ToolError},
    connection::{self, Environment},
    encryption::encrypt,
    manifest::{Counts, Index, digest_of},
    parts::{self, Part},
    preflight::{self, PreflightError, Prepared},
    sink::Sink,
    snapshot::SnapshotError,
    tables::{TablesDiffer, compare, index},
    text::{base64, sha256},
};

/// The name of the roles' file within its dump's directory.
pub const GLOBALS: &str = "globals.sql";

/// The name of what the manifest of an encrypted dump does not hold in clear.
pub const INDEX: &str = "index.json.age";

/// The name of what the next run compares its row counts with, of an encrypted dump.
pub const ROWS: &str = "rows.json.age";

/// How much is read from pg_dump's pipe at once.
const PIECE: usize = 128 * 1024;

/// Why a dump failed. Nothing that could be mistaken for a backup is left.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It was refused before it began.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The session that holds the snapshot failed.
    #[error("the snapshot was lost")]
    Snapshot(#[from] SnapshotError),
    /// pg_dump failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// What pg_dump wrote does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The archive does not hold what the snapshot had.
    #[error(transparent)]
    Differs(#[from] TablesDiffer),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The encryption failed.
    #[error("the dump cannot be encrypted")]
    Encryption(#[source] std::io::Error),
    /// The result cannot be written.
    #[error("the index of the dump cannot be written")]
    Index(#[source] serde_json::Error),
    /// The CA could not be passed to pg_dump.
    #[error("the CA cannot be written to a temporary file for pg_dump")]
    CaFile(#[source] std::io::Error),
    /// The agent was stopped before the step ended.
    #[error("the dump was interrupted")]
    Interrupted,
}

impl DumpError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Preflight(error) => error.reason(),
            Self::Snapshot(error) => error.reason(),
            Self::Tool(error) => error.reason(Reason::DumpFailed),
            Self::Decode(error) => error.reason(),
            Self::Differs(_) => Reason::RowCountMismatch,
            Self::Store(error) => error.reason(),
            Self::CaFile(_) | Self::Encryption(_) | Self::Index(_) => Reason::Internal,
            Self::Interrupted => Reason::Interrupted,
        }
    }

    /// The failure as it is reported, without the secrets of the request and the store.
    pub fn failure(&self, request: &DumpRequest, store: &Store) -> Failure {
        let connection = connection::secrets(&request.connection);
        Failure::new(Phase::Dump, self.reason(), self, &[&connection, store.secrets()])
    }
}

/// Takes a dump: preflight, snapshot, counts, archive, globals. The manifest comes with [`crate::verify`]; until then the
/// dump does not exist for anyone.
///
/// # Errors
/// See [`DumpError`]. Objects already written are deleted; those that cannot be deleted are swept later.
pub async fn dump(
    request: &DumpRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<DumpResult, DumpError> {
    dump_until(request, store, progress, pending()).await
}

/// The same, aborted when `stop` is ready: an evicted pod leaves nothing behind.
pub async fn dump_until(
    request: &DumpRequest,
    store: &Store,
    progress: &(dyn Fn(Progress) + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<DumpResult, DumpError> {
    tokio::pin!(stop);
    let prepared = tokio::select! {
        prepared = preflight::check(request) => prepared?,
        () = &mut stop => return Err(DumpError::Interrupted),
    };
    // Before the dump, which may take hours: what cannot be read must not be found out after it.
    let globals = if request.globals { Some(prepared.snapshot.globals().await?) } else { None };
    let parts = divide(request, &prepared).await?;
    // Before pg_dump starts: wrong credentials or a missing bucket cost the server nothing.
    let mut sinks = begin(store, &prepared, &parts, request.upload).await?;
    let streamed = tokio::select! {
        streamed = stream(request, &prepared, &parts, &mut sinks, progress) => streamed,
        () = &mut stop => Err(DumpError::Interrupted),
    };
    let mut streamed = match streamed {
        Ok(streamed) => streamed,
        Err(error) => {
            abort(sinks).await;
            return Err(error);
        }
    };
    let segments = finish(store, &prepared.location, sinks, &mut streamed.archives).await?;
    let written = match result(request, &prepared, store, globals, (segments.clone(), streamed)).await {
        Ok(written) => written,
        Err(error) => {
            remove_objects(store, &prepared.location, &segments).await;
            return Err(error);
        }
    };
    prepared.snapshot.end().await;
    Ok(written)
}

/// The archives that are made, and how many of them at the same time.
async fn divide(request: &DumpRequest, prepared: &Prepared) -> Result<Vec<Part>, DumpError> {
    if request.jobs <= 1 {
        return Ok(parts::whole(&request.filter));
    }
    let snapshot = &prepared.snapshot;
    // As pg_dump's own leader does: a table that is dropped meanwhile would be missing in one of the archives.
    snapshot.lock(&request.filter, request.lock_wait).await?;
    let (tables, others) = snapshot.sizes(&request.filter).await?;
    let workers = request.upload.workers(request.jobs);
    Ok(parts::divided(&request.filter, tables, others, workers))
}

async fn begin(
    store: &Store,
    prepared: &Prepared,
    parts: &[Part],
    limits: UploadLimits,
) -> Result<Vec<Sink>, DumpError> {
    let workers = parts.iter().map(|part| part.worker).max().unwrap_or_default() + 1;
    let recipients = prepared.recipients.as_ref();
    let mut sinks = Vec::with_capacity(parts.len());
    for part in parts {
        let stem = part.stem(recipients.is_some());
        match Sink::begin(store, &prepared.location, stem, recipients, limits.shared_by(workers)).await {
            Ok(sink) => sinks.push(sink),
            Err(error) => {
                abort(sinks).await;
                return Err(error);
            }
        }
    }
    Ok(sinks)
}

async fn abort(sinks: Vec<Sink>) {
    for sink in sinks {
        sink.abort().await;
    }
}

/// Completes the uploads, after every program ended with 0. Returns the objects of all archives in order.
async fn finish(
    store: &Store,
    location: &str,
    sinks: Vec<Sink>,
    archives: &mut [Archive],
) -> Result<Vec<Segment>, DumpError> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut left = sinks.into_iter();
    for archive in archives {
        let Some(sink) = left.next() else { break };
        archive.plain = sink.plain();
        match sink.finish().await {
            Ok(uploaded) => {
                archive.segments = uploaded.segments.len();
                (archive.size_bytes, archive.sha256) = (uploaded.size_bytes, uploaded.sha256);
                segments.extend(uploaded.segments);
            }
            Err(error) => {
                abort(left.collect()).await;
                remove_objects(store, location, &segments).await;
                return Err(error);
            }
        }
    }
    Ok(segments)
}

/// The rest of the dump after its archives: roles and, of an encrypted one, the index.
async fn result(
    request: &DumpRequest,
    prepared: &Prepared,
    store: &Store,
    globals: Option<String>,
    (segments, streamed): (Vec<Segment>, Streamed),
) -> Result<DumpResult, DumpError> {
    let globals = match globals {
        None => None,
        Some(text) => Some(write_globals(prepared, store, text).await?),
    };
    let mut result = describe(request, prepared, globals, segments, streamed);
    if let (Some(recipients), Some(details)) = (&prepared.recipients, &mut result.details) {
        let text = serde_json::to_vec(&Index::new(&result.remarks, details)).map_err(DumpError::Index)?;
        let encrypted = encrypt(recipients, &text).map_err(DumpError::Encryption)?;
        details.index = Some(write_small(store, &result.location, INDEX.to_owned(), encrypted).await?);
        if let Some(key) = &request.rows_key {
            let counts = Counts::new(&result.location, &details.table_rows);
            let text = serde_json::to_vec(&counts).map_err(DumpError::Index)?;
            let encrypted = key.encrypt(&text).map_err(DumpError::Encryption)?;
            details.counts = Some(write_small(store, &result.location, ROWS.to_owned(), encrypted).await?);
        }
    }
    result.completion_time = (request.clock)();
    Ok(result)
}

fn describe(
    request: &DumpRequest,
    prepared: &Prepared,
    globals: Option<Segment>,
    segments: Vec<Segment>,
    streamed: Streamed,
) -> DumpResult {
    let start_time = prepared.start_time;
    let Prepared { tools, location, snapshot, .. } = prepared;
    let (server, source) = (snapshot.server.clone(), snapshot.source.clone());
    let unlogged_tables: Vec<_> = snapshot
        .relations
        .iter()
        .filter(|relation| relation.is_left_out(&request.filter, server.standby))
        .map(|relation| format!("{}.{}", relation.schema, relation.name))
        .collect();
    let large_objects = if request.filter.schemas.is_empty() { snapshot.large_objects } else { 0 };
    let Streamed { table_rows, mut archives, warnings } = streamed;
    let size_bytes = archives.iter().map(|archive| archive.size_bytes).sum();
    let sha256 = digest_of(&archives);
    let contents = Contents::together(archives.iter().map(|archive| &archive.contents));
    // A single archive is described by the result itself.
    let (head, plain) = match &mut archives[..] {
        [only] => (only.head.take(), only.plain.take()),
        _ => (None, None),
    };
    if archives.len() == 1 {
        archives.clear();
    }
    let mut partial_because = request.filter.partial_because();
    if !unlogged_tables.is_empty() {
        partial_because.push(PartialCause::UnloggedTables);
    }
    DumpResult {
        location: location.clone(),
        backup_name: request.identity.backup_name.clone(),
        start_time,
        snapshot_time: server.time,
        completion_time: (request.clock)(),
        size_bytes,
        database_bytes: server.database_bytes,
        tables: table_rows.len() as u64,
        rows: table_rows.iter().filter_map(|table| table.rows.number()).sum(),
        large_objects,
        server_version: server.version,
        client_version: tools.version().to_owned(),
        sha256,
        encrypted: !request.age_recipients.is_empty(),
        partial: !partial_because.is_empty(),
        remarks: Remarks {
            partial_because,
            unlogged_tables,
            warnings,
            replay_lag_seconds: server.replay_lag.map(|lag| u64::try_from(lag.as_secs()).unwrap_or_default()),
        },
        details: Some(Box::new(DumpDetails {
            identity: request.identity.clone(),
            database_name: server.database,
            encoding: server.encoding,
            compression: request.compression,
            filter: request.filter.clone(),
            row_counts: request.row_counts,
            age_recipients: request.age_recipients.clone(),
            segments,
            globals,
            index: None,
            counts: None,
            contents,
            head,
            plain,
            archives,
            source: Some(source),
            table_rows,
        })),
    }
}

struct Streamed {
    table_rows: Vec<TableRows>,
    archives: Vec<Archive>,
    warnings: Vec<String>,
}

/// Everything between the preflight and the completion of the uploads: the archives and the counts beside them.
async fn stream(
    request: &DumpRequest,
    prepared: &Prepared,
    parts: &[Part],
    sinks: &mut [Sink],
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Streamed, DumpError> {
    let snapshot = &prepared.snapshot;
    let exact = request.row_counts == RowCounts::Exact;
    let tables =
        snapshot.relations.iter().filter(|table| table.has_rows(&request.filter, snapshot.server.standby)).count();
    progress(Progress::Started { tables, database_bytes: snapshot.server.database_bytes });
    let counts = async {
        let counted = |tables, of| progress(Progress::Counted { tables, of });
        Ok::<_, DumpError>(snapshot.count(&request.filter, exact, counted).await?)
    };
    let written = AtomicU64::new(0);
    let mut workers: Vec<Vec<_>> = Vec::new();
    for (place, (part, sink)) in parts.iter().zip(sinks).enumerate() {
        workers.resize_with(workers.len().max(part.worker + 1), Vec::new);
        workers[part.worker].push((place, part, sink));
    }
    let written = &written;
    let workers = workers.into_iter().map(|own| async move {
        let mut made = Vec::with_capacity(own.len());
        for (place, part, sink) in own {
            made.push((place, archive(request, prepared, part, sink, written, progress).await?));
        }
        Ok::<_, DumpError>(made)
    });
    let (mut table_rows, made) = tokio::try_join!(counts, try_join_all(workers))?;
    let mut made: Vec<_> = made.into_iter().flatten().collect();
    made.sort_by_key(|(place, _)| *place);
    let mut found = ArchiveRows::default();
    let (mut archives, mut warnings) = (Vec::new(), Vec::new());
    for (place, (decoded, lines)) in made {
        let Decoded { contents, rows, blocks } = decoded;
        found.add(rows)?;
        index(&mut table_rows, &blocks, u32::try_from(place).unwrap_or_default());
        let name = parts[place].name.clone();
        archives.push(Archive { name, contents, head: blocks.head, ..Archive::default() });
        warnings.extend(lines);
    }
    let large_objects = if request.filter.schemas.is_empty() { snapshot.large_objects } else { 0 };
    compare(&mut table_rows, large_objects, &found)?;
    Ok(Streamed { table_rows, archives, warnings })
}

/// pg_dump's archive into decoder and upload, until every program ended with 0. Returns pg_dump's warnings, too.
async fn archive(
    request: &DumpRequest,
    prepared: &Prepared,
    part: &Part,
    sink: &mut Sink,
    written: &AtomicU64,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Decoded, Vec<String>), DumpError> {
    let mut decoder = Decoder::start(&prepared.tools)?;
    let environment = Environment::new(&request.connection, &prepared.snapshot.reached()).map_err(DumpError::CaFile)?;
    let mut dump = start_pg_dump(request, prepared, part, &environment)?;
    let progress = |size: u64| progress(Progress::Written { bytes: written.fetch_add(size, Ordering::Relaxed) + size });
    if let Err(error) = pump(&mut dump, &mut decoder, sink, &progress).await {
        dump.kill().await;
        return Err(error);
    }
    // pg_dump first: when it failed, the archive cannot be decoded either, but that is not the cause.
    let warnings = dump.wait().await?;
    Ok((decoder.finish().await?, warnings))
}

fn start_pg_dump(
    request: &DumpRequest,
    prepared: &Prepared,
    part: &Part,
    environment: &Environment,
) -> Result<Running, ToolError> {
    let mut arguments = vec![
        "--format=custom".to_owned(),
        format!("--compress={}", prepared.compression),
        format!("--snapshot={}", prepared.snapshot.server.snapshot),
        // Else it is that of the session, which the database can set.
        format!("--encoding={}", prepared.snapshot.server.encoding),
        format!("--lock-wait-timeout={}", request.lock_wait.as_millis()),
        "--no-password".to_owned(),
    ];
    arguments.extend(part.arguments.iter().cloned());
    prepared.tools.start("pg_dump", arguments, Some(environment), false, true)
}

async fn pump(
    dump: &mut Running,
    decoder: &mut Decoder,
    sink: &mut Sink,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), DumpError> {
    let Some(mut output) = dump.output.take() else { return Ok(()) };
    let mut piece = vec![0; PIECE];
    loop {
        let size = output.read(&mut piece).await.map_err(|error| dump.pipe_error(error))?;
        if size == 0 {
            return sink.end().await;
        }
        decoder.write(&piece[..size]).await?;
        sink.write(&piece[..size]).await?;
        progress(size as u64);
    }
}

async fn write_globals(prepared: &Prepared, store: &Store, text: String) -> Result<Segment, DumpError> {
    let (name, content) = match &prepared.recipients {
        None => (GLOBALS.to_owned(), text.into_bytes()),
        Some(recipients) => {
            let encrypted = encrypt(recipients, text.as_bytes()).map_err(DumpError::Encryption)?;
            (format!("{GLOBALS}.age"), encrypted)
        }
    };
    write_small(store, &prepared.location, name, content).await
}

async fn write_small(store: &Store, location: &str, name: String, content: Vec<u8>) -> Result<Segment, DumpError> {
    let segment = Segment {
        size_bytes: content.len() as u64,
        sha256: sha256(&content),
        e_tag: None,
        store_checksum: store.computes_sha256().then(|| base64(&Sha256::digest(&content))),
        name,
    };
    store.put_once(&format!("{location}/{}", segment.name), content.into()).await?;
    Ok(segment)
}

/// Removes a dump that is not published. Without it, that is what a later [`crate::prune`] of its schedule does.
///
/// # Errors
/// Of an object that could not be removed. The others are.
pub async fn discard(dump: &DumpResult, store: &Store) -> Result<(), StoreError> {
    let segments = dump.details.as_ref().map(|details| details.segments.as_slice()).unwrap_or_default();
    remove_objects(store, &dump.location, segments).await.map_or(Ok(()), Err)
}

/// Removes the objects of a dump that failed after its upload. Returns the last error.
async fn remove_objects(store: &Store, location: &str, segments: &[Segment]) -> Option<StoreError> {
    let mut failed = None;
    let encrypted_globals = format!("{GLOBALS}.age");
    let names = segments.iter().map(|segment| segment.name.as_str());
    for name in names.chain([GLOBALS, encrypted_globals.as_str(), INDEX, ROWS]) {
        if let Err(error) = store.delete(&format!("{location}/{name}")).await {
            tracing::warn!(location, name, %error, "could not remove an object of a failed dump; it is swept later");
            failed = Some(error);
        }
    }
    failed
}
