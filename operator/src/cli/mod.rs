//! The command line. One file per command.

mod crds;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Database guardrails on PostgreSQL: bulk deletes stopped, backups proven.
#[derive(Debug, Parser)]
#[command(name = "pgrail", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers (in a cluster)
    Operator(crate::operator::OperatorArgs),
    /// Print the CRDs
    Crds(crds::CrdsArgs),
}

/// Reads the arguments and does what they say. Exit status 0: success, 1: failure, 2: not as declared.
pub(crate) async fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Operator(args) => {
            log_as_json();
            crate::operator::run(args).await
        }
        Command::Crds(args) => crds::run(&args),
    }
}

fn log_as_json() {
    let filter = EnvFilter::try_from_env("PGRAIL_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
}
