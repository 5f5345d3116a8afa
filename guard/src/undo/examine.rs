//! What would be restored, and what prevents it. Only reads.

use std::fmt::Write as _;

use pgrail_rows::{Access, AsOwner, Reference, all_equal, named};

use super::table::{Batch, Table};
use super::{Conflicts, UndoError, Undone};
use crate::catalog::Oid;

/// Rows that a message names.
const NAMED: usize = 5;

/// What would be restored into one table, and what prevents it.
pub(super) async fn examine(
    as_owner: &mut AsOwner<'_>,
    transaction: u64,
    table: &Table,
    all: &[Table],
    conflicts: Conflicts,
    problems: &mut Vec<String>,
) -> Result<Undone, UndoError> {
    let mut found = Undone { table: table.label.clone(), ..Undone::default() };
    let label = &table.label;
    found.rows = table.deleted().map(|batch| batch.rows).sum();
    found.links = table.nulled().map(|batch| batch.rows).sum();
    let captured = found.rows + found.links;
    let (Some(_), Some(owner)) = (&table.ident, table.owner) else {
        problems.push(format!("the table {label} no longer exists; restore its {captured} rows from a backup"));
        return Ok(found);
    };
    let name = table.owner_name.as_deref().unwrap_or_default();
    if table.batches.iter().any(|batch| batch.store_owner != owner) {
        problems.push(format!(
            "{label} belongs to {name} now, who must not read what was captured before; run ALTER TABLE {label} OWNER TO its former owner while you undo"
        ));
        return Ok(found);
    }
    if table.forced {
        problems.push(format!(
            "{label} forces row level security, for its owner {name} too, as which rows are restored; run ALTER ROLE {name} BYPASSRLS, or ALTER TABLE {label} NO FORCE ROW LEVEL SECURITY"
        ));
        return Ok(found);
    }
    if let Some(lost) = table.batches.iter().map(|batch| table.lost(batch)).find(|lost| *lost > 0) {
        problems.push(format!("{lost} columns of {label} were dropped since; restore its rows from a backup"));
        return Ok(found);
    }
    let added = table.batches.iter().map(|batch| table.added(batch)).max().unwrap_or_default();
    found.columns_added = i64::try_from(added).unwrap_or(i64::MAX);
    found.rows = 0;
    for batch in table.deleted() {
        let rows = table.rows(transaction, batch);
        let (count, _) = counted(as_owner, owner, &rows, "true", "''").await?;
        found.rows += count;
        let mut existing = Vec::new();
        for key in &table.unique_keys {
            let same = all_equal("t", &key.columns, &key.operators, "(x.before)", &key.columns);
            let there = format!(
                "EXISTS (SELECT FROM {}{} t WHERE {same})",
                table.only(),
                table.ident.as_deref().unwrap_or_default()
            );
            let (count, which) = counted(as_owner, owner, &rows, &there, &named("(x.before)", &key.columns)).await?;
            if count > 0 && conflicts == Conflicts::Refuse {
                problems.push(format!(
                    "{count} rows of {label} exist already, by ({}): {which}; `--skip-existing` leaves them as they are",
                    key.columns.join(", ")
                ));
            }
            existing.push(there);
        }
        if !existing.is_empty() {
            found.existing += counted(as_owner, owner, &rows, &existing.join(" OR "), "''").await?.0;
        }
        for reference in &table.references {
            let (count, which) = orphans(as_owner, transaction, table, &rows, reference, all).await?;
            found.parents_missing += count;
            if count > 0 {
                problems.push(missing_parents(label, count, reference, &which));
            }
        }
    }
    found.inserted = found.rows - found.existing;
    if found.links > 0 {
        examine_links(as_owner, owner, transaction, table, all, conflicts, &mut found, problems).await?;
    }
    Ok(found)
}

