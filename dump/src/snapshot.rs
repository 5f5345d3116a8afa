//! The transaction that the dump and its row counts share.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use pgrail_postgres::{ConnectError, Connection, DetectPoolerError, Reached};
use tokio_postgres::Row;

use crate::{Filter, Reason, RowCounter, Rows, Source, TableRows, archive::TableName, parts::SizedTable};

/// pgrail's own schema: dumped like any other, but its counters move by themselves and are not compared.
const OWN_SCHEMA: &str = "pgrail";

/// How many tables one statement locks.
const LOCKED_AT_ONCE: usize = 200;

/// A query under the snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No session.
    #[error("no session on the database")]
    Connect(#[from] ConnectError),
    /// It is unknown whether a pooler is in between.
    #[error("cannot check for a pooler")]
    Pooler(#[from] DetectPoolerError),
    /// A statement failed.
    #[error("the server failed to {action}")]
    Query {
        /// What the statement was for.
        action: &'static str,
        /// With the SQLSTATE.
        source: tokio_postgres::Error,
    },
    /// The description of the database cannot be read.
    #[error("the server's description of the database cannot be read")]
    Source(#[from] serde_json::Error),
    /// The server's version cannot be read.
    #[error("the server reports version {0}, which is not a version")]
    Version(i32),
}

impl SnapshotError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        use tokio_postgres::error::SqlState;
        match self {
            Self::Connect(error) | Self::Pooler(DetectPoolerError::Connect(error)) => crate::connection::reason(error),
            Self::Pooler(DetectPoolerError::Query(_)) => Reason::ConnectionFailed,
            Self::Version(_) | Self::Source(_) => Reason::Internal,
            Self::Query { source, .. } => match source.code() {
                Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Reason::PermissionDenied,
                Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Reason::LockTimeout,
                Some(code) if !code.code().starts_with("57") && !code.code().starts_with("08") => Reason::DumpFailed,
                // The server was stopped, or the connection broke.
                _ => Reason::ConnectionFailed,
            },
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> SnapshotError {
    move |source| SnapshotError::Query { action, source }
}

/// Server and database under the snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) version: String,
    pub(crate) major: u32,
    pub(crate) standby: bool,
    pub(crate) database: String,
    pub(crate) database_bytes: u64,
    pub(crate) encoding: String,
    pub(crate) time: Timestamp,
    /// On a standby: how far its replay was behind at `time`.
    pub(crate) replay_lag: Option<SignedDuration>,
    /// The name under which `pg_dump --snapshot` joins.
    pub(crate) snapshot: String,
}

/// A table, partitioned table or sequence that a dump may hold.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    archive_name: TableName,
    quoted: String,
    has_rows: bool,
    unlogged: bool,
    partition_of: Option<(String, String)>,
    guarded: bool,
    pub(crate) access: Access,
    membership: Membership,
}

/// How much of a relation the role can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Whole,
    Unreadable,
    /// Row security may hide rows.
    RowSecurity,
}

/// What a relation is to extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    None,
    /// Recreated by its extension.
    Member,
    /// The same, but (some of) its rows are dumped.
    Configuration,
}

impl Relation {
    /// Whether pg_dump reads its definition, for which it needs privileges.
    pub(crate) fn is_dumped(&self, filter: &Filter) -> bool {
        filter.has_table(&self.schema, &self.name) && self.membership != Membership::Member
    }

    /// Whether the archive has an entry for its rows. A standby cannot read unlogged tables.
    pub(crate) fn has_rows(&self, filter: &Filter, standby: bool) -> bool {
        self.has_rows
            && self.is_dumped(filter)
            && filter.has_rows(&self.schema, &self.name)
            && !(self.unlogged && standby)
    }

    /// Whether its rows must be in the archive to the last: only a part of a configuration table is dumped.
    fn is_counted(&self) -> bool {
        self.membership == Membership::None && self.schema != OWN_SCHEMA
    }

