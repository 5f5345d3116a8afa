//! pgrail's own tables in a guarded database, as plain structs. Serialised as `configure.sql` and `configuration.sql` have them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::catalog::Oid;
use crate::spec::{Capture, GuardName, Operation, PartialLimits, Protect, TableLimits, Window};
use crate::sql::digest;

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
    /// Allowances to go beyond them.
    pub allowances: Vec<AllowanceRow>,
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
    /// Whether, and within which bounds, deleted rows are kept.
    pub capture: Option<Capture>,
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
    /// See [`TableLimits`].
    #[serde(default)]
    pub window: Option<Window>,
    /// See [`Protect`].
    pub protect_delete: bool,
    /// See [`Protect`].
    pub protect_truncate: bool,
    /// See [`Protect`].
    pub protect_drop: bool,
    /// See [`Protect`].
    pub protect_drop_partition: bool,
    /// See [`Protect`].
    #[serde(default)]
    pub protect_drop_column: bool,
}

impl Assignment {
    /// An assignment with these limits and protections.
    pub fn new(id: i32, root: i32, guard: i32, limits: TableLimits, protect: Protect) -> Self {
        let TableLimits { max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows, window } = limits;
        let Protect { delete, truncate, drop, drop_partition, drop_column } = protect;
        Self {
            id,
            root,
            guard,
            max_rows,
            max_cascade_rows,
            max_transaction_rows,
            max_updated_rows,
            window,
            protect_delete: delete,
            protect_truncate: truncate,
            protect_drop: drop,
            protect_drop_partition: drop_partition,
            protect_drop_column: drop_column,
        }
    }
}

/// A login role's allowance to go beyond a guard's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceRow {
    /// Its number in this database.
    pub id: i32,
    /// The numbers of the guards.
    pub guards: BTreeSet<i32>,
    /// Which exemption it is of; `None`: the guard declares it.
    pub exemption: Option<String>,
    /// Which object of that name.
    pub object: Option<String>,
    /// The login role.
    pub role: String,
    /// For what.
    pub operations: Vec<Operation>,
    /// The numbers of the roots it is for; `None`: every root of the guards.
    pub roots: Option<BTreeSet<i32>>,
    /// No limits at all.
    pub unlimited: bool,
    /// What holds in place of the guard's limits.
    #[serde(flatten)]
    pub limits: PartialLimits,
    /// Seconds since 1970 from which on it holds.
    pub not_before: Option<i64>,
    /// Seconds since 1970 up to which it holds.
    pub not_after: Option<i64>,
    /// Rows over its whole life.
    pub total_rows: Option<i64>,
}

impl AllowanceRow {
    /// Whether it is for this root, if one of its guards holds it.
    pub fn is_for(&self, root: i32) -> bool {
        self.roots.as_ref().is_none_or(|roots| roots.contains(&root))
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
    /// A fingerprint, to find later whether the rows are still those that were written.
    pub fn digest(&self) -> String {
        digest(&serde_json::to_string(self).unwrap_or_default())
    }

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
