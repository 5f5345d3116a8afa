//! Counting the rows of an archive in the script that `pg_restore --data-only` makes of it.
//!
//! The script is SQL with the rows of each table behind its `COPY … FROM stdin;`. Names may hold anything, line ends and
//! text that looks like a `COPY` included, so statements are split as the server does: by quotes, not by lines.

use std::collections::BTreeMap;

use super::Blocks;
use crate::TablesDiffer;

/// How much of a statement is kept: the names at its start; what follows does not matter.
const STATEMENT_START: usize = 4096;

/// The same where its columns matter, too: 1,600 of them, with names of up to 63 bytes, quoted.
const WHOLE_STATEMENT: usize = 512 * 1024;

/// The line after the last row.
const END: &[u8] = b"\\.";

/// How `COPY` statements end, right before the semicolon.
const COPY_END: &[u8] = b" FROM stdin";

/// A table as the archive names it. Names of databases that are not UTF-8 are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableName {
    pub(crate) schema: Vec<u8>,
    pub(crate) name: Vec<u8>,
}

/// What an archive holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ArchiveRows {
    /// The rows of every table that has a `COPY`, empty ones included.
    pub(crate) tables: BTreeMap<TableName, u64>,
    /// Partitions whose `COPY` names another table: pg_dump has the server distribute the rows of a table that is partitioned by the
    /// hash of an enum, since these hashes differ in another database.
    pub(crate) through: BTreeMap<TableName, TableName>,
    /// Each `COPY` in order.
    pub(crate) copies: Vec<(TableName, u64)>,
    /// How many large objects.
    pub(crate) large_objects: u64,
}

impl ArchiveRows {
    /// Names the rows by the entries of the table of contents, whose order is that of the script.
    pub(crate) fn by_entry(&mut self, blocks: &Blocks) {
        let mut entries: Vec<_> = blocks.tables.iter().collect();
        // An archive of a form that is not known has no index.
        if entries.len() != self.copies.len() {
            return;
        }
        entries.sort_by_key(|(_, block)| block.offset);
        self.tables.clear();
        for ((name, _), (copied, rows)) in entries.into_iter().zip(std::mem::take(&mut self.copies)) {
            if *name != copied {
                self.through.insert(name.clone(), copied);
            }
            self.tables.insert(name.clone(), rows);
        }
    }

    /// Adds what another archive of the same dump holds. No table is in two of them.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), TablesDiffer> {
        self.large_objects += other.large_objects;
        self.through.extend(other.through);
        for (table, rows) in other.tables {
            let shown = format!("{}.{}", String::from_utf8_lossy(&table.schema), String::from_utf8_lossy(&table.name));
            if self.tables.insert(table, rows).is_some() {
                return Err(TablesDiffer(vec![format!("{shown} is in two archives")]));
            }
        }
        Ok(())
    }
}

/// A script that is not what pg_restore writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("the rows of {0} do not end")]
    Unfinished(String),
    #[error("a COPY statement cannot be read: {0}")]
    Copy(String),
    #[error("the script ends inside a statement")]
    Truncated,
}

enum State {
    /// Between or inside statements.
    Statement,
    /// Inside `'…'`; a doubled quote merely leaves and enters again.
    Literal,
    /// Inside `"…"`.
    Identifier,
    /// Behind `--` or a `\` that starts a line, up to the line's end.
    Comment,
    /// Between a `COPY` and the first of its rows.
    BeforeRows,
    /// Rows, up to a line `\.`. `seen` is how much of this line was seen, and whether it may still be the end.
    Rows { seen: usize, end: bool },
}

/// Reads the script piece by piece.
pub(crate) struct RowReader {
    state: State,
    start: Vec<u8>,
    tail: Vec<u8>,
    blank: bool,
    line_start: bool,
    dash: bool,
    table: Option<TableName>,
    count: u64,
    found: ArchiveRows,
    statement_limit: usize,
    /// The rows, where they are wanted.
    kept: Option<Kept>,
}

/// The rows of a script of one table.
#[derive(Default)]
pub(crate) struct Kept {
    /// The columns of its `COPY`, as soon as that was read.
    pub(crate) columns: Option<Vec<Vec<u8>>>,
    /// Rows that were read and not yet taken.
    pub(crate) rows: Vec<u8>,
}