    /// Whether its rows should be in the dump, but cannot be read on a standby. What pgrail installed is not restored.
    pub(crate) fn is_left_out(&self, filter: &Filter, standby: bool) -> bool {
        standby && self.unlogged && self.schema != OWN_SCHEMA && self.has_rows(filter, false)
    }

    fn rows(&self, rows: Rows) -> TableRows {
        let mut table = TableRows::new(&self.schema, &self.name, &self.archive_name, rows);
        table.partition_of.clone_from(&self.partition_of);
        table.guarded = self.guarded;
        table
    }
}

/// The session that holds the snapshot until the dump is done.
pub(crate) struct Snapshot {
    client: Connection,
    pub(crate) server: Server,
    pub(crate) source: Source,
    pub(crate) relations: Vec<Relation>,
    pub(crate) large_objects: u64,
    pub(crate) unreadable_large_objects: u64,
}

impl Snapshot {
    /// Opens the transaction, exports its snapshot and reads what there is to dump.
    pub(crate) async fn take(client: Connection) -> Result<Self, SnapshotError> {
        client.query(include_str!("sql/session.sql"), &[]).await.map_err(failed("set up the session"))?;
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(failed("begin a transaction"))?;
        let row = client.query_one(include_str!("sql/server.sql"), &[]).await.map_err(failed("export a snapshot"))?;
        let server = server(&row)?;
        let row =
            client.query_one(include_str!("sql/source.sql"), &[]).await.map_err(failed("describe the database"))?;
        let source = serde_json::from_str(row.get("source"))?;
        let relations = client
            .query(include_str!("sql/relations.sql"), &[])
            .await
            .map_err(failed("list the tables"))?
            .iter()
            .map(relation)
            .collect();
        let row = client
            .query_one(include_str!("sql/large_objects.sql"), &[])
            .await
            .map_err(failed("count the large objects"))?;
        let number = |column: &str| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
        let (large_objects, unreadable_large_objects) = (number("total"), number("unreadable"));
        Ok(Self { client, server, source, relations, large_objects, unreadable_large_objects })
    }

    /// Every table whose rows the archive must have an entry for, with exact counts under the snapshot or without.
    pub(crate) async fn count(
        &self,
        filter: &Filter,
        exact: bool,
        counted: impl Fn(usize, usize),
    ) -> Result<Vec<TableRows>, SnapshotError> {
        let wanted: Vec<_> =
            self.relations.iter().filter(|relation| relation.has_rows(filter, self.server.standby)).collect();
        let is_exact = |relation: &&&Relation| exact && relation.is_counted();
        let names = wanted.iter().filter(is_exact).map(|it| (it.schema.as_str(), it.name.as_str()));
        let mut counters = RowCounter::of(&self.client, names).await.map_err(failed("prepare the row counts"))?;
        let mut tables = Vec::with_capacity(wanted.len());
        for relation in &wanted {
            let counter = counters.remove(&(relation.schema.clone(), relation.name.clone()));
            let rows = if let Some(counter) = counter {
                let rows = counter.count(&self.client).await.map_err(failed("count the rows of a table"))?;
                Rows::Counted(rows)
            } else if relation.is_counted() {
                Rows::FromArchive
            } else {
                Rows::NotCompared
            };
            tables.push(relation.rows(rows));
            counted(tables.len(), wanted.len());
        }
        Ok(tables)
    }

    /// Holds every table that is dumped until the transaction ends, so that none is dropped between two programs.
    pub(crate) async fn lock(&self, filter: &Filter, wait: Duration) -> Result<(), SnapshotError> {
        let timeout = format!("SET LOCAL lock_timeout = {}", wait.as_millis());
        self.client.batch_execute(&timeout).await.map_err(failed("limit the wait for locks"))?;
        let tables: Vec<_> = self
            .relations
            .iter()
            .filter(|relation| relation.has_rows && relation.is_dumped(filter))
            .map(|relation| relation.quoted.as_str())
            .collect();
        for some in tables.chunks(LOCKED_AT_ONCE) {
            let statement = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", some.join(", ONLY "));
            self.client.batch_execute(&statement).await.map_err(failed("lock the tables"))?;
        }
        Ok(())
    }

