//! Putting rows back.

use tokio_postgres::Transaction;

use super::examine::{set_columns, unchanged};
use super::table::{Batch, Table, all_equal, in_order};
use super::{Conflicts, UndoError, Undone};

/// Inserts rows group by group, then sets links back. `found` is replaced by what the server counted.
pub(super) async fn put_back(
    within: &Transaction<'_>,
    transaction: u64,
    tables: &[Table],
    conflicts: Conflicts,
    found: &mut [Undone],
) -> Result<(), UndoError> {
    for group in in_order(tables.to_vec()) {
        let inserts: Vec<(&Table, String)> = group
            .iter()
            .flat_map(|table| table.deleted().map(move |batch| (table, insert(table, transaction, batch, conflicts))))
            .collect();
        if inserts.is_empty() {
            continue;
        }
        // One statement for all of the group: foreign keys are checked at its end, whichever way they point.
        let parts = inserts.iter().enumerate().map(|(place, (_, sql))| format!("w{place} AS ({sql})"));
        let counts = (0..inserts.len()).map(|place| format!("(SELECT pg_catalog.count(*) FROM w{place})"));
        let sql =
            format!("WITH {} SELECT {}", parts.collect::<Vec<_>>().join(", "), counts.collect::<Vec<_>>().join(", "));
        let row = within.query_one(&sql, &[]).await?;
        for table in &group {
            let mut inserted = 0;
            for (place, _) in inserts.iter().enumerate().filter(|(_, (of, _))| of.rel == table.rel) {
                inserted += row.try_get::<_, i64>(place)?;
            }
            if let Some(told) = found.iter_mut().find(|told| told.table == table.label) {
                told.inserted = inserted;
                if conflicts == Conflicts::SkipExisting {
                    told.existing = told.rows - inserted;
                } else if inserted != told.rows {
                    return Err(UndoError::KeptOut { table: table.label.clone(), arrived: inserted, rows: told.rows });
                }
            }
        }
    }
    for table in tables {
        let Some(key) = table.identity() else { continue };
        let mut restored = 0;
        for batch in table.nulled() {
            let set = set_columns(table, batch);
            let set = set.iter().map(|column| format!("{column} = (x.before).{column}")).collect::<Vec<_>>().join(", ");
            let sql = format!(
                "UPDATE {} t SET {set} FROM ({}) x WHERE {} AND {}",
                table.ident.as_deref().unwrap_or_default(),
                table.rows(transaction, batch),
                all_equal("t", &key.columns, &key.operators, "(x.after)", &key.columns),
                unchanged(table, batch, "t"),
            );
            restored += i64::try_from(within.execute(&sql, &[]).await?).unwrap_or(i64::MAX);
        }
        if let Some(told) = found.iter_mut().find(|told| told.table == table.label) {
            told.links_restored = restored;
            if conflicts == Conflicts::Refuse && restored != told.links {
                return Err(UndoError::KeptOut { table: table.label.clone(), arrived: restored, rows: told.links });
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
