//! From the declared and the observed state to an ordered list of steps. Pure.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::complete;
use crate::configuration::{AllowanceRow, Assignment, Configuration, GuardRow, RelationRow};
use crate::desired::{Desired, Numbers};
use crate::matching::{Matched, selector_of};
use crate::observe::Observed;
use crate::plan::{Drift, Plan, SCHEMA_VERSION};
use crate::spec::{ClusterId, GuardName, GuardSpec, Mode, SpecError};
use crate::status::statuses;
use crate::steps::{difference, everything_off};

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Another cluster manages this database.
    #[error("the guards in this database are managed by {owner}")]
    OwnedByOther {
        /// Its id.
        owner: String,
    },
    /// A newer pgrail installed our schema.
    #[error("the guards in this database have schema version {found}, this pgrail knows {known}")]
    NewerSchema {
        /// What is installed.
        found: i32,
        /// What this pgrail installs.
        known: i32,
    },
    /// The server is a standby.
    #[error("the server is a standby and cannot be written to")]
    ReadOnlyServer,
    /// The server is too old.
    #[error("PostgreSQL {found} is not supported, 15 or later is needed")]
    UnsupportedVersion {
        /// `server_version_num`
        found: i32,
    },
    /// A schema named `pgrail` exists and belongs to a role that the current one cannot act as.
    #[error("the schema pgrail belongs to {owner}, which {role} is not a member of")]
    SchemaOfOther {
        /// Its owner.
        owner: String,
        /// The current role.
        role: String,
    },
    /// What the guard captures would be published, to subscribers that have no table for it.
    #[error("deleted rows cannot be captured here: {}", crate::capture::published(.publication))]
    Published {
        /// A publication FOR ALL TABLES.
        publication: String,
    },
    /// The declaration makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// Whether anything can be changed in this database on behalf of this owner.
pub(crate) fn changeable(owner: &ClusterId, take_over: bool, observed: &Observed) -> Result<(), PlanError> {
    let live = &observed.live;
    if live.server_version_num < 150_000 {
        return Err(PlanError::UnsupportedVersion { found: live.server_version_num });
    }
    if live.in_recovery {
        return Err(PlanError::ReadOnlyServer);
    }
    if let (Some(owner), false) = (&live.schema_owner, live.schema_owned) {
        return Err(PlanError::SchemaOfOther { owner: owner.clone(), role: live.role.clone() });
    }
    if let Some(recorded) = &observed.recorded
        && recorded.schema_version > SCHEMA_VERSION
    {
        return Err(PlanError::NewerSchema { found: recorded.schema_version, known: SCHEMA_VERSION });
    }
    if let Some(found) = observed.owner().filter(|found| *found != owner.as_str() && !take_over) {
        return Err(PlanError::OwnedByOther { owner: found.to_owned() });
    }
    Ok(())
}

/// What has to be done so that the guard holds.
pub fn plan(spec: &GuardSpec, observed: &Observed) -> Result<Plan, PlanError> {
    changeable(&spec.owner, spec.take_over, observed)?;
    spec.limits.validate()?;
    for selector in &spec.selectors {
        spec.limits.overridden(&selector.limits).validate()?;
    }
    spec.capture.map_or(Ok(()), |capture| capture.validate())?;
    capturable(spec, observed)?;
    Ok(planned(spec, observed))
}

/// The same for a spec that is known to be valid, in a database that is not necessarily changed.
pub(crate) fn planned(spec: &GuardSpec, observed: &Observed) -> Plan {
    let matched = Matched::of(spec, observed);
    let mut numbers = numbers(observed);
    let configuration = assign(spec, &matched, observed, &mut numbers);
    let desired = complete::complete(&observed.catalog, configuration, &mut numbers);
    let mut plan = difference(&desired, observed);
    plan.drift.extend(recreated(spec, &matched, observed));
    plan.tables = statuses(spec, &matched, &desired, &plan, observed);
    plan.missing = matched.missing;
    plan.refused = matched.refused;
    plan
}

/// Tables that were dropped and created again under their name: what the guard had on them was dropped with them.
fn recreated(spec: &GuardSpec, matched: &Matched, observed: &Observed) -> Vec<Drift> {
    let Some(recorded) = &observed.recorded else { return Vec::new() };
    let configuration = &recorded.configuration;
    let guard = configuration.guard_id(&spec.name);
    let held = configuration.assignments.iter().filter(|held| Some(held.guard) == guard);
    let dropped = held.filter_map(|held| configuration.relation(held.root));
    let dropped = dropped.filter(|root| observed.catalog.table(root.rel).is_none());
    let created = |label: &str| matched.tables.iter().any(|oid| observed.catalog.label(*oid) == label);
    dropped
        .filter(|root| created(&root.label))
        .map(|root| Drift { table: root.label.clone(), what: "was dropped and created again".to_owned() })
        .collect()
}

/// What has to be done so that nothing of the guard is left; of the last guard, nothing of pgrail.
pub fn plan_removal(name: &GuardName, observed: &Observed) -> Plan {
    let Some(recorded) = &observed.recorded else {
        return difference(&Desired::default(), observed);
    };
    let mut configuration = recorded.configuration.clone();
    let gone = configuration.guard_id(name);
    configuration.guards.retain(|guard| Some(guard.id) != gone);
    configuration.assignments.retain(|held| Some(held.guard) != gone);
    let mut numbers = numbers(observed);
    let desired = complete::complete(&observed.catalog, configuration, &mut numbers);
    difference(&desired, observed)
}

