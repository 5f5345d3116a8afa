//! `kubectl pgrail restore`: creates a `DatabaseRestore`, and waits for its result.

use super::cluster::{ClusterArgs, refused};
use super::exempt::table;
use super::follow::{FollowArgs, Progress, create_and_follow};
use crate::cli::output::{self, thousands};
use crate::cli::{CommandError, NOT_AS_DECLARED};
use kube::Api;
use pgrail_crds::annotations::ALLOW_IN_PLACE;
use pgrail_crds::conditions::READY;
use pgrail_crds::{
    BackupSchedule, ConflictPolicy, DatabaseBackup, DatabaseRestore, DatabaseRestoreSpec, RestorePhase, TableName,
};
use serde_json::json;
use std::process::ExitCode;

/// Options of `kubectl pgrail restore`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kubectl pgrail restore nightly-20261001-021500 --table public.users --where \"id = 42\" --follow-cascade --dry-run\n\n\
    Rows are restored into the tables that they came from; other modes: write a DatabaseRestore. Without --dry-run, \
    --in-place confirms that.\nExit status: 0 restored, or nothing prevents it; 2 a dry run found a conflict; 1 failed."
)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct RestoreArgs {
    /// The DatabaseBackup
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// A table of the backup, schema.table (may be repeated)
    #[arg(long = "table", value_name = "TABLE", value_parser = table, required = true)]
    tables: Vec<TableName>,
    /// Only the rows of the table that this condition selects
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// With each row, what a deletion of it deletes
    #[arg(long)]
    follow_cascade: bool,
    /// Only report what would be restored
    #[arg(long, conflicts_with = "in_place")]
    dry_run: bool,
    /// Insert the rows into the tables: required unless --dry-run
    #[arg(long, required_unless_present = "dry_run")]
    in_place: bool,
    /// Keep rows that exist already
    #[arg(long)]
    skip_existing: bool,
    /// The ProtectedDatabase; default: the one of the backup
    #[arg(long)]
    database: Option<String>,
    #[command(flatten)]
    follow: FollowArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Restores rows.
pub(super) async fn run(args: RestoreArgs) -> Result<ExitCode, CommandError> {
    let (client, namespace) = args.cluster.connect().await?;
    if args.condition.is_some() && args.tables.len() > 1 {
        return Err(CommandError::Refused("--where is for one --table: create a restore for each".to_owned()));
    }
    let database = match args.database {
        Some(database) => database,
        None => database_of(&client, &namespace, &args.backup).await?,
    };
    let tables: Vec<_> = args
        .tables
        .iter()
        .map(|table| json!({"schema": table.schema, "name": table.name, "where": args.condition}))
        .collect();
    let spec: DatabaseRestoreSpec = serde_json::from_value(json!({
        "source": {"backupRef": {"name": args.backup}}, "tables": tables, "followCascade": args.follow_cascade,
        "target": {"databaseRef": {"name": database}, "mode": "InPlace"}, "dryRun": args.dry_run,
        "conflictPolicy": if args.skip_existing { ConflictPolicy::SkipExisting } else { ConflictPolicy::Fail },
    }))?;
    let mut restore = DatabaseRestore::new("", spec);
    restore.metadata.name = None;
    restore.metadata.generate_name = Some("restore-".to_owned());
    restore.metadata.annotations = Some([(ALLOW_IN_PLACE.to_owned(), "true".to_owned())].into());
    let progress = |restore: &DatabaseRestore| match phase(restore) {
        Some(RestorePhase::Succeeded | RestorePhase::Failed) => Progress::Finished,
        Some(phase) => Progress::Running(format!("{phase:?}: {}", ready(restore))),
        None => Progress::Running("waits for the operator".to_owned()),
    };
    let Some(result) = create_and_follow(&client, &namespace, &restore, &args.follow, progress).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    print(&result)?;
    let succeeded = phase(&result) == Some(RestorePhase::Succeeded);
    Ok(match (succeeded, args.dry_run) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => NOT_AS_DECLARED.into(),
        (false, false) => ExitCode::FAILURE,
    })
}

/// The database that a backup is of.
async fn database_of(client: &kube::Client, namespace: &str, name: &str) -> Result<String, CommandError> {
    let backups: Api<DatabaseBackup> = Api::namespaced(client.clone(), namespace);
    let backup = backups.get(name).await;
    let backup = backup.map_err(|error| refused(&format!("DatabaseBackup {namespace}/{name}"), error))?;
    if let Some(database) = backup.spec.database_ref {
        return Ok(database.name);
    }
    let schedule = backup.spec.schedule_ref.map(|schedule| schedule.name).unwrap_or_default();
    let schedules: Api<BackupSchedule> = Api::namespaced(client.clone(), namespace);
    let found = schedules.get(&schedule).await;
    let found = found.map_err(|error| {
        refused(&format!("BackupSchedule {namespace}/{schedule} of the backup (give --database instead)"), error)
    })?;
    Ok(found.spec.database_ref.name)
}

fn print(restore: &DatabaseRestore) -> Result<(), CommandError> {
    let status = restore.status.clone().unwrap_or_default();
    if !status.tables.is_empty() {
        let inserted = if restore.spec.dry_run { "TO INSERT" } else { "INSERTED" };
        let header = ["TABLE", inserted, "IDENTICAL", "DIFFERENT", "LINKS"];
        let rows = status.tables.iter().map(|it| {
            let numbers = [it.inserted, it.identical, it.different, it.links].map(thousands);
            std::iter::once(it.table.clone()).chain(numbers).collect()
        });
        output::table(&header, rows.collect())?;
    }
    match phase(restore) {
        Some(RestorePhase::Succeeded) => println!("{}", ready(restore)),
        _ => println!("failed: {}", if status.message.is_empty() { ready(restore) } else { status.message }),
    }
    Ok(())
}

fn phase(restore: &DatabaseRestore) -> Option<RestorePhase> {
    restore.status.as_ref().and_then(|status| status.phase)
}

fn ready(restore: &DatabaseRestore) -> String {
    let conditions = restore.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|it| it.type_ == READY).map(|it| it.message.clone()).next().unwrap_or_default()
}
