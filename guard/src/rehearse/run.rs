//! One run of the statement, in a transaction that is rolled back whatever happens.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::{timeout, timeout_at};
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, SqlState};

use super::estimate::{self, Target};
use super::tree::Counted;
use super::{RehearseError, Request, UserTrigger};
use crate::catalog::{Catalog, Oid};
use crate::observe::ObserveError;
use crate::window::{self, WindowUse};

/// The SQLSTATE of a gate when the row cap is exceeded.
pub(super) const CAP: &str = "PGR00";
/// How long after the time limit the server is asked to cancel the statement: its own limit comes first.
const GRACE: Duration = Duration::from_millis(500);
/// How long a cancelled statement may take to end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the rehearsal must know before it begins.
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Facts {
    pub login: String,
    pub superuser: bool,
    pub in_recovery: bool,
    pub track_counts: bool,
    /// pgrail's functions exist, support rehearsals, and may be replaced.
    pub may_prepare: bool,
    /// pgrail is installed.
    pub installed: bool,
}

const NAMES: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// The session's role, and its rights on what pgrail installed.
pub(super) async fn facts(client: &Client) -> Result<Facts, RehearseError> {
    // Counters that the session has not flushed are flushed now, so that those of the runs start at zero.
    client.batch_execute("SELECT pg_catalog.pg_stat_force_next_flush()").await?;
    client.batch_execute(&format!("BEGIN READ ONLY; {NAMES}")).await?;
    let row = client.query_one(include_str!("../sql/rehearse_facts.sql"), &[]).await;
    client.batch_execute("ROLLBACK").await?;
    let row = row?;
    Ok(Facts {
        login: row.try_get("login")?,
        superuser: row.try_get("superuser")?,
        in_recovery: row.try_get("in_recovery")?,
        track_counts: row.try_get("track_counts")?,
        may_prepare: row.try_get::<_, bool>("may_prepare")? && row.try_get::<_, bool>("known")?,
        installed: row.try_get("installed")?,
    })
}

/// What the gates of guards do in a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gates {
    /// They stop statements.
    Active,
    /// They allow everything up to the row cap.
    CapOnly,
}

/// How the statement ended.
pub(super) enum Ended {
    Completed,
    Failed(Box<DbError>),
}

/// The result of a run.
pub(super) struct Ran {
    pub ended: Ended,
    pub took: Duration,
    pub counted: BTreeMap<Oid, Counted>,
    /// Assignments whose guard warned.
    pub warned: Vec<i32>,
    pub triggers: Vec<UserTrigger>,
}

impl Ran {
    /// Rows deleted and updated, as the cap counts them.
    pub fn rows(&self) -> i64 {
        self.counted.values().map(|it| it.deleted + it.updated).sum()
    }
}

/// The error of a statement that failed, and that no guard stopped.
pub(super) fn failure(error: &DbError, request: &Request, ran: &Ran) -> RehearseError {
    match error.code() {
        code if code.code() == CAP => RehearseError::TooManyRows { rows: ran.rows(), cap: request.max_rows },
        code if *code == SqlState::QUERY_CANCELED => {
            RehearseError::Timeout { timeout: bounds(request.timeout), rows: ran.rows() }
        }
        _ => plain_failure(error),
    }
}

fn plain_failure(error: &DbError) -> RehearseError {
    match error.code() {
        code if *code == SqlState::LOCK_NOT_AVAILABLE => RehearseError::Locked { message: error.message().to_owned() },
        code => RehearseError::Statement {
            code: code.code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
        },
    }
}

fn bounds(timeout: Duration) -> Duration {
    timeout.clamp(Request::SHORTEST, Request::LONGEST)
}

/// A session and what all runs share.
pub(super) struct Session<'a, C> {
    client: &'a Client,
    request: &'a Request,
    facts: Facts,
    cancel: C,
}

impl<'a, C: AsyncFn()> Session<'a, C> {
    pub fn new(client: &'a Client, request: &'a Request, facts: Facts, cancel: C) -> Self {
        Self { client, request, facts, cancel }
    }

    pub fn login(&self) -> &str {
        &self.facts.login
    }

    /// Whether exemptions of the role apply: the session takes its login identity too.
    pub fn logs_in_as_role(&self) -> bool {
        self.request.role.is_none() || self.facts.superuser
    }

    /// Whether the guards do not count this as an attempt, or there are none.
    pub fn is_quiet(&self) -> bool {
        self.facts.may_prepare || !self.facts.installed
    }

