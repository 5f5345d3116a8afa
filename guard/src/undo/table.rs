//! A table that captured rows are restored into, and the rows.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::catalog::Oid;
use crate::rehearse::UserTrigger;

/// A table that captured rows are restored into.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Table {
    #[serde(flatten)]
    table: pgrail_rows::Table,
    pub(super) triggers: Vec<UserTrigger>,
    pub(super) batches: Vec<Batch>,
}

impl std::ops::Deref for Table {
    type Target = pgrail_rows::Table;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl AsRef<pgrail_rows::Table> for Table {
    fn as_ref(&self) -> &pgrail_rows::Table {
        &self.table
    }
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

impl Table {
    pub(super) fn deleted(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.effect == "d")
    }

    pub(super) fn nulled(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.effect == "u")
    }

    pub(super) fn added(&self, batch: &Batch) -> usize {
        self.columns.iter().filter(|column| column.number > batch.attributes).count()
    }

    /// How many columns of the rows no longer exist.
    pub(super) fn lost(&self, batch: &Batch) -> i32 {
        let left = self.columns.iter().filter(|column| column.number <= batch.attributes).count();
        batch.fields - i32::try_from(left).unwrap_or(i32::MAX)
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
