//! `pgrail verify`: verifies published backups again. Nothing is written.

use super::output::{self, Format};
use super::progress::ProgressLine;
use super::storage::{StorageArgs, listing};
use super::{CommandError, NOT_AS_DECLARED};
use crate::signals::stop_requested;
use futures::FutureExt;
use pgrail_dump::{Compared, Failure, Reason, Reverified, ReverifyRequest, Store, reverify_until};
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail verify --storage-url s3://backups/shop\n  pgrail verify LOCATION --manifest-sha256 HEX --storage-url s3://backups/shop\n  pgrail verify --all --storage-url s3://backups/shop -o json\n\nEvery byte is read, and compared with the manifest. The archive is decoded, and the rows of every table are counted and compared, too; those of an encrypted backup only with --identity-file. Nothing is written. Exit status 2 if something is not as the manifest says, 1 if a backup could not be verified."
)]
pub(super) struct VerifyArgs {
    /// The location of the backup, as `pgrail backups list` prints it; the newest if absent
    location: Option<String>,
    /// Every backup of the store
    #[arg(long, conflicts_with = "location")]
    all: bool,
    /// SHA-256 of the backup's manifest, as in status.manifestSha256 of the DatabaseBackup: another one is reported
    #[arg(long, value_name = "HEX", requires = "location")]
    manifest_sha256: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

/// What became of one backup.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Verified(Reverified),
    NotVerified { location: String, failure: Failure },
}

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, CommandError> {
    let store = args.storage.open()?;
    let locations = locations(&args, &store).await?;
    let outcomes = verify(&args, locations, &store).await;
    print(&outcomes, args.output)?;
    let differs = |outcome: &Outcome| matches!(outcome, Outcome::Verified(found) if !found.mismatches.is_empty());
    let verified = |outcome: &Outcome| matches!(outcome, Outcome::Verified(_));
    Ok(match (outcomes.iter().any(differs), outcomes.iter().all(verified)) {
        (true, _) => NOT_AS_DECLARED.into(),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

async fn locations(args: &VerifyArgs, store: &Store) -> Result<Vec<String>, CommandError> {
    if let Some(location) = &args.location {
        return Ok(vec![location.clone()]);
    }
    let listing = listing(store).await?;
    let mut published: Vec<_> = listing.discovered.into_iter().map(|manifest| manifest.location).collect();
    let mut unreadable: Vec<_> = listing.unreadable.into_iter().map(|it| it.location).collect();
    if !args.all {
        published.truncate(1);
        // A newer one whose manifest is damaged: without a manifest, only its location shows its time.
        unreadable.retain(|location| published.first().is_none_or(|newest| run_of(location) > run_of(newest)));
    }
    published.append(&mut unreadable);
    if published.is_empty() {
        return Err(CommandError::Refused("there is no backup in the store".to_owned()));
    }
    Ok(published)
}

/// `20261123T021500Z-a1b2c3`
fn run_of(location: &str) -> Option<&str> {
    location.rsplit('/').next()
}

/// Whether the next backup could not be verified for the same reason.
fn concerns_all(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Interrupted
            | Reason::ClientMissing
            | Reason::StoreInvalid
            | Reason::BucketMissing
            | Reason::AccessDenied
            | Reason::StoreUnavailable
    )
}

async fn verify(args: &VerifyArgs, locations: Vec<String>, store: &Store) -> Vec<Outcome> {
    let (stop, line) = (stop_requested().shared(), ProgressLine::new());
    let mut outcomes = Vec::with_capacity(locations.len());
    let count = locations.len();
    for (place, location) in locations.into_iter().enumerate() {
        let mut request = ReverifyRequest::new(location);
        request.manifest_sha256.clone_from(&args.manifest_sha256);
        request.client_directory.clone_from(&args.storage.client_directory);
        let outcome = match reverify_until(&request, store, &line.of_backup(), stop.clone()).await {
            Ok(found) => Outcome::Verified(found),
            Err(error) => Outcome::NotVerified { location: request.location, failure: error.failure(store) },
        };
        let is_last = matches!(&outcome, Outcome::NotVerified { failure, .. } if concerns_all(failure.reason));
        outcomes.push(outcome);
        let left = count - place - 1;
        if is_last && left > 0 {
            line.notice(&format!("not tried: {left} of {count} backups"));
            break;
        }
    }
    outcomes
}

fn print(outcomes: &[Outcome], format: Format) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(outcomes)?)?,
        Format::Yaml => write!(out, "{}", serde_norway::to_string(outcomes)?)?,
        Format::Name => {
            for outcome in outcomes {
                writeln!(out, "{}", outcome.location())?;
            }
        }
        Format::Table | Format::Wide => {
            drop(out);
            let header = ["LOCATION", "SNAPSHOT", "COMPARED", "OBJECTS", "BYTES", "TABLES", "ROWS", "RESULT"];
            output::table(&header, outcomes.iter().map(Outcome::row).collect())?;
        }
    }
    for outcome in outcomes {
        outcome.explain();
    }
    Ok(())
}

impl Outcome {
    fn location(&self) -> &str {
        match self {
            Self::Verified(found) => &found.location,
            Self::NotVerified { location, .. } => location,
        }
    }

    fn row(&self) -> Vec<String> {
        let unknown = || "-".to_owned();
        match self {
            Self::Verified(found) => vec![
                found.location.clone(),
                found.snapshot_time.map_or_else(unknown, |time| time.to_string()),
                format!("{:?}", found.compared),
                output::number(found.objects),
                output::number(found.bytes),
                found.tables.map_or_else(unknown, output::number),
                found.rows.map_or_else(unknown, output::number),
                if found.mismatches.is_empty() { "AsPublished" } else { "Differs" }.to_owned(),
            ],
            Self::NotVerified { location, .. } => {
                let mut row = vec![location.clone()];
                row.extend(std::iter::repeat_with(unknown).take(6));
                row.push("NotVerified".to_owned());
                row
            }
        }
    }

    /// What was found, without more than was compared.
    fn explain(&self) {
        let location = self.location();
        let found = match self {
            Self::Verified(found) => found,
            Self::NotVerified { failure, .. } => {
                eprintln!("pgrail: {location}: not verified: {}: {}", failure.reason, failure.message);
                return;
            }
        };
        for mismatch in &found.mismatches {
            eprintln!("pgrail: {location}: {}: {}", mismatch.reason, mismatch.message);
        }
        for note in &found.notes {
            eprintln!("pgrail: {location}: {note}");
        }
        if !found.mismatches.is_empty() {
            eprintln!("pgrail: {location}: the backup is not as its manifest says");
            return;
        }
        let (objects, bytes) = (output::number(found.objects), output::number(found.bytes));
        let rows = match (found.compared, found.tables, found.rows) {
            (Compared::Rows, Some(tables), Some(rows)) => {
                format!(", and {} rows of {} tables,", output::number(rows), output::number(tables))
            }
            _ => String::new(),
        };
        eprintln!(
            "pgrail: {location}: {bytes} bytes of {objects} objects{rows} are as the manifest says ({} s)",
            found.seconds
        );
    }
}
