//! The option `pg_attver` of columns, taken out of an archive.
//!
//! PostgreSQL 17.12 of Debian keeps it for every column, and only its own pg_dump leaves it out. Servers of other versions refuse
//! the statement that sets it.

use std::ops::Range;

use super::{FramingError, blocks::read_entries};

const OPTION: &[u8] = b"pg_attver=";

/// Overwrites it with spaces in the head of an archive, so that every length in it stays as it is. `None` if it is nowhere.
pub(crate) fn without_attver(head: &[u8]) -> Result<Option<Vec<u8>>, FramingError> {
    if !contains(head, OPTION) {
        return Ok(None);
    }
    let mut changed = None;
    for entry in read_entries(head)? {
        if !matches!(entry.kind, b"TABLE" | b"FOREIGN TABLE" | b"MATERIALIZED VIEW") {
            continue;
        }
        // The SQL is a part of the head.
        let place = entry.create.as_ptr().addr() - head.as_ptr().addr();
        for range in superfluous(entry.create) {
            let bytes: &mut Vec<u8> = changed.get_or_insert_with(|| head.to_vec());
            bytes[place + range.start..place + range.end].fill(b' ');
        }
    }
    Ok(changed)
}

/// Where it is in the SQL of a table: the option, or the whole statement if it sets nothing else.
fn superfluous(create: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for statement in statements(create) {
        let sql = &create[statement.clone()];
        let alters = [&b"ALTER TABLE "[..], b"ALTER FOREIGN TABLE ", b"ALTER MATERIALIZED VIEW "];
        if !alters.iter().any(|alter| sql.starts_with(alter)) {
            continue;
        }
        let Some(options) = sql.strip_suffix(b");").and_then(|sql| Some(last(sql, b" SET (")?..sql.len())) else {
            continue;
        };
        let mut at = options.start;
        let mut others = 0;
        let mut own = Vec::new();
        for option in sql[options].split(|sign| *sign == b',') {
            // Up to the next option, or else the comma before it.
            if option.trim_ascii_start().starts_with(OPTION) {
                own.push(at..at + option.len());
            } else {
                others += 1;
            }
            at += option.len() + 1;
        }
        if others == 0 {
            found.push(statement);
            continue;
        }
        let with_comma = |own: Range<usize>| {
            let first = sql[own.end] != b',';
            if first { own.start - 1..own.end } else { own.start..own.end + 1 }
        };
        found.extend(own.into_iter().map(with_comma).map(|own| statement.start + own.start..statement.start + own.end));
    }
    found
}

/// The statements of a script, each with its semicolon, and without space before it. pg_dump writes neither backslashes that
/// escape a quote nor dollar quotes into the SQL of a table.
fn statements(sql: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut start, mut quote) = (Vec::new(), None, None);
    for (place, sign) in sql.iter().enumerate() {
        if start.is_none() && !sign.is_ascii_whitespace() {
            start = Some(place);
        }
        match (quote, sign) {
            (Some(open), sign) if open == *sign => quote = None,
            (None, b'\'' | b'"') => quote = Some(*sign),
            (None, b';') => found.extend(start.take().map(|start| start..place + 1)),
            _ => {}
        }
    }
    found
}

/// Where the last such word ends.
fn last(sql: &[u8], word: &[u8]) -> Option<usize> {
    sql.windows(word.len()).rposition(|part| part == word).map(|place| place + word.len())
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(sql: &str, expected: &str) {
        let mut bytes = sql.as_bytes().to_vec();
        for range in superfluous(sql.as_bytes()) {
            bytes[range].fill(b' ');
        }
        assert_eq!(bytes.len(), sql.len());
        let words = |sql: &str| sql.split_whitespace().collect::<String>();
        assert_eq!(words(&String::from_utf8(bytes).unwrap()), words(expected));
    }

    #[test]
    fn only_the_option_goes() {
        let create = "CREATE TABLE public.t (\n    a integer,\n    b text\n);\n";
        let set = |options: &str| format!("{create}ALTER TABLE ONLY public.t ALTER COLUMN b SET ({options});\n");
        becomes(&set("pg_attver=1"), create);
        becomes(&set("pg_attver=1, n_distinct=5"), &set("n_distinct=5"));
        becomes(&set("n_distinct=5, pg_attver=12"), &set("n_distinct=5"));
        becomes(&set("a=1, pg_attver=1, b=2"), &set("a=1, b=2"));
        becomes(&set("n_distinct=5"), &set("n_distinct=5"));
        let two =
            format!("{}ALTER FOREIGN TABLE ONLY public.t ALTER COLUMN a SET (pg_attver=2);\n", set("pg_attver=1"));
        becomes(&two, create);
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for sql in [
            "CREATE TABLE public.t (\n    a text DEFAULT '\nALTER TABLE ONLY public.t ALTER COLUMN b SET (pg_attver=1);\n'::text\n);\n",
            "CREATE TABLE public.\";ALTER TABLE x SET (pg_attver=1);\" (\n    a integer\n);\n",
            "CREATE TABLE public.t (\n    a text DEFAULT 'it''s; ALTER TABLE x SET (pg_attver=1);'::text\n);\n",
            "ALTER TABLE ONLY public.t ALTER COLUMN b SET DEFAULT 'pg_attver=1';\n",
        ] {
            becomes(sql, sql);
        }
    }
}
