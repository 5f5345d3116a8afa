//! The user's queries on the restored database.

use pgrail_dump::DrillQueryResult;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{DrillQuery, Expectation};

/// How long a query may take.
const TIMEOUT: &str = "10min";
/// How much of a value is reported, in characters.
const SHOWN: usize = 200;

/// Runs every query, each in a read-only transaction of its own, whatever the others return.
pub(super) async fn run(
    session: &Client,
    queries: &[DrillQuery],
) -> Result<Vec<DrillQueryResult>, tokio_postgres::Error> {
    let mut results = Vec::with_capacity(queries.len());
    for query in queries {
        session.batch_execute(&format!("BEGIN READ ONLY; SET LOCAL statement_timeout = '{TIMEOUT}'")).await?;
        let found = value(session, &query.sql).await;
        session.batch_execute("ROLLBACK").await?;
        results.push(evaluate(&query.name, &query.expect, found));
    }
    Ok(results)
}

/// The only value that a query returns.
async fn value(session: &Client, sql: &str) -> Result<Option<String>, String> {
    let failed = |error: tokio_postgres::Error| pgrail_dump::error_chain(&error);
    // Several statements cannot be prepared: none can end the transaction.
    let statement = session.prepare(sql).await.map_err(failed)?;
    if statement.columns().len() != 1 {
        return Err(format!("it returns {} columns instead of one", statement.columns().len()));
    }
    let mut rows = Vec::new();
    for message in session.simple_query(sql).await.map_err(failed)? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(row.get(0).map(str::to_owned));
        }
    }
    match rows.len() {
        1 => Ok(rows.pop().flatten()),
        other => Err(format!("it returns {other} rows instead of one")),
    }
}

fn evaluate(name: &str, expect: &Expectation, found: Result<Option<String>, String>) -> DrillQueryResult {
    let (passed, found) = match found {
        Ok(value) => (expect.is_met_by(value.as_deref()), value.unwrap_or_else(|| "NULL".to_owned())),
        Err(problem) => (false, problem),
    };
    DrillQueryResult { name: name.to_owned(), passed, found: found.chars().take(SHOWN).collect() }
}

/// What failed, for a message.
pub(super) fn failures(queries: &[DrillQuery], results: &[DrillQueryResult]) -> String {
    let failed = queries.iter().zip(results).filter(|(_, result)| !result.passed);
    let text = |(query, result): (&DrillQuery, &DrillQueryResult)| {
        format!("the query {} returned {:?}, and {} is expected", query.name, result.found, query.expect)
    };
    failed.map(text).collect::<Vec<_>>().join("; ")
}
