//! The tables of contents of several archives as one. Pure.
//!
//! pg_dump numbers the entries of each archive on its own, and names no dependency on an entry of another archive. Here every
//! entry gets a number that no other has, and what an entry of a later archive belongs to is found by names: its own, or those
//! in its SQL, where pg_dump writes them qualified.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, FramingError};

/// Tables, views and sequences: their names are of one namespace.
const RELATIONS: [&str; 6] = ["FOREIGN TABLE", "MATERIALIZED VIEW", "SEQUENCE", "TABLE", "VIEW", "PROPERTY GRAPH"];

/// The entries of all archives of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// In the order in which they are restored.
    pub(crate) entries: Vec<Entry>,
    /// The lowest number of each archive's entries, in order.
    first: Vec<u32>,
}

impl Merged {
    /// The archive of an entry, and its number there.
    pub(crate) fn place(&self, number: u32) -> (u32, u32) {
        let archive = self.first.partition_point(|first| *first <= number).saturating_sub(1);
        (u32::try_from(archive).unwrap_or_default(), number - self.first.get(archive).copied().unwrap_or_default())
    }
}

/// The entries of one archive stay as they are.
pub(crate) fn merge(archives: Vec<Vec<Entry>>) -> Result<Merged, FramingError> {
    let mut merged = Merged { entries: Vec::new(), first: Vec::new() };
    let mut names = Names::default();
    let mut next: u32 = 0;
    for mut entries in archives {
        let first = next;
        let highest = entries.iter().map(|entry| entry.number).max().unwrap_or_default();
        next = highest.checked_add(1).and_then(|size| first.checked_add(size)).ok_or(FramingError::Contents)?;
        if first > 0 {
            let own: BTreeSet<u32> = entries.iter().map(|entry| entry.number).collect();
            for entry in &mut entries {
                entry.number += first;
                // The numbers of another archive are not those of the first one.
                let within = entry.depends_on.iter().filter(|on| own.contains(on)).map(|on| on + first);
                entry.depends_on = within.chain(names.needed_by(entry)).collect();
            }
        }
        names.add(&entries);
        merged.first.push(first);
        merged.entries.append(&mut entries);
    }
    Ok(merged)
}

#[derive(Default)]
struct Names {
    relations: BTreeMap<(String, String), u32>,
    functions: BTreeMap<(String, String), u32>,
}

impl Names {
    fn add(&mut self, entries: &[Entry]) {
        for entry in entries {
            let key = || (entry.schema.clone(), entry.name.clone());
            if RELATIONS.contains(&entry.kind.as_str()) {
                self.relations.insert(key(), entry.number);
            } else if entry.kind == "FUNCTION" {
                self.functions.insert(key(), entry.number);
            }
        }
    }

    /// The entries of earlier archives that an entry belongs to.
    fn needed_by(&self, entry: &Entry) -> Vec<u32> {
        let create = entry.create.as_str();
        let named = match entry.kind.as_str() {
            "TABLE DATA" | "MATERIALIZED VIEW DATA" | "SEQUENCE SET" => {
                vec![Some((entry.schema.clone(), entry.name.clone()))]
            }
            "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" | "ROW SECURITY" => {
                vec![after(create, "ALTER TABLE "), after(create, " REFERENCES ")]
            }
            "INDEX" | "POLICY" | "TRIGGER" => vec![after(create, " ON ")],
            "RULE" => vec![after(create, " TO ")],
            "STATISTICS" => vec![after_last(create, " FROM ")],
            "PUBLICATION TABLE" => vec![after(create, " ADD TABLE ")],
            _ => Vec::new(),
        };
        let mut numbers: Vec<u32> =
            named.into_iter().flatten().filter_map(|name| self.relations.get(&name).copied()).collect();
        if entry.kind == "TRIGGER"
            && let Some((schema, name)) = after_last(create, " EXECUTE FUNCTION ")
        {
            numbers.extend(self.functions.get(&(schema, format!("{name}()"))));
        }
        numbers.dedup();
        numbers
    }
}

/// The qualified name that follows the first such word.
fn after(sql: &str, word: &str) -> Option<(String, String)> {
    places(sql, word).next().and_then(|place| qualified(&sql[place..]))
}

/// The qualified name that follows the last such word.
fn after_last(sql: &str, word: &str) -> Option<(String, String)> {
    places(sql, word).last().and_then(|place| qualified(&sql[place..]))
}

/// Where such words end, outside of quoted names. A word that starts with a space may stand at the beginning of a line.
fn places<'a>(sql: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let mut quoted = false;
    sql.char_indices().filter_map(move |(place, sign)| {
        if sign == '"' {
            quoted = !quoted;
        }
        let starts = match word.strip_prefix(' ') {
            Some(rest) => matches!(sign, ' ' | '\n') && sql[place + 1..].starts_with(rest),
            None => sql[place..].starts_with(word),
        };
        (starts && !quoted).then_some(place + word.len())
    })
}

