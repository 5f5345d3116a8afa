//! Condition types and reasons: the contract that dashboards, alerts and `kubectl wait` rely on.

/// Applied to everything that exists; what that means is said per kind.
pub const READY: &str = "Ready";
/// Present and `True` only for an error that the user must mend.
pub const STALLED: &str = "Stalled";

/// `ProtectedDatabase`: the server answers and accepts the login.
pub const REACHABLE: &str = "Reachable";
/// `ProtectedDatabase`: the login can no more than it needs.
pub const LEAST_PRIVILEGE: &str = "LeastPrivilege";

/// `TableGuard`: every matched table was verified to stop DELETE and TRUNCATE.
pub const ENFORCED: &str = "Enforced";
/// `TableGuard`: DROP TABLE is stopped.
pub const DROP_PROTECTED: &str = "DropProtected";
/// `TableGuard`: no application role can take the guard away.
pub const TAMPER_RESISTANT: &str = "TamperResistant";

/// `BackupSchedule`: the newest verified backup is younger than `maxAge`.
pub const BACKUP_FRESH: &str = "BackupFresh";
/// `BackupSchedule`: how the last run ended.
pub const LAST_BACKUP_SUCCEEDED: &str = "LastBackupSucceeded";
/// `BackupSchedule`: the newest backup was read back.
pub const VERIFIED: &str = "Verified";
/// `BackupSchedule`: the newest drill restored every row.
pub const DRILLED: &str = "Drilled";
/// `BackupSchedule`: retention was carried out.
pub const RETENTION_HEALTHY: &str = "RetentionHealthy";

/// `GuardrailPolicy`: every selected database complies.
pub const COMPLIANT: &str = "Compliant";

/// Reasons of conditions and Events. Bounded, since they are metric labels too.
pub mod reasons {
    /// Nothing judged yet.
    pub const PENDING: &str = "Pending";
    /// The controller of this kind is not part of this release.
    pub const NOT_IMPLEMENTED: &str = "NotImplemented";
    /// All is as declared.
    pub const AS_DECLARED: &str = "AsDeclared";
    /// `spec.suspend` is true.
    pub const SUSPENDED: &str = "Suspended";
    /// The object cannot be read as its type.
    pub const UNPARSABLE: &str = "Unparsable";
    /// A field has a value that cannot be used.
    pub const INVALID_SPEC: &str = "InvalidSpec";

    /// Reasons of `Reachable`.
    pub mod reachable {
        /// The server answered.
        pub const CONNECTED: &str = "Connected";
        /// Nothing listens there.
        pub const CONNECTION_REFUSED: &str = "ConnectionRefused";
        /// The host name does not resolve.
        pub const NAME_RESOLUTION: &str = "NameResolution";
        /// No answer in time.
        pub const TIMEOUT: &str = "Timeout";
        /// Wrong user or password.
        pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
        /// TLS could not be agreed on, or the certificate is not trusted.
        pub const TLS_FAILED: &str = "TlsFailed";
        /// No such database.
        pub const DATABASE_MISSING: &str = "DatabaseMissing";
        /// The server has no free connection.
        pub const TOO_MANY_CONNECTIONS: &str = "TooManyConnections";
        /// No such Secret.
        pub const SECRET_MISSING: &str = "SecretMissing";
        /// The Secret lacks keys, or a key's value cannot be used.
        pub const SECRET_INCOMPLETE: &str = "SecretIncomplete";
        /// The host is neither a Service of the namespace nor allowed by the operator.
        pub const HOST_NOT_ALLOWED: &str = "HostNotAllowed";
    }

    /// Reasons of `ProtectedDatabase`'s `Ready` and `LeastPrivilege`.
    pub mod database {
        /// Older than PostgreSQL 14.
        pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
        /// A standby, or read only.
        pub const READ_ONLY_SERVER: &str = "ReadOnlyServer";
        /// A transaction-mode pooler stands in between.
        pub const POOLER_DETECTED: &str = "PoolerDetected";
        /// `Reachable` is false: see there.
        pub const UNREACHABLE: &str = "Unreachable";
        /// The catalog could not be read.
        pub const CATALOG_UNREADABLE: &str = "CatalogUnreadable";
        /// The login is a superuser.
        pub const SUPERUSER: &str = "Superuser";
        /// The login is one of the applications'.
        pub const APPLICATION_ROLE: &str = "ApplicationRole";
        /// The login has only what it needs.
        pub const DEDICATED_ROLE: &str = "DedicatedRole";
    }

