//! Annotations and labels that pgrail reads or writes.

/// Finalizer of all kinds that create something outside the cluster.
pub const FINALIZER: &str = "pgrail.dev/cleanup";
/// `"true"`: removes the finalizer without cleaning up in the database.
pub const FORCE_DELETE: &str = "pgrail.dev/force-delete";
/// `"true"`: takes over guards that the operator of another cluster, or the command line, installed; or the dumps that another
/// control plane made for a `BackupSchedule`.
pub const TAKE_OVER: &str = "pgrail.dev/take-over";
/// `"true"` on a Secret that names a host: the connection of a spec can name another host.
pub const ALLOW_HOST_OVERRIDE: &str = "pgrail.dev/allow-host-override";
/// Name of a renamed table, as `schema.table`, that a `TableGuard` no longer guards. Several names are separated by commas.
pub const RELEASE: &str = "pgrail.dev/release";
/// Name of the `DatabaseBackup` whose loss of rows, with all earlier ones, a user has acknowledged, on its `BackupSchedule`.
pub const ACKNOWLEDGE_SHRINK: &str = "pgrail.dev/acknowledge-shrink";
/// `"true"` on a `DatabaseBackup` that was found in the store: a user vouches for the dump, and it can be restored.
pub const ADOPT: &str = "pgrail.dev/adopt";
/// ID of another, lost cluster, on a `BackupSchedule`: the dumps that a schedule of the same name and namespace made there are
/// recorded. The ID is the UID of the namespace `kube-system`.
pub const ADOPT_CLUSTER: &str = "pgrail.dev/adopt-cluster";
/// `"true"`: allows a `DatabaseRestore` with mode `InPlace`.
pub const ALLOW_IN_PLACE: &str = "pgrail.dev/allow-in-place";
/// User who created a `GuardExemption`. An admission policy of the chart verifies it and refuses changes.
pub const REQUESTED_BY: &str = "pgrail.dev/requested-by";
/// `"true"`: allows the deletion of many guards at once.
pub const ALLOW_MASS_DELETION: &str = "pgrail.dev/allow-mass-deletion";
/// Name of the `BackupSchedule` that an object belongs to.
pub const SCHEDULE_LABEL: &str = "pgrail.dev/schedule";
/// Name of the `ProtectedDatabase` that an object belongs to.
pub const DATABASE_LABEL: &str = "pgrail.dev/database";
/// Name of the `DatabaseBackup` that a Job creates.
pub const BACKUP_LABEL: &str = "pgrail.dev/backup";
/// Name of the `DatabaseRestore` of a Job.
pub const RESTORE_LABEL: &str = "pgrail.dev/restore";
/// Name of the `GuardrailPolicy` that created an object.
pub const POLICY_LABEL: &str = "pgrail.dev/policy";
/// Task of a Job: `dump`, `inventory`, `prune` or `restore`.
pub const TASK_LABEL: &str = "pgrail.dev/task";
/// Value of `app.kubernetes.io/managed-by` on all objects that the operator creates.
pub const MANAGED_BY: &str = "pgrail";
/// Name of the Job, on a `DatabaseBackup` that the operator created for a Job of a schedule.
pub const JOB: &str = "pgrail.dev/job";
/// UID of the `BackupSchedule` of a `DatabaseBackup`. It distinguishes a schedule that was deleted and created again.
pub const SCHEDULE_UID: &str = "pgrail.dev/schedule-uid";
/// On a `DatabaseBackup` whose dump was found in the store: the directory of the dump. No run is started for it.
pub const DISCOVERED: &str = "pgrail.dev/discovered";
/// On a Job: its `DatabaseBackup` was created, and is not created again if it is deleted.
pub const RECORDED: &str = "pgrail.dev/recorded";
/// On a `DatabaseBackup` that is being deleted: its dump was already deleted from the store.
pub const PRUNED: &str = "pgrail.dev/pruned";
/// On a `ProtectedDatabase`: name of the cluster of CloudNativePG, PGO or Zalando in its namespace that it is a database of,
/// where neither `host` nor the name of the Secret shows it.
pub const CLUSTER: &str = "pgrail.dev/cluster";
/// On a `Report`: hash of its results. A report that did not change is not written.
pub const RESULTS_HASH: &str = "pgrail.dev/results-hash";
