//! Inserting rows, and setting the links that a deletion set to NULL or DEFAULT.

use std::collections::BTreeMap;

use pgrail_rows::{Access, AsOwner, Oid, all_equal, in_order};
use tokio_postgres::Transaction;

use crate::classify::MISSING;
use crate::outcome::{RestoreError, TableRestored};
use crate::request::{Conflicts, RestoreProgress};
use crate::select::{create_keys, dependents, fill_keys};
use crate::table::{Cascade, ROW, Staged};

/// Inserts the missing rows group by group, parents first. `found` is replaced by what the server counted.
pub(crate) async fn insert(
    as_owner: &mut AsOwner<'_>,
    tables: &[Staged],
    conflicts: Conflicts,
    found: &mut [TableRestored],
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<(), RestoreError> {
    for group in in_order(tables.to_vec()) {
        let mut by_owner: BTreeMap<Oid, Vec<Staged>> = BTreeMap::new();
        for table in group {
            by_owner.entry(table.owner_oid()).or_default().push(table);
        }
        for (owner, group) in by_owner {
            let missing = |table: &&Staged| found.iter().any(|it| it.table == table.label && it.inserted > 0);
            let group: Vec<&Staged> = group.iter().filter(missing).collect();
            if group.is_empty() {
                continue;
            }
            let counts = insert_group(as_owner, owner, &group, conflicts).await?;
            for (table, inserted) in group.iter().zip(counts) {
                progress(RestoreProgress::Inserted { table: table.label.clone(), rows: inserted });
                let Some(found) = found.iter_mut().find(|it| it.table == table.label) else { continue };
                if conflicts == Conflicts::Fail && inserted != found.inserted {
                    let table = table.label.clone();
                    return Err(RestoreError::KeptOut { table, arrived: inserted, rows: found.inserted });
                }
                // What came in between, or conflicts with a constraint that is no plain key.
                found.different += found.inserted - inserted;
                found.inserted = inserted;
            }
        }
    }
    Ok(())
}

/// Inserts the rows of tables that may refer to each other, in one statement: foreign keys are checked at its end, whichever
/// way they point.
async fn insert_group(
    as_owner: &mut AsOwner<'_>,
    owner: Oid,
    group: &[&Staged],
    conflicts: Conflicts,
) -> Result<Vec<i64>, RestoreError> {
    let skip = if conflicts == Conflicts::SkipExisting { " ON CONFLICT DO NOTHING" } else { "" };
    let parts = group.iter().enumerate().map(|(place, table)| {
        format!(
            "w{place} AS (INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM ({}) x{skip} RETURNING 1)",
            table.target(),
            table.columns.join(", "),
            table.fields("x"),
            table.of_class(MISSING),
        )
    });
    let counts = (0..group.len()).map(|place| format!("(SELECT pg_catalog.count(*) FROM w{place})"));
    let sql = format!(
        "WITH {} SELECT pg_catalog.to_json(ARRAY[{}])",
        parts.collect::<Vec<_>>().join(", "),
        counts.collect::<Vec<_>>().join(", ")
    );
    Ok(as_owner.run(owner, Access::Write, &sql).await?)
}

/// Advances the sequences of columns whose restored values are ahead of them.
pub(crate) async fn advance_sequences(as_owner: &mut AsOwner<'_>, tables: &[Staged]) -> Result<(), RestoreError> {
    for table in tables {
        for owned in table.sequences.iter().filter(|owned| table.columns.contains(&owned.column)) {
            let sequence = &owned.sequence;
            let literal = sequence.replace('\'', "''");
            let sql = format!(
                "SELECT pg_catalog.count(pg_catalog.setval('{literal}'::pg_catalog.regclass, m.last)) FROM \
                 (SELECT pg_catalog.max(x.{}::pg_catalog.int8) AS last FROM ({}) x) m, {sequence} s \
                 WHERE m.last OPERATOR(pg_catalog.>) s.last_value",
                owned.column,
                table.of_class(MISSING),
            );
            as_owner.execute(table.owner_oid(), Access::Read, &sql).await?;
        }
    }
    Ok(())
}

/// Links of rows that exist: the backup has them with a link to a restored row, and they have the link that its deletion left.
/// In a dry run they are only counted.
pub(crate) async fn links(
    within: &Transaction<'_>,
    as_owner: &mut AsOwner<'_>,
    tables: &[Staged],
    dry_run: bool,
    found: &mut [TableRestored],
    notes: &mut Vec<String>,
) -> Result<(), RestoreError> {
    for parent in tables {
        if found.iter().all(|it| it.table != parent.label || it.selected == 0) {
            continue;
        }
        for (child, cascade) in dependents(tables, parent.rel, &['n', 'd']) {
            let Some(found) = found.iter_mut().find(|it| it.table == child.label) else { continue };
            if child.forced {
                continue;
            }
            let Some(condition) = link(child, cascade, parent) else {
                notes.push(format!(
                    "{} has no primary key to find rows by: links of {} are not restored",
                    child.label, cascade.name
                ));
                continue;
            };
            as_owner.settle().await?;
            create_keys(within, parent, &cascade.referenced, &child.owner_ident).await?;
            let fill = fill_keys(parent, &cascade.referenced, &parent.selected(None));
            as_owner.execute(parent.owner_oid(), Access::Read, &fill).await?;
            as_owner.analyze(&parent.keys()).await?;
            let (target, rows) = (child.target(), child.rows());
            let count = format!("SELECT pg_catalog.count(*) FROM {target} t, ({rows}) x WHERE {condition}");
            let counted: i64 = as_owner.run(child.owner_oid(), Access::Read, &count).await?;
            found.links += counted;
            if counted == 0 || dry_run {
                found.links_restored += counted;
                continue;
            }
            let set = cascade.set.iter().flatten().map(|column| format!("{0} = x.{0}", column.ident));
            let update = format!(
                "WITH u AS (UPDATE {target} t SET {} FROM ({rows}) x WHERE {condition} RETURNING 1) SELECT pg_catalog.count(*) FROM u",
                set.collect::<Vec<_>>().join(", "),
            );
            let updated: i64 = as_owner.run(child.owner_oid(), Access::Write, &update).await?;
            found.links_restored += updated;
        }
    }
    Ok(())
}

/// The condition that `t` is the row `x` of the backup, and has the link that a deletion of its parent leaves.
fn link(child: &Staged, cascade: &Cascade, parent: &Staged) -> Option<String> {
    let key = child.key()?;
    let set = cascade.set.as_ref()?;
    let left = set.iter().map(|column| match &column.default {
        None => format!("t.{} IS NULL", column.ident),
        Some(default) => format!("t.{} IS NOT DISTINCT FROM ({default})", column.ident),
    });
    Some(format!(
        "{} AND {} AND EXISTS (SELECT FROM {} k WHERE {}) AND NOT EXISTS (SELECT FROM {} c WHERE c.id OPERATOR(pg_catalog.=) x.{ROW} AND c.class OPERATOR(pg_catalog.=) {MISSING})",
        all_equal("t", &key.columns, &key.operators, "x", &key.columns),
        left.collect::<Vec<_>>().join(" AND "),
        parent.keys(),
        all_equal("k", &cascade.referenced, &cascade.operators, "x", &cascade.columns),
        child.classes(),
    ))
}

/// Disables the triggers of the tables, or enables them as they were.
pub(crate) async fn set_triggers(
    as_owner: &mut AsOwner<'_>,
    tables: &[Staged],
    enabled: bool,
) -> Result<(), RestoreError> {
    // A table with pending trigger events cannot be altered.
    as_owner.settle().await?;
    for table in tables {
        for trigger in &table.triggers {
            let action = match (enabled, trigger.enabled) {
                (false, _) => "DISABLE",
                (true, 'A') => "ENABLE ALWAYS",
                (true, _) => "ENABLE",
            };
            let sql = format!("ALTER TABLE {} {action} TRIGGER {}", trigger.table, trigger.name);
            as_owner.execute(table.owner_oid(), Access::Read, &sql).await?;
        }
    }
    Ok(())
}
