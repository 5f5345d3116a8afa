//! What is inside an archive of pg_dump, told by pg_restore: it is known to decode before it is called a backup.

mod contents;
mod decoder;
mod rows;

pub use contents::Contents;
pub(crate) use contents::ContentsReader;
pub use decoder::DecodeError;
pub(crate) use decoder::{Decoded, Decoder};
pub(crate) use rows::{ArchiveRows, RowReader, TableName};
