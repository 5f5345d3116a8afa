//! A whole backup into a new database.
//!
//! 1. The server is checked: privileges, version, extensions, roles, tablespaces.
//! 2. Missing roles and the database are created, with the encoding and the locale of the source.
//! 3. The archive is streamed from the store into pg_restore.
//! 4. The rows of every table are counted and compared with the manifest, and statistics are collected.
//!
//! After an error, what was created is removed again, or named.

mod check;
mod count;
mod create;
mod target;

use std::future::Future;
use std::path::PathBuf;
use std::time::Instant;

use pgrail_dump::{ClientTools, Entry, Extract, Load, LoadRows, Manifest};
use pgrail_postgres::{AddressPolicy, Connection, ConnectionSettings, Reached};
use serde::{Deserialize, Serialize};

use crate::outcome::RestoreError;
use crate::request::RestoreProgress;
use crate::session;
use check::{Plan, Scope};
pub(crate) use count::{analyze, compare as compare_all};
use create::Created;
pub(crate) use create::{apply_settings, run};
pub(crate) use target::{mark_of, only_superuser};

/// A backup to be restored into a new database.
#[derive(Debug, Clone)]
pub struct DatabaseRequest {
    /// A database of the server: the new one is created from there.
    pub connection: ConnectionSettings,
    /// The addresses that its host may have.
    pub addresses: AddressPolicy,
    /// The name of the new database.
    pub name: String,
    /// Identifies the restore. An unfinished database of a restore with the same identity is replaced, any other is kept.
    pub id: String,
    /// The directory of `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
}

/// The result of a restore into a new database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseRestored {
    /// The new database.
    pub database: String,
    /// Its owner.
    pub owner: String,
    /// Roles that were missing and were created, without LOGIN and without a password.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles_created: Vec<String>,
    /// What is not as it was in the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The tables, each with its rows, which were counted. The number is that of the manifest.
    pub tables: Vec<TableCounted>,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// How many bytes of the backup were read.
    pub bytes_read: u64,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableCounted {
    /// `schema.table`
    pub table: String,
    /// Its rows.
    pub rows: u64,
}

