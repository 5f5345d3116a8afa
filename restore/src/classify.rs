//! What each selected row is to the table: missing, identical or different; and what prevents that it is restored.

use std::fmt::Write as _;

use pgrail_rows::{Access, AsOwner, Key, Reference, all_equal, named};
use tokio_postgres::Transaction;

use crate::outcome::{RestoreError, TableRestored};
use crate::request::Conflicts;
use crate::select::{create_keys, fill_keys};
use crate::table::{ROW, Staged};

/// The row is not in the table.
pub(crate) const MISSING: i32 = 0;
/// It is, with the same values.
const IDENTICAL: i32 = 1;
/// It is, with other values; or another row has a value that must be unique.
const DIFFERENT: i32 = 2;
/// Rows that a message names.
const NAMED: usize = 5;

impl Staged {
    /// The key that identifies a row, if the backup has all of its columns.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.identity().filter(|key| self.has(&key.columns))
    }

    fn has(&self, columns: &[String]) -> bool {
        columns.iter().all(|column| self.columns.contains(column))
    }
}

/// Compares the selected rows of a table with those that are there.
pub(crate) async fn classify(
    as_owner: &mut AsOwner<'_>,
    table: &Staged,
    conflicts: Conflicts,
    problems: &mut Vec<String>,
) -> Result<TableRestored, RestoreError> {
    let label = &table.label;
    let mut found = TableRestored { table: label.clone(), in_backup: table.in_backup, ..TableRestored::default() };
    if table.forced {
        let name = table.owner_name.as_deref().unwrap_or_default();
        problems.push(format!(
            "{label} forces row level security, for its owner {name} too, as which rows are restored; run ALTER ROLE {name} BYPASSRLS, or ALTER TABLE {label} NO FORCE ROW LEVEL SECURITY"
        ));
        return Ok(found);
    }
    let compared = match table.key() {
        Some(key) => by_key(table, key),
        None => by_values(table),
    };
    let sql = format!(
        "WITH added AS (INSERT INTO {} (id, class) {compared} RETURNING class) SELECT pg_catalog.json_build_array(pg_catalog.count(*), \
         {}, {}, {}) FROM added a",
        table.classes(),
        of_class(MISSING),
        of_class(IDENTICAL),
        of_class(DIFFERENT),
    );
    (found.selected, found.inserted, found.identical, found.different) =
        as_owner.run(table.owner_oid(), Access::Read, &sql).await?;
    as_owner.analyze(&table.classes()).await?;
    if found.different > 0 && conflicts == Conflicts::Fail {
        let which = match table.key() {
            Some(key) => {
                let which =
                    names(as_owner, table, &table.of_class(DIFFERENT), &named("x", &key.columns), "true").await?.1;
                format!(", by ({}): {which}", key.columns.join(", "))
            }
            None => String::new(),
        };
        problems.push(format!(
            "{} rows of {label} exist and are different{which}; the conflict policy SkipExisting keeps them as they are",
            found.different
        ));
    }
    Ok(found)
}

fn of_class(class: i32) -> String {
    format!("pg_catalog.count(*) FILTER (WHERE a.class OPERATOR(pg_catalog.=) {class})")
}

/// Rows are found by their key. Values are compared by their bytes: equality of a type is what its owner defines.
fn by_key(table: &Staged, key: &Key) -> String {
    let same = all_equal("t", &key.columns, &key.operators, "x", &key.columns);
    let taken = table.unique_keys.iter().filter(|other| *other != key && table.has(&other.columns)).map(|other| {
        let same = all_equal("u", &other.columns, &other.operators, "x", &other.columns);
        format!("EXISTS (SELECT FROM {}{} u WHERE {same})", table.only(), table.target())
    });
    let taken = taken.chain(["false".to_owned()]).collect::<Vec<_>>().join(" OR ");
    format!(
        "SELECT x.{ROW}, CASE WHEN t.tableoid IS NULL THEN CASE WHEN {taken} THEN {DIFFERENT} ELSE {MISSING} END \
         WHEN pg_catalog.record_image_eq(ROW({there}), ROW({here})) THEN {IDENTICAL} ELSE {DIFFERENT} END \
         FROM ({selected}) x LEFT JOIN {only}{target} t ON {same}",
        there = table.fields("t"),
        here = table.fields("x"),
        selected = table.selected(None),
        only = table.only(),
        target = table.target(),
    )
}

