//! `pgrail backups`: lists the backups of a store, or finds the newest one that still has a row.

use super::connect::DatabaseArgs;
use super::output::{self, Format};
use super::progress::ProgressLine;
use super::restore::table_name;
use super::storage::{StorageArgs, backups};
use super::{CommandError, NOT_AS_DECLARED};
use pgrail_dump::{Extract, ExtractError, Manifest, Store};
use pgrail_restore::{Condition, RestoreProgress, RowsRequest, TableSelection, count_rows};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail backups`.
#[derive(Debug, clap::Args)]
pub(super) struct BackupsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the backups of a store, newest first
    #[command(
        after_help = "Example:\n  pgrail backups list --storage-url s3://backups/shop\n\nA location is CLUSTER/NAMESPACE/SCHEDULE/RUN. To record the backups of a lost cluster in another one, annotate the BackupSchedule\nthere with pgrail.dev/adopt-cluster=CLUSTER."
    )]
    List(ListArgs),
    /// Find the newest backup that still has a row, reading only that table's part of each
    #[command(
        after_help = "Example:\n  pgrail backups find --table public.users --where \"id = 42\" --storage-url s3://backups/shop\n\nThe condition is evaluated by the database, by its table of the same name. Nothing is changed."
    )]
    Find(FindArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    storage: StorageArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct FindArgs {
    /// The table, as schema.table
    #[arg(long)]
    table: String,
    /// A condition on its columns
    #[arg(long = "where", value_name = "CONDITION")]
    condition: String,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: BackupsArgs) -> Result<ExitCode, CommandError> {
    match args.command {
        Command::List(args) => {
            let found = backups(&args.storage.open()?).await?;
            print(&found.iter().map(|manifest| (manifest, None)).collect::<Vec<_>>(), args.output)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Find(args) => find(args).await,
    }
}

/// Exit status 2: no backup has such a row.
async fn find(args: FindArgs) -> Result<ExitCode, CommandError> {
    let store = args.storage.open()?;
    let (schema, name) = table_name(&args.table)?;
    let table = TableSelection { schema, name, condition: Some(Condition::parse(&args.condition)?) };
    let mut request = RowsRequest::new(args.database.settings()?, vec![table]);
    request.client_directory.clone_from(&args.storage.client_directory);
    let all = backups(&store).await?;
    let of = all.len();
    let progress = ProgressLine::new();
    for (place, manifest) in all.into_iter().enumerate() {
        progress.items(&format!("reading {}, of {}", manifest.location, manifest.snapshot_time), place + 1, of);
        let Some(rows) = count(&request, &store, &manifest, &progress).await? else { continue };
        if rows > 0 {
            drop(progress);
            print(&[(&manifest, Some(rows))], args.output)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    drop(progress);
    eprintln!("pgrail: no backup has such a row");
    Ok(NOT_AS_DECLARED.into())
}

/// How many such rows a backup has; `None` if it cannot be read by tables, which is reported.
async fn count(
    request: &RowsRequest,
    store: &Store,
    manifest: &Manifest,
    progress: &ProgressLine,
) -> Result<Option<i64>, CommandError> {
    let extract = match Extract::open(store, manifest.clone()).await {
        Ok(extract) => extract,
        Err(error @ ExtractError::NoIndex(_)) => {
            progress.notice(&error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(count_rows(request, &extract, &|_: RestoreProgress| {}).await?))
}

fn print(found: &[(&Manifest, Option<i64>)], format: Format) -> Result<(), CommandError> {
    let object = |(manifest, matching): &(&Manifest, Option<i64>)| {
        json!({
            "location": manifest.location, "cluster": manifest.identity.cluster_id, "namespace": manifest.identity.namespace,
            "schedule": manifest.identity.schedule, "backup": manifest.identity.backup_name, "database": manifest.identity.database,
            "snapshotTime": manifest.snapshot_time, "tables": manifest.table_count(), "rows": manifest.rows,
            "sizeBytes": manifest.size_bytes, "partial": manifest.is_partial(), "encrypted": manifest.is_encrypted(), "verification": manifest.verification.level,
            "tableIndex": manifest.has_index(), "matchingRows": matching,
        })
    };
    let objects: Vec<Value> = found.iter().map(object).collect();
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&objects)?)?,
        Format::Yaml => write!(out, "{}", serde_norway::to_string(&objects)?)?,
        Format::Name => {
            for (manifest, _) in found {
                writeln!(out, "{}", manifest.location)?;
            }
        }
        Format::Table | Format::Wide => {
            drop(out);
            let header = ["LOCATION", "DATABASE", "SNAPSHOT", "TABLES", "ROWS", "BYTES", "VERIFIED", "MATCHING"];
            let number = output::number;
            let rows = found.iter().map(|(manifest, matching)| {
                vec![
                    manifest.location.clone(),
                    manifest.identity.database.clone(),
                    manifest.snapshot_time.to_string(),
                    manifest.table_count().to_string(),
                    number(manifest.rows),
                    number(manifest.size_bytes),
                    format!(
                        "{:?}{}",
                        manifest.verification.level,
                        if manifest.is_partial() { ", partial" } else { "" }
                    ),
                    matching.map(output::thousands).unwrap_or_default(),
                ]
            });
            output::table(&header, rows.collect())?;
        }
    }
    Ok(())
}
