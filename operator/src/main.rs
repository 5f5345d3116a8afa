//! The one binary of pgrail: the operator, the agent that its Job pods run, and the command line.

mod agent;
mod backup_jobs;
mod cli;
mod context;
mod controllers;
mod database;
mod kubernetes;
mod metrics;
mod operator;
mod secret;
mod settings;
mod signals;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run().await
}
