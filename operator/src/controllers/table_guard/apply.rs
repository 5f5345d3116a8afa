//! Installing a guard, or reading its counters: what is reported is what was found afterwards, not what was done.

use super::memory::{Check, Memory};
use super::observe::{counters, windows};
use super::plan::{Work, retry};
use super::state::{GuardState, Recheck};
use super::window::Windows;
use crate::context::Context;
use crate::database::{DatabaseError, LightCheck, Session};
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{ProtectedDatabase, TableGuard, TableState};
use pgrail_guard::{Counter, EnsureError, Fingerprint, GuardSpec, PlanError};
use std::time::Duration;

/// How a reconcile ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The guard cannot be carried out as declared.
    Rejected(Rejection),
    /// The database does not answer: the last known state stands.
    Unreachable(DatabaseError),
    /// Nothing but counters and windows can have changed, as was observed at this time.
    Unchanged(Timestamp, Vec<Counter>, Windows),
    /// Checked in full.
    Checked(Box<GuardState>),
}

/// What one guard needs in one database.
pub(super) struct Target<'a> {
    pub(super) guard: &'a TableGuard,
    pub(super) spec: &'a GuardSpec,
    pub(super) database: &'a ProtectedDatabase,
}

/// Does what the plan says.
pub(super) async fn apply(
    target: &Target<'_>,
    work: Work,
    fingerprint: &Fingerprint,
    session: &mut Session,
    memory: &Memory,
    context: &Context,
) -> Result<Outcome, DatabaseError> {
    match work {
        Work::Count => {
            let now = context.now();
            let counters = counters(target.spec, session).await?;
            let uses = windows(target.spec, session).await?;
            Ok(Outcome::Unchanged(now, counters, memory.windows.observed(target.guard, uses, now)))
        }
        Work::Ensure => ensure(target, fingerprint, session, memory, context).await,
    }
}

/// What the regular check of the database found, where that is enough.
pub(super) fn unchanged(target: &Target<'_>, check: &LightCheck, memory: &Memory, context: &Context) -> Outcome {
    let of_guard = |guard: &str| guard == target.spec.name.as_str();
    let counters = check.counters.iter().filter(|it| of_guard(&it.guard)).cloned().collect();
    let uses = check.windows.iter().filter(|it| of_guard(&it.guard)).cloned().collect();
    Outcome::Unchanged(check.at, counters, memory.windows.observed(target.guard, uses, context.now()))
}

async fn ensure(
    Target { guard, spec, database }: &Target<'_>,
    fingerprint: &Fingerprint,
    session: &mut Session,
    memory: &Memory,
    context: &Context,
) -> Result<Outcome, DatabaseError> {
    let last = memory.check(guard);
    memory.forget(guard);
    let ensured = match pgrail_guard::ensure(session, spec).await {
        Ok(ensured) => ensured,
        Err(EnsureError::Plan(error)) => return Ok(Outcome::Rejected(rejection(&error))),
        Err(error) => return Err(DatabaseError::lost(&error)),
    };
    context.metrics.guard_steps(&guard.namespace().unwrap_or_default(), &guard.name_any(), ensured.steps());
    let (found, now) = (ensured.fingerprint.clone(), context.now());
    let interval = Duration::from(database.spec.check_interval);
    let mut state = GuardState::new(ensured, was_installed(guard), Recheck::Every(interval));
    // Where nothing could be installed, there is nothing to read.
    let uses = if state.failure.is_none() { windows(spec, session).await? } else { Vec::new() };
    state.windows = memory.windows.observed(guard, uses, now);
    let retry = state.is_incomplete().then(|| retry(now, interval, last.as_ref(), fingerprint));
    if retry.is_none() {
        // What was installed makes the database reconcile, and that this guard: it was just checked.
        context.databases.share_check(database, now, found.clone(), session).await;
    }
    let (generation, released) = (guard.metadata.generation, spec.released.clone());
    memory.record(guard, Check { generation, released, fingerprint: found, at: now, retry });
    Ok(Outcome::Checked(Box::new(state)))
}

/// Whether the guard was in the database when its status was written last.
fn was_installed(guard: &TableGuard) -> bool {
    let installed = |state| {
        matches!(state, TableState::Enforced | TableState::Renamed | TableState::Degraded | TableState::Drifted)
    };
    guard.status.iter().flat_map(|status| &status.tables).any(|table| installed(table.state))
}

fn rejection(error: &PlanError) -> Rejection {
    let (reason, remedy) = match error {
        PlanError::OwnedByOther { .. } => (
            Reason::OwnedByOther,
            ": delete the guards there, or annotate this one with pgrail.dev/take-over: \"true\"",
        ),
        PlanError::NewerSchema { .. } => (Reason::DatabaseNotReady, ": use that version of pgrail or a newer one"),
        PlanError::ReadOnlyServer => (Reason::ReadOnlyServer, ": point the connection at the primary"),
        PlanError::UnsupportedVersion { .. } => (Reason::UnsupportedVersion, ""),
        PlanError::SchemaOfOther { .. } => {
            (Reason::NoPrivilege, ": connect as that role, or make pgrail's role a member of it")
        }
        PlanError::Published { .. } | PlanError::Spec(_) => (Reason::InvalidSpec, ""),
    };
    Rejection::new(reason, format!("{error}{remedy}"))
}
