//! Where the rows of each table are in an archive, read from its framing while it is written.
//!
//! An archive that pg_dump writes to a pipe has no offsets in its table of contents. Its framing shows them: after the head
//! (header and table of contents) come the blocks, each with the number of its entry. The head and one block are an archive
//! that pg_restore restores.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TableName;
use crate::text::hex;

/// The newest version of the archive's form that is read here. pg_dump 17 and 18 write it.
const NEWEST: (u8, u8) = (1, 16);
/// The oldest: pg_dump 12 to 15.
const OLDEST: (u8, u8) = (1, 14);
/// More than any entry of a table of contents can have.
const LARGEST_TEXT: usize = 1 << 30;
/// What a block of rows begins with.
const ROWS: u8 = 1;
/// What a block of large objects begins with.
const LARGE_OBJECTS: u8 = 3;
/// What a table of contents calls the rows of a table.
const TABLE_DATA: &[u8] = b"TABLE DATA";

/// The beginning of an archive up to the first block: header and table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of these bytes, in hexadecimal.
    pub sha256: String,
}

/// The part of an archive with the rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Which archive of the dump, if it has several.
    #[serde(default, skip_serializing_if = "is_first")]
    pub archive: u32,
    /// The number of its entry in the table of contents.
    pub entry: u32,
    /// Where it begins, in bytes from the beginning of the archive.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of these bytes, in hexadecimal.
    pub sha256: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_first(archive: &u32) -> bool {
    *archive == 0
}

/// Where everything is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// `None` if the archive has a form that is not known here: it has no index then.
    pub(crate) head: Option<Head>,
    pub(crate) tables: BTreeMap<TableName, Block>,
}

/// An archive whose framing is not that of its version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("it is not an archive in the custom format")]
    Magic,
    #[error("its table of contents cannot be read")]
    Contents,
    #[error("byte {0} begins no block")]
    Block(u64),
    #[error("it ends within a block")]
    Unfinished,
}

/// An entry of the table of contents. An absent text is empty.
pub(super) struct RawEntry<'a> {
    pub(super) number: i64,
    pub(super) kind: &'a [u8],
    pub(super) schema: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) owner: &'a [u8],
    pub(super) create: &'a [u8],
    pub(super) depends_on: Vec<&'a [u8]>,
}

/// The entries of a whole head.
pub(super) fn read_entries(head: &[u8]) -> Result<Vec<RawEntry<'_>>, FramingError> {
    let mut reader = BlockReader::default();
    let mut cursor = Cursor { bytes: head, at: 0, integer: reader.integer, offset: reader.offset, wrong: false };
    reader.header(&mut cursor)?.ok_or(FramingError::Contents)?;
    let State::Contents(count) = reader.state else { return Err(FramingError::Contents) };
    (0..count).map(|_| reader.read_entry(&mut cursor).ok_or(FramingError::Contents)).collect()
}

enum State {
    Header,
    /// So many entries of the table of contents are left.
    Contents(usize),
    /// Between blocks.
    Between,
    /// At the length of a piece, or at the number of a large object.
    Piece,
    /// So many bytes of a piece are left.
    Within(u64),
    /// The form is not known: nothing is read.
    Unknown,
}

/// Reads an archive piece by piece, and keeps nothing of it but the names of tables.
pub(crate) struct BlockReader {
    state: State,
    /// Bytes that are not read yet, since more of them are needed.
    pending: Vec<u8>,
    /// How many bytes were read.
    position: u64,
    digest: Sha256,
    version: (u8, u8),
    integer: usize,
    offset: usize,
    names: BTreeMap<u32, TableName>,
    current: Current,
    blocks: Blocks,
}

