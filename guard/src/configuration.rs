//! pgrail's own tables in a guarded database, as plain structs. Serialised as `configure.sql` and `configuration.sql` have them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::catalog::Oid;
use crate::spec::{GuardName, Protect, TableLimits};

/// Everything that is configured in one database, for all its guards. Each list is sorted by identifier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The managing cluster.
    pub owner: String,
    /// The guards.
    pub guards: Vec<GuardRow>,
    /// The tables that have a gate or are a root.
    pub relations: Vec<RelationRow>,
    /// Which guard holds which root.
    pub assignments: Vec<Assignment>,
    /// The closures.
    pub members: Vec<MemberRow>,
}

/// One guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardRow {
    /// Its number in this database.
    pub id: i32,
    /// Its name.
    pub name: GuardName,
    /// Whether it stops statements or only warns.
    pub enforce: bool,
}

/// One table that has a gate, or is a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRow {
    /// Its number in this database: part of the names of its functions and triggers.
    pub id: i32,
    /// The table.
    pub rel: Oid,
    /// `schema.table`
    pub label: String,
    /// The roots whose deletes reach this root.
    pub above: BTreeSet<i32>,
}

/// One guard's hold on one root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "a row of pgrail.assignment")]
pub struct Assignment {
    /// Its number in this database: part of the name of its counter.
    pub id: i32,
    /// The root's number.
    pub root: i32,
    /// The guard's number.
    pub guard: i32,
    /// See [`TableLimits`].
    pub max_rows: i64,
    /// See [`TableLimits`].
    pub max_cascade_rows: i64,
    /// See [`TableLimits`].
    pub max_transaction_rows: Option<i64>,
    /// See [`TableLimits`].
    pub max_updated_rows: Option<i64>,
    /// See [`Protect`].
    pub protect_delete: bool,
    /// See [`Protect`].
    pub protect_truncate: bool,
    /// See [`Protect`].
    pub protect_drop: bool,
    /// See [`Protect`].
    pub protect_drop_partition: bool,
}

impl Assignment {
    /// An assignment with these limits and protections.
    pub fn new(id: i32, root: i32, guard: i32, limits: TableLimits, protect: Protect) -> Self {
        let TableLimits { max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows } = limits;
        let Protect { delete, truncate, drop, drop_partition } = protect;
        Self {
            id,
            root,
            guard,
            max_rows,
            max_cascade_rows,
            max_transaction_rows,
            max_updated_rows,
            protect_delete: delete,
            protect_truncate: truncate,
            protect_drop: drop,
            protect_drop_partition: drop_partition,
        }
    }
}

/// One table of a root's closure, or of the root's own tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// The root's number.
    pub root: i32,
    /// The table.
    pub rel: Oid,
    /// What happens to its rows.
    pub effect: MemberEffect,
    /// How it is reached, for people.
    pub path: String,
}

/// What happens to the rows of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemberEffect {
    /// They are deleted.
    #[serde(rename = "d")]
    Deleted,
    /// They are the root's own rows.
    #[serde(rename = "r")]
    Root,
    /// They are updated: their key is set to NULL or its default.
    #[serde(rename = "u")]
    Updated,
}

impl Configuration {
    /// The number of a guard.
    pub fn guard_id(&self, name: &GuardName) -> Option<i32> {
        self.guards.iter().find(|guard| guard.name == *name).map(|guard| guard.id)
    }

    /// The relation with this number.
    pub fn relation(&self, id: i32) -> Option<&RelationRow> {
        self.relations.iter().find(|relation| relation.id == id)
    }

    /// The relation of this table.
    pub fn relation_of(&self, rel: Oid) -> Option<&RelationRow> {
        self.relations.iter().find(|relation| relation.rel == rel)
    }
}
