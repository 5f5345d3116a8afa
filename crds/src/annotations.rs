//! Annotations and labels that pgrail reads or writes.

/// Finalizer of every kind that has something to clean up.
pub const FINALIZER: &str = "pgrail.dev/cleanup";
/// `"true"`: let the finalizer go without cleaning up in the database.
pub const FORCE_DELETE: &str = "pgrail.dev/force-delete";
/// `"true"`: take guards over that another cluster's operator, or the command line, installed.
pub const TAKE_OVER: &str = "pgrail.dev/take-over";
/// `"true"`: allow a `DatabaseRestore` of mode `InPlace`.
pub const ALLOW_IN_PLACE: &str = "pgrail.dev/allow-in-place";
/// Who asked for a `GuardExemption`. The chart has an admission policy that checks and keeps it.
pub const REQUESTED_BY: &str = "pgrail.dev/requested-by";
/// `"true"`: these deletions are meant, although many guards go at once.
pub const ALLOW_MASS_DELETION: &str = "pgrail.dev/allow-mass-deletion";
/// Names the `BackupSchedule` that an object belongs to.
pub const SCHEDULE_LABEL: &str = "pgrail.dev/schedule";
/// Names the `ProtectedDatabase` that an object belongs to.
pub const DATABASE_LABEL: &str = "pgrail.dev/database";
/// Names the `DatabaseBackup` that a Job makes.
pub const BACKUP_LABEL: &str = "pgrail.dev/backup";
/// Names the policy that an object was created from.
pub const POLICY_LABEL: &str = "pgrail.dev/policy";
/// What a Job of ours does: `dump` or `prune`.
pub const TASK_LABEL: &str = "pgrail.dev/task";
/// Value of `app.kubernetes.io/managed-by` on everything that the operator creates.
pub const MANAGED_BY: &str = "pgrail";
/// On a `DatabaseBackup` that the operator made for a Job of a schedule: the Job's name. On a Job: see [`RECORDED`].
pub const JOB: &str = "pgrail.dev/job";
/// UID of the `BackupSchedule` that a `DatabaseBackup` was made for: a deleted and recreated schedule is another.
pub const SCHEDULE_UID: &str = "pgrail.dev/schedule-uid";
/// On a Job: the `DatabaseBackup` that records it was made, and need not be made again should somebody delete it.
pub const RECORDED: &str = "pgrail.dev/recorded";
/// On a `DatabaseBackup` that is being deleted: its dump is gone from the store already.
pub const PRUNED: &str = "pgrail.dev/pruned";
