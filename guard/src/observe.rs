//! What is in the database now: its catalog, and what of ours is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use thiserror::Error;
use tokio_postgres::Client;

use crate::capabilities;
use crate::catalog::{self, Catalog, CatalogError, Oid};
use crate::configuration::Configuration;
use crate::deferred::Rollback;
use crate::spec::GuardName;

/// Why a database could not be observed.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A query failed.
    #[error("cannot read what pgrail installed: {0}")]
    Query(#[from] tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand what pgrail installed: {0}")]
    Decode(#[from] serde_json::Error),
}

impl ObserveError {
    /// Whether it failed because nothing of pgrail is in the database.
    pub fn not_installed(&self) -> bool {
        use tokio_postgres::error::SqlState;
        let Self::Query(error) = self else { return false };
        error.code().is_some_and(|code| [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code))
    }
}

/// A trigger of ours as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "facts of pg_trigger")]
pub struct LiveTrigger {
    /// The table it is on.
    pub rel: Oid,
    /// Its name.
    pub name: String,
    /// Whether it fires whatever `session_replication_role` says.
    pub always: bool,
    /// Whether it never fires.
    pub disabled: bool,
    /// Whether it is a partition's copy of its parent's trigger.
    pub clone: bool,
    /// Everything else that makes it what it is.
    pub fingerprint: String,
}

/// A function of ours as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LiveRoutine {
    /// Its name.
    pub name: String,
    /// Its argument types, ready for SQL.
    pub arguments: String,
    /// Source, owner, privileges and settings.
    pub fingerprint: String,
}

/// A table, sequence or view in our schema.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LiveRelation {
    /// Its name.
    pub name: String,
    /// `r`, `S` or `v`.
    pub kind: String,
    /// For a view: the table it pins.
    pub pins: Option<Oid>,
}

/// A table of captured rows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LiveStore {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: Oid,
    /// Whether row level security is enabled on it.
    pub row_security: bool,
}

/// An event trigger of ours.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LiveEventTrigger {
    /// Its name.
    pub name: String,
    /// Whether it fires whatever `session_replication_role` says.
    pub always: bool,
    /// Whether the role may act as its owner.
    pub owned: bool,
}

/// What of ours is in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "facts of the server")]
pub struct Live {
    /// The role pgrail is connected as.
    pub role: String,
    /// Whether that is a superuser.
    pub superuser: bool,
    /// Such as 180004.
    pub server_version_num: i32,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// Whether the server counts rows; without, nothing can be enforced.
    pub track_counts: bool,
    /// Whether the role administers a managed service, where it may have privileges that PostgreSQL itself does not know.
    pub managed_administrator: bool,
    /// Whether the role may create event triggers.
    #[serde(default)]
    pub may_create_event_triggers: bool,
    /// Whether the role may create schemas here.
    pub may_create_schema: bool,
    /// Whether the views of the configuration exist, or its tables of version 1.
    pub configured: bool,
    /// Who owns our schema, if it exists.
    pub schema_owner: Option<String>,
    /// Whether the role may act as that owner.
    pub schema_owned: bool,
    /// Triggers that call our functions.
    pub triggers: Vec<LiveTrigger>,
    /// Functions in our schema.
    pub routines: Vec<LiveRoutine>,
    /// Tables, sequences and views in our schema.
    pub relations: Vec<LiveRelation>,
    /// Whether every role may use our schema, as the triggers on its deletes need.
    pub schema_usable: bool,
    /// Tables, sequences and views of ours, or `schema`, that another role was granted privileges on.
    pub given_away: Vec<String>,
    /// Tables of captured rows.
    pub stores: Vec<LiveStore>,
    /// Publications FOR ALL TABLES.
    pub all_tables_publications: Vec<String>,
    /// Tables, sequences and views in our schema that do not belong to its owner.
    pub foreign_owned: Vec<String>,
    /// Event triggers that call our functions.
    pub event_triggers: Vec<LiveEventTrigger>,
    /// Tables with disabled triggers of foreign keys.
    #[serde(default)]
    pub disabled_keys: Vec<Oid>,
}

impl Live {
    /// Whether an event trigger notifies of DDL commands.
    pub fn notifies_ddl(&self) -> bool {
        self.event_triggers.iter().any(|trigger| trigger.name == "pgrail_ddl" && trigger.always)
    }

    /// Whether foreign keys that refer to this table, or that it has, are disabled.
    pub fn has_disabled_keys(&self, table: Oid) -> bool {
        self.disabled_keys.contains(&table)
    }
}

/// A trigger as pgrail installed it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedTrigger {
    /// The table it was put on.
    pub rel: Oid,
    /// Its name.
    pub name: String,
    /// The SQL it was made by.
    pub source: String,
    /// See [`LiveTrigger::fingerprint`].
    pub fingerprint: String,
}

/// A function as pgrail installed it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedRoutine {
    /// Its name.
    pub name: String,
    /// The SQL it was made by.
    pub source: String,
    /// See [`LiveRoutine::fingerprint`].
    pub fingerprint: String,
}

/// The recorded configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Version of our schema.
    pub schema_version: i32,
    /// All guards of this database.
    pub configuration: Configuration,
    /// [`Configuration::digest`] of what was last written.
    pub digest: Option<String>,
    /// Triggers, by table and name.
    pub triggers: BTreeMap<(Oid, String), RecordedTrigger>,
    /// Functions, by name.
    pub routines: BTreeMap<String, RecordedRoutine>,
    /// Names of the event triggers; `None` where no version that records them has created any.
    pub event_triggers: Option<BTreeSet<String>>,
    /// Blocked attempts by assignment.
    pub counters: BTreeMap<i32, i64>,
    /// When it was first installed, as RFC 3339 text.
    pub installed_at: Option<String>,
    /// Whether all of it was written in another database or on another server.
    pub moved: Option<Moved>,
}

