//! Condition types and reasons. Dashboards, alerts and `kubectl wait` depend on them.

/// The object is in the declared state. The meaning depends on the kind.
pub const READY: &str = "Ready";
/// Retrying does not help, and a change by the user is required. The condition is removed otherwise.
pub const STALLED: &str = "Stalled";

/// `ProtectedDatabase`: the operator can log in to the database.
pub const REACHABLE: &str = "Reachable";
/// `ProtectedDatabase`: the login role has no unnecessary privileges.
pub const LEAST_PRIVILEGE: &str = "LeastPrivilege";
/// `ProtectedDatabase`: DROP DATABASE is refused.
pub const DATABASE_PROTECTED: &str = "DatabaseProtected";

/// `TableGuard`: every matched table was verified in the catalog to stop DELETE and TRUNCATE.
pub const ENFORCED: &str = "Enforced";
/// `TableGuard`: what `spec.protect` requests of `Drop`, `DropPartition` and `DropColumn` is refused. The message lists what
/// is covered, and what is not.
pub const DROP_PROTECTED: &str = "DropProtected";
/// `TableGuard`: no application role can remove the guard.
pub const TAMPER_RESISTANT: &str = "TamperResistant";

/// `BackupSchedule`: the newest verified backup is younger than `maxAge`.
pub const BACKUP_FRESH: &str = "BackupFresh";
/// `BackupSchedule`: the last run succeeded.
pub const LAST_BACKUP_SUCCEEDED: &str = "LastBackupSucceeded";
/// `BackupSchedule`: the newest backup was read back.
pub const VERIFIED: &str = "Verified";
/// `BackupSchedule`: the last drill restored all rows of the newest verified backup.
pub const DRILLED: &str = "Drilled";
/// `BackupSchedule`, `DatabaseBackup`: guarded tables have far fewer rows than in the backup before.
pub const SHRUNK: &str = "Shrunk";
/// `BackupSchedule`: the retention was applied.
pub const RETENTION_HEALTHY: &str = "RetentionHealthy";
/// `BackupSchedule`: the dumps of the cluster in the annotation `pgrail.dev/adopt-cluster` are recorded. The condition is removed
/// without it, unless another cluster with such dumps was found.
pub const CLUSTER_ADOPTED: &str = "ClusterAdopted";

/// `GuardrailPolicy`: all selected databases are compliant.
pub const COMPLIANT: &str = "Compliant";

/// Reasons of conditions and Events. The set is bounded, because reasons are also metric labels.
pub mod reasons {
    /// The operator has not checked the object yet.
    pub const PENDING: &str = "Pending";
    /// The state is as declared.
    pub const AS_DECLARED: &str = "AsDeclared";
    /// `spec.suspend` is true.
    pub const SUSPENDED: &str = "Suspended";
    /// The object cannot be parsed.
    pub const UNPARSABLE: &str = "Unparsable";
    /// A field has an invalid value.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// An annotation has an invalid value.
    pub const INVALID_ANNOTATION: &str = "InvalidAnnotation";

    /// Reasons of `Reachable`.
    pub mod reachable {
        /// The operator is connected.
        pub const CONNECTED: &str = "Connected";
        /// Nothing accepts connections at the address.
        pub const CONNECTION_REFUSED: &str = "ConnectionRefused";
        /// The host name cannot be resolved.
        pub const NAME_RESOLUTION: &str = "NameResolution";
        /// The server did not answer in time.
        pub const TIMEOUT: &str = "Timeout";
        /// The login was rejected.
        pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
        /// The TLS handshake failed, or the certificate is not trusted.
        pub const TLS_FAILED: &str = "TlsFailed";
        /// The database does not exist.
        pub const DATABASE_MISSING: &str = "DatabaseMissing";
        /// The connection limit is reached.
        pub const TOO_MANY_CONNECTIONS: &str = "TooManyConnections";
        /// The Secret does not exist.
        pub const SECRET_MISSING: &str = "SecretMissing";
        /// A key of the Secret is missing or invalid.
        pub const SECRET_INCOMPLETE: &str = "SecretIncomplete";
        /// The host is not a Service of the namespace, and does not match `--allowed-hosts` of the operator.
        pub const HOST_NOT_ALLOWED: &str = "HostNotAllowed";
    }