    /// Reasons of `TableGuard`'s conditions.
    pub mod guard {
        /// Verified on every matched table.
        pub const VERIFIED: &str = "Verified";
        /// An exact name matches nothing.
        pub const TABLES_MISSING: &str = "TablesMissing";
        /// Not on every table yet.
        pub const INSTALLING: &str = "Installing";
        /// What is installed is not what was installed.
        pub const DRIFTED: &str = "Drifted";
        /// The login lacks a privilege.
        pub const NO_PRIVILEGE: &str = "NoPrivilege";
        /// The server does not count rows.
        pub const TRACK_COUNTS_OFF: &str = "TrackCountsOff";
        /// Mode `Warn` stops nothing.
        pub const WARN: &str = "Warn";
        /// A matched relation cannot be guarded (view, foreign table).
        pub const NOT_A_TABLE: &str = "NotATable";
        /// A step failed.
        pub const INSTALL_FAILED: &str = "InstallFailed";
        /// The `ProtectedDatabase` does not exist.
        pub const DATABASE_NOT_FOUND: &str = "DatabaseNotFound";
        /// The `ProtectedDatabase` cannot be reached: the last known state stands.
        pub const DATABASE_UNREACHABLE: &str = "DatabaseUnreachable";
        /// The `ProtectedDatabase` is reachable but cannot be guarded.
        pub const DATABASE_NOT_READY: &str = "DatabaseNotReady";
        /// Another cluster's operator, or the command line, manages the guards of this database.
        pub const OWNED_BY_OTHER: &str = "OwnedByOther";
        /// Many guards are being deleted at once.
        pub const MASS_DELETION: &str = "MassDeletion";
        /// An event trigger stops DROP.
        pub const EVENT_TRIGGER: &str = "EventTrigger";
        /// A view of ours makes plain DROP TABLE fail; CASCADE passes.
        pub const PINNED: &str = "Pinned";
        /// Nothing stops DROP.
        pub const NOT_PROTECTED: &str = "NotProtected";
        /// `Drop` is not in `spec.protect`.
        pub const NOT_REQUESTED: &str = "NotRequested";
        /// An application role owns a guarded table.
        pub const OWNER_CAN_DISABLE: &str = "OwnerCanDisable";
        /// An application role has TRIGGER on a guarded table.
        pub const TRIGGER_PRIVILEGE: &str = "TriggerPrivilege";
        /// An application role owns a schema of a guarded table.
        pub const SCHEMA_OWNER_CAN_DROP: &str = "SchemaOwnerCanDrop";
        /// An application role may set session_replication_role.
        pub const REPLICA_ROLE_SETTABLE: &str = "ReplicaRoleSettable";
        /// A role's sessions may do without `track_counts`.
        pub const TRACK_COUNTS_SETTABLE: &str = "TrackCountsSettable";
        /// An application role owns the guard's functions.
        pub const FUNCTION_OWNER: &str = "FunctionOwner";
        /// Nobody but administrators.
        pub const ADMINISTRATORS_ONLY: &str = "AdministratorsOnly";
        /// Could not be read.
        pub const UNREADABLE: &str = "Unreadable";
    }

