//! `kubectl pgrail`: the same program under the name `kubectl-pgrail`. It acts in a cluster, with the kubeconfig and the
//! rights of its user.

mod adopt;
mod backup;
mod cluster;
mod complete;
mod exempt;
mod follow;
mod of_database;
mod restore;
mod status;

use super::{CommandError, blast_radius, rehearse, undo};
use clap::{CommandFactory, Parser, Subcommand};
pub(super) use cluster::ClusterError;
pub(super) use complete::{CompletionArgs, script};
use of_database::OfDatabase;
use std::path::Path;
use std::process::ExitCode;

/// The name of the program as a plugin of kubectl.
const PLUGIN: &str = "kubectl-pgrail";
/// The name that kubectl looks for to complete arguments of the plugin.
const COMPLETER: &str = "kubectl_complete-pgrail";

/// Database guardrails on PostgreSQL, in a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl pgrail",
    bin_name = "kubectl pgrail",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which databases are compliant, the worst first; exit status 2 unless all are
    Status(status::StatusArgs),
    /// Let a login role exceed the limits of a guard for some time, and wait until that is in force
    Exempt(exempt::ExemptArgs),
    /// Make a backup with the settings of a BackupSchedule, and wait for its result
    Backup(backup::BackupArgs),
    /// Vouch for dumps that were found in the store: they can be restored then
    Adopt(adopt::AdoptArgs),
    /// Restore rows of a backup into the tables that they came from, and wait for the result
    Restore(restore::RestoreArgs),
    /// List the transactions of a database whose deleted rows are kept, or put the rows of one back
    Undo(OfDatabase<undo::UndoArgs>),
    /// Run a statement in a database, roll it back, and show what it would remove and whether a guard would stop it
    Rehearse(OfDatabase<rehearse::RehearseArgs>),
    /// Show what deletes on a table of a database can take with them
    BlastRadius(BlastArgs),
    /// Print a completion script for a shell
    Completion(complete::CompletionArgs),
}

/// Options of `kubectl pgrail blast-radius`.
#[derive(Debug, clap::Args)]
struct BlastArgs {
    /// Print the worst tables as the status of the ProtectedDatabase lists them, without connecting to the database
    #[arg(long)]
    from_status: bool,
    #[command(flatten)]
    of_database: OfDatabase<blast_radius::BlastRadiusArgs>,
}

async fn run_blast_radius(args: BlastArgs) -> Result<ExitCode, CommandError> {
    let mut of_database = args.of_database;
    if args.from_status {
        let status = of_database.get().await?.status.unwrap_or_default();
        return of_database.command.print_listed(&status.blast_radius);
    }
    let settings = of_database.settings().await?;
    blast_radius::run(of_database.command.of(settings)).await
}

/// Whether the program was started as the plugin, or to complete its arguments: then it ran.
pub(super) async fn run() -> Option<Result<ExitCode, CommandError>> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    let name = Path::new(&program).file_name()?.to_string_lossy().into_owned();
    if name == COMPLETER {
        let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
        return Some(complete::kubectl(&Plugin::command(), &words));
    }
    if name != PLUGIN {
        return None;
    }
    Some(match Plugin::parse().command {
        Command::Status(args) => status::run(args).await,
        Command::Exempt(args) => exempt::run(args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::Adopt(args) => adopt::run(args).await,
        Command::Restore(args) => restore::run(args).await,
        Command::Undo(mut args) => match args.settings().await {
            Ok(settings) => undo::run(args.command.of(settings)).await,
            Err(error) => Err(error),
        },
        Command::Rehearse(mut args) => match args.settings().await {
            Ok(settings) => rehearse::run(args.command.of(settings)).await,
            Err(error) => Err(error),
        },
        Command::BlastRadius(args) => run_blast_radius(args).await,
        Command::Completion(args) => Ok(complete::script(&args, &mut Plugin::command(), PLUGIN)),
    })
}
