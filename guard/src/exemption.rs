//! Exemptions: granted, revoked, and what they were used for. The database decides by its own clock.

use std::collections::BTreeSet;

use thiserror::Error;
use tokio_postgres::Client;

use crate::complete;
use crate::configuration::{AllowanceRow, Configuration};
use crate::desired::Numbers;
use crate::observe::{ObserveError, Observed};
use crate::plan::Plan;
use crate::planner::{self, PlanError};
use crate::spec::{ClusterId, GuardName, Operation, PartialLimits};
use crate::steps::difference;

/// One exemption, as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemptionSpec {
    /// Its name, `namespace/name`.
    pub name: GuardName,
    /// Which object of that name: another one starts with nothing used.
    pub object: String,
    /// Who manages pgrail's schema there.
    pub owner: ClusterId,
    /// The guards that it lifts.
    pub guards: Vec<GuardName>,
    /// The login role.
    pub role: String,
    /// Schema and name of the tables it is for; empty: every table of the guards.
    pub tables: Vec<(String, String)>,
    /// What holds in place of the guards' limits.
    pub limits: PartialLimits,
    /// No limits at all.
    pub unlimited: bool,
    /// Rows over its whole life.
    pub total_rows: Option<i64>,
    /// For what.
    pub operations: Vec<Operation>,
    /// Seconds since 1970 from which on it holds.
    pub not_before: Option<i64>,
    /// Seconds since 1970 up to which it holds.
    pub not_after: i64,
}

/// Why an exemption cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExemptionError {
    /// Nothing can be changed in this database.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A guard is not installed.
    #[error("the guard {guard} is not in the database")]
    GuardMissing {
        /// Its name.
        guard: GuardName,
    },
    /// A table is not among those of the guards.
    #[error("{table} is not a table of these guards")]
    TableNotGuarded {
        /// `schema.table`
        table: String,
    },
}

/// What has to be done so that the exemption is in the database.
pub fn plan_exemption(spec: &ExemptionSpec, observed: &Observed) -> Result<Plan, ExemptionError> {
    planner::changeable(&spec.owner, false, observed)?;
    let empty = Configuration::default();
    let known = observed.recorded.as_ref().map_or(&empty, |recorded| &recorded.configuration);
    let mut guards = BTreeSet::new();
    for guard in &spec.guards {
        let id = known.guard_id(guard).ok_or_else(|| ExemptionError::GuardMissing { guard: guard.clone() })?;
        guards.insert(id);
    }
    let held = |root: i32| known.assignments.iter().any(|held| held.root == root && guards.contains(&held.guard));
    let mut roots = BTreeSet::new();
    for (schema, name) in &spec.tables {
        let table = observed.catalog.table_named(schema, name).and_then(|table| known.relation_of(table.oid));
        let root = table.map(|relation| relation.id).filter(|root| held(*root));
        roots.insert(root.ok_or_else(|| ExemptionError::TableNotGuarded { table: format!("{schema}.{name}") })?);
    }
    let mut numbers = planner::numbers(observed);
    let mut configuration = known.clone();
    let name = Some(spec.name.as_str().to_owned());
    let object = Some(spec.object.clone());
    let same = configuration.allowances.iter().find(|row| row.exemption == name && row.object == object);
    let id = same.map_or_else(|| Numbers::next(&mut numbers.allowance), |row| row.id);
    configuration.allowances.retain(|row| row.exemption != name);
    configuration.allowances.push(AllowanceRow {
        id,
        guards,
        exemption: name,
        object,
        role: spec.role.clone(),
        operations: spec.operations.clone(),
        roots: (!spec.tables.is_empty()).then_some(roots),
        unlimited: spec.unlimited,
        limits: spec.limits,
        not_before: spec.not_before,
        not_after: Some(spec.not_after),
        total_rows: spec.total_rows,
    });
    Ok(change(configuration, &mut numbers, observed))
}

/// What has to be done so that nothing of the exemption is left.
pub fn plan_revocation(name: &GuardName, observed: &Observed) -> Plan {
    let Some(recorded) = &observed.recorded else { return Plan::empty() };
    let mut configuration = recorded.configuration.clone();
    let before = configuration.allowances.len();
    configuration.allowances.retain(|row| row.exemption.as_deref() != Some(name.as_str()));
    if configuration.allowances.len() == before {
        return Plan::empty();
    }
    change(configuration, &mut planner::numbers(observed), observed)
}

/// The steps to a configuration. The triggers of a table that have drifted are left to the check of its guard, which repairs and
/// reports them: until then the exemption is stricter, not looser.
fn change(configuration: Configuration, numbers: &mut Numbers, observed: &Observed) -> Plan {
    let mut plan = difference(&complete::complete(&observed.catalog, configuration, numbers), observed);
    let Plan { steps, drift, .. } = &mut plan;
    let has_drifted = |table: &str| drift.iter().any(|drift| drift.table == table);
    steps.retain(|step| !step.table.as_ref().is_some_and(|(_, table)| has_drifted(table)));
    plan
}

/// How an exemption stands, by the database's clock, and what it was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, as the query returns them")]
pub struct ExemptionUse {
    /// `namespace/name`
    pub name: String,
    /// Which object of that name.
    pub object: String,
    /// Whether it holds now.
    pub active: bool,
    /// Whether its time is over.
    pub over: bool,
    /// Whether the count of its total was lost in a crash of the server: then it counts as used up.
    pub lost: bool,
    /// Rows that went under it, in transactions that were committed.
    pub rows: i64,
    /// Statements that it allowed.
    pub statements: i64,
    /// When the last of them ran, in seconds since 1970.
    pub last_used: Option<i64>,
    /// Whether several clients are logged in as the role now, from several addresses or over many connections.
    pub shared: bool,
    /// Whether the role exists and can log in.
    pub role_can_login: bool,
}

/// Every exemption that is in the database. Fails where nothing of pgrail is installed.
pub async fn exemption_uses(client: &Client) -> Result<Vec<ExemptionUse>, ObserveError> {
    let rows = client.query(include_str!("sql/exemption_uses.sql"), &[]).await?;
    let uses = rows.iter().map(|row| {
        Ok(ExemptionUse {
            name: row.try_get("name")?,
            object: row.try_get("object")?,
            active: row.try_get("active")?,
            over: row.try_get("over")?,
            lost: row.try_get("lost")?,
            rows: row.try_get("rows")?,
            statements: row.try_get("statements")?,
            last_used: row.try_get("last_used")?,
            shared: row.try_get("shared")?,
            role_can_login: row.try_get("role_can_login")?,
        })
    });
    uses.collect()
}
