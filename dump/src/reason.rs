//! The reasons why a step of the engine fails.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a dump, a verification or a prune failed.
///
/// At once the reason of a condition, of an Event and a metric's label, so the set is bounded. A reason a newer
/// agent invents reads as [`Reason::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The request itself cannot be carried out: an impossible name, an unknown recipient, an unsupported option.
    InvalidRequest,
    /// `pg_dump` or `pg_restore` was not found, or does not start.
    ClientMissing,
    /// The client programs are older than the server.
    VersionMismatch,
    /// The client cannot compress with the method that was asked for.
    CompressionUnsupported,
    /// The database cannot be reached, or the connection broke.
    ConnectionFailed,
    /// The server rejected the role or its password.
    AuthenticationFailed,
    /// The database does not exist on the server.
    DatabaseMissing,
    /// The connection goes through a pooler that hands out a server session per transaction.
    PoolerDetected,
    /// The role cannot read everything that it was asked to dump.
    PermissionDenied,
    /// Row security would hide rows from the role.
    RowSecurity,
    /// A table stayed locked by someone else for too long.
    LockTimeout,
    /// `pg_dump` failed for a reason of its own; its last lines are in the message.
    DumpFailed,
    /// The archive decodes but cannot be restored.
    NotRestorable,
    /// A query on the restored database does not return what is expected.
    QueryFailed,
    /// The archive does not decode.
    ArchiveInvalid,
    /// The archive decodes but does not hold the rows that the snapshot had.
    RowCountMismatch,
    /// Rows of the target conflict with those that are to be restored.
    Conflict,
    /// The target refused what was to be restored.
    RestoreFailed,
    /// What the store gives back is not what was written.
    ChecksumMismatch,
    /// It is encrypted, and none of the private keys that are given decrypts it.
    IdentityRequired,
    /// An object of the dump is not in the store.
    ObjectMissing,
    /// The place already holds another manifest: manifests are written once.
    AlreadyPublished,
    /// What was to be pruned belongs to someone else.
    NotOurs,
    /// The store's URL, endpoint or credentials cannot be understood.
    StoreInvalid,
    /// The bucket, container or directory does not exist.
    BucketMissing,
    /// The store refused the credentials or the operation.
    AccessDenied,
    /// The store has no space left.
    StoreFull,
    /// The store's quota is used up.
    QuotaExceeded,
    /// The store cannot be reached or answers with errors of its own.
    StoreUnavailable,
    /// The agent was stopped before the step ended.
    Interrupted,
    /// Something on the agent's own machine failed: a pipe, a file, memory.
    Internal,
    /// A reason that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Reason {
    /// The reason as it is written in conditions and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "InvalidRequest",
            Self::ClientMissing => "ClientMissing",
            Self::VersionMismatch => "VersionMismatch",
            Self::CompressionUnsupported => "CompressionUnsupported",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::DatabaseMissing => "DatabaseMissing",
            Self::PoolerDetected => "PoolerDetected",
            Self::PermissionDenied => "PermissionDenied",
            Self::RowSecurity => "RowSecurity",
            Self::LockTimeout => "LockTimeout",
            Self::DumpFailed => "DumpFailed",
            Self::NotRestorable => "NotRestorable",
            Self::QueryFailed => "QueryFailed",
            Self::ArchiveInvalid => "ArchiveInvalid",
            Self::RowCountMismatch => "RowCountMismatch",
            Self::Conflict => "Conflict",
            Self::RestoreFailed => "RestoreFailed",
            Self::ChecksumMismatch => "ChecksumMismatch",
            Self::IdentityRequired => "IdentityRequired",
            Self::ObjectMissing => "ObjectMissing",
            Self::AlreadyPublished => "AlreadyPublished",
            Self::NotOurs => "NotOurs",
            Self::StoreInvalid => "StoreInvalid",
            Self::BucketMissing => "BucketMissing",
            Self::AccessDenied => "AccessDenied",
            Self::StoreFull => "StoreFull",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::Interrupted => "Interrupted",
            Self::Internal => "Internal",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether trying again without changing anything can help. Configuration errors are not worth a retry.
    pub const fn retryable(self) -> bool {
        match self {
            Self::ConnectionFailed
            | Self::LockTimeout
            | Self::DumpFailed
            | Self::ArchiveInvalid
            | Self::RowCountMismatch
            | Self::ChecksumMismatch
            | Self::ObjectMissing
            | Self::StoreUnavailable
            | Self::Interrupted
            | Self::Internal
            | Self::Unknown => true,
            Self::InvalidRequest
            | Self::ClientMissing
            | Self::VersionMismatch
            | Self::CompressionUnsupported
            | Self::AuthenticationFailed
            | Self::DatabaseMissing
            | Self::PoolerDetected
            | Self::PermissionDenied
            | Self::Conflict
            | Self::RestoreFailed
            | Self::NotRestorable
            | Self::QueryFailed
            | Self::RowSecurity
            | Self::IdentityRequired
            | Self::AlreadyPublished
            | Self::NotOurs
            | Self::StoreInvalid
            | Self::BucketMissing
            | Self::AccessDenied
            | Self::StoreFull
            | Self::QuotaExceeded => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
