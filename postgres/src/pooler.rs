//! Telling a pooler that lends server sessions by the transaction. Guards need their session: advisory locks and
//! settings would end up in somebody else's.

use tokio_postgres::SimpleQueryMessage;

use crate::addresses::AddressPolicy;
use crate::connect::{Connection, connect_within};
use crate::error::ConnectError;
use crate::settings::ConnectionSettings;

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum DetectPoolerError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("asking for the backend's process id")]
    Query(#[source] tokio_postgres::Error),
}

/// Whether a pooler that lends sessions by the transaction (or the statement) is in between. One that lends them by the
/// session is fine, and so is none.
///
/// Shown by process ids: on a session of one's own, every transaction runs in the same server process, and no other
/// session runs in it. Opens two connections, one after the other's first transactions, and closes both. Several
/// pooler processes behind one address can escape it by chance, never the other way round.
pub async fn detect_pooler(settings: &ConnectionSettings, policy: &AddressPolicy) -> Result<bool, DetectPoolerError> {
    let first = connect_within(settings, policy).await?;
    detect_pooler_on(&first, policy).await
}

/// Whether the server itself is at the other end of this session's socket: it sees the very port that the socket has
/// here. `false` says nothing: addresses may be translated in between.
pub async fn is_direct(connection: &Connection) -> Result<bool, DetectPoolerError> {
    let Some(own) = connection.reached().local_port else { return Ok(false) };
    // The simple protocol: no prepared statement that a pooler could lose.
    let answer =
        connection.simple_query("SELECT pg_catalog.inet_client_port()").await.map_err(DetectPoolerError::Query)?;
    Ok(answer.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some(own.to_string().as_str()),
        _ => false,
    }))
}

/// The same, with the session that is held already and one more that is closed again.
pub async fn detect_pooler_on(first: &Connection, policy: &AddressPolicy) -> Result<bool, DetectPoolerError> {
    // Two in a row: a pooler that takes turns among idle sessions gives two.
    let Some(own) = transaction(first).await? else { return Ok(true) };
    if transaction(first).await?.as_deref() != Some(own.as_str()) {
        return Ok(true);
    }
    // One that reuses the latest gives our process to the second session …
    let second = connect_within(first.settings(), policy).await?;
    let Some(other) = begin(&second).await? else { return Ok(true) };
    if other == own {
        return Ok(true);
    }
    // … or another one to us, while the second session holds on to its own.
    let differs = transaction(first).await?.as_deref() != Some(own.as_str());
    rollback(&second).await?;
    Ok(differs || transaction(&second).await? != Some(other))
}

/// Process id in a transaction of its own. `None`: transactions are not let through, so sessions go by the statement.
async fn transaction(connection: &Connection) -> Result<Option<String>, DetectPoolerError> {
    let process = begin(connection).await?;
    if process.is_some() {
        rollback(connection).await?;
    }
    Ok(process)
}

async fn begin(connection: &Connection) -> Result<Option<String>, DetectPoolerError> {
    // The simple protocol: no prepared statement that a pooler could mislay.
    match connection.simple_query("BEGIN READ ONLY").await {
        Ok(_) => {}
        // PgBouncer's protocol violation: "transaction blocks not allowed in statement pooling mode".
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