    /// Reasons of `Ready` and `LeastPrivilege` of a `ProtectedDatabase`
    pub mod database {
        /// The server is older than PostgreSQL 15.
        pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";
        /// The server is a standby, or read-only.
        pub const READ_ONLY_SERVER: &str = "ReadOnlyServer";
        /// The connection uses a pooler in transaction mode.
        pub const POOLER_DETECTED: &str = "PoolerDetected";
        /// `Reachable` is `False`. Its reason contains the cause.
        pub const UNREACHABLE: &str = "Unreachable";
        /// The catalog could not be read.
        pub const CATALOG_UNREADABLE: &str = "CatalogUnreadable";
        /// The login role is a superuser.
        pub const SUPERUSER: &str = "Superuser";
        /// The login role is also used by an application.
        pub const APPLICATION_ROLE: &str = "ApplicationRole";
        /// The login role owns tables itself, as the role of an application or of migrations does.
        pub const TABLE_OWNER: &str = "TableOwner";
        /// The login role has no unnecessary privileges.
        pub const DEDICATED_ROLE: &str = "DedicatedRole";
        /// The database is a template database, which PostgreSQL refuses to drop.
        pub const IS_TEMPLATE: &str = "IsTemplate";
    }

    /// Reasons of the conditions of a `TableGuard`
    pub mod guard {
        /// All matched tables were verified.
        pub const VERIFIED: &str = "Verified";
        /// An exact name matches no table.
        pub const TABLES_MISSING: &str = "TablesMissing";
        /// The guard is not installed on all tables yet.
        pub const INSTALLING: &str = "Installing";
        /// The guard in the database was changed; or foreign keys of a table are disabled, as `DISABLE TRIGGER ALL`
        /// does: deletes are still limited, but leave orphaned rows.
        pub const DRIFTED: &str = "Drifted";
        /// The login role lacks a privilege.
        pub const NO_PRIVILEGE: &str = "NoPrivilege";
        /// `track_counts` is off, so the server does not count rows.
        pub const TRACK_COUNTS_OFF: &str = "TrackCountsOff";
        /// The mode is `Warn`, which stops nothing.
        pub const WARN: &str = "Warn";
        /// A matched relation is not a table, for example a view or a foreign table.
        pub const NOT_A_TABLE: &str = "NotATable";
        /// The installation failed.
        pub const INSTALL_FAILED: &str = "InstallFailed";
        /// The `ProtectedDatabase` does not exist.
        pub const DATABASE_NOT_FOUND: &str = "DatabaseNotFound";
        /// The `ProtectedDatabase` cannot be reached. The status contains the last known state.
        pub const DATABASE_UNREACHABLE: &str = "DatabaseUnreachable";
        /// The `ProtectedDatabase` is reachable, but not ready.
        pub const DATABASE_NOT_READY: &str = "DatabaseNotReady";
        /// The operator of another cluster, or the command line, manages the guards of this database.
        pub const OWNED_BY_OTHER: &str = "OwnedByOther";
        /// Many guards are being deleted at once. The operator waits for a confirmation.
        pub const MASS_DELETION: &str = "MassDeletion";
        /// Event triggers refuse each requested DROP.
        pub const EVENT_TRIGGER: &str = "EventTrigger";
        /// A view makes a plain DROP TABLE fail. DROP TABLE … CASCADE is not refused.
        pub const PINNED: &str = "Pinned";
        /// A requested DROP is not refused. `DropPartition` and `DropColumn` need event triggers.
        pub const NOT_PROTECTED: &str = "NotProtected";
        /// `spec.protect` contains neither `Drop`, nor `DropPartition`, nor `DropColumn`; or `spec.protectDatabase` is false.
        pub const NOT_REQUESTED: &str = "NotRequested";
        /// An application role owns a guarded table.
        pub const OWNER_CAN_DISABLE: &str = "OwnerCanDisable";
        /// An application role has the TRIGGER privilege on a guarded table.
        pub const TRIGGER_PRIVILEGE: &str = "TriggerPrivilege";
        /// An application role owns the schema of a guarded table.
        pub const SCHEMA_OWNER_CAN_DROP: &str = "SchemaOwnerCanDrop";
        /// An application role can set `session_replication_role`.
        pub const REPLICA_ROLE_SETTABLE: &str = "ReplicaRoleSettable";
        /// A role can turn `track_counts` off for its sessions, or has it turned off.
        pub const TRACK_COUNTS_SETTABLE: &str = "TrackCountsSettable";
        /// An application role owns the functions of the guard.
        pub const FUNCTION_OWNER: &str = "FunctionOwner";
        /// Only administrators can remove the guard.
        pub const ADMINISTRATORS_ONLY: &str = "AdministratorsOnly";
        /// The privileges could not be read.
        pub const UNREADABLE: &str = "Unreadable";
    }

