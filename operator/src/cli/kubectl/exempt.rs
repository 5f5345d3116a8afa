//! `kubectl pgrail exempt`: creates a `GuardExemption`, and waits until it is in force.

use super::cluster::ClusterArgs;
use super::follow::{FollowArgs, Progress, create_and_follow, duration};
use crate::cli::CommandError;
use crate::kubernetes::conditions::whole_seconds;
use jiff::{SignedDuration, Timestamp};
use pgrail_crds::conditions::READY;
use pgrail_crds::{
    ExemptionLimits, ExemptionPhase, GuardExemption, GuardExemptionSpec, LocalReference, Operation, RequiredBackup,
    TableName, Time,
};
use std::process::ExitCode;
use std::time::Duration;

/// Options of `kubectl pgrail exempt`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kubectl pgrail exempt core --role shop_admin --duration 30m --reason \"GDPR purge, ticket 4711\" \\\n    --table public.users --limits maxRows=50000,maxCascadeRows=2000000"
)]
pub(super) struct ExemptArgs {
    /// The TableGuards, separated by commas
    #[arg(value_name = "GUARD", value_delimiter = ',', required = true)]
    guards: Vec<String>,
    /// The login role
    #[arg(long)]
    role: String,
    /// How long, from now on
    #[arg(long, value_parser = duration)]
    duration: Duration,
    /// Why: recorded in the object and in its Events
    #[arg(long)]
    reason: String,
    /// Only for this table of the guards, schema.table (may be repeated)
    #[arg(long = "table", value_name = "TABLE", value_parser = table)]
    tables: Vec<TableName>,
    /// Limits instead of those of the guards: maxRows, maxCascadeRows, maxTransactionRows, maxUpdatedRows
    #[arg(long, value_name = "LIMIT=ROWS,…", value_parser = limits, required_unless_present = "unlimited")]
    limits: Option<ExemptionLimits>,
    /// Any number of rows, if no GuardrailPolicy forbids it
    #[arg(long, conflicts_with = "limits")]
    unlimited: bool,
    /// Rows that it allows in all
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(i64).range(1..))]
    total_rows: Option<i64>,
    /// What it allows: delete, truncate, drop, update (separated by commas)
    #[arg(long, value_delimiter = ',', default_value = "delete", value_parser = operation)]
    operations: Vec<Operation>,
    /// Only in force once a verified backup that young exists
    #[arg(long, value_name = "AGE", value_parser = duration)]
    require_backup: Option<Duration>,
    #[command(flatten)]
    follow: FollowArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// `schema.table`
pub(super) fn table(text: &str) -> Result<TableName, String> {
    match text.split_once('.') {
        Some((schema, name)) if !schema.is_empty() && !name.is_empty() => {
            Ok(TableName { schema: schema.to_owned(), name: name.to_owned() })
        }
        _ => Err("must be schema.table".to_owned()),
    }
}

fn limits(text: &str) -> Result<ExemptionLimits, String> {
    let mut limits = ExemptionLimits::default();
    for part in text.split(',') {
        let (name, rows) = part.split_once('=').ok_or("must be LIMIT=ROWS, separated by commas")?;
        let rows: i64 = rows
            .trim()
            .parse()
            .ok()
            .filter(|rows| *rows >= 0)
            .ok_or_else(|| format!("{rows:?} is no number of rows"))?;
        let limit = match name.trim() {
            "maxRows" => &mut limits.max_rows,
            "maxCascadeRows" => &mut limits.max_cascade_rows,
            "maxTransactionRows" => &mut limits.max_transaction_rows,
            "maxUpdatedRows" => &mut limits.max_updated_rows,
            other => {
                return Err(format!(
                    "{other:?} is no limit: maxRows, maxCascadeRows, maxTransactionRows, maxUpdatedRows"
                ));
            }
        };
        *limit = Some(rows);
    }
    Ok(limits)
}

fn operation(text: &str) -> Result<Operation, String> {
    match text.to_lowercase().as_str() {
        "delete" => Ok(Operation::Delete),
        "truncate" => Ok(Operation::Truncate),
        "drop" => Ok(Operation::Drop),
        "update" => Ok(Operation::Update),
        _ => Err("must be delete, truncate, drop or update".to_owned()),
    }
}

/// Creates the exemption. Exit status 0: in force; 1: rejected, or not in force in time.
pub(super) async fn run(args: ExemptArgs) -> Result<ExitCode, CommandError> {
    let (client, namespace) = args.cluster.connect().await?;
    let length = SignedDuration::try_from(args.duration).map_err(|error| CommandError::Refused(error.to_string()))?;
    let ends = Timestamp::now().checked_add(length).map_err(|error| CommandError::Refused(error.to_string()))?;
    let first = args.guards.first().cloned().unwrap_or_default();
    let spec = GuardExemptionSpec {
        guard_refs: args.guards.into_iter().map(|name| LocalReference { name }).collect(),
        role: args.role,
        tables: args.tables,
        limits: args.limits,
        unlimited: args.unlimited,
        total_rows: args.total_rows,
        operations: args.operations,
        not_before: None,
        not_after: Time(whole_seconds(ends)),
        require_backup: args.require_backup.map(|age| RequiredBackup { max_age: age.into() }),
        reason: args.reason,
        ttl_seconds_after_finished: None,
    };
    let mut exemption = GuardExemption::new("", spec);
    exemption.metadata.name = None;
    exemption.metadata.generate_name = Some(format!("{first}-"));
    let progress = |exemption: &GuardExemption| match phase(exemption) {
        None | Some(ExemptionPhase::Pending) => Progress::Running(message(exemption)),
        Some(_) => Progress::Finished,
    };
    let Some(result) = create_and_follow(&client, &namespace, &exemption, &args.follow, progress).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let is_active = phase(&result) == Some(ExemptionPhase::Active);
    println!("{}: {}", if is_active { "active" } else { "not active" }, message(&result));
    Ok(if is_active { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn phase(exemption: &GuardExemption) -> Option<ExemptionPhase> {
    exemption.status.as_ref().and_then(|status| status.phase)
}

fn message(exemption: &GuardExemption) -> String {
    let ready = exemption.status.iter().flat_map(|status| &status.conditions).find(|it| it.type_ == READY);
    ready.map_or_else(|| "waits for the operator".to_owned(), |ready| format!("{}: {}", ready.reason, ready.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_tables_are_read_as_written() {
        let read = limits("maxRows=50000,maxCascadeRows=0").unwrap();
        assert_eq!((read.max_rows, read.max_cascade_rows, read.max_transaction_rows), (Some(50_000), Some(0), None));
        for wrong in ["maxRows", "maxRows=-1", "rows=5", "maxRows=a"] {
            assert!(limits(wrong).is_err(), "{wrong}");
        }
        assert_eq!(table("public.users"), Ok(TableName { schema: "public".into(), name: "users".into() }));
        assert_eq!(table("public.a.b").unwrap().name, "a.b");
        assert!(table("users").is_err() && table(".users").is_err());
    }
}
