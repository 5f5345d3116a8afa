//! What the server knows about its tables, as plain structs, in one round trip.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use thiserror::Error;
use tokio_postgres::Client;

/// An object identifier of PostgreSQL.
pub type Oid = u32;

/// Why the catalog could not be read.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// The query failed.
    #[error("cannot read the catalog: {0}")]
    Query(#[from] tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand the catalog: {0}")]
    Decode(#[from] serde_json::Error),
}

/// What kind of relation a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum TableKind {
    /// An ordinary table, a leaf partition or an inheritance child.
    #[serde(rename = "r")]
    Ordinary,
    /// A partitioned table, at any level but the leaves.
    #[serde(rename = "p")]
    Partitioned,
    /// A foreign table: this server does not count its rows.
    #[serde(rename = "f")]
    Foreign,
    /// A view.
    #[serde(rename = "v")]
    View,
    /// A materialized view.
    #[serde(rename = "m")]
    MaterializedView,
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "facts of pg_class")]
pub struct Table {
    /// Its object identifier.
    pub oid: Oid,
    /// Schema, unquoted.
    pub schema: String,
    /// Name, unquoted.
    pub name: String,
    /// `schema.name`, each part quoted by the server where it must be: ready for SQL.
    pub ident: String,
    /// What it is.
    pub kind: TableKind,
    /// Its owner.
    pub owner: String,
    /// Whether the current role may do what an owner may.
    pub owned: bool,
    /// Its owner's object identifier: unlike the name, nothing changes it.
    #[serde(default)]
    pub owner_oid: Oid,
    /// Whether the current role may `SET ROLE` to the owner, which making that role the owner of something takes.
    #[serde(default)]
    pub owner_settable: bool,
    /// Whether row level security is enabled on it.
    #[serde(default)]
    pub row_security: bool,
    /// Whether row level security holds for its own owner too: it is forced, and the owner has no BYPASSRLS.
    #[serde(default)]
    pub row_security_for_owner: bool,
    /// Whether the current role may create triggers on it.
    pub can_trigger: bool,
    /// Whether it is a partition; then `parents` holds the table it is a partition of.
    pub is_partition: bool,
    /// Partitioned table or inheritance parents.
    pub parents: Vec<Oid>,
    /// Estimated rows of its own storage, from statistics; 0 for what has none.
    pub rows: f64,
}

impl Table {
    /// `schema.name` for people, without quotes.
    pub fn label(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// What a foreign key does to referencing rows when a referenced row is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum OnDelete {
    /// `NO ACTION`
    #[serde(rename = "a")]
    NoAction,
    /// `RESTRICT`
    #[serde(rename = "r")]
    Restrict,
    /// `CASCADE`
    #[serde(rename = "c")]
    Cascade,
    /// `SET NULL`
    #[serde(rename = "n")]
    SetNull,
    /// `SET DEFAULT`
    #[serde(rename = "d")]
    SetDefault,
}

/// A foreign key; clones on partitions are left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ForeignKey {
    /// Its object identifier.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// The table that has the constraint.
    pub referencing: Oid,
    /// The table it points to.
    pub referenced: Oid,
    /// What happens when a referenced row is deleted.
    pub on_delete: OnDelete,
    /// Estimated distinct keys among the referencing rows, if statistics exist and may be read.
    pub distinct: Option<f64>,
    /// Estimated share of referencing rows without a key, likewise.
    pub null_fraction: Option<f64>,
}

#[derive(Deserialize)]
struct Raw {
    tables: Vec<Table>,
    foreign_keys: Vec<ForeignKey>,
}

/// All user tables of a database with their foreign keys and inheritance.
/// System schemas, pgrail's own, extension members and temporary tables are not in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    tables: BTreeMap<Oid, Table>,
    foreign_keys: Vec<ForeignKey>,
    children: BTreeMap<Oid, Vec<Oid>>,
    by_referenced: BTreeMap<Oid, Vec<usize>>,
    by_referencing: BTreeMap<Oid, Vec<usize>>,
}

/// Reads the catalog of the database the client is connected to. Locks nothing and scans no table.
pub async fn read(client: &Client) -> Result<Catalog, CatalogError> {
    let row = client.query_one(include_str!("sql/catalog.sql"), &[]).await?;
    let text: String = row.try_get(0)?;
    Catalog::from_json(&text)
}