    /// Which tables the statement changes, by the server's plan; nothing is run.
    pub async fn targets(&self, catalog: &Catalog) -> Result<Vec<Target>, RehearseError> {
        let deadline = self.deadline();
        let targets = async {
            self.begin().await?;
            self.become_role().await?;
            let statement = self.bounded(deadline, self.client.prepare(&self.request.statement)).await?;
            let statement = statement.map_err(unprepared)?;
            if !statement.params().is_empty() {
                return Err(RehearseError::Parameters);
            }
            let explain = format!("EXPLAIN (VERBOSE, FORMAT JSON) {}", self.request.statement);
            let row = self.bounded(deadline, self.client.query_one(&explain, &[])).await?.map_err(unprepared)?;
            Ok(estimate::targets(&row.try_get::<_, Value>(0)?, catalog))
        };
        let targets = targets.await;
        self.rolled_back(targets).await
    }

    /// Runs the statement. `allowed` decides before, from the guarded roots whose gates apply the row cap: to deletes, and
    /// to updates.
    pub async fn run(
        &self,
        gates: Gates,
        may_be_roots: &[Oid],
        catalog: &Catalog,
        allowed: &impl Fn(&[Oid], &[Oid]) -> Result<(), RehearseError>,
    ) -> Result<Ran, RehearseError> {
        let deadline = self.deadline();
        let ran = self.run_in_transaction(gates, deadline, may_be_roots, catalog, allowed).await;
        self.rolled_back(ran).await
    }

    /// Counts what the statement would do without the guards. Also why not all of it could be counted.
    pub async fn count(
        &self,
        may_be_roots: &[Oid],
        catalog: &Catalog,
    ) -> Result<(Option<Ran>, Option<String>), RehearseError> {
        if !self.facts.may_prepare {
            let why = format!(
                "counted up to where the guard stopped it: {} is not a member of the owner of the schema pgrail, so the statement cannot run without the guards",
                self.facts.login
            );
            return Ok((None, Some(why)));
        }
        match self.run(Gates::CapOnly, may_be_roots, catalog, &|_, _| Ok(())).await {
            Ok(ran) => {
                let why = match &ran.ended {
                    Ended::Completed => None,
                    Ended::Failed(error) => Some(format!("without the guards: {}", failure(error, self.request, &ran))),
                };
                Ok((Some(ran), why))
            }
            Err(error @ (RehearseError::Busy | RehearseError::Locked { .. })) => {
                Ok((None, Some(format!("counted up to where the guard stopped it: {error}"))))
            }
            Err(error) => Err(error),
        }
    }

