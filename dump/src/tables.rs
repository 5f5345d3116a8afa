//! The rows of every table that a dump must hold, and comparing them with an archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    archive::{ArchiveRows, Block, Blocks, TableName},
    text::hex,
};

/// How many rows of a table the archive must hold, and where the number is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rows {
    /// Counted by the server under the dump's snapshot.
    Counted(u64),
    /// Counted in the archive while it was written.
    Archived(u64),
    /// To be counted in the archive.
    FromArchive,
    /// In the archive, but the number is of no meaning: pgrail's own tables, and configuration of extensions, of which
    /// only a part is dumped.
    NotCompared,
}

impl Rows {
    /// The number, where there is one.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Counted(rows) | Self::Archived(rows) => Some(rows),
            Self::FromArchive | Self::NotCompared => None,
        }
    }
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableRows {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Rows,
    /// Schema and name of the partitioned table at the top, if it is a partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_of: Option<(String, String)>,
    /// Whether a restore inserts its rows into that table, so that the server decides in which partitions they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub through_root: bool,
    /// Whether it had a guard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guarded: bool,
    /// Where its rows are in the archive. Absent in backups of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Schema and name as the bytes in the archive, in hexadecimal, where the database's encoding makes them others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive_name: Option<(String, String)>,
}

/// An archive that does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the archive does not hold what the snapshot had: {}", .0.join("; "))]
pub struct TablesDiffer(pub Vec<String>);

/// How many differences are named.
const NAMED: usize = 5;

impl TableRows {
    pub(crate) fn new(schema: &str, name: &str, archived: &TableName, rows: Rows) -> Self {
        let differs = archived.schema != schema.as_bytes() || archived.name != name.as_bytes();
        let archive_name = differs.then(|| (hex(&archived.schema), hex(&archived.name)));
        let (schema, name) = (schema.to_owned(), name.to_owned());
        Self { schema, name, rows, partition_of: None, through_root: false, guarded: false, block: None, archive_name }
    }

    /// Whether these are rows of that table, its partitions included.
    pub fn is_of(&self, schema: &str, name: &str) -> bool {
        let is = |of: &str, named: &str| of == schema && named == name;
        is(&self.schema, &self.name) || self.partition_of.as_ref().is_some_and(|(of, named)| is(of, named))
    }

    /// What it says of the database, and not of the archive.
    pub(crate) fn without_block(&self) -> Self {
        Self { block: None, ..self.clone() }
    }

    fn key(&self) -> (String, String) {
        self.archive_name.clone().unwrap_or_else(|| (hex(self.schema.as_bytes()), hex(self.name.as_bytes())))
    }
}

