//! The rows that arrived, compared with the manifest.

use pgrail_dump::Manifest;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::TableCounted;
use crate::outcome::RestoreError;
use crate::request::RestoreProgress;

/// How many differences an error names.
const NAMED: usize = 5;

/// Counts the rows of every table, and the large objects. `left_out` are tables whose rows were not restored on purpose.
pub(crate) async fn compare(
    session: &Client,
    manifest: &Manifest,
    left_out: &[String],
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<Vec<TableCounted>, RestoreError> {
    let tables = compare_tables(session, manifest, left_out, progress).await?;
    let large_objects = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata";
    let row = session.query_one(large_objects, &[]).await.map_err(RestoreError::of_database)?;
    let found = u64::try_from(row.try_get::<_, i64>(0).map_err(RestoreError::of_database)?).unwrap_or_default();
    if found == manifest.large_objects {
        return Ok(tables);
    }
    let expected = manifest.large_objects;
    Err(RestoreError::RowCount(format!("there are {found} large objects instead of {expected}")))
}

/// Counts the rows of every table.
pub(super) async fn compare_tables(
    session: &Client,
    manifest: &Manifest,
    left_out: &[String],
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<Vec<TableCounted>, RestoreError> {
    // Rows hidden by row security are an error, never missing.
    session.batch_execute("SET row_security = off; SET search_path = ''").await.map_err(RestoreError::of_database)?;
    let counted = manifest.tables.iter().filter_map(|table| Some((table, table.rows.number()?)));
    let counted: Vec<_> =
        counted.filter(|(table, _)| !left_out.contains(&format!("{}.{}", table.schema, table.name))).collect();
    let (mut tables, mut differences) = (Vec::with_capacity(counted.len()), Vec::new());
    for (table, expected) in &counted {
        let label = format!("{}.{}", table.schema, table.name);
        match count(session, &table.schema, &table.name).await? {
            None => differences.push(format!("{label} is missing")),
            Some(found) if found != *expected => {
                differences.push(format!("{label} has {found} rows instead of {expected}"));
            }
            Some(rows) => tables.push(TableCounted { table: label, rows }),
        }
        progress(RestoreProgress::Counted { tables: tables.len(), of: counted.len() });
    }
    if differences.is_empty() {
        return Ok(tables);
    }
    let more = differences.len().saturating_sub(NAMED);
    differences.truncate(NAMED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(RestoreError::RowCount(differences.join("; ")))
}

/// `None`: the table does not exist.
async fn count(session: &Client, schema: &str, name: &str) -> Result<Option<u64>, RestoreError> {
    let quote = "SELECT pg_catalog.format('%I.%I', $1::text, $2::text)";
    let row = session.query_one(quote, &[&schema, &name]).await.map_err(RestoreError::of_database)?;
    let ident: String = row.try_get(0).map_err(RestoreError::of_database)?;
    let statement = format!("SELECT pg_catalog.count(*) FROM ONLY {ident}");
    let row = match session.query_one(&statement, &[]).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            unforced(session, &ident, &statement).await
        }
        counted => counted,
    };
    let rows: i64 = row.and_then(|row| row.try_get(0)).map_err(RestoreError::of_database)?;
    Ok(Some(u64::try_from(rows).unwrap_or_default()))
}

/// The owner of a table that forces row security cannot count its rows otherwise.
async fn unforced(
    session: &Client,
    ident: &str,
    statement: &str,
) -> Result<tokio_postgres::Row, tokio_postgres::Error> {
    session.batch_execute(&format!("BEGIN; ALTER TABLE {ident} NO FORCE ROW LEVEL SECURITY")).await?;
    let counted = session.query_one(statement, &[]).await;
    session.batch_execute("ROLLBACK").await?;
    counted
}

/// Collects the statistics of all tables: an archive has none.
pub(crate) async fn analyze(session: &Client) -> Result<(), RestoreError> {
    // Tables of the system belong to others, which is a warning each.
    session.batch_execute("SET client_min_messages = error; ANALYZE").await.map_err(RestoreError::of_database)
}
