//! Why an object is not carried out as declared: a reason for programs, a message for people.

use pgrail_crds::conditions::reasons::{self, agent, backup, database, exemption, guard, policy, reachable, restore};

macro_rules! reasons {
    ($($variant:ident = $constant:path,)*) => {
        /// The reason of a condition. Its text is the constant of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            $(#[doc = concat!("`", stringify!($variant), "`")] $variant,)*
        }

        impl Reason {
            /// As it stands in a condition.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $constant,)*
                }
            }

            /// The reason with this text: from a condition, or from what an engine returns.
            pub(crate) fn named(text: &str) -> Option<Self> {
                $(if text == $constant { return Some(Self::$variant); })*
                None
            }

            #[cfg(test)]
            const ALL: &[(&str, Self)] = &[$((stringify!($variant), Self::$variant),)*];
        }
    };
}

reasons! {
    Pending = reasons::PENDING,
    AsDeclared = reasons::AS_DECLARED,
    Suspended = reasons::SUSPENDED,
    Unparsable = reasons::UNPARSABLE,
    InvalidSpec = reasons::INVALID_SPEC,
    InvalidAnnotation = reasons::INVALID_ANNOTATION,

    Connected = reachable::CONNECTED,
    ConnectionRefused = reachable::CONNECTION_REFUSED,
    NameResolution = reachable::NAME_RESOLUTION,
    Timeout = reachable::TIMEOUT,
    AuthenticationFailed = reachable::AUTHENTICATION_FAILED,
    TlsFailed = reachable::TLS_FAILED,
    DatabaseMissing = reachable::DATABASE_MISSING,
    TooManyConnections = reachable::TOO_MANY_CONNECTIONS,
    SecretMissing = reachable::SECRET_MISSING,
    SecretIncomplete = reachable::SECRET_INCOMPLETE,
    HostNotAllowed = reachable::HOST_NOT_ALLOWED,

    UnsupportedVersion = database::UNSUPPORTED_VERSION,
    ReadOnlyServer = database::READ_ONLY_SERVER,
    PoolerDetected = database::POOLER_DETECTED,
    Unreachable = database::UNREACHABLE,
    CatalogUnreadable = database::CATALOG_UNREADABLE,
    Superuser = database::SUPERUSER,
    ApplicationRole = database::APPLICATION_ROLE,
    TableOwner = database::TABLE_OWNER,
    DedicatedRole = database::DEDICATED_ROLE,
    IsTemplate = database::IS_TEMPLATE,

    Verified = guard::VERIFIED,
    TablesMissing = guard::TABLES_MISSING,
    Installing = guard::INSTALLING,
    Drifted = guard::DRIFTED,
    NoPrivilege = guard::NO_PRIVILEGE,
    TrackCountsOff = guard::TRACK_COUNTS_OFF,
    Warn = guard::WARN,
    NotATable = guard::NOT_A_TABLE,
    InstallFailed = guard::INSTALL_FAILED,
    DatabaseNotFound = guard::DATABASE_NOT_FOUND,
    DatabaseUnreachable = guard::DATABASE_UNREACHABLE,
    DatabaseNotReady = guard::DATABASE_NOT_READY,
    OwnedByOther = guard::OWNED_BY_OTHER,
    MassDeletion = guard::MASS_DELETION,
    EventTrigger = guard::EVENT_TRIGGER,
    Pinned = guard::PINNED,
    NotProtected = guard::NOT_PROTECTED,
    NotRequested = guard::NOT_REQUESTED,
    OwnerCanDisable = guard::OWNER_CAN_DISABLE,
    TriggerPrivilege = guard::TRIGGER_PRIVILEGE,
    SchemaOwnerCanDrop = guard::SCHEMA_OWNER_CAN_DROP,
    ReplicaRoleSettable = guard::REPLICA_ROLE_SETTABLE,
    TrackCountsSettable = guard::TRACK_COUNTS_SETTABLE,
    FunctionOwner = guard::FUNCTION_OWNER,
    AdministratorsOnly = guard::ADMINISTRATORS_ONLY,
    Unreadable = guard::UNREADABLE,

    Active = exemption::ACTIVE,
    NotYet = exemption::NOT_YET,
    Expired = exemption::EXPIRED,
    TooLate = exemption::TOO_LATE,
    ExceedsPolicy = exemption::EXCEEDS_POLICY,
    BackupRequired = exemption::BACKUP_REQUIRED,
    GuardNotFound = exemption::GUARD_NOT_FOUND,
    GuardNotInstalled = exemption::GUARD_NOT_INSTALLED,
    TableNotGuarded = exemption::TABLE_NOT_GUARDED,

    Scheduled = backup::SCHEDULED,
    InvalidSchedule = backup::INVALID_SCHEDULE,
    InvalidTimeZone = backup::INVALID_TIME_ZONE,
    InvalidStorage = backup::INVALID_STORAGE,
    StoreNotAllowed = backup::STORE_NOT_ALLOWED,
    NeverRan = backup::NEVER_RAN,
    FirstRunPending = backup::FIRST_RUN_PENDING,
    Late = backup::LATE,
    Failing = backup::FAILING,
    Fresh = backup::FRESH,
    Succeeded = backup::SUCCEEDED,
    Failed = backup::FAILED,
    Running = backup::RUNNING,
    ReadBack = backup::READ_BACK,
    Checksum = backup::CHECKSUM,
    Unverified = backup::UNVERIFIED,
    Partial = backup::PARTIAL,
    ClockSkew = backup::CLOCK_SKEW,
    RowsLost = backup::ROWS_LOST,
    NoRowsLost = backup::NO_ROWS_LOST,
    Acknowledged = backup::ACKNOWLEDGED,
    NotCompared = backup::NOT_COMPARED,
    NotDeclared = backup::NOT_DECLARED,
    Retained = backup::RETAINED,
    PruneFailed = backup::PRUNE_FAILED,
    Pruning = backup::PRUNING,
    NameTaken = backup::NAME_TAKEN,
    ResultLost = backup::RESULT_LOST,
    Stopped = backup::STOPPED,
    OutOfMemory = backup::OUT_OF_MEMORY,
    NodeLost = backup::NODE_LOST,
    NotRun = backup::NOT_RUN,
    AllRestored = backup::ALL_RESTORED,
    Missing = backup::MISSING,
    Discovered = backup::DISCOVERED,
    SplitBrain = backup::SPLIT_BRAIN,
    StoreUnchecked = backup::STORE_UNCHECKED,
    OtherCluster = backup::OTHER_CLUSTER,
    NoDumps = backup::NO_DUMPS,
    ScheduleNotFound = backup::SCHEDULE_NOT_FOUND,

    InPlaceNotAllowed = restore::IN_PLACE_NOT_ALLOWED,
    BackupNotFound = restore::BACKUP_NOT_FOUND,
    InvalidCondition = restore::INVALID_CONDITION,
    Restored = restore::RESTORED,
    DryRun = restore::DRY_RUN,

    AllCompliant = policy::ALL_COMPLIANT,
    ViolationsFound = policy::VIOLATIONS_FOUND,
    NotKnown = policy::NOT_KNOWN,
    NoDatabases = policy::NO_DATABASES,

    Conflict = agent::CONFLICT,
    RestoreFailed = agent::RESTORE_FAILED,
    InvalidRequest = agent::INVALID_REQUEST,
    ClientMissing = agent::CLIENT_MISSING,
    VersionMismatch = agent::VERSION_MISMATCH,
    CompressionUnsupported = agent::COMPRESSION_UNSUPPORTED,
    ConnectionFailed = agent::CONNECTION_FAILED,
    PermissionDenied = agent::PERMISSION_DENIED,
    RowSecurity = agent::ROW_SECURITY,
    LockTimeout = agent::LOCK_TIMEOUT,
    DumpFailed = agent::DUMP_FAILED,
    NotRestorable = agent::NOT_RESTORABLE,
    QueryFailed = agent::QUERY_FAILED,
    ArchiveInvalid = agent::ARCHIVE_INVALID,
    RowCountMismatch = agent::ROW_COUNT_MISMATCH,
    ChecksumMismatch = agent::CHECKSUM_MISMATCH,
    IdentityRequired = agent::IDENTITY_REQUIRED,
    ObjectMissing = agent::OBJECT_MISSING,
    AlreadyPublished = agent::ALREADY_PUBLISHED,
    NotOurs = agent::NOT_OURS,
    StoreInvalid = agent::STORE_INVALID,
    BucketMissing = agent::BUCKET_MISSING,
    AccessDenied = agent::ACCESS_DENIED,
    StoreFull = agent::STORE_FULL,
    QuotaExceeded = agent::QUOTA_EXCEEDED,
    StoreUnavailable = agent::STORE_UNAVAILABLE,
    Interrupted = agent::INTERRUPTED,
    Internal = agent::INTERNAL,
    Unknown = agent::UNKNOWN,
}

impl AsRef<str> for Reason {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Why an object, or one step of it, is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Rejection {
    /// Reason of the condition.
    pub(crate) reason: Reason,
    /// What is wrong, and how to fix it.
    pub(crate) message: String,
}

impl Rejection {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Why a step that asks the apiserver has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The object cannot be carried out: reported on it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The apiserver did not answer: the reconcile is tried again.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
}

impl StepError {
    /// What is reported on the object; an error of the apiserver ends the reconcile.
    pub(crate) fn into_rejection(self) -> Result<Rejection, kube::Error> {
        match self {
            Self::Rejected(rejection) => Ok(rejection),
            Self::Kubernetes(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_named_as_its_text() {
        for (name, reason) in Reason::ALL {
            assert_eq!(reason.as_str(), *name);
            assert_eq!(Reason::named(name), Some(*reason));
        }
        assert_eq!(Reason::named("NoSuchReason"), None);
    }
}