/// Compares what must be in the archive with what is, table by table, and fills in the numbers that were to come from
/// the archive.
pub(crate) fn compare(tables: &mut [TableRows], large_objects: u64, archive: &ArchiveRows) -> Result<(), TablesDiffer> {
    let mut found: BTreeMap<(String, String), (&TableName, u64)> =
        archive.tables.iter().map(|(name, rows)| ((hex(&name.schema), hex(&name.name)), (name, *rows))).collect();
    let mut differences = Vec::new();
    for table in tables.iter_mut() {
        let shown = format!("{}.{}", table.schema, table.name);
        let entry = found.remove(&table.key());
        if let Some(copied) = entry.and_then(|(name, _)| archive.through.get(name)) {
            table.through_root = true;
            if !table.partition_of.as_ref().is_some_and(|root| is_named(root, copied)) {
                let other = String::from_utf8_lossy(&copied.name);
                differences.push(format!("{shown} has its rows in {other}"));
            }
        }
        match (entry, table.rows) {
            (None, _) => differences.push(format!("{shown} is missing")),
            (Some((_, rows)), Rows::FromArchive) => table.rows = Rows::Archived(rows),
            (Some((_, rows)), Rows::Counted(expected) | Rows::Archived(expected)) if rows != expected => {
                differences.push(format!("{shown} has {rows} rows instead of {expected}"));
            }
            (Some(_), _) => {}
        }
    }
    for (name, _) in found.values() {
        differences.push(format!(
            "{}.{} is not in the snapshot",
            String::from_utf8_lossy(&name.schema),
            String::from_utf8_lossy(&name.name)
        ));
    }
    if archive.large_objects != large_objects {
        differences.push(format!("{} large objects instead of {large_objects}", archive.large_objects));
    }
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(NAMED);
    differences.truncate(NAMED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(TablesDiffer(differences))
}

/// The encoding of the database may be another one.
fn is_named((schema, name): &(String, String), archived: &TableName) -> bool {
    let is = |text: &String, bytes: &[u8]| text.as_bytes() == bytes || !text.is_ascii();
    is(schema, &archived.schema) && is(name, &archived.name)
}

/// Notes where the rows of each table of an archive are.
pub(crate) fn index(tables: &mut [TableRows], blocks: &Blocks, archive: u32) {
    let found: BTreeMap<_, _> =
        blocks.tables.iter().map(|(name, block)| ((hex(&name.schema), hex(&name.name)), block)).collect();
    for table in tables {
        if let Some(block) = found.get(&table.key()) {
            table.block = Some(Block { archive, ..Block::clone(block) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(tables: &[(&str, u64)]) -> ArchiveRows {
        let name = |name: &str| TableName { schema: b"public".to_vec(), name: name.as_bytes().to_vec() };
        ArchiveRows {
            tables: tables.iter().map(|(table, rows)| (name(table), *rows)).collect(),
            ..ArchiveRows::default()
        }
    }

    fn table(name: &str, rows: Rows) -> TableRows {
        let archived = TableName { schema: b"public".to_vec(), name: name.as_bytes().to_vec() };
        TableRows::new("public", name, &archived, rows)
    }

    #[test]
    fn every_difference_is_found_and_a_few_are_named() {
        let mut tables = [table("a", Rows::Counted(3)), table("b", Rows::FromArchive), table("c", Rows::NotCompared)];
        compare(&mut tables, 0, &archive(&[("a", 3), ("b", 7), ("c", 1)])).unwrap();
        assert_eq!(tables[1].rows, Rows::Archived(7));
        let error = compare(&mut tables, 2, &archive(&[("a", 2), ("b", 8), ("d", 0)])).unwrap_err().to_string();
        for expected in
            ["a has 2 rows instead of 3", "b has 8 rows", "c is missing", "d is not in", "0 large objects instead of 2"]
        {
            assert!(error.contains(expected), "{error}");
        }
        let mut many: Vec<_> = (0..20).map(|number| table(&format!("t{number}"), Rows::Counted(1))).collect();
        assert!(compare(&mut many, 0, &archive(&[])).unwrap_err().to_string().ends_with("and 15 more"));
    }

    #[test]
    fn rows_in_another_table_are_those_of_a_partition() {
        let mut found = archive(&[("p1", 3), ("p2", 4)]);
        let name = |name: &str| TableName { schema: b"public".to_vec(), name: name.as_bytes().to_vec() };
        found.through = [(name("p1"), name("p")), (name("p2"), name("p"))].into();
        let mut tables = [table("p1", Rows::Counted(3)), table("p2", Rows::FromArchive)];
        for table in &mut tables {
            table.partition_of = Some(("public".into(), "p".into()));
        }
        compare(&mut tables, 0, &found).unwrap();
        assert!(tables.iter().all(|table| table.through_root) && tables[1].rows == Rows::Archived(4), "{tables:?}");
        tables[0].partition_of = Some(("public".into(), "other".into()));
        let error = compare(&mut tables, 0, &found).unwrap_err().to_string();
        assert!(error.contains("public.p1 has its rows in p"), "{error}");
    }

    #[test]
    fn names_in_another_encoding_are_compared_by_their_bytes() {
        let archived = TableName { schema: b"public".to_vec(), name: vec![0xfc] };
        let mut tables = [TableRows::new("public", "ü", &archived, Rows::Counted(1))];
        let text = serde_json::to_string(&tables).unwrap();
        assert_eq!(serde_json::from_str::<Vec<TableRows>>(&text).unwrap(), tables);
        let found = ArchiveRows { tables: [(archived, 1)].into(), ..ArchiveRows::default() };
        compare(&mut tables, 0, &found).unwrap();
    }
}