    /// Reasons of `Ready` of a `GuardExemption`
    pub mod exemption {
        /// The exemption is active.
        pub const ACTIVE: &str = "Active";
        /// `notBefore` is in the future.
        pub const NOT_YET: &str = "NotYet";
        /// `notAfter` has passed.
        pub const EXPIRED: &str = "Expired";
        /// `notAfter` had passed before the exemption became active.
        pub const TOO_LATE: &str = "TooLate";
        /// A `GuardrailPolicy` of the namespace forbids the exemption.
        pub const EXCEEDS_POLICY: &str = "ExceedsPolicy";
        /// The backup that `requireBackup` requires does not exist yet.
        pub const BACKUP_REQUIRED: &str = "BackupRequired";
        /// A `TableGuard` in `guardRefs` does not exist.
        pub const GUARD_NOT_FOUND: &str = "GuardNotFound";
        /// A `TableGuard` in `guardRefs` is not installed in the database yet.
        pub const GUARD_NOT_INSTALLED: &str = "GuardNotInstalled";
        /// A table in `tables` is not guarded by a guard in `guardRefs`.
        pub const TABLE_NOT_GUARDED: &str = "TableNotGuarded";
    }

    /// Reasons of the conditions of a `BackupSchedule`, and of failed backups
    pub mod backup {
        /// The next run is scheduled.
        pub const SCHEDULED: &str = "Scheduled";
        /// The cron expression is invalid, or never matches a date.
        pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
        /// The time zone does not exist.
        pub const INVALID_TIME_ZONE: &str = "InvalidTimeZone";
        /// `storage` is invalid.
        pub const INVALID_STORAGE: &str = "InvalidStorage";
        /// The store does not match `--allowed-stores` of the operator. No runs are started.
        pub const STORE_NOT_ALLOWED: &str = "StoreNotAllowed";
        /// A Secret does not exist, or lacks keys.
        pub const SECRET_MISSING: &str = "SecretMissing";
        /// There is no backup yet.
        pub const NEVER_RAN: &str = "NeverRan";
        /// The first run has not finished yet.
        pub const FIRST_RUN_PENDING: &str = "FirstRunPending";
        /// The newest verified backup is too old.
        pub const LATE: &str = "Late";
        /// The schedule has been suspended for longer than `maxAge`.
        pub const SUSPENDED: &str = "Suspended";
        /// All runs since the last verified backup failed.
        pub const FAILING: &str = "Failing";
        /// The newest verified backup is younger than `maxAge`.
        pub const FRESH: &str = "Fresh";
        /// The last run succeeded.
        pub const SUCCEEDED: &str = "Succeeded";
        /// The last run failed.
        pub const FAILED: &str = "Failed";
        /// A run is in progress.
        pub const RUNNING: &str = "Running";
        /// The backup was read back from the store and compared.
        pub const READ_BACK: &str = "ReadBack";
        /// The checksum of the store was compared.
        pub const CHECKSUM: &str = "Checksum";
        /// No backup was verified yet.
        pub const UNVERIFIED: &str = "Unverified";
        /// The structural drill of the newest backup could not run, or was not done; or the last drill could not run.
        pub const NOT_RUN: &str = "NotRun";
        /// The newest backups do not contain everything that the schedule declares.
        pub const PARTIAL: &str = "Partial";
        /// The snapshot time of a backup is in the future: a clock is wrong.
        pub const CLOCK_SKEW: &str = "ClockSkew";
        /// Guarded tables have far fewer rows than in the backup before, which is kept until that is acknowledged.
        pub const ROWS_LOST: &str = "RowsLost";
        /// No guarded table has far fewer rows than in the backup before.
        pub const NO_ROWS_LOST: &str = "NoRowsLost";
        /// The newest backup lost rows, and a user has acknowledged that.
        pub const ACKNOWLEDGED: &str = "Acknowledged";
        /// The rows of the newest backup were not compared with another backup.
        pub const NOT_COMPARED: &str = "NotCompared";
        /// The schedule has no drill.
        pub const NOT_DECLARED: &str = "NotDeclared";
        /// All rows of the backup were restored in a drill, and the queries returned what is expected.
        pub const ALL_RESTORED: &str = "AllRestored";
        /// The retention was applied.
        pub const RETAINED: &str = "Retained";
        /// Pruning failed.
        pub const PRUNE_FAILED: &str = "PruneFailed";
        /// Dumps are being deleted.
        pub const PRUNING: &str = "Pruning";
        /// An object of another owner has the required name.
        pub const NAME_TAKEN: &str = "NameTaken";
        /// The Job or its pod was deleted before its result was read.
        pub const RESULT_LOST: &str = "ResultLost";
        /// The Job was stopped by `activeDeadlineSeconds`, or by a user.
        pub const STOPPED: &str = "Stopped";
        /// The pod was killed because it exceeded its memory limit.
        pub const OUT_OF_MEMORY: &str = "OutOfMemory";
        /// The node of the pod was lost.
        pub const NODE_LOST: &str = "NodeLost";
        /// The dump, or a part of it, is not in the store any more. The backup does not count.
        pub const MISSING: &str = "Missing";
        /// The dump was found in the store, and was not verified by this cluster. It does not count.
        pub const DISCOVERED: &str = "Discovered";
        /// The store contains newer dumps of this schedule that no object records: another control plane is at work. Nothing is
        /// removed.
        pub const SPLIT_BRAIN: &str = "SplitBrain";
        /// The store could not be compared with the backups. Nothing is removed.
        pub const STORE_UNCHECKED: &str = "StoreUnchecked";
        /// The store contains dumps of a schedule of the same name and namespace in another cluster.
        pub const OTHER_CLUSTER: &str = "OtherCluster";
        /// The other cluster has no dumps of a schedule of the same name and namespace.
        pub const NO_DUMPS: &str = "NoDumps";
        /// The `BackupSchedule` does not exist.
        pub const SCHEDULE_NOT_FOUND: &str = "ScheduleNotFound";
    }

