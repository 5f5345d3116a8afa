//! Protection from DROP DATABASE. The server refuses to drop a template database, with FORCE and for superusers too.

use tokio_postgres::Client;

/// How a database stands against DROP DATABASE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseProtection {
    /// It is a template database: DROP DATABASE is refused.
    pub is_template: bool,
    /// The current role can change that.
    pub may_change: bool,
    /// The owner of the database.
    pub owner: String,
    /// The GRANT after which the current role can change that.
    pub membership: String,
    /// The statement that protects.
    pub protect: String,
    /// The statement that ends the protection.
    pub release: String,
}

/// Reads it. Writes nothing.
pub async fn database_protection(client: &Client) -> Result<DatabaseProtection, tokio_postgres::Error> {
    let row = client.query_one(include_str!("sql/database_protection.sql"), &[]).await?;
    Ok(DatabaseProtection {
        is_template: row.try_get("is_template")?,
        may_change: row.try_get("may_change")?,
        owner: row.try_get("owner")?,
        membership: row.try_get("membership")?,
        protect: row.try_get("protect")?,
        release: row.try_get("release")?,
    })
}

/// Protects the database, or ends that. Waits no longer than half a second for another session that changes the database.
pub async fn protect_database(
    client: &Client,
    found: &DatabaseProtection,
    protect: bool,
) -> Result<(), tokio_postgres::Error> {
    let statement = if protect { &found.protect } else { &found.release };
    client.batch_execute(&format!("SET LOCAL lock_timeout = '500ms'; {statement}")).await
}
