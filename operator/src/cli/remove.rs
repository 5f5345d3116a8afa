//! `pgrail remove`: takes guards off a database.

use super::apply::print_unfinished;
use super::connect::DatabaseArgs;
use super::manifests::{self, ManifestArgs};
use super::output;
use super::{CommandError, NOT_AS_DECLARED, OWNER, PAUSE, TRIES, exemptions};
use pgrail_guard::{GuardName, Observed, Plan};
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio_postgres::Client;

/// Options of `pgrail remove`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail remove --all --database-url postgres://pgrail@localhost/shop")]
pub(super) struct RemoveArgs {
    /// Manifests of the guards to take off
    #[arg(short = 'f', long = "filename", value_name = "PATH", required_unless_present = "all")]
    filenames: Vec<std::path::PathBuf>,
    /// Take every guard off that is in the database
    #[arg(long, conflicts_with = "filenames")]
    all: bool,
    /// Also guards that a cluster's operator manages (it would put them back)
    #[arg(long)]
    take_over: bool,
    /// Do not ask before everything, or the last guard with captured rows, is removed
    #[arg(short = 'y', long)]
    yes: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl RemoveArgs {
    fn manifests(&self) -> ManifestArgs {
        ManifestArgs { filenames: self.filenames.clone() }
    }
}

/// Takes guards off.
pub(super) async fn remove(args: RemoveArgs) -> Result<ExitCode, CommandError> {
    let named = if args.all { manifests::Manifests::default() } else { manifests::read(&args.manifests())? };
    let mut client = args.database.connect().await?;
    let observed = pgrail_guard::observe(&client).await?;
    if observed.live.schema_owner.is_none() {
        println!("nothing of pgrail is in this database");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(owner) = observed.owner().filter(|owner| *owner != OWNER && !args.take_over) {
        return Err(CommandError::Refused(format!(
            "the guards in this database are managed by the cluster {owner}: delete its TableGuards, or give --take-over"
        )));
    }
    if args.all {
        let guards = observed.guards();
        let names: Vec<&str> = guards.iter().map(GuardName::as_str).collect();
        let which = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let kept = captured(&client).await?;
        confirm(args.yes, &format!("Everything of pgrail is removed from this database{which}{kept}."))?;
        let removed = remove_until_empty(&mut client, "everything", pgrail_guard::plan_uninstall).await?;
        return Ok(if removed { ExitCode::SUCCESS } else { NOT_AS_DECLARED.into() });
    }
    let mut left = false;
    for exemption in &named.exemptions {
        left |= exemptions::remove(&mut client, exemption).await? != ExitCode::SUCCESS;
    }
    for name in named.guards.iter().map(|guard| &guard.spec.name) {
        let kept = captured(&client).await?;
        if !kept.is_empty() && pgrail_guard::observe(&client).await?.guards() == [name.clone()] {
            confirm(args.yes, &format!("{name} is the last guard of this database: it is removed{kept}."))?;
        }
        let plan = |observed: &Observed| pgrail_guard::plan_removal(name, observed);
        left |= !remove_until_empty(&mut client, name.as_str(), plan).await?;
    }
    Ok(if left { NOT_AS_DECLARED.into() } else { ExitCode::SUCCESS })
}

/// What would be lost with the last guard; empty where nothing was captured.
async fn captured(client: &Client) -> Result<String, CommandError> {
    let rows = pgrail_guard::captured_rows(client).await?.unwrap_or(0);
    let lost = format!(", and {} captured rows, which `pgrail undo` could put back, with it", output::thousands(rows));
    Ok(if rows > 0 { lost } else { String::new() })
}

/// Asks a person; refuses where there is none.
fn confirm(yes: bool, what: &str) -> Result<(), CommandError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::Refused(format!("{what} Give --yes to do it without being asked")));
    }
    eprint!("{what} Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError::Refused("nothing was removed".to_owned())),
    }
}

/// Runs the plan of a removal until nothing is left to do, as long as waiting can help. What is left is what is found in the
/// database, not what was configured.
async fn remove_until_empty(
    client: &mut Client,
    what: &str,
    plan: impl Fn(&Observed) -> Plan,
) -> Result<bool, CommandError> {
    let kept = pgrail_guard::captured_rows(client).await?.unwrap_or(0);
    for attempt in 0..=TRIES {
        let observed = pgrail_guard::observe(client).await?;
        let plan = plan(&observed);
        if plan.is_empty() {
            println!("{what}: removed");
            if kept > 0 && observed.live.schema_owner.is_none() {
                println!("{} captured rows were removed with the last guard", output::thousands(kept));
            }
            return Ok(true);
        }
        if attempt == TRIES {
            break;
        }
        let applied = match pgrail_guard::apply(client, &plan).await {
            Ok(applied) => applied,
            Err(error @ pgrail_guard::ApplyError::Busy) => {
                eprintln!("pgrail: {what}: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        print_unfinished(what, &applied);
        if applied.waits() {
            tokio::time::sleep(PAUSE).await;
        } else if !applied.is_complete() {
            break;
        }
    }
    eprintln!("pgrail: {what}: not removed: a part of it is still in the database; run the command again");
    Ok(false)
}