impl Catalog {
    /// A catalog from its parts.
    pub fn new(tables: Vec<Table>, foreign_keys: Vec<ForeignKey>) -> Self {
        let mut children: BTreeMap<Oid, Vec<Oid>> = BTreeMap::new();
        for table in &tables {
            for parent in &table.parents {
                children.entry(*parent).or_default().push(table.oid);
            }
        }
        let mut by_referenced: BTreeMap<Oid, Vec<usize>> = BTreeMap::new();
        let mut by_referencing: BTreeMap<Oid, Vec<usize>> = BTreeMap::new();
        for (index, key) in foreign_keys.iter().enumerate() {
            by_referencing.entry(key.referencing).or_default().push(index);
            by_referenced.entry(key.referenced).or_default().push(index);
        }
        let tables = tables.into_iter().map(|table| (table.oid, table)).collect();
        Self { tables, foreign_keys, children, by_referenced, by_referencing }
    }

    pub(crate) fn from_json(text: &str) -> Result<Self, CatalogError> {
        let raw: Raw = serde_json::from_str(text)?;
        Ok(Self::new(raw.tables, raw.foreign_keys))
    }

    /// The table with this identifier.
    pub fn table(&self, oid: Oid) -> Option<&Table> {
        self.tables.get(&oid)
    }

    /// The table with exactly this name.
    pub fn table_named(&self, schema: &str, name: &str) -> Option<&Table> {
        self.tables.values().find(|table| table.schema == schema && table.name == name)
    }

    /// `schema.name` for people; the number if the table was dropped.
    pub fn label(&self, oid: Oid) -> String {
        self.table(oid).map_or_else(|| oid.to_string(), Table::label)
    }

    /// Every relation, by identifier.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// Every foreign key.
    pub fn foreign_keys(&self) -> &[ForeignKey] {
        &self.foreign_keys
    }

    /// The foreign keys that name this very table as referenced.
    pub fn referencing(&self, oid: Oid) -> impl Iterator<Item = &ForeignKey> {
        self.by_referenced.get(&oid).into_iter().flatten().map(|index| &self.foreign_keys[*index])
    }

    /// The foreign keys that this very table has.
    pub fn keys_of(&self, oid: Oid) -> impl Iterator<Item = &ForeignKey> {
        self.by_referencing.get(&oid).into_iter().flatten().map(|index| &self.foreign_keys[*index])
    }

    /// The table and everything below it: partitions at every level and inheritance children.
    pub fn descendants(&self, oid: Oid) -> BTreeSet<Oid> {
        walk(oid, |at| self.children.get(&at).map_or(&[], Vec::as_slice), |_| true)
    }

    /// The table and its partitions at every level, not its inheritance children.
    pub fn partitions(&self, oid: Oid) -> BTreeSet<Oid> {
        let is_partition = |at: Oid| self.table(at).is_some_and(|table| table.is_partition);
        walk(oid, |at| self.children.get(&at).map_or(&[], Vec::as_slice), is_partition)
    }

    /// The partitioned tables this table is a partition of, nearest first.
    pub fn partition_ancestors(&self, oid: Oid) -> Vec<Oid> {
        let mut ancestors = Vec::new();
        let mut at = oid;
        while let Some(parent) =
            self.table(at).filter(|table| table.is_partition).and_then(|table| table.parents.first())
        {
            ancestors.push(*parent);
            at = *parent;
        }
        ancestors
    }

    /// Every table this table is a partition or an inheritance child of, at any level.
    pub fn ancestors(&self, oid: Oid) -> BTreeSet<Oid> {
        let mut ancestors = walk(oid, |at| self.table(at).map_or(&[], |table| table.parents.as_slice()), |_| true);
        ancestors.remove(&oid);
        ancestors
    }

    /// The tables that hold rows and are counted, among the table and its partitions.
    pub fn leaves(&self, oid: Oid) -> BTreeSet<Oid> {
        let holds_rows = |at: &Oid| self.table(*at).is_some_and(|table| table.kind == TableKind::Ordinary);
        self.partitions(oid).into_iter().filter(holds_rows).collect()
    }

    /// Estimated rows of the table with its partitions.
    pub fn rows(&self, oid: Oid) -> f64 {
        self.leaves(oid).iter().filter_map(|leaf| self.table(*leaf)).map(|table| table.rows).sum()
    }
}

fn walk<'a>(from: Oid, next: impl Fn(Oid) -> &'a [Oid], follow: impl Fn(Oid) -> bool) -> BTreeSet<Oid> {
    let mut seen = BTreeSet::from([from]);
    let mut queue = vec![from];
    while let Some(at) = queue.pop() {
        for child in next(at) {
            if follow(*child) && seen.insert(*child) {
                queue.push(*child);
            }
        }
    }
    seen
}
