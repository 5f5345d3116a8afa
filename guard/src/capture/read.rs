//! Captured rows: what there is, and the removal of what is kept too long.

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::store::{self, CaptureError, Store};

/// What was captured of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedTransaction {
    /// Its number, by which it is undone.
    pub transaction: u64,
    /// When it began, in UTC as ISO 8601.
    pub began: String,
    /// Who was logged in (`session_user`).
    pub login: String,
    /// The role of `SET ROLE`, or the login.
    pub role: String,
    /// `application_name`.
    pub application: String,
    /// The client's address; empty: a local socket.
    pub client: String,
    /// The guards that captured it.
    pub guards: Vec<String>,
    /// Why it cannot be restored as a whole.
    pub incomplete: Option<String>,
    /// When it was restored, likewise.
    pub undone: Option<String>,
    /// By whom.
    pub undone_by: Option<String>,
    /// Its rows by table.
    pub tables: Vec<CapturedTable>,
}

/// What was captured of a transaction in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedTable {
    /// `schema.table`, as it is called now or, if it no longer exists, was called then.
    pub table: String,
    /// Rows that were deleted.
    pub deleted: i64,
    /// Rows that had a key set to NULL or its default.
    pub nulled: i64,
}

/// Every transaction of which rows are captured, or were and were too many; the newest first.
/// Fails where nothing of pgrail is installed.
pub async fn captured(client: &Client) -> Result<Vec<CapturedTransaction>, CaptureError> {
    store::begin(client, "10s").await?;
    let transactions = list(client).await;
    client.batch_execute("ROLLBACK").await?;
    transactions
}

async fn list(client: &Client) -> Result<Vec<CapturedTransaction>, CaptureError> {
    if !is_installed(client).await? {
        return Err(CaptureError::NotInstalled);
    }
    let stores = store::open(client).await?;
    if stores.is_empty() {
        return Ok(Vec::new());
    }
    let row = client.query_one(&store::united(include_str!("../sql/captured.sql"), &stores), &[]).await?;
    Ok(serde_json::from_str(row.try_get(0)?)?)
}

async fn is_installed(client: &Client) -> Result<bool, tokio_postgres::Error> {
    client.query_one("SELECT pg_catalog.to_regnamespace('pgrail') IS NOT NULL", &[]).await?.try_get(0)
}

/// How many rows are captured in all; `None` where nothing of pgrail is installed.
pub async fn captured_rows(client: &Client) -> Result<Option<i64>, CaptureError> {
    if !is_installed(client).await? {
        return Ok(None);
    }
    store::begin(client, "10s").await?;
    let count = async {
        let stores = store::open(client).await?;
        if stores.is_empty() {
            return Ok(0);
        }
        let count = store::united("SELECT count(*) FROM {rows} c", &stores);
        Ok(client.query_one(&count, &[]).await?.try_get(0)?)
    };
    let count = count.await;
    client.batch_execute("ROLLBACK").await?;
    count.map(Some)
}

/// Removes what is kept too long or is too much, in batches, each a transaction of its own. Writes nothing, and returns 0,
/// where there is nothing to remove, where nothing is installed, or where another owner than `owner` installed it.
/// Otherwise: how many transactions it removed. A store that its owner altered is skipped, and so is everything where a
/// publication FOR ALL TABLES would publish the removal.
pub async fn prune(client: &Client, owner: &str) -> Result<u64, CaptureError> {
    let managed = "SELECT pg_catalog.to_regproc('pgrail.prune_captured_rows') IS NOT NULL AND NOT pg_catalog.pg_is_in_recovery() \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.puballtables) \
        AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relname >= 'captured_' AND c.relname < 'captured`' \
                    AND c.relnamespace = pg_catalog.to_regnamespace('pgrail'))";
    if !client.query_one(managed, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let Some(row) = client.query_opt(include_str!("../sql/capture_bounds.sql"), &[&owner]).await? else { return Ok(0) };
    let bounds: String = row.try_get(0)?;
    let (mut removed, mut failed) = (0, None);
    for name in store::names(client).await? {
        loop {
            store::begin(client, "500ms").await?;
            match prune_batch(client, &name, &bounds).await {
                Ok(0) => {
                    client.batch_execute("COMMIT").await?;
                    break;
                }
                Ok(batch) => {
                    client.batch_execute("COMMIT").await?;
                    removed += batch;
                }
                Err(error) => {
                    client.batch_execute("ROLLBACK").await?;
                    // One owner's store must not keep what is captured for others.
                    tracing::warn!(store = name, %error, "captured rows are not pruned");
                    failed = failed.or(Some(error));
                    break;
                }
            }
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// One batch of one store, or the store itself when it is empty and nothing captures into it any more.
async fn prune_batch(client: &Client, name: &str, bounds: &str) -> Result<u64, CaptureError> {
    /// Transactions of a batch, each of at most `maxRows` rows.
    const BATCH: i32 = 20;
    let Some(store) = store::open_one(client, name).await? else { return Ok(0) };
    let Store { rows, transactions, suffix, .. } = &store;
    let due = include_str!("../sql/captured_due.sql").replace("{rows}", rows).replace("{transactions}", transactions);
    let row = client.query_one(&due, &[&bounds]).await?;
    if row.try_get("due")? {
        let prune = "SELECT pgrail.prune_captured_rows($1::text::oid, $2::text::jsonb, NULL, $3)";
        let batch: i32 = client.query_one(prune, &[suffix, &bounds, &BATCH]).await?.try_get(0)?;
        return Ok(u64::try_from(batch).unwrap_or_default());
    }
    let unused = "SELECT NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'pgrail'::regnamespace AND starts_with(p.proname, $1))";
    let prefix = format!("capture_{suffix}_");
    if row.try_get("empty")? && client.query_one(unused, &[&prefix]).await?.try_get(0)? {
        // A delete that began when rows were still captured may not have ended.
        client.batch_execute(&format!("LOCK TABLE {rows}, {transactions} IN ACCESS EXCLUSIVE MODE")).await?;
        if client.query_one(&due, &[&bounds]).await?.try_get("empty")? {
            client.batch_execute(&format!("DROP TABLE {rows}, {transactions}")).await?;
        }
    }
    Ok(0)
}
