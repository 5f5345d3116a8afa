//! `pgrail restore`: restores a backup into a new database, tables of it into a new schema, or rows of it into the tables that they
//! came from.

use super::connect::DatabaseArgs;
use super::output::{self, Format};
use super::progress::ProgressLine;
use super::storage::{StorageArgs, backups};
use super::{CommandError, NOT_AS_DECLARED};
use crate::signals::stop_requested;
use jiff::tz::TimeZone;
use pgrail_dump::{Extract, Manifest, Store};
use pgrail_restore::{
    Condition, Conflicts, DatabaseRequest, DatabaseRestored, RowsRequest, RowsRestored, SchemaRequest, SchemaRestored,
    TableCounted, TableSelection, Triggers, restore_database, restore_rows, restore_schema,
};
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// The longest name of a database, in bytes.
const LONGEST_NAME: usize = 63;

/// Options of `pgrail restore`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail restore --storage-url s3://backups/shop\n  pgrail restore --name shop_before_friday --backup LOCATION --storage-url s3://backups/shop\n  pgrail restore --table public.users --storage-url s3://backups/shop\n  pgrail restore --in-place --table public.users --where \"id = 42\" --follow-cascade --dry-run --storage-url s3://backups/shop\n\nWithout --in-place, the whole backup is restored into a new database of the server, or the tables that are named into a new schema of the database, beside what exists. With --in-place, only missing rows are inserted, in one transaction, as the owners of the tables."
)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct RestoreArgs {
    /// Restore rows into the live tables
    #[arg(long, requires = "table")]
    in_place: bool,
    /// The name of the new database or schema; from its name in the backup and the time of the backup if absent
    #[arg(long, conflicts_with = "in_place")]
    name: Option<String>,
    /// A table, as schema.table; can be given several times. Without --in-place, they are restored into a new schema
    #[arg(long)]
    table: Vec<String>,
    /// A condition on the columns of the table: one for each --table, in the same order. None: all rows
    #[arg(long = "where", value_name = "CONDITION", requires = "in_place")]
    condition: Vec<String>,
    /// With each row, the rows that a deletion of it deletes, and the links that it sets to NULL
    #[arg(long, requires = "in_place")]
    follow_cascade: bool,
    /// Keep rows that exist and are different, and restore the others
    #[arg(long, requires = "in_place")]
    skip_existing: bool,
    /// Triggers of the tables do not fire. Other sessions cannot write to the tables meanwhile
    #[arg(long, requires = "in_place")]
    skip_triggers: bool,
    /// Only report what would be restored; exit status 2 if something prevents it
    #[arg(long, requires = "in_place")]
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
    match (args.in_place, args.table.is_empty()) {
        (true, _) => rows(&args).await,
        (false, true) => database(&args).await,
        (false, false) => schema(&args).await,
    }
}

async fn open(args: &RestoreArgs) -> Result<Extract, CommandError> {
    let store = args.storage.open()?;
    let manifest = manifest(args, &store).await?;
    eprintln!("pgrail: backup {} of {}", manifest.location, manifest.snapshot_time);
    Ok(Extract::open(&store, manifest).await?)
}

async fn rows(args: &RestoreArgs) -> Result<ExitCode, CommandError> {
    let mut request = RowsRequest::new(args.database.settings()?, selections(args)?);
    request.follow_cascade = args.follow_cascade;
    request.conflicts = if args.skip_existing { Conflicts::SkipExisting } else { Conflicts::Fail };
    request.triggers = if args.skip_triggers { Triggers::Skip } else { Triggers::Fire };
    request.dry_run = args.dry_run;
    request.client_directory.clone_from(&args.storage.client_directory);
    let extract = open(args).await?;
    let restored = restore_rows(&request, &extract, &ProgressLine::new().of_restore()).await?;
    print(&restored, args.dry_run, args.output)?;
    Ok(match (restored.problems.is_empty(), args.dry_run) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => NOT_AS_DECLARED.into(),
        (false, false) => ExitCode::FAILURE,
    })
}