    /// How much of the windows is used.
    pub async fn windows(&self) -> Result<Vec<WindowUse>, RehearseError> {
        if !self.facts.may_prepare {
            return Ok(Vec::new());
        }
        match window::windows(self.client, None).await {
            Ok(windows) => Ok(windows),
            // An older version of pgrail in the database has none.
            Err(ObserveError::Query(error)) if error.code() == Some(&SqlState::UNDEFINED_FUNCTION) => Ok(Vec::new()),
            Err(ObserveError::Query(error)) => Err(error.into()),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The guards of assignments, and their tables.
    pub async fn names(&self, assignments: &[i32]) -> Result<Vec<String>, RehearseError> {
        if assignments.is_empty() {
            return Ok(Vec::new());
        }
        if !self.facts.may_prepare {
            return Ok(vec!["a guard that only warns".to_owned()]);
        }
        let rows = self.client.query(include_str!("../sql/rehearse_guards.sql"), &[&assignments]).await?;
        let name = |row: &tokio_postgres::Row| -> Result<String, tokio_postgres::Error> {
            Ok(format!("{} on {}", row.try_get::<_, String>("guard")?, row.try_get::<_, String>("table")?))
        };
        Ok(rows.iter().map(name).collect::<Result<_, _>>()?)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + bounds(self.request.timeout)
    }

    /// Begins a transaction that holds no lock for longer than the time limit, with a search path of pg_catalog.
    async fn begin(&self) -> Result<(), RehearseError> {
        self.client.batch_execute("BEGIN").await?;
        self.limit_everything(bounds(self.request.timeout)).await?;
        self.client.batch_execute(&format!("{NAMES}; SAVEPOINT rehearsal")).await?;
        // Without it, a server that runs the statement does not notice that the client disconnected. Not every platform has it.
        let set = self.client.batch_execute("SET LOCAL client_connection_check_interval = '1s'").await;
        if set.is_err_and(|error| error.as_db_error().is_some()) {
            self.client.batch_execute("ROLLBACK TO SAVEPOINT rehearsal").await?;
        }
        Ok(())
    }

    async fn limit_everything(&self, left: Duration) -> Result<(), tokio_postgres::Error> {
        // Shorter than deadlock_timeout: sessions that wait for this one do not also wait for those that it waits for.
        let limits = format!(
            "SET LOCAL lock_timeout = '500ms'; SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL statement_timeout = {}",
            left.as_millis().max(1)
        );
        self.client.batch_execute(&limits).await
    }

    /// Adds the row cap to the gates, and makes pgrail's functions not count this as an attempt.
    /// Returns the roots whose deletes, and whose updates, go through those gates.
    async fn prepare_gates(&self, gates: Gates, may_be_roots: &[Oid]) -> Result<(Vec<Oid>, Vec<Oid>), RehearseError> {
        if !self.facts.may_prepare {
            return Ok((Vec::new(), Vec::new()));
        }
        let sql = include_str!("../sql/rehearse_gates.sql");
        let active = gates == Gates::Active;
        // The gates add to it what was counted before.
        let cap = self.request.max_rows.clamp(0, i64::MAX / 2);
        let row = self.client.query_one(sql, &[&may_be_roots, &cap, &active]).await?;
        let replace: String = row.try_get("sql")?;
        self.client.batch_execute(&replace).await.map_err(|error| match error.code() {
            Some(code) if [SqlState::LOCK_NOT_AVAILABLE, SqlState::INTERNAL_ERROR].contains(code) => {
                RehearseError::Busy
            }
            _ => error.into(),
        })?;
        Ok((row.try_get("deletes")?, row.try_get("updates")?))
    }

    /// Sets the settings and the role of the statement, and the search path that the session had.
    async fn become_role(&self) -> Result<(), RehearseError> {
        self.client.batch_execute("SET LOCAL search_path TO DEFAULT").await?;
        let set = "SELECT pg_catalog.set_config($1, $2, true)";
        let message = |error: &tokio_postgres::Error| {
            error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
        };
        for (name, value) in &self.request.settings {
            self.client
                .execute(set, &[name, value])
                .await
                .map_err(|error| RehearseError::Setting { name: name.clone(), message: message(&error) })?;
        }
        if let Some(role) = &self.request.role {
            let how = if self.facts.superuser { "session_authorization" } else { "role" };
            self.client
                .execute(set, &[&how, role])
                .await
                .map_err(|error| RehearseError::Role { role: role.clone(), message: message(&error) })?;
        }
        Ok(())
    }

    async fn run_in_transaction(
        &self,
        gates: Gates,
        deadline: Instant,
        may_be_roots: &[Oid],
        catalog: &Catalog,
        allowed: &impl Fn(&[Oid], &[Oid]) -> Result<(), RehearseError>,
    ) -> Result<Ran, RehearseError> {
        self.begin().await?;
        let (deletes, updates) = self.prepare_gates(gates, may_be_roots).await?;
        allowed(&deletes, &updates)?;
        let before = self.counters().await?;
        let transaction = self.transaction_id().await?;
        self.become_role().await?;
        // After the settings, which may have changed them.
        self.limit_everything(left(deadline)).await?;
        self.client.batch_execute("SAVEPOINT statement").await?;
        let (ended, took) = self.run_statement(deadline).await?;
        let mut warned = Vec::new();
        if matches!(ended, Ended::Completed) {
            self.client.batch_execute(NAMES).await.map_err(left_transaction)?;
            let rows = self.client.query(include_str!("../sql/rehearse_warned.sql"), &[]).await?;
            warned = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        }
        // Releases all row locks; the server's counters stay.
        self.client.batch_execute("ROLLBACK TO SAVEPOINT statement").await.map_err(left_transaction)?;
        self.client.batch_execute(NAMES).await?;
        if self.transaction_id().await? != transaction {
            return Err(RehearseError::LeftTransaction);
        }
        let counted = difference(self.counters().await?, &before);
        let triggers = self.triggers(&counted, catalog).await?;
        Ok(Ran { ended, took, counted, warned, triggers })
    }

    /// Runs the statement, and what COMMIT would run: deferred constraints and triggers.
    async fn run_statement(&self, deadline: Instant) -> Result<(Ended, Duration), RehearseError> {
        let started = Instant::now();
        let result = self.bounded(deadline, self.client.execute(&self.request.statement, &[])).await?;
        let result = match result {
            Ok(_) => {
                let commit = format!(
                    "SET LOCAL statement_timeout = {}; SET CONSTRAINTS ALL IMMEDIATE",
                    left(deadline).as_millis().max(1)
                );
                self.bounded(deadline, self.client.batch_execute(&commit)).await?
            }
            Err(error) => Err(error),
        };
        let took = started.elapsed();
        match result {
            Ok(()) => Ok((Ended::Completed, took)),
            Err(error) => match error.as_db_error() {
                Some(error) if *error.code() == SqlState::LOCK_NOT_AVAILABLE => Err(plain_failure(error)),
                Some(failed) if !self.client.is_closed() => Ok((Ended::Failed(Box::new(failed.clone())), took)),
                _ => Err(error.into()),
            },
        }
    }

    /// Waits for a statement a little longer than the server runs it, then asks the server to cancel it.
    async fn bounded<T>(&self, deadline: Instant, statement: impl Future<Output = T>) -> Result<T, RehearseError> {
        let mut statement = pin!(statement);
        if let Ok(result) = timeout_at((deadline + GRACE).into(), &mut statement).await {
            return Ok(result);
        }
        // A server that cannot be reached to cancel rolls back when it notices that the client disconnected.
        let cancelled = async {
            (self.cancel)().await;
            statement.await
        };
        timeout(CANCEL_TIMEOUT, cancelled).await.map_err(|_| RehearseError::Unresponsive)
    }

    async fn rolled_back<T>(&self, result: Result<T, RehearseError>) -> Result<T, RehearseError> {
        if matches!(result, Err(RehearseError::Unresponsive)) || self.client.is_closed() {
            return result;
        }
        let rolled_back = self.client.batch_execute("ROLLBACK").await;
        // The counters start at zero again.
        let reported = self.client.batch_execute("SELECT pg_catalog.pg_stat_force_next_flush()").await;
        let result = result?;
        rolled_back.and(reported)?;
        Ok(result)
    }

    async fn transaction_id(&self) -> Result<String, tokio_postgres::Error> {
        self.client.query_one("SELECT pg_catalog.pg_current_xact_id()::text", &[]).await?.try_get(0)
    }

    async fn counters(&self) -> Result<BTreeMap<Oid, Counted>, tokio_postgres::Error> {
        let rows = self.client.query(include_str!("../sql/rehearse_counts.sql"), &[]).await?;
        let counted = rows.iter().map(|row| {
            let label = format!("{}.{}", row.try_get::<_, String>("nspname")?, row.try_get::<_, String>("relname")?);
            let (deleted, updated) = (row.try_get("deleted")?, row.try_get("updated")?);
            Ok((row.try_get("oid")?, Counted { label, deleted, updated, inserted: row.try_get("inserted")? }))
        });
        counted.collect()
    }

    async fn triggers(
        &self,
        counted: &BTreeMap<Oid, Counted>,
        catalog: &Catalog,
    ) -> Result<Vec<UserTrigger>, tokio_postgres::Error> {
        let tables: Vec<Oid> =
            counted.keys().flat_map(|oid| catalog.partition_ancestors(*oid).into_iter().chain([*oid])).collect();
        let rows = self.client.query(include_str!("../sql/rehearse_triggers.sql"), &[&tables]).await?;
        let triggers = rows.iter().map(|row| {
            Ok(UserTrigger {
                table: row.try_get("table")?,
                name: row.try_get("name")?,
                function: row.try_get("function")?,
            })
        });
        triggers.collect()
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Counts from before the statement are subtracted. TRUNCATE in a trigger resets the counters of its table.
fn difference(after: BTreeMap<Oid, Counted>, before: &BTreeMap<Oid, Counted>) -> BTreeMap<Oid, Counted> {
    let of = |oid: Oid, mut it: Counted| {
        if let Some(before) = before.get(&oid) {
            it.deleted = (it.deleted - before.deleted).max(0);
            it.updated = (it.updated - before.updated).max(0);
            it.inserted = (it.inserted - before.inserted).max(0);
        }
        (it.deleted + it.updated + it.inserted > 0).then_some((oid, it))
    };
    after.into_iter().filter_map(|(oid, it)| of(oid, it)).collect()
}

/// The server prepares only one statement.
fn unprepared(error: tokio_postgres::Error) -> RehearseError {
    let Some(failed) = error.as_db_error() else { return error.into() };
    // "cannot insert multiple commands into a prepared statement", whatever the language of the server's messages.
    let several = *failed.code() == SqlState::SYNTAX_ERROR && failed.position().is_none();
    if several { RehearseError::SeveralStatements } else { plain_failure(failed) }
}

/// A savepoint that no longer exists: the transaction is another one.
fn left_transaction(error: tokio_postgres::Error) -> RehearseError {
    use SqlState as S;
    let codes = [S::S_E_INVALID_SPECIFICATION, S::NO_ACTIVE_SQL_TRANSACTION, S::INVALID_TRANSACTION_STATE];
    if error.code().is_some_and(|code| codes.contains(code)) { RehearseError::LeftTransaction } else { error.into() }
}
