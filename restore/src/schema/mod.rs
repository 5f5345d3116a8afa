//! Some tables of a backup, restored beside the live ones, into a new schema.
//!
//! pg_restore cannot rename a schema, so the server does it: the tables and what they need are restored into a scratch database, the
//! schema is renamed there, which renames it in everything that refers to it, and is copied into the target by pg_dump and
//! pg_restore. The rows are counted in both.

mod select;

use std::future::Future;
use std::path::PathBuf;
use std::time::Instant;

use pgrail_dump::{ClientTools, CopyEnd, Extract, Load, LoadRows, Manifest, TableRows, copy_schema};
use pgrail_postgres::{AddressPolicy, Connection, ConnectionSettings};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::database::{self, DatabaseRequest, Scratch, TableCounted};
use crate::outcome::RestoreError;
use crate::request::RestoreProgress;
use crate::session;
use select::Selected;

/// Tables of one schema of a backup, to be restored into a new schema.
#[derive(Debug, Clone)]
pub struct SchemaRequest {
    /// The database of the new schema.
    pub connection: ConnectionSettings,
    /// The addresses that its host may have.
    pub addresses: AddressPolicy,
    /// The schema of the tables in the backup.
    pub schema: String,
    /// Their names. A partitioned table covers its partitions.
    pub tables: Vec<String>,
    /// The name of the new schema.
    pub name: String,
    /// Identifies the restore: what an unfinished one with the same identity left is replaced.
    pub id: String,
    /// The directory of `pg_dump` and `pg_restore`; none means `PATH`.
    pub client_directory: Option<PathBuf>,
}

/// The result of a restore into a new schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaRestored {
    /// The new schema.
    pub schema: String,
    /// What is not as it was in the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The tables, as `schema.table` in the target, each with its rows, which were counted.
    pub tables: Vec<TableCounted>,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// How many bytes of the backup were read.
    pub bytes_read: u64,
}

impl SchemaRestored {
    /// All rows.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Restores tables into a new schema. The backup must have been opened with the manifest that was published. It is aborted when
/// `stop` is ready.
///
/// # Errors
/// See [`RestoreError`]. What was created is removed, unless the error is [`RestoreError::Left`].
pub async fn restore_schema(
    request: &SchemaRequest,
    extract: &Extract,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
    stop: impl Future<Output = ()>,
) -> Result<SchemaRestored, RestoreError> {
    let started = Instant::now();
    let read = extract.bytes_read();
    tokio::pin!(stop);
    let Selected { entries, missing, code, notes } =
        select::select(&extract.entries().await?, &request.schema, &request.tables);
    if !missing.is_empty() {
        return refuse(format!("the backup has no table {}", missing.join(", ")));
    }
    let tools = ClientTools::find(request.client_directory.as_deref()).await?;
    let session = session::open(&request.connection, &request.addresses).await?;
    check(request, &session, &code).await?;
    let scratch = DatabaseRequest {
        connection: request.connection.clone(),
        addresses: request.addresses.clone(),
        name: format!("pgrail_scratch_{}", request.id.replace('-', "").chars().take(40).collect::<String>()),
        id: request.id.clone(),
        client_directory: request.client_directory.clone(),
    };
    let scratch = database::scratch(&scratch, extract, &entries, &tools, &session).await?;
    let created = create_schema(request, &session).await;
    let restored = match created {
        Ok(()) => tokio::select! {
            restored = fill(request, extract, &scratch, &tools, &session, progress) => restored,
            () = &mut stop => Err(RestoreError::Interrupted),
        },
        Err(error) => Err(error),
    };
    let mut left = scratch.remove().await;
    let tables = match restored {
        Ok(tables) => tables,
        Err(error) => {
            left.extend(remove_schema(request).await);
            return Err(if left.is_empty() {
                error
            } else {
                RestoreError::Left { error: Box::new(error), left: left.join("; ") }
            });
        }
    };
    let left = left.into_iter().map(|what| format!("could not be removed: {what}")).collect();
    let notes = [notes, left].concat();
    let (seconds, bytes_read) = (started.elapsed().as_secs(), extract.bytes_read() - read);
    Ok(SchemaRestored { schema: request.name.clone(), notes, tables, seconds, bytes_read })
}

fn refuse<T>(problem: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError::Request(problem.into()))
}

async fn check(request: &SchemaRequest, session: &Client, code: &[String]) -> Result<(), RestoreError> {
    let (schema, name) = (&request.schema, &request.name);
    if request.tables.is_empty() || schema == "pgrail" || schema.starts_with("pg_") || schema == "information_schema" {
        return refuse("name tables of one schema of the application");
    }
    if name.is_empty() || name.len() > 63 || name.starts_with("pg_") || name == "pgrail" || name.contains('\0') {
        return refuse(format!(
            "{name:?} cannot be the name of a schema: it must have 1 to 63 bytes, and not begin with pg_"
        ));
    }
    let sql = "SELECT pg_catalog.obj_description(n.oid, 'pg_namespace'), n.oid IS NOT NULL, r.rolsuper, r.rolname::text, \
         pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), pg_catalog.current_database()::text \
         FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1::text WHERE r.rolname = current_user";
    let row = session.query_one(sql, &[name]).await.map_err(RestoreError::of_database)?;
    let (mark, exists): (Option<String>, bool) = (row.get(0), row.get(1));
    let (superuser, login, can_create, database): (bool, String, bool, String) =
        (row.get(2), row.get(3), row.get(4), row.get(5));
    if exists && mark.as_deref() != Some(&database::mark_of(&request.id)) {
        return refuse(format!("the schema {name} exists: drop it, or choose another name"));
    }
    if exists {
        let left = remove_schema(request).await;
        if !left.is_empty() {
            return refuse(format!("an unfinished restore left {}", left.join("; ")));
        }
    }
    if !can_create {
        return Err(RestoreError::Rights(format!(
            "{login} cannot create a schema: GRANT CREATE ON DATABASE {database} TO {login}"
        )));
    }
    if superuser && !code.is_empty() {
        return Err(RestoreError::Rights(format!(
            "the tables need code of the backup, which must not run as the superuser {login} in a live database: use another login, or restore into a new database: {}",
            code.join(", ")
        )));
    }
    Ok(())
}

