//! What pgrail's role may do in a database, and what the server is.

use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Why the capabilities could not be read.
#[derive(Debug, Error)]
#[error("cannot read what the role may do: {0}")]
pub struct CapabilitiesError(#[from] tokio_postgres::Error);

/// What pgrail's role may do, and what the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, as the API lists them")]
pub struct Capabilities {
    /// The current role.
    pub role: String,
    /// It is a superuser.
    pub superuser: bool,
    /// It owns every application table, directly or as a member; false where there is none to own.
    pub owns_tables: bool,
    /// Application tables that it owns itself, not as a member. Those of a schema that pgrail restored are not counted.
    pub own_tables: i64,
    /// It may create event triggers.
    pub event_triggers: bool,
    /// It can read all data.
    pub read_all_data: bool,
    /// Row level security does not apply to it.
    pub bypass_rls: bool,
    /// It may create our schema.
    pub create_schema: bool,
    /// Such as 170012.
    pub server_version_num: i32,
    /// Such as `17.12`.
    pub server_version: String,
    /// The server is a standby.
    pub in_recovery: bool,
    /// The server counts rows. Without, no guard works.
    pub track_counts: bool,
    /// Application tables.
    pub tables: i64,
}

/// Reads the capabilities. Writes nothing. The answer is the same while the [`Fingerprint`](crate::Fingerprint) is.
pub async fn read(client: &Client) -> Result<Capabilities, CapabilitiesError> {
    let row = client.query_one(include_str!("sql/capabilities.sql"), &[]).await?;
    let version: String = row.try_get("server_version")?;
    let in_recovery: bool = row.try_get("in_recovery")?;
    let superuser: bool = row.try_get("superuser")?;
    let tables: i64 = row.try_get("tables")?;
    let event_triggers = superuser || (!in_recovery && may_create_event_triggers(client).await?);
    Ok(Capabilities {
        role: row.try_get("role")?,
        superuser,
        owns_tables: tables > 0 && row.try_get::<_, i64>("not_owned")? == 0,
        own_tables: row.try_get("own")?,
        event_triggers,
        read_all_data: row.try_get("read_all_data")?,
        bypass_rls: row.try_get("bypass_rls")?,
        create_schema: row.try_get("create_schema")?,
        server_version_num: row.try_get("server_version_num")?,
        server_version: version.split_whitespace().next().unwrap_or_default().to_owned(),
        in_recovery,
        track_counts: row.try_get("track_counts")?,
        tables,
    })
}

/// Managed services let some roles create event triggers by means of their own. The server checks the privilege before it
/// looks up the function, so a function that cannot exist shows it without creating anything. The error is caught in the
/// server, which then does not log it: this is asked regularly.
pub(crate) async fn may_create_event_triggers(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let answer = match client.simple_query(include_str!("sql/event_trigger_probe.sql")).await {
        Ok(answer) => answer,
        // A database without PL/pgSQL has no guards either.
        Err(error) if error.code().is_some() => return Ok(false),
        Err(error) => return Err(error),
    };
    let state = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(state == Some(SqlState::UNDEFINED_FUNCTION.code()))
}