    /// Reasons of `GuardExemption`'s `Ready`.
    pub mod exemption {
        /// In force.
        pub const ACTIVE: &str = "Active";
        /// `notBefore` has not come.
        pub const NOT_YET: &str = "NotYet";
        /// Its time is over.
        pub const EXPIRED: &str = "Expired";
        /// `notAfter` had passed before it was ever in force.
        pub const TOO_LATE: &str = "TooLate";
        /// A `GuardrailPolicy` of the namespace forbids it.
        pub const EXCEEDS_POLICY: &str = "ExceedsPolicy";
        /// Waiting for the backup that `requireBackup` asks for.
        pub const BACKUP_REQUIRED: &str = "BackupRequired";
        /// A `TableGuard` that it names does not exist.
        pub const GUARD_NOT_FOUND: &str = "GuardNotFound";
        /// A `TableGuard` that it names is not in the database yet.
        pub const GUARD_NOT_INSTALLED: &str = "GuardNotInstalled";
        /// A table that it names is none of its guards'.
        pub const TABLE_NOT_GUARDED: &str = "TableNotGuarded";
    }

    /// Reasons of `BackupSchedule`'s conditions and of failed backups.
    pub mod backup {
        /// Runs are planned.
        pub const SCHEDULED: &str = "Scheduled";
        /// The cron expression cannot be read, or never fires.
        pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
        /// No such time zone.
        pub const INVALID_TIME_ZONE: &str = "InvalidTimeZone";
        /// `storage` cannot be used as declared.
        pub const INVALID_STORAGE: &str = "InvalidStorage";
        /// A Secret that is named does not exist or lacks keys.
        pub const SECRET_MISSING: &str = "SecretMissing";
        /// No backup yet.
        pub const NEVER_RAN: &str = "NeverRan";
        /// Waiting for the first run.
        pub const FIRST_RUN_PENDING: &str = "FirstRunPending";
        /// The newest verified backup is too old.
        pub const LATE: &str = "Late";
        /// Suspended for longer than `maxAge`.
        pub const SUSPENDED: &str = "Suspended";
        /// Every run since the last verified backup failed.
        pub const FAILING: &str = "Failing";
        /// Young enough.
        pub const FRESH: &str = "Fresh";
        /// The last run succeeded.
        pub const SUCCEEDED: &str = "Succeeded";
        /// The last run failed.
        pub const FAILED: &str = "Failed";
        /// A run is under way.
        pub const RUNNING: &str = "Running";
        /// Read back and compared.
        pub const READ_BACK: &str = "ReadBack";
        /// Compared by the store's checksum.
        pub const CHECKSUM: &str = "Checksum";
        /// Nothing verified yet.
        pub const UNVERIFIED: &str = "Unverified";
        /// No drill is declared.
        pub const NOT_DECLARED: &str = "NotDeclared";
        /// Nothing to do, or done.
        pub const RETAINED: &str = "Retained";
        /// Pruning failed.
        pub const PRUNE_FAILED: &str = "PruneFailed";
        /// Dumps are being removed.
        pub const PRUNING: &str = "Pruning";
        /// Something of another owner has the name that is needed.
        pub const NAME_TAKEN: &str = "NameTaken";
        /// The Job or its pod was gone before its result was read.
        pub const RESULT_LOST: &str = "ResultLost";
        /// The Job was stopped: by `activeDeadlineSeconds`, or by somebody.
        pub const STOPPED: &str = "Stopped";
        /// The pod was killed for its use of memory.
        pub const OUT_OF_MEMORY: &str = "OutOfMemory";
        /// The `BackupSchedule` that is named does not exist.
        pub const SCHEDULE_NOT_FOUND: &str = "ScheduleNotFound";
    }

