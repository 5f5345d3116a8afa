//! `pgrail drill`: restores a backup into a throwaway server of this machine, counts its rows and runs queries on it.

use super::output::{self, Format};
use super::progress::ProgressLine;
use super::storage::{StorageArgs, backups};
use super::{CommandError, NOT_AS_DECLARED};
use crate::agent::config::{PROBLEM_FILE, START_FILE};
use crate::signals::stop_requested;
use jiff::Timestamp;
use pgrail_dump::{DrillOutcome, DrillResult, Manifest, SUPERUSER, Store};
use pgrail_postgres::ConnectionSettings;
use pgrail_restore::{DrillQuery, DrillRequest, Expectation, drill};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Options of `pgrail drill`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail drill --storage-url s3://backups/shop\n  pgrail drill --query \"SELECT count(*) FROM users\" --expect \"> 0\" --storage-url s3://backups/shop\n\nThe server is started in a directory of its own, listens on a socket only, has no network, and ends with the command. It needs initdb and postgres beside pg_restore, and cannot run as root. Exit status 2 if the backup cannot be restored or is not as expected, 1 if the drill could not run."
)]
pub(super) struct DrillArgs {
    /// A query that returns one value; can be given several times
    #[arg(long, value_name = "SQL")]
    query: Vec<String>,
    /// What the query must return: "> 0", ">= 10", "= x", "!= x", or a text; one for each --query, in the same order
    #[arg(long, allow_hyphen_values = true)]
    expect: Vec<String>,
    /// The location of the backup, as `pgrail backups list` prints it; the newest if absent
    #[arg(long, value_name = "LOCATION")]
    backup: Option<String>,
    /// SHA-256 of the backup's manifest, as in status.manifestSha256 of the DatabaseBackup: another one is refused
    #[arg(long, value_name = "HEX", requires = "backup")]
    manifest_sha256: Option<String>,
    /// Where the server's data is written: it must have room for the database. Default: the directory for temporary files
    #[arg(long, value_name = "DIRECTORY")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    storage: StorageArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: DrillArgs) -> Result<ExitCode, CommandError> {
    let queries = queries(&args)?;
    let store = args.storage.open()?;
    let (location, manifest_sha256) = backup(&args, &store).await?;
    eprintln!("pgrail: backup {location}");
    let mut server = Server::start(&args)?;
    let request = DrillRequest {
        location,
        manifest_sha256,
        server: ConnectionSettings::new(server.socket().display().to_string(), "postgres", SUPERUSER),
        queries,
        client_directory: args.storage.client_directory.clone(),
        clock: Timestamp::now,
    };
    let (progress, ended) = (ProgressLine::new().of_restore(), server.process.wait());
    let result = tokio::select! {
        result = drill(&request, &store, &progress, stop_requested()) => Some(result),
        // It ends only if it cannot run.
        _ = ended => None,
    };
    drop(progress);
    let problem = std::fs::read_to_string(server.socket().join(PROBLEM_FILE)).unwrap_or_default();
    server.end().await;
    let Some(result) = result else {
        let message = format!("the drill could not run: the temporary server ended: {}", problem.trim());
        return Err(CommandError::Refused(message));
    };
    let mut result = result?;
    if result.outcome == DrillOutcome::NotRun && !problem.is_empty() {
        result.message = format!("{}; the server reports: {}", result.message, problem.trim());
    }
    print(&result, args.output)?;
    Ok(match result.outcome {
        DrillOutcome::Restored => ExitCode::SUCCESS,
        DrillOutcome::Failed => NOT_AS_DECLARED.into(),
        DrillOutcome::NotRun => ExitCode::FAILURE,
    })
}

fn queries(args: &DrillArgs) -> Result<Vec<DrillQuery>, CommandError> {
    if args.query.len() != args.expect.len() {
        let (queries, expectations) = (args.query.len(), args.expect.len());
        let message = format!("{queries} --query and {expectations} --expect: give one expectation for each query");
        return Err(CommandError::Refused(message));
    }
    let query = |(number, (sql, expect)): (usize, (&String, &String))| {
        let expect = Expectation::parse(expect).map_err(|error| CommandError::Refused(format!("--expect: {error}")))?;
        Ok(DrillQuery { name: (number + 1).to_string(), sql: sql.clone(), expect })
    };
    args.query.iter().zip(&args.expect).enumerate().map(query).collect()
}

async fn backup(args: &DrillArgs, store: &Store) -> Result<(String, String), CommandError> {
    let location = if let Some(location) = &args.backup {
        location.clone()
    } else {
        let newest = backups(store).await?.into_iter().next();
        newest.ok_or_else(|| CommandError::Refused("there is no backup in the store".to_owned()))?.location
    };
    let sha256 = match &args.manifest_sha256 {
        Some(sha256) => sha256.clone(),
        None => Manifest::read_with_sha256(store, &location).await?.1,
    };
    Ok((location, sha256))
}

/// `pgrail agent postgres` as a process of its own: the network is forbidden to it, and not to this process.
struct Server {
    process: Child,
    directory: TempDir,
}

impl Server {
    fn start(args: &DrillArgs) -> Result<Self, CommandError> {
        let parent = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
        // The name of a socket has at most 107 bytes.
        let attempt = || {
            let directory = TempDir::with_prefix_in("pgrail-", parent)?;
            let process = Self::command(args, directory.path())?.spawn()?;
            Ok::<_, std::io::Error>(Self { process, directory })
        };
        attempt().map_err(|error| CommandError::Refused(format!("the temporary server cannot be started: {error}")))
    }

    fn command(args: &DrillArgs, directory: &Path) -> std::io::Result<Command> {
        for name in ["drill", "scratch"] {
            std::fs::create_dir(directory.join(name))?;
        }
        std::fs::write(directory.join("drill").join(START_FILE), "")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["agent", "postgres", "--drill"]).arg(directory.join("drill"));
        command.arg("--scratch").arg(directory.join("scratch"));
        if let Some(programs) = &args.storage.client_directory {
            command.arg("--client-directory").arg(programs);
        }
        // No key of the store.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("drill")
    }

    /// The server ends with its parent, which gets time to end it.
    async fn end(mut self) {
        let process = self.process.id().map(|id| id.to_string());
        if let Some(process) = process {
            let _ = Command::new("kill").args(["-TERM", &process]).status().await;
        }
        let _ = self.process.wait().await;
    }
}

fn print(result: &DrillResult, format: Format) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(result)?)?,
        Format::Yaml => write!(out, "{}", serde_norway::to_string(result)?)?,
        Format::Name => writeln!(out, "{}", result.location)?,
        Format::Table | Format::Wide => {
            drop(out);
            let passed = |passed| if passed { "yes" } else { "no" }.to_owned();
            let rows = result.queries.iter().map(|it| vec![it.name.clone(), it.found.clone(), passed(it.passed)]);
            if !result.queries.is_empty() {
                output::table(&["QUERY", "FOUND", "AS EXPECTED"], rows.collect())?;
            }
        }
    }
    for note in &result.notes {
        eprintln!("pgrail: {note}");
    }
    let number = output::number;
    let (rows, tables, seconds) = (number(result.rows), number(result.tables), result.seconds);
    match result.outcome {
        DrillOutcome::Restored => {
            eprintln!("pgrail: {rows} rows of {tables} tables were restored and counted in {seconds} s");
        }
        DrillOutcome::Failed => eprintln!("pgrail: the drill failed: {}", result.message),
        DrillOutcome::NotRun => eprintln!("pgrail: the drill could not run: {}", result.message),
    }
    Ok(())
}
