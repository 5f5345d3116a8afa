//! Events, metrics and log lines: installed, repaired, attempts stopped.

use super::apply::Outcome;
use super::attempts::Attempts;
use super::report::{attempts_of, windows_of};
use super::state::GuardState;
use super::window;
use crate::context::Context;
use crate::kubernetes::events::Severity;
use crate::kubernetes::text::listed;
use kube::ResourceExt;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{GuardMode, TableGuard, TableGuardStatus};
use pgrail_guard::{TableState, TableStatus, WindowUse};

/// Publishes what happened since the last status.
pub(super) async fn announce(guard: &TableGuard, outcome: &Outcome, context: &Context) {
    for attempts in attempts_of(outcome, guard.status.as_ref()).iter().filter(|attempts| attempts.more > 0) {
        announce_attempts(guard, attempts, context).await;
    }
    for exhausted in windows_of(outcome).iter().flat_map(|windows| &windows.exhausted) {
        announce_exhausted(guard, exhausted, context).await;
    }
    let Outcome::Checked(state) = outcome else { return };
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    let now = context.now();
    if state.first {
        let note = installed(state);
        context.events.publish(guard, Severity::Normal, "Install", event::GUARD_INSTALLED, note, now).await;
    }
    let reported = |status: &TableGuardStatus, table: &TableStatus| {
        status.tables.iter().any(|row| row.table == table.table && row.renamed_from == table.renamed_from)
    };
    // Whatever else is wrong with it.
    for table in state.tables.iter().filter(|table| table.renamed_from.is_some()) {
        if !guard.status.as_ref().is_some_and(|status| reported(status, table)) {
            let note = format!("{}: {}", table.table, table.message);
            tracing::warn!(namespace, name, note, "guarded table renamed");
            context.events.publish(guard, Severity::Warning, "Observe", event::TABLE_RENAMED, note, now).await;
        }
    }
    if !state.repaired.is_empty() {
        context.metrics.drift_repaired(&namespace, &name);
        let what: Vec<_> = state.repaired.iter().map(ToString::to_string).collect();
        let note = format!("repaired: {}", what.join("; "));
        tracing::warn!(namespace, name, what = ?what, "drift repaired");
        context.events.publish(guard, Severity::Warning, "Repair", event::DRIFT_REPAIRED, note, now).await;
    }
}

async fn announce_exhausted(guard: &TableGuard, exhausted: &WindowUse, context: &Context) {
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    context.metrics.window_exhausted(&namespace, &name, &exhausted.table);
    let note = window::exhausted(exhausted, guard.spec.mode);
    tracing::info!(namespace, name, table = exhausted.table, "window used up");
    context.events.publish(guard, Severity::Warning, "Enforce", event::WINDOW_EXHAUSTED, note, context.now()).await;
}

/// Sets the metrics that say how it is now: before the status, so that who has read that can read them.
pub(super) fn measure(guard: &TableGuard, outcome: &Outcome, context: &Context) {
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    if let Outcome::Checked(state) = outcome {
        context.metrics.guard_enforced(&namespace, &name, state.is_enforced());
    }
    for it in windows_of(outcome).iter().flat_map(|windows| &windows.uses) {
        for (kind, rows) in [("rows", it.rows), ("cascade", it.cascade_rows)] {
            if let Some((removed, limit)) = rows {
                context.metrics.window(&namespace, &name, &it.table, kind, removed, limit);
            }
        }
    }
}

async fn announce_attempts(guard: &TableGuard, attempts: &Attempts, context: &Context) {
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    let Attempts { table, more, total, before: _ } = attempts;
    context.metrics.blocked(&namespace, &name, table, more.unsigned_abs());
    let verb = if guard.spec.mode == GuardMode::Warn { "warned of (mode Warn)" } else { "stopped" };
    let noun = if *more == 1 { "attempt" } else { "attempts" };
    let note = format!("{more} more {noun} on {table} {verb}, {total} in all");
    tracing::info!(namespace, name, table, more, total, "bulk changes {verb}");
    context.events.publish(guard, Severity::Warning, "Enforce", event::BULK_DELETE_BLOCKED, note, context.now()).await;
}

/// What is enforced, and what is not.
fn installed(state: &GuardState) -> String {
    let of = |enforced: bool| -> Vec<String> {
        let tables = state.tables.iter().filter(|it| (it.state == TableState::Enforced) == enforced);
        tables.map(|it| if enforced { it.table.clone() } else { format!("{} ({})", it.table, it.message) }).collect()
    };
    let (enforced, mut not) = (of(true), of(false));
    not.extend(state.closure.iter().map(|it| format!("{} ({})", it.table, it.message)));
    let mut note = if enforced.is_empty() {
        "enforced on no table yet".to_owned()
    } else {
        format!("enforced: {}", listed(&enforced))
    };
    if !not.is_empty() {
        note = format!("{note}; not enforced: {}", listed(&not));
    }
    note
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{state_of, table};
    use super::*;

    #[test]
    fn the_installation_names_what_is_enforced_and_what_is_not() {
        let both =
            state_of(vec![table("public.users", TableState::Enforced), table("public.orders", TableState::Pending)]);
        assert_eq!(installed(&both), "enforced: public.users; not enforced: public.orders (message of public.orders)");
        assert_eq!(installed(&state_of(Vec::new())), "enforced on no table yet");
    }
}