/// `schema.name` at the beginning, where each may be quoted.
fn qualified(sql: &str) -> Option<(String, String)> {
    let (schema, rest) = identifier(sql.strip_prefix("ONLY ").unwrap_or(sql))?;
    let (name, _) = identifier(rest.strip_prefix('.')?)?;
    Some((schema, name))
}

fn identifier(sql: &str) -> Option<(String, &str)> {
    let Some(mut rest) = sql.strip_prefix('"') else {
        let end = sql.find(|sign: char| !(sign.is_alphanumeric() || sign == '_' || sign == '$')).unwrap_or(sql.len());
        return (end > 0).then(|| (sql[..end].to_owned(), &sql[end..]));
    };
    let mut name = String::new();
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry;

    #[test]
    fn what_an_entry_belongs_to_is_found_in_another_archive() {
        let pre = vec![
            entry(3, "TABLE", "public", "users", "", &[]),
            entry(4, "TABLE", "s ON t", "a \"b\" REFERENCES c", "", &[]),
            entry(5, "SEQUENCE", "public", "users_id_seq", "", &[]),
            entry(6, "FUNCTION", "public", "audit()", "", &[]),
            entry(7, "DEFAULT", "public", "users id", "", &[3, 5]),
        ];
        let odd = r#""s ON t"."a ""b"" REFERENCES c""#;
        let rest = vec![
            // Its table has this number in its own archive, where it is not listed.
            entry(9, "TABLE DATA", "public", "users", "", &[7]),
            entry(10, "SEQUENCE SET", "public", "users_id_seq", "", &[8]),
        ];
        let post = vec![
            entry(
                3,
                "CONSTRAINT",
                "public",
                "users users_pkey",
                "ALTER TABLE ONLY public.users\n    ADD CONSTRAINT users_pkey PRIMARY KEY (id);\n",
                &[],
            ),
            entry(
                4,
                "INDEX",
                "s ON t",
                "i",
                &format!("CREATE UNIQUE INDEX \"x ON y.z\" ON ONLY {odd} USING btree (id);\n"),
                &[],
            ),
            entry(
                5,
                "FK CONSTRAINT",
                "s ON t",
                "x",
                &format!(
                    "ALTER TABLE ONLY {odd}\n    ADD CONSTRAINT x FOREIGN KEY (\"a\") REFERENCES public.users(id);\n"
                ),
                &[3],
            ),
            entry(
                6,
                "TRIGGER",
                "public",
                "users audit",
                "CREATE TRIGGER audit AFTER DELETE ON public.users FOR EACH STATEMENT EXECUTE FUNCTION public.audit();\n",
                &[],
            ),
            entry(7, "COMMENT", "public", "INDEX i", "", &[4, 900]),
            entry(
                8,
                "STATISTICS",
                "public",
                "st",
                "CREATE STATISTICS public.st ON EXTRACT(year FROM \"at\"), b FROM public.users;\n",
                &[],
            ),
            entry(
                9,
                "RULE",
                "public",
                "users r",
                "CREATE RULE r AS\n    ON DELETE TO public.users DO INSTEAD NOTHING;\n",
                &[],
            ),
        ];
        let merged = merge(vec![pre.clone(), rest, post]).unwrap();
        let of = |number: u32| merged.entries.iter().find(|entry| entry.number == number).unwrap();
        // 8 numbers of the first archive, 11 of the second.
        assert_eq!(
            (of(8 + 9).depends_on.as_slice(), of(8 + 10).depends_on.as_slice()),
            ([3].as_slice(), [5].as_slice())
        );
        let post = |number: u32| of(19 + number).depends_on.clone();
        assert_eq!(post(3), [3]);
        assert_eq!(post(4), [4]);
        assert_eq!(post(5), [19 + 3, 4, 3]);
        assert_eq!(post(6), [3, 6]);
        assert_eq!(post(7), [19 + 4]);
        assert_eq!((post(8), post(9)), (vec![3], vec![3]));
        for (number, place) in [(3, (0, 3)), (17, (1, 9)), (22, (2, 3)), (28, (2, 9))] {
            assert_eq!(merged.place(number), place);
        }
        // One archive stays as it is.
        assert_eq!(merge(vec![pre.clone()]).unwrap().entries, pre);
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let high = || vec![entry(u32::MAX - 1, "TABLE", "public", "t", "", &[])];
        assert!(merge(vec![high()]).is_ok());
        assert!(merge(vec![high(), high()]).is_err());
    }
}