    /// Reasons of `DatabaseRestore`.
    pub mod restore {
        /// The annotation `pgrail.dev/allow-in-place` is missing.
        pub const IN_PLACE_NOT_ALLOWED: &str = "InPlaceNotAllowed";
        /// The backup does not exist, or the schedule has no verified one.
        pub const BACKUP_NOT_FOUND: &str = "BackupNotFound";
        /// A condition is refused.
        pub const INVALID_CONDITION: &str = "InvalidCondition";
        /// Everything was restored, and counted.
        pub const RESTORED: &str = "Restored";
        /// The dry run ended, and nothing prevents the restore.
        pub const DRY_RUN: &str = "DryRun";
    }

    /// Reasons of `Compliant` of a `GuardrailPolicy`.
    pub mod policy {
        /// All selected databases are compliant.
        pub const ALL_COMPLIANT: &str = "AllCompliant";
        /// A selected database violates the policy.
        pub const VIOLATIONS_FOUND: &str = "ViolationsFound";
        /// Objects that the policy depends on cannot be read.
        pub const NOT_KNOWN: &str = "NotKnown";
        /// The policy selects no database.
        pub const NO_DATABASES: &str = "NoDatabases";
    }

    /// Reasons of failed backups
    pub mod agent {
        /// Rows of the target are different from those of the backup, or parents of the rows are missing. Nothing was restored.
        pub const CONFLICT: &str = "Conflict";
        /// The target refused what was to be restored. What was created was removed, or the message names it.
        pub const RESTORE_FAILED: &str = "RestoreFailed";
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
        /// The archive can be decoded, but not be restored. The message contains the last lines of `pg_restore`.
        pub const NOT_RESTORABLE: &str = "NotRestorable";
        /// A query of a drill does not return what is expected.
        pub const QUERY_FAILED: &str = "QueryFailed";
        /// The archive cannot be decoded.
        pub const ARCHIVE_INVALID: &str = "ArchiveInvalid";
        /// The archive, or the target of a restore, does not contain the rows of the snapshot.
        pub const ROW_COUNT_MISMATCH: &str = "RowCountMismatch";
        /// The store returned other bytes than were written.
        pub const CHECKSUM_MISMATCH: &str = "ChecksumMismatch";
        /// The backup is encrypted, and no age identity that decrypts it is given.
        pub const IDENTITY_REQUIRED: &str = "IdentityRequired";
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
        /// The store cannot be reached, or reports an internal error.
        pub const STORE_UNAVAILABLE: &str = "StoreUnavailable";
        /// The agent was stopped.
        pub const INTERRUPTED: &str = "Interrupted";
        /// A pipe, a file or memory of the pod failed.
        pub const INTERNAL: &str = "Internal";
        /// A reason of a newer agent.
        pub const UNKNOWN: &str = "Unknown";
    }