#[derive(Default)]
struct Current {
    entry: u32,
    start: u64,
    /// A block of large objects: how deep it is read.
    large: Option<Large>,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Large {
    Number,
    Content,
}

impl Default for BlockReader {
    fn default() -> Self {
        Self {
            state: State::Header,
            pending: Vec::new(),
            position: 0,
            digest: Sha256::new(),
            version: OLDEST,
            integer: 4,
            offset: 8,
            names: BTreeMap::new(),
            current: Current::default(),
            blocks: Blocks::default(),
        }
    }
}

impl BlockReader {
    pub(crate) fn read(&mut self, mut data: &[u8]) -> Result<(), FramingError> {
        while !data.is_empty() {
            if let State::Unknown = self.state {
                return Ok(());
            }
            if let State::Within(left) = self.state {
                // Nearly all bytes: they are hashed where they are.
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                self.digest.update(&data[..now]);
                self.position += now as u64;
                data = &data[now..];
                let left = left - now as u64;
                self.state = if left == 0 { State::Piece } else { State::Within(left) };
                continue;
            }
            // In the head as much as there is; between pieces as little as is needed.
            let take = match self.state {
                State::Header | State::Contents(_) => data.len(),
                _ => (1 + 1 + self.integer).saturating_sub(self.pending.len()).clamp(1, data.len()),
            };
            self.pending.extend_from_slice(&data[..take]);
            data = &data[take..];
            let pending = std::mem::take(&mut self.pending);
            let used = self.parse(&pending)?;
            if let State::Unknown = self.state {
                return Ok(());
            }
            let rest = &pending[used..];
            if matches!(self.state, State::Within(_)) && !rest.is_empty() {
                // At most a few bytes.
                self.read(rest)?;
            } else {
                self.pending = rest.to_vec();
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Blocks, FramingError> {
        match self.state {
            State::Unknown => Ok(Blocks::default()),
            State::Between if self.pending.is_empty() => Ok(self.blocks),
            State::Header | State::Contents(_) => Err(FramingError::Contents),
            _ => Err(FramingError::Unfinished),
        }
    }

    /// Reads what is whole, and returns how many bytes that are.
    fn parse(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let mut used = 0;
        loop {
            let mut cursor =
                Cursor { bytes: &bytes[used..], at: 0, integer: self.integer, offset: self.offset, wrong: false };
            let step = match self.state {
                State::Header => self.header(&mut cursor)?,
                State::Contents(0) => {
                    self.end_head();
                    continue;
                }
                State::Contents(left) => self.entry(&mut cursor, left)?,
                State::Between => self.begin_block(&mut cursor)?,
                State::Piece => self.piece(&mut cursor)?,
                State::Within(_) | State::Unknown => return Ok(used),
            };
            if cursor.wrong {
                return Err(FramingError::Contents);
            }
            let Some(()) = step else { return Ok(used) };
            let read = cursor.at;
            self.digest.update(&bytes[used..used + read]);
            self.position += read as u64;
            used += read;
            if self.current.ended {
                self.end_block();
            }
        }
    }

    fn header(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<()>, FramingError> {
        let Some(magic) = cursor.take(5) else { return Ok(None) };
        if magic != b"PGDMP" {
            return Err(FramingError::Magic);
        }
        let (Some(major), Some(minor), Some(_revision)) = (cursor.byte(), cursor.byte(), cursor.byte()) else {
            return Ok(None);
        };
        self.version = (major, minor);
        if self.version > NEWEST || self.version < OLDEST {
            self.state = State::Unknown;
            return Ok(Some(()));
        }
        let (Some(integer), Some(offset), Some(format)) = (cursor.byte(), cursor.byte(), cursor.byte()) else {
            return Ok(None);
        };
        if !(1..=8).contains(&integer) || !(1..=8).contains(&offset) || format != 1 {
            return Err(FramingError::Magic);
        }
        (self.integer, self.offset) = (integer.into(), offset.into());
        (cursor.integer, cursor.offset) = (self.integer, self.offset);
        // The method of compression, or before pg_dump 16 its level.
        let compression =
            if self.version >= (1, 15) { cursor.byte().map(|_| ()) } else { cursor.integer().map(|_| ()) };
        let Some(()) = compression else { return Ok(None) };
        // When it was written, and then the names of database, server and client.
        for _ in 0..7 {
            if cursor.integer().is_none() {
                return Ok(None);
            }
        }
        for _ in 0..3 {
            if cursor.text().is_none() {
                return Ok(None);
            }
        }
        let Some(entries) = cursor.integer() else { return Ok(None) };
        self.state = State::Contents(usize::try_from(entries).map_err(|_| FramingError::Contents)?);
        Ok(Some(()))
    }

    fn entry(&mut self, cursor: &mut Cursor<'_>, left: usize) -> Result<Option<()>, FramingError> {
        let Some(entry) = self.read_entry(cursor) else { return Ok(None) };
        if entry.kind == TABLE_DATA {
            let number = u32::try_from(entry.number).map_err(|_| FramingError::Contents)?;
            let (schema, name) = (entry.schema.to_vec(), entry.name.to_vec());
            self.names.insert(number, TableName { schema, name });
        }
        self.state = State::Contents(left - 1);
        Ok(Some(()))
    }

    fn read_entry<'a>(&self, cursor: &mut Cursor<'a>) -> Option<RawEntry<'a>> {
        let number = cursor.integer()?;
        let _had_dumper = cursor.integer()?;
        let (_table, _oid) = (cursor.text()?, cursor.text()?);
        let (name, kind) = (cursor.text()?, cursor.text()?);
        let _section = cursor.integer()?;
        let (create, _drop, _copy) = (cursor.text()?, cursor.text()?, cursor.text()?);
        let (schema, _tablespace, _access_method) = (cursor.text()?, cursor.text()?, cursor.text()?);
        if self.version >= (1, 16) {
            cursor.integer()?;
        }
        let (owner, _with_oids) = (cursor.text()?, cursor.text()?);
        let mut depends_on = Vec::new();
        while let Some(other) = cursor.text()? {
            depends_on.push(other);
        }
        cursor.take(1 + self.offset)?;
        let [name, kind, create, schema, owner] = [name, kind, create, schema, owner].map(Option::unwrap_or_default);
        Some(RawEntry { number, kind, schema, name, owner, create, depends_on })
    }

    fn end_head(&mut self) {
        let sha256 = hex(&std::mem::take(&mut self.digest).finalize());
        self.blocks.head = Some(Head { length: self.position, sha256 });
        self.state = State::Between;
    }

    fn begin_block(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<()>, FramingError> {
        let (Some(kind), Some(entry)) = (cursor.byte(), cursor.integer()) else { return Ok(None) };
        let large = match kind {
            ROWS => None,
            LARGE_OBJECTS => Some(Large::Number),
            _ => return Err(FramingError::Block(self.position)),
        };
        let entry = u32::try_from(entry).map_err(|_| FramingError::Block(self.position))?;
        self.digest = Sha256::new();
        self.current = Current { entry, start: self.position, large, ended: false };
        self.state = State::Piece;
        Ok(Some(()))
    }

    fn piece(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<()>, FramingError> {
        let Some(number) = cursor.integer() else { return Ok(None) };
        if self.current.large == Some(Large::Number) && number != 0 {
            // An OID above 2^31 is written as a negative number.
            self.current.large = Some(Large::Content);
            return Ok(Some(()));
        }
        let length = u64::try_from(number).map_err(|_| FramingError::Block(self.position))?;
        match (self.current.large, length) {
            (None | Some(Large::Number), 0) => {
                self.current.ended = true;
                self.state = State::Between;
            }
            (Some(Large::Content), 0) => self.current.large = Some(Large::Number),
            (_, length) => self.state = State::Within(length),
        }
        Ok(Some(()))
    }

    fn end_block(&mut self) {
        let Current { entry, start, .. } = std::mem::take(&mut self.current);
        let digest = std::mem::take(&mut self.digest);
        if let Some(name) = self.names.remove(&entry) {
            let block = Block {
                archive: 0,
                entry,
                offset: start,
                length: self.position - start,
                sha256: hex(&digest.finalize()),
            };
            self.blocks.tables.insert(name, block);
        }
    }
}

/// Reads the numbers and texts of an archive. `None`: there are not enough bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    integer: usize,
    offset: usize,
    wrong: bool,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A sign and the bytes of a number, the lowest first.
    fn integer(&mut self) -> Option<i64> {
        let bytes = self.take(1 + self.integer)?;
        let number = bytes[1..].iter().rev().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
        Some(if bytes[0] == 0 { number } else { number.wrapping_neg() })
    }

    /// A length and so many bytes, or nothing with a length of -1.
    #[allow(clippy::option_option, reason = "not enough bytes, or a text that is absent")]
    fn text(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.integer()?;
        let Ok(length) = usize::try_from(length) else { return Some(None) };
        if length > LARGEST_TEXT {
            self.wrong = true;
            return None;
        }
        self.take(length).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn integer(number: i64) -> Vec<u8> {
        let mut bytes = vec![u8::from(number < 0)];
        bytes.extend_from_slice(&u32::try_from(number.abs()).unwrap().to_le_bytes());
        bytes
    }

    fn text(text: Option<&[u8]>) -> Vec<u8> {
        let Some(text) = text else { return integer(-1) };
        [integer(i64::try_from(text.len()).unwrap()), text.to_vec()].concat()
    }

    fn entry(number: i64, kind: &[u8], name: &[u8]) -> Vec<u8> {
        let mut entry = [integer(number), integer(1), text(Some(b"1259")), text(Some(b"16400"))].concat();
        entry.extend([text(Some(name)), text(Some(kind)), integer(3), text(None), text(None)].concat());
        entry.extend([text(Some(b"COPY")), text(Some(b"public")), text(None), text(None), integer(114)].concat());
        entry.extend([text(Some(b"owner")), text(Some(b"false")), text(Some(b"1")), text(None)].concat());
        entry.extend([1, 0, 0, 0, 0, 0, 0, 0, 0]);
        entry
    }

    /// An archive of these tables, each with the pieces of its block; and a block of two large objects.
    fn archive(tables: &[Vec<Vec<u8>>]) -> (Vec<u8>, usize, Vec<(usize, usize)>) {
        let mut bytes = b"PGDMP\x01\x10\x00\x04\x08\x01\x02".to_vec();
        bytes.extend(integer(3).repeat(7));
        bytes.extend([b"shop".as_slice(), b"18.1", b"18.6"].map(|name| text(Some(name))).concat());
        bytes.extend(integer(i64::try_from(tables.len()).unwrap() + 1));
        bytes.extend(entry(1, b"BLOBS", b"BLOBS"));
        for number in 0..tables.len() {
            bytes.extend(entry(i64::try_from(number).unwrap() + 2, TABLE_DATA, format!("t{number}").as_bytes()));
        }
        let head = bytes.len();
        bytes.extend([vec![LARGE_OBJECTS], integer(1), integer(16_400), integer(2), vec![0, 0], integer(0)].concat());
        // The OID 4000000001.
        bytes.extend([integer(-294_967_295), integer(1), vec![0], integer(0), integer(0)].concat());
        let mut blocks = Vec::new();
        for (number, pieces) in tables.iter().enumerate() {
            let start = bytes.len();
            bytes.extend([vec![ROWS], integer(i64::try_from(number).unwrap() + 2)].concat());
            pieces.iter().filter(|piece| !piece.is_empty()).for_each(|piece| bytes.extend(text(Some(piece))));
            bytes.extend(integer(0));
            blocks.push((start, bytes.len() - start));
        }
        (bytes, head, blocks)
    }

    fn read(bytes: &[u8], piece: usize) -> Result<Blocks, FramingError> {
        let mut reader = BlockReader::default();
        for piece in bytes.chunks(piece) {
            reader.read(piece)?;
        }
        reader.finish()
    }

    proptest! {
        #[test]
        fn every_block_is_found_whatever_the_pieces(
            tables in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4), 0..5),
            piece in 1_usize..200,
        ) {
            let (bytes, head, blocks) = archive(&tables);
            let found = read(&bytes, piece).unwrap();
            let sha256 = |start: usize, length: usize| hex(&Sha256::digest(&bytes[start..start + length]));
            prop_assert_eq!(found.head, Some(Head { length: head as u64, sha256: sha256(0, head) }));
            prop_assert_eq!(found.tables.len(), tables.len());
            for (number, (start, length)) in blocks.into_iter().enumerate() {
                let name = TableName { schema: b"public".to_vec(), name: format!("t{number}").into_bytes() };
                let block = Block {
                    archive: 0,
                    entry: u32::try_from(number).unwrap() + 2,
                    offset: start as u64,
                    length: length as u64,
                    sha256: sha256(start, length),
                };
                prop_assert_eq!(found.tables.get(&name), Some(&block));
            }
        }

        #[test]
        fn a_part_of_an_archive_is_an_error(cut in 1_usize..100, piece in 1_usize..50) {
            let (bytes, _, _) = archive(&[vec![vec![7; 150]]]);
            prop_assert!(read(&bytes[..bytes.len() - cut], piece).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
            let (archive, head, _) = archive(&[vec![vec![7; 20]]]);
            let _ = read(&bytes, piece);
            let _ = read(&[&archive[..head], &bytes].concat(), piece);
            let _ = read(&[&archive[..60], &bytes].concat(), piece);
        }
    }

    #[test]
    fn a_newer_form_has_no_index() {
        let (mut bytes, _, _) = archive(&[]);
        bytes[6] = 99;
        assert_eq!(read(&bytes, 3), Ok(Blocks::default()));
    }
}
