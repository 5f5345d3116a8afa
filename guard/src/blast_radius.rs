//! What deletes on each table could take with them, from statistics.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use serde::Serialize;

use crate::catalog::{Catalog, Oid, OnDelete, TableKind};
use crate::closure::{self, Closure};

/// What deletes on one table can take with them. Estimates from statistics, never a scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlastRadius {
    /// The table's identifier.
    #[serde(skip)]
    pub oid: Oid,
    /// `schema.table`
    pub table: String,
    /// Its own rows.
    pub rows: u64,
    /// How many other tables lose rows or have them nulled.
    pub cascade_tables: usize,
    /// Rows of those tables that hang on this one.
    pub rows_at_risk: u64,
    /// Rows that are deleted, on average, with one row that has any.
    pub per_row: u64,
    /// Whether the table is in `guarded`.
    pub guarded: bool,
}

/// Every table whose deletion reaches others, worst first. Partitions are summed in their partitioned table.
pub fn compute<S: BuildHasher>(catalog: &Catalog, guarded: &HashSet<Oid, S>) -> Vec<BlastRadius> {
    let mut all: Vec<BlastRadius> = catalog
        .tables()
        .filter(|table| !table.is_partition && matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned))
        .map(|table| of(catalog, &closure::of(catalog, table.oid), guarded.contains(&table.oid)))
        .filter(|radius| radius.cascade_tables > 0)
        .collect();
    all.sort_by(|a, b| {
        (b.rows_at_risk, b.per_row, b.cascade_tables)
            .cmp(&(a.rows_at_risk, a.per_row, a.cascade_tables))
            .then_with(|| a.table.cmp(&b.table))
    });
    all
}

/// The blast radius of one closure.
pub fn of(catalog: &Catalog, closure: &Closure, guarded: bool) -> BlastRadius {
    let estimate = Estimate::of(catalog, closure);
    BlastRadius {
        oid: closure.root,
        table: catalog.label(closure.root),
        rows: whole(
            closure.root_leaves(catalog).iter().filter_map(|leaf| catalog.table(*leaf)).map(|table| table.rows).sum(),
        ),
        cascade_tables: closure.table_count(),
        rows_at_risk: whole(estimate.at_risk),
        per_row: whole(estimate.per_row),
        guarded,
    }
}

struct Estimate {
    at_risk: f64,
    per_row: f64,
}

impl Estimate {
    /// Walks the closure from the root outwards. For every table: which share of its rows hangs on the root, and how
    /// many of them on one root row. A key that leads back into what was reached earlier adds nothing.
    fn of(catalog: &Catalog, closure: &Closure) -> Self {
        let mut share: BTreeMap<Oid, f64> = BTreeMap::from([(closure.root, 1.0)]);
        let mut per_row: BTreeMap<Oid, f64> = BTreeMap::from([(closure.root, 1.0)]);
        for member in &closure.members {
            let Some(&parent) = member.path.len().checked_sub(2).and_then(|at| member.path.get(at)) else { continue };
            let rows = catalog.rows(member.table);
            let (mut best_share, mut fan_out) = (0.0_f64, 0.0_f64);
            let keys = catalog
                .keys_of(member.table)
                .filter(|key| !matches!(key.on_delete, OnDelete::NoAction | OnDelete::Restrict));
            for key in keys {
                let parents = if share.contains_key(&key.referenced) { key.referenced } else { parent };
                let Some(parent_share) = share.get(&parents).copied() else { continue };
                let with_key = rows * (1.0 - key.null_fraction.unwrap_or(0.0));
                let distinct = key.distinct.filter(|n| *n >= 1.0).unwrap_or_else(|| catalog.rows(parents)).max(1.0);
                best_share = best_share.max(parent_share * (with_key / rows.max(1.0)));
                fan_out += per_row.get(&parents).copied().unwrap_or(1.0) * (with_key / distinct);
            }
            let at_risk = rows * best_share;
            let best = share.entry(member.table).or_insert(0.0);
            *best = best.max(best_share);
            let most = per_row.entry(member.table).or_insert(0.0);
            *most = most.max(fan_out.min(at_risk));
        }
        share.remove(&closure.root);
        per_row.remove(&closure.root);
        let at_risk = share.iter().map(|(table, part)| catalog.rows(*table) * part).sum();
        Self { at_risk, per_row: per_row.values().sum() }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "estimates, never negative, far below 2^63")]
fn whole(estimate: f64) -> u64 {
    estimate.round().max(0.0) as u64
}
