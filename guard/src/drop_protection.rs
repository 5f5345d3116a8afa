//! What holds DROP: event triggers where the role may create them; elsewhere a view on the table, which holds DROP TABLE. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Oid;
use crate::configuration::Assignment;
use crate::desired::{Desired, Root};
use crate::observe::Observed;
use crate::plan::{Change, Drift, DropProtection, Statement, Step, StepKind};
use crate::routines::privileges;

const ON_DROP: &str = "pgrail_drop";
const ON_REWRITE: &str = "pgrail_rewrite";
const ON_DDL: &str = "pgrail_ddl";

/// Our event triggers: name, function, and the rest of `CREATE EVENT TRIGGER`. The first two check what is dropped and what
/// is rewritten; the first and the last notify that something may have changed.
const EVENT_TRIGGERS: [(&str, &str, &str); 3] = [
    (ON_DROP, "on_drop", "ON sql_drop"),
    (ON_REWRITE, "on_rewrite", "ON table_rewrite"),
    (
        ON_DDL,
        "on_ddl",
        "ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'CREATE FOREIGN TABLE', \
         'ALTER FOREIGN TABLE', 'CREATE TRIGGER', 'ALTER TRIGGER', 'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE SCHEMA', \
         'ALTER SCHEMA', 'CREATE VIEW', 'GRANT', 'REVOKE')",
    ),
];

/// Records the event triggers that exist, in the transaction that creates them: one that is missing later was dropped, and one
/// that a process was killed before was not.
const RECORD: &str = "SELECT pgrail.write_document('event_triggers', (SELECT jsonb_agg(e.evtname ORDER BY e.evtname) \
     FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid WHERE p.pronamespace = 'pgrail'::regnamespace))";

fn enforces(root: &Root, desired: &Desired, asked: fn(&Assignment) -> bool) -> bool {
    root.assignments.iter().any(|held| {
        asked(held) && desired.configuration.guards.iter().any(|guard| guard.id == held.guard && guard.enforce)
    })
}

/// An event trigger is kept where there is one, also by a role that may no longer create it.
fn by_event_trigger(observed: &Observed) -> bool {
    observed.live.may_create_event_triggers
        || observed.live.event_triggers.iter().any(|trigger| trigger.name == ON_DROP)
}

fn is_on(observed: &Observed, name: &str) -> bool {
    observed.live.event_triggers.iter().any(|trigger| trigger.name == name && trigger.always)
}

/// How a root stands against DROP TABLE now.
pub(crate) fn of_table(root: &Root, desired: &Desired, observed: &Observed) -> DropProtection {
    if !enforces(root, desired, |held| held.protect_drop) {
        DropProtection::NotAsked
    } else if is_on(observed, ON_DROP) {
        DropProtection::EventTrigger
    } else if pins(observed).contains_key(&root.oid) {
        DropProtection::Pinned
    } else {
        DropProtection::None
    }
}

/// The same against DROP COLUMN and a change of type.
pub(crate) fn of_columns(root: &Root, desired: &Desired, observed: &Observed) -> DropProtection {
    by_event_triggers_only(root, desired, observed, |held| held.protect_drop_column, [ON_DROP, ON_REWRITE])
}

/// The same against DROP and DETACH of a partition.
pub(crate) fn of_partitions(root: &Root, desired: &Desired, observed: &Observed) -> DropProtection {
    by_event_triggers_only(root, desired, observed, |held| held.protect_drop_partition, [ON_DROP, ON_DDL])
}

fn by_event_triggers_only(
    root: &Root,
    desired: &Desired,
    observed: &Observed,
    asked: fn(&Assignment) -> bool,
    needed: [&str; 2],
) -> DropProtection {
    if !enforces(root, desired, asked) {
        DropProtection::NotAsked
    } else if needed.iter().all(|name| is_on(observed, name)) {
        DropProtection::EventTrigger
    } else {
        DropProtection::None
    }
}

