//! Detection of poolers in transaction or statement mode. With such a pooler, advisory locks and settings would apply
//! to the session of another client.

use tokio_postgres::SimpleQueryMessage;

use crate::addresses::AddressPolicy;
use crate::connect::{Connection, connect_within};
use crate::error::ConnectError;
use crate::settings::ConnectionSettings;

/// Error of the detection.
#[derive(Debug, thiserror::Error)]
pub enum DetectPoolerError {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("could not read the process ID of the backend")]
    Query(#[source] tokio_postgres::Error),
}

/// Whether the connection uses a pooler in transaction or statement mode. A pooler in session mode is not detected.
///
/// Without such a pooler, all transactions of a session run in the same server process, and no other session runs in
/// it. Opens two connections and closes both. Several pooler processes behind one address can remain undetected by
/// chance. There are no false positives.
pub async fn detect_pooler(settings: &ConnectionSettings, policy: &AddressPolicy) -> Result<bool, DetectPoolerError> {
    let first = connect_within(settings, policy).await?;
    detect_pooler_on(&first, policy).await
}

/// Whether the session is connected to the server without a pooler: the server then sees the local port of the socket.
/// `false` means unknown, because of address translation.
pub async fn is_direct(connection: &Connection) -> Result<bool, DetectPoolerError> {
    let Some(own) = connection.reached().local_port else { return Ok(false) };
    // The simple query protocol uses no prepared statement that a pooler could lose.
    let answer =
        connection.simple_query("SELECT pg_catalog.inet_client_port()").await.map_err(DetectPoolerError::Query)?;
    Ok(answer.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some(own.to_string().as_str()),
        _ => false,
    }))
}

/// As [`detect_pooler`], with an existing session and a second one, which is closed.
pub async fn detect_pooler_on(first: &Connection, policy: &AddressPolicy) -> Result<bool, DetectPoolerError> {
    // A pooler that rotates idle sessions uses two processes for two transactions.
    let Some(own) = transaction(first).await? else { return Ok(true) };
    if transaction(first).await?.as_deref() != Some(own.as_str()) {
        return Ok(true);
    }
    // A pooler that reuses the last session gives the process of the first session to the second one …
    let second = connect_within(first.settings(), policy).await?;
    let Some(other) = begin(&second).await? else { return Ok(true) };
    if other == own {
        return Ok(true);
    }
    // … or gives another process to the first session while the second one keeps its process.
    let differs = transaction(first).await?.as_deref() != Some(own.as_str());
    rollback(&second).await?;
    Ok(differs || transaction(&second).await? != Some(other))
}

/// Process ID in a separate transaction. `None`: the pooler refuses transactions, because it is in statement mode.
async fn transaction(connection: &Connection) -> Result<Option<String>, DetectPoolerError> {
    let process = begin(connection).await?;
    if process.is_some() {
        rollback(connection).await?;
    }
    Ok(process)
}

async fn begin(connection: &Connection) -> Result<Option<String>, DetectPoolerError> {
    // The simple query protocol uses no prepared statement that a pooler could lose.
    match connection.simple_query("BEGIN READ ONLY").await {
        Ok(_) => {}
        // Protocol violation of PgBouncer: "transaction blocks not allowed in statement pooling mode".
        Err(error) if error.code().is_some_and(|code| code.code() == "08P01") => return Ok(None),
        Err(error) => return Err(DetectPoolerError::Query(error)),
    }
    let answer =
        connection.simple_query("SELECT pg_catalog.pg_backend_pid()").await.map_err(DetectPoolerError::Query)?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

async fn rollback(connection: &Connection) -> Result<(), DetectPoolerError> {
    connection.simple_query("ROLLBACK").await.map(drop).map_err(DetectPoolerError::Query)
}
