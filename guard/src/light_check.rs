//! Whether anything changed since the last full observation.

use tokio_postgres::Client;

use crate::observe::ObserveError;

/// Stands for everything in a database that a plan depends on, but for statistics and counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

/// A fingerprint of tables, keys, partitions, roles and everything of ours. While it stays the same, a plan that was
/// empty is empty: a check that finds nothing changed costs one short query, two where guards are installed.
pub async fn light_check(client: &Client) -> Result<Fingerprint, ObserveError> {
    let row = client.query_one(include_str!("sql/light_check.sql"), &[]).await?;
    let mut print: String = row.try_get(0)?;
    if row.try_get(1)? {
        let ours = client.query_opt(include_str!("sql/light_check_ours.sql"), &[]).await?;
        print.push('|');
        print.push_str(ours.map(|row| row.try_get::<_, String>(0)).transpose()?.as_deref().unwrap_or("-"));
    }
    Ok(Fingerprint(print))
}
