//! `pgrail plan`: what `apply` would change, as a list, with the SQL where that is asked for.

use super::connect::DatabaseArgs;
use super::manifests::{self, ManifestArgs};
use super::planned::{Planned, print};
use super::{CommandError, NOT_AS_DECLARED, exemptions};
use jiff::Timestamp;
use std::io::Write;
use std::process::ExitCode;

/// Options of `pgrail plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail plan -f guards/ --database-url-file ~/.shop-url")]
pub(super) struct PlanArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Show the SQL of every step, too
    #[arg(long)]
    sql: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: PlanFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum PlanFormat {
    /// One line for each change
    #[default]
    Table,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// Shows what `apply` would do.
pub(super) async fn run(args: PlanArgs) -> Result<ExitCode, CommandError> {
    let manifests = manifests::read(&args.manifests)?;
    let client = args.database.connect().await?;
    let observed = pgrail_guard::observe(&client).await?;
    let mut all = Vec::new();
    for guard in &manifests.guards {
        let plan = pgrail_guard::plan(&guard.spec, &observed)?;
        all.push(Planned::new("TableGuard", guard.spec.name.as_str()).with(&plan, args.sql));
    }
    for exemption in &manifests.exemptions {
        all.push(exemptions::plan(exemption, &observed, args.sql, Timestamp::now())?);
    }
    let mut out = std::io::stdout().lock();
    match args.output {
        PlanFormat::Table => print(&mut out, &all, args.sql)?,
        PlanFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?,
        PlanFormat::Yaml => write!(out, "{}", serde_norway::to_string(&all)?)?,
    }
    Ok(if all.iter().any(Planned::is_anything) { NOT_AS_DECLARED.into() } else { ExitCode::SUCCESS })
}
