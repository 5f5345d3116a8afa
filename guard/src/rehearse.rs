//! Runs a statement, rolls it back, and reports what it would have done: rows per table, time, and whether a guard stops it.
//!
//! ```text
//! plan     which tables does it change, and how many rows by estimate?      (a transaction of its own, not executed)
//! guarded  run it with the guards                                           (rolled back)
//! counted  if a guard stopped it: run it without the guards, up to the cap  (rolled back)
//! ```
//!
//! In those transactions only, pgrail's role adds the row cap to its gates, and makes its own functions not count what they
//! stop as an attempt. It replaces functions only: no table is locked, nothing is committed.

mod estimate;
mod run;
mod statement;
mod tree;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio_postgres::Client;

use crate::catalog::{self, Catalog, CatalogError, Oid};
use crate::window::WindowUse;
use estimate::Target;
use run::{Ended, Gates, Session};
pub use tree::{Rows, TableRows};

/// What to rehearse, and how far to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// One SQL statement: DELETE, UPDATE, MERGE, INSERT … ON CONFLICT DO UPDATE, or one of these after WITH.
    pub statement: String,
    /// The longest that each of the runs may take, and that its locks may be held; between [`Request::SHORTEST`] and
    /// [`Request::LONGEST`].
    pub timeout: Duration,
    /// Rows that it may delete and update before it is aborted. Exact for tables with a gate of a guard; for other tables
    /// decided beforehand, by estimate.
    pub max_rows: i64,
    /// Run it although the estimate is above `max_rows`.
    pub force: bool,
    /// The role that it runs as. A superuser logs in as it (`SET SESSION AUTHORIZATION`), others set it (`SET ROLE`).
    pub role: Option<String>,
    /// Settings for the transaction, such as `app.user_id`.
    pub settings: Vec<(String, String)>,
}

impl Request {
    /// The least [`Request::timeout`].
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// The greatest [`Request::timeout`].
    pub const LONGEST: Duration = Duration::from_mins(10);

    /// A statement with the usual bounds: 5 seconds, a million rows.
    pub fn new(statement: impl Into<String>) -> Self {
        Self {
            statement: statement.into(),
            timeout: Duration::from_secs(5),
            max_rows: 1_000_000,
            force: false,
            role: None,
            settings: Vec::new(),
        }
    }
}

/// Whether the guards allow a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "stop")]
pub enum Verdict {
    /// It would complete.
    Passes,
    /// A guard would stop it.
    Stopped(Stop),
}

/// How a guard stops a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// SQLSTATE, such as `PGR01`.
    pub code: String,
    /// The message that the client would get.
    pub message: String,
    /// DETAIL: the table, the rows until then, the guard.
    pub detail: String,
    /// HINT
    pub hint: String,
    /// How long it ran until it was stopped.
    #[serde(serialize_with = "milliseconds", rename = "milliseconds")]
    pub after: Duration,
}

/// A trigger of the application that may have done more than change rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserTrigger {
    /// `schema.table`
    pub table: String,
    /// Its name.
    pub name: String,
    /// The function that it calls.
    pub function: String,
}

/// What a statement would have done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// Whether it would complete. In JSON `verdict`, and `stop` where it would not.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Guards that warn of it and allow it, `namespace/name on schema.table`.
    pub warned: Vec<String>,
    /// Why the rows are not all that it would change; `None` if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// How long the run took in which the rows were counted, without the guards if they stop it; COMMIT not included.
    #[serde(serialize_with = "milliseconds", rename = "milliseconds")]
    pub took: Duration,
    /// Rows that the server estimated, with those of the cascade.
    pub estimated_rows: u64,
    /// Rows of all tables.
    pub total: Rows,
    /// The tables that the statement names, and those that depend on them.
    pub tables: Vec<TableRows>,
    /// Tables that were changed otherwise: by triggers, or through `ON UPDATE`.
    pub other_tables: Vec<TableRows>,
    /// How much of the windows of these tables is used, without this statement; empty where this login may not read it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowUse>,
    /// Triggers of the application on tables that were changed.
    pub triggers: Vec<UserTrigger>,
    /// Whether the guard counted it as an attempt: this login has no right to prevent that.
    pub counted_as_attempt: bool,
    /// The login role, by which exemptions go.
    pub login: String,
    /// Whether exemptions of [`Request::role`] were applied: only a superuser can take the identity of another login role.
    pub rights_of_role: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde has it")]
fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 100_000.0).round() / 100.0)
}

