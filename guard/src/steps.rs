//! From the observed to the desired state: the steps of a plan, in order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::capture;
use crate::catalog::{Oid, Table};
use crate::desired::Desired;
use crate::drop_protection;
use crate::observe::{Live, LiveRelation, LiveRoutine, LiveTrigger, Observed};
use crate::plan::{Change, Drift, Plan, SCHEMA_VERSION, Statement, Step, StepKind};
use crate::routines::{
    FUNCTIONS, FUNCTIONS_DIGEST, FUNCTIONS_SQL, SCHEMA_SQL, UPGRADE_1_AFTER_SQL, UPGRADE_1_BEFORE_SQL,
    VERSION_1_TABLES, create_trigger_function, is_document, privileges, trigger_function,
};
use crate::sql::digest;

/// The steps from the observed to the desired state, and what others changed meanwhile.
pub(crate) fn difference(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::empty();
    if desired.configuration.guards.is_empty() {
        plan.steps = everything_off(observed);
        return plan;
    }
    let bootstrapped = bootstrap(desired, observed, &mut plan.drift);
    let configured = is_configured(desired, observed, &mut plan.drift);
    let privileges_step = given_away(observed, bootstrapped.is_some(), &mut plan.drift);
    let (create, drop) = routines(desired, observed, &mut plan.drift);
    let triggers = triggers(desired, observed, &mut plan.drift);
    let needs_configuration = !configured && bootstrapped.is_none();
    plan.steps.extend(bootstrapped);
    if needs_configuration {
        plan.steps.push(Step::new(StepKind::Configure, vec![configure(desired)]));
    }
    let (mut protect, unprotect) = drop_protection::steps(desired, observed, &mut plan.drift);
    plan.steps.extend(capture::store::steps(desired, observed, &mut plan.drift));
    plan.steps.extend(create);
    plan.steps.extend(privileges_step);
    plan.steps.extend(with_views(triggers, &mut protect));
    plan.steps.extend(protect);
    plan.steps.extend(unprotect);
    plan.steps.extend(drop);
    plan.steps.extend(capture::store::drop_former(observed));
    if let Some(moved) = observed.recorded.as_ref().and_then(|recorded| recorded.moved.as_ref()) {
        // Every number and every fingerprint differs: that is one thing, not as many as there are.
        plan.drift = vec![Drift { table: "pgrail.schema".to_owned(), what: moved.to_string() }];
    }
    plan
}

/// A view that holds DROP TABLE is created with the triggers of its table: a process that is killed leaves both or none.
fn with_views(mut triggers: Vec<Step>, protect: &mut Vec<Step>) -> Vec<Step> {
    let oid = |step: &Step| step.table.as_ref().map(|(oid, _)| *oid);
    let places: BTreeMap<Oid, usize> =
        triggers.iter().enumerate().filter_map(|(place, step)| Some((oid(step)?, place))).collect();
    protect.retain_mut(|view| {
        let step = oid(view).and_then(|oid| places.get(&oid)).and_then(|place| triggers.get_mut(*place));
        let alone = step.is_none();
        if let Some(step) = step {
            step.statements.append(&mut view.statements);
        }
        alone
    });
    triggers
}

/// Writes the configuration, all of it in one transaction.
fn configure(desired: &Desired) -> Statement {
    let about = serde_json::json!({ "schema_version": SCHEMA_VERSION, "digest": desired.configuration.digest() });
    Statement::Json(
        "SELECT pgrail.write_configuration($1::jsonb -> 'configuration', $1::jsonb -> 'about')".to_owned(),
        serde_json::json!({ "configuration": desired.configuration, "about": about }),
    )
}

