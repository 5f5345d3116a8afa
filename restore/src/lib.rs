//! The restore engine: rows of a backup into the tables that they came from, or a backup into a new database. Knows PostgreSQL and
//! object stores, and nothing of Kubernetes.
//!
//! [`restore_schema`] restores tables into a new schema, beside the live ones. [`restore_database`] restores a whole backup into a database that it creates, with pg_restore.
//!
//! [`drill`] restores a whole backup into a throwaway server, counts its rows and runs the user's queries.
//!
//! [`restore_rows`] restores rows into live tables: it only inserts, and sets links that a deletion set to NULL. These steps:
//!
//! 1. The tables are described: those that are asked for, and with `follow_cascade` their closure by foreign keys.
//! 2. The rows of these tables are copied from the store into temporary tables of the session. Nobody else can read them, no
//!    dump or publication has them, and they end with the session, also after a crash. Each block is checked before its rows
//!    are committed.
//! 3. Rows are selected by the conditions, and then those that depend on them, with the server read-only.
//! 4. In one transaction: each row is found to be missing, identical or different, missing rows are inserted, parents first,
//!    and links are set. Either all of it happens, or nothing.
//!
//! Whatever evaluates something that a role can define (domains, casts, defaults, triggers, policies, index expressions) has
//! the rights of the table's owner, see `as_owner`.

mod classify;
mod condition;
mod database;
mod drill;
mod insert;
mod outcome;
mod request;
mod rows;
mod schema;
mod select;
mod session;
mod staging;
mod table;

pub use condition::{Condition, ConditionError};
pub use database::{DatabaseRequest, DatabaseRestored, TableCounted, restore_database};
pub use drill::{DrillError, DrillQuery, DrillRequest, Expectation, ExpectationError, drill};
pub use outcome::{RestoreError, RowsRestored, TableRestored};
pub use request::{Conflicts, RestoreProgress, RowsRequest, TableSelection, Triggers};
pub use rows::{count_rows, restore_rows};
pub use schema::{SchemaRequest, SchemaRestored, restore_schema};
