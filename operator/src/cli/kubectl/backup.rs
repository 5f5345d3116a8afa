//! `kubectl pgrail backup`: creates a `DatabaseBackup`, and waits for its result.

use super::cluster::{ClusterArgs, refused};
use super::follow::{FollowArgs, Progress, create_and_follow};
use crate::cli::CommandError;
use crate::cli::output::thousands;
use kube::Api;
use pgrail_crds::conditions::READY;
use pgrail_crds::{BackupPhase, BackupSchedule, DatabaseBackup, DatabaseBackupSpec};
use std::process::ExitCode;

/// Options of `kubectl pgrail backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kubectl pgrail backup nightly --pin")]
pub(super) struct BackupArgs {
    /// The BackupSchedule
    #[arg(value_name = "SCHEDULE")]
    schedule: String,
    /// Retention does not delete it
    #[arg(long)]
    pin: bool,
    #[command(flatten)]
    follow: FollowArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Makes a backup. Exit status 0: made and verified; 1: failed, or not finished in time.
pub(super) async fn run(args: BackupArgs) -> Result<ExitCode, CommandError> {
    let (client, namespace) = args.cluster.connect().await?;
    let schedules: Api<BackupSchedule> = Api::namespaced(client.clone(), &namespace);
    let found = schedules.get(&args.schedule).await;
    found.map_err(|error| refused(&format!("BackupSchedule {namespace}/{}", args.schedule), error))?;
    let spec = DatabaseBackupSpec { pinned: args.pin, ..DatabaseBackupSpec::of_schedule(&args.schedule) };
    let mut backup = DatabaseBackup::new("", spec);
    backup.metadata.name = None;
    backup.metadata.generate_name = Some(format!("{}-", args.schedule));
    let progress = |backup: &DatabaseBackup| match phase(backup) {
        Some(BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Discovered) => Progress::Finished,
        phase => Progress::Running(describe(phase, backup)),
    };
    let Some(result) = create_and_follow(&client, &namespace, &backup, &args.follow, progress).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let status = result.status.clone().unwrap_or_default();
    if phase(&result) != Some(BackupPhase::Succeeded) {
        println!("failed: {}", status.message);
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "succeeded: {} rows of {} tables, {} bytes; {}",
        thousands(status.rows.unwrap_or_default()),
        status.tables.unwrap_or_default(),
        thousands(status.size_bytes.unwrap_or_default()),
        ready(&result)
    );
    Ok(ExitCode::SUCCESS)
}

fn phase(backup: &DatabaseBackup) -> Option<BackupPhase> {
    backup.status.as_ref().and_then(|status| status.phase)
}

fn describe(phase: Option<BackupPhase>, backup: &DatabaseBackup) -> String {
    match phase {
        None => "waits for the operator".to_owned(),
        Some(phase) => format!("{phase:?}: {}", ready(backup)),
    }
}

fn ready(backup: &DatabaseBackup) -> String {
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|it| it.type_ == READY).map(|it| it.message.clone()).next().unwrap_or_default()
}