#[allow(clippy::too_many_arguments, reason = "the arguments of examine, and what it found")]
async fn examine_links(
    as_owner: &mut AsOwner<'_>,
    owner: Oid,
    transaction: u64,
    table: &Table,
    all: &[Table],
    conflicts: Conflicts,
    found: &mut Undone,
    problems: &mut Vec<String>,
) -> Result<(), UndoError> {
    let label = &table.label;
    let Some(key) = table.identity() else {
        if conflicts == Conflicts::Refuse {
            problems.push(format!(
                "{label} has no primary key to find the rows of {} links by; `--skip-existing` leaves them as they are",
                found.links
            ));
        }
        return Ok(());
    };
    found.links = 0;
    for batch in table.nulled() {
        let rows = table.rows(transaction, batch);
        let (count, _) = counted(as_owner, owner, &rows, "true", "''").await?;
        found.links += count;
        let unchanged = unchanged(table, batch, "t");
        let same = all_equal("t", &key.columns, &key.operators, "(x.after)", &key.columns);
        let mut still = vec![format!(
            "EXISTS (SELECT FROM {} t WHERE {same} AND {unchanged})",
            table.ident.as_deref().unwrap_or_default()
        )];
        // Rows whose key was set first and that were deleted then are restored with the key that they were left with.
        for other in all.iter().filter(|other| table.family.contains(&other.rel) && other.owner == Some(owner)) {
            for deleted in other.deleted().filter(|batch| other.lost(batch) == 0) {
                let same = all_equal("(y.before)", &key.columns, &key.operators, "(x.after)", &key.columns);
                let as_left = self::unchanged(table, batch, "(y.before)");
                still.push(format!(
                    "EXISTS (SELECT FROM ({}) y WHERE {same} AND {as_left})",
                    other.rows(transaction, deleted)
                ));
            }
        }
        let (count, which) = counted(
            as_owner,
            owner,
            &rows,
            &format!("NOT ({})", still.join(" OR ")),
            &named("(x.before)", &key.columns),
        )
        .await?;
        found.links_restored -= count;
        if count > 0 && conflicts == Conflicts::Refuse {
            problems.push(format!(
                "{count} rows of {label} were deleted or point elsewhere by now, by ({}): {which}; `--skip-existing` leaves them as they are",
                key.columns.join(", ")
            ));
        }
        let set = batch.keys.clone().unwrap_or_default();
        for reference in table.references.iter().filter(|it| it.numbers.iter().any(|number| set.contains(number))) {
            let (count, which) = orphans(as_owner, transaction, table, &rows, reference, all).await?;
            found.parents_missing += count;
            if count > 0 {
                problems.push(missing_parents(label, count, reference, &which));
            }
        }
    }
    found.links_restored += found.links;
    Ok(())
}

fn missing_parents(label: &str, count: i64, reference: &Reference, which: &str) -> String {
    format!(
        "{count} rows of {label} have no parent in {} ({}): {which}; undo the transaction that deleted the parents first",
        reference.label, reference.name
    )
}

/// Whether the columns that a cascade set are still as it left them.
pub(super) fn unchanged(table: &Table, batch: &Batch, row: &str) -> String {
    let set = set_columns(table, batch);
    let each = set.iter().map(|column| format!("{row}.{column} IS NOT DISTINCT FROM (x.after).{column}"));
    each.collect::<Vec<_>>().join(" AND ")
}

pub(super) fn set_columns<'a>(table: &'a Table, batch: &Batch) -> Vec<&'a str> {
    let keys = batch.keys.clone().unwrap_or_default();
    let set = table.columns.iter().filter(|column| keys.contains(&column.number));
    set.map(|column| column.ident.as_str()).collect()
}

/// How many of these rows fulfil a condition on `x`, and the names of some.
async fn counted(
    as_owner: &mut AsOwner<'_>,
    owner: Oid,
    rows: &str,
    condition: &str,
    name: &str,
) -> Result<(i64, String), UndoError> {
    let sql = format!(
        "SELECT pg_catalog.json_build_array(pg_catalog.count(*), pg_catalog.array_agg(name) FILTER (WHERE number OPERATOR(pg_catalog.<=) {NAMED})) \
         FROM (SELECT {name} AS name, pg_catalog.row_number() OVER (ORDER BY x.id) AS number FROM ({rows}) x WHERE {condition}) y"
    );
    let (count, names): (i64, Option<Vec<String>>) = as_owner.run(owner, Access::Read, &sql).await?;
    let mut names = names.unwrap_or_default().join("; ");
    if count > i64::try_from(NAMED).unwrap_or_default() {
        names.push_str("; …");
    }
    Ok((count, names))
}

/// Rows whose parent neither exists nor is among the deleted. Where the owner may not read the parents, the foreign key
/// itself decides when rows are restored.
async fn orphans(
    as_owner: &mut AsOwner<'_>,
    transaction: u64,
    table: &Table,
    rows: &str,
    reference: &Reference,
    all: &[Table],
) -> Result<(i64, String), UndoError> {
    let Some(owner) = table.owner.filter(|_| reference.readable) else { return Ok((0, String::new())) };
    let parents = || all.iter().filter(|parent| reference.family.contains(&parent.rel));
    // What prevents the parents is a problem of their own.
    let readable = |parent: &Table| {
        let batches = &parent.batches;
        parent.owner == Some(owner) && batches.iter().all(|batch| parent.lost(batch) == 0 && batch.store_owner == owner)
    };
    if !parents().all(readable) {
        return Ok((0, String::new()));
    }
    let set = reference.columns.iter().map(|column| format!("(x.before).{column} IS NOT NULL"));
    let mut condition = set.collect::<Vec<_>>().join(" AND ");
    let only = if reference.partitioned { "" } else { "ONLY " };
    let equal =
        |left: &str| all_equal(left, &reference.referenced, &reference.operators, "(x.before)", &reference.columns);
    let _ = write!(condition, " AND NOT EXISTS (SELECT FROM {only}{} t WHERE {})", reference.ident, equal("t"));
    for parent in parents() {
        for batch in parent.deleted() {
            let rows = parent.rows(transaction, batch);
            let _ = write!(condition, " AND NOT EXISTS (SELECT FROM ({rows}) y WHERE {})", equal("(y.before)"));
        }
    }
    counted(as_owner, owner, rows, &condition, &named("(x.before)", &reference.columns)).await
}
