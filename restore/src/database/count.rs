//! The rows that arrived, compared with the manifest.

use std::collections::BTreeMap;

use pgrail_dump::{Manifest, RowCounter};
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
    let names = counted.iter().map(|(table, _)| (table.schema.as_str(), table.name.as_str()));
    let counters = RowCounter::of(session, names).await.map_err(RestoreError::of_database)?;
    let (mut tables, mut differences) = (Vec::with_capacity(counted.len()), Vec::new());
    let mut of_roots: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (done, (table, expected)) in counted.iter().enumerate() {
        let label = format!("{}.{}", table.schema, table.name);
        let found = match counters.get(&(table.schema.clone(), table.name.clone())) {
            None => None,
            Some(counter) => count(session, counter).await?,
        };
        match (found, table.partition_of.as_ref().filter(|_| table.through_root)) {
            (None, _) => differences.push(format!("{label} is missing")),
            // The server may have inserted its rows into other partitions.
            (Some(found), Some((schema, name))) => {
                let sum = of_roots.entry(format!("{schema}.{name}")).or_default();
                *sum = (sum.0 + expected, sum.1 + found);
            }
            (Some(found), None) => compare_one(label, *expected, found, &mut tables, &mut differences),
        }
        progress(RestoreProgress::Counted { tables: done + 1, of: counted.len() });
    }
    for (label, (expected, found)) in of_roots {
        compare_one(label, expected, found, &mut tables, &mut differences);
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

fn compare_one(
    label: String,
    expected: u64,
    found: u64,
    tables: &mut Vec<TableCounted>,
    differences: &mut Vec<String>,
) {
    if found == expected {
        tables.push(TableCounted { table: label, rows: found });
    } else {
        differences.push(format!("{label} has {found} rows instead of {expected}"));
    }
}

/// `None`: the table does not exist any more.
async fn count(session: &Client, counter: &RowCounter) -> Result<Option<u64>, RestoreError> {
    let rows = match counter.count(session).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => unforced(session, counter).await,
        counted => counted,
    };
    rows.map(Some).map_err(RestoreError::of_database)
}

/// The owner of a table that forces row security cannot count its rows otherwise.
async fn unforced(session: &Client, counter: &RowCounter) -> Result<u64, tokio_postgres::Error> {
    session.batch_execute(&format!("BEGIN; ALTER TABLE {} NO FORCE ROW LEVEL SECURITY", counter.ident)).await?;
    let counted = counter.count(session).await;
    session.batch_execute("ROLLBACK").await?;
    counted
}

/// Collects the statistics of all tables: an archive has none. Returns which ones have none now: an expression of theirs can call what
/// only works with another search path, or a partition can be on a foreign server that does not answer.
pub(crate) async fn analyze(session: &Client) -> Result<Vec<String>, RestoreError> {
    // Tables of the system belong to others, which is a warning each.
    let all = session.batch_execute("SET client_min_messages = error; ANALYZE").await;
    let Err(error) = all else { return Ok(Vec::new()) };
    if session.is_closed() || error.as_db_error().is_none() {
        return Err(RestoreError::of_database(error));
    }
    let sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY c.oid";
    let (mut failed, mut notes) = (0, Vec::new());
    for row in session.query(sql, &[]).await.map_err(RestoreError::of_database)? {
        let ident: String = row.try_get(0).map_err(RestoreError::of_database)?;
        let Err(error) = session.batch_execute(&format!("ANALYZE {ident}")).await else { continue };
        let problem = error.as_db_error().map(|error| error.message().to_owned());
        let Some(problem) = problem.filter(|_| !session.is_closed()) else {
            return Err(RestoreError::of_database(error));
        };
        failed += 1;
        if failed <= NAMED {
            notes.push(format!("the statistics of {ident} could not be collected: {problem}"));
        }
    }
    if failed > NAMED {
        notes.push(format!("nor those of {} more tables", failed - NAMED));
    }
    Ok(notes)
}
