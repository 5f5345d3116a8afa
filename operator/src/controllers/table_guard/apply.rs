//! Installing a guard, and looking again afterwards: what is reported is what was found, not what was done.

use super::memory::Memory;
use super::report::{Judgement, Outcome};
use crate::context::Context;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::events::Severity;
use kube::ResourceExt;
use pgrail_crds::TableGuard;
use pgrail_crds::conditions::reasons::event;
use pgrail_guard::{EnsureError, GuardSpec};

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
    let ensured = match pgrail_guard::ensure(session, spec).await {
        Ok(ensured) => ensured,
        Err(EnsureError::Plan(error)) => return Ok(Outcome::Unplannable(error)),
        Err(error) => return Err(DatabaseError::lost(&error)),
    };
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    context.metrics.guard_steps(&namespace, &name, ensured.steps());
    let fingerprint = ensured.fingerprint.clone();
    let judgement = Judgement::of(ensured);
    if !judgement.pending() {
        memory.note(guard, fingerprint, context.now());
    }
    Ok(Outcome::Judged(Box::new(judgement)))
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
