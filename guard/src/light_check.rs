//! Whether anything changed since the last full observation.

use tokio_postgres::Client;

use crate::observe::ObserveError;

/// Stands for everything in a database that a plan or the role's [`Capabilities`](crate::Capabilities) depend on, but for
/// statistics and counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

/// A fingerprint of tables, keys, partitions, roles and everything of pgrail's. While it stays the same, a plan that was
/// empty is empty, and the capabilities are what they were: a check that finds nothing changed costs one short query.
pub async fn light_check(client: &Client) -> Result<Fingerprint, ObserveError> {
    let row = client.query_one(include_str!("sql/light_check.sql"), &[]).await?;
    Ok(Fingerprint(row.try_get(0)?))
}

/// For callers that keep a fingerprint elsewhere, and for tests.
impl From<&str> for Fingerprint {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