impl Default for RowReader {
    fn default() -> Self {
        Self {
            state: State::Statement,
            start: Vec::new(),
            tail: Vec::new(),
            blank: true,
            line_start: true,
            dash: false,
            table: None,
            count: 0,
            found: ArchiveRows::default(),
            statement_limit: STATEMENT_START,
            kept: None,
        }
    }
}

impl RowReader {
    /// Keeps the rows, of a script of one table.
    pub(crate) fn keeping() -> Self {
        Self { statement_limit: WHOLE_STATEMENT, kept: Some(Kept::default()), ..Self::default() }
    }

    /// The rows that were read since the last time, and the columns.
    pub(crate) fn kept(&mut self) -> Option<&mut Kept> {
        self.kept.as_mut()
    }

    pub(crate) fn read(&mut self, mut data: &[u8]) -> Result<(), ScriptError> {
        while !data.is_empty() {
            let used = match self.state {
                State::Rows { seen, end } => self.rows(data, seen, end),
                State::Statement => self.statement(data)?,
                State::Literal => self.quoted(data, b'\''),
                State::Identifier => self.quoted(data, b'"'),
                State::Comment | State::BeforeRows => self.rest_of_line(data),
            };
            data = &data[used..];
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<ArchiveRows, ScriptError> {
        match (self.state, &self.table) {
            (State::Statement, None) if self.blank => Ok(self.found),
            (State::Comment, None) => Ok(self.found),
            (_, Some(table)) => Err(ScriptError::Unfinished(display(table))),
            _ => Err(ScriptError::Truncated),
        }
    }

    /// Rows are lines; their text escapes line ends and backslashes, so a line `\.` can only be the end.
    fn rows(&mut self, data: &[u8], mut seen: usize, mut end: bool) -> usize {
        let mut at = 0;
        // What may have been the end of the rows, and so was not kept yet.
        let mut held = if end { seen } else { 0 };
        for line_end in memchr::memchr_iter(b'\n', data) {
            if is_end(&data[at..line_end], seen, end, true) {
                self.keep_rows(0, &data[..at]);
                self.end_table();
                return line_end + 1;
            }
            self.count += 1;
            self.keep_rows(std::mem::take(&mut held), &[]);
            at = line_end + 1;
            (seen, end) = (0, true);
        }
        let rest = &data[at..];
        end = is_end(rest, seen, end, false);
        if end {
            self.keep_rows(0, &data[..at]);
        } else {
            self.keep_rows(held, data);
        }
        self.state = State::Rows { seen: seen + rest.len(), end };
        data.len()
    }

    /// Keeps bytes of rows, after so many that were held back.
    fn keep_rows(&mut self, held: usize, data: &[u8]) {
        if let Some(kept) = &mut self.kept {
            kept.rows.extend_from_slice(&END[..held]);
            kept.rows.extend_from_slice(data);
        }
    }

    fn end_table(&mut self) {
        if let Some(table) = self.table.take() {
            self.found.copies.push((table.clone(), self.count));
            *self.found.tables.entry(table).or_default() += self.count;
        }
        self.count = 0;
        self.begin_statement();
        self.line_start = true;
    }

    fn begin_statement(&mut self) {
        self.state = State::Statement;
        self.start.clear();
        self.tail.clear();
        self.blank = true;
        self.dash = false;
    }

    fn statement(&mut self, data: &[u8]) -> Result<usize, ScriptError> {
        for (at, &byte) in data.iter().enumerate() {
            let line_start = std::mem::replace(&mut self.line_start, byte == b'\n');
            let dash = std::mem::replace(&mut self.dash, byte == b'-');
            match byte {
                b'\'' => {
                    self.keep(byte);
                    self.state = State::Literal;
                    return Ok(at + 1);
                }
                b'"' => {
                    self.keep(byte);
                    self.state = State::Identifier;
                    return Ok(at + 1);
                }
                b'-' if dash => {
                    // The first dash was kept; a comment is no part of a statement.
                    self.start.pop();
                    self.blank = self.start.iter().all(u8::is_ascii_whitespace);
                    self.dash = false;
                    self.state = State::Comment;
                    return Ok(at + 1);
                }
                b'\\' if line_start && self.blank => {
                    self.state = State::Comment;
                    return Ok(at + 1);
                }
                b';' => {
                    self.end_statement()?;
                    return Ok(at + 1);
                }
                _ if self.blank && byte.is_ascii_whitespace() => {}
                _ => self.keep(byte),
            }
        }
        Ok(data.len())
    }

    fn keep(&mut self, byte: u8) {
        self.blank = false;
        if self.start.len() < self.statement_limit {
            self.start.push(byte);
        }
        if self.tail.len() >= 4 * COPY_END.len() {
            let drop = self.tail.len() - COPY_END.len();
            self.tail.drain(..drop);
        }
        self.tail.push(byte);
    }

    fn quoted(&mut self, data: &[u8], quote: u8) -> usize {
        let (text, used, closed) = match memchr::memchr(quote, data) {
            Some(end) => (&data[..=end], end + 1, true),
            None => (data, data.len(), false),
        };
        let room = self.statement_limit.saturating_sub(self.start.len());
        self.start.extend_from_slice(&text[..text.len().min(room)]);
        self.tail.clear();
        if closed {
            self.state = State::Statement;
        }
        used
    }

    fn rest_of_line(&mut self, data: &[u8]) -> usize {
        let Some(end) = memchr::memchr(b'\n', data) else { return data.len() };
        if matches!(self.state, State::BeforeRows) {
            self.state = State::Rows { seen: 0, end: true };
        } else {
            self.state = State::Statement;
            self.line_start = true;
        }
        end + 1
    }

    fn end_statement(&mut self) -> Result<(), ScriptError> {
        if self.start.starts_with(b"COPY ") && self.tail.ends_with(COPY_END) {
            let unreadable = || ScriptError::Copy(String::from_utf8_lossy(&self.start).chars().take(200).collect());
            let table = table_name(&self.start[5..]).ok_or_else(unreadable)?;
            if let Some(kept) = &mut self.kept {
                kept.columns = Some(columns(&self.start[5..]).ok_or_else(unreadable)?);
            }
            self.begin_statement();
            self.table = Some(table);
            self.state = State::BeforeRows;
            return Ok(());
        }
        if self.start.starts_with(b"SELECT pg_catalog.lo_open(") {
            self.found.large_objects += 1;
        }
        self.begin_statement();
        Ok(())
    }
}

/// Whether `text`, which follows `seen` bytes of its line, makes (or, unless `complete`, may yet make) the line `\.`.
fn is_end(text: &[u8], seen: usize, end: bool, complete: bool) -> bool {
    if !end || seen + text.len() > END.len() || (complete && seen + text.len() != END.len()) {
        return false;
    }
    &END[seen..seen + text.len()] == text
}

/// Reads `schema.name`, each plain or quoted.
fn table_name(text: &[u8]) -> Option<TableName> {
    let (schema, rest) = identifier(text)?;
    let (name, _) = identifier(rest.strip_prefix(b".")?)?;
    Some(TableName { schema, name })
}

/// Reads the columns of `schema.name (column, …) FROM stdin`; a table without columns has no list.
fn columns(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (_, rest) = identifier(text)?;
    let (_, rest) = identifier(rest.strip_prefix(b".")?)?;
    let Some(mut rest) = rest.strip_prefix(b" (") else { return Some(Vec::new()) };
    let mut columns = Vec::new();
    loop {
        let (column, more) = column(rest)?;
        columns.push(column);
        match more.strip_prefix(b", ") {
            Some(more) => rest = more,
            None => return more.starts_with(b")").then_some(columns),
        }
    }
}

/// A column's name ends with a comma, too.
fn column(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    if text.starts_with(b"\"") {
        return identifier(text);
    }
    let end = text.iter().position(|byte| matches!(byte, b',' | b')'))?;
    (end > 0).then(|| (text[..end].to_vec(), &text[end..]))
}

fn identifier(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| matches!(byte, b'.' | b' ' | b'(')).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_vec(), &text[end..]));
    };
    let mut name = Vec::new();
    loop {
        let end = memchr::memchr(b'"', rest)?;
        name.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        let Some(more) = rest.strip_prefix(b"\"") else { return Some((name, rest)) };
        name.push(b'"');
        rest = more;
    }
}

