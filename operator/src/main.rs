//! The one binary of pgrail: the operator, the agent that its Job pods run, and the command line.

mod agent;
mod backup_schedule;
mod cli;
mod database;
mod database_backup;
mod guard_exemption;
mod kubernetes;
mod not_implemented;
mod operator;
mod protected_database;
mod table_guard;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run().await
}
