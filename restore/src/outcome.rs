//! What a restore leaves behind: results and errors.

use pgrail_dump::{ExtractError, Reason, ToolError};
use pgrail_postgres::{ConnectError, DetectPoolerError};
use pgrail_rows::AsOwnerError;
use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

/// The result of a restore of rows, or of its dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowsRestored {
    /// Whether the rows were restored.
    pub done: bool,
    /// What prevents it, and what to do. Where there is anything, nothing is restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What the result does not cover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Triggers of the tables that fire, as the owner of their table: `schema.table: trigger`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// The tables, parents first.
    pub tables: Vec<TableRestored>,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// How many bytes of the backup were read.
    pub bytes_read: u64,
}

/// The result in one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableRestored {
    /// `schema.table`
    pub table: String,
    /// Its rows in the backup. All of them were read, and their number is that of the manifest.
    pub in_backup: i64,
    /// Rows that are to be in the table: selected by a condition, or dependent on such a row.
    pub selected: i64,
    /// Rows that were inserted, or in a dry run would be.
    pub inserted: i64,
    /// Rows that exist and are identical.
    pub identical: i64,
    /// Rows that exist and are different, or whose unique values other rows have.
    pub different: i64,
    /// Rows whose parent neither exists nor is restored.
    pub parents_missing: i64,
    /// Links to restored rows that a deletion set to NULL or DEFAULT.
    pub links: i64,
    /// Links that were set again, or in a dry run would be.
    pub links_restored: i64,
}

impl RowsRestored {
    /// The sum of a number over all tables.
    pub fn total(&self, number: impl Fn(&TableRestored) -> i64) -> i64 {
        self.tables.iter().map(number).sum()
    }
}

/// Why a restore failed. The target is as it was, except for [`RestoreError::Left`].
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The request itself cannot be carried out.
    #[error("{0}")]
    Request(String),
    /// The login lacks a privilege.
    #[error("{0}")]
    Rights(String),
    /// The target does not hold what the manifest says.
    #[error("the target does not hold what the backup does: {0}")]
    RowCount(String),
    /// It was stopped.
    #[error("the restore was interrupted")]
    Interrupted,
    /// It failed, and not everything that was created could be removed.
    #[error("{error}; these are left, remove them: {left}")]
    Left {
        /// Why it failed.
        error: Box<RestoreError>,
        /// What is left.
        left: String,
    },
    /// No session.
    #[error("no session on the target database")]
    Connect(#[from] ConnectError),
    /// It is unknown whether a pooler is in between.
    #[error("cannot check for a pooler")]
    DetectPooler(#[from] DetectPoolerError),
    /// A transaction-mode pooler.
    #[error("the connection goes through a pooler in transaction mode: connect to the server itself")]
    Pooled,
    /// The backup cannot be read.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The client programs cannot be used.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The server refused it.
    #[error("{message}{remedy}")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's message and detail.
        message: String,
        /// What to do; empty where that is not known.
        remedy: String,
    },
    /// Fewer rows arrived than were inserted.
    #[error("{table}: only {arrived} of {rows} rows arrived; a trigger or a policy of the table rejects the others")]
    KeptOut {
        /// `schema.table`
        table: String,
        /// Rows that the server counted.
        arrived: i64,
        /// Rows that should have arrived.
        rows: i64,
    },
    /// Deferred triggers defer others without end.
    #[error("deferred triggers of the tables fire again and again; disable them while you restore, or skip triggers")]
    Unsettled,
    /// The tables were altered meanwhile.
    #[error("the tables were altered while their rows were read; try again")]
    Altered,
    /// The connection broke.
    #[error("the connection to the target database failed")]
    Query(#[source] tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand the answer of the server")]
    Decode(#[from] serde_json::Error),
}

impl RestoreError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(_) => Reason::InvalidRequest,
            Self::Rights(_) => Reason::PermissionDenied,
            Self::RowCount(_) => Reason::RowCountMismatch,
            Self::Interrupted => Reason::Interrupted,
            Self::Left { error, .. } => error.reason(),
            Self::Connect(error) | Self::DetectPooler(DetectPoolerError::Connect(error)) => match error {
                ConnectError::Authentication(_) => Reason::AuthenticationFailed,
                ConnectError::DatabaseMissing => Reason::DatabaseMissing,
                ConnectError::HostNotAllowed(_) => Reason::InvalidRequest,
                _ => Reason::ConnectionFailed,
            },
            Self::Pooled => Reason::PoolerDetected,
            Self::Extract(error) => error.reason(),
            Self::Tool(error) => error.reason(Reason::ClientMissing),
            Self::Refused { code, .. } if code == SqlState::INSUFFICIENT_PRIVILEGE.code() => Reason::PermissionDenied,
            Self::Refused { code, .. } if code == SqlState::LOCK_NOT_AVAILABLE.code() => Reason::LockTimeout,
            Self::Refused { code, .. } if code.starts_with("57") || code.starts_with("08") => Reason::ConnectionFailed,
            Self::Refused { code, .. } if code.starts_with("23") => Reason::Conflict,
            Self::Refused { .. } | Self::KeptOut { .. } | Self::Unsettled => Reason::RestoreFailed,
            Self::Altered => Reason::LockTimeout,
            Self::Query(_) | Self::DetectPooler(DetectPoolerError::Query(_)) => Reason::ConnectionFailed,
            Self::Decode(_) => Reason::Internal,
        }
    }
}

impl RestoreError {
    /// A statement that creates a database, or something in it.
    pub(crate) fn of_database(error: tokio_postgres::Error) -> Self {
        match Self::from(error) {
            Self::Refused { code, message, .. } => Self::Refused { code, message, remedy: String::new() },
            other => other,
        }
    }
}

impl From<AsOwnerError> for RestoreError {
    fn from(error: AsOwnerError) -> Self {
        match error {
            AsOwnerError::Query(error) => Self::from(error),
            AsOwnerError::Decode(error) => Self::Decode(error),
            AsOwnerError::Unsettled => Self::Unsettled,
        }
    }
}

impl From<tokio_postgres::Error> for RestoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else { return Self::Query(error) };
        let code = server.code();
        let detail = server.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let remedy = if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            "; pgrail's role must be a member of the owner of each table and have TEMPORARY on the database, the owner too".to_owned()
        } else if *code == SqlState::LOCK_NOT_AVAILABLE {
            "; another session holds a lock: try again".to_owned()
        } else {
            server.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
        };
        Self::Refused { code: code.code().to_owned(), message: format!("{}{detail}", server.message()), remedy }
    }
}