/// Rows without a key are the same if all their values are. As many as the backup has are to be there.
fn by_values(table: &Staged) -> String {
    let numbered = |row: &str, id: &str, from: &str| {
        let values = format!("CAST(ROW({}) AS pg_catalog.text)", table.fields(row));
        format!(
            "SELECT {id}{values} AS value, pg_catalog.row_number() OVER (PARTITION BY {values}) AS number FROM {from} {row}"
        )
    };
    format!(
        "SELECT x.id, CASE WHEN t.number IS NULL THEN {MISSING} ELSE {IDENTICAL} END FROM ({}) x LEFT JOIN ({}) t \
         ON t.value OPERATOR(pg_catalog.=) x.value AND t.number OPERATOR(pg_catalog.=) x.number",
        numbered("y", &format!("y.{ROW} AS id, "), &format!("({})", table.selected(None))),
        numbered("z", "", &format!("{}{}", table.only(), table.target())),
    )
}

/// How many of these rows fulfil a condition on `x`, and the names of some.
async fn names(
    as_owner: &mut AsOwner<'_>,
    table: &Staged,
    rows: &str,
    name: &str,
    condition: &str,
) -> Result<(i64, String), RestoreError> {
    let sql = format!(
        "SELECT pg_catalog.json_build_array(pg_catalog.count(*), pg_catalog.array_agg(name) FILTER (WHERE number OPERATOR(pg_catalog.<=) {NAMED})) \
         FROM (SELECT {name} AS name, pg_catalog.row_number() OVER (ORDER BY x.{ROW}) AS number FROM ({rows}) x WHERE {condition}) y"
    );
    let (count, names): (i64, Option<Vec<String>>) = as_owner.run(table.owner_oid(), Access::Read, &sql).await?;
    let mut names = names.unwrap_or_default().join("; ");
    if count > i64::try_from(NAMED).unwrap_or_default() {
        names.push_str("; …");
    }
    Ok((count, names))
}

/// Missing rows whose parent neither exists nor is restored. Where the owner may not read the parents, the foreign key itself
/// decides when rows are inserted.
pub(crate) async fn find_orphans(
    within: &Transaction<'_>,
    as_owner: &mut AsOwner<'_>,
    table: &Staged,
    all: &[Staged],
    found: &mut TableRestored,
    problems: &mut Vec<String>,
) -> Result<(), RestoreError> {
    for reference in table.references.iter().filter(|reference| reference.readable && table.has(&reference.columns)) {
        let set = reference.columns.iter().map(|column| format!("x.{column} IS NOT NULL"));
        let mut condition = set.collect::<Vec<_>>().join(" AND ");
        let only = if reference.partitioned { "" } else { "ONLY " };
        let equal = |left: &str| parent_of(reference, left);
        let _ = write!(condition, " AND NOT EXISTS (SELECT FROM {only}{} t WHERE {})", reference.ident, equal("t"));
        let parents = all.iter().filter(|parent| reference.family.contains(&parent.rel));
        for parent in parents.filter(|parent| parent.has(&reference.referenced)) {
            as_owner.settle().await?;
            create_keys(within, parent, &reference.referenced, &table.owner_ident).await?;
            let fill = fill_keys(parent, &reference.referenced, &parent.of_class(MISSING));
            as_owner.execute(parent.owner_oid(), Access::Read, &fill).await?;
            as_owner.analyze(&parent.keys()).await?;
            let _ = write!(condition, " AND NOT EXISTS (SELECT FROM {} k WHERE {})", parent.keys(), equal("k"));
        }
        let rows = table.of_class(MISSING);
        let (count, which) = names(as_owner, table, &rows, &named("x", &reference.columns), &condition).await?;
        found.parents_missing += count;
        if count > 0 {
            problems.push(format!(
                "{count} rows of {} have no parent in {} ({}): {which}; restore the parents, too",
                table.label, reference.label, reference.name
            ));
        }
    }
    Ok(())
}

fn parent_of(reference: &Reference, left: &str) -> String {
    all_equal(left, &reference.referenced, &reference.operators, "x", &reference.columns)
}