/// Why a statement was not rehearsed to its end. In every case it is rolled back.
#[derive(Debug, Error)]
pub enum RehearseError {
    /// Statements of this kind cannot be rehearsed.
    #[error("{what} cannot be rehearsed: {why}; {remedy}")]
    Refused {
        /// The first word of the statement.
        what: String,
        /// Why not.
        why: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Several statements, or none.
    #[error("only one statement can be rehearsed at a time")]
    SeveralStatements,
    /// It has parameters.
    #[error("the statement has parameters ($1, …); replace them by values")]
    Parameters,
    /// It changes no rows.
    #[error("the statement is not one that deletes or updates rows")]
    ChangesNothing,
    /// It changes rows of another server.
    #[error("{0} is a foreign table, and its server may not roll back; rehearse the statement there")]
    Foreign(String),
    /// The estimate is above the row cap.
    #[error(
        "the server estimates that about {rows} rows would be changed, more than the row cap of {cap}, and no guard could abort it there; narrow it, raise the cap (--max-rows), or run it anyway (--force)"
    )]
    TooManyByEstimate {
        /// The estimate.
        rows: u64,
        /// The cap.
        cap: i64,
    },
    /// It was aborted at the row cap.
    #[error("aborted after {rows} rows, at the row cap of {cap}; narrow it, or raise the cap (--max-rows)")]
    TooManyRows {
        /// Rows until then.
        rows: i64,
        /// The cap.
        cap: i64,
    },
    /// It took too long.
    #[error("not completed within {} s, with {rows} rows changed until then; narrow it, or raise the time limit (--timeout)", .timeout.as_secs_f64())]
    Timeout {
        /// The time that it had.
        timeout: Duration,
        /// Rows until then.
        rows: i64,
    },
    /// Another session holds a lock that it needs.
    #[error(
        "another session holds a lock that the statement needs, and a rehearsal waits for at most half a second ({message}); try again, or see pg_locks"
    )]
    Locked {
        /// The server's message.
        message: String,
    },
    /// The gates are being changed.
    #[error("another rehearsal, or a change of guards, is in progress in this database; try again")]
    Busy,
    /// It fails for another reason than a guard.
    #[error("the statement fails ({code}): {message}{}", .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Statement {
        /// SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
        /// More of it.
        detail: Option<String>,
    },
    /// A setting cannot be set.
    #[error("cannot set {name}: {message}")]
    Setting {
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// The role cannot be set.
    #[error("cannot run as {role}: {message}")]
    Role {
        /// The role.
        role: String,
        /// The server's message.
        message: String,
    },
    /// The server takes no writes.
    #[error("the server is a standby, which cannot change rows; rehearse on the primary")]
    Standby,
    /// The server does not count rows.
    #[error("track_counts is off: the server does not count rows, so no guard works; turn it on")]
    TrackCountsOff,
    /// The statement ended the transaction.
    #[error(
        "the statement ended the transaction of the rehearsal: its changes may have been COMMITTED; check what it calls"
    )]
    LeftTransaction,
    /// Neither its time limit nor a request to cancel ended it.
    #[error(
        "the statement does not end and cannot be cancelled; its session is closed, and the server rolls it back when it notices that"
    )]
    Unresponsive,
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The connection broke, or a query around the statement failed.
    #[error("cannot rehearse: {0}")]
    Query(#[from] tokio_postgres::Error),
}