    /// Reasons of failed backups that the agent reports. Also `AuthenticationFailed`, `DatabaseMissing` and `PoolerDetected`.
    pub mod agent {
        /// The configuration of the run is invalid.
        pub const INVALID_REQUEST: &str = "InvalidRequest";
        /// `pg_dump` or `pg_restore` is not in the image, or does not start.
        pub const CLIENT_MISSING: &str = "ClientMissing";
        /// `pg_dump` is older than the server.
        pub const VERSION_MISMATCH: &str = "VersionMismatch";
        /// `pg_dump` cannot compress with the declared method.
        pub const COMPRESSION_UNSUPPORTED: &str = "CompressionUnsupported";
        /// The database cannot be reached, or the connection was lost.
        pub const CONNECTION_FAILED: &str = "ConnectionFailed";
        /// The role cannot read everything that is to be dumped.
        pub const PERMISSION_DENIED: &str = "PermissionDenied";
        /// Row-level security would hide rows from the role.
        pub const ROW_SECURITY: &str = "RowSecurity";
        /// A table stayed locked for too long.
        pub const LOCK_TIMEOUT: &str = "LockTimeout";
        /// `pg_dump` failed; the message contains its last lines.
        pub const DUMP_FAILED: &str = "DumpFailed";
        /// The archive cannot be decoded.
        pub const ARCHIVE_INVALID: &str = "ArchiveInvalid";
        /// The archive does not contain the rows of the snapshot.
        pub const ROW_COUNT_MISMATCH: &str = "RowCountMismatch";
        /// The store returned other bytes than were written.
        pub const CHECKSUM_MISMATCH: &str = "ChecksumMismatch";
        /// An object of the dump is not in the store.
        pub const OBJECT_MISSING: &str = "ObjectMissing";
        /// Another manifest exists in the same place.
        pub const ALREADY_PUBLISHED: &str = "AlreadyPublished";
        /// A dump that was to be removed belongs to another schedule.
        pub const NOT_OURS: &str = "NotOurs";
        /// The URL, endpoint or credentials of the store are invalid.
        pub const STORE_INVALID: &str = "StoreInvalid";
        /// The bucket, container or directory does not exist.
        pub const BUCKET_MISSING: &str = "BucketMissing";
        /// The store rejected the credentials or the operation.
        pub const ACCESS_DENIED: &str = "AccessDenied";
        /// The store has no space left.
        pub const STORE_FULL: &str = "StoreFull";
        /// The quota of the store is used up.
        pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
        /// The store cannot be reached, or reports errors of its own.
        pub const STORE_UNAVAILABLE: &str = "StoreUnavailable";
        /// The agent was stopped.
        pub const INTERRUPTED: &str = "Interrupted";
        /// A pipe, a file or memory of the pod failed.
        pub const INTERNAL: &str = "Internal";
        /// A reason of a newer agent.
        pub const UNKNOWN: &str = "Unknown";
    }

    /// Reasons of Events that are not condition reasons.
    pub mod event {
        /// A bulk delete, update or truncate was stopped.
        pub const BULK_DELETE_BLOCKED: &str = "BulkDeleteBlocked";
        /// A guard was put back.
        pub const DRIFT_REPAIRED: &str = "DriftRepaired";
        /// A guard was installed.
        pub const GUARD_INSTALLED: &str = "GuardInstalled";
        /// The finalizer let go without cleaning up.
        pub const GUARDS_LEFT_BEHIND: &str = "GuardsLeftBehind";
        /// The last guard of a database went, and with it the rows that were kept to be put back.
        pub const CAPTURED_ROWS_REMOVED: &str = "CapturedRowsRemoved";
        /// Guards in the database that no object declares.
        pub const ORPHANED_GUARDS: &str = "OrphanedGuards";
        /// An exemption is in force.
        pub const EXEMPTION_ACTIVE: &str = "ExemptionActive";
        /// Rows went under an exemption.
        pub const EXEMPTION_USED: &str = "ExemptionUsed";
        /// An exemption's time is over.
        pub const EXEMPTION_EXPIRED: &str = "ExemptionExpired";
        /// An exemption will never be in force.
        pub const EXEMPTION_REJECTED: &str = "ExemptionRejected";
        /// A deleted exemption could not be taken back: it ends by itself.
        pub const EXEMPTION_LEFT_BEHIND: &str = "ExemptionLeftBehind";
        /// A backup was made and verified.
        pub const BACKUP_VERIFIED: &str = "BackupVerified";
        /// A backup failed.
        pub const BACKUP_FAILED: &str = "BackupFailed";
        /// Retention removed a backup.
        pub const BACKUP_PRUNED: &str = "BackupPruned";
        /// The finalizer let go of a dump that could not be removed.
        pub const BACKUP_LEFT_BEHIND: &str = "BackupLeftBehind";
    }
}
