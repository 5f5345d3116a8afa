//! A table that rows go back to, as it is now, and the order of several.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::catalog::Oid;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    pub(super) rel: Oid,
    pub(super) label: String,
    pub(super) ident: Option<String>,
    pub(super) partitioned: bool,
    pub(super) batches: Vec<Batch>,
    pub(super) columns: Vec<Column>,
    pub(super) unique_keys: Vec<Key>,
    pub(super) references: Vec<Reference>,
    pub(super) family: Vec<Oid>,
}

/// Rows of one table that have the same form.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Batch {
    pub(super) attributes: i32,
    pub(super) fields: i32,
    pub(super) effect: String,
    pub(super) keys: Option<Vec<i32>>,
    pub(super) rows: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Column {
    pub(super) number: i32,
    pub(super) ident: String,
    pub(super) generated: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Key {
    pub(super) primary: bool,
    pub(super) not_null: bool,
    pub(super) columns: Vec<String>,
    pub(super) operators: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) ident: String,
    pub(super) label: String,
    pub(super) partitioned: bool,
    pub(super) columns: Vec<String>,
    pub(super) numbers: Vec<i32>,
    pub(super) referenced: Vec<String>,
    pub(super) operators: Vec<String>,
    pub(super) family: Vec<Oid>,
}

/// Groups of tables, parents before children; those of a cycle are one group.
pub(super) fn in_order(mut tables: Vec<Table>) -> Vec<Vec<Table>> {
    let mut groups = Vec::new();
    while !tables.is_empty() {
        let waiting: BTreeSet<Oid> = tables.iter().map(|table| table.rel).collect();
        let ready = |table: &Table| {
            let mut parents = table.references.iter().flat_map(|reference| &reference.family);
            !parents.any(|parent| waiting.contains(parent) && !table.family.contains(parent))
        };
        let (first, rest): (Vec<Table>, Vec<Table>) = tables.into_iter().partition(ready);
        if first.is_empty() {
            groups.push(rest);
            break;
        }
        groups.push(first);
        tables = rest;
    }
    groups
}

impl Table {
    pub(super) fn deleted(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.effect == "d")
    }

    pub(super) fn nulled(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.effect == "u")
    }

    /// What tells one row from another.
    pub(super) fn identity(&self) -> Option<&Key> {
        self.unique_keys.iter().find(|key| key.primary || key.not_null)
    }

    pub(super) fn added(&self, batch: &Batch) -> usize {
        self.columns.iter().filter(|column| column.number > batch.attributes).count()
    }

    /// How many columns that the rows have are gone.
    pub(super) fn lost(&self, batch: &Batch) -> i32 {
        let left = self.columns.iter().filter(|column| column.number <= batch.attributes).count();
        batch.fields - i32::try_from(left).unwrap_or(i32::MAX)
    }

    /// Rows are there without those of inheritance children.
    pub(super) fn only(&self) -> &'static str {
        if self.partitioned { "" } else { "ONLY " }
    }

    /// The rows of a batch as rows of the table, `before` and for nulled ones `after`, each once: as it was first.
    pub(super) fn rows(&self, transaction: u64, batch: &Batch) -> String {
        let ident = self.ident.as_deref().unwrap_or_default();
        // Columns that were added since are the last; they are left out when rows are put back.
        let more = ",".repeat(self.added(batch));
        let decoded = |column: &str| {
            format!("CAST(pg_catalog.left(c.{column}, -1) OPERATOR(pg_catalog.||) '{more})' AS {ident})")
        };
        let (before, after) = (decoded("before"), decoded("after"));
        let same_keys = batch.keys.as_ref().map_or(String::new(), |keys| {
            let keys = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            format!(" AND c.keys OPERATOR(pg_catalog.=) '{{{keys}}}'::pg_catalog.int2[]")
        });
        let Batch { attributes, fields, effect, .. } = batch;
        let plain = format!(
            "SELECT c.id, {before} AS before, {after} AS after FROM pgrail.captured c WHERE c.xid OPERATOR(pg_catalog.=) '{transaction}'::pg_catalog.xid8 \
             AND c.rel::pg_catalog.oid OPERATOR(pg_catalog.=) {}::pg_catalog.oid AND c.attributes OPERATOR(pg_catalog.=) {attributes}::pg_catalog.int2 \
             AND c.fields OPERATOR(pg_catalog.=) {fields}::pg_catalog.int2 AND c.effect OPERATOR(pg_catalog.=) '{effect}'::pg_catalog.\"char\"{same_keys} OFFSET 0",
            self.rel
        );
        let which = if effect == "d" { "before" } else { "after" };
        match self.identity() {
            None => plain,
            Some(key) => {
                let key =
                    key.columns.iter().map(|column| format!("(c.{which}).{column}")).collect::<Vec<_>>().join(", ");
                format!("SELECT DISTINCT ON ({key}) c.id, c.before, c.after FROM ({plain}) c ORDER BY {key}, c.id")
            }
        }
    }
}

/// `left.column = right` for every column.
pub(super) fn all_equal(
    left: &str,
    columns: &[String],
    operators: &[String],
    right: &str,
    right_columns: &[String],
) -> String {
    let pairs = columns.iter().zip(operators).zip(right_columns);
    pairs
        .map(|((column, operator), other)| format!("{left}.{column} {operator} {right}.{other}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// A row as text for people: its columns' values.
pub(super) fn named(columns: &[String]) -> String {
    let values = columns.iter().map(|column| format!("(x.before).{column}::pg_catalog.text")).collect::<Vec<_>>();
    format!("pg_catalog.concat_ws(', ', {})", values.join(", "))
}
