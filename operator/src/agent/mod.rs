//! `pgrail agent`: what the pods of backups run. It knows the database, the store and its configuration, and
//! nothing of Kubernetes: it has no token.
//!
//! Each step writes its outcome as the container's termination message (`pgrail_dump::Message`), logs its progress to
//! standard error, and ends with 0, with 1 (trying again can help) or with [`config::EXIT_NOT_RETRYABLE`].

pub(crate) mod config;
mod drill;
mod dump;
mod inventory;
mod outcome;
mod postgres;
mod progress;
mod prune;
mod restore;
pub(crate) mod run_name;
mod settings;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use outcome::finish;

/// Runs one step of a backup in a pod
///
/// Configured by the operator through PGRAIL_AGENT_CONFIG and mounted Secrets.
#[derive(Args, Debug)]
#[command(
    after_help = "Example, as the operator sets it up:\n  PGRAIL_AGENT_CONFIG='{\"identity\":…}' pgrail agent dump"
)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    step: Step,
    #[command(flatten)]
    places: Places,
}

#[derive(Subcommand, Debug, Clone, Copy)]
enum Step {
    /// Takes the dump into the store; it is not a backup before `verify`
    Dump,
    /// Reads the dump back and publishes it
    Verify,
    /// Runs the temporary PostgreSQL of drills, as soon as `verify` or `drill` needs it
    Postgres,
    /// Restores a backup into the temporary PostgreSQL, counts its rows and runs the queries
    Drill,
    /// Compares the store with the dumps that are recorded
    Inventory,
    /// Removes dumps that retention does not keep, and leftovers of failed runs
    Prune,
    /// Restores a backup into a new database, or rows of it into the tables that they came from
    Restore,
}

/// Paths and identity of the pod; the defaults are what the operator mounts.
#[derive(Args, Debug)]
struct Places {
    /// The configuration as JSON
    #[arg(long, env = config::CONFIG_VARIABLE, global = true, hide_env_values = true)]
    config: Option<String>,
    /// A file with the configuration, instead of --config
    #[arg(long, global = true, conflicts_with = "config")]
    config_file: Option<PathBuf>,
    /// The Secret with the login, one file per key
    #[arg(long, global = true, default_value = config::CONNECTION_DIRECTORY)]
    connection_directory: PathBuf,
    /// The directory with the server's CA as ca.crt
    #[arg(long, global = true, default_value = config::CA_DIRECTORY)]
    ca_directory: PathBuf,
    /// The store's Secret, one file per key
    #[arg(long, global = true, default_value = config::STORE_DIRECTORY)]
    store_directory: PathBuf,
    /// The directory with the CA of the store's endpoint as ca.crt
    #[arg(long, global = true, default_value = config::STORE_CA_DIRECTORY)]
    store_ca_directory: PathBuf,
    /// The Secret with the private keys of encrypted backups
    #[arg(long, global = true, default_value = config::IDENTITY_DIRECTORY)]
    identity_directory: PathBuf,
    /// Where the volume of file:// stores is mounted
    #[arg(long, global = true, default_value = config::VOLUME_DIRECTORY)]
    volume: PathBuf,
    /// The directory that `dump` and `verify` share
    #[arg(long, global = true, default_value = config::WORK_DIRECTORY)]
    work: PathBuf,
    /// The directory that `verify` and `postgres` share: the socket of the temporary server
    #[arg(long, global = true, default_value = config::DRILL_DIRECTORY)]
    drill: PathBuf,
    /// The data of the temporary server
    #[arg(long, global = true, default_value = config::SCRATCH_DIRECTORY)]
    scratch: PathBuf,
    /// Where the outcome is written
    #[arg(long, env = "PGRAIL_TERMINATION_LOG", global = true, default_value = "/dev/termination-log")]
    termination_log: PathBuf,
    /// The directory of pg_dump and pg_restore, if they are not in PATH
    #[arg(long, env = "PGRAIL_PG_BIN", global = true)]
    client_directory: Option<PathBuf>,
    /// The Job that the pod belongs to
    #[arg(long, env = config::JOB_VARIABLE, global = true, default_value = "")]
    job: String,
    /// The pod's UID
    #[arg(long, env = config::POD_UID_VARIABLE, global = true, default_value = "")]
    pod_uid: String,
}

pub(crate) async fn run(args: AgentArgs) -> ExitCode {
    let places = &args.places;
    let outcome = match args.step {
        Step::Dump => dump::run(places).await,
        Step::Verify => verify::run(places).await,
        Step::Postgres => return postgres::run(places).await,
        Step::Drill => drill::run(places).await,
        Step::Inventory => inventory::run(places).await,
        Step::Prune => prune::run(places).await,
        Step::Restore => restore::run(places).await,
    };
    finish(outcome, &places.termination_log).await
}
