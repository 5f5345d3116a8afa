//! Runs the steps of a plan.

use std::collections::HashMap;

use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Transaction};

use crate::catalog::Oid;
use crate::plan::{Plan, Statement, Step};

/// The advisory lock that fences every change of ours in a database: `pgrail` in ASCII. `fence_holder.sql` has its halves.
const FENCE: i64 = 0x7067_7261_696c;

/// Why a plan could not be run at all.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Another session is changing guards here.
    #[error("another session is changing the guards of this database")]
    Busy,
    /// The connection broke, or a statement around the steps failed.
    #[error("cannot change the guards: {0}")]
    Query(#[from] tokio_postgres::Error),
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Done,
    /// Somebody holds a lock that it needs; nothing was changed by it, try again.
    Pending {
        /// What was waited for.
        message: String,
    },
    /// It failed and nothing was changed by it.
    Failed {
        /// The server's message.
        message: String,
        /// What mends it; empty where that is not known.
        remedy: String,
    },
    /// Not tried, since a step that it needs did not succeed.
    Skipped,
}

/// What became of a plan's steps, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Each step's table, if it is about one, and how it ended.
    pub steps: Vec<(Option<(Oid, String)>, Outcome)>,
}

impl Applied {
    /// Whether every step was committed.
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|(_, outcome)| *outcome == Outcome::Done)
    }

    /// What did not succeed, with its table; `None` for what is not about one.
    pub fn unfinished(&self) -> Vec<(Option<&str>, &Outcome)> {
        let unfinished = self.steps.iter().filter(|(_, outcome)| *outcome != Outcome::Done);
        unfinished.map(|(table, outcome)| (table.as_ref().map(|(_, label)| label.as_str()), outcome)).collect()
    }
}

/// Runs a plan: each step in a transaction of its own that waits at most 500 ms for a lock, so that writers are not held
/// up longer. An empty plan runs nothing at all. A step that fails does not stop those of other tables; a general step
/// that fails does. To know what is enforced afterwards, observe and plan again.
pub async fn apply(client: &mut Client, plan: &Plan) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    if plan.is_empty() {
        return Ok(applied);
    }
    let row = client.query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&FENCE]).await?;
    let fenced: bool = row.try_get(0)?;
    if !fenced {
        // Any role may take an advisory lock. One that could not change guards anyway must not keep us from it.
        let holder = client.query_opt(include_str!("sql/fence_holder.sql"), &[]).await?;
        let Some(row) = holder else { return Err(ApplyError::Busy) };
        if row.try_get("manages")? {
            return Err(ApplyError::Busy);
        }
        let role: String = row.try_get("role")?;
        tracing::warn!(
            role,
            "a role that manages no guards holds pgrail's advisory lock: the guards are changed without it"
        );
    }
    let result = run_all(client, plan, &mut applied).await;
    if fenced && !client.is_closed() {
        client.query_one("SELECT pg_catalog.pg_advisory_unlock($1)", &[&FENCE]).await?;
    }
    result.map(|()| applied)
}

async fn run_all(client: &mut Client, plan: &Plan, applied: &mut Applied) -> Result<(), ApplyError> {
    let mut halted = false;
    let mut prepared = Prepared::new();
    for (at, step) in plan.steps.iter().enumerate() {
        // What is dropped for good must not go while a trigger that still calls it is there.
        let incomplete = applied.steps.iter().any(|(_, outcome)| *outcome != Outcome::Done);
        let outcome = if halted || (step.kind == crate::plan::StepKind::Cleanup && incomplete) {
            Outcome::Skipped
        } else {
            run(client, step, &mut prepared, at + 1 == plan.steps.len()).await?
        };
        halted |= step.table.is_none() && outcome != Outcome::Done;
        if outcome != Outcome::Done {
            tracing::debug!(kind = ?step.kind, table = ?step.table, ?outcome, "step not done");
        }
        applied.steps.push((step.table.clone(), outcome));
    }
    Ok(())
}

/// Statements that were prepared on this connection, by their text.
type Prepared = HashMap<String, tokio_postgres::Statement>;

async fn run(client: &mut Client, step: &Step, prepared: &mut Prepared, last: bool) -> Result<Outcome, ApplyError> {
    let transaction = client.transaction().await?;
    match run_in(&transaction, step, prepared, last).await {
        Ok(()) => match transaction.commit().await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => judged(StepError::Query(error)),
        },
        Err(error) => {
            let outcome = judged(error)?;
            transaction.rollback().await?;
            Ok(outcome)
        }
    }
}

#[derive(Debug, Error)]
enum StepError {
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    #[error("the table is not the one that was there a moment ago")]
    Changed,
}

const SETTINGS: &str = "SET LOCAL lock_timeout = '500ms'; SET LOCAL search_path = pg_catalog, pg_temp; \
     SET LOCAL standard_conforming_strings = on; SET LOCAL client_min_messages = warning";

async fn run_in(
    transaction: &Transaction<'_>,
    step: &Step,
    prepared: &mut Prepared,
    last: bool,
) -> Result<(), StepError> {
    // What can be sent at once is: with a thousand tables, it is the round trips that take the time.
    let mut batch = SETTINGS.to_owned();
    if !last {
        // The log is written in order: when the last step is on the disk, so are those before it. A crash in between
        // leaves what a plan that was broken off does.
        batch.push_str("; SET LOCAL synchronous_commit = off");
    }
    for statement in &step.statements {
        let (rows, sql, value) = match statement {
            Statement::Batch(sql) => {
                batch.push_str(";\n");
                batch.push_str(sql);
                continue;
            }
            Statement::Json(sql, value) => (None, sql, value),
            Statement::Exactly(rows, sql, value) => (Some(*rows), sql, value),
        };
        if !batch.is_empty() {
            transaction.batch_execute(&std::mem::take(&mut batch)).await?;
        }
        let statement = match prepared.get(sql) {
            Some(statement) => statement.clone(),
            None => prepared.entry(sql.clone()).or_insert(transaction.prepare(sql).await?).clone(),
        };
        let touched = transaction.execute(&statement, &[&Json(value)]).await?;
        if rows.is_some_and(|rows| rows != touched) {
            return Err(StepError::Changed);
        }
    }
    if !batch.is_empty() {
        transaction.batch_execute(&batch).await?;
    }
    Ok(())
}

fn judged(error: StepError) -> Result<Outcome, ApplyError> {
    let error = match error {
        StepError::Changed => return Ok(Outcome::Pending { message: error.to_string() }),
        StepError::Query(error) => error,
    };
    let Some(server) = error.as_db_error() else { return Err(error.into()) };
    let code = server.code();
    let message = server.message().to_owned();
    if [
        &SqlState::LOCK_NOT_AVAILABLE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::UNDEFINED_TABLE,
        &SqlState::QUERY_CANCELED,
    ]
    .contains(&code)
    {
        return Ok(Outcome::Pending { message });
    }
    let remedy = if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        "run the SQL of `pgrail grants` for pgrail's role".to_owned()
    } else {
        server.hint().unwrap_or_default().to_owned()
    };
    Ok(Outcome::Failed { message, remedy })
}
