//! `pgrail agent restore`: restores a backup into a new database, tables of it into a new schema, or rows of it into the tables
//! that they came from.

use pgrail_dump::{Extract, Failure, Manifest, Message, Phase, Reason, Redactor, RestoreResult, RestoredRows, Store};
use pgrail_postgres::{ConnectionSettings, Password};
use pgrail_restore::{
    Condition, Conflicts, DatabaseRequest, DatabaseRestored, RestoreError, RestoreProgress, RowsRequest, RowsRestored,
    SchemaRequest, SchemaRestored, TableCounted, TableRestored, TableSelection, Triggers, restore_database,
    restore_rows, restore_schema,
};

use super::Places;
use super::config::{AgentConfig, NewConfig, RestoreConfig, RestoreTableConfig};
use super::outcome::failed;
use super::progress::{Throttle, size};
use super::settings::{SettingsError, config, connection, store};
use crate::signals::stop_requested;

/// Why a restore failed. The target is as it was, unless the error names what is left.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error(transparent)]
    Manifest(#[from] pgrail_dump::ManifestError),
    #[error(transparent)]
    Extract(#[from] pgrail_dump::ExtractError),
    #[error(transparent)]
    Condition(#[from] pgrail_restore::ConditionError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("the restore was interrupted, and nothing was restored")]
    Interrupted,
}

impl AgentError {
    fn reason(&self) -> Reason {
        match self {
            Self::Manifest(error) => error.reason(),
            Self::Extract(error) => error.reason(),
            Self::Condition(_) => Reason::InvalidRequest,
            Self::Restore(error) => error.reason(),
            Self::Interrupted => Reason::Interrupted,
        }
    }
}

pub(super) async fn run(places: &Places) -> Message {
    match attempt(places).await {
        Ok(message) => message,
        Err(error) => failed(Phase::Restore, error.reason(), &error),
    }
}

async fn attempt(places: &Places) -> Result<Message, SettingsError> {
    let config = config(places)?;
    let wanted = config.restore.as_ref().ok_or(SettingsError::MissingSection("restore"))?;
    let store = store(&config, places).await?;
    let mut connection = connection(&wanted.connection, places)?;
    "pgrail-restore".clone_into(&mut connection.application_name);
    let secrets = Redactor::new(connection.password.iter().map(Password::reveal));
    let restored = match (&wanted.new_database, &wanted.new_schema) {
        (Some(new), _) => {
            restore_whole(wanted, new, connection, &config, places, &store).await.map(|it| result_of_database(&it))
        }
        (None, Some(new)) => {
            restore_beside(wanted, new, connection, &config, places, &store).await.map(|it| result_of_schema(&it))
        }
        (None, None) => tokio::select! {
            restored = restore(wanted, connection, &config, places, &store) => restored.map(|it| result(&it)),
            // The session ends, and with it the transaction.
            () = stop_requested() => Err(AgentError::Interrupted),
        },
    };
    Ok(match restored {
        Ok(restored) => Message::Restore(restored),
        Err(error) => Message::Failed(Failure::new(Phase::Restore, error.reason(), &error, &[&secrets])),
    })
}

async fn open(wanted: &RestoreConfig, store: &Store) -> Result<Extract, AgentError> {
    let manifest = Manifest::read_published(store, &wanted.location, &wanted.manifest_sha256).await?;
    Ok(Extract::open(store, manifest).await?)
}

async fn restore_whole(
    wanted: &RestoreConfig,
    new: &NewConfig,
    connection: ConnectionSettings,
    config: &AgentConfig,
    places: &Places,
    store: &Store,
) -> Result<DatabaseRestored, AgentError> {
    let extract = open(wanted, store).await?;
    let request = DatabaseRequest {
        connection,
        addresses: config.policy(),
        name: new.name.clone(),
        id: new.id.clone(),
        client_directory: places.client_directory.clone(),
    };
    let throttle = Throttle::new();
    Ok(restore_database(&request, &extract, &|progress| log(&throttle, progress), stop_requested()).await?)
}

async fn restore_beside(
    wanted: &RestoreConfig,
    new: &NewConfig,
    connection: ConnectionSettings,
    config: &AgentConfig,
    places: &Places,
    store: &Store,
) -> Result<SchemaRestored, AgentError> {
    let extract = open(wanted, store).await?;
    let request = SchemaRequest {
        connection,
        addresses: config.policy(),
        schema: wanted.tables.first().map(|table| table.schema.clone()).unwrap_or_default(),
        tables: wanted.tables.iter().map(|table| table.name.clone()).collect(),
        name: new.name.clone(),
        id: new.id.clone(),
        client_directory: places.client_directory.clone(),
    };
    let throttle = Throttle::new();
    Ok(restore_schema(&request, &extract, &|progress| log(&throttle, progress), stop_requested()).await?)
}

async fn restore(
    wanted: &RestoreConfig,
    connection: ConnectionSettings,
    config: &AgentConfig,
    places: &Places,
    store: &Store,
) -> Result<RowsRestored, AgentError> {
    let extract = open(wanted, store).await?;
    let tables = wanted.tables.iter().map(selection).collect::<Result<_, _>>()?;
    let mut request = RowsRequest::new(connection, tables);
    request.addresses = config.policy();
    request.follow_cascade = wanted.follow_cascade;
    request.conflicts = if wanted.skip_existing { Conflicts::SkipExisting } else { Conflicts::Fail };
    request.triggers = if wanted.skip_triggers { Triggers::Skip } else { Triggers::Fire };
    request.dry_run = wanted.dry_run;
    request.client_directory.clone_from(&places.client_directory);
    let throttle = Throttle::new();
    Ok(restore_rows(&request, &extract, &|progress| log(&throttle, progress)).await?)
}

fn selection(table: &RestoreTableConfig) -> Result<TableSelection, pgrail_restore::ConditionError> {
    let condition = table.condition.as_deref().map(Condition::parse).transpose()?;
    Ok(TableSelection { schema: table.schema.clone(), name: table.name.clone(), condition })
}

pub(super) fn log(throttle: &Throttle, progress: RestoreProgress) {
    match progress {
        RestoreProgress::Loading { bytes, of } if throttle.passes() => {
            tracing::info!("restored {} of {}", size(bytes), size(of));
        }
        RestoreProgress::Counted { tables, of } if throttle.passes() => {
            tracing::info!("counted the rows of {tables} of {of} tables");
        }
        RestoreProgress::Loading { .. } | RestoreProgress::Counted { .. } => {}
        RestoreProgress::Reading { table, bytes } => tracing::info!(table, bytes, "reading rows of the backup"),
        RestoreProgress::Selected { rows } => tracing::info!(rows, "selected rows"),
        RestoreProgress::Inserted { table, rows } => tracing::info!(table, rows, "inserted rows"),
    }
}

fn result(restored: &RowsRestored) -> RestoreResult {
    let rows = |it: &TableRestored| RestoredRows {
        table: it.table.clone(),
        selected: it.selected,
        inserted: it.inserted,
        identical: it.identical,
        different: it.different,
        links: it.links_restored,
    };
    RestoreResult {
        done: restored.done,
        problems: restored.problems.clone(),
        notes: restored.notes.clone(),
        total: RestoredRows {
            table: String::new(),
            selected: restored.total(|it| it.selected),
            inserted: restored.total(|it| it.inserted),
            identical: restored.total(|it| it.identical),
            different: restored.total(|it| it.different),
            links: restored.total(|it| it.links_restored),
        },
        database: None,
        schema: None,
        table_count: restored.tables.iter().filter(|it| it.inserted + it.links_restored > 0).count() as u64,
        tables: restored.tables.iter().map(rows).collect(),
        seconds: restored.seconds,
    }
}

fn result_of_database(restored: &DatabaseRestored) -> RestoreResult {
    let created = (!restored.roles_created.is_empty())
        .then(|| format!("roles were created without LOGIN: {}", restored.roles_created.join(", ")));
    RestoreResult {
        database: Some(restored.database.clone()),
        notes: restored.notes.iter().cloned().chain(created).collect(),
        seconds: restored.seconds,
        ..counted(&restored.tables)
    }
}

fn result_of_schema(restored: &SchemaRestored) -> RestoreResult {
    RestoreResult {
        schema: Some(restored.schema.clone()),
        notes: restored.notes.clone(),
        seconds: restored.seconds,
        ..counted(&restored.tables)
    }
}

fn counted(tables: &[TableCounted]) -> RestoreResult {
    let rows = |table: &str, rows: u64| {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        RestoredRows { table: table.to_owned(), selected: rows, inserted: rows, ..RestoredRows::default() }
    };
    RestoreResult {
        done: true,
        total: rows("", tables.iter().map(|table| table.rows).sum()),
        table_count: tables.len() as u64,
        tables: tables.iter().map(|it| rows(&it.table, it.rows)).collect(),
        ..RestoreResult::default()
    }
}
