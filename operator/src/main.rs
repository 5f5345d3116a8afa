//! The one binary of pgrail: the operator, the agent that its Job pods run, and the command line.

mod agent;
mod allowed_stores;
mod backup_jobs;
mod cli;
mod clock;
mod context;
mod controllers;
mod database;
mod kubernetes;
mod metrics;
mod mutex;
mod operator;
mod secret;
mod settings;
mod signals;
mod version;

use std::process::ExitCode;

/// The system's allocator keeps what reconciles needed at the peak. With a hundred databases, the operator had
/// 60 MiB at rest with it, and 31 MiB with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run().await
}
