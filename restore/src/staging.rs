//! The rows of the backup in temporary tables of the session.

use futures::SinkExt;
use pgrail_dump::{ClientTools, Extract, RowStream};
use pgrail_rows::READING;
use tokio_postgres::Client;

use crate::outcome::RestoreError;
use crate::request::RestoreProgress;
use crate::table::{Staged, Table};

/// Copies the rows of one table from the store; `None` if the backup has none. The rows of every block are committed only
/// after their SHA-256 and their number were found to be those of the manifest.
pub(crate) async fn stage(
    client: &mut Client,
    extract: &Extract,
    tools: &ClientTools,
    table: &Table,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<Option<Staged>, RestoreError> {
    let encoding = &extract.manifest().encoding;
    if !encoding.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(RestoreError::Request(format!("the backup has the encoding {encoding:?}")));
    }
    let mut staged: Option<Staged> = None;
    for entry in extract.tables(&table.schema, &table.name) {
        progress(RestoreProgress::Reading { table: table.label.clone(), bytes: Extract::size(&entry)? });
        let mut rows = extract.rows(&entry, tools).await?;
        let columns = columns(client, &rows, encoding).await?;
        check_columns(table, &columns)?;
        if staged.is_none() {
            create(client, table, &columns).await?;
        }
        copy(client, table, &columns, encoding, &mut rows).await?;
        let in_backup = i64::try_from(rows.rows()).unwrap_or(i64::MAX);
        match &mut staged {
            None => staged = Some(Staged { table: table.clone(), columns, in_backup }),
            Some(staged) => {
                if staged.columns.iter().any(|column| !columns.contains(column)) {
                    let label = &table.label;
                    return Err(RestoreError::Request(format!(
                        "partitions of {label} have other columns in the backup"
                    )));
                }
                staged.in_backup += in_backup;
            }
        }
    }
    if let Some(staged) = &staged {
        client.batch_execute(&format!("BEGIN; {READING}; ANALYZE {}; COMMIT", staged.stage())).await?;
    }
    Ok(staged)
}

/// The columns of the backup, ready for SQL.
async fn columns(client: &Client, rows: &RowStream, encoding: &str) -> Result<Vec<String>, RestoreError> {
    let sql = "SELECT pg_catalog.quote_ident(pg_catalog.convert_from(c.name, $2::pg_catalog.name)) \
         FROM pg_catalog.unnest($1::pg_catalog.bytea[]) WITH ORDINALITY AS c(name, place) ORDER BY c.place";
    let sql = sql.replace("$2::pg_catalog.name", &format!("'{encoding}'"));
    let found = client.query(&sql, &[&rows.columns]).await?;
    Ok(found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn check_columns(table: &Table, columns: &[String]) -> Result<(), RestoreError> {
    let label = &table.label;
    if columns.is_empty() {
        return Err(RestoreError::Request(format!("{label} has no columns in the backup")));
    }
    let there = |column: &&String| table.columns.iter().any(|it| it.ident == **column && !it.generated);
    let missing: Vec<&str> = columns.iter().filter(|column| !there(column)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(RestoreError::Request(format!(
        "{label} no longer has the columns {} of the backup: restore it into a new schema",
        missing.join(", ")
    )))
}

/// Creates the temporary tables of a table. Nothing in them is evaluated as pgrail's role: values that another role's code
/// may read are kept as text.
async fn create(client: &mut Client, table: &Table, columns: &[String]) -> Result<(), RestoreError> {
    let kind = |column: &String| table.kind(column).unwrap_or_default();
    let stored = columns.iter().map(|column| {
        let kind = if table.untrusted.contains(column) { "pg_catalog.text" } else { kind(column) };
        format!("{column} {kind}")
    });
    let untrusted = columns.iter().filter(|column| table.untrusted.contains(column));
    let typed = untrusted.map(|column| format!("{column} {}", kind(column))).collect::<Vec<_>>().join(", ");
    let mut sql = format!(
        "CREATE TEMPORARY TABLE {stage} ({stored}); GRANT SELECT ON {stage} TO {owner}; \
         CREATE TEMPORARY TABLE {selection} (id pg_catalog.tid, round pg_catalog.int4); GRANT SELECT, INSERT ON {selection} TO {owner}; \
         CREATE TEMPORARY TABLE {classes} (id pg_catalog.tid, class pg_catalog.int4); GRANT SELECT, INSERT ON {classes} TO {owner}",
        stage = table.stage(),
        stored = stored.collect::<Vec<_>>().join(", "),
        owner = table.owner_ident,
        selection = table.selection(),
        classes = table.classes(),
    );
    if !typed.is_empty() {
        use std::fmt::Write as _;
        let _ = write!(sql, "; CREATE TYPE {} AS ({typed})", table.row_type());
    }
    let within = client.build_transaction().read_only(false).start().await?;
    within.batch_execute(READING).await?;
    within.batch_execute(&sql).await?;
    Ok(within.commit().await?)
}

async fn copy(
    client: &mut Client,
    table: &Table,
    columns: &[String],
    encoding: &str,
    rows: &mut RowStream,
) -> Result<(), RestoreError> {
    let within = client.build_transaction().read_only(false).start().await?;
    within.batch_execute(READING).await?;
    let copy =
        format!("COPY {} ({}) FROM STDIN WITH (FORMAT text, ENCODING '{encoding}')", table.stage(), columns.join(", "));
    {
        let sink = within.copy_in(&copy).await?;
        let mut sink = std::pin::pin!(sink);
        // An error leaves the sink unfinished: the server rolls the rows back.
        while let Some(piece) = rows.next().await? {
            sink.send(piece).await?;
        }
        let copied = sink.as_mut().finish().await?;
        if copied != rows.rows() {
            let label = &table.label;
            return Err(RestoreError::Request(format!("{label}: {copied} of {} rows were copied", rows.rows())));
        }
    }
    Ok(within.commit().await?)
}
