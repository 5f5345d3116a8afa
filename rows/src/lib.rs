//! Rows that are restored into the tables that they came from: as an undo does it from captured rows, and a restore of
//! rows from a backup.
//!
//! What both need to know of a table ([`Table`]), the order in which rows are inserted ([`in_order`]), the SQL by which
//! rows are identified ([`all_equal`], [`named`]), and how statements are run with the rights of a table's owner
//! ([`AsOwner`]). It opens no connection and reads no file.

mod as_owner;
mod order;
mod sql;
mod table;

pub use as_owner::{Access, AsOwner, AsOwnerError, Function, READING, TEMPORARY};
pub use order::in_order;
pub use sql::{all_equal, named};
pub use table::{Column, Key, Oid, Reference, Table};