/// Rehearses a statement on a session of its own, outside a transaction. `cancel` asks the server to cancel what this
/// session runs; it is called if the statement exceeds its time limit. After [`RehearseError::Unresponsive`] close
/// the session; if the future is dropped, cancel and close it. PostgreSQL 15 and later.
pub async fn rehearse(client: &Client, request: &Request, cancel: impl AsyncFn()) -> Result<Rehearsal, RehearseError> {
    statement::check(&request.statement)?;
    if let Some((name, _)) = request.settings.iter().find(|(name, _)| name.starts_with("pgrail.")) {
        let message = "settings named pgrail.* are reserved".to_owned();
        return Err(RehearseError::Setting { name: name.clone(), message });
    }
    let facts = run::facts(client).await?;
    if facts.in_recovery {
        return Err(RehearseError::Standby);
    }
    if !facts.track_counts {
        return Err(RehearseError::TrackCountsOff);
    }
    let catalog = catalog::read(client).await?;
    let session = Session::new(client, request, facts, cancel);
    let targets = Targets::new(request, &catalog, session.targets(&catalog).await?)?;
    let allowed = |deletes: &[Oid], updates: &[Oid]| targets.allowed(deletes, updates);
    let guarded = session.run(Gates::Active, &targets.may_be_roots(), &catalog, &allowed).await?;
    let (verdict, counted, incomplete) = match &guarded.ended {
        Ended::Completed => (Verdict::Passes, None, None),
        Ended::Failed(error) if is_verdict(error.code().code()) => {
            let (counted, incomplete) = match targets.why_not_to_count() {
                Some(why) => (None, Some(why)),
                None => session.count(&targets.may_be_roots(), &catalog).await?,
            };
            (Verdict::Stopped(stop(error, guarded.took)), counted, incomplete)
        }
        Ended::Failed(error) => return Err(run::failure(error, request, &guarded)),
    };
    let counted_as_attempt = !session.is_quiet() && (verdict != Verdict::Passes || !guarded.warned.is_empty());
    let warned = session.names(&guarded.warned).await?;
    let mut windows = session.windows().await?;
    let shown = counted.unwrap_or(guarded);
    let (tables, other_tables) = tree::build(&targets.targets, &shown.counted, &catalog);
    let mut total = Rows::default();
    for table in tables.iter().chain(&other_tables) {
        total.add(table.total());
    }
    windows.retain(|it| tables.iter().any(|table| table.table == it.table));
    Ok(Rehearsal {
        verdict,
        warned,
        incomplete,
        took: shown.took,
        estimated_rows: targets.estimated_rows(),
        total,
        tables,
        other_tables,
        windows,
        triggers: shown.triggers,
        counted_as_attempt,
        login: session.login().to_owned(),
        rights_of_role: session.logs_in_as_role(),
    })
}

/// The tables that the statement changes.
struct Targets<'a> {
    request: &'a Request,
    catalog: &'a Catalog,
    targets: Vec<Target>,
    estimated: f64,
}

impl<'a> Targets<'a> {
    fn new(request: &'a Request, catalog: &'a Catalog, targets: Vec<Target>) -> Result<Self, RehearseError> {
        if targets.is_empty() {
            return Err(RehearseError::ChangesNothing);
        }
        if let Some(table) = estimate::foreign(&targets, catalog) {
            return Err(RehearseError::Foreign(table));
        }
        let estimated = estimate::rows(&targets, catalog);
        Ok(Self { request, catalog, targets, estimated })
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, never negative")]
    fn estimated_rows(&self) -> u64 {
        self.estimated.round() as u64
    }

    #[allow(clippy::cast_precision_loss, reason = "an estimate is compared")]
    fn too_many(&self) -> bool {
        self.estimated > self.request.max_rows as f64 && !self.request.force
    }

    /// The targets and the tables that they are partitions or inheritance children of: any of these may be the guarded root.
    fn may_be_roots(&self) -> Vec<Oid> {
        let all: BTreeSet<Oid> = self.targets.iter().flat_map(|target| self.roots_of(target)).collect();
        all.into_iter().collect()
    }

    fn roots_of(&self, target: &Target) -> Vec<Oid> {
        let own = target.oid.into_iter();
        own.flat_map(|oid| self.catalog.ancestors(oid).into_iter().chain([oid])).collect()
    }

    /// Whether it may run: where gates apply the row cap, whatever the estimate is.
    fn allowed(&self, deletes: &[Oid], updates: &[Oid]) -> Result<(), RehearseError> {
        let capped = self.targets.iter().all(|target| {
            let held = |roots: &[Oid]| self.roots_of(target).iter().any(|oid| roots.contains(oid));
            (!target.deletes || held(deletes)) && (!target.updates || held(updates))
        });
        if self.too_many() && !capped {
            return Err(RehearseError::TooManyByEstimate { rows: self.estimated_rows(), cap: self.request.max_rows });
        }
        Ok(())
    }

    /// To delete a million rows only to report that they are too many would load the server for nothing.
    fn why_not_to_count(&self) -> Option<String> {
        self.too_many().then(|| {
            format!(
                "the server estimates about {} rows, more than the row cap of {}; counted up to where the guard stopped it (--max-rows, --force)",
                self.estimated_rows(),
                self.request.max_rows
            )
        })
    }
}

/// `PGR00` is the cap of the rehearsal itself.
fn is_verdict(code: &str) -> bool {
    code.starts_with("PGR") && code != run::CAP
}

fn stop(error: &tokio_postgres::error::DbError, after: Duration) -> Stop {
    Stop {
        code: error.code().code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().unwrap_or_default().to_owned(),
        hint: error.hint().unwrap_or_default().to_owned(),
        after,
    }
}
