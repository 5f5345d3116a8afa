//! Rows of a backup into the live tables that they came from.

use std::time::Instant;

use pgrail_dump::{ClientTools, Extract};
use pgrail_rows::{AsOwner, READING, TEMPORARY, in_order};
use tokio_postgres::{Client, Transaction};

use crate::outcome::{RestoreError, RowsRestored};
use crate::request::{RestoreProgress, RowsRequest, Triggers};
use crate::table::{Staged, Table};
use crate::{classify, insert, select, session, staging};

/// Restores rows of a backup into live tables, or in a dry run reports what would be restored and what prevents it.
///
/// All of it happens in one transaction, or nothing. The backup must have been opened with the manifest that was published, see
/// [`pgrail_dump::Manifest::read_published`].
///
/// # Errors
/// See [`RestoreError`]. The target is as it was.
pub async fn restore_rows(
    request: &RowsRequest,
    extract: &Extract,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<RowsRestored, RestoreError> {
    let started = Instant::now();
    let read = extract.bytes_read();
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    let mut session = session::open(&request.connection, &request.addresses).await?;
    let mut notes = Vec::new();
    let tables = session::resolve(&mut session, request).await?;
    let mut staged = Vec::new();
    for table in in_order(tables).into_iter().flatten() {
        match staging::stage(&mut session, extract, &tools, &table, progress).await? {
            Some(table) => staged.push(table),
            None => notes.push(absent(request, extract, &table)?),
        }
    }
    select::select(&mut session, request, &staged, progress).await?;
    let mut restored = write(&mut session, request, &staged, progress).await?;
    // With the session, everything that was staged ends.
    session.end().await;
    notes.append(&mut restored.notes);
    restored.notes = notes;
    restored.seconds = started.elapsed().as_secs();
    restored.bytes_read = extract.bytes_read() - read;
    Ok(restored)
}

/// Counts the rows of a backup that a condition selects. Only the part of the backup with this table is read. The server
/// evaluates the condition by its table of the same name, and is not changed.
pub async fn count_rows(
    request: &RowsRequest,
    extract: &Extract,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<i64, RestoreError> {
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    let mut session = session::open(&request.connection, &request.addresses).await?;
    let tables = session::resolve(&mut session, request).await?;
    let mut staged = Vec::new();
    for table in tables {
        // Not there at that time: none of its rows either.
        staged.extend(staging::stage(&mut session, extract, &tools, &table, progress).await?);
    }
    let count = select::select(&mut session, request, &staged, progress).await?;
    session.end().await;
    Ok(count)
}

/// A table without rows in the backup: not even an empty one.
fn absent(request: &RowsRequest, extract: &Extract, table: &Table) -> Result<String, RestoreError> {
    let label = &table.label;
    let named = request.tables.iter().any(|it| it.schema == table.schema && it.name == table.name);
    if named {
        return Err(RestoreError::Request(format!("the backup has no rows of {label}")));
    }
    if extract.manifest().is_partial() {
        return Err(RestoreError::Request(format!(
            "the backup is partial and has no rows of {label}, which depend on the selected ones: use another backup, or followCascade: false"
        )));
    }
    Ok(format!("{label} is not in the backup: it was created later"))
}

/// Everything that touches the tables, in one transaction.
async fn write(
    client: &mut Client,
    request: &RowsRequest,
    tables: &[Staged],
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<RowsRestored, RestoreError> {
    let within = client.build_transaction().read_only(false).start().await?;
    within.batch_execute(READING).await?;
    lock(&within, tables, request.dry_run).await?;
    let mut restored = RowsRestored::default();
    let mut as_owner = AsOwner::new(&within, TEMPORARY);
    for table in tables {
        let found = classify::classify(&mut as_owner, table, request.conflicts, &mut restored.problems).await?;
        restored.tables.push(found);
    }
    for (table, found) in tables.iter().zip(&mut restored.tables) {
        if found.inserted > 0 {
            classify::find_orphans(&within, &mut as_owner, table, tables, found, &mut restored.problems).await?;
        }
    }
    let written = |table: &str| restored.tables.iter().any(|it| it.table == table && it.inserted > 0);
    let skip = request.triggers == Triggers::Skip;
    let fired = tables.iter().filter(|table| !skip && written(&table.label)).flat_map(|table| &table.triggers);
    restored.triggers = fired.map(|trigger| trigger.label.clone()).collect();
    let dry_run = request.dry_run || !restored.problems.is_empty();
    if !dry_run {
        if skip {
            insert::set_triggers(&mut as_owner, tables, false).await?;
        }
        insert::insert(&mut as_owner, tables, request.conflicts, &mut restored.tables, progress).await?;
    }
    insert::links(&within, &mut as_owner, tables, dry_run, &mut restored.tables, &mut restored.notes).await?;
    if dry_run {
        within.rollback().await?;
        return Ok(restored);
    }
    if skip {
        insert::set_triggers(&mut as_owner, tables, true).await?;
    }
    insert::advance_sequences(&mut as_owner, tables).await?;
    as_owner.finish().await?;
    within.commit().await?;
    restored.done = true;
    Ok(restored)
}

/// Locks the tables against ALTER TABLE, and checks that they are what they were when their rows were staged.
async fn lock(within: &Transaction<'_>, tables: &[Staged], dry_run: bool) -> Result<(), RestoreError> {
    let idents: Vec<&str> = tables.iter().map(|table| table.target()).collect();
    if idents.is_empty() {
        return Ok(());
    }
    let mode = if dry_run { "ACCESS SHARE" } else { "ROW EXCLUSIVE" };
    within.batch_execute(&format!("LOCK TABLE {} IN {mode} MODE", idents.join(", "))).await?;
    let rels: Vec<u32> = tables.iter().map(|table| table.rel).collect();
    let now = session::describe(within, &rels).await?;
    if tables.iter().all(|table| now.contains(&table.table)) { Ok(()) } else { Err(RestoreError::Altered) }
}
