//! Which tables a guard is for. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Oid, Table, TableKind};
use crate::observe::Observed;
use crate::plan::Refused;
use crate::spec::{GuardSpec, TableSelector};

/// What a guard's selectors come to in a catalog.
pub(crate) struct Matched {
    pub(crate) tables: Vec<Oid>,
    pub(crate) missing: Vec<String>,
    pub(crate) refused: Vec<Refused>,
    /// Tables that the guard holds and that were renamed, or moved to another schema, since: with the name that the guard
    /// knows.
    pub(crate) renamed: BTreeMap<Oid, String>,
}

impl Matched {
    pub(crate) fn of(spec: &GuardSpec, observed: &Observed) -> Self {
        let catalog = &observed.catalog;
        let can_guard = |table: &&Table| matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned);
        let selected: BTreeSet<Oid> = catalog
            .tables()
            .filter(can_guard)
            .filter(|table| spec.selector_for(&table.schema, &table.name).is_some())
            .map(|table| table.oid)
            .collect();
        let exact = |table: &Table| spec.selector_for(&table.schema, &table.name).is_some_and(TableSelector::is_exact);
        // A glob that matches a partitioned table and its partitions means the one table.
        let covered = |oid: &Oid| catalog.ancestors(*oid).iter().any(|above| selected.contains(above));
        let tables =
            selected.iter().copied().filter(|oid| !covered(oid) || catalog.table(*oid).is_some_and(exact)).collect();
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        for selector in spec.selectors.iter().filter(|selector| selector.is_exact()) {
            let label = format!("{}.{}", selector.schema, selector.name);
            match catalog.table_named(&selector.schema, &selector.name) {
                Some(table) => {
                    refused.extend(refusal(table).map(|reason| Refused { table: label, reason: reason.to_owned() }));
                }
                None if is_system(&selector.schema) => {
                    refused.push(Refused { table: label, reason: "it is not an application's table".to_owned() });
                }
                None => missing.push(label),
            }
        }
        missing.sort();
        missing.dedup();
        let mut matched = Self { tables, missing, refused, renamed: BTreeMap::new() };
        matched.renamed = matched.renamed(spec, observed);
        matched
    }

    /// A guard holds a table by its identity: a rename takes nothing out of it, until it is released.
    fn renamed(&self, spec: &GuardSpec, observed: &Observed) -> BTreeMap<Oid, String> {
        let Some(recorded) = &observed.recorded else { return BTreeMap::new() };
        let configuration = &recorded.configuration;
        let guard = configuration.guard_id(&spec.name);
        let held = configuration.assignments.iter().filter(|held| Some(held.guard) == guard);
        let roots = held.filter_map(|held| configuration.relation(held.root));
        let renamed = roots.filter(|root| {
            observed.catalog.table(root.rel).is_some_and(|table| {
                let label = table.label();
                let released = [&root.label, &label].into_iter().any(|name| spec.released.contains(name));
                label != root.label && !released && selector_of(spec, &root.label).is_some()
            })
        });
        renamed.filter(|root| !self.tables.contains(&root.rel)).map(|root| (root.rel, root.label.clone())).collect()
    }
}

/// The selector for a name as `schema.table`, wherever the dot that separates the two is.
pub(crate) fn selector_of<'spec>(spec: &'spec GuardSpec, label: &str) -> Option<&'spec TableSelector> {
    label.match_indices('.').find_map(|(dot, _)| spec.selector_for(&label[..dot], &label[dot + 1..]))
}

fn is_system(schema: &str) -> bool {
    schema == "pgrail" || schema == "information_schema" || schema.starts_with("pg_")
}

fn refusal(table: &Table) -> Option<&'static str> {
    match table.kind {
        TableKind::Ordinary | TableKind::Partitioned => None,
        TableKind::View => Some("it is a view: guard the tables it reads from"),
        TableKind::MaterializedView => Some("it is a materialized view: its rows can be computed again"),
        TableKind::Foreign => Some("it is a foreign table: its server, not this one, counts its rows"),
    }
}
