//! The cascade graph of a database: which table takes rows of which, how many, and what is guarded. Pure.

use crate::blast_radius::{self, BlastRadius};
use crate::catalog::{Catalog, ForeignKey, Oid, OnDelete};
use crate::closure;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::BuildHasher;

/// Tables that deletes lead from and to. Partitions are part of their partitioned table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// The tables, worst first.
    pub tables: Vec<BlastRadius>,
    /// What a deleted row leads to, between two tables of [`Graph::tables`].
    pub edges: Vec<Edge>,
    /// Tables that are left out to keep the graph small: those with the fewest rows at risk.
    pub omitted: usize,
}

/// A delete on one table changes rows of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// Index of the table whose rows are deleted.
    pub from: usize,
    /// Index of the table that loses rows because of it.
    pub to: usize,
    /// What happens to these rows.
    pub effect: EdgeEffect,
}

/// What happens to rows that reference a deleted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum EdgeEffect {
    /// They are deleted.
    #[serde(rename = "CASCADE")]
    Cascade,
    /// The referencing columns are set to NULL.
    #[serde(rename = "SET NULL")]
    SetNull,
    /// The referencing columns are set to their defaults.
    #[serde(rename = "SET DEFAULT")]
    SetDefault,
    /// No reference: the rows of an inheritance child are rows of its parent.
    #[serde(rename = "INHERITS")]
    Inherits,
}

impl Graph {
    /// The graph of a catalog; with `roots`, only these tables and what deletes on them reach. At most `limit` tables.
    pub fn of<S: BuildHasher>(
        catalog: &Catalog,
        radii: &[BlastRadius],
        guarded: &HashSet<Oid, S>,
        roots: Option<&[Oid]>,
        limit: usize,
    ) -> Self {
        let mut edges = edges(catalog);
        let mut oids: BTreeSet<Oid> = edges.iter().flat_map(|(from, to, _)| [*from, *to]).collect();
        if let Some(roots) = roots {
            oids = reached(&edges, roots.iter().map(|oid| top(catalog, *oid)));
            edges.retain(|(from, to, _)| oids.contains(from) && oids.contains(to));
        }
        let known: BTreeMap<Oid, &BlastRadius> = radii.iter().map(|radius| (radius.oid, radius)).collect();
        let node = |oid: Oid| match known.get(&oid) {
            Some(radius) => (*radius).clone(),
            None => blast_radius::of(catalog, &closure::of(catalog, oid), guarded.contains(&oid)),
        };
        let mut tables: Vec<BlastRadius> = oids.into_iter().map(node).collect();
        tables.sort_by(|a, b| {
            let rank = |table: &BlastRadius| Reverse((table.rows_at_risk, table.cascade_tables, table.rows));
            rank(a).cmp(&rank(b)).then_with(|| a.table.cmp(&b.table))
        });
        let omitted = tables.len().saturating_sub(limit);
        tables.truncate(limit);
        let index: BTreeMap<Oid, usize> = tables.iter().enumerate().map(|(at, table)| (table.oid, at)).collect();
        let edges = edges
            .into_iter()
            .filter_map(|(from, to, effect)| Some(Edge { from: *index.get(&from)?, to: *index.get(&to)?, effect }));
        Self { edges: edges.collect(), tables, omitted }
    }
}

/// The partitioned table that a partition is of, or the table itself.
fn top(catalog: &Catalog, oid: Oid) -> Oid {
    catalog.partition_ancestors(oid).last().copied().unwrap_or(oid)
}

fn effect(key: &ForeignKey) -> Option<EdgeEffect> {
    match key.on_delete {
        OnDelete::Cascade => Some(EdgeEffect::Cascade),
        OnDelete::SetNull => Some(EdgeEffect::SetNull),
        OnDelete::SetDefault => Some(EdgeEffect::SetDefault),
        OnDelete::NoAction | OnDelete::Restrict => None,
    }
}

/// Every edge once: keys of partitions are those of their partitioned tables.
fn edges(catalog: &Catalog) -> BTreeSet<(Oid, Oid, EdgeEffect)> {
    let keys = catalog.foreign_keys().iter();
    let mut edges: BTreeSet<_> = keys
        .filter_map(|key| Some((top(catalog, key.referenced), top(catalog, key.referencing), effect(key)?)))
        .collect();
    // A delete on an inheritance parent deletes rows of its children, with what these lead to.
    let mut sources: BTreeSet<Oid> = edges.iter().map(|(from, _, _)| *from).collect();
    let mut next: Vec<Oid> = sources.iter().copied().collect();
    while let Some(child) = next.pop() {
        let Some(table) = catalog.table(child).filter(|table| !table.is_partition) else { continue };
        for parent in &table.parents {
            edges.insert((*parent, child, EdgeEffect::Inherits));
            if sources.insert(*parent) {
                next.push(*parent);
            }
        }
    }
    edges
}

