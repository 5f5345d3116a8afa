//! The server's plan of a statement: which tables it changes, and how many rows by estimate. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::blast_radius;
use crate::catalog::{Catalog, Oid, TableKind};
use crate::closure;

/// A table that the statement itself changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// Schema and name, as in the plan.
    pub schema: String,
    pub name: String,
    /// The table, if it is in the catalog.
    pub oid: Option<Oid>,
    pub deletes: bool,
    pub updates: bool,
    /// Rows that the server expects to be changed.
    pub rows: f64,
}

/// The tables that the plans of `EXPLAIN (VERBOSE, FORMAT JSON)` change, each once, in the order of the plans.
/// An INSERT counts only with what it updates.
pub(super) fn targets(plans: &Value, catalog: &Catalog) -> Vec<Target> {
    let mut found = Vec::new();
    for plan in plans.as_array().into_iter().flatten() {
        visit(&plan["Plan"], catalog, &mut found);
    }
    found
}

fn visit(node: &Value, catalog: &Catalog, found: &mut Vec<Target>) {
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    if text("Node Type") == "ModifyTable" {
        let (deletes, updates) = match text("Operation") {
            "Delete" => (true, false),
            "Merge" => (true, true),
            "Update" => (false, true),
            _ => (false, text("Conflict Resolution") == "UPDATE"),
        };
        let is_source = |child: &&Value| child["Parent Relationship"] == "Outer";
        let sources = node["Plans"].as_array().into_iter().flatten().filter(is_source);
        let rows = sources.filter_map(|child| child["Plan Rows"].as_f64()).sum();
        let (schema, name) = (text("Schema").to_owned(), text("Relation Name").to_owned());
        let known = found.iter_mut().find(|target| target.schema == schema && target.name == name);
        match known {
            Some(target) => {
                target.deletes |= deletes;
                target.updates |= updates;
                target.rows += rows;
            }
            None if deletes || updates => {
                let oid = catalog.table_named(&schema, &name).map(|table| table.oid);
                found.push(Target { schema, name, oid, deletes, updates, rows });
            }
            None => {}
        }
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        visit(child, catalog, found);
    }
}

/// Rows of all tables that the statement changes, from the server's estimate of its own rows and the average number of rows
/// that depend on each.
pub(super) fn rows(targets: &[Target], catalog: &Catalog) -> f64 {
    let of = |target: &Target| {
        let Some(oid) = target.oid.filter(|_| target.deletes) else { return target.rows };
        let closure = closure::of(catalog, oid);
        let radius = blast_radius::of(catalog, &closure, false);
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let (per_row, at_risk) = (radius.per_row as f64, radius.rows_at_risk as f64);
        target.rows + (target.rows * per_row).min(at_risk)
    };
    targets.iter().map(of).sum()
}

/// The first foreign table among the targets and what is below them.
pub(super) fn foreign(targets: &[Target], catalog: &Catalog) -> Option<String> {
    let below = targets.iter().filter_map(|target| target.oid).flat_map(|oid| catalog.descendants(oid));
    let is_foreign = |oid: &Oid| catalog.table(*oid).is_some_and(|table| table.kind == TableKind::Foreign);
    below.collect::<BTreeSet<_>>().into_iter().find(is_foreign).map(|oid| catalog.label(oid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_changed_table_is_found_wherever_it_is_in_the_plan() {
        let plans = json!([
            {"Plan": {"Node Type": "CTE Scan", "Plan Rows": 5, "Plans": [
                {"Node Type": "ModifyTable", "Operation": "Delete", "Parent Relationship": "InitPlan", "Schema": "s", "Relation Name": "a", "Plan Rows": 0, "Plans": [
                    {"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Plan Rows": 7},
                    {"Node Type": "Result", "Parent Relationship": "InitPlan", "Plan Rows": 1000},
                ]},
                {"Node Type": "ModifyTable", "Operation": "Insert", "Schema": "s", "Relation Name": "archive", "Plans": []},
            ]}},
            {"Plan": {"Node Type": "ModifyTable", "Operation": "Insert", "Conflict Resolution": "UPDATE", "Schema": "s", "Relation Name": "b", "Plans": [
                {"Node Type": "Result", "Parent Relationship": "Outer", "Plan Rows": 2}]}},
            {"Plan": {"Node Type": "ModifyTable", "Operation": "Update", "Schema": "s", "Relation Name": "a", "Plans": [
                {"Node Type": "Append", "Parent Relationship": "Outer", "Plan Rows": 4}]}},
        ]);
        let found = targets(&plans, &Catalog::default());
        let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.deletes, it.updates, it.rows)).collect();
        assert_eq!(found, [("a", true, true, 11.0), ("b", false, true, 2.0)]);
        assert_eq!(targets(&json!([]), &Catalog::default()), []);
        let insert =
            json!([{"Plan": {"Node Type": "ModifyTable", "Operation": "Insert", "Conflict Resolution": "NOTHING"}}]);
        assert_eq!(targets(&insert, &Catalog::default()), []);
    }
}
