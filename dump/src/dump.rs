//! Taking a dump: one snapshot, one stream, nothing visible in the store before everything ended well.

use std::future::{Future, pending};

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::{
    DumpDetails, DumpRequest, DumpResult, Failure, PartialCause, Phase, Progress, Reason, Remarks, RowCounts, Segment,
    Store, StoreError, TableRows,
    archive::{Contents, DecodeError, Decoded, Decoder, Head},
    clients::{Running, ToolError},
    connection::{self, Environment},
    preflight::{self, PreflightError, Prepared},
    snapshot::SnapshotError,
    store::Upload,
    tables::{TablesDiffer, compare, index},
    text::{base64, sha256},
};

/// The name of the roles' file within its dump's directory.
pub const GLOBALS: &str = "globals.sql";

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
            Self::CaFile(_) => Reason::Internal,
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
    let start_time = (request.clock)();
    tokio::pin!(stop);
    let prepared = tokio::select! {
        prepared = preflight::check(request) => prepared?,
        () = &mut stop => return Err(DumpError::Interrupted),
    };
    // Before pg_dump starts: wrong credentials or a missing bucket cost the server nothing.
    let mut upload = Upload::begin(store, &prepared.location, request.upload).await?;
    let streamed = tokio::select! {
        streamed = stream(request, &prepared, &mut upload, progress) => streamed,
        () = &mut stop => Err(DumpError::Interrupted),
    };
    let streamed = match streamed {
        Ok(streamed) => streamed,
        Err(error) => {
            upload.abort().await;
            return Err(error);
        }
    };
    let uploaded = upload.finish().await?;
    let globals = match write_globals(request, &prepared, store).await {
        Ok(globals) => globals,
        Err(error) => {
            remove_objects(store, &prepared.location, &uploaded.segments).await;
            return Err(error);
        }
    };
    let Prepared { tools, location, compression: _, snapshot } = prepared;
    let (server, source) = (snapshot.server.clone(), snapshot.source.clone());
    let unlogged_tables: Vec<_> = snapshot
        .relations
        .iter()
        .filter(|relation| relation.is_left_out(&request.filter, server.standby))
        .map(|relation| format!("{}.{}", relation.schema, relation.name))
        .collect();
    let large_objects = if request.filter.schemas.is_empty() { snapshot.large_objects } else { 0 };
    snapshot.end().await;
    let Streamed { table_rows, contents, head, warnings } = streamed;
    let mut partial_because = request.filter.partial_because();
    if !unlogged_tables.is_empty() {
        partial_because.push(PartialCause::UnloggedTables);
    }
    Ok(DumpResult {
        location,
        backup_name: request.identity.backup_name.clone(),
        start_time,
        snapshot_time: server.time,
        completion_time: (request.clock)(),
        size_bytes: uploaded.size_bytes,
        database_bytes: server.database_bytes,
        tables: table_rows.len() as u64,
        rows: table_rows.iter().filter_map(|table| table.rows.number()).sum(),
        large_objects,
        server_version: server.version,
        client_version: tools.version().to_owned(),
        sha256: uploaded.sha256,
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
            segments: uploaded.segments,
            globals,
            contents,
            head,
            source: Some(source),
            table_rows,
        })),
    })
}

struct Streamed {
    table_rows: Vec<TableRows>,
    contents: Contents,
    head: Option<Head>,
    warnings: Vec<String>,
}

/// Everything between the preflight and the completion of the upload: the archive and the counts beside it.
async fn stream(
    request: &DumpRequest,
    prepared: &Prepared,
    upload: &mut Upload,
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
    let (mut table_rows, (decoded, warnings)) = tokio::try_join!(counts, archive(request, prepared, upload, progress))?;
    let large_objects = if request.filter.schemas.is_empty() { snapshot.large_objects } else { 0 };
    compare(&mut table_rows, large_objects, &decoded.rows)?;
    index(&mut table_rows, &decoded.blocks);
    Ok(Streamed { table_rows, contents: decoded.contents, head: decoded.blocks.head, warnings })
}

/// pg_dump's archive into decoder and upload, until every program ended with 0. Returns pg_dump's warnings, too.
async fn archive(
    request: &DumpRequest,
    prepared: &Prepared,
    upload: &mut Upload,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(Decoded, Vec<String>), DumpError> {
    let mut decoder = Decoder::start(&prepared.tools)?;
    let environment = Environment::new(&request.connection, &prepared.snapshot.reached()).map_err(DumpError::CaFile)?;
    let mut dump = start_pg_dump(request, prepared, &environment)?;
    if let Err(error) = pump(&mut dump, &mut decoder, upload, progress).await {
        dump.kill().await;
        return Err(error);
    }
    // pg_dump first: when it failed, the archive cannot be decoded either, but that is not the cause.
    let warnings = dump.wait().await?;
    Ok((decoder.finish().await?, warnings))
}

fn start_pg_dump(request: &DumpRequest, prepared: &Prepared, environment: &Environment) -> Result<Running, ToolError> {
    let mut arguments = vec![
        "--format=custom".to_owned(),
        format!("--compress={}", prepared.compression),
        format!("--snapshot={}", prepared.snapshot.server.snapshot),
        format!("--lock-wait-timeout={}", request.lock_wait.as_millis()),
        "--no-password".to_owned(),
    ];
    arguments.extend(request.filter.arguments());
    prepared.tools.start("pg_dump", arguments, Some(environment), false, true)
}

async fn pump(
    dump: &mut Running,
    decoder: &mut Decoder,
    upload: &mut Upload,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), DumpError> {
    let Some(mut output) = dump.output.take() else { return Ok(()) };
    let mut piece = vec![0; PIECE];
    let mut written = 0;
    loop {
        let size = output.read(&mut piece).await.map_err(|error| dump.pipe_error(error))?;
        if size == 0 {
            return Ok(());
        }
        decoder.write(&piece[..size]).await?;
        upload.write(&piece[..size]).await?;
        written += size as u64;
        progress(Progress::Written { bytes: written });
    }
}

async fn write_globals(
    request: &DumpRequest,
    prepared: &Prepared,
    store: &Store,
) -> Result<Option<Segment>, DumpError> {
    if !request.globals {
        return Ok(None);
    }
    let text = prepared.snapshot.globals().await?;
    let segment = Segment {
        name: GLOBALS.to_owned(),
        size_bytes: text.len() as u64,
        sha256: sha256(text.as_bytes()),
        e_tag: None,
        store_checksum: store.computes_sha256().then(|| base64(&Sha256::digest(text.as_bytes()))),
    };
    store.put_once(&format!("{}/{GLOBALS}", prepared.location), text.into()).await?;
    Ok(Some(segment))
}

/// Removes the objects of a dump that failed after its upload.
async fn remove_objects(store: &Store, location: &str, segments: &[Segment]) {
    for name in segments.iter().map(|segment| segment.name.as_str()).chain([GLOBALS]) {
        if let Err(error) = store.delete(&format!("{location}/{name}")).await {
            tracing::warn!(location, name, %error, "could not remove an object of a failed dump; it is swept later");
        }
    }
}
