//! `pgrail apply`: the same steps as the controller's, without a cluster.

use super::connect::DatabaseArgs;
use super::manifests::{self, DeclaredGuard, ManifestArgs};
use super::output::{self, Format};
use super::{CommandError, NOT_AS_DECLARED, OWNER, PAUSE, TRIES, exemptions};
use crate::controllers::table_guard::apply::Outcome;
use crate::controllers::table_guard::report::report;
use crate::controllers::table_guard::state::{GuardState, Recheck};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::conditions::{DROP_PROTECTED, TAMPER_RESISTANT};
use pgrail_crds::{GuardExemption, TableGuard, TableGuardStatus, TableState};
use pgrail_guard::{Applied, Progress};
use std::process::ExitCode;

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

/// Installs guards, gives exemptions, and prints how they stand.
pub(super) async fn apply(args: ApplyArgs) -> Result<ExitCode, CommandError> {
    let manifests::Manifests { mut guards, mut exemptions } = manifests::read(&args.manifests)?;
    let mut client = args.database.connect().await?;
    let mut declared = true;
    for DeclaredGuard { object, spec } in &mut guards {
        let mut ensured = pgrail_guard::ensure(&mut client, spec).await?;
        for _ in 1..TRIES {
            if !ensured.waits() {
                break;
            }
            print_problems(spec.name.as_str(), &ensured.progress);
            tokio::time::sleep(PAUSE).await;
            ensured = pgrail_guard::ensure(&mut client, spec).await?;
        }
        print_problems(spec.name.as_str(), &ensured.progress);
        let state = GuardState::new(ensured, false, Recheck::Never);
        declared &= state.is_enforced();
        let mut status = report(object, &Outcome::Checked(Box::new(state)), Timestamp::now());
        name_missing(&mut status);
        object.status = Some(status);
    }
    // Without a cluster nobody else does it.
    pgrail_guard::prune(&client, OWNER).await?;
    for exemption in &mut exemptions {
        declared &= exemptions::apply(&mut client, exemption, Timestamp::now()).await?;
    }
    let guards: Vec<TableGuard> = guards.into_iter().map(|it| it.object).collect();
    print_objects(&guards, &exemptions, args.output)?;
    Ok(if declared { ExitCode::SUCCESS } else { NOT_AS_DECLARED.into() })
}

/// An operator guards a table as soon as it is created. Here nobody does.
fn name_missing(status: &mut TableGuardStatus) {
    for table in status.tables.iter_mut().filter(|table| table.state == TableState::Missing) {
        "no such table. Without an operator, nothing guards it when it is created: run `pgrail apply` again then"
            .clone_into(&mut table.message);
    }
}

/// What could not be done, and why, on stderr.
fn print_problems(name: &str, progress: &Progress) {
    match progress {
        Progress::UpToDate => {}
        Progress::Busy => eprintln!("pgrail: {name}: another session is changing the guards of this database"),
        Progress::Applied { applied, .. } => print_unfinished(name, applied),
    }
}

pub(super) fn print_unfinished(name: &str, applied: &Applied) {
    for (table, outcome) in applied.unfinished() {
        if let Some(problem) = outcome.problem() {
            eprintln!("pgrail: {name}: {}: {problem}", table.unwrap_or("schema pgrail"));
        }
    }
}

pub(super) fn print_objects(
    guards: &[TableGuard],
    exemptions: &[GuardExemption],
    format: Format,
) -> Result<(), CommandError> {
    let values = guards.iter().map(serde_json::to_value).chain(exemptions.iter().map(serde_json::to_value));
    if output::objects(&values.collect::<Result<Vec<_>, _>>()?, format)? {
        return Ok(());
    }
    if !guards.is_empty() {
        let wide = format == Format::Wide;
        let mut header = vec!["GUARD", "TABLE", "STATE", "CLOSURE", "ROWS AT RISK", "BLOCKED"];
        header.extend(wide.then_some(["MODE", "DROP PROTECTED", "TAMPER RESISTANT"]).into_iter().flatten());
        header.push("MESSAGE");
        output::table(&header, guards.iter().flat_map(|guard| rows(guard, wide)).collect())?;
    }
    exemptions::print(exemptions)
}

fn rows(guard: &TableGuard, wide: bool) -> Vec<Vec<String>> {
    let condition = |kind: &str| {
        let conditions = guard.status.iter().flat_map(|status| &status.conditions);
        let found = conditions.filter(|it| it.type_ == kind).map(|it| format!("{} ({})", it.status, it.reason)).next();
        found.unwrap_or_default()
    };
    let of_guard = [format!("{:?}", guard.spec.mode), condition(DROP_PROTECTED), condition(TAMPER_RESISTANT)];
    let name = format!("{}/{}", guard.namespace().unwrap_or_default(), guard.name_any());
    let tables = guard.status.iter().flat_map(|status| &status.tables);
    tables
        .map(|table| {
            let mut row = vec![
                name.clone(),
                table.table.clone(),
                state(table.state).to_owned(),
                table.closure.to_string(),
                output::thousands(table.rows_at_risk),
                table.blocked_attempts.to_string(),
            ];
            row.extend(wide.then(|| of_guard.clone()).into_iter().flatten());
            row.push(table.message.clone());
            row
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
