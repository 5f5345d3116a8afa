//! Runs a statement, takes it back, and tells what it would have done: rows per table, time, and whether a guard stops it.
//!
//! ```text
//! look     which tables does it change, and how many rows by estimate?      (a transaction of its own, planned only)
//! judge    run it as things are, guards and all                             (rolled back)
//! count    if a guard stopped it: run it without the guards, up to the cap  (rolled back)
//! ```
//!
//! For those transactions only, pgrail's role puts the row cap in front of its gates, and says to its own functions that
//! an attempt that they stop is none. Functions are all that it replaces: no table is locked, nothing is committed.

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
use estimate::Target;
use run::{Ended, Judging, Session};
pub use tree::{Rows, TableRows};

/// What to rehearse, and how far to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// One SQL statement: DELETE, UPDATE, MERGE, INSERT … ON CONFLICT DO UPDATE, or one of these after WITH.
    pub statement: String,
    /// The longest that each of the runs may take, and that its locks may be held; between [`Request::SHORTEST`] and
    /// [`Request::LONGEST`].
    pub timeout: Duration,
    /// Rows that it may delete and update before it is broken off. Exact while it runs through gates of guards; for
    /// other tables judged beforehand, by estimate.
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

/// Whether the guards let a statement pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "stop")]
pub enum Verdict {
    /// It would run to its end.
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
    /// What the client would see.
    pub message: String,
    /// Where, after how many rows, by which guard.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// How long it ran until then.
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
    /// Whether it would pass. In JSON `verdict`, and `stop` where it would not.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Guards that warn of it and let it pass, `namespace/name on schema.table`.
    pub warned: Vec<String>,
    /// Why the rows are not all that it would change; `None`: they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// How long the run took in which the rows were counted, without the guards if they stop it; COMMIT not included.
    #[serde(serialize_with = "milliseconds", rename = "milliseconds")]
    pub took: Duration,
    /// Rows that the server expected beforehand, tables below included.
    pub estimated_rows: u64,
    /// Rows of all tables.
    pub total: Rows,
    /// The tables that the statement names, and what hangs on them.
    pub tables: Vec<TableRows>,
    /// Tables that were changed otherwise: by triggers, or through `ON UPDATE`.
    pub other_tables: Vec<TableRows>,
    /// Triggers of the application on tables that were changed.
    pub triggers: Vec<UserTrigger>,
    /// Whether the guard counted it as an attempt: then this login may not tell it that it is none.
    pub counted_as_attempt: bool,
    /// The login role, by which exemptions go.
    pub login: String,
    /// Whether exemptions were judged as for a login of [`Request::role`]: only a superuser can log in as another role.
    pub rights_of_role: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde has it")]
fn milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 100_000.0).round() / 100.0)
}

/// Why a statement was not rehearsed to its end. In every case it is rolled back.
#[derive(Debug, Error)]
pub enum RehearseError {
    /// It is not of a kind that can be.
    #[error("{what} cannot be rehearsed: {why}; {remedy}")]
    Refused {
        /// Its first word.
        what: String,
        /// Why not.
        why: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// Several statements, or none.
    #[error("one statement can be rehearsed at a time; give them one by one")]
    SeveralStatements,
    /// It has parameters.
    #[error("the statement has parameters ($1, …); write their values instead")]
    Parameters,
    /// It changes no rows.
    #[error("the statement deletes and updates nothing, so there is nothing to rehearse")]
    ChangesNothing,
    /// It changes rows of another server.
    #[error("{0} is a foreign table: whether its server takes back what was done cannot be known; rehearse it there")]
    Foreign(String),
    /// The estimate is above the row cap.
    #[error(
        "about {rows} rows would be changed by the server's estimate, more than the row cap of {cap}, and nothing would break it off there; narrow it, raise the cap (--max-rows), or run it anyway (--force)"
    )]
    TooManyByEstimate {
        /// The estimate.
        rows: u64,
        /// The cap.
        cap: i64,
    },
    /// It was broken off at the row cap.
    #[error("broken off after {rows} rows, the row cap being {cap}; narrow it, or raise the cap (--max-rows)")]
    TooManyRows {
        /// Rows until then.
        rows: i64,
        /// The cap.
        cap: i64,
    },
    /// It took too long.
    #[error("not finished after {} s, with {rows} rows changed until then; narrow it, or give it more time (--timeout)", .timeout.as_secs_f64())]
    Timeout {
        /// The time that it had.
        timeout: Duration,
        /// Rows until then.
        rows: i64,
    },
    /// Somebody holds a lock that it needs.
    #[error(
        "somebody else holds a lock that the statement needs, and it waits no longer than half a second ({message}); try again, or see pg_locks"
    )]
    Locked {
        /// The server's message.
        message: String,
    },
    /// The gates are being changed.
    #[error("another rehearsal, or a change of guards, is under way in this database; try again")]
    Busy,
    /// It fails, guards or not.
    #[error("the statement fails ({code}): {message}{}", .detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Statement {
        /// SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
        /// More of it.
        detail: Option<String>,
    },
    /// A setting cannot be made.
    #[error("the setting {name} cannot be made: {message}")]
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
    #[error("the server is a standby, which runs no change at all; rehearse on the primary")]
    Standby,
    /// The server does not count rows.
    #[error("track_counts is off: the server counts no rows, and no guard works; turn it on")]
    TrackCountsOff,
    /// The transaction is not the one that was begun.
    #[error(
        "the statement left the transaction of the rehearsal: what it did may have been COMMITTED; see what it calls"
    )]
    LeftTransaction,
    /// Neither its time limit nor a request to cancel ended it.
    #[error(
        "the statement neither ends nor can be cancelled; its session is closed, which makes the server roll it back when it notices"
    )]
    Unresponsive,
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The connection broke, or a query around the statement failed.
    #[error("cannot rehearse: {0}")]
    Query(#[from] tokio_postgres::Error),
}

