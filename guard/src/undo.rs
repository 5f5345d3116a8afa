//! Restores the rows that a transaction deleted: all of them or none.

mod examine;
mod restore;
mod table;

use pgrail_rows::{AsOwner, AsOwnerError, Function, READING, in_order};
use serde::Serialize;
use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use crate::capture;
use crate::capture::store::{self, CaptureError, Store};
use crate::rehearse::UserTrigger;
use examine::examine;
use restore::restore;
use table::Table;

/// Statements run by it evaluate what the owner of a table defined. In the schema `pgrail`: the role may lack TEMPORARY.
const FUNCTION: Function = Function { name: "pgrail.undo", own: capture::OWN_FUNCTION };

/// What to do about rows that exist already, and links that were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    /// Put nothing back.
    Refuse,
    /// Leave them as they are and restore the others.
    SkipExisting,
}

/// Why a transaction could not be examined, or was not restored for a reason that shows only when it is tried.
/// Nothing was changed.
#[derive(Debug, Error)]
pub enum UndoError {
    /// No rows of it are captured.
    #[error("no rows of transaction {0} are captured; list transactions with `pgrail undo`")]
    NoSuchTransaction(u64),
    /// Two transactions have this number.
    #[error(
        "{0} is the number of several transactions, since this database was restored from a dump; wait until the retention of the older ones is over"
    )]
    Ambiguous(u64),
    /// Nothing is installed.
    #[error("pgrail is not installed in this database")]
    NotInstalled,
    /// The server refused it.
    #[error("{message}{remedy}")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's message and detail.
        message: String,
        /// What to do; empty where that is not known.
        remedy: String,
    },
    /// Fewer rows arrived than were inserted.
    #[error("{table}: only {arrived} of {rows} rows arrived; a trigger or a policy of the table rejects the others")]
    KeptOut {
        /// `schema.table`
        table: String,
        /// Rows that the server counted.
        arrived: i64,
        /// Rows that should have arrived.
        rows: i64,
    },
    /// Deferred triggers defer others without end.
    #[error(
        "deferred triggers of the tables fire again and again, and would run as pgrail's role at COMMIT; disable them while you undo"
    )]
    Unsettled,
    /// Captured rows could not be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The connection broke.
    #[error("cannot undo: {0}")]
    Query(tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand the captured rows: {0}")]
    Decode(#[from] serde_json::Error),
}

impl From<AsOwnerError> for UndoError {
    fn from(error: AsOwnerError) -> Self {
        match error {
            AsOwnerError::Query(error) => Self::from(error),
            AsOwnerError::Decode(error) => Self::Decode(error),
            AsOwnerError::Unsettled => Self::Unsettled,
        }
    }
}

impl From<tokio_postgres::Error> for UndoError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else { return Self::Query(error) };
        let code = server.code();
        let detail = server.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let remedy = if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            "; rows are restored as the owner of their table, who needs the privileges for it".to_owned()
        } else if *code == SqlState::LOCK_NOT_AVAILABLE {
            "; another session holds a lock: try again".to_owned()
        } else {
            server.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
        };
        Self::Refused { code: code.code().to_owned(), message: format!("{}{detail}", server.message()), remedy }
    }
}

/// The result of an undo or of its dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undo {
    /// The transaction.
    pub transaction: u64,
    /// When it began, in UTC as ISO 8601.
    pub began: String,
    /// `session_user`
    pub login: String,
    /// `application_name`
    pub application: String,
    /// Whether its rows were restored.
    pub done: bool,
    /// What prevents it, and what to do. Where there is anything, nothing is restored.
    pub problems: Vec<String>,
    /// Triggers of the tables that fire when rows are restored, as the owner of their table.
    pub triggers: Vec<UserTrigger>,
    /// The tables, in the order in which rows are restored.
    pub tables: Vec<Undone>,
}

/// The result in one table. All numbers were counted by the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// `schema.table`
    pub table: String,
    /// Deleted rows that are captured.
    pub rows: i64,
    /// Rows that were restored, or in a dry run would be.
    pub inserted: i64,
    /// Rows whose key exists already.
    pub existing: i64,
    /// Rows whose parent neither exists nor is among what is restored.
    pub parents_missing: i64,
    /// Links that were set to NULL or DEFAULT.
    pub links: i64,
    /// Links that were restored, or in a dry run would be.
    pub links_restored: i64,
    /// Columns that were added since; they get their defaults.
    pub columns_added: i64,
}

