//! How much of the windows is used.

use serde::Serialize;
use tokio_postgres::Client;

use crate::observe::ObserveError;
use crate::spec::GuardName;

/// How much of a guard's window on one table is used, by the database's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowUse {
    /// `namespace/name`
    pub guard: String,
    /// `schema.table`
    pub table: String,
    /// The length of the window in seconds.
    pub seconds: i32,
    /// Rows of the table that were removed within it, and the limit; `None`: not limited.
    #[serde(serialize_with = "rows", skip_serializing_if = "Option::is_none")]
    pub rows: Option<(i64, i64)>,
    /// The same for rows of other tables.
    #[serde(serialize_with = "rows", skip_serializing_if = "Option::is_none")]
    pub cascade_rows: Option<(i64, i64)>,
    /// Since when it is counted, in seconds since 1970; `None` where nothing was removed since it was installed.
    pub since: Option<i64>,
    /// When it last stopped a statement, or warned of one, in seconds since 1970.
    pub stopped: Option<i64>,
}

#[allow(clippy::ref_option, reason = "as serde has it")]
fn rows<S: serde::Serializer>(rows: &Option<(i64, i64)>, serializer: S) -> Result<S::Ok, S::Error> {
    rows.map(|(removed, limit)| serde_json::json!({ "removed": removed, "limit": limit })).serialize(serializer)
}

/// The windows of a guard, or of every guard. Writes nothing. Fails where nothing of pgrail is installed.
pub async fn windows(client: &Client, guard: Option<&GuardName>) -> Result<Vec<WindowUse>, ObserveError> {
    let rows = client.query(include_str!("sql/windows.sql"), &[&guard.map(GuardName::as_str)]).await?;
    let windows = rows.iter().map(|row| {
        let of = |removed, limit| -> Result<Option<(i64, i64)>, tokio_postgres::Error> {
            let pair: (Option<i64>, Option<i64>) = (row.try_get(removed)?, row.try_get(limit)?);
            Ok(pair.0.zip(pair.1))
        };
        Ok(WindowUse {
            guard: row.try_get("guard")?,
            table: row.try_get("table")?,
            seconds: row.try_get("seconds")?,
            rows: of("removed", "max_rows")?,
            cascade_rows: of("cascade_removed", "max_cascade_rows")?,
            since: row.try_get("since")?,
            stopped: row.try_get("stopped")?,
        })
    });
    windows.collect()
}
