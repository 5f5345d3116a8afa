//! Installing a guard, and looking again afterwards: what is reported is what was found, not what was done.

use super::observe::Memory;
use super::report::{Judgement, Looked, Outcome};
use crate::context::Context;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::controller::chain;
use crate::kubernetes::events::Severity;
use kube::ResourceExt;
use pgrail_crds::TableGuard;
use pgrail_crds::conditions::reasons::event;
use pgrail_guard::{ApplyError, Fingerprint, GuardSpec};
use tokio_postgres::Client;

/// Brings the database to what the guard declares, if it is not there already.
pub(super) async fn install(
    guard: &TableGuard,
    spec: &GuardSpec,
    session: &mut Session,
    memory: &Memory,
    context: &Context,
) -> Result<Outcome, DatabaseError> {
    let fingerprint = pgrail_guard::light_check(session).await.map_err(|error| DatabaseError::lost(&error))?;
    if memory.holds(guard, &fingerprint, context.now()) {
        let counters = pgrail_guard::counters(session).await.map_err(|error| DatabaseError::lost(&error))?;
        let ours = counters.into_iter().filter(|counter| counter.guard == spec.name.as_str()).collect();
        return Ok(Outcome::Unchanged(ours));
    }
    memory.forget(guard);
    let brought = bring(session, spec).await?;
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    context.metrics.guard_steps(&namespace, &name, brought.steps);
    if let (Outcome::Judged(judgement), Some(fingerprint)) = (&brought.outcome, brought.fingerprint)
        && !judgement.pending()
    {
        memory.note(guard, fingerprint, context.now());
    }
    Ok(brought.outcome)
}

/// What came of bringing a database to what a guard declares.
pub(crate) struct Brought {
    /// What was found afterwards.
    pub(crate) outcome: Outcome,
    /// Changes that were made.
    pub(crate) steps: u64,
    /// What the database looked like just before it was found so.
    fingerprint: Option<Fingerprint>,
}

/// Observe, plan, apply; and, where something was done, look again: what is reported is what was found.
pub(crate) async fn bring(client: &mut Client, spec: &GuardSpec) -> Result<Brought, DatabaseError> {
    let unplannable = |error| Brought { outcome: Outcome::Unplannable(error), steps: 0, fingerprint: None };
    let judged = |judgement, steps, fingerprint| Brought {
        outcome: Outcome::Judged(Box::new(judgement)),
        steps,
        fingerprint: Some(fingerprint),
    };
    let fingerprint = pgrail_guard::light_check(client).await.map_err(|error| DatabaseError::lost(&error))?;
    let looked = match look(spec, client).await? {
        Ok(looked) => looked,
        Err(error) => return Ok(unplannable(error)),
    };
    if looked.plan.is_empty() {
        return Ok(judged(Judgement::of(looked), 0, fingerprint));
    }
    let applied = match pgrail_guard::apply(client, &looked.plan).await {
        Ok(applied) => applied,
        Err(ApplyError::Busy) => return Ok(judged(Judgement::busy(looked), 0, fingerprint)),
        Err(error @ ApplyError::Query(_)) => return Err(DatabaseError::lost(&error)),
    };
    let done = applied.steps.iter().filter(|(_, outcome)| *outcome == pgrail_guard::Outcome::Done).count();
    let recorded = looked.observed.recorded.as_ref();
    let first_time = recorded.is_none_or(|it| it.configuration.guard_id(&spec.name).is_none());
    let drift = looked.plan.drift().to_vec();
    // The fingerprint is taken before the look: a change in between shows at the next check.
    let fingerprint = pgrail_guard::light_check(client).await.map_err(|error| DatabaseError::lost(&error))?;
    match look(spec, client).await? {
        Ok(looked) => Ok(judged(Judgement::after(looked, &applied, drift, first_time), done as u64, fingerprint)),
        Err(error) => Ok(unplannable(error)),
    }
}

async fn look(spec: &GuardSpec, client: &Client) -> Result<Result<Looked, pgrail_guard::PlanError>, DatabaseError> {
    let observed = pgrail_guard::observe(client).await.map_err(|error| DatabaseError::lost(&error))?;
    let plan = match pgrail_guard::plan(spec, &observed) {
        Ok(plan) => plan,
        Err(error) => return Ok(Err(error)),
    };
    let tables: Vec<_> = plan.tables().iter().filter_map(|table| table.oid).collect();
    let tamper = pgrail_guard::tamper::read(client, &tables).await.map_err(|error| chain(&error));
    Ok(Ok(Looked { observed, plan, tamper }))
}

/// Says on Events what happened: installed, put back, attempts stopped.
pub(super) async fn announce(guard: &TableGuard, outcome: &Outcome, context: &Context) {
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    let now = context.now();
    let attempts = outcome.attempts_since(guard.status.as_ref());
    for (table, more, total) in &attempts {
        context.metrics.blocked(&namespace, &name, table, *more);
        let warned = if guard.spec.mode == pgrail_crds::GuardMode::Warn { "warned of (mode Warn)" } else { "stopped" };
        let note = format!("{more} more {} on {table} {warned}, {total} in all", plural(*more, "attempt"));
        tracing::info!(namespace, name, table, more, total, "bulk changes {warned}");
        context.events.publish(guard, Severity::Warning, "Enforce", event::BULK_DELETE_BLOCKED, note, now).await;
    }
    let Outcome::Judged(judgement) = outcome else { return };
    context.metrics.guard_enforced(&namespace, &name, judgement.all_enforced());
    if judgement.installed_first {
        let note = format!("guards {} {}", judgement.tables.len(), plural(judgement.tables.len() as u64, "table"));
        context.events.publish(guard, Severity::Normal, "Install", event::GUARD_INSTALLED, note, now).await;
    }
    if judgement.repaired() {
        context.metrics.drift_repaired(&namespace, &name);
        let what: Vec<_> = judgement.drift.iter().map(ToString::to_string).collect();
        let note = format!("put back: {}", what.join("; "));
        tracing::warn!(namespace, name, what = ?what, "drift repaired");
        context.events.publish(guard, Severity::Warning, "Repair", event::DRIFT_REPAIRED, note, now).await;
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
