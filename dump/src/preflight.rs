//! Checks before the first byte: a dump is complete or refused.

use jiff::Timestamp;
use pgrail_postgres::{connect_within, detect_pooler_on};

use crate::{
    DumpRequest, IdentityError, PatternError, Reason, RecipientError, Recipients,
    clients::{ClientTools, ToolError},
    request::CompressionError,
    snapshot::{Access, Snapshot, SnapshotError},
};

/// How many tables an error names.
const NAMED: usize = 5;

/// Why a dump was refused before it began.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The identity makes no location.
    #[error("the dump has no location in the store")]
    Identity(#[from] IdentityError),
    /// A pattern names nothing.
    #[error("the selection of tables is invalid")]
    Pattern(#[from] PatternError),
    /// A recipient is no public key.
    #[error("the recipients of the encryption are invalid")]
    Recipient(#[from] RecipientError),
    /// The compression is not available.
    #[error("the compression is not available")]
    Compression(#[from] CompressionError),
    /// The client programs cannot be used.
    #[error("the client programs cannot be used")]
    Client(#[from] ToolError),
    /// The client is older than the server.
    #[error("pg_dump {client} cannot dump from server {server}: an image with client {needed} or later is needed")]
    ClientTooOld {
        /// pg_dump's version.
        client: String,
        /// The server's version.
        server: String,
        /// The server's major version.
        needed: u32,
    },
    /// A query failed.
    #[error("the database cannot be read")]
    Snapshot(#[from] SnapshotError),
    /// A transaction-mode pooler.
    #[error(
        "the connection goes through a pooler in transaction mode: connect to the server itself, or to the pooler's session mode"
    )]
    Pooled,
    /// Some tables or sequences cannot be read.
    #[error("the role cannot read {0}: grant it pg_read_all_data, or SELECT and USAGE on the schema")]
    Unreadable(String),
    /// Some large objects cannot be read.
    #[error(
        "the role cannot read {unreadable} of {total} large objects, which pg_read_all_data does not cover: grant SELECT on them or make the role a member of their owner"
    )]
    LargeObjects {
        /// Those.
        unreadable: u64,
        /// All.
        total: u64,
    },
    /// Row security would hide rows.
    #[error("row security would hide rows of {0}: a dump of the visible part is refused; give the role BYPASSRLS")]
    RowSecurity(String),
}

impl PreflightError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Identity(_)
            | Self::Pattern(_)
            | Self::Recipient(_)
            | Self::Compression(CompressionError::Level { .. }) => Reason::InvalidRequest,
            Self::Compression(CompressionError::Method { .. }) => Reason::CompressionUnsupported,
            Self::Client(error) => error.reason(Reason::ClientMissing),
            Self::ClientTooOld { .. } => Reason::VersionMismatch,
            Self::Snapshot(error) => error.reason(),
            Self::Pooled => Reason::PoolerDetected,
            Self::Unreadable(_) | Self::LargeObjects { .. } => Reason::PermissionDenied,
            Self::RowSecurity(_) => Reason::RowSecurity,
        }
    }
}

/// What a dump needs, checked.
pub(crate) struct Prepared {
    pub(crate) start_time: Timestamp,
    pub(crate) tools: ClientTools,
    pub(crate) location: String,
    pub(crate) compression: String,
    pub(crate) recipients: Option<Recipients>,
    pub(crate) snapshot: Snapshot,
}

/// Runs every check that is possible before the first byte, the cheap ones first.
pub(crate) async fn check(request: &DumpRequest) -> Result<Prepared, PreflightError> {
    let start_time = (request.clock)();
    let location = request.identity.location()?;
    request.filter.check()?;
    let recipients = Recipients::parse(&request.age_recipients)?;
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    let compression = request.compression.argument(tools.major(), tools.version())?;
    let session = connect_within(&request.connection, &request.addresses).await.map_err(SnapshotError::from)?;
    if detect_pooler_on(&session, &request.addresses).await.map_err(SnapshotError::from)? {
        return Err(PreflightError::Pooled);
    }
    let snapshot = Snapshot::take(session).await?;
    if snapshot.server.major > tools.major() {
        return Err(PreflightError::ClientTooOld {
            client: tools.version().to_owned(),
            server: snapshot.server.version.clone(),
            needed: snapshot.server.major,
        });
    }
    check_rights(request, &snapshot)?;
    Ok(Prepared { start_time, tools, location, compression, recipients, snapshot })
}

fn check_rights(request: &DumpRequest, snapshot: &Snapshot) -> Result<(), PreflightError> {
    let dumped = || snapshot.relations.iter().filter(|relation| relation.is_dumped(&request.filter));
    let unreadable: Vec<_> = dumped()
        .filter(|relation| relation.access == Access::Unreadable)
        .map(|relation| (&relation.schema, &relation.name))
        .collect();
    if !unreadable.is_empty() {
        return Err(PreflightError::Unreadable(named(&unreadable)));
    }
    let hidden: Vec<_> = dumped()
        .filter(|relation| {
            relation.access == Access::RowSecurity && relation.has_rows(&request.filter, snapshot.server.standby)
        })
        .map(|relation| (&relation.schema, &relation.name))
        .collect();
    if !hidden.is_empty() {
        return Err(PreflightError::RowSecurity(named(&hidden)));
    }
    // A dump of some schemas leaves large objects out.
    if request.filter.schemas.is_empty() && snapshot.unreadable_large_objects > 0 {
        return Err(PreflightError::LargeObjects {
            unreadable: snapshot.unreadable_large_objects,
            total: snapshot.large_objects,
        });
    }
    Ok(())
}

fn named(names: &[(&String, &String)]) -> String {
    let mut text: Vec<_> = names.iter().take(NAMED).map(|(schema, name)| format!("{schema}.{name}")).collect();
    if names.len() > NAMED {
        text.push(format!("and {} more", names.len() - NAMED));
    }
    text.join(", ")
}
