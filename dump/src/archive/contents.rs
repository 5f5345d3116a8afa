//! The table of contents of an archive, as `pg_restore --list` prints it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::text::hex;

/// The table of contents of an archive in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// How many entries it has: everything that pg_restore would do.
    pub entries: u64,
    /// How many of them are rows of a table.
    pub table_data: u64,
    /// SHA-256 of the entries' lines, in hexadecimal.
    pub sha256: String,
}

impl Contents {
    /// Of several archives together; of one, its own.
    pub(crate) fn together<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let mut each = all.clone();
        if let (Some(only), None) = (each.next(), each.next()) {
            return only.clone();
        }
        let mut digest = Sha256::new();
        let mut sum = Self::default();
        for contents in all {
            sum.entries += contents.entries;
            sum.table_data += contents.table_data;
            digest.update(&contents.sha256);
        }
        Self { sha256: hex(&digest.finalize()), ..sum }
    }
}

/// Reads the output of `pg_restore --list` piece by piece: a catalog of thousands of tables is megabytes of text.
#[derive(Default)]
pub(crate) struct ContentsReader {
    line: Vec<u8>,
    entries: u64,
    table_data: u64,
    digest: Sha256,
}

impl ContentsReader {
    pub(crate) fn read(&mut self, mut data: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', data) {
            self.line.extend_from_slice(&data[..end]);
            self.end_line();
            data = &data[end + 1..];
        }
        self.line.extend_from_slice(data);
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        // Lines of the header start with a semicolon; names never break a line, pg_restore replaces what would.
        if line.is_empty() || line.starts_with(b";") {
            return;
        }
        self.entries += 1;
        // `4021; 0 16386 TABLE DATA public users postgres`
        let description = line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or_default();
        if description.starts_with(b"TABLE DATA ") {
            self.table_data += 1;
        }
        self.digest.update(&line);
        self.digest.update(b"\n");
    }

    pub(crate) fn finish(mut self) -> Contents {
        if !self.line.is_empty() {
            self.end_line();
        }
        Contents { entries: self.entries, table_data: self.table_data, sha256: hex(&self.digest.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b";\n; Archive created at 2026-11-23 02:15:00 UTC\n;     dbname: shop\n;\n\
        218; 1259 16386 TABLE public users postgres\n\
        4021; 0 16386 TABLE DATA public users postgres\n\
        4022; 0 16391 TABLE DATA public odd name postgres\n\
        4023; 0 0 SEQUENCE SET public users_id_seq postgres\n";

    #[test]
    fn entries_are_counted_whatever_the_pieces() {
        let mut whole = ContentsReader::default();
        whole.read(LIST);
        let whole = whole.finish();
        assert_eq!((whole.entries, whole.table_data), (4, 2));
        for size in [1, 3, 17] {
            let mut reader = ContentsReader::default();
            LIST.chunks(size).for_each(|piece| reader.read(piece));
            assert_eq!(reader.finish(), whole);
        }
        let mut other = ContentsReader::default();
        other.read(&LIST[..LIST.len() - 60]);
        assert_ne!(other.finish().sha256, whole.sha256);
    }
}