/// Rehearses a statement on a session of its own, outside a transaction. `cancel` is to ask the server to cancel what
/// this session runs; it is called if the statement outlives its time limit. After [`RehearseError::Unresponsive`] close
/// the session; if the future is dropped, cancel and close it. PostgreSQL 15 and later.
pub async fn rehearse(client: &Client, request: &Request, cancel: impl AsyncFn()) -> Result<Rehearsal, RehearseError> {
    statement::check(&request.statement)?;
    if let Some((name, _)) = request.settings.iter().find(|(name, _)| name.starts_with("pgrail.")) {
        let message = "settings of pgrail are its own".to_owned();
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
    let aim = Aim::new(request, &catalog, session.look(&catalog).await?)?;
    let allowed = |deletes: &[Oid], updates: &[Oid]| aim.allowed(deletes, updates);
    let judged = session.run(Judging::AsEver, &aim.may_be_roots(), &catalog, &allowed).await?;
    let (verdict, counted, incomplete) = match &judged.ended {
        Ended::Completed => (Verdict::Passes, None, None),
        Ended::Failed(error) if is_verdict(error.code().code()) => {
            let (counted, incomplete) = match aim.why_not_to_count() {
                Some(why) => (None, Some(why)),
                None => session.count(&aim.may_be_roots(), &catalog).await?,
            };
            (Verdict::Stopped(stop(error, judged.took)), counted, incomplete)
        }
        Ended::Failed(error) => return Err(run::failure(error, request, &judged)),
    };
    let counted_as_attempt = !session.is_quiet() && (verdict != Verdict::Passes || !judged.warned.is_empty());
    let warned = session.names(&judged.warned).await?;
    let shown = counted.unwrap_or(judged);
    let (tables, other_tables) = tree::build(&aim.targets, &shown.counted, &catalog);
    let mut total = Rows::default();
    for table in tables.iter().chain(&other_tables) {
        total.add(table.total());
    }
    Ok(Rehearsal {
        verdict,
        warned,
        incomplete,
        took: shown.took,
        estimated_rows: aim.estimated_rows(),
        total,
        tables,
        other_tables,
        triggers: shown.triggers,
        counted_as_attempt,
        login: session.login().to_owned(),
        rights_of_role: session.logs_in_as_role(),
    })
}

/// What the statement is about to change.
struct Aim<'a> {
    request: &'a Request,
    catalog: &'a Catalog,
    targets: Vec<Target>,
    estimated: f64,
}

impl<'a> Aim<'a> {
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

    /// The tables of the targets and what they are a part of: any of these may be the guarded root.
    fn may_be_roots(&self) -> Vec<Oid> {
        let all: BTreeSet<Oid> = self.targets.iter().flat_map(|target| self.roots_of(target)).collect();
        all.into_iter().collect()
    }

    fn roots_of(&self, target: &Target) -> Vec<Oid> {
        let own = target.oid.into_iter();
        own.flat_map(|oid| self.catalog.ancestors(oid).into_iter().chain([oid])).collect()
    }

    /// Whether it may run: where gates hold the row cap, whatever the estimate says.
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

    /// To remove a million rows only to say that they are too many is no service to the server.
    fn why_not_to_count(&self) -> Option<String> {
        self.too_many().then(|| {
            format!(
                "about {} rows by the server's estimate, more than the row cap of {}; counted up to where the guard stopped it (--max-rows, --force)",
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
