//! What is installed in a database: the guards as they can be read there, without their declarations.

use tokio_postgres::Client;

use crate::catalog::Catalog;
use crate::configuration::{Assignment, Configuration, GuardRow};
use crate::ensure::{Ensured, Progress};
use crate::light_check::light_check;
use crate::observe::{ObserveError, observe};
use crate::planner::planned;
use crate::spec::{
    Allowance, ClusterId, GuardName, GuardSpec, Mode, PartialLimits, Protect, SpecError, TableLimits, TableSelector,
};
use crate::tamper;

/// What of pgrail's is in a database.
#[derive(Debug)]
pub enum Installed {
    /// Nothing.
    Nothing,
    /// A schema without a readable configuration: what an interrupted installation or removal left.
    Part {
        /// The tables that have a trigger of pgrail.
        tables: Vec<String>,
    },
    /// Guards.
    Guards {
        /// Who manages them.
        owner: String,
        /// Version of our schema.
        schema_version: i32,
        /// When it was first installed, as RFC 3339 text.
        since: Option<String>,
        /// Each guard, with exactly the tables that it holds, and how it stands.
        guards: Vec<(GuardSpec, Ensured)>,
    },
}

/// Reads what is installed. Changes nothing, and works on a standby too.
pub async fn installed(client: &Client) -> Result<Installed, ObserveError> {
    let fingerprint = light_check(client).await?;
    let observed = observe(client).await?;
    if observed.live.schema_owner.is_none() {
        return Ok(Installed::Nothing);
    }
    let Some(recorded) = &observed.recorded else {
        let mut tables: Vec<_> =
            observed.live.triggers.iter().map(|trigger| observed.catalog.label(trigger.rel)).collect();
        tables.dedup();
        return Ok(Installed::Part { tables });
    };
    let mut guards = Vec::new();
    for row in &recorded.configuration.guards {
        // Names that pgrail did not write are not shown.
        let Ok(spec) = declared(row, &recorded.configuration, &observed.catalog) else { continue };
        let plan = planned(&spec, &observed);
        let tables: Vec<_> = plan.tables().iter().filter_map(|table| table.oid).collect();
        let tamper = tamper::read(client, &tables).await;
        let (observed, fingerprint) = (observed.clone(), fingerprint.clone());
        guards.push((spec, Ensured { observed, plan, tamper, progress: Progress::UpToDate, fingerprint }));
    }
    Ok(Installed::Guards {
        owner: recorded.configuration.owner.clone(),
        schema_version: recorded.schema_version,
        since: recorded.installed_at.clone(),
        guards,
    })
}

/// A spec that declares what is installed. Globs are not recorded: each table stands in it by its name.
fn declared(row: &GuardRow, configuration: &Configuration, catalog: &Catalog) -> Result<GuardSpec, SpecError> {
    let held: Vec<&Assignment> = configuration.assignments.iter().filter(|held| held.guard == row.id).collect();
    let mut selectors = Vec::new();
    for assignment in &held {
        let Some(relation) = configuration.relation(assignment.root) else { continue };
        let found = catalog.table(relation.rel).filter(|table| table.label() == relation.label);
        let (schema, name) = match found {
            Some(table) => (table.schema.as_str(), table.name.as_str()),
            None => relation.label.split_once('.').unwrap_or(("", &relation.label)),
        };
        selectors.push(TableSelector::new(schema, name, Vec::new(), limits(assignment))?);
    }
    let mut spec =
        GuardSpec::new(GuardName::new(row.name.as_str())?, ClusterId::new(configuration.owner.as_str())?, selectors);
    spec.mode = if row.enforce { Mode::Enforce } else { Mode::Warn };
    spec.capture = row.capture;
    spec.protect = held.first().map_or_else(Protect::default, |held| protect(held));
    spec.limits = TableLimits::default();
    let declares = |it: &&crate::configuration::AllowanceRow| it.exemption.is_none() && it.guards.contains(&row.id);
    spec.allowances = configuration
        .allowances
        .iter()
        .filter(declares)
        .map(|it| Allowance { role: it.role.clone(), limits: it.limits, operations: it.operations.clone() })
        .collect();
    Ok(spec)
}

fn limits(held: &Assignment) -> PartialLimits {
    PartialLimits {
        max_rows: Some(held.max_rows),
        max_cascade_rows: Some(held.max_cascade_rows),
        max_transaction_rows: held.max_transaction_rows,
        max_updated_rows: held.max_updated_rows,
        window: held.window,
    }
}

fn protect(held: &Assignment) -> Protect {
    Protect {
        delete: held.protect_delete,
        truncate: held.protect_truncate,
        drop: held.protect_drop,
        drop_partition: held.protect_drop_partition,
        drop_column: held.protect_drop_column,
    }
}