async fn create_schema(request: &SchemaRequest, session: &Client) -> Result<(), RestoreError> {
    database::run(session, "CREATE SCHEMA %I", &[&request.name]).await?;
    database::run(session, "COMMENT ON SCHEMA %I IS %L", &[&request.name, &database::mark_of(&request.id)]).await
}

/// Drops the schema, if it is the unfinished one of this restore. Returns what is left.
async fn remove_schema(request: &SchemaRequest) -> Vec<String> {
    let attempt = async {
        let session = session::open(&request.connection, &request.addresses).await?;
        let sql = "SELECT count(*) FROM pg_catalog.pg_namespace n WHERE n.nspname = $1::text \
             AND pg_catalog.obj_description(n.oid, 'pg_namespace') = $2::text";
        let row = session.query_one(sql, &[&request.name, &database::mark_of(&request.id)]).await;
        let ours: i64 = row.and_then(|row| row.try_get(0)).map_err(RestoreError::of_database)?;
        if ours > 0 {
            session.batch_execute("SET client_min_messages = warning").await.map_err(RestoreError::of_database)?;
            database::run(&session, "DROP SCHEMA %I CASCADE", &[&request.name]).await?;
        }
        Ok::<_, RestoreError>(())
    };
    match attempt.await {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("the schema {} ({error})", request.name)],
    }
}

async fn fill(
    request: &SchemaRequest,
    extract: &Extract,
    scratch: &Scratch,
    tools: &ClientTools,
    target: &Connection,
    progress: &(dyn Fn(RestoreProgress) + Send + Sync),
) -> Result<Vec<TableCounted>, RestoreError> {
    let manifest = tables_of(extract.manifest(), request);
    let session = scratch.session().await?;
    let load = Load { rows: LoadRows::Of(manifest.tables.clone()), ..scratch.load(session.reached()) };
    drop(session);
    let of = manifest.tables.iter().filter_map(|table| Extract::size(table).ok()).sum();
    progress(RestoreProgress::Loading { bytes: 0, of });
    extract.load(tools, &load, &|_| {}).await?;
    let session = scratch.session().await?;
    database::compare(&session, &manifest, progress).await?;
    rename(request, &session, target).await?;
    let from = CopyEnd {
        connection: scratch.connection(),
        reached: session.reached(),
        role: scratch.role().map(str::to_owned),
    };
    drop(session);
    let to = CopyEnd { connection: request.connection.clone(), reached: target.reached(), role: None };
    copy_schema(tools, &from, &to, scratch.major(), &request.name).await?;
    let mut renamed = manifest;
    for table in &mut renamed.tables {
        table.schema.clone_from(&request.name);
    }
    let session = session::open(&request.connection, &request.addresses).await?;
    let tables = database::compare(&session, &renamed, progress).await?;
    let analyze = "SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p')";
    for row in session.query(analyze, &[&request.name]).await.map_err(RestoreError::of_database)? {
        session.batch_execute(row.get(0)).await.map_err(RestoreError::of_database)?;
    }
    let comment = format!("restored by pgrail from {} of {}", renamed.location, renamed.snapshot_time);
    database::run(&session, "COMMENT ON SCHEMA %I IS %L", &[&request.name, &comment]).await?;
    Ok(tables)
}

/// The manifest with these tables only.
fn tables_of(manifest: &Manifest, request: &SchemaRequest) -> Manifest {
    let wanted = |table: &&TableRows| request.tables.iter().any(|name| table.is_of(&request.schema, name));
    let tables = manifest.tables.iter().filter(wanted).cloned().collect();
    let mut manifest = manifest.clone();
    (manifest.tables, manifest.large_objects) = (tables, 0);
    manifest
}

/// Renames the schema in the scratch database. Extensions in it keep the schema that they have in the target.
async fn rename(request: &SchemaRequest, scratch: &Client, target: &Client) -> Result<(), RestoreError> {
    database::run(scratch, "ALTER SCHEMA %I RENAME TO %I", &[&request.schema, &request.name]).await?;
    let of_scratch = "SELECT e.extname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE n.nspname = $1::text";
    for row in scratch.query(of_scratch, &[&request.name]).await.map_err(RestoreError::of_database)? {
        let extension: String = row.get(0);
        let there = "SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = $1::text";
        let found = target.query_opt(there, &[&extension]).await.map_err(RestoreError::of_database)?;
        let Some(found) = found else {
            return refuse(format!("the target database lacks the extension {extension}, which the tables need"));
        };
        let schema: String = found.get(0);
        database::run(scratch, "CREATE SCHEMA IF NOT EXISTS %I", &[&schema]).await?;
        database::run(scratch, "ALTER EXTENSION %I SET SCHEMA %I", &[&extension, &schema]).await?;
    }
    Ok(())
}
