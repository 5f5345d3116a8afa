//! `pgrail restore`: restores rows of a backup into the tables that they came from.

use super::connect::DatabaseArgs;
use super::output::{self, Format};
use super::storage::{StorageArgs, backups};
use super::{CommandError, NOT_AS_DECLARED};
use pgrail_dump::{Extract, Manifest, Store};
use pgrail_restore::{
    Condition, Conflicts, RestoreProgress, RowsRequest, RowsRestored, TableSelection, Triggers, restore_rows,
};
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail restore`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail restore --in-place --table public.users --where \"id = 42\" --follow-cascade --dry-run --storage-url s3://backups/shop\n  pgrail restore --in-place --table public.users --where \"id = 42\" --follow-cascade --backup LOCATION --storage-url s3://backups/shop\n\nOnly missing rows are inserted, in one transaction, as the owners of the tables. For a new database, use pg_restore."
)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct RestoreArgs {
    /// Restore rows into the live tables. Other targets are not implemented
    #[arg(long, required = true)]
    in_place: bool,
    /// A table, as schema.table; can be given several times
    #[arg(long, required = true)]
    table: Vec<String>,
    /// A condition on the columns of the table: one for each --table, in the same order. None: all rows
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Vec<String>,
    /// With each row, the rows that a deletion of it deletes, and the links that it sets to NULL
    #[arg(long)]
    follow_cascade: bool,
    /// Keep rows that exist and are different, and restore the others
    #[arg(long)]
    skip_existing: bool,
    /// Triggers of the tables do not fire. Other sessions cannot write to the tables meanwhile
    #[arg(long)]
    skip_triggers: bool,
    /// Only report what would be restored; exit status 2 if something prevents it
    #[arg(long)]
    dry_run: bool,
    /// The location of the backup, as `pgrail backups list` prints it; the newest if absent
    #[arg(long, value_name = "LOCATION")]
    backup: Option<String>,
    /// SHA-256 of the backup's manifest, as in status.manifestSha256 of the DatabaseBackup: another one is refused
    #[arg(long, value_name = "HEX")]
    manifest_sha256: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: RestoreArgs) -> Result<ExitCode, CommandError> {
    let mut request = RowsRequest::new(args.database.settings()?, selections(&args)?);
    request.follow_cascade = args.follow_cascade;
    request.conflicts = if args.skip_existing { Conflicts::SkipExisting } else { Conflicts::Fail };
    request.triggers = if args.skip_triggers { Triggers::Skip } else { Triggers::Fire };
    request.dry_run = args.dry_run;
    request.client_directory.clone_from(&args.storage.client_directory);
    let store = args.storage.open()?;
    let manifest = manifest(&args, &store).await?;
    eprintln!("pgrail: backup {} of {}", manifest.location, manifest.snapshot_time);
    let extract = Extract::open(&store, manifest).await?;
    let restored = restore_rows(&request, &extract, &progress).await?;
    print(&restored, args.dry_run, args.output)?;
    Ok(match (restored.problems.is_empty(), args.dry_run) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => NOT_AS_DECLARED.into(),
        (false, false) => ExitCode::FAILURE,
    })
}

fn selections(args: &RestoreArgs) -> Result<Vec<TableSelection>, CommandError> {
    if !args.condition.is_empty() && args.condition.len() != args.table.len() {
        return Err(CommandError::Refused(format!(
            "{} --table and {} --where: give one condition for each table, or none; \"true\" selects all rows",
            args.table.len(),
            args.condition.len()
        )));
    }
    let conditions = args.condition.iter().map(Some).chain(std::iter::repeat(None));
    let selection = |(table, condition): (&String, Option<&String>)| {
        let (schema, name) = table_name(table)?;
        Ok(TableSelection { schema, name, condition: condition.map(|text| Condition::parse(text)).transpose()? })
    };
    args.table.iter().zip(conditions).map(selection).collect()
}

/// `schema.table` as the catalog has it.
pub(super) fn table_name(text: &str) -> Result<(String, String), CommandError> {
    match text.split_once('.') {
        Some((schema, name)) if !schema.is_empty() && !name.is_empty() => Ok((schema.to_owned(), name.to_owned())),
        _ => Err(CommandError::Refused(format!("{text:?} is not schema.table"))),
    }
}

async fn manifest(args: &RestoreArgs, store: &Store) -> Result<Manifest, CommandError> {
    match (&args.backup, &args.manifest_sha256) {
        (Some(location), Some(sha256)) => Ok(Manifest::read_published(store, location, sha256).await?),
        (Some(location), None) => Ok(Manifest::read(store, location).await?),
        (None, Some(_)) => Err(CommandError::Refused("--manifest-sha256 goes with --backup".to_owned())),
        (None, None) => {
            let newest = backups(store).await?.into_iter().next();
            newest.ok_or_else(|| CommandError::Refused("there is no backup in the store".to_owned()))
        }
    }
}

fn progress(progress: RestoreProgress) {
    match progress {
        RestoreProgress::Reading { table, bytes } => eprintln!("pgrail: reading {table}: {bytes} bytes"),
        RestoreProgress::Selected { rows } => eprintln!("pgrail: {} rows selected", output::thousands(rows)),
        RestoreProgress::Inserted { table, rows } => {
            eprintln!("pgrail: {} rows inserted into {table}", output::thousands(rows));
        }
    }
}

fn print(restored: &RowsRestored, dry_run: bool, format: Format) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(restored)?)?,
        Format::Yaml => write!(out, "{}", serde_norway::to_string(restored)?)?,
        Format::Name => {
            for table in &restored.tables {
                writeln!(out, "{}", table.table)?;
            }
        }
        Format::Table | Format::Wide => {
            drop(out);
            let header = ["TABLE", "IN BACKUP", "SELECTED", "INSERTED", "IDENTICAL", "DIFFERENT", "LINKS"];
            // What was not done is not reported as if it were.
            let back =
                |count: i64| if restored.problems.is_empty() { output::thousands(count) } else { "-".to_owned() };
            let rows = restored.tables.iter().map(|it| {
                vec![
                    it.table.clone(),
                    output::thousands(it.in_backup),
                    output::thousands(it.selected),
                    back(it.inserted),
                    output::thousands(it.identical),
                    output::thousands(it.different),
                    back(it.links_restored),
                ]
            });
            output::table(&header, rows.collect())?;
        }
    }
    for trigger in &restored.triggers {
        eprintln!("pgrail: the trigger {trigger} {}", if restored.done { "fired" } else { "would fire" });
    }
    for line in restored.notes.iter().chain(&restored.problems) {
        eprintln!("pgrail: {line}");
    }
    let outcome = match (restored.done, dry_run && restored.problems.is_empty()) {
        (true, _) => "restored",
        (false, true) => "can be restored; nothing was changed",
        (false, false) => "cannot be restored; nothing was changed",
    };
    let rows = output::thousands(restored.total(|table| table.inserted));
    eprintln!("pgrail: {rows} rows: {outcome} ({} s, {} bytes read)", restored.seconds, restored.bytes_read);
    Ok(())
}
