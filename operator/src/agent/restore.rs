//! `pgrail agent restore`: restores rows of a backup into the tables that they came from.

use pgrail_dump::{Extract, Failure, Manifest, Message, Phase, Reason, Redactor, RestoreResult, RestoredRows};
use pgrail_postgres::{ConnectionSettings, Password};
use pgrail_restore::{
    Condition, Conflicts, RestoreError, RestoreProgress, RowsRequest, RowsRestored, TableRestored, TableSelection,
    Triggers, restore_rows,
};

use super::Places;
use super::config::{RestoreConfig, RestoreTableConfig};
use super::outcome::failed;
use super::settings::{SettingsError, config, connection, store};
use crate::signals::stop_requested;

/// Why a restore failed. The target is as it was.
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
    let restored = tokio::select! {
        restored = restore(wanted, connection, &config, places, &store) => restored,
        // The session ends, and with it the transaction.
        () = stop_requested() => Err(AgentError::Interrupted),
    };
    Ok(match restored {
        Ok(restored) => Message::Restore(result(&restored)),
        Err(error) => Message::Failed(Failure::new(Phase::Restore, error.reason(), &error, &[&secrets])),
    })
}

async fn restore(
    wanted: &RestoreConfig,
    connection: ConnectionSettings,
    config: &super::config::AgentConfig,
    places: &Places,
    store: &pgrail_dump::Store,
) -> Result<RowsRestored, AgentError> {
    let manifest = Manifest::read_published(store, &wanted.location, &wanted.manifest_sha256).await?;
    let extract = Extract::open(store, manifest).await?;
    let tables = wanted.tables.iter().map(selection).collect::<Result<_, _>>()?;
    let mut request = RowsRequest::new(connection, tables);
    request.addresses = config.policy();
    request.follow_cascade = wanted.follow_cascade;
    request.conflicts = if wanted.skip_existing { Conflicts::SkipExisting } else { Conflicts::Fail };
    request.triggers = if wanted.skip_triggers { Triggers::Skip } else { Triggers::Fire };
    request.dry_run = wanted.dry_run;
    request.client_directory.clone_from(&places.client_directory);
    Ok(restore_rows(&request, &extract, &log).await?)
}

fn selection(table: &RestoreTableConfig) -> Result<TableSelection, pgrail_restore::ConditionError> {
    let condition = table.condition.as_deref().map(Condition::parse).transpose()?;
    Ok(TableSelection { schema: table.schema.clone(), name: table.name.clone(), condition })
}

fn log(progress: RestoreProgress) {
    match progress {
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
        table_count: restored.tables.iter().filter(|it| it.inserted + it.links_restored > 0).count() as u64,
        tables: restored.tables.iter().map(rows).collect(),
        seconds: restored.seconds,
    }
}