fn display(table: &TableName) -> String {
    format!("{}.{}", String::from_utf8_lossy(&table.schema), String::from_utf8_lossy(&table.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(script: &[u8], piece: usize) -> Result<ArchiveRows, ScriptError> {
        let mut reader = RowReader::default();
        for piece in script.chunks(piece) {
            reader.read(piece)?;
        }
        reader.finish()
    }

    fn name(schema: &str, name: &str) -> TableName {
        TableName { schema: schema.into(), name: name.into() }
    }

    const SCRIPT: &[u8] = b"--\n-- PostgreSQL database dump; it's \"odd\n--\n\n\\restrict abc'\"\n\n\
SET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n\
--\n-- Data for Name: users; Type: TABLE DATA; Schema: public; Owner: -\n--\n\n\
COPY public.users (id, name) FROM stdin;\n1\ta\n2\t\\\\.\n3\t;'\"\n\\.\n\n\n\
COPY \"odd\nschema\".\"a\"\"b; FROM stdin;\n.c\" (\"x;'y\") FROM stdin;\n\\.\n\n\
COPY public.nocols  FROM stdin;\n\n\n\\.\n\n\
SELECT pg_catalog.setval('public.\"\nCOPY public.fake (id) FROM stdin;\n1\n\\.\n\"', 5, true);\n\n\
BEGIN;\n\nSELECT pg_catalog.lo_open('16400', 131072);\nSELECT pg_catalog.lowrite(0, '\\x0a27');\n\
SELECT pg_catalog.lo_close(0);\n\nCOMMIT;\n\n\\unrestrict abc\n\n--\n-- PostgreSQL database dump complete\n--\n\n";

    #[test]
    fn rows_are_counted_whatever_the_names_and_the_pieces() {
        for piece in [1, 2, 3, 7, 64, SCRIPT.len()] {
            let found = count(SCRIPT, piece).unwrap();
            let expected = [
                (name("odd\nschema", "a\"b; FROM stdin;\n.c"), 0),
                (name("public", "nocols"), 2),
                (name("public", "users"), 3),
            ];
            assert_eq!(found.tables.into_iter().collect::<Vec<_>>(), expected, "pieces of {piece}");
            assert_eq!(found.large_objects, 1);
        }
    }

    #[test]
    fn columns_are_read() {
        let read = |text: &[u8]| {
            columns(text).map(|all| all.into_iter().map(|one| String::from_utf8(one).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(read(b"public.t (id, \"a, \"\"b)\", c) FROM stdin").unwrap(), ["id", "a, \"b)", "c"]);
        assert_eq!(read(b"public.t  FROM stdin").unwrap(), [""; 0]);
        assert_eq!(read(b"public.t (id, b"), None);
    }

    #[test]
    fn a_script_that_breaks_off_is_an_error() {
        let rows = b"COPY public.users (id) FROM stdin;\n1\n2\n";
        assert_eq!(count(rows, 5), Err(ScriptError::Unfinished("public.users".into())));
        assert_eq!(count(b"SET statement_timeout = ", 5), Err(ScriptError::Truncated));
        assert_eq!(count(b"SELECT 'abc", 5), Err(ScriptError::Truncated));
        assert!(matches!(count(b"COPY  FROM stdin;\n\\.\n", 5), Err(ScriptError::Copy(_))));
    }

    proptest! {
        /// Whatever the rows hold, escaped as the server does it, their number is found.
        #[test]
        fn any_rows(rows in prop::collection::vec("[a\\\\.\n']{0,6}", 0..20), piece in 1_usize..9) {
            let mut script = b"COPY public.t (a) FROM stdin;\n".to_vec();
            for row in &rows {
                script.extend(row.replace('\\', "\\\\").replace('\n', "\\n").into_bytes());
                script.push(b'\n');
            }
            script.extend(b"\\.\n\n");
            let found = count(&script, piece).unwrap();
            prop_assert_eq!(found.tables.get(&name("public", "t")).copied(), Some(rows.len() as u64));

            let mut reader = RowReader::keeping();
            let mut kept = Vec::new();
            for piece in script.chunks(piece) {
                reader.read(piece).unwrap();
                kept.append(&mut reader.kept().unwrap().rows);
            }
            prop_assert_eq!(reader.kept().unwrap().columns.clone(), Some(vec![b"a".to_vec()]));
            reader.finish().unwrap();
            let start = b"COPY public.t (a) FROM stdin;\n".len();
            prop_assert_eq!(&kept[..], &script[start..script.len() - b"\\.\n\n".len()]);
        }
    }
}
