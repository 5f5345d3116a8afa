//! Counting the rows of a table, without running functions of its owner.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use tokio_postgres::{Client, Error};

/// How the rows of one table are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCounter {
    /// Schema and name, quoted.
    pub ident: String,
    /// For tables whose indexes or statistics call functions that are not built in, see `sql/count.sql`.
    copy: Option<String>,
}

impl RowCounter {
    /// Counters of tables, by schema and name; none for a table that does not exist. The session's search path must be empty.
    pub async fn of<'a>(
        client: &Client,
        tables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<BTreeMap<(String, String), Self>, Error> {
        let (schemas, names): (Vec<&str>, Vec<&str>) = tables.into_iter().unzip();
        let rows = client.query(include_str!("sql/count.sql"), &[&schemas, &names]).await?;
        let counter = |row: &tokio_postgres::Row| {
            let name = (row.try_get("schema")?, row.try_get("name")?);
            Ok((name, Self { ident: row.try_get("ident")?, copy: row.try_get("copy")? }))
        };
        rows.iter().map(counter).collect()
    }

    /// Counts the rows of the table itself, without those of its children.
    pub async fn count(&self, client: &Client) -> Result<u64, Error> {
        let Some(copy) = &self.copy else {
            let statement = format!("SELECT pg_catalog.count(*) FROM ONLY {}", self.ident);
            let rows: i64 = client.query_one(&statement, &[]).await?.try_get(0)?;
            return Ok(u64::try_from(rows).unwrap_or_default());
        };
        let pieces = client.copy_out(copy).await?;
        // A line per row: a line feed in a value is escaped.
        let lines =
            |rows, piece: bytes::Bytes| async move { Ok(rows + memchr::memchr_iter(b'\n', &piece).count() as u64) };
        pieces.try_fold(0, lines).await
    }
}
