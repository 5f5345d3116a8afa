//! How the tables of a guard stand. Pure.

use std::collections::BTreeSet;

use crate::blast_radius;
use crate::capture;
use crate::catalog::{Oid, Table, TableKind};
use crate::desired::Desired;
use crate::drop_protection;
use crate::matching::Matched;
use crate::observe::Observed;
use crate::plan::{DropProtection, Plan, StepKind, TableState, TableStatus};
use crate::spec::GuardSpec;

/// How every table of the guard stands now: what a step is still to be done for is not enforced.
pub(crate) fn statuses(
    spec: &GuardSpec,
    matched: &Matched,
    desired: &Desired,
    plan: &Plan,
    observed: &Observed,
) -> Vec<TableStatus> {
    let guard = desired.configuration.guard_id(&spec.name);
    let general = plan
        .steps
        .iter()
        .any(|step| matches!(step.kind, StepKind::Bootstrap | StepKind::Configure | StepKind::Routines));
    let waiting: BTreeSet<Oid> = plan
        .steps
        .iter()
        .filter(|step| step.kind == StepKind::Triggers)
        .filter_map(|step| step.table.as_ref().map(|(oid, _)| *oid))
        .collect();
    let drifted: BTreeSet<&str> = plan.drift.iter().map(|drift| drift.table.as_str()).collect();
    let mut tables: Vec<TableStatus> = Vec::new();
    let is_held = |oid: &Oid| matched.tables.contains(oid) || matched.renamed.contains_key(oid);
    for root in desired.roots.values().filter(|root| is_held(&root.oid)) {
        let Some(held) = root.assignments.iter().find(|held| Some(held.guard) == guard) else { continue };
        let radius = blast_radius::of(&observed.catalog, &root.closure, true);
        let involved: BTreeSet<Oid> = root
            .closure
            .tree
            .iter()
            .copied()
            .chain(root.closure.members.iter().flat_map(|member| observed.catalog.partitions(member.table)))
            .collect();
        let (mut state, mut message) = table_state(&involved, root.oid, &waiting, &drifted, general, plan, observed);
        if let Some(obstacle) = spec.capture.and_then(|_| capture::obstacle(root, observed)) {
            // What is not installed yet is not weaker, but says already what it will lack.
            if state == TableState::Enforced {
                state = TableState::Degraded;
            }
            message = if message.is_empty() { obstacle } else { format!("{message}; {obstacle}") };
        }
        if let Some(name) = matched.renamed.get(&root.oid) {
            (state, message) = renamed(name, &radius.table, state, &message);
        }
        tables.push(TableStatus {
            oid: Some(root.oid),
            table: radius.table,
            renamed_from: matched.renamed.get(&root.oid).cloned(),
            state,
            message,
            closure: radius.cascade_tables,
            rows_at_risk: radius.rows_at_risk,
            blocked_attempts: observed
                .recorded
                .as_ref()
                .and_then(|recorded| recorded.counters.get(&held.id))
                .copied()
                .unwrap_or(0),
            drop_protection: drop_protection::of_table(root, desired, observed),
            column_protection: drop_protection::of_columns(root, desired, observed),
            partition_protection: drop_protection::of_partitions(root, desired, observed),
        });
    }
    tables.extend(matched.missing.iter().map(|table| TableStatus {
        oid: None,
        table: table.clone(),
        renamed_from: None,
        state: TableState::Missing,
        message: "no such table".to_owned(),
        closure: 0,
        rows_at_risk: 0,
        blocked_attempts: 0,
        drop_protection: DropProtection::None,
        column_protection: DropProtection::None,
        partition_protection: DropProtection::None,
    }));
    tables.sort_by(|a, b| {
        (a.state, std::cmp::Reverse(a.rows_at_risk), &a.table).cmp(&(
            b.state,
            std::cmp::Reverse(b.rows_at_risk),
            &b.table,
        ))
    });
    tables
}

#[allow(clippy::too_many_arguments, reason = "facts of one table, used once")]
fn table_state(
    involved: &BTreeSet<Oid>,
    root: Oid,
    waiting: &BTreeSet<Oid>,
    drifted: &BTreeSet<&str>,
    general: bool,
    plan: &Plan,
    observed: &Observed,
) -> (TableState, String) {
    let labels: Vec<String> = involved.iter().map(|oid| observed.catalog.label(*oid)).collect();
    if let Some(drift) = plan.drift.iter().find(|drift| labels.contains(&drift.table)) {
        return (TableState::Drifted, drift.to_string());
    }
    if let Some(drift) =
        plan.drift.iter().find(|drift| drifted.contains(drift.table.as_str()) && drift.table.starts_with("pgrail."))
    {
        return (TableState::Drifted, drift.to_string());
    }
    let without_keys: Vec<String> = involved
        .iter()
        .filter(|oid| observed.live.has_disabled_keys(**oid))
        .map(|oid| observed.catalog.label(*oid))
        .collect();
    if let Some(first) = without_keys.first() {
        let message = format!(
            "foreign keys of {} are disabled, as DISABLE TRIGGER ALL does: a delete leaves orphaned rows. Look for those, then \
             ALTER TABLE {first} ENABLE TRIGGER ALL",
            listed(&without_keys)
        );
        return (TableState::Drifted, message);
    }
    let behind: Vec<String> = involved.intersection(waiting).map(|oid| observed.catalog.label(*oid)).collect();
    if !behind.is_empty() {
        return (TableState::Pending, format!("to be installed on {}", listed(&behind)));
    }
    if general {
        return (TableState::Pending, "to be installed".to_owned());
    }
    if !observed.live.track_counts {
        return (
            TableState::Failed,
            "track_counts is off: the server does not count rows, so nothing can be stopped; turn it on".to_owned(),
        );
    }
    let weak: Vec<String> = involved
        .iter()
        .filter_map(|oid| observed.catalog.table(*oid))
        .filter(|table| !table.owned && matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned))
        .map(Table::label)
        .collect();
    if !weak.is_empty() {
        let owner = observed.catalog.table(root).map(|table| table.owner.clone()).unwrap_or_default();
        let message = format!(
            "a session with session_replication_role = replica passes on {}: {} must be a member of the owner ({owner}) to make the triggers fire always",
            listed(&weak),
            observed.live.role
        );
        return (TableState::Degraded, message);
    }
    (TableState::Enforced, String::new())
}

fn renamed(from: &str, to: &str, state: TableState, message: &str) -> (TableState, String) {
    let verified = matches!(state, TableState::Enforced | TableState::Degraded);
    let mut text = format!(
        "renamed from {from}, and still guarded: name {to} in the guard, or release it with the annotation \
         pgrail.dev/release: {to:?}"
    );
    if !message.is_empty() {
        text = format!("{text}; {message}");
    }
    (if verified { TableState::Renamed } else { state }, text)
}

fn listed(labels: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > SHOWN { format!("{shown} and {} more", labels.len() - SHOWN) } else { shown }
}