/// Whether a guard may begin to capture here. One that does already stays as it is: its tables' state says what is wrong.
fn capturable(spec: &GuardSpec, observed: &Observed) -> Result<(), PlanError> {
    let Some(publication) = observed.live.all_tables_publications.first() else { return Ok(()) };
    let recorded = observed.recorded.iter().flat_map(|recorded| &recorded.configuration.guards);
    let captures = recorded.filter(|guard| guard.name == spec.name).any(|guard| guard.capture.is_some());
    if spec.capture.is_some() && !captures {
        return Err(PlanError::Published { publication: publication.clone() });
    }
    Ok(())
}

/// What has to be done so that nothing of pgrail is left, whatever the configuration says and whatever was interrupted.
pub fn plan_uninstall(observed: &Observed) -> Plan {
    Plan { steps: everything_off(observed), ..Plan::empty() }
}

pub(crate) fn numbers(observed: &Observed) -> Numbers {
    let suffix = |name: &str| name.rsplit_once('_').and_then(|(_, number)| number.parse::<i32>().ok());
    let live = &observed.live;
    let of_relation = |name: &str| {
        ["gate_", "note_", "updating_", "window_", "config_root_"].iter().any(|kind| name.starts_with(kind))
    };
    let routines = live.routines.iter().filter(|it| of_relation(&it.name)).filter_map(|routine| suffix(&routine.name));
    let triggers = live.triggers.iter().filter_map(|trigger| suffix(&trigger.name));
    let pins =
        live.relations.iter().filter(|relation| relation.kind == "v").filter_map(|relation| suffix(&relation.name));
    let sequences = live
        .relations
        .iter()
        .filter(|it| it.kind == "S" && (it.name.starts_with("blocked_") || it.name.starts_with("window_")))
        .filter_map(|it| suffix(&it.name));
    let empty = Configuration::default();
    let known = observed.recorded.as_ref().map_or(&empty, |recorded| &recorded.configuration);
    let relations = known.relations.iter().map(|row| row.id);
    Numbers {
        guard: known.guards.iter().map(|row| row.id).max().unwrap_or(0),
        relation: relations.chain(routines).chain(triggers).chain(pins).max().unwrap_or(0),
        allowance: known.allowances.iter().map(|row| row.id).max().unwrap_or(0),
        assignment: known.assignments.iter().map(|row| row.id).chain(sequences).max().unwrap_or(0),
    }
}

/// The configuration with this guard's part replaced. What stays keeps its number, and with it its counter.
fn assign(spec: &GuardSpec, matched: &Matched, observed: &Observed, numbers: &mut Numbers) -> Configuration {
    let mut configuration =
        observed.recorded.as_ref().map(|recorded| recorded.configuration.clone()).unwrap_or_default();
    spec.owner.as_str().clone_into(&mut configuration.owner);
    let enforce = spec.mode == Mode::Enforce;
    let guard = configuration.guard_id(&spec.name).unwrap_or_else(|| Numbers::next(&mut numbers.guard));
    configuration.guards.retain(|row| row.id != guard);
    configuration.guards.push(GuardRow { id: guard, name: spec.name.clone(), enforce, capture: spec.capture });
    assign_allowances(spec, guard, &mut configuration, numbers);
    let (mine, others): (Vec<Assignment>, Vec<Assignment>) =
        std::mem::take(&mut configuration.assignments).into_iter().partition(|held| held.guard == guard);
    configuration.assignments = others;
    for oid in matched.tables.iter().chain(matched.renamed.keys()) {
        let Some(table) = observed.catalog.table(*oid) else { continue };
        let selector = match matched.renamed.get(oid) {
            Some(label) => selector_of(spec, label),
            None => spec.selector_for(&table.schema, &table.name),
        };
        let Some(selector) = selector else { continue };
        let root = configuration.relation_of(*oid).map_or_else(|| Numbers::next(&mut numbers.relation), |row| row.id);
        if configuration.relation(root).is_none() {
            configuration.relations.push(RelationRow {
                id: root,
                rel: *oid,
                label: table.label(),
                above: BTreeSet::new(),
            });
        }
        // A renamed table keeps the name that the guard knows.
        if !matched.renamed.contains_key(oid)
            && let Some(row) = configuration.relations.iter_mut().find(|row| row.id == root)
        {
            row.label = table.label();
        }
        let id = mine
            .iter()
            .find(|held| held.root == root)
            .map_or_else(|| Numbers::next(&mut numbers.assignment), |held| held.id);
        configuration.assignments.push(Assignment::new(
            id,
            root,
            guard,
            spec.limits.overridden(&selector.limits),
            spec.protect,
        ));
    }
    configuration
}

/// The allowances that the guard itself declares. What stays keeps its number, and with it what it was used for; what belongs
/// to an exemption is not touched.
fn assign_allowances(spec: &GuardSpec, guard: i32, configuration: &mut Configuration, numbers: &mut Numbers) {
    let declared = |row: &AllowanceRow| row.exemption.is_none() && row.guards.contains(&guard);
    let (mut mine, others): (Vec<AllowanceRow>, Vec<AllowanceRow>) =
        std::mem::take(&mut configuration.allowances).into_iter().partition(declared);
    configuration.allowances = others;
    for allowance in &spec.allowances {
        let known = mine.iter().position(|row| row.role == allowance.role && row.operations == allowance.operations);
        let id = known.map_or_else(|| Numbers::next(&mut numbers.allowance), |at| mine.remove(at).id);
        configuration.allowances.push(AllowanceRow {
            id,
            guards: BTreeSet::from([guard]),
            exemption: None,
            object: None,
            role: allowance.role.clone(),
            operations: allowance.operations.clone(),
            roots: None,
            unlimited: false,
            limits: allowance.limits,
            not_before: None,
            not_after: None,
            total_rows: None,
        });
    }
}
