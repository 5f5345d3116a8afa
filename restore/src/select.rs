//! Which rows of the backup are restored: those that fulfil the conditions, and with `follow_cascade` those that a deletion of
//! them deletes. The server is read-only meanwhile.

use pgrail_rows::{Access, AsOwner, Oid, READING, TEMPORARY, all_equal};
use tokio_postgres::{Client, Transaction};

use crate::outcome::RestoreError;
use crate::request::{RestoreProgress, RowsRequest};
use crate::table::{Cascade, ROW, Staged};

/// Selects rows, round by round: those of a round depend on those of the round before. Returns their number.
pub(crate) async fn select(
    client: &mut Client,
    request: &RowsRequest,
    tables: &[Staged],
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<i64, RestoreError> {
    let mut last = Vec::new();
    let mut total = 0;
    for table in tables {
        let named = request.tables.iter().find(|it| it.schema == table.schema && it.name == table.name);
        let Some(named) = named else { continue };
        let condition = named.condition.as_ref().map_or("true", |condition| condition.as_str());
        // On lines of its own, so that nothing in it can reach what follows.
        let rows = format!("SELECT x.{ROW} AS id FROM ({}) x WHERE (\n{condition}\n)", table.rows());
        let found = within(client, async |within| add(within, table, &rows, 1).await).await?;
        total += found;
        if found > 0 {
            last.push(table.rel);
        }
    }
    progress(RestoreProgress::Selected { rows: total });
    let mut round = 1;
    while request.follow_cascade && !last.is_empty() {
        let mut next = Vec::new();
        for parent in tables.iter().filter(|parent| last.contains(&parent.rel)) {
            for (child, cascade) in dependents(tables, parent.rel, &['c']) {
                let found = within(client, async |within| {
                    keys(within, parent, child, cascade, &parent.selected(Some(round))).await?;
                    let rows = format!(
                        "SELECT x.{ROW} AS id FROM ({}) x WHERE NOT EXISTS (SELECT FROM {} c WHERE c.id OPERATOR(pg_catalog.=) x.{ROW}) \
                         AND EXISTS (SELECT FROM {} k WHERE {})",
                        child.rows(),
                        child.selection(),
                        parent.keys(),
                        all_equal("k", &cascade.referenced, &cascade.operators, "x", &cascade.columns),
                    );
                    add(within, child, &rows, round + 1).await
                })
                .await?;
                total += found;
                if found > 0 && !next.contains(&child.rel) {
                    next.push(child.rel);
                }
            }
        }
        (last, round) = (next, round + 1);
        progress(RestoreProgress::Selected { rows: total });
    }
    Ok(total)
}

/// The foreign keys of all tables that refer to this one, with these actions.
pub(crate) fn dependents<'a>(
    tables: &'a [Staged],
    parent: Oid,
    actions: &'a [char],
) -> impl Iterator<Item = (&'a Staged, &'a Cascade)> {
    tables.iter().flat_map(move |child| {
        let of = child.cascades.iter().filter(move |it| it.family.contains(&parent) && actions.contains(&it.action));
        of.map(move |cascade| (child, cascade))
    })
}

/// One transaction of the selection.
async fn within<T>(
    client: &mut Client,
    work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, RestoreError>,
) -> Result<T, RestoreError> {
    let within = client.build_transaction().read_only(false).start().await?;
    within.batch_execute(READING).await?;
    let done = work(&within).await?;
    within.commit().await?;
    Ok(done)
}

async fn add(within: &Transaction<'_>, table: &Staged, rows: &str, round: i32) -> Result<i64, RestoreError> {
    let selection = table.selection();
    let sql = format!(
        "WITH added AS (INSERT INTO {selection} (id, round) SELECT y.id, {round} FROM ({rows}) y RETURNING 1) \
         SELECT pg_catalog.count(*) FROM added"
    );
    let mut as_owner = AsOwner::new(within, TEMPORARY);
    let added = as_owner.run(table.owner_oid(), Access::ReadOnly, &sql).await?;
    as_owner.analyze(&selection).await?;
    as_owner.finish().await?;
    Ok(added)
}

/// Makes the referenced values of these rows of `parent` readable for the owner of `child`: the values that are in the rows of
/// the child anyway, and nothing else of the parent.
pub(crate) async fn keys(
    within: &Transaction<'_>,
    parent: &Staged,
    child: &Staged,
    cascade: &Cascade,
    rows: &str,
) -> Result<(), RestoreError> {
    create_keys(within, parent, &cascade.referenced, &child.owner_ident).await?;
    let mut as_owner = AsOwner::new(within, TEMPORARY);
    as_owner.execute(parent.owner_oid(), Access::ReadOnly, &fill_keys(parent, &cascade.referenced, rows)).await?;
    as_owner.analyze(&parent.keys()).await?;
    Ok(as_owner.finish().await?)
}

/// The statement that fills the keys of a table.
pub(crate) fn fill_keys(parent: &Staged, referenced: &[String], rows: &str) -> String {
    let columns = referenced.iter().map(|column| format!("y.{column}")).collect::<Vec<_>>().join(", ");
    format!("INSERT INTO {} ({}) SELECT {columns} FROM ({rows}) y", parent.keys(), referenced.join(", "))
}

/// Creates the table for keys anew.
pub(crate) async fn create_keys(
    within: &Transaction<'_>,
    parent: &Staged,
    referenced: &[String],
    reader: &str,
) -> Result<(), RestoreError> {
    let columns = referenced.iter().map(|column| format!("{column} {}", parent.kind(column).unwrap_or_default()));
    let sql = format!(
        "{READING}; DROP TABLE IF EXISTS {keys}; CREATE TEMPORARY TABLE {keys} ({columns}); \
         GRANT INSERT ON {keys} TO {owner}; GRANT SELECT ON {keys} TO {reader}",
        keys = parent.keys(),
        columns = columns.collect::<Vec<_>>().join(", "),
        owner = parent.owner_ident,
    );
    Ok(within.batch_execute(&sql).await?)
}