impl Recorded {
    pub(crate) fn has_triggers(&self, table: Oid) -> bool {
        self.triggers.range((table, String::new())..).next().is_some_and(|((rel, _), _)| *rel == table)
    }
}

/// What became of a database since the configuration was written: nothing that was recorded can be compared any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// It was restored from a dump.
    Restored {
        /// Of this database.
        database: String,
    },
    /// The server was upgraded.
    Upgraded {
        /// From this major version.
        from: i32,
        /// To this one.
        to: i32,
    },
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored { database } => write!(f, "restored from a dump of {database}"),
            Self::Upgraded { from, to } => write!(f, "the server was upgraded from PostgreSQL {from} to {to}"),
        }
    }
}

#[derive(Deserialize)]
struct RawRecorded {
    schema_version: i32,
    digest: Option<String>,
    installed_at: Option<String>,
    restored_from: Option<String>,
    server_version: Option<i32>,
    #[serde(flatten)]
    configuration: Configuration,
    triggers: Vec<RecordedTrigger>,
    routines: Vec<RecordedRoutine>,
    event_triggers: Option<BTreeSet<String>>,
    counters: Vec<RawCounter>,
}

#[derive(Deserialize)]
struct RawCounter {
    assignment: i32,
    blocked: i64,
}

/// A database at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Tables and foreign keys.
    pub catalog: Catalog,
    /// What of ours is in the catalog.
    pub live: Live,
    /// The recorded configuration; `None` where nothing is installed, or not all of it.
    pub recorded: Option<Recorded>,
    /// Who manages what is installed, where another version of pgrail, or another role, left only a part of it.
    pub owner_of_part: Option<String>,
}

impl Observed {
    /// Who manages pgrail's schema here, if it is installed.
    pub fn owner(&self) -> Option<&str> {
        let whole = self.recorded.as_ref().map(|recorded| recorded.configuration.owner.as_str());
        whole.or(self.owner_of_part.as_deref())
    }

    /// The guards that are in the database.
    pub fn guards(&self) -> Vec<GuardName> {
        self.recorded
            .iter()
            .flat_map(|recorded| &recorded.configuration.guards)
            .map(|guard| guard.name.clone())
            .collect()
    }

    /// The guards in the database that are not among `declared`.
    pub fn orphaned_guards(&self, declared: &[GuardName]) -> Vec<GuardName> {
        self.guards().into_iter().filter(|name| !declared.contains(name)).collect()
    }

    /// The tables that some guard holds.
    pub fn guarded_tables(&self) -> std::collections::HashSet<Oid> {
        let Some(recorded) = &self.recorded else { return std::collections::HashSet::new() };
        let configuration = &recorded.configuration;
        configuration
            .assignments
            .iter()
            .filter_map(|held| configuration.relation(held.root))
            .map(|root| root.rel)
            .collect()
    }
}

/// Observes a database: one round trip for the catalog, one for what of ours is in it, one for our own tables.
/// All of it is of one moment. Locks nothing that a writer could wait for.
pub async fn observe(client: &Client) -> Result<Observed, ObserveError> {
    // One snapshot for all three, so that a concurrent change is seen by all or by none.
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp";
    let transaction = Rollback::begin(client, begin).await?;
    let observed = read(client).await;
    transaction.end().await?;
    let mut observed = observed?;
    let live = &mut observed.live;
    live.may_create_event_triggers = live.superuser
        || (live.managed_administrator && !live.in_recovery && capabilities::may_create_event_triggers(client).await?);
    Ok(observed)
}

async fn read(client: &Client) -> Result<Observed, ObserveError> {
    let catalog = catalog::read(client).await?;
    let row = client.query_one(include_str!("sql/live.sql"), &[]).await?;
    let live: Live = serde_json::from_str(row.try_get(0)?)?;
    let recorded = if live.configured { read_recorded(client, live.server_version_num).await? } else { None };
    let in_part = !live.configured && live.relations.iter().any(|it| it.name == "install");
    let owner_of_part = if in_part && live.schema_owned {
        let row = client.query_opt("SELECT i.owner FROM pgrail.install i", &[]).await?;
        row.map(|row| row.try_get(0)).transpose()?
    } else {
        None
    };
    Ok(Observed { catalog, live, recorded, owner_of_part })
}

async fn read_recorded(client: &Client, server_version: i32) -> Result<Option<Recorded>, ObserveError> {
    let Some(row) = client.query_opt(include_str!("sql/configuration.sql"), &[]).await? else { return Ok(None) };
    let raw: RawRecorded = serde_json::from_str(row.try_get(0)?)?;
    let RawRecorded {
        schema_version,
        digest,
        installed_at,
        configuration,
        mut triggers,
        mut routines,
        event_triggers,
        counters,
        ..
    } = raw;
    let moved = match (raw.restored_from, raw.server_version.map(|version| version / 10_000)) {
        (Some(database), _) => Some(Moved::Restored { database }),
        (None, Some(from)) if from != server_version / 10_000 => {
            Some(Moved::Upgraded { from, to: server_version / 10_000 })
        }
        _ => None,
    };
    if moved.is_some() {
        triggers.clear();
        routines.clear();
    }
    Ok(Some(Recorded {
        schema_version,
        configuration,
        digest,
        triggers: triggers.into_iter().map(|trigger| ((trigger.rel, trigger.name.clone()), trigger)).collect(),
        routines: routines.into_iter().map(|routine| (routine.name.clone(), routine)).collect(),
        event_triggers,
        counters: counters.into_iter().map(|counter| (counter.assignment, counter.blocked)).collect(),
        installed_at,
        moved,
    }))
}
