//! Runs the steps of a plan.

use std::collections::HashMap;

use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Transaction};

use crate::deferred::Deferred;
use crate::outcome::{Applied, LockHolder, Outcome, Wait};
use crate::plan::{Plan, Statement, Step, StepKind};

/// The advisory lock that fences every change of guards in a database: `pgrail` in ASCII. `fence_holder.sql` has its halves.
const FENCE: i64 = 0x7067_7261_696c;
/// Warns where the lock is not held.
const RELEASE: &str =
    "SET client_min_messages = error; SELECT pg_catalog.pg_advisory_unlock(123589602929004); RESET client_min_messages";

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

/// Runs a plan: each step in a transaction of its own that waits at most 500 ms for a lock, so that writers are not held
/// up longer. An empty plan runs nothing at all. A step that fails does not stop those of other tables; a general step
/// that fails does. To know what is enforced afterwards, observe and plan again.
pub async fn apply(client: &mut Client, plan: &Plan) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    if plan.is_empty() {
        return Ok(applied);
    }
    // Dropped in the middle, the lock is released behind whatever still runs: another session cannot begin before that.
    let mut fence = Deferred::new(client, RELEASE);
    let row = fence.client().query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&FENCE]).await?;
    if !row.try_get::<_, bool>(0)? {
        // Any role can take an advisory lock. One that could not change guards must not keep pgrail from it.
        let holder = fence.client().query_opt(include_str!("sql/fence_holder.sql"), &[]).await?;
        let managed_by = holder.map(|row| Ok((row.try_get("manages")?, row.try_get("role")?)));
        let Some((false, role)): Option<(bool, String)> = managed_by.transpose().map_err(ApplyError::Query)? else {
            fence.disarm();
            return Err(ApplyError::Busy);
        };
        tracing::warn!(
            role,
            "a role that manages no guards holds pgrail's advisory lock: the guards are changed without it"
        );
        run_all(fence.client(), plan, &mut applied).await?;
        fence.disarm();
        return Ok(applied);
    }
    run_all(fence.client(), plan, &mut applied).await?;
    fence.finish().await?;
    Ok(applied)
}

async fn run_all(client: &mut Client, plan: &Plan, applied: &mut Applied) -> Result<(), ApplyError> {
    let mut halted = false;
    let mut prepared = Prepared::new();
    for (at, step) in plan.steps.iter().enumerate() {
        // A function must not be dropped while a trigger that calls it is there.
        let incomplete = applied.steps.iter().any(|(_, outcome)| *outcome != Outcome::Done);
        let outcome = if halted || (step.kind == StepKind::Cleanup && incomplete) {
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
    let failed = match run_in(&transaction, step, prepared, last).await {
        Ok(()) => match transaction.commit().await {
            Ok(()) => return Ok(Outcome::Done),
            Err(error) => StepError::Query(error),
        },
        Err(error) => {
            transaction.rollback().await?;
            error
        }
    };
    explained(client, step, failed).await
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
        // leaves what an interrupted plan leaves.
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

/// What the failure of a step means. Anything but an error of the server ends the whole plan.
async fn explained(client: &Client, step: &Step, failed: StepError) -> Result<Outcome, ApplyError> {
    let error = match failed {
        StepError::Changed => return Ok(Outcome::Pending(Wait::Changed)),
        StepError::Query(error) => error,
    };
    let Some(server) = error.as_db_error() else { return Err(error.into()) };
    let code = server.code();
    if [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::T_R_DEADLOCK_DETECTED].contains(&code) {
        return Ok(Outcome::Pending(Wait::Lock { holders: holders(client, step).await? }));
    }
    if *code == SqlState::UNDEFINED_TABLE && step.table.is_some() {
        return Ok(Outcome::Pending(Wait::Changed));
    }
    if *code == SqlState::QUERY_CANCELED {
        return Ok(Outcome::Pending(Wait::Cancelled));
    }
    let remedy = if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        missing_grant(client, step).await?
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        "set default_transaction_read_only to off for pgrail's role and this database".to_owned()
    } else {
        server.hint().unwrap_or_default().to_owned()
    };
    Ok(Outcome::Failed { code: code.clone(), message: server.message().to_owned(), remedy })
}

async fn holders(client: &Client, step: &Step) -> Result<Vec<LockHolder>, ApplyError> {
    let table = step.table.as_ref().map(|(oid, _)| *oid);
    let rows = client.query(include_str!("sql/lock_holders.sql"), &[&table]).await?;
    let holders = rows.iter().map(|row| {
        Ok(LockHolder {
            table: row.try_get("table")?,
            pid: row.try_get("pid")?,
            login: row.try_get("login")?,
            application: row.try_get("application")?,
            since: row.try_get("since")?,
        })
    });
    holders.collect()
}

/// The GRANT that the role lacks for this step.
async fn missing_grant(client: &Client, step: &Step) -> Result<String, ApplyError> {
    let table = step.table.as_ref().map(|(oid, _)| *oid);
    let row = client.query_one(include_str!("sql/missing_grant.sql"), &[&table]).await?;
    let grant: Option<String> = row.try_get(0)?;
    Ok(grant
        .map_or_else(|| "run the SQL of `pgrail grants` for pgrail's role".to_owned(), |grant| format!("run {grant}")))
}
