//! Puts the rows that a transaction deleted back where they were: all of them or none.

mod examine;
mod put_back;
mod table;

use serde::Serialize;
use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use examine::examine;
use put_back::put_back;
use table::{Table, in_order};

/// What to do about rows that are there already, and links that point elsewhere by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    /// Put nothing back.
    Refuse,
    /// Leave them as they are and put back the others.
    SkipExisting,
}

/// Why a transaction could not even be looked at, or was not put back for a reason that only shows when it is tried.
/// Nothing was changed.
#[derive(Debug, Error)]
pub enum UndoError {
    /// No rows of it are kept.
    #[error("no rows are kept of the transaction {0}: list those that are with `pgrail undo`")]
    NoSuchTransaction(u64),
    /// Two transactions have this number.
    #[error(
        "{0} is the number of several transactions, since this database was restored from a dump: wait until the older ones have passed their retention"
    )]
    Ambiguous(u64),
    /// Nothing is installed.
    #[error("nothing of pgrail is in this database")]
    NotInstalled,
    /// The server refused.
    #[error("{message}{remedy}")]
    Refused {
        /// What it said.
        message: String,
        /// What mends it; empty where that is not known.
        remedy: String,
    },
    /// Fewer rows arrived than were put back.
    #[error("{table}: only {arrived} of {rows} rows arrived: a trigger or a policy of the table keeps them out")]
    KeptOut {
        /// `schema.table`
        table: String,
        /// Rows that the server counted.
        arrived: i64,
        /// Rows that should have.
        rows: i64,
    },
    /// The connection broke.
    #[error("cannot undo: {0}")]
    Query(tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand what is kept: {0}")]
    Decode(#[from] serde_json::Error),
}

impl From<tokio_postgres::Error> for UndoError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else { return Self::Query(error) };
        let code = server.code();
        if [&SqlState::UNDEFINED_TABLE, &SqlState::INVALID_SCHEMA_NAME].contains(&code)
            && server.message().contains("pgrail.captured")
        {
            return Self::NotInstalled;
        }
        let detail = server.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let remedy = if server.message().contains("row-level security") {
            "; pgrail's role needs BYPASSRLS to see and put back rows of tables that force row level security"
                .to_owned()
        } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            "; run the SQL of `pgrail grants` for pgrail's role".to_owned()
        } else if *code == SqlState::LOCK_NOT_AVAILABLE {
            "; somebody else holds a lock: try again".to_owned()
        } else {
            server.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
        };
        Self::Refused { message: format!("{}{detail}", server.message()), remedy }
    }
}

/// What came of an undo, or would come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undo {
    /// The transaction.
    pub transaction: u64,
    /// When it began, in UTC as ISO 8601.
    pub began: String,
    /// Who was logged in.
    pub login: String,
    /// `application_name`
    pub application: String,
    /// Whether its rows were put back.
    pub done: bool,
    /// What stands against it, with what mends it. Where there is anything, nothing is put back.
    pub problems: Vec<String>,
    /// Table by table, in the order in which rows are put back.
    pub tables: Vec<Undone>,
}

/// What came of an undo in one table. All numbers were counted by the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// `schema.table`
    pub table: String,
    /// Deleted rows that are kept.
    pub rows: i64,
    /// Rows that were put back, or in a dry run would be.
    pub inserted: i64,
    /// Rows of which there is one with the same key already.
    pub existing: i64,
    /// Rows whose parent is neither there nor among what is put back.
    pub parents_missing: i64,
    /// Links that were set to NULL or DEFAULT.
    pub links: i64,
    /// Links that were set back, or in a dry run would be.
    pub links_restored: i64,
    /// Columns that were added since: they get their defaults.
    pub columns_added: i64,
}

/// How rows are read again: as they were written, and seeing every row or failing.
const READING: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL datestyle = 'ISO, YMD'; \
     SET LOCAL intervalstyle = postgres; SET LOCAL xmloption = content; SET LOCAL standard_conforming_strings = on; \
     SET LOCAL row_security = off; SET LOCAL lock_timeout = '10s'";
