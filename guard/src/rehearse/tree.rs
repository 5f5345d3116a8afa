//! The counted rows of each table, as the tree of foreign keys of the cascade. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::estimate::Target;
use crate::catalog::{Catalog, Oid, TableKind};
use crate::closure::{self, Effect};

/// Rows that were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// Deleted.
    pub deleted: i64,
    /// Whose key was set to NULL or to its default, because what it referenced was deleted.
    pub nulled: i64,
    /// Updated otherwise.
    pub updated: i64,
    /// Inserted.
    pub inserted: i64,
    /// Moved from one partition to another by an UPDATE.
    pub moved: i64,
}

impl Rows {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.nulled += other.nulled;
        self.updated += other.updated;
        self.inserted += other.inserted;
        self.moved += other.moved;
    }
}

/// A table whose rows were changed, with its partitions, and the tables that reference it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableRows {
    /// `schema.table`
    pub table: String,
    /// Its rows.
    #[serde(flatten)]
    pub rows: Rows,
    /// The tables that reference it and whose rows were deleted or nulled because of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<TableRows>,
}

impl TableRows {
    /// The rows of this table and of all below.
    pub fn total(&self) -> Rows {
        let mut total = self.rows;
        for below in &self.below {
            total.add(below.total());
        }
        total
    }

    /// The number of tables, this one included.
    pub fn tables(&self) -> usize {
        1 + self.below.iter().map(Self::tables).sum::<usize>()
    }
}

/// The counters of one table or partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub label: String,
    pub deleted: i64,
    pub updated: i64,
    pub inserted: i64,
}

/// The trees of the tables that the statement names, and the tables that no foreign key reaches from there.
pub(super) fn build(
    targets: &[Target],
    counted: &BTreeMap<Oid, Counted>,
    catalog: &Catalog,
) -> (Vec<TableRows>, Vec<TableRows>) {
    let mut builder = Builder::new(targets, counted, catalog);
    let roots: Vec<Oid> = targets.iter().filter_map(|target| target.oid).map(|oid| whole(catalog, oid)).collect();
    let mut seen: BTreeSet<Oid> = roots.iter().copied().collect();
    let mut children: BTreeMap<Oid, Vec<Oid>> = BTreeMap::new();
    for root in &roots {
        let closure = closure::of(catalog, *root);
        // Inheritance children of the root contain rows of it.
        let children_of_root =
            closure.tree.iter().map(|oid| whole(catalog, *oid)).map(|oid| (oid, vec![*root, oid], None));
        let members = closure.members.iter().map(|member| {
            let path = member.path.iter().map(|oid| whole(catalog, *oid)).collect();
            (whole(catalog, member.table), path, Some(member.effect))
        });
        let reached: Vec<(Oid, Vec<Oid>, Option<Effect>)> = children_of_root.chain(members).collect();
        for (table, _, effect) in &reached {
            if *effect == Some(Effect::Nulled) {
                builder.nulled(*table);
            }
        }
        let touched = reached.iter().filter(|(table, ..)| builder.rows.contains_key(table));
        let shown: BTreeSet<Oid> = touched.flat_map(|(_, path, _)| path.iter().copied()).collect();
        for (table, path, _) in reached {
            let Some(above) = path.len().checked_sub(2).and_then(|at| path.get(at)) else { continue };
            if shown.contains(&table) && seen.insert(table) {
                children.entry(*above).or_default().push(table);
            }
        }
    }
    let mut unique = BTreeSet::new();
    let trees = roots.iter().filter(|root| unique.insert(**root)).map(|root| builder.node(*root, &children)).collect();
    let others = builder.rest();
    (trees, others)
}

/// The topmost partitioned table of a partition; else the table itself.
fn whole(catalog: &Catalog, oid: Oid) -> Oid {
    catalog.partition_ancestors(oid).last().copied().unwrap_or(oid)
}

struct Builder<'a> {
    catalog: &'a Catalog,
    rows: BTreeMap<Oid, (String, Rows)>,
    updated: BTreeSet<Oid>,
}

impl<'a> Builder<'a> {
    fn new(targets: &[Target], counted: &BTreeMap<Oid, Counted>, catalog: &'a Catalog) -> Self {
        let of = |wanted: fn(&Target) -> bool| -> BTreeSet<Oid> {
            targets.iter().filter(|it| wanted(it)).filter_map(|it| it.oid).map(|oid| whole(catalog, oid)).collect()
        };
        let (updated, deleted) = (of(|target| target.updates), of(|target| target.deletes));
        let mut rows: BTreeMap<Oid, (String, Rows)> = BTreeMap::new();
        for (oid, it) in counted {
            let table = whole(catalog, *oid);
            let label = if table == *oid { it.label.clone() } else { catalog.label(table) };
            let sum = &mut rows.entry(table).or_insert((label, Rows::default())).1;
            sum.add(Rows { deleted: it.deleted, updated: it.updated, inserted: it.inserted, ..Rows::default() });
        }
        // A row that an UPDATE moves to another partition is deleted from one and inserted into the other.
        let partitioned = |oid: &&Oid| catalog.table(**oid).is_some_and(|table| table.kind == TableKind::Partitioned);
        for table in updated.difference(&deleted).filter(partitioned) {
            if let Some((_, rows)) = rows.get_mut(table) {
                rows.moved = rows.deleted.min(rows.inserted);
                rows.deleted -= rows.moved;
                rows.inserted -= rows.moved;
            }
        }
        Self { catalog, rows, updated }
    }

    /// Updates of this table come from `ON DELETE SET NULL` or `SET DEFAULT`, unless the statement updates it itself.
    fn nulled(&mut self, table: Oid) {
        if let Some((_, rows)) = self.rows.get_mut(&table).filter(|_| !self.updated.contains(&table)) {
            rows.nulled += std::mem::take(&mut rows.updated);
        }
    }

    fn node(&mut self, table: Oid, children: &BTreeMap<Oid, Vec<Oid>>) -> TableRows {
        let (label, rows) = self.rows.remove(&table).unwrap_or_else(|| (self.catalog.label(table), Rows::default()));
        let below = children.get(&table).into_iter().flatten().map(|child| self.node(*child, children)).collect();
        TableRows { table: label, rows, below }
    }

    fn rest(self) -> Vec<TableRows> {
        let changed = self.rows.into_values().filter(|(_, rows)| !rows.is_empty());
        let mut rest: Vec<_> = changed.map(|(table, rows)| TableRows { table, rows, below: Vec::new() }).collect();
        rest.sort_by(|a, b| a.table.cmp(&b.table));
        rest
    }
}