impl DatabaseRestored {
    /// All rows.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Restores a backup into a new database. The backup must have been opened with the manifest that was published, see
/// [`pgrail_dump::Manifest::read_published`]. It is aborted when `stop` is ready.
///
/// # Errors
/// See [`RestoreError`]. What was created is removed, unless the error is [`RestoreError::Left`].
pub async fn restore_database(
    request: &DatabaseRequest,
    extract: &Extract,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<DatabaseRestored, RestoreError> {
    let started = Instant::now();
    let read = extract.bytes_read();
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    tokio::pin!(stop);
    let checked = async {
        let session = session::open(&request.connection, &request.addresses).await?;
        let plan = check::check(request, extract, Scope::Whole, &tools, &session).await?;
        Ok::<_, RestoreError>((session, plan))
    };
    let (session, plan) = tokio::select! {
        checked = checked => checked?,
        () = &mut stop => return Err(RestoreError::Interrupted),
    };
    // Not interrupted: afterwards it is known what was created.
    let created = create::create(request, &plan, extract.manifest(), &session).await?;
    drop(session);
    let filled = tokio::select! {
        filled = fill(request, &plan, extract, &tools, progress) => filled,
        () = &mut stop => Err(RestoreError::Interrupted),
    };
    let Filled { tables, notes } = match filled {
        Ok(filled) => filled,
        Err(error) => return Err(remove(request, &created, error).await),
    };
    let mut notes = [plan.notes.clone(), notes].concat();
    if let Err(error) = create::finish(request, &created, extract.manifest()).await {
        notes.push(format!("the comment of the database still names an unfinished restore: {error}"));
    }
    Ok(DatabaseRestored {
        database: request.name.clone(),
        owner: created.owner,
        roles_created: created.roles,
        notes,
        tables,
        seconds: started.elapsed().as_secs(),
        bytes_read: extract.bytes_read() - read,
    })
}

struct Filled {
    tables: Vec<TableCounted>,
    notes: Vec<String>,
}

async fn fill(
    request: &DatabaseRequest,
    plan: &Plan,
    extract: &Extract,
    tools: &ClientTools,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<Filled, RestoreError> {
    let connection = request.connection.with_database(&request.name);
    let session = session::open(&connection, &request.addresses).await?;
    let load = Load { owners: plan.ownership.as_dumped(), ..load_of(&connection, plan, session.reached()) };
    drop(session);
    let of = extract.manifest().archive().length;
    extract.load(tools, &load, &|bytes| progress(RestoreProgress::Loading { bytes, of })).await?;
    let session = within(&connection, request, plan).await?;
    // Beside the counts, where the server has a connection left.
    let other = within(&connection, request, plan).await.ok();
    let compared = count::compare(&session, extract.manifest(), &plan.left_out, progress);
    let (tables, mut notes) = match &other {
        Some(other) => tokio::try_join!(compared, count::analyze(other))?,
        None => (compared.await?, count::analyze(&session).await?),
    };
    notes.extend(create::apply_settings(&session, &request.name, extract.manifest()).await?);
    Ok(Filled { tables, notes })
}

/// Everything, owned by one role.
fn load_of(connection: &ConnectionSettings, plan: &Plan, reached: Reached) -> Load {
    Load {
        connection: connection.clone(),
        reached,
        server_major: plan.major,
        entries: plan.entries.clone(),
        role: plan.ownership.role().map(str::to_owned),
        owners: false,
        tablespaces: plan.tablespaces,
        rows: LoadRows::All,
    }
}

/// A session in the new database, as the role that owns everything.
async fn within(
    connection: &ConnectionSettings,
    request: &DatabaseRequest,
    plan: &Plan,
) -> Result<Connection, RestoreError> {
    let session = session::open(connection, &request.addresses).await?;
    if let Some(role) = plan.ownership.role() {
        create::set_role(&session, role).await?;
    }
    Ok(session)
}

/// Removes what was created, and returns the error with what could not be removed.
async fn remove(request: &DatabaseRequest, created: &Created, error: RestoreError) -> RestoreError {
    let left = match session::open(&request.connection, &request.addresses).await {
        Ok(session) => create::remove(&session, created).await,
        Err(problem) => create::everything(created, &problem),
    };
    if left.is_empty() { error } else { RestoreError::Left { error: Box::new(error), left: left.join("; ") } }
}

/// A database that exists only during a restore into another place.
pub(crate) struct Scratch {
    request: DatabaseRequest,
    plan: Plan,
    created: Created,
}

/// Creates a scratch database for some entries of an archive.
pub(crate) async fn scratch(
    request: &DatabaseRequest,
    extract: &Extract,
    entries: &[Entry],
    tools: &ClientTools,
    session: &Connection,
) -> Result<Scratch, RestoreError> {
    let plan = check::check(request, extract, Scope::Entries(entries), tools, session).await?;
    let created = create::create(request, &plan, extract.manifest(), session).await?;
    Ok(Scratch { request: request.clone(), plan, created })
}

impl Scratch {
    pub(crate) fn connection(&self) -> ConnectionSettings {
        self.request.connection.with_database(&self.request.name)
    }

    pub(crate) fn major(&self) -> u32 {
        self.plan.major
    }

    /// The role that owns everything in it, if it is not the login.
    pub(crate) fn role(&self) -> Option<&str> {
        self.plan.ownership.role()
    }

    pub(crate) async fn session(&self) -> Result<Connection, RestoreError> {
        within(&self.connection(), &self.request, &self.plan).await
    }

    pub(crate) fn load(&self, reached: Reached) -> Load {
        load_of(&self.connection(), &self.plan, reached)
    }

    /// Returns what is left.
    pub(crate) async fn remove(&self) -> Vec<String> {
        match session::open(&self.request.connection, &self.request.addresses).await {
            Ok(session) => create::remove(&session, &self.created).await,
            Err(problem) => create::everything(&self.created, &problem),
        }
    }
}

/// Counts the rows of the tables of a manifest.
pub(crate) async fn compare(
    session: &Connection,
    manifest: &Manifest,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<Vec<TableCounted>, RestoreError> {
    count::compare_tables(session, manifest, &[], progress).await
}