    /// Other reasons of Events
    pub mod event {
        /// All databases of a policy are compliant again.
        pub const COMPLIANT: &str = "Compliant";
        /// Databases of a policy are not compliant any more.
        pub const NOT_COMPLIANT: &str = "NotCompliant";
        /// A label excludes a database from a policy.
        pub const DATABASE_EXCLUDED: &str = "DatabaseExcluded";
        /// An object was created from a template of a policy.
        pub const POLICY_OBJECT_CREATED: &str = "PolicyObjectCreated";
        /// An object of a template was changed or deleted, and is as the template declares again.
        pub const POLICY_OBJECT_RESTORED: &str = "PolicyObjectRestored";
        /// All rows of a backup were restored in a drill.
        pub const DRILL_SUCCEEDED: &str = "DrillSucceeded";
        /// A drill failed: the backup cannot be restored, or is not what is expected.
        pub const DRILL_FAILED: &str = "DrillFailed";
        /// A drill could not run.
        pub const DRILL_NOT_RUN: &str = "DrillNotRun";
        /// A backup, or rows of it, were restored.
        pub const RESTORE_SUCCEEDED: &str = "RestoreSucceeded";
        /// A restore failed. The target is as it was, unless the message names what is left.
        pub const RESTORE_FAILED: &str = "RestoreFailed";
        /// A bulk DELETE, UPDATE or TRUNCATE was stopped.
        pub const BULK_DELETE_BLOCKED: &str = "BulkDeleteBlocked";
        /// The window of a table stopped a statement.
        pub const WINDOW_EXHAUSTED: &str = "WindowExhausted";
        /// The database cannot be reached any more.
        pub const DATABASE_UNREACHABLE: &str = "DatabaseUnreachable";
        /// The database can be reached again.
        pub const DATABASE_RECOVERED: &str = "DatabaseRecovered";
        /// A guard was changed in the database, and was repaired.
        pub const DRIFT_REPAIRED: &str = "DriftRepaired";
        /// A guarded table was renamed, or moved to another schema. It remains guarded.
        pub const TABLE_RENAMED: &str = "TableRenamed";
        /// A guard was installed.
        pub const GUARD_INSTALLED: &str = "GuardInstalled";
        /// The finalizer was removed without cleaning up. The guard remains in the database.
        pub const GUARDS_LEFT_BEHIND: &str = "GuardsLeftBehind";
        /// The last guard of a database was removed, and with it the captured rows.
        pub const CAPTURED_ROWS_REMOVED: &str = "CapturedRowsRemoved";
        /// The database contains guards that no object declares.
        pub const ORPHANED_GUARDS: &str = "OrphanedGuards";
        /// An exemption became active.
        pub const EXEMPTION_ACTIVE: &str = "ExemptionActive";
        /// An exemption was used.
        pub const EXEMPTION_USED: &str = "ExemptionUsed";
        /// An exemption expired.
        pub const EXEMPTION_EXPIRED: &str = "ExemptionExpired";
        /// An exemption was rejected, and never becomes active.
        pub const EXEMPTION_REJECTED: &str = "ExemptionRejected";
        /// A deleted exemption could not be revoked. It remains active until `notAfter`.
        pub const EXEMPTION_LEFT_BEHIND: &str = "ExemptionLeftBehind";
        /// A backup was created and verified.
        pub const BACKUP_VERIFIED: &str = "BackupVerified";
        /// A backup failed.
        pub const BACKUP_FAILED: &str = "BackupFailed";
        /// Guarded tables have far fewer rows than in the backup before.
        pub const BACKUP_SHRUNK: &str = "BackupShrunk";
        /// A loss of rows was acknowledged: the retention decides on the backup before again.
        pub const SHRINK_ACKNOWLEDGED: &str = "ShrinkAcknowledged";
        /// A run was not started in time, and is made up for.
        pub const RUN_MISSED: &str = "RunMissed";
        /// The dump of a backup, or a part of it, is not in the store any more.
        pub const BACKUP_MISSING: &str = "BackupMissing";
        /// The dump of a backup is in the store again.
        pub const BACKUP_RECOVERED: &str = "BackupRecovered";
        /// A dump of the schedule that no object recorded was found in the store.
        pub const BACKUP_DISCOVERED: &str = "BackupDiscovered";
        /// The retention deleted a backup.
        pub const BACKUP_PRUNED: &str = "BackupPruned";
        /// The finalizer was removed, although the dump could not be deleted from the store.
        pub const BACKUP_LEFT_BEHIND: &str = "BackupLeftBehind";
    }
}