/// Whether the configuration is as desired. Where it is not as it was written, others changed it.
fn is_configured(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> bool {
    let Some(recorded) = &observed.recorded else { return false };
    let (now, wanted) = (&recorded.configuration, &desired.configuration);
    let written = recorded.digest.as_deref() == Some(&now.digest());
    // Another version of pgrail may have written them in its own way.
    let ours = recorded.routines.get("check_limits").is_some_and(|routine| routine.source == *FUNCTIONS_DIGEST);
    if !written && ours && recorded.digest.is_some() {
        let changed = [
            ("guard", now.guards != wanted.guards),
            ("relation", now.relations != wanted.relations),
            ("assignment", now.assignments != wanted.assignments),
            ("allowance", now.allowances != wanted.allowances),
            ("member", now.members != wanted.members),
        ];
        for (table, _) in changed.iter().filter(|(_, changed)| *changed) {
            let what = "the configuration was changed".to_owned();
            drift.push(Drift { table: format!("pgrail.{table}"), what });
        }
    }
    written && now == wanted
}

/// Privileges on objects of pgrail's that pgrail did not grant, and such as it granted and others revoked.
fn given_away(observed: &Observed, bootstrapped: bool, drift: &mut Vec<Drift>) -> Option<Step> {
    let live = &observed.live;
    if observed.recorded.is_none() || bootstrapped {
        return None;
    }
    for object in &live.foreign_owned {
        drift.push(Drift { table: format!("pgrail.{object}"), what: "belongs to another role".to_owned() });
    }
    for object in &live.given_away {
        let what = "another role was granted privileges on it".to_owned();
        drift.push(Drift { table: format!("pgrail.{object}"), what });
    }
    if !live.schema_usable {
        let what = "USAGE, which every role's deletes need, was revoked".to_owned();
        drift.push(Drift { table: "pgrail.schema".to_owned(), what });
    }
    let needed = !live.foreign_owned.is_empty() || !live.given_away.is_empty() || !live.schema_usable;
    needed.then(|| Step::new(StepKind::Routines, vec![Statement::Batch(privileges(&[]))]))
}

fn bootstrap(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> Option<Step> {
    let intact = observed.recorded.as_ref().is_some_and(|recorded| {
        let mut intact = recorded.schema_version == SCHEMA_VERSION && recorded.moved.is_none();
        for (name, _) in FUNCTIONS {
            let now = observed.live.routines.iter().find(|routine| routine.name == *name);
            let was = recorded.routines.get(*name);
            let same = matches!((now, was), (Some(now), Some(was)) if now.fingerprint == was.fingerprint);
            if !same && was.is_some() {
                let what = if now.is_none() { "the function was dropped" } else { "the function was changed" };
                drift.push(Drift { table: format!("pgrail.{name}"), what: what.to_owned() });
            }
            intact &= same && was.is_some_and(|was| was.source == *FUNCTIONS_DIGEST);
        }
        intact
    });
    if intact {
        return None;
    }
    let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    let public: Vec<&str> = FUNCTIONS.iter().filter(|(_, public)| *public).map(|(name, _)| *name).collect();
    let from_1 = observed
        .live
        .relations
        .iter()
        .any(|relation| relation.kind == "r" && VERSION_1_TABLES.contains(&relation.name.as_str()));
    let batch = |sql: &str| Statement::Batch(sql.to_owned());
    let mut statements = Vec::new();
    if from_1 {
        statements.push(batch(UPGRADE_1_BEFORE_SQL));
    }
    statements.extend([batch(SCHEMA_SQL), batch(FUNCTIONS_SQL), Statement::Batch(privileges(&public))]);
    if observed.recorded.as_ref().is_some_and(|recorded| recorded.moved.is_some()) {
        statements.push(batch(
            "SELECT pgrail.write_document(d.name, NULL) FROM pgrail.documents d WHERE d.name LIKE 'triggers\\_%' OR d.name = 'routines'",
        ));
    }
    statements.push(configure(desired));
    if from_1 {
        statements.push(batch(UPGRADE_1_AFTER_SQL));
    }
    statements.push(record_routines(&names, |_| FUNCTIONS_SQL.to_owned()));
    let step = Step::new(StepKind::Bootstrap, statements);
    Some(if observed.live.schema_owner.is_none() { step.creating() } else { step })
}

fn record_routines(names: &[&str], source: impl Fn(&str) -> String) -> Statement {
    let rows: Vec<_> =
        names.iter().map(|name| serde_json::json!({ "name": name, "source": digest(&source(name)) })).collect();
    Statement::Exactly(
        rows.len() as u64,
        "SELECT pgrail.record_routines($1::jsonb)".to_owned(),
        serde_json::json!({ "created": rows }),
    )
}

fn routines(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> (Option<Step>, Option<Step>) {
    let empty = BTreeMap::new();
    let recorded = observed.recorded.as_ref().map_or(&empty, |recorded| &recorded.routines);
    let live: BTreeMap<&str, _> =
        observed.live.routines.iter().map(|routine| (routine.name.as_str(), routine)).collect();
    let mut create = Vec::new();
    for (name, source) in &desired.routines {
        let (now, was) = (live.get(name.as_str()), recorded.get(name));
        let untouched = matches!((now, was), (Some(now), Some(was)) if now.fingerprint == was.fingerprint);
        if was.is_some() && !untouched {
            let what = if now.is_none() { "the function was dropped" } else { "the function was changed" };
            drift.push(Drift { table: format!("pgrail.{name}"), what: what.to_owned() });
        }
        if !untouched || was.is_some_and(|was| was.source != digest(source)) {
            create.push(name.as_str());
        }
    }
    let live_relations = |kind: &'static str| -> BTreeSet<&str> {
        let relations = observed.live.relations.iter().filter(|relation| relation.kind == kind);
        relations.map(|relation| relation.name.as_str()).collect()
    };
    let sequences = live_relations("S");
    let mut allowed = live_relations("r");
    allowed.retain(|name| is_allowed_table(name));
    let missing_sequences = desired.sequences.iter().filter(|name| !sequences.contains(name.as_str()));
    let missing_allowed = desired.allowed.iter().filter(|name| !allowed.contains(name.as_str()));
    // No row in them lasts: nothing of them belongs into the log, or into a publication.
    let mut statements: Vec<Statement> = missing_sequences
        .map(|name| create_sequence(name))
        .chain(missing_allowed.map(|name| format!("CREATE UNLOGGED TABLE pgrail.{name} ()")))
        .map(Statement::Batch)
        .collect();
    statements.extend(
        create.iter().filter_map(|name| desired.routines.get(*name)).map(|source| Statement::Batch(source.clone())),
    );
    if !statements.is_empty() {
        statements.push(Statement::Batch(privileges(&create)));
    }
    if !create.is_empty() {
        statements.push(record_routines(&create, |name| desired.routines.get(name).cloned().unwrap_or_default()));
    }
    let create = (!statements.is_empty()).then(|| Step::new(StepKind::Routines, statements));

    let fixed = |name: &str| FUNCTIONS.iter().any(|(fixed, _)| *fixed == name);
    let gone = observed
        .live
        .routines
        .iter()
        .filter(|routine| !desired.routines.contains_key(&routine.name) && !fixed(&routine.name))
        .filter(|routine| !is_document(&routine.name));
    let mut statements: Vec<Statement> = gone
        .map(|routine| Statement::Batch(format!("DROP FUNCTION pgrail.{}({})", routine.name, routine.arguments)))
        .collect();
    statements.extend(
        sequences
            .iter()
            .filter(|name| is_counter(name) && !desired.sequences.contains(**name))
            .map(|name| Statement::Batch(format!("DROP SEQUENCE pgrail.{name}"))),
    );
    statements.extend(
        allowed
            .iter()
            .filter(|name| !desired.allowed.contains(**name))
            .map(|name| Statement::Batch(format!("DROP TABLE pgrail.{name}"))),
    );
    let forgotten = recorded.keys().any(|name| !desired.routines.contains_key(name) && !fixed(name));
    if !statements.is_empty() || forgotten {
        let kept: Vec<&str> =
            desired.routines.keys().map(String::as_str).chain(FUNCTIONS.iter().map(|(name, _)| *name)).collect();
        statements.push(Statement::Json(
            "SELECT pgrail.record_routines($1::jsonb)".to_owned(),
            serde_json::json!({ "created": [], "kept": kept }),
        ));
    }
    (create, (!statements.is_empty()).then(|| Step::new(StepKind::Cleanup, statements)))
}

#[derive(Default)]
struct TableChange {
    drop: Vec<String>,
    create: Vec<(String, String)>,
    always: Vec<String>,
    forget: bool,
}

/// One step per table, so that no transaction holds locks on two: what is installed from the far end of the closure to
/// its root; what goes, from the root outwards.
fn triggers(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> Vec<Step> {
    let empty = BTreeMap::new();
    let recorded = observed.recorded.as_ref().map_or(&empty, |recorded| &recorded.triggers);
    let live: BTreeMap<(Oid, &str), &LiveTrigger> =
        observed.live.triggers.iter().map(|trigger| ((trigger.rel, trigger.name.as_str()), trigger)).collect();
    let catalog = &observed.catalog;
    let owned = |oid: Oid| catalog.table(oid).is_some_and(|table| table.owned);
    let mut changes: BTreeMap<Oid, TableChange> = BTreeMap::new();
    let mut drifted = |rel: Oid, what: String| drift.push(Drift { table: catalog.label(rel), what });

    for ((rel, name), source) in &desired.triggers {
        let (now, was) =
            (live.get(&(*rel, name.as_str())).filter(|now| !now.clone), recorded.get(&(*rel, name.clone())));
        let problem = match (now, was) {
            (None, Some(_)) => Some("was dropped or replaced"),
            (Some(now), Some(was)) if now.fingerprint != was.fingerprint => Some("was changed"),
            (Some(now), Some(_)) if now.disabled => Some("was disabled"),
            (Some(now), Some(_)) if !now.always && owned(*rel) => Some("no longer fires ALWAYS"),
            _ => None,
        };
        if let Some(problem) = problem {
            drifted(*rel, format!("trigger {name} {problem}"));
        }
        let same = matches!((now, was), (Some(now), Some(was)) if now.fingerprint == was.fingerprint && was.source == digest(source));
        if !same {
            changes.entry(*rel).or_default().create.push((name.clone(), source.clone()));
        } else if now.is_some_and(|now| !now.always) && owned(*rel) {
            changes.entry(*rel).or_default().always.push(name.clone());
        }
    }
    for ((rel, name), now) in &live {
        if now.clone {
            let created_above = catalog.partition_ancestors(*rel).iter().any(|above| {
                changes.get(above).is_some_and(|change| {
                    change.create.iter().any(|(created, _)| created == name)
                        || change.always.iter().any(|on| on == name)
                })
            });
            if !now.always && owned(*rel) && !created_above {
                drifted(
                    *rel,
                    format!("trigger {name} {}", if now.disabled { "was disabled" } else { "no longer fires ALWAYS" }),
                );
                changes.entry(*rel).or_default().always.push((*name).to_owned());
            }
        } else if !desired.triggers.contains_key(&(*rel, (*name).to_owned())) {
            changes.entry(*rel).or_default().drop.push((*name).to_owned());
        }
    }
    for (rel, name) in recorded.keys() {
        if !desired.triggers.contains_key(&(*rel, name.clone())) {
            changes.entry(*rel).or_default().forget = true;
        }
    }
    let far = |oid: &Oid| desired.distance.get(oid).copied();
    let mut order: Vec<Oid> = changes.keys().copied().collect();
    order.sort_by_key(|oid| (far(oid).is_none(), std::cmp::Reverse(far(oid)), *oid));
    order.iter().filter_map(|oid| changes.get(oid).map(|change| table_step(*oid, change, desired, observed))).collect()
}

fn table_step(oid: Oid, change: &TableChange, desired: &Desired, observed: &Observed) -> Step {
    let table = observed.catalog.table(oid);
    let mut ddl = Vec::new();
    let mut create: Vec<(&String, &String)> = change.create.iter().map(|(name, source)| (name, source)).collect();
    let mut functions = Vec::new();
    if let Some(Table { ident, owned, .. }) = table {
        if *owned {
            ddl.extend(change.drop.iter().map(|name| format!("DROP TRIGGER {name} ON {ident}")));
        } else if !change.drop.is_empty() {
            // Only with their function; then those that stay are created again, in the same transaction. What was made
            // when the table was still ours has another function.
            let name = trigger_function(oid);
            ddl.push(create_trigger_function(&name));
            ddl.extend(change.drop.iter().map(|trigger| {
                format!("CREATE OR REPLACE TRIGGER {trigger} AFTER DELETE ON {ident} FOR EACH STATEMENT EXECUTE FUNCTION pgrail.{name}()")
            }));
            ddl.push(format!("DROP FUNCTION IF EXISTS pgrail.{name}() CASCADE"));
            create = desired
                .triggers
                .iter()
                .filter(|((rel, _), _)| *rel == oid)
                .map(|((_, name), source)| (name, source))
                .collect();
            if let Some(source) = desired.routines.get(&name) {
                ddl.push(source.clone());
                ddl.push(privileges(&[&name]));
                functions.push(name);
            }
        }
        for (name, source) in &create {
            ddl.push(format!("CREATE OR REPLACE TRIGGER {name} {source}"));
        }
        let created = create.iter().map(|(name, _)| *name).filter(|_| *owned);
        let always: Vec<String> =
            created.chain(&change.always).map(|name| format!("ENABLE ALWAYS TRIGGER {name}")).collect();
        if !always.is_empty() {
            ddl.push(format!("ALTER TABLE {ident} {}", always.join(", ")));
        }
    }
    let mut statements = Vec::new();
    if !ddl.is_empty() {
        statements.push(Statement::Batch(ddl.join(";\n")));
    }
    for name in &functions {
        statements.push(record_routines(&[name], |name| desired.routines.get(name).cloned().unwrap_or_default()));
    }
    if !create.is_empty() || change.forget || !change.drop.is_empty() {
        let created: Vec<_> =
            create.iter().map(|(name, source)| serde_json::json!({ "name": name, "source": digest(source) })).collect();
        let kept: Vec<&str> =
            desired.triggers.keys().filter(|(rel, _)| *rel == oid).map(|(_, name)| name.as_str()).collect();
        statements.push(Statement::Exactly(
            created.len() as u64,
            "SELECT pgrail.record_triggers($1::jsonb)".to_owned(),
            serde_json::json!({ "rel": oid, "created": created, "kept": kept }),
        ));
    }
    let before = observed.live.triggers.iter().any(|trigger| trigger.rel == oid);
    let after = desired.triggers.keys().any(|(rel, _)| *rel == oid);
    let change = match (before, after) {
        (false, _) => Change::Create,
        (true, true) => Change::Change,
        (true, false) => Change::Remove,
    };
    Step { change, table: Some((oid, observed.catalog.label(oid))), ..Step::new(StepKind::Triggers, statements) }
}

/// Removes everything of pgrail's that is in the catalog, whatever the configuration says: the triggers table by table first.
/// What others put into the schema keeps it there.
pub(crate) fn everything_off(observed: &Observed) -> Vec<Step> {
    let Live { triggers, routines, relations, event_triggers, schema_owner, .. } = &observed.live;
    if schema_owner.is_none() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    // Without a configuration, gates allow everything at once, before the first lock is waited for.
    let is_table = |name: &str| relations.iter().any(|relation| relation.kind == "r" && relation.name == name);
    let documents: Vec<String> = routines
        .iter()
        .filter(|routine| is_document(&routine.name) && routine.name != "config_install")
        .map(|routine| format!("DROP FUNCTION IF EXISTS pgrail.{}({})", routine.name, routine.arguments))
        .collect();
    if is_table("guard") {
        steps.push(Step::new(StepKind::Configure, vec![Statement::Batch("DELETE FROM pgrail.guard".to_owned())]));
    } else if !documents.is_empty() {
        let can_write = routines.iter().any(|routine| routine.name == "write_document");
        let removing = "SELECT pgrail.write_document('install', pgrail.document('install') - 'digest')".to_owned();
        let all: Vec<String> = documents.into_iter().chain(can_write.then_some(removing)).collect();
        steps.push(Step::new(StepKind::Configure, vec![Statement::Batch(all.join(";\n"))]));
    }
    if !event_triggers.is_empty() {
        let drops =
            event_triggers.iter().map(|trigger| Statement::Batch(format!("DROP EVENT TRIGGER {}", trigger.name)));
        steps.push(Step::new(StepKind::Cleanup, drops.collect()));
    }
    let mut by_table: BTreeMap<Oid, Vec<&str>> = BTreeMap::new();
    for trigger in triggers.iter().filter(|trigger| !trigger.clone) {
        by_table.entry(trigger.rel).or_default().push(&trigger.name);
    }
    for (oid, names) in by_table {
        let Some(table) = observed.catalog.table(oid) else { continue };
        let drops: Vec<String> = if table.owned {
            names.iter().map(|name| format!("DROP TRIGGER {name} ON {}", table.ident)).collect()
        } else {
            vec![format!("DROP FUNCTION IF EXISTS pgrail.{}() CASCADE", trigger_function(oid))]
        };
        steps.push(Step {
            change: Change::Remove,
            table: Some((oid, table.label())),
            ..Step::new(StepKind::Triggers, vec![Statement::Batch(drops.join(";\n"))])
        });
    }
    steps.push(Step::new(StepKind::Cleanup, vec![Statement::Batch(schema_off(routines, relations).join(";\n"))]));
    steps
}

fn schema_off(routines: &[LiveRoutine], relations: &[LiveRelation]) -> Vec<String> {
    /// In this order: version 1 had references between them.
    const TABLES: &[&str] = &[
        "captured",
        "captured_transaction",
        "usage",
        "budget",
        "baseline",
        "removal",
        "allowance",
        "member",
        "assignment",
        "relation",
        "guard",
        "trigger",
        "routine",
        "install",
    ];
    /// In this order: the first ones read the last ones.
    const VIEWS: &[&str] =
        &["allowance", "member", "assignment", "relation", "guard", "trigger", "routine", "install", "documents"];
    let mut all: Vec<String> = relations
        .iter()
        .filter(|relation| relation.pins.is_some())
        .map(|view| format!("DROP VIEW pgrail.{}", view.name))
        .collect();
    // What depends on types of tables and views goes before them; the functions of triggers on tables after those.
    let last = ["settle", "refund", "count_removed"];
    let (late, functions): (Vec<&LiveRoutine>, Vec<&LiveRoutine>) =
        routines.iter().partition(|routine| last.contains(&routine.name.as_str()));
    let drop =
        |routine: &LiveRoutine| format!("DROP FUNCTION IF EXISTS pgrail.{}({})", routine.name, routine.arguments);
    all.extend(functions.into_iter().map(drop));
    let named = |kind: &'static str| relations.iter().filter(move |relation| relation.kind == kind);
    let views = VIEWS.iter().filter(|name| named("v").any(|view| view.name == **name));
    all.extend(views.map(|name| format!("DROP VIEW pgrail.{name}")));
    let counters = named("S").filter(|sequence| is_counter(&sequence.name));
    all.extend(counters.map(|sequence| format!("DROP SEQUENCE pgrail.{}", sequence.name)));
    let tables = TABLES.iter().filter(|name| named("r").any(|table| table.name == **name));
    all.extend(tables.map(|name| format!("DROP TABLE pgrail.{name}")));
    let others = named("r").filter(|table| is_allowed_table(&table.name) || table.name.starts_with("captured_"));
    let others = others.filter(|table| !TABLES.contains(&table.name.as_str()));
    all.extend(others.map(|table| format!("DROP TABLE pgrail.{}", table.name)));
    all.extend(late.into_iter().map(drop));
    all.push("DROP SCHEMA pgrail".to_owned());
    all
}

fn is_counter(sequence: &str) -> bool {
    ["blocked_", "updated_", "window_"].iter().any(|kind| sequence.starts_with(kind))
}

/// Those of windows hold any number.
fn create_sequence(name: &str) -> String {
    let any = if name.starts_with("window_") { format!(" MINVALUE {} START 0", i64::MIN) } else { String::new() };
    format!("CREATE SEQUENCE pgrail.{name}{any}")
}

/// Version 1 called them otherwise.
fn is_allowed_table(table: &str) -> bool {
    table.starts_with("allowed_") || table.starts_with("pass_")
}
