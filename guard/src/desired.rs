//! What has to be in a database for a configuration to hold. Types only.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Oid;
use crate::closure::Closure;
use crate::configuration::{Assignment, Configuration};
use crate::gate::RootChecks;

/// One root with everything that follows from it.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub(crate) oid: Oid,
    pub(crate) closure: Closure,
    pub(crate) checks: RootChecks,
    pub(crate) assignments: Vec<Assignment>,
    /// The roots whose deletes reach this one.
    pub(crate) above: BTreeSet<i32>,
}

/// The state of a database in which a configuration holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    pub(crate) configuration: Configuration,
    pub(crate) roots: BTreeMap<i32, Root>,
    /// `CREATE OR REPLACE FUNCTION …` by name.
    pub(crate) routines: BTreeMap<String, String>,
    /// What follows the name in `CREATE TRIGGER`, with the table's name in place.
    pub(crate) triggers: BTreeMap<(Oid, String), String>,
    /// Empty tables whose counters are what was allowed in a transaction.
    pub(crate) allowed: BTreeSet<String>,
    /// Counters, one per assignment; notes, one per root with a limit of updates.
    pub(crate) sequences: BTreeSet<String>,
    /// The owners whose tables' rows are captured, and whether their stores have row level security.
    pub(crate) stores: BTreeMap<Oid, bool>,
    /// How far a table is from the nearest root, by foreign keys: the farthest are installed first.
    pub(crate) distance: BTreeMap<Oid, usize>,
}

/// Hands out numbers that nothing in the database has, not even what an earlier, interrupted change left behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) guard: i32,
    pub(crate) relation: i32,
    pub(crate) assignment: i32,
    pub(crate) allowance: i32,
}

impl Numbers {
    pub(crate) fn next(number: &mut i32) -> i32 {
        *number += 1;
        *number
    }
}
