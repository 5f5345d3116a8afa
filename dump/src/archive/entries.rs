//! The table of contents of an archive: what pg_restore would create.

use super::FramingError;
use super::blocks::read_entries;

/// What pg_restore would create, or the rows of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its number: `pg_restore --use-list` names it by this.
    pub number: u32,
    /// `TABLE`, `TABLE DATA`, `FK CONSTRAINT`, ….
    pub kind: String,
    /// Its schema; empty without one.
    pub schema: String,
    /// Its name, with the arguments of a function, or with the table that a constraint belongs to.
    pub name: String,
    /// Its owner; empty without one.
    pub owner: String,
    /// The SQL that creates it.
    pub create: String,
    /// Entries that must exist before.
    pub depends_on: Vec<u32>,
}

impl Entry {
    /// For messages: `TABLE public.users`.
    pub fn label(&self) -> String {
        let schema = if self.schema.is_empty() { String::new() } else { format!("{}.", self.schema) };
        format!("{} {schema}{}", self.kind, self.name)
    }
}

/// The entries of an archive whose head this is, in the order of the archive.
pub(crate) fn entries(head: &[u8]) -> Result<Vec<Entry>, FramingError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
    read_entries(head)?
        .into_iter()
        .map(|raw| {
            let depends_on = raw.depends_on.iter().map(|other| number(other).ok_or(FramingError::Contents));
            Ok(Entry {
                number: u32::try_from(raw.number).map_err(|_| FramingError::Contents)?,
                kind: text(raw.kind),
                schema: text(raw.schema),
                name: text(raw.name),
                owner: text(raw.owner),
                create: text(raw.create),
                depends_on: depends_on.collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// An entry for tests, of the owner `app`.
#[cfg(test)]
pub(crate) fn entry(number: u32, kind: &str, schema: &str, name: &str, create: &str, depends_on: &[u32]) -> Entry {
    let text = str::to_owned;
    Entry {
        number,
        kind: text(kind),
        schema: text(schema),
        name: text(name),
        owner: text("app"),
        create: text(create),
        depends_on: depends_on.to_vec(),
    }
}
