//! Rows to be restored.

use std::path::PathBuf;

use pgrail_postgres::{AddressPolicy, ConnectionSettings};

use crate::condition::Condition;

/// Rows to be restored into the tables that they came from.
#[derive(Debug, Clone)]
pub struct RowsRequest {
    /// The database.
    pub connection: ConnectionSettings,
    /// The addresses that its host may have.
    pub addresses: AddressPolicy,
    /// Which rows.
    pub tables: Vec<TableSelection>,
    /// With each row, the rows of the closure that depend on it.
    pub follow_cascade: bool,
    /// What happens if a row exists and is different.
    pub conflicts: Conflicts,
    /// Whether triggers of the tables fire.
    pub triggers: Triggers,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
    /// The directory of `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
}

impl RowsRequest {
    /// These rows, with the defaults of the API.
    pub fn new(connection: ConnectionSettings, tables: Vec<TableSelection>) -> Self {
        Self {
            connection,
            addresses: AddressPolicy::any(),
            tables,
            follow_cascade: false,
            conflicts: Conflicts::Fail,
            triggers: Triggers::Fire,
            dry_run: false,
            client_directory: None,
        }
    }
}

/// Rows of one table. Names are as the catalog has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSelection {
    /// Its schema.
    pub schema: String,
    /// Its name. A partitioned table covers its partitions.
    pub name: String,
    /// Which rows; none means all.
    pub condition: Option<Condition>,
}

/// What happens if a row exists and is different: it has the same key and other values, or another row has a value of it that
/// must be unique. A row that exists and is identical is no conflict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// Nothing is restored.
    #[default]
    Fail,
    /// The existing row is kept, and the other rows are restored.
    SkipExisting,
}

/// Whether triggers of the tables fire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Triggers {
    /// They fire, as the owner of their table.
    #[default]
    Fire,
    /// They do not. Other sessions cannot write to these tables until the restore has ended.
    Skip,
}

/// How far a restore is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreProgress {
    /// The rows of a table are read from the store.
    Reading {
        /// `schema.table`
        table: String,
        /// Of this number of bytes.
        bytes: u64,
    },
    /// Rows were selected.
    Selected {
        /// So many in all tables so far.
        rows: i64,
    },
    /// The archive is restored.
    Loading {
        /// So many bytes so far.
        bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// The rows of tables were counted.
    Counted {
        /// So many tables so far.
        tables: usize,
        /// Of so many.
        of: usize,
    },
    /// Rows were inserted into a table.
    Inserted {
        /// `schema.table`
        table: String,
        /// So many.
        rows: i64,
    },
}