async fn database(args: &RestoreArgs) -> Result<ExitCode, CommandError> {
    let connection = args.database.settings()?;
    let extract = open(args).await?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&extract.manifest().database_name, extract.manifest()));
    eprintln!("pgrail: restoring into the new database {name}");
    let request = DatabaseRequest {
        connection,
        addresses: pgrail_postgres::AddressPolicy::any(),
        id: format!("{} of {}", std::process::id(), extract.manifest().location),
        name,
        client_directory: args.storage.client_directory.clone(),
    };
    let restored = restore_database(&request, &extract, &ProgressLine::new().of_restore(), stop_requested()).await?;
    let DatabaseRestored { database, roles_created, notes, tables, seconds, .. } = &restored;
    print_created(&restored, ("database", database), (tables, restored.rows(), *seconds), args.output)?;
    for role in roles_created {
        eprintln!("pgrail: created the role {role} without LOGIN");
    }
    print_notes(notes);
    Ok(ExitCode::SUCCESS)
}

async fn schema(args: &RestoreArgs) -> Result<ExitCode, CommandError> {
    let tables = args.table.iter().map(|table| table_name(table)).collect::<Result<Vec<_>, _>>()?;
    let schema = tables.first().map(|(schema, _)| schema.clone()).unwrap_or_default();
    if tables.iter().any(|(other, _)| *other != schema) {
        return Err(CommandError::Refused(
            "a new schema gets tables of one schema: run the command for each".to_owned(),
        ));
    }
    let connection = args.database.settings()?;
    let extract = open(args).await?;
    let name = args.name.clone().unwrap_or_else(|| name_of(&schema, extract.manifest()));
    eprintln!("pgrail: restoring into the new schema {name}");
    let request = SchemaRequest {
        connection,
        addresses: pgrail_postgres::AddressPolicy::any(),
        schema,
        tables: tables.into_iter().map(|(_, name)| name).collect(),
        name,
        id: format!("{}_{}", std::process::id(), jiff::Timestamp::now().as_millisecond()),
        client_directory: args.storage.client_directory.clone(),
    };
    let restored = restore_schema(&request, &extract, &ProgressLine::new().of_restore(), stop_requested()).await?;
    let SchemaRestored { schema, notes, tables, seconds, .. } = &restored;
    print_created(&restored, ("schema", schema), (tables, restored.rows(), *seconds), args.output)?;
    print_notes(notes);
    Ok(ExitCode::SUCCESS)
}

/// `shop_20261123_021500`
fn name_of(from: &str, manifest: &Manifest) -> String {
    let time = manifest.snapshot_time.to_zoned(TimeZone::UTC).strftime("_%Y%m%d_%H%M%S").to_string();
    let end = from.floor_char_boundary(LONGEST_NAME.saturating_sub(time.len()));
    format!("{}{time}", &from[..end])
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

/// What was created, its tables with all their rows, and how long it took.
fn print_created(
    restored: &impl Serialize,
    (kind, name): (&str, &str),
    (tables, rows, seconds): (&[TableCounted], u64, u64),
    format: Format,
) -> Result<(), CommandError> {
    let number = output::number;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(restored)?)?,
        Format::Yaml => write!(out, "{}", serde_norway::to_string(restored)?)?,
        Format::Name => writeln!(out, "{name}")?,
        Format::Table | Format::Wide => {
            drop(out);
            let rows = tables.iter().map(|it| vec![it.table.clone(), number(it.rows)]);
            output::table(&["TABLE", "ROWS"], rows.collect())?;
        }
    }
    eprintln!(
        "pgrail: restored {} rows of {} tables into the new {kind} {name}, as many as the backup has ({seconds} s)",
        number(rows),
        tables.len()
    );
    Ok(())
}

fn print_notes(notes: &[String]) {
    for note in notes {
        eprintln!("pgrail: {note}");
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
