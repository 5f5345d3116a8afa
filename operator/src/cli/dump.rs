//! `pgrail dump`: makes a backup, as the backup pods do, and verifies it.

use super::connect::DatabaseArgs;
use super::output::{self, Format};
use super::progress::ProgressLine;
use super::storage::StoreArgs;
use super::{CommandError, NOT_AS_DECLARED, OWNER};
use crate::signals::stop_requested;
use futures::FutureExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pgrail_dump::{
    BackupIdentity, Compression, CompressionMethod, DumpError, DumpRequest, DumpResult, Filter, PartialCause, Store,
    VerificationLevel, VerifyError, VerifyRequest, VerifyResult, discard, dump_until, verify_until,
};
use pgrail_postgres::ConnectionSettings;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `pgrail dump`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail dump --storage-url s3://backups/shop\n  pgrail dump --database-url postgres://pgrail@db.example.com/shop --storage-url file:///backups\n  pgrail dump --name before-migration --jobs 4 --age-recipient age1… --storage-url s3://backups/shop\n\nThe backup is at local/NAMESPACE/NAME/RUN below the URL: `pgrail backups list`, `verify`, `drill` and `restore` find it. No retention removes it. In patterns, * stands for any characters and ? for one. Exit status 2 if the backup was made, and the store returned no SHA-256 to verify it with."
)]
pub(super) struct DumpArgs {
    /// The name of the backup, the third part of its location
    #[arg(long, default_value = "manual")]
    name: String,
    /// The second part of its location
    #[arg(long, default_value = OWNER)]
    namespace: String,
    /// Only these schemas, and no large objects; can be given several times
    #[arg(long, value_name = "PATTERN")]
    schema: Vec<String>,
    /// Without these tables, as schema.table; can be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// Without the rows of these tables, as schema.table; can be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude_table_data: Vec<String>,
    /// How many pg_dump run at the same time, under one snapshot
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// zstd, gzip, lz4 or none, with a level after a colon. Before pg_dump 16: gzip or none
    #[arg(long, value_name = "METHOD[:LEVEL]", default_value = "zstd:3", value_parser = compression)]
    compression: Compression,
    /// A public key of age (age1…) that the backup is encrypted for; can be given several times
    #[arg(long, value_name = "KEY")]
    age_recipient: Vec<String>,
    /// Without the roles and their memberships
    #[arg(long)]
    no_globals: bool,
    /// Where the expected row counts are from: the server, with the snapshot of the dump, or the archive itself
    #[arg(long, value_enum, default_value_t)]
    row_counts: RowCounts,
    /// How the backup is verified: every byte is read back, or the SHA-256 that the store computed is compared (s3:// only)
    #[arg(long, value_enum, default_value_t)]
    verification: Verification,
    #[command(flatten)]
    storage: StoreArgs,
    /// The directory of pg_dump and pg_restore, if they are not in PATH
    #[arg(long, env = "PGRAIL_PG_BIN", value_name = "DIRECTORY")]
    client_directory: Option<PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum RowCounts {
    #[default]
    Exact,
    Archive,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Verification {
    #[default]
    ReadBack,
    Checksum,
}

pub(super) async fn run(args: DumpArgs) -> Result<ExitCode, CommandError> {
    let store = args.storage.open_to_write(matches!(args.verification, Verification::Checksum))?;
    let request = request(&args, args.database.settings()?, Timestamp::now());
    let result = make(&args, &request, &store).await?;
    print(&result, args.output)?;
    Ok(if result.level == VerificationLevel::None { NOT_AS_DECLARED.into() } else { ExitCode::SUCCESS })
}

/// Dumps and verifies. What fails leaves nothing in the store.
async fn make(args: &DumpArgs, request: &DumpRequest, store: &Store) -> Result<VerifyResult, CommandError> {
    let (stop, line) = (stop_requested().shared(), ProgressLine::new());
    let progress = line.of_backup();
    let dumped = Box::pin(dump_until(request, store, &progress, stop.clone())).await.map_err(|error| {
        // In a terminal, the signal reaches pg_dump, too.
        let error = if stop.clone().now_or_never().is_some() { DumpError::Interrupted } else { error };
        CommandError::Failed(error.failure(request, store))
    })?;
    let mut verification = VerifyRequest::new(dumped);
    verification.level = match args.verification {
        Verification::ReadBack => VerificationLevel::ReadBack,
        Verification::Checksum => VerificationLevel::Checksum,
    };
    verification.client_directory.clone_from(&args.client_directory);
    match Box::pin(verify_until(&verification, store, &progress, stop)).await {
        Ok(result) => Ok(result),
        Err(error) => {
            leave_nothing(&verification.dump, store, &error, &line).await;
            Err(CommandError::Failed(error.failure(store)))
        }
    }
}

/// Without a schedule, nothing else would remove it.
async fn leave_nothing(dump: &DumpResult, store: &Store, error: &VerifyError, line: &ProgressLine) {
    let location = &dump.location;
    if matches!(error, VerifyError::Publish(_)) {
        // The answer of the store may have been lost, and the manifest not.
        line.notice(&format!("{location} may be in the store: see `pgrail backups list`"));
    } else if let Err(error) = discard(dump, store).await {
        line.notice(&format!("{location} is no backup, and cannot be removed from the store: {error}"));
    }
}

fn request(args: &DumpArgs, mut connection: ConnectionSettings, now: Timestamp) -> DumpRequest {
    "pgrail-dump".clone_into(&mut connection.application_name);
    let identity = BackupIdentity {
        // Not the form of a cluster's ID: no operator takes the backup for one of its own.
        cluster_id: OWNER.to_owned(),
        namespace: args.namespace.clone(),
        schedule: args.name.clone(),
        schedule_uid: OWNER.to_owned(),
        database: format!("{}/{}", args.namespace, connection.database),
        database_uid: OWNER.to_owned(),
        backup_name: format!("{}-{}", args.name, now.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S")),
        timestamp: now,
        run_id: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
    };
    let mut request = DumpRequest::new(connection, identity);
    request.filter = Filter {
        schemas: args.schema.clone(),
        exclude_tables: args.exclude_table.clone(),
        exclude_table_data: args.exclude_table_data.clone(),
    };
    request.jobs = args.jobs;
    request.compression = args.compression;
    request.age_recipients.clone_from(&args.age_recipient);
    request.globals = !args.no_globals;
    request.row_counts = match args.row_counts {
        RowCounts::Exact => pgrail_dump::RowCounts::Exact,
        RowCounts::Archive => pgrail_dump::RowCounts::Archive,
    };
    request.client_directory.clone_from(&args.client_directory);
    request
}

/// `zstd:3`
fn compression(text: &str) -> Result<Compression, String> {
    let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
    let methods = [CompressionMethod::Zstd, CompressionMethod::Gzip, CompressionMethod::Lz4, CompressionMethod::None];
    let method = methods.into_iter().find(|method| method.as_str() == name);
    let method = method.ok_or_else(|| format!("{name:?} is not zstd, gzip, lz4 or none"))?;
    let level = level.map(|level| level.parse().map_err(|_| format!("{level:?} is not a level"))).transpose()?;
    if method == CompressionMethod::None && level.is_some() {
        return Err("none has no level".to_owned());
    }
    Ok(Compression { method, level })
}

fn print(result: &VerifyResult, format: Format) -> Result<(), CommandError> {
    let backup = &result.backup;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(result)?)?,
        Format::Yaml => write!(out, "{}", serde_norway::to_string(result)?)?,
        Format::Name => writeln!(out, "{}", backup.location)?,
        Format::Table | Format::Wide => {
            drop(out);
            let header = ["LOCATION", "TABLES", "ROWS", "BYTES", "VERIFIED", "MANIFEST SHA-256"];
            let row = vec![
                backup.location.clone(),
                output::number(backup.tables),
                output::number(backup.rows),
                output::number(backup.size_bytes),
                format!("{:?}{}", result.level, if backup.partial { ", partial" } else { "" }),
                result.manifest_sha256.clone(),
            ];
            output::table(&header, vec![row])?;
        }
    }
    for warning in &backup.remarks.warnings {
        eprintln!("pgrail: pg_dump: {warning}");
    }
    if backup.partial {
        let causes: Vec<_> = backup.remarks.partial_because.iter().map(|cause| PartialCause::as_str(*cause)).collect();
        eprintln!("pgrail: the backup is partial: {}", causes.join(", "));
    }
    if !backup.remarks.unlogged_tables.is_empty() {
        let tables = backup.remarks.unlogged_tables.join(", ");
        eprintln!("pgrail: without the rows of unlogged tables, which a standby cannot read: {tables}");
    }
    if result.level == VerificationLevel::None {
        eprintln!("pgrail: the backup is not verified, since the store returned no SHA-256: run `pgrail verify`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_a_method_with_a_level() {
        let parsed = |text| compression(text).map(|it| (it.method, it.level));
        assert_eq!(parsed("zstd:3"), Ok((CompressionMethod::Zstd, Some(3))));
        assert_eq!(parsed("gzip"), Ok((CompressionMethod::Gzip, None)));
        assert_eq!(parsed("none"), Ok((CompressionMethod::None, None)));
        for bad in ["", "zip", "zstd:", "zstd:x", "none:1", "ZSTD"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