/// Triggers of the application expect the path and the policies that it has itself.
const WRITING: &str = "SET LOCAL search_path TO DEFAULT; SET LOCAL row_security TO DEFAULT";

/// Puts the rows of a transaction back, parents before children, and marks it as undone; or, in a dry run, only says what
/// would come of that and what stands against it, in a transaction that may not write.
pub async fn undo(
    client: &mut Client,
    transaction: u64,
    conflicts: Conflicts,
    dry_run: bool,
) -> Result<Undo, UndoError> {
    let within = client.build_transaction().read_only(dry_run).start().await?;
    within.batch_execute(READING).await?;
    let mut outcome = look(&within, transaction, dry_run).await?;
    let tables = tables(&within, transaction, dry_run).await?;
    for table in &tables {
        let looked = examine(&within, transaction, table, &tables, conflicts, &mut outcome.problems).await?;
        outcome.tables.push(looked);
    }
    if dry_run || !outcome.problems.is_empty() {
        within.rollback().await?;
        return Ok(outcome);
    }
    within.batch_execute(WRITING).await?;
    put_back(&within, transaction, &tables, conflicts, &mut outcome.tables).await?;
    // What is checked at the end is checked now, while its failure can still be told apart.
    within.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    let mark = "UPDATE pgrail.captured_transaction SET undone_at = pg_catalog.now(), undone_by = session_user WHERE xid = $1::pg_catalog.text::pg_catalog.xid8";
    within.execute(mark, &[&transaction.to_string()]).await?;
    within.commit().await?;
    outcome.done = true;
    Ok(outcome)
}

/// Who it was, and whether it can be put back at all.
async fn look(within: &Transaction<'_>, transaction: u64, dry_run: bool) -> Result<Undo, UndoError> {
    let mut sql = include_str!("sql/undo_transaction.sql").trim_end().to_owned();
    if !dry_run {
        // Two that undo the same wait for each other.
        sql.push_str(" FOR UPDATE");
    }
    let rows = within.query(&sql, &[&transaction.to_string()]).await?;
    let Some(first) = rows.first() else { return Err(UndoError::NoSuchTransaction(transaction)) };
    let exactly: String = first.try_get("exactly")?;
    let mut problems = Vec::new();
    for row in &rows {
        if row.try_get::<_, String>("exactly")? != exactly {
            return Err(UndoError::Ambiguous(transaction));
        }
        if let Some(why) = row.try_get::<_, Option<String>>("incomplete")? {
            problems.push(format!("it is not kept as a whole: {why}; what it deleted is in a backup"));
        }
    }
    if let (Some(at), Some(by)) =
        (first.try_get::<_, Option<String>>("undone_at")?, first.try_get::<_, Option<String>>("undone_by")?)
    {
        problems.push(format!(
            "it was undone already, {at} by {by}; rows that were deleted again are kept of the transaction that did so"
        ));
    }
    problems.dedup();
    Ok(Undo {
        transaction,
        began: first.try_get("began")?,
        login: first.try_get("login")?,
        application: first.try_get("application")?,
        done: false,
        problems,
        tables: Vec::new(),
    })
}

/// The tables that rows go back to, parents first. They are locked against ALTER TABLE before they are described.
async fn tables(within: &Transaction<'_>, transaction: u64, dry_run: bool) -> Result<Vec<Table>, UndoError> {
    let describe = include_str!("sql/undo_tables.sql");
    let mut tables: Vec<Table> = Vec::new();
    for again in [false, true] {
        let row = within.query_one(describe, &[&transaction.to_string()]).await?;
        tables = serde_json::from_str(row.try_get(0)?)?;
        let idents: Vec<&str> = tables.iter().filter_map(|table| table.ident.as_deref()).collect();
        if again || idents.is_empty() {
            break;
        }
        let mode = if dry_run { "ACCESS SHARE" } else { "ROW EXCLUSIVE" };
        within.batch_execute(&format!("LOCK TABLE {} IN {mode} MODE", idents.join(", "))).await?;
    }
    Ok(in_order(tables).into_iter().flatten().collect())
}
