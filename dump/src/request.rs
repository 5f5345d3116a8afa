//! A dump to be made.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use pgrail_postgres::{AddressPolicy, ConnectionSettings};
use serde::{Deserialize, Serialize};

use crate::{BackupIdentity, Filter, RowsKey, UploadLimits};

/// A dump to be made.
#[derive(Debug, Clone)]
pub struct DumpRequest {
    /// The database.
    pub connection: ConnectionSettings,
    /// The addresses that its host may have.
    pub addresses: AddressPolicy,
    /// How the archive is compressed.
    pub compression: Compression,
    /// What is left out.
    pub filter: Filter,
    /// Whether roles and memberships are written beside the dump.
    pub globals: bool,
    /// Where the expected row counts are from.
    pub row_counts: RowCounts,
    /// How many pg_dump run at the same time, each for some of the tables and into an archive of its own, under the same
    /// snapshot. They share the memory of one.
    pub jobs: u32,
    /// Whose dump it is, and so where it goes.
    pub identity: BackupIdentity,
    /// Recipients of age (`age1…`) that the archive is encrypted for; none leaves it plain.
    pub age_recipients: Vec<String>,
    /// The key that the row counts of an encrypted dump are encrypted with for the next run; none: they are in the index only.
    pub rows_key: Option<RowsKey>,
    /// The directory of `pg_dump` and `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
    /// How long pg_dump waits for a table that someone else locks.
    pub lock_wait: Duration,
    /// How the archive is cut into parts and segments.
    pub upload: UploadLimits,
    /// The clock of times that are not the server's.
    pub clock: fn() -> Timestamp,
}

impl DumpRequest {
    /// A dump of everything, with the defaults of the API: zstd at level 3, exact counts, globals.
    pub fn new(connection: ConnectionSettings, identity: BackupIdentity) -> Self {
        Self {
            connection,
            addresses: AddressPolicy::any(),
            compression: Compression::default(),
            filter: Filter::default(),
            globals: true,
            row_counts: RowCounts::Exact,
            jobs: 1,
            identity,
            age_recipients: Vec::new(),
            rows_key: None,
            client_directory: None,
            lock_wait: Duration::from_mins(10),
            upload: UploadLimits::default(),
            clock: Timestamp::now,
        }
    }
}

/// Where the row counts that an archive is measured by are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RowCounts {
    /// Counted by the server under the dump's snapshot, beside the dump: a second reading of every table.
    #[default]
    Exact,
    /// Counted in the archive while it is written.
    Archive,
}

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compression {
    /// The method.
    pub method: CompressionMethod,
    /// Its level; none means the method's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
}

impl Default for Compression {
    fn default() -> Self {
        Self { method: CompressionMethod::Zstd, level: Some(3) }
    }
}

/// A method of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionMethod {
    /// Zstandard, levels 1 to 22; clients of 16 and later.
    Zstd,
    /// As gzip, levels 1 to 9; every client.
    Gzip,
    /// LZ4, levels 1 to 12; clients of 16 and later.
    Lz4,
    /// Not at all.
    None,
}

/// A compression that is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// The client is too old for the method.
    #[error("pg_dump {client} cannot compress with {method}, which needs 16 or later: use gzip")]
    Method {
        /// The method.
        method: &'static str,
        /// The client's version.
        client: String,
    },
    /// The level is not one of the method's.
    #[error("{method} has levels {lowest} to {highest}, not {level}")]
    Level {
        /// The method.
        method: &'static str,
        /// What was asked for.
        level: i32,
        /// The lowest that there is.
        lowest: i32,
        /// The highest.
        highest: i32,
    },
}

impl CompressionMethod {
    /// The method as pg_dump and the API write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }

    const fn highest_level(self) -> i32 {
        match self {
            Self::Zstd => 22,
            Self::Gzip => 9,
            Self::Lz4 => 12,
            Self::None => 0,
        }
    }
}

impl Compression {
    /// The value of pg_dump's `--compress`, which clients before 16 know as a number only.
    pub(crate) fn argument(self, client_major: u32, client: &str) -> Result<String, CompressionError> {
        let method = self.method.as_str();
        let highest = self.method.highest_level();
        // A level beside `none` means nothing, and is what remains of the defaults when only the method is set.
        let level = self.level.filter(|_| self.method != CompressionMethod::None);
        if let Some(level) = level.filter(|level| !(1..=highest).contains(level)) {
            return Err(CompressionError::Level { method, level, lowest: 1, highest });
        }
        if client_major >= 16 {
            return Ok(level.map_or_else(|| method.to_owned(), |level| format!("{method}:{level}")));
        }
        match self.method {
            CompressionMethod::Gzip => Ok(level.unwrap_or(6).to_string()),
            CompressionMethod::None => Ok("0".to_owned()),
            CompressionMethod::Zstd | CompressionMethod::Lz4 => {
                Err(CompressionError::Method { method, client: client.to_owned() })
            }
        }
    }
}

/// How far a dump or a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The database and the store were found fit; `tables` tables and `bytes` bytes on the server's disk are ahead.
    Started {
        /// Tables with rows.
        tables: usize,
        /// Size of the whole database on the server's disk.
        database_bytes: u64,
    },
    /// Bytes of the archive so far.
    Written {
        /// Since the beginning.
        bytes: u64,
    },
    /// Tables whose rows were counted.
    Counted {
        /// So far.
        tables: usize,
        /// Of.
        of: usize,
    },
    /// Bytes read back from the store so far.
    ReadBack {
        /// Since the beginning.
        bytes: u64,
        /// Of.
        of: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_follows_the_client() {
        let argument = |method, level, major| Compression { method, level }.argument(major, "x");
        assert_eq!(argument(CompressionMethod::Zstd, Some(3), 18).unwrap(), "zstd:3");
        assert_eq!(argument(CompressionMethod::None, Some(3), 18).unwrap(), "none");
        assert_eq!(argument(CompressionMethod::Gzip, None, 15).unwrap(), "6");
        assert_eq!(argument(CompressionMethod::None, Some(3), 15).unwrap(), "0");
        assert!(matches!(argument(CompressionMethod::Zstd, Some(3), 15), Err(CompressionError::Method { .. })));
        assert!(matches!(argument(CompressionMethod::Gzip, Some(10), 18), Err(CompressionError::Level { .. })));
        assert!(matches!(argument(CompressionMethod::Zstd, Some(0), 18), Err(CompressionError::Level { .. })));
    }
}
