//! `pgrail status`: what is installed in a database, without manifests.

use super::apply::print_objects;
use super::connect::DatabaseArgs;
use super::output::{self, Format};
use super::{CommandError, NOT_AS_DECLARED, OWNER};
use crate::controllers::table_guard::apply::Outcome;
use crate::controllers::table_guard::report::report;
use crate::controllers::table_guard::state::{GuardState, Recheck};
use crate::database::DatabaseError;
use jiff::Timestamp;
use pgrail_crds::TableGuard;
use pgrail_guard::{
    Allowance, GuardSpec, Installed, Mode, PartialLimits, Protect, Window, WindowUse, database_protection, windows,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Options of `pgrail status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgrail status --database-url-file ~/.shop-url\n  pgrail status -o yaml > guards.yaml   # the installed guards as manifests"
)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,
}

/// Shows what is installed. Exit status 2: not all of it is as it was installed.
pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, CommandError> {
    let client = args.database.connect().await?;
    let people = matches!(args.output, Format::Table | Format::Wide);
    let (owner, schema_version, since, guards) = match pgrail_guard::installed(&client).await? {
        Installed::Nothing => {
            if people {
                println!("nothing of pgrail is in this database");
            } else {
                print_objects(&[], &[], args.output)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Installed::Part { tables } => {
            let on = if tables.is_empty() { "no table".to_owned() } else { tables.join(", ") };
            return Err(CommandError::Refused(format!(
                "an interrupted installation or removal left a part of pgrail in this database (triggers on {on}): \
                 `pgrail apply` completes it, `pgrail remove --all` removes it"
            )));
        }
        Installed::Guards { owner, schema_version, since, guards } => (owner, schema_version, since, guards),
    };
    let row = client.query_one("SELECT pg_catalog.current_database()", &[]).await;
    let database: String =
        row.and_then(|row| row.try_get(0)).map_err(|error| CommandError::Database(DatabaseError::lost(&error)))?;
    let mut as_installed = true;
    let (mut objects, mut used) = (Vec::new(), Vec::new());
    for (spec, ensured) in guards {
        let of_guard = if spec.selectors.iter().any(|it| it.limits.window.is_some()) {
            windows(&client, Some(&spec.name)).await?
        } else {
            Vec::new()
        };
        used.extend(of_guard.iter().cloned());
        let state = GuardState::new(ensured, true, if owner == OWNER { Recheck::Never } else { Recheck::Unknown });
        let state = state.showing(of_guard);
        as_installed &= state.is_enforced();
        let mut guard: TableGuard = serde_json::from_value(manifest(&spec, &database))?;
        guard.status = Some(report(&guard, &Outcome::Checked(Box::new(state)), Timestamp::now()));
        objects.push(guard);
    }
    if people {
        let by =
            if owner == OWNER { "the command line".to_owned() } else { format!("the operator of the cluster {owner}") };
        let since = since.unwrap_or_else(|| "a time that is not recorded".to_owned());
        println!("database {database}: managed by {by}, installed since {since}, schema version {schema_version}");
        let protection = database_protection(&client).await;
        let protection = protection.map_err(|error| CommandError::Database(DatabaseError::lost(&error)))?;
        let drop = if protection.is_template { "refused, since it is a template database" } else { "not refused" };
        println!("DROP DATABASE: {drop}\n");
    }
    print_objects(&objects, &[], args.output)?;
    if people && !used.is_empty() {
        println!("\nremoved by all transactions together, within a window:");
        output::table(&["GUARD", "TABLE", "WINDOW", "ROWS", "CASCADE ROWS"], used.iter().map(window).collect())?;
    }
    Ok(if as_installed { ExitCode::SUCCESS } else { NOT_AS_DECLARED.into() })
}

fn window(it: &WindowUse) -> Vec<String> {
    let of = |rows: Option<(i64, i64)>| {
        rows.map_or_else(
            || "not limited".to_owned(),
            |(removed, limit)| format!("{} of {}", output::thousands(removed), output::thousands(limit)),
        )
    };
    vec![it.guard.clone(), it.table.clone(), format!("{} s", it.seconds), of(it.rows), of(it.cascade_rows)]
}

/// The manifest that declares an installed guard: each table by its name, with its limits.
fn manifest(spec: &GuardSpec, database: &str) -> Value {
    let GuardSpec { name, mode, selectors, protect, allowances, capture, .. } = spec;
    let (namespace, name) = name.as_str().split_once('/').unwrap_or(("default", name.as_str()));
    let tables = selectors.iter().map(|it| json!({"schema": it.schema, "name": it.name, "limits": limits(it.limits)}));
    let Protect { delete, truncate, drop, drop_partition, drop_column } = *protect;
    let protect = [
        (delete, "Delete"),
        (truncate, "Truncate"),
        (drop, "Drop"),
        (drop_partition, "DropPartition"),
        (drop_column, "DropColumn"),
    ];
    let mut manifest = json!({
        "apiVersion": "pgrail.dev/v1alpha1",
        "kind": "TableGuard",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "databaseRef": {"name": database},
            "mode": match mode { Mode::Enforce => "Enforce", Mode::Warn => "Warn" },
            "tables": tables.collect::<Vec<_>>(),
            "protect": protect.iter().filter(|(on, _)| *on).map(|(_, what)| what).collect::<Vec<_>>(),
            "allowances": allowances.iter().map(allowance).collect::<Vec<_>>(),
        },
    });
    if let Some(capture) = capture {
        manifest["spec"]["capture"] =
            json!({"retention": format!("{}s", capture.retention), "maxRows": capture.max_rows});
    }
    manifest
}

fn limits(limits: PartialLimits) -> Value {
    let PartialLimits { max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows, window } = limits;
    let fields = [
        ("maxRows", max_rows),
        ("maxCascadeRows", max_cascade_rows),
        ("maxTransactionRows", max_transaction_rows),
        ("maxUpdatedRows", max_updated_rows),
    ];
    let mut fields: serde_json::Map<String, Value> =
        fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), json!(value?)))).collect();
    if let Some(Window { duration, max_rows, max_cascade_rows }) = window {
        let limits = [("maxRows", max_rows), ("maxCascadeRows", max_cascade_rows)];
        let limits = limits.into_iter().filter_map(|(field, value)| Some((field.to_owned(), json!(value?))));
        let duration = ("duration".to_owned(), json!(format!("{duration}s")));
        fields.insert("window".to_owned(), limits.chain([duration]).collect());
    }
    fields.into()
}

fn allowance(it: &Allowance) -> Value {
    json!({"role": it.role, "limits": limits(it.limits), "operations": it.operations})
}