fn pins(observed: &Observed) -> BTreeMap<Oid, &str> {
    observed.live.relations.iter().filter_map(|view| view.pins.map(|pinned| (pinned, view.name.as_str()))).collect()
}

/// The steps that protect, and those that end protection.
pub(crate) fn steps(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> (Vec<Step>, Vec<Step>) {
    let (mut add, mut end) = (Vec::new(), Vec::new());
    // What was asked for before as it is now, and is missing, was removed by others.
    let unchanged = observed.recorded.as_ref().is_some_and(|recorded| recorded.configuration == desired.configuration);
    let (mut statements, mut creates) = (Vec::new(), false);
    let rewrites = desired.configuration.assignments.iter().any(|held| held.protect_drop_column);
    for (name, function, events) in EVENT_TRIGGERS {
        let found = observed.live.event_triggers.iter().find(|trigger| trigger.name == name);
        if name == ON_REWRITE && !rewrites {
            if found.is_some_and(|trigger| trigger.owned) {
                let drop = format!("DROP EVENT TRIGGER {name}");
                end.push(Step { change: Change::Remove, ..step(None, vec![drop, RECORD.to_owned()]) });
            }
            continue;
        }
        let drifted = |what: &str| Drift { table: format!("pgrail.{function}"), what: what.to_owned() };
        let always = format!("ALTER EVENT TRIGGER {name} ENABLE ALWAYS");
        match found {
            None if observed.live.may_create_event_triggers => {
                let existed = observed.recorded.as_ref().is_some_and(|recorded| match &recorded.event_triggers {
                    Some(created) => created.contains(name),
                    // A version that did not record them may not have had it.
                    None => unchanged && recorded.routines.contains_key(function),
                });
                if existed {
                    drift.push(drifted("the event trigger is missing"));
                }
                let create = format!("CREATE EVENT TRIGGER {name} {events} EXECUTE FUNCTION pgrail.{function}()");
                statements.push(format!("{create};\n{always}"));
                creates = true;
            }
            Some(trigger) if !trigger.always && trigger.owned => {
                drift.push(drifted("the event trigger no longer fires ALWAYS"));
                statements.push(always);
            }
            _ => {}
        }
    }
    if !statements.is_empty() {
        statements.push(RECORD.to_owned());
        let step = step(None, statements);
        add.push(if creates { step.creating() } else { step });
    }

    let wanted: BTreeSet<Oid> = if by_event_trigger(observed) {
        BTreeSet::new()
    } else {
        desired
            .roots
            .values()
            .filter(|root| enforces(root, desired, |held| held.protect_drop))
            .map(|root| root.oid)
            .collect()
    };
    let pinned = pins(observed);
    for root in desired.roots.values().filter(|root| wanted.contains(&root.oid) && !pinned.contains_key(&root.oid)) {
        let Some(table) = observed.catalog.table(root.oid) else { continue };
        // It is created with the triggers of the table, in one transaction.
        let was_installed = observed.recorded.as_ref().is_some_and(|recorded| recorded.has_triggers(root.oid));
        if unchanged && was_installed {
            drift.push(Drift { table: table.label(), what: "the view that holds DROP TABLE is missing".to_owned() });
        }
        // No column of the table is named: ALTER TABLE stays free.
        let view = format!("CREATE VIEW pgrail.pin_{} AS SELECT 1 AS pinned FROM {}", root.checks.id, table.ident);
        // Default privileges may give the view away, and with it the number of rows.
        add.push(step(Some((root.oid, table.label())), vec![view, privileges(&[])]).creating());
    }
    for (oid, name) in pinned.iter().filter(|(oid, _)| !wanted.contains(oid)) {
        let step = step(Some((*oid, observed.catalog.label(*oid))), vec![format!("DROP VIEW pgrail.{name}")]);
        end.push(Step { change: Change::Remove, ..step });
    }
    (add, end)
}

fn step(table: Option<(Oid, String)>, sql: Vec<String>) -> Step {
    let statements = sql.into_iter().map(Statement::Batch).collect();
    Step { table, ..Step::new(StepKind::DropProtection, statements) }
}
