//! The session of a restore.

use pgrail_postgres::{AddressPolicy, Connection, ConnectionSettings, connect_within, detect_pooler_on};
use pgrail_rows::READING;
use tokio_postgres::Client;

use crate::outcome::RestoreError;
use crate::request::RowsRequest;
use crate::table::Table;

/// A session that may stay in one transaction for hours: every timeout that this server version knows is off. A client that
/// went away is noticed.
const SESSION: &str = "SELECT pg_catalog.set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '10s' ELSE '0' END, false) \
     FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout') \
     OR (name = 'client_connection_check_interval' AND pg_catalog.version() LIKE '%linux%')";

pub(crate) async fn open(
    connection: &ConnectionSettings,
    addresses: &AddressPolicy,
) -> Result<Connection, RestoreError> {
    let session = connect_within(connection, addresses).await?;
    if detect_pooler_on(&session, addresses).await? {
        return Err(RestoreError::Pooled);
    }
    session.query(SESSION, &[]).await?;
    Ok(session)
}

/// Describes tables.
pub(crate) async fn describe(
    client: &impl tokio_postgres::GenericClient,
    rels: &[u32],
) -> Result<Vec<Table>, RestoreError> {
    client.batch_execute(READING).await?;
    let row = client.query_one(include_str!("sql/tables.sql"), &[&rels]).await?;
    Ok(serde_json::from_str(row.try_get(0)?)?)
}

/// The tables of the request, and with `follow_cascade` their closure.
pub(crate) async fn resolve(client: &mut Client, request: &RowsRequest) -> Result<Vec<Table>, RestoreError> {
    let within = client.build_transaction().read_only(false).start().await?;
    within.batch_execute(READING).await?;
    let mut rels: Vec<u32> = Vec::new();
    for table in &request.tables {
        let label = format!("{}.{}", table.schema, table.name);
        let refused = |problem: String| Err(RestoreError::Request(problem));
        if table.schema.starts_with("pg_") || ["information_schema", "pgrail"].contains(&table.schema.as_str()) {
            return refused(format!("{label} is not a table of the application"));
        }
        let row = within.query_opt(include_str!("sql/resolve.sql"), &[&table.schema, &table.name]).await?;
        let Some(row) = row else { return refused(format!("the table {label} does not exist in the target database")) };
        let kind: String = row.try_get("kind")?;
        if !["r", "p"].contains(&kind.as_str()) {
            return refused(format!("{label} is not a table"));
        }
        if row.try_get("is_partition")? {
            let root: Option<String> = row.try_get("root")?;
            return refused(format!(
                "{label} is a partition: name the partitioned table {}, and select rows by a condition",
                root.unwrap_or_default()
            ));
        }
        let rel = row.try_get("oid")?;
        if rels.contains(&rel) {
            return refused(format!("{label} is named twice: combine the conditions with OR"));
        }
        rels.push(rel);
    }
    if rels.is_empty() {
        return Err(RestoreError::Request("no table is named".to_owned()));
    }
    if request.follow_cascade {
        let rows = within.query(include_str!("sql/closure.sql"), &[&rels]).await?;
        rels = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    }
    let tables = describe(&within, &rels).await?;
    within.rollback().await?;
    for table in &tables {
        // Rows of a partition are rows of the partitioned table: they would be restored twice.
        if let Some(other) = tables.iter().find(|other| other.rel != table.rel && table.family.contains(&other.rel)) {
            return Err(RestoreError::Request(format!(
                "{} has a foreign key that {} does not have, of which it is a partition or the other way round: restore both tables one after the other, without followCascade",
                table.label, other.label
            )));
        }
    }
    Ok(tables)
}