/// The tables that deletes on the roots reach. Rows that are set to NULL lead no further.
fn reached(edges: &BTreeSet<(Oid, Oid, EdgeEffect)>, roots: impl Iterator<Item = Oid>) -> BTreeSet<Oid> {
    let mut seen: BTreeSet<Oid> = roots.collect();
    let mut next: Vec<Oid> = seen.iter().copied().collect();
    let mut from: BTreeMap<Oid, Vec<(Oid, EdgeEffect)>> = BTreeMap::new();
    let mut expanded: BTreeSet<Oid> = BTreeSet::new();
    for (source, target, effect) in edges {
        from.entry(*source).or_default().push((*target, *effect));
    }
    while let Some(at) = next.pop() {
        if !expanded.insert(at) {
            continue;
        }
        for (target, effect) in from.get(&at).into_iter().flatten() {
            seen.insert(*target);
            if matches!(effect, EdgeEffect::Cascade | EdgeEffect::Inherits) {
                next.push(*target);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Table, TableKind};

    fn table(oid: Oid, name: &str, rows: f64) -> Table {
        let value = serde_json::json!({"oid": oid, "schema": "public", "name": name, "ident": name, "kind": "r",
            "owner": "shop", "owned": true, "owner_oid": 10, "owner_settable": true, "row_security": false,
            "row_security_for_owner": false, "can_trigger": true, "is_partition": false, "parents": [], "rows": rows});
        serde_json::from_value(value).unwrap()
    }

    fn partition(oid: Oid, name: &str, rows: f64, of: Oid) -> Table {
        Table { is_partition: true, parents: vec![of], ..table(oid, name, rows) }
    }

    fn key(oid: Oid, referencing: Oid, referenced: Oid, on_delete: OnDelete) -> ForeignKey {
        ForeignKey {
            oid,
            name: format!("key_{oid}"),
            referencing,
            referenced,
            on_delete,
            distinct: None,
            null_fraction: None,
        }
    }

    fn graph(catalog: &Catalog, roots: Option<&[Oid]>, limit: usize) -> Graph {
        let guarded = HashSet::from([1]);
        Graph::of(catalog, &blast_radius::compute(catalog, &guarded), &guarded, roots, limit)
    }

    fn shop() -> Catalog {
        let partitioned = Table { kind: TableKind::Partitioned, ..table(3, "events", 0.0) };
        Catalog::new(
            vec![
                table(1, "users", 10.0),
                table(2, "orders", 100.0),
                partitioned,
                partition(31, "events_1", 500.0, 3),
                table(4, "notes", 20.0),
                table(5, "lines", 300.0),
                table(6, "alone", 1.0),
                table(7, "logs", 1.0),
            ],
            vec![
                key(101, 2, 1, OnDelete::Cascade),
                key(102, 3, 1, OnDelete::Cascade),
                key(103, 31, 1, OnDelete::Cascade),
                key(104, 4, 1, OnDelete::SetNull),
                key(105, 5, 2, OnDelete::Cascade),
                key(106, 7, 6, OnDelete::Restrict),
                key(107, 7, 4, OnDelete::Cascade),
            ],
        )
    }

    fn named(graph: &Graph) -> Vec<(&str, &str, EdgeEffect)> {
        let name = |at: usize| graph.tables[at].table.as_str();
        let mut edges: Vec<_> = graph.edges.iter().map(|it| (name(it.from), name(it.to), it.effect)).collect();
        edges.sort_unstable();
        edges
    }

    #[test]
    fn each_reference_is_one_edge_and_partitions_are_their_table() {
        let graph = graph(&shop(), None, 100);
        assert_eq!(
            named(&graph),
            [
                ("public.notes", "public.logs", EdgeEffect::Cascade),
                ("public.orders", "public.lines", EdgeEffect::Cascade),
                ("public.users", "public.events", EdgeEffect::Cascade),
                ("public.users", "public.notes", EdgeEffect::SetNull),
                ("public.users", "public.orders", EdgeEffect::Cascade),
            ]
        );
        let users = &graph.tables[0];
        assert_eq!((users.table.as_str(), users.rows, users.guarded), ("public.users", 10, true));
        assert!(users.rows_at_risk >= 900, "{users:?}");
        let events = graph.tables.iter().find(|it| it.table == "public.events").unwrap();
        assert_eq!((events.rows, events.rows_at_risk, events.guarded), (500, 0, false));
        assert!(!graph.tables.iter().any(|it| it.table == "public.alone"), "RESTRICT takes nothing");
    }

    #[test]
    fn of_a_table_it_is_what_its_deletes_reach() {
        let tables = |roots| {
            let graph = graph(&shop(), Some(roots), 100);
            let mut tables: Vec<_> = graph.tables.into_iter().map(|it| it.table).collect();
            tables.sort();
            tables
        };
        assert_eq!(tables(&[2]), ["public.lines", "public.orders"]);
        assert_eq!(tables(&[6]), ["public.alone"]);
        // `notes` loses references, not rows: `logs` keeps its rows.
        let of_users = ["public.events", "public.lines", "public.notes", "public.orders", "public.users"];
        assert_eq!(tables(&[1]), of_users);
    }

    #[test]
    fn a_graph_that_is_too_large_keeps_the_worst_tables() {
        let graph = graph(&shop(), None, 2);
        assert_eq!(graph.omitted, 4);
        assert_eq!(named(&graph), [("public.users", "public.orders", EdgeEffect::Cascade)]);
    }

    #[test]
    fn a_circle_and_a_reference_to_itself_end() {
        let catalog = Catalog::new(
            vec![table(1, "a", 10.0), table(2, "b", 10.0)],
            vec![
                key(101, 2, 1, OnDelete::Cascade),
                key(102, 1, 2, OnDelete::Cascade),
                key(103, 1, 1, OnDelete::Cascade),
            ],
        );
        assert_eq!(graph(&catalog, Some(&[1]), 100).edges.len(), 3);
    }

    #[test]
    fn rows_of_an_inheritance_child_are_rows_of_its_parent() {
        let child = Table { parents: vec![1], ..table(2, "child", 10.0) };
        let catalog = Catalog::new(
            vec![table(1, "parent", 10.0), child, table(3, "below", 50.0)],
            vec![key(101, 3, 2, OnDelete::Cascade)],
        );
        let edges = [
            ("public.child", "public.below", EdgeEffect::Cascade),
            ("public.parent", "public.child", EdgeEffect::Inherits),
        ];
        assert_eq!(named(&graph(&catalog, None, 100)), edges);
    }
}
