//! A table that rows are restored into, as it is now.

use serde::Deserialize;

/// An object identifier of PostgreSQL.
pub type Oid = u32;

/// A table that rows are restored into, as it is now. Identifiers are quoted by the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Table {
    /// Its object identifier, or that of a table that no longer exists.
    pub rel: Oid,
    /// `schema.table` for people.
    pub label: String,
    /// `schema.table` ready for SQL; `None` where the table no longer exists.
    pub ident: Option<String>,
    /// As which rows are restored; `None` where the table no longer exists.
    pub owner: Option<Oid>,
    /// The owner's name.
    pub owner_name: Option<String>,
    /// Whether row level security holds for the owner too.
    pub forced: bool,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// Its columns, without dropped ones.
    pub columns: Vec<Column>,
    /// Unique keys that are no expressions and have no predicate, the primary key first.
    pub unique_keys: Vec<Key>,
    /// Its foreign keys.
    pub references: Vec<Reference>,
    /// The table, its partitions, and the tables that it is a partition of.
    pub family: Vec<Oid>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// `attnum`
    pub number: i32,
    /// Its name, ready for SQL.
    pub ident: String,
    /// Type and collation, ready for SQL.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the server computes its value.
    pub generated: bool,
}

/// A unique key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Key {
    /// Whether it is the primary key.
    pub primary: bool,
    /// Whether none of its columns can be NULL.
    pub not_null: bool,
    /// Its columns, ready for SQL.
    pub columns: Vec<String>,
    /// The equality operator of each, ready for SQL.
    pub operators: Vec<String>,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// The referenced table, ready for SQL.
    pub ident: String,
    /// The same for people.
    pub label: String,
    /// Whether the referenced table is partitioned.
    pub partitioned: bool,
    /// Whether the owner of the referencing table sees all rows of the referenced one.
    pub readable: bool,
    /// The referencing columns, ready for SQL.
    pub columns: Vec<String>,
    /// Their `attnum`.
    pub numbers: Vec<i32>,
    /// The referenced columns, ready for SQL.
    pub referenced: Vec<String>,
    /// The equality operator of each pair, ready for SQL.
    pub operators: Vec<String>,
    /// The referenced table, its partitions, and the tables that it is a partition of.
    pub family: Vec<Oid>,
}

impl Table {
    /// The key that identifies a row.
    pub fn identity(&self) -> Option<&Key> {
        self.unique_keys.iter().find(|key| key.primary || key.not_null)
    }

    /// `ONLY`, where it is needed: rows of inheritance children are not the table's own.
    pub fn only(&self) -> &'static str {
        if self.partitioned { "" } else { "ONLY " }
    }
}
