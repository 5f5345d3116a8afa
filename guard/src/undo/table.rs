//! A table that rows are restored into, as it is now, and the order of several.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::catalog::Oid;
use crate::rehearse::UserTrigger;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    pub(super) rel: Oid,
    pub(super) label: String,
    pub(super) ident: Option<String>,
    /// As which rows are restored; `None` where the table no longer exists.
    pub(super) owner: Option<Oid>,
    pub(super) owner_name: Option<String>,
    /// Whether row level security holds for the owner too.
    pub(super) forced: bool,
    pub(super) partitioned: bool,
    pub(super) triggers: Vec<UserTrigger>,
    pub(super) batches: Vec<Batch>,
    pub(super) columns: Vec<Column>,
    pub(super) unique_keys: Vec<Key>,
    pub(super) references: Vec<Reference>,
    pub(super) family: Vec<Oid>,
}

/// Rows of one table that have the same form.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Batch {
    /// The table that they are captured in, ready for SQL.
    pub(super) store: String,
    pub(super) store_owner: Oid,
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
    /// Type and collation, ready for SQL.
    #[serde(rename = "type")]
    pub(super) kind: String,
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
    /// Whether the owner sees all rows of the table that it points to.
    pub(super) readable: bool,
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

    /// The key that identifies a row.
    pub(super) fn identity(&self) -> Option<&Key> {
        self.unique_keys.iter().find(|key| key.primary || key.not_null)
    }

    pub(super) fn added(&self, batch: &Batch) -> usize {
        self.columns.iter().filter(|column| column.number > batch.attributes).count()
    }

    /// How many columns of the rows no longer exist.
    pub(super) fn lost(&self, batch: &Batch) -> i32 {
        let left = self.columns.iter().filter(|column| column.number <= batch.attributes).count();
        batch.fields - i32::try_from(left).unwrap_or(i32::MAX)
    }

    /// Rows of inheritance children are not the table's own.
    pub(super) fn only(&self) -> &'static str {
        if self.partitioned { "" } else { "ONLY " }
    }

    /// The type of a batch's rows: the columns that the table had when they were captured. Only pgrail defines it, so there
    /// is no cast of another role from text to it, as there may be to the row type of the table.
    fn row_type(&self, batch: &Batch) -> String {
        format!("pgrail.undo_{}_{}", self.rel, batch.attributes)
    }

    /// The rows of a batch, `before` and for nulled ones `after`, each once: as it was first.
    pub(super) fn rows(&self, transaction: u64, batch: &Batch) -> String {
        let row_type = self.row_type(batch);
        let decoded = |column: &str| format!("CAST(c.{column} AS {row_type})");
        let (before, after) = (decoded("before"), decoded("after"));
        let same_keys = batch.keys.as_ref().map_or(String::new(), |keys| {
            let keys = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            format!(" AND c.keys OPERATOR(pg_catalog.=) '{{{keys}}}'::pg_catalog.int2[]")
        });
        let Batch { store, attributes, fields, effect, .. } = batch;
        let plain = format!(
            "SELECT c.id, {before} AS before, {after} AS after FROM {store} c WHERE c.xid OPERATOR(pg_catalog.=) '{transaction}'::pg_catalog.xid8 \
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

/// A row as text for people: its columns' values, by the output functions of their types.
pub(super) fn named(columns: &[String]) -> String {
    let values = columns.iter().map(|column| format!("(x.before).{column}")).collect::<Vec<_>>();
    format!("pg_catalog.concat_ws(', ', {})", values.join(", "))
}

/// The types that captured rows are read as, each with its columns.
pub(super) fn types(tables: &[Table]) -> impl Iterator<Item = (String, String)> {
    let of = |table: &Table, batch: &Batch| {
        let columns = table.columns.iter().filter(|column| column.number <= batch.attributes);
        let columns = columns.map(|column| format!("{} {}", column.ident, column.kind));
        (table.row_type(batch), columns.collect::<Vec<_>>().join(", "))
    };
    let usable = |table: &&Table| table.ident.is_some();
    let types: BTreeMap<String, String> = tables
        .iter()
        .filter(usable)
        .flat_map(|table| {
            table.batches.iter().filter(|batch| table.lost(batch) == 0).map(move |batch| of(table, batch))
        })
        .collect();
    types.into_iter()
}