/// Restores the rows of a transaction, parents before children, and marks it as undone; or, in a dry run, reports what
/// would be restored and what prevents it, in a transaction that is rolled back. Close the session afterwards: code of the
/// tables' owners may have changed its settings.
pub async fn undo(
    client: &mut Client,
    transaction: u64,
    conflicts: Conflicts,
    dry_run: bool,
) -> Result<Undo, UndoError> {
    let within = client.build_transaction().read_only(false).start().await?;
    within.batch_execute(READING).await?;
    if !within.query_one("SELECT to_regnamespace('pgrail') IS NOT NULL", &[]).await?.try_get::<_, bool>(0)? {
        return Err(UndoError::NotInstalled);
    }
    // Two that undo the same wait for each other here.
    let stores = store::open(&within).await?;
    let mut outcome = describe(&within, transaction, &stores).await?;
    let tables = tables(&within, transaction, &stores, dry_run).await?;
    outcome.triggers = tables.iter().flat_map(|table| table.triggers.clone()).collect();
    if !dry_run {
        // Before anything of the owners runs, which could alter the table meanwhile.
        mark(&within, transaction, &stores).await?;
    }
    let mut as_owner = AsOwner::new(&within, FUNCTION);
    for table in &tables {
        let found = examine(&mut as_owner, transaction, table, &tables, conflicts, &mut outcome.problems).await?;
        outcome.tables.push(found);
    }
    if dry_run || !outcome.problems.is_empty() {
        within.rollback().await?;
        return Ok(outcome);
    }
    restore(&mut as_owner, transaction, &tables, conflicts, &mut outcome.tables).await?;
    as_owner.finish().await?;
    let types = table::types(&tables).map(|(name, _)| format!("DROP TYPE {name} CASCADE")).collect::<Vec<_>>();
    within.batch_execute(&types.join("; ")).await?;
    within.commit().await?;
    outcome.done = true;
    Ok(outcome)
}

async fn mark(within: &Transaction<'_>, transaction: u64, stores: &[Store]) -> Result<(), UndoError> {
    for store in stores {
        let mark = format!(
            "UPDATE {} SET undone_at = now(), undone_by = session_user WHERE xid = $1::text::xid8",
            store.transactions
        );
        within.execute(&mark, &[&transaction.to_string()]).await?;
    }
    Ok(())
}

/// Whose transaction it was, and whether it can be restored at all.
async fn describe(within: &Transaction<'_>, transaction: u64, stores: &[Store]) -> Result<Undo, UndoError> {
    let none = UndoError::NoSuchTransaction(transaction);
    if stores.is_empty() {
        return Err(none);
    }
    let sql = store::united(include_str!("sql/undo_transaction.sql"), stores);
    let rows = within.query(&sql, &[&transaction.to_string()]).await?;
    let Some(first) = rows.first() else { return Err(none) };
    let exactly: String = first.try_get("exactly")?;
    let mut problems = Vec::new();
    for row in &rows {
        if row.try_get::<_, String>("exactly")? != exactly {
            return Err(UndoError::Ambiguous(transaction));
        }
        if let Some(why) = row.try_get::<_, Option<String>>("incomplete")? {
            problems.push(format!("it is not captured as a whole: {why}; restore its rows from a backup"));
        }
    }
    if let (Some(at), Some(by)) =
        (first.try_get::<_, Option<String>>("undone_at")?, first.try_get::<_, Option<String>>("undone_by")?)
    {
        problems.push(format!(
            "it was undone already, {at} by {by}; if rows were deleted again, undo the transaction that did so"
        ));
    }
    let published = "SELECT p.pubname::text FROM pg_publication p WHERE p.puballtables ORDER BY p.pubname LIMIT 1";
    if let Some(row) = within.query_opt(published, &[]).await? {
        problems.push(format!("the transaction cannot be marked as undone: {}", capture::published(row.try_get(0)?)));
    }
    problems.dedup();
    Ok(Undo {
        transaction,
        began: first.try_get("began")?,
        login: first.try_get("login")?,
        application: first.try_get("application")?,
        done: false,
        problems,
        triggers: Vec::new(),
        tables: Vec::new(),
    })
}

/// The tables that rows are restored into, parents first. They are locked against ALTER TABLE before they are described.
async fn tables(
    within: &Transaction<'_>,
    transaction: u64,
    stores: &[Store],
    dry_run: bool,
) -> Result<Vec<Table>, UndoError> {
    let describe = store::united(include_str!("sql/undo_tables.sql"), stores);
    let mut tables: Vec<Table> = Vec::new();
    for again in [false, true] {
        let row = within.query_one(&describe, &[&transaction.to_string()]).await?;
        tables = serde_json::from_str(row.try_get(0)?)?;
        let idents: Vec<&str> = tables.iter().filter_map(|table| table.ident.as_deref()).collect();
        if again || idents.is_empty() {
            break;
        }
        let mode = if dry_run { "ACCESS SHARE" } else { "ROW EXCLUSIVE" };
        within.batch_execute(&format!("LOCK TABLE {} IN {mode} MODE", idents.join(", "))).await?;
    }
    let types = table::types(&tables).map(|(name, columns)| format!("CREATE TYPE {name} AS ({columns})"));
    within.batch_execute(&types.collect::<Vec<_>>().join("; ")).await?;
    Ok(in_order(tables).into_iter().flatten().collect())
}
