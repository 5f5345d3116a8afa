//! The contents of an archive, as pg_restore reads them.

mod attver;
mod blocks;
mod contents;
mod decoder;
mod entries;
mod merge;
mod rows;

pub(crate) use attver::without_attver;
pub use blocks::{Block, Head};
pub(crate) use blocks::{BlockReader, Blocks, FramingError};
pub use contents::Contents;
pub(crate) use contents::ContentsReader;
pub use decoder::DecodeError;
pub(crate) use decoder::{Decoded, Decoder};
pub use entries::Entry;
pub(crate) use entries::entries;
#[cfg(test)]
pub(crate) use entries::entry;
pub(crate) use merge::{Merged, merge};
pub(crate) use rows::{ArchiveRows, RowReader, TableName};
