//! Blocked attempts, cheaply.

use tokio_postgres::Client;

use crate::observe::ObserveError;

/// Attempts that a guard stopped, or warned of, on one table since it was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// `namespace/name`
    pub guard: String,
    /// `schema.table`
    pub table: String,
    /// How many.
    pub blocked_attempts: i64,
}

/// Stands for the values of all counters of a database, and for this start of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersMark(String);

/// The mark of the counters now. While it stays the same, so do the [`counters`]: reading them costs several times as much.
pub async fn counters_mark(client: &Client) -> Result<CountersMark, ObserveError> {
    let row = client.query_one(include_str!("sql/counters_mark.sql"), &[]).await?;
    Ok(CountersMark(row.try_get(0)?))
}

/// For callers that keep a mark elsewhere, and for tests.
impl From<&str> for CountersMark {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The counters of every guard, for the frequent check. Writes only where a counter moved or the server was started
/// again since the last call: a crash may advance the server's counters, and that is never reported as attempts.
/// The price: attempts between the last call and a restart of the server are not reported.
/// Fails where nothing of pgrail is installed.
pub async fn counters(client: &Client) -> Result<Vec<Counter>, ObserveError> {
    let rows = client.query(include_str!("sql/counters.sql"), &[]).await?;
    let mut moved = false;
    let mut counters = Vec::with_capacity(rows.len());
    for row in rows {
        moved |= row.try_get::<_, i64>("value")? != row.try_get::<_, i64>("seen")?
            || !row.try_get::<_, bool>("same_start")?;
        counters.push(Counter {
            guard: row.try_get("guard")?,
            table: row.try_get("table")?,
            blocked_attempts: row.try_get("blocked")?,
        });
    }
    if moved {
        client.execute(include_str!("sql/counters_seen.sql"), &[]).await?;
    }
    Ok(counters)
}
