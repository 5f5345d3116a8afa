//! Rows that are restored into the tables that they came from: as an undo does it from captured rows, and a restore of
//! rows from a backup.
//!
//! What both need to know of a table ([`Table`]), the order in which rows are inserted ([`in_order`]), and the SQL by which
//! rows are identified ([`all_equal`], [`named`]). Pure: it neither connects to a server nor reads a file.

mod order;
mod sql;
mod table;

pub use order::in_order;
pub use sql::{all_equal, named};
pub use table::{Column, Key, Oid, Reference, Table};
