//! Who could undo or pass the guards: facts for the condition `TamperResistant`.

use std::collections::BTreeSet;

use serde::Deserialize;
use tokio_postgres::Client;

use crate::catalog::Oid;
use crate::observe::ObserveError;

/// Login roles that could undo or pass the guards, besides superusers and pgrail's own role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TamperFacts {
    /// For each guarded table.
    pub tables: Vec<TableTamper>,
    /// May set `session_replication_role`: with it, triggers that do not fire ALWAYS are passed.
    pub replica_role: Vec<String>,
    /// May turn `track_counts` off, or have it off: their sessions count no rows, and nothing is stopped there.
    pub uncounted: Vec<String>,
    /// Are members of the role that owns pgrail's schema, and may change its functions and limits.
    pub function_owner: Vec<String>,
}

/// The same for one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct TableTamper {
    /// `schema.table`
    pub table: String,
    /// Its owner.
    pub owner: String,
    /// Can act as its owner, so can disable or drop triggers.
    pub can_disable: Vec<String>,
    /// Can act as the owner of its schema, so can drop the table.
    pub can_drop_with_schema: Vec<String>,
    /// Have the TRIGGER privilege without owning it, so can replace triggers.
    pub can_replace_triggers: Vec<String>,
    /// Can delete from it or truncate it: the roles that the guard is there for.
    pub can_delete: Vec<String>,
}

impl TamperFacts {
    /// The login roles that can delete from, or truncate, any of the tables.
    pub fn application_roles(&self) -> BTreeSet<&str> {
        self.tables.iter().flat_map(|table| &table.can_delete).map(String::as_str).collect()
    }
}

/// Reads who could tamper with the guards on these tables. System catalogs only.
pub async fn read(client: &Client, tables: &[Oid]) -> Result<TamperFacts, ObserveError> {
    let row = client.query_one(include_str!("sql/tamper.sql"), &[&tables]).await?;
    Ok(serde_json::from_str(row.try_get(0)?)?)
}