    /// The tables that can be dumped on their own, with their sizes on disk, and the size of everything else.
    pub(crate) async fn sizes(&self, filter: &Filter) -> Result<(Vec<SizedTable<'_>>, u64), SnapshotError> {
        // Arguments of pg_dump are in the database's encoding.
        let is_plain = |it: &Relation| self.server.encoding == "UTF8" || (it.schema.is_ascii() && it.name.is_ascii());
        let own: Vec<_> = self
            .relations
            .iter()
            .filter(|it| it.has_rows(filter, self.server.standby) && it.is_counted() && is_plain(it))
            .collect();
        let oids: Vec<u32> = own.iter().map(|it| it.oid).collect();
        let rows =
            self.client.query(include_str!("sql/sizes.sql"), &[&oids]).await.map_err(failed("read the sizes"))?;
        let sizes: BTreeMap<u32, i64> = rows.iter().map(|row| (row.get("oid"), row.get("bytes"))).collect();
        let size = |oid: u32| u64::try_from(sizes.get(&oid).copied().unwrap_or_default()).unwrap_or_default();
        let tables = own.iter().map(|it| SizedTable { schema: &it.schema, name: &it.name, bytes: size(it.oid) });
        Ok((tables.collect(), size(0)))
    }

    /// Roles and memberships as SQL, see `sql/globals.sql`.
    pub(crate) async fn globals(&self) -> Result<String, SnapshotError> {
        let statement = include_str!("sql/globals.sql");
        let rows = self.client.query(statement, &[&self.source.roles]).await.map_err(failed("read the roles"))?;
        let mut text = String::from(
            "-- Roles that the dump refers to, and those that they are members of, without passwords and settings.\n\
             -- Creates only what is missing.\n",
        );
        for row in rows {
            text.push_str(row.get(0));
            text.push('\n');
        }
        Ok(text)
    }

    /// The address and TLS mode that the session uses: pg_dump uses the same.
    pub(crate) fn reached(&self) -> Reached {
        self.client.reached()
    }

    /// Ends the transaction.
    pub(crate) async fn end(self) {
        // The session is dropped in any case, and it only read.
        let _ = self.client.batch_execute("COMMIT").await;
    }
}

fn server(row: &Row) -> Result<Server, SnapshotError> {
    let number: i32 = row.get("version_number");
    let taken: Timestamp = row.get("time");
    // A clock of the primary that is ahead of the standby's must not make the dump younger.
    let time = row.get::<_, Option<Timestamp>>("replayed").map_or(taken, |replayed| replayed.min(taken));
    let standby: bool = row.get("standby");
    Ok(Server {
        version: row.get("version"),
        major: u32::try_from(number / 10_000).map_err(|_| SnapshotError::Version(number))?,
        standby,
        replay_lag: standby.then(|| taken.duration_since(time)),
        database: row.get("database"),
        database_bytes: u64::try_from(row.get::<_, i64>("bytes")).unwrap_or_default(),
        encoding: row.get("encoding"),
        time,
        snapshot: row.get("snapshot"),
    })
}

fn relation(row: &Row) -> Relation {
    Relation {
        oid: row.get("oid"),
        schema: row.get("schema"),
        name: row.get("name"),
        archive_name: TableName { schema: row.get("schema_bytes"), name: row.get("name_bytes") },
        quoted: row.get("quoted"),
        has_rows: row.get("has_rows"),
        unlogged: row.get("unlogged"),
        partition_of: row.get::<_, Option<String>>("root_schema").zip(row.get("root_name")),
        guarded: row.get("guarded"),
        access: match (row.get("readable"), row.get("row_security")) {
            (false, _) => Access::Unreadable,
            (true, true) => Access::RowSecurity,
            (true, false) => Access::Whole,
        },
        membership: match (row.get("extension_member"), row.get("extension_configuration")) {
            (_, true) => Membership::Configuration,
            (true, false) => Membership::Member,
            (false, false) => Membership::None,
        },
    }
}
