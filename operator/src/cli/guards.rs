//! `pgrail plan`, `pgrail apply` and `pgrail remove`: the same steps as the controller's, without a cluster.

use super::connect::DatabaseArgs;
use super::manifests::{self, ManifestArgs};
use super::output::{self, Format};
use super::{CommandError, NOT_AS_DECLARED, OWNER, exemptions};
use crate::controllers::table_guard::apply::Outcome;
use crate::controllers::table_guard::report::report;
use crate::controllers::table_guard::state::GuardState;
use crate::controllers::table_guard::validate::validate;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{GuardExemption, TableGuard, TableState};
use pgrail_guard::{Applied, GuardName, Observed, Plan, Progress};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tokio_postgres::Client;

/// How often a table that is locked is tried again, and how long that is waited for in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// Options of `pgrail plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail plan -f guards/ --database-url-file ~/.shop-url")]
pub(super) struct PlanArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Options of `pgrail apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail apply -f guard.yaml --database-url postgres://pgrail@localhost/shop")]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print the result
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

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
    #[command(flatten)]
    database: DatabaseArgs,
}

impl RemoveArgs {
    fn manifests(&self) -> ManifestArgs {
        ManifestArgs { filenames: self.filenames.clone() }
    }
}

/// Shows what `apply` would do.
pub(super) async fn plan(args: PlanArgs) -> Result<ExitCode, CommandError> {
    let manifests = manifests::read(&args.manifests)?;
    let specs = manifests.guards.iter().map(|guard| validate(guard, OWNER)).collect::<Result<Vec<_>, _>>()?;
    let client = args.database.connect().await?;
    let observed = pgrail_guard::observe(&client).await?;
    let mut anything = false;
    let mut out = std::io::stdout().lock();
    for spec in &specs {
        let plan = pgrail_guard::plan(spec, &observed)?;
        anything |= !plan.is_empty();
        print_plan(&mut out, &spec.name, &plan)?;
    }
    for exemption in &manifests.exemptions {
        anything |= exemptions::plan(&mut out, exemption, &observed, Timestamp::now())?;
    }
    Ok(if anything { NOT_AS_DECLARED.into() } else { ExitCode::SUCCESS })
}

fn print_plan(out: &mut impl Write, name: &GuardName, plan: &Plan) -> std::io::Result<()> {
    for table in plan.missing() {
        writeln!(out, "-- {name}: no such table: {table}")?;
    }
    for refused in plan.refused() {
        writeln!(out, "-- {name}: {} cannot be guarded: {}", refused.table, refused.reason)?;
    }
    for drift in plan.drift() {
        writeln!(out, "-- {name}: drifted: {drift}")?;
    }
    if plan.is_empty() {
        return writeln!(out, "-- {name}: nothing to do");
    }
    writeln!(out, "-- {name}: {} steps, each a transaction of its own", plan.steps().len())?;
    for sql in plan.sql() {
        writeln!(out, "{sql}\n")?;
    }
    Ok(())
}

/// Installs guards, gives exemptions, and prints how they stand.
pub(super) async fn apply(args: ApplyArgs) -> Result<ExitCode, CommandError> {
    let manifests::Manifests { mut guards, mut exemptions } = manifests::read(&args.manifests)?;
    let mut client = args.database.connect().await?;
    let mut declared = true;
    for guard in &mut guards {
        let spec = validate(guard, OWNER)?;
        let mut ensured = pgrail_guard::ensure(&mut client, &spec).await?;
        for _ in 1..TRIES {
            if !ensured.waits() {
                break;
            }
            print_problems(spec.name.as_str(), &ensured.progress);
            tokio::time::sleep(PAUSE).await;
            ensured = pgrail_guard::ensure(&mut client, &spec).await?;
        }
        print_problems(spec.name.as_str(), &ensured.progress);
        let state = GuardState::new(ensured, false);
        declared &= state.is_enforced();
        guard.status = Some(report(guard, &Outcome::Checked(Box::new(state)), Timestamp::now()));
    }
    // Without a cluster nobody else does it.
    pgrail_guard::prune(&client, OWNER).await?;
    for exemption in &mut exemptions {
        declared &= exemptions::apply(&mut client, exemption, Timestamp::now()).await?;
    }
    print_objects(&guards, &exemptions, args.output)?;
    Ok(if declared { ExitCode::SUCCESS } else { NOT_AS_DECLARED.into() })
}

/// What could not be done, and why, on stderr.
fn print_problems(name: &str, progress: &Progress) {
    match progress {
        Progress::UpToDate => {}
        Progress::Busy => eprintln!("pgrail: {name}: another session is changing the guards of this database"),
        Progress::Applied { applied, .. } => print_unfinished(name, applied),
    }
}

fn print_unfinished(name: &str, applied: &Applied) {
    for (table, outcome) in applied.unfinished() {
        if let Some(problem) = outcome.problem() {
            eprintln!("pgrail: {name}: {}: {problem}", table.unwrap_or("schema pgrail"));
        }
    }
}

fn print_objects(guards: &[TableGuard], exemptions: &[GuardExemption], format: Format) -> Result<(), CommandError> {
    let values = guards.iter().map(serde_json::to_value).chain(exemptions.iter().map(serde_json::to_value));
    if output::objects(&values.collect::<Result<Vec<_>, _>>()?, format)? {
        return Ok(());
    }
    if !guards.is_empty() {
        let header = ["GUARD", "TABLE", "STATE", "CLOSURE", "ROWS AT RISK", "BLOCKED", "MESSAGE"];
        output::table(&header, guards.iter().flat_map(rows).collect())?;
    }
    exemptions::print(exemptions)
}

fn rows(guard: &TableGuard) -> Vec<Vec<String>> {
    let name = format!("{}/{}", guard.namespace().unwrap_or_default(), guard.name_any());
    let tables = guard.status.iter().flat_map(|status| &status.tables);
    tables
        .map(|table| {
            vec![
                name.clone(),
                table.table.clone(),
                state(table.state).to_owned(),
                table.closure.to_string(),
                output::thousands(table.rows_at_risk),
                table.blocked_attempts.to_string(),
                table.message.clone(),
            ]
        })
        .collect()
}

fn state(state: TableState) -> &'static str {
    match state {
        TableState::Enforced => "Enforced",
        TableState::Pending => "Pending",
        TableState::Renamed => "Renamed",
        TableState::Drifted => "Drifted",
        TableState::Degraded => "Degraded",
        TableState::Missing => "Missing",
        TableState::Failed => "Failed",
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
        let removed = remove_until_empty(&mut client, "everything", pgrail_guard::plan_uninstall).await?;
        return Ok(if removed { ExitCode::SUCCESS } else { NOT_AS_DECLARED.into() });
    }
    let mut left = false;
    for exemption in &named.exemptions {
        left |= exemptions::remove(&mut client, exemption).await? != ExitCode::SUCCESS;
    }
    for name in names(&named.guards)? {
        let plan = |observed: &Observed| pgrail_guard::plan_removal(&name, observed);
        left |= !remove_until_empty(&mut client, name.as_str(), plan).await?;
    }
    Ok(if left { NOT_AS_DECLARED.into() } else { ExitCode::SUCCESS })
}

fn names(guards: &[TableGuard]) -> Result<Vec<GuardName>, CommandError> {
    guards.iter().map(|guard| Ok(validate(guard, OWNER)?.name)).collect()
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
