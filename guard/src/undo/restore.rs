//! Restoring rows.

use std::collections::BTreeMap;

use pgrail_rows::{Access, AsOwner, all_equal, in_order};

use super::examine::{set_columns, unchanged};
use super::table::{Batch, Table};
use super::{Conflicts, UndoError, Undone};
use crate::catalog::Oid;

/// Inserts rows group by group, then restores links. `found` is replaced by what the server counted.
pub(super) async fn restore(
    as_owner: &mut AsOwner<'_>,
    transaction: u64,
    tables: &[Table],
    conflicts: Conflicts,
    found: &mut [Undone],
) -> Result<(), UndoError> {
    for group in in_order(tables.to_vec()) {
        let mut by_owner: BTreeMap<Oid, Vec<Table>> = BTreeMap::new();
        for table in group {
            if let Some(owner) = table.owner {
                by_owner.entry(owner).or_default().push(table);
            }
        }
        for (owner, group) in by_owner {
            insert_group(as_owner, transaction, owner, &group, conflicts, found).await?;
        }
    }
    for table in tables {
        let (Some(key), Some(owner)) = (table.identity(), table.owner) else { continue };
        let mut restored = 0;
        for batch in table.nulled() {
            let set = set_columns(table, batch);
            let set = set.iter().map(|column| format!("{column} = (x.before).{column}")).collect::<Vec<_>>().join(", ");
            let sql = format!(
                "WITH u AS (UPDATE {} t SET {set} FROM ({}) x WHERE {} AND {} RETURNING 1) SELECT pg_catalog.count(*) FROM u",
                table.ident.as_deref().unwrap_or_default(),
                table.rows(transaction, batch),
                all_equal("t", &key.columns, &key.operators, "(x.after)", &key.columns),
                unchanged(table, batch, "t"),
            );
            let updated: i64 = as_owner.run(owner, Access::Write, &sql).await?;
            restored += updated;
        }
        if let Some(undone) = found.iter_mut().find(|undone| undone.table == table.label) {
            undone.links_restored = restored;
            if conflicts == Conflicts::Refuse && restored != undone.links {
                return Err(UndoError::KeptOut { table: table.label.clone(), arrived: restored, rows: undone.links });
            }
        }
    }
    Ok(())
}

/// Inserts the rows of tables that refer to each other, in one statement: foreign keys are checked at its end, whichever
/// way they point.
async fn insert_group(
    as_owner: &mut AsOwner<'_>,
    transaction: u64,
    owner: Oid,
    group: &[Table],
    conflicts: Conflicts,
    found: &mut [Undone],
) -> Result<(), UndoError> {
    let inserts: Vec<(&Table, String)> = group
        .iter()
        .flat_map(|table| table.deleted().map(move |batch| (table, insert(table, transaction, batch, conflicts))))
        .collect();
    if inserts.is_empty() {
        return Ok(());
    }
    let parts = inserts.iter().enumerate().map(|(place, (_, sql))| format!("w{place} AS ({sql})"));
    let counts = (0..inserts.len()).map(|place| format!("(SELECT pg_catalog.count(*) FROM w{place})"));
    let sql = format!(
        "WITH {} SELECT pg_catalog.to_json(ARRAY[{}])",
        parts.collect::<Vec<_>>().join(", "),
        counts.collect::<Vec<_>>().join(", ")
    );
    let counts: Vec<i64> = as_owner.run(owner, Access::Write, &sql).await?;
    for table in group {
        let of_table = inserts.iter().zip(&counts).filter(|((of, _), _)| of.rel == table.rel);
        let inserted = of_table.map(|(_, count)| count).sum();
        if let Some(undone) = found.iter_mut().find(|undone| undone.table == table.label) {
            undone.inserted = inserted;
            if conflicts == Conflicts::SkipExisting {
                undone.existing = undone.rows - inserted;
            } else if inserted != undone.rows {
                return Err(UndoError::KeptOut { table: table.label.clone(), arrived: inserted, rows: undone.rows });
            }
        }
    }
    Ok(())
}

fn insert(table: &Table, transaction: u64, batch: &Batch, conflicts: Conflicts) -> String {
    let kept = table.columns.iter().filter(|column| column.number <= batch.attributes && !column.generated);
    let columns: Vec<&str> = kept.map(|column| column.ident.as_str()).collect();
    let values = columns.iter().map(|column| format!("(x.before).{column}")).collect::<Vec<_>>().join(", ");
    let skip = match conflicts {
        Conflicts::Refuse => "",
        Conflicts::SkipExisting => " ON CONFLICT DO NOTHING",
    };
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {values} FROM ({}) x{skip} RETURNING 1",
        table.ident.as_deref().unwrap_or_default(),
        columns.join(", "),
        table.rows(transaction, batch),
    )
}
