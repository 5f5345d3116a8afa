//! The command line. One file per command.

mod apply;
mod backups;
mod blast_radius;
mod connect;
mod crds;
mod drill;
mod dump;
mod exemptions;
mod grants;
mod kubectl;
mod manifests;
mod output;
mod plan;
mod planned;
mod progress;
mod rehearse;
mod remove;
mod restore;
mod status;
mod storage;
mod undo;
mod verify;

use crate::kubernetes::text::chain;
use crate::version::VERSION;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// What was checked is not as declared.
const NOT_AS_DECLARED: u8 = 2;
/// How often what waits for a lock is tried, and how long that is waited for in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// The owner that the command line stamps on what it installs.
const OWNER: &str = "local";

/// Database guardrails on PostgreSQL: bulk deletes stopped, backups proven.
#[derive(Debug, Parser)]
#[command(name = "pgrail", version = VERSION, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers (in a cluster)
    Operator(crate::operator::OperatorArgs),
    /// Do the work of a backup pod (started by the operator)
    Agent(crate::agent::AgentArgs),
    /// Print the CRDs
    Crds(crds::CrdsArgs),
    /// Show what `apply` would change; exit status 2 when there is anything to do
    Plan(plan::PlanArgs),
    /// Install the guards and give the exemptions of manifests in a database, without a cluster
    Apply(apply::ApplyArgs),
    /// Take guards off again, leaving nothing behind
    Remove(remove::RemoveArgs),
    /// Show what is installed in a database, by whom, since when, and what it stopped; needs no manifests
    Status(status::StatusArgs),
    /// List the transactions whose deleted rows are kept, or put the rows of one back
    Undo(undo::UndoArgs),
    /// Make a backup: dump a database into a store, and read it back
    Dump(dump::DumpArgs),
    /// Verify backups again: every byte, and the rows of every table
    Verify(verify::VerifyArgs),
    /// Restore a backup into a new database, or rows of it into the tables that they came from
    Restore(restore::RestoreArgs),
    /// Restore a backup into a throwaway server of this machine, count its rows and run queries on it
    Drill(drill::DrillArgs),
    /// List the backups of a store, or find the newest one that still has a row
    Backups(backups::BackupsArgs),
    /// Show what deletes on a table can take with them
    BlastRadius(blast_radius::BlastRadiusArgs),
    /// Run a statement, roll it back, and show what it would remove and whether a guard would stop it
    Rehearse(rehearse::RehearseArgs),
    /// Print the least-privilege SQL for pgrail's role
    Grants(grants::GrantsArgs),
    /// Print a completion script for a shell
    Completion(kubectl::CompletionArgs),
}

/// Why a command failed, in words for a person.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Manifests(#[from] manifests::ManifestError),
    #[error(transparent)]
    Connect(#[from] connect::ConnectionError),
    #[error(transparent)]
    Cluster(#[from] kubectl::ClusterError),
    #[error(transparent)]
    Rejected(#[from] crate::kubernetes::rejection::Rejection),
    #[error(transparent)]
    Database(#[from] crate::database::DatabaseError),
    #[error(transparent)]
    Observe(#[from] pgrail_guard::ObserveError),
    #[error(transparent)]
    Plan(#[from] pgrail_guard::PlanError),
    #[error(transparent)]
    Ensure(#[from] pgrail_guard::EnsureError),
    #[error(transparent)]
    Apply(#[from] pgrail_guard::ApplyError),
    #[error(transparent)]
    Rehearse(#[from] pgrail_guard::RehearseError),
    #[error(transparent)]
    Capture(#[from] pgrail_guard::CaptureError),
    #[error(transparent)]
    Undo(#[from] pgrail_guard::UndoError),
    #[error(transparent)]
    Store(#[from] pgrail_dump::StoreError),
    #[error(transparent)]
    Manifest(#[from] pgrail_dump::ManifestError),
    #[error(transparent)]
    Extract(#[from] pgrail_dump::ExtractError),
    #[error(transparent)]
    Condition(#[from] pgrail_restore::ConditionError),
    #[error(transparent)]
    Restore(#[from] pgrail_restore::RestoreError),
    #[error(transparent)]
    Drill(#[from] pgrail_restore::DrillError),
    #[error("could not print")]
    Print(#[from] std::io::Error),
    #[error("could not print")]
    Json(#[from] serde_json::Error),
    #[error("could not print")]
    Yaml(#[from] serde_norway::Error),
    #[error("{}: {}", .0.reason, .0.message)]
    Failed(pgrail_dump::Failure),
    #[error("{0}")]
    Refused(String),
}

/// Reads the arguments and does what they say. Exit status 0: success, 1: failure, 2: not as declared.
pub(crate) async fn run() -> ExitCode {
    if let Some(result) = Box::pin(kubectl::run()).await {
        return exit(result);
    }
    let result = match Cli::parse().command {
        Command::Operator(args) => {
            log_as_json();
            return crate::operator::run(args).await;
        }
        Command::Agent(args) => {
            log_as_json();
            return crate::agent::run(args).await;
        }
        Command::Completion(args) => Ok(kubectl::script(&args, &mut Cli::command(), "pgrail")),
        Command::Crds(args) => crds::run(&args),
        Command::Plan(args) => plan::run(args).await,
        Command::Apply(args) => apply::apply(args).await,
        Command::Remove(args) => remove::remove(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Undo(args) => undo::run(args).await,
        Command::Dump(args) => dump::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Restore(args) => restore::run(args).await,
        Command::Drill(args) => drill::run(args).await,
        Command::Backups(args) => backups::run(args).await,
        Command::BlastRadius(args) => blast_radius::run(args).await,
        Command::Rehearse(args) => rehearse::run(args).await,
        Command::Grants(args) => grants::run(&args),
    };
    exit(result)
}

/// The exit status of a command.
fn exit(result: Result<ExitCode, CommandError>) -> ExitCode {
    match result {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(CommandError::Print(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pgrail: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn log_as_json() {
    let filter = EnvFilter::try_from_env("PGRAIL_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
}
