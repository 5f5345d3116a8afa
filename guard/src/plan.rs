//! From what shall be and what is to an ordered list of steps. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use crate::blast_radius;
use crate::catalog::{Oid, Table, TableKind};
use crate::configuration::{Assignment, Configuration, GuardRow, RelationRow};
use crate::desired::{self, Desired, Numbers, literal};
use crate::observe::{Live, LiveTrigger, Observed};
use crate::spec::{GuardName, GuardSpec, Mode, SpecError};

/// The version of pgrail's own schema that this version installs.
pub const SCHEMA_VERSION: i32 = 1;

pub(crate) const SCHEMA_SQL: &str = include_str!("sql/schema.sql");
pub(crate) const FUNCTIONS_SQL: &str = include_str!("sql/functions.sql");
pub(crate) const CONFIGURE_SQL: &str = include_str!("sql/configure.sql");

/// The functions of `functions.sql`, and whether every role may call them.
pub(crate) const FUNCTIONS: &[(&str, bool)] = &[
    ("counts", false),
    ("is_apply_worker", false),
    ("noted", false),
    ("nothing", false),
    ("trip", true),
    ("truncating", true),
    ("verdict", false),
    ("would", false),
];

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Another cluster manages this database.
    #[error("the guards in this database are managed by {owner}")]
    OwnedByOther {
        /// Its id.
        owner: String,
    },
    /// A newer pgrail installed our schema.
    #[error("the guards in this database have schema version {found}, this pgrail knows {known}")]
    NewerSchema {
        /// What is installed.
        found: i32,
        /// What this pgrail installs.
        known: i32,
    },
    /// The server is a standby.
    #[error("the server is a standby and cannot be written to")]
    ReadOnlyServer,
    /// The server is too old.
    #[error("PostgreSQL {found} is not supported, 15 or later is needed")]
    UnsupportedVersion {
        /// `server_version_num`
        found: i32,
    },
    /// A schema named `pgrail` exists and belongs to a role that the current one cannot act as.
    #[error("the schema pgrail belongs to {owner}, which {role} is not a member of")]
    SchemaOfOther {
        /// Its owner.
        owner: String,
        /// The current role.
        role: String,
    },
    /// The declaration makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// How a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableState {
    /// A step failed for a reason that waiting does not mend.
    Failed,
    /// Installed earlier, changed since by somebody else.
    Drifted,
    /// A declared table that does not exist.
    Missing,
    /// Not installed yet, or waiting for a lock.
    Pending,
    /// Installed, but weaker than it could be.
    Degraded,
    /// Verified in the catalog.
    Enforced,
}

/// One table of a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStatus {
    /// Its identifier; `None` where it is missing.
    pub oid: Option<Oid>,
    /// `schema.table`
    pub table: String,
    /// How it stands.
    pub state: TableState,
    /// Why, and what mends it; empty where there is nothing to say.
    pub message: String,
    /// How many other tables its deletes reach.
    pub closure: usize,
    /// Estimated rows of those.
    pub rows_at_risk: u64,
    /// Attempts that this guard stopped or warned of here.
    pub blocked_attempts: i64,
}

/// Something of ours that somebody else changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// `schema.table`, or `pgrail.<function>`.
    pub table: String,
    /// What was found.
    pub what: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.what)
    }
}

/// A declared relation that cannot be guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `schema.table`
    pub table: String,
    /// Why not.
    pub reason: String,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// Creates our schema, its tables and fixed functions.
    Bootstrap,
    /// Writes the configuration.
    Configure,
    /// Creates, replaces or drops functions and counters. Locks nothing of the application's.
    Routines,
    /// Creates, replaces, enables or drops the triggers of one table.
    Triggers,
    /// Takes away what is left of ours.
    Cleanup,
}

/// One statement of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// SQL as it is; may hold several statements.
    Batch(String),
    /// One statement whose `$1` is JSON.
    Json(String, serde_json::Value),
    /// One statement that must touch as many rows: otherwise the table is not the one that was planned for.
    Exactly(u64, String, serde_json::Value),
}

/// One transaction of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// The table it is about, for [`StepKind::Triggers`].
    pub table: Option<(Oid, String)>,
    pub(crate) statements: Vec<Statement>,
}

impl Step {
    fn new(kind: StepKind, statements: Vec<Statement>) -> Self {
        Self { kind, table: None, statements }
    }

    /// The step as SQL text, values in place.
    pub fn sql(&self) -> String {
        let statements = self.statements.iter().map(|statement| match statement {
            Statement::Batch(sql) => terminated(sql),
            Statement::Json(sql, value) | Statement::Exactly(_, sql, value) => {
                terminated(&sql.replace("$1", &literal(&value.to_string())))
            }
        });
        statements.collect::<Vec<_>>().join("\n")
    }
}

fn terminated(sql: &str) -> String {
    let sql = sql.trim_end();
    if sql.ends_with(';') { sql.to_owned() } else { format!("{sql};") }
}

/// What has to be done, in order; and how everything stands before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) drift: Vec<Drift>,
    pub(crate) tables: Vec<TableStatus>,
    pub(crate) missing: Vec<String>,
    pub(crate) refused: Vec<Refused>,
}

impl Plan {
    /// Whether nothing has to be done: then [`crate::apply()`] neither runs DDL nor writes.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps, each a transaction of its own.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The SQL of every step, as `pgrail plan` shows it.
    pub fn sql(&self) -> Vec<String> {
        self.steps.iter().map(Step::sql).collect()
    }

    /// What somebody else changed since it was installed.
    pub fn drift(&self) -> &[Drift] {
        &self.drift
    }

    /// Every matched table and every missing one, as it stands now, worst first.
    pub fn tables(&self) -> &[TableStatus] {
        &self.tables
    }

    /// Declared names that match nothing.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Declared relations that cannot be guarded.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }
}

/// What has to be done so that the guard holds.
pub fn plan(spec: &GuardSpec, observed: &Observed) -> Result<Plan, PlanError> {
    let live = &observed.live;
    if live.server_version_num < 150_000 {
        return Err(PlanError::UnsupportedVersion { found: live.server_version_num });
    }
    if live.in_recovery {
        return Err(PlanError::ReadOnlyServer);
    }
    if let (Some(owner), false) = (&live.schema_owner, live.schema_owned) {
        return Err(PlanError::SchemaOfOther { owner: owner.clone(), role: live.role.clone() });
    }
    if let Some(recorded) = &observed.recorded {
        if recorded.schema_version > SCHEMA_VERSION {
            return Err(PlanError::NewerSchema { found: recorded.schema_version, known: SCHEMA_VERSION });
        }
        if recorded.configuration.owner != spec.owner.as_str() && !spec.take_over {
            return Err(PlanError::OwnedByOther { owner: recorded.configuration.owner.clone() });
        }
    }
    spec.limits.validate()?;
    for selector in &spec.selectors {
        spec.limits.overridden(&selector.limits).validate()?;
    }
    let matched = Matched::of(spec, observed);
    let mut numbers = numbers(observed);
    let configuration = assign(spec, &matched, observed, &mut numbers);
    let desired = desired::complete(&observed.catalog, configuration, &mut numbers);
    let mut plan = difference(&desired, observed);
    plan.tables = statuses(spec, &matched, &desired, &plan, observed);
    plan.missing = matched.missing;
    plan.refused = matched.refused;
    Ok(plan)
}

/// What has to be done so that nothing of the guard is left; of the last guard, nothing of pgrail.
pub fn plan_removal(name: &GuardName, observed: &Observed) -> Plan {
    let Some(recorded) = &observed.recorded else {
        return difference(&Desired::default(), observed);
    };
    let mut configuration = recorded.configuration.clone();
    let gone = configuration.guard_id(name);
    configuration.guards.retain(|guard| Some(guard.id) != gone);
    configuration.assignments.retain(|held| Some(held.guard) != gone);
    let mut numbers = numbers(observed);
    let desired = desired::complete(&observed.catalog, configuration, &mut numbers);
    difference(&desired, observed)
}

struct Matched {
    tables: Vec<Oid>,
    missing: Vec<String>,
    refused: Vec<Refused>,
}

impl Matched {
    fn of(spec: &GuardSpec, observed: &Observed) -> Self {
        let catalog = &observed.catalog;
        let can_guard = |table: &&Table| matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned);
        let selected: BTreeSet<Oid> = catalog
            .tables()
            .filter(can_guard)
            .filter(|table| spec.selector_for(&table.schema, &table.name).is_some())
            .map(|table| table.oid)
            .collect();
        let exact =
            |table: &Table| spec.selector_for(&table.schema, &table.name).is_some_and(crate::TableSelector::is_exact);
        // A glob that matches a partitioned table and its partitions means the one table.
        let covered = |oid: &Oid| {
            let above =
                selected.iter().filter(|other| *other != oid).any(|other| catalog.descendants(*other).contains(oid));
            above && !catalog.table(*oid).is_some_and(exact)
        };
        let has_parents = |oid: &Oid| catalog.table(*oid).is_some_and(|table| !table.parents.is_empty());
        let tables = selected.iter().copied().filter(|oid| !(has_parents(oid) && covered(oid))).collect();
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        for selector in spec.selectors.iter().filter(|selector| selector.is_exact()) {
            let label = format!("{}.{}", selector.schema, selector.name);
            match catalog.table_named(&selector.schema, &selector.name) {
                Some(table) => {
                    refused.extend(refusal(table).map(|reason| Refused { table: label, reason: reason.to_owned() }))
                }
                None if is_system(&selector.schema) => {
                    refused.push(Refused { table: label, reason: "it is not an application's table".to_owned() });
                }
                None => missing.push(label),
            }
        }
        missing.sort();
        missing.dedup();
        Self { tables, missing, refused }
    }
}

fn is_system(schema: &str) -> bool {
    schema == "pgrail" || schema == "information_schema" || schema.starts_with("pg_")
}

fn refusal(table: &Table) -> Option<&'static str> {
    match table.kind {
        TableKind::Ordinary | TableKind::Partitioned => None,
        TableKind::View => Some("it is a view: guard the tables it reads from"),
        TableKind::MaterializedView => Some("it is a materialized view: its rows can be computed again"),
        TableKind::Foreign => Some("it is a foreign table: its server, not this one, counts its rows"),
    }
}

fn numbers(observed: &Observed) -> Numbers {
    let suffix = |name: &str| name.rsplit_once('_').and_then(|(_, number)| number.parse::<i32>().ok());
    let live = &observed.live;
    let routines = live.routines.iter().filter_map(|routine| suffix(&routine.name));
    let triggers = live.triggers.iter().filter_map(|trigger| suffix(&trigger.name));
    let pins =
        live.relations.iter().filter(|relation| relation.kind == "v").filter_map(|relation| suffix(&relation.name));
    let sequences =
        live.relations.iter().filter(|relation| relation.kind == "S").filter_map(|relation| suffix(&relation.name));
    let empty = Configuration::default();
    let known = observed.recorded.as_ref().map_or(&empty, |recorded| &recorded.configuration);
    let relations = known.relations.iter().map(|row| row.id);
    Numbers {
        guard: known.guards.iter().map(|row| row.id).max().unwrap_or(0),
        relation: relations.chain(routines).chain(triggers).chain(pins).max().unwrap_or(0),
        assignment: known.assignments.iter().map(|row| row.id).chain(sequences).max().unwrap_or(0),
    }
}

/// The configuration with this guard's part replaced. What stays keeps its number, and with it its counter.
fn assign(spec: &GuardSpec, matched: &Matched, observed: &Observed, numbers: &mut Numbers) -> Configuration {
    let mut configuration =
        observed.recorded.as_ref().map(|recorded| recorded.configuration.clone()).unwrap_or_default();
    configuration.owner = spec.owner.as_str().to_owned();
    let enforce = spec.mode == Mode::Enforce;
    let guard = configuration.guard_id(&spec.name).unwrap_or_else(|| Numbers::next(&mut numbers.guard));
    configuration.guards.retain(|row| row.id != guard);
    configuration.guards.push(GuardRow { id: guard, name: spec.name.clone(), enforce });
    let (mine, others): (Vec<Assignment>, Vec<Assignment>) =
        std::mem::take(&mut configuration.assignments).into_iter().partition(|held| held.guard == guard);
    configuration.assignments = others;
    for oid in &matched.tables {
        let Some(table) = observed.catalog.table(*oid) else { continue };
        let Some(selector) = spec.selector_for(&table.schema, &table.name) else { continue };
        let root = configuration.relation_of(*oid).map_or_else(|| Numbers::next(&mut numbers.relation), |row| row.id);
        if configuration.relation(root).is_none() {
            configuration.relations.push(RelationRow {
                id: root,
                rel: *oid,
                label: table.label(),
                above: BTreeSet::new(),
            });
        }
        let id = mine
            .iter()
            .find(|held| held.root == root)
            .map_or_else(|| Numbers::next(&mut numbers.assignment), |held| held.id);
        configuration.assignments.push(Assignment::new(
            id,
            root,
            guard,
            spec.limits.overridden(&selector.limits),
            spec.protect,
        ));
    }
    configuration
}

fn difference(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan =
        Plan { steps: Vec::new(), drift: Vec::new(), tables: Vec::new(), missing: Vec::new(), refused: Vec::new() };
    if desired.configuration.guards.is_empty() {
        plan.steps = everything_off(observed);
        return plan;
    }
    let bootstrap = bootstrap(desired, observed, &mut plan.drift);
    let configured = observed.recorded.as_ref().is_some_and(|recorded| recorded.configuration == desired.configuration);
    let (create, drop) = routines(desired, observed, &mut plan.drift);
    let triggers = triggers(desired, observed, &mut plan.drift);
    plan.steps.extend(bootstrap);
    if !configured {
        let value = serde_json::to_value(&desired.configuration).unwrap_or_default();
        let statements = CONFIGURE_SQL
            .split("\n\n")
            .map(|sql| Statement::Json(sql.trim().trim_end_matches(';').to_owned(), value.clone()));
        plan.steps.push(Step::new(StepKind::Configure, statements.collect()));
    }
    plan.steps.extend(create);
    plan.steps.extend(triggers);
    plan.steps.extend(drop);
    plan
}

fn bootstrap(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> Option<Step> {
    let intact = observed.recorded.as_ref().is_some_and(|recorded| {
        let mut intact = recorded.schema_version == SCHEMA_VERSION;
        for (name, _) in FUNCTIONS {
            let now = observed.live.routines.iter().find(|routine| routine.name == *name);
            let was = recorded.routines.get(*name);
            let same = matches!((now, was), (Some(now), Some(was)) if now.fingerprint == was.fingerprint);
            if !same && was.is_some() {
                let what = if now.is_none() { "the function was dropped" } else { "the function was changed" };
                drift.push(Drift { table: format!("pgrail.{name}"), what: what.to_owned() });
            }
            intact &= same && was.is_some_and(|was| was.source == FUNCTIONS_SQL);
        }
        intact
    });
    if intact {
        return None;
    }
    let install = serde_json::json!({ "version": SCHEMA_VERSION, "owner": desired.configuration.owner });
    let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    let public: Vec<&str> = FUNCTIONS.iter().filter(|(_, public)| *public).map(|(name, _)| *name).collect();
    Some(Step::new(
        StepKind::Bootstrap,
        vec![
            Statement::Batch(SCHEMA_SQL.to_owned()),
            Statement::Json(
                "INSERT INTO pgrail.install AS i (schema_version, owner) SELECT ($1::jsonb ->> 'version')::int, $1::jsonb ->> 'owner' \
                 ON CONFLICT (singleton) DO UPDATE SET schema_version = excluded.schema_version"
                    .to_owned(),
                install,
            ),
            Statement::Batch(FUNCTIONS_SQL.to_owned()),
            Statement::Batch(privileges(&public)),
            record_routines(&names, |_| FUNCTIONS_SQL.to_owned()),
        ],
    ))
}

/// Grants exactly what roles of the application need: default privileges may have given more, or less.
fn privileges(public: &[&str]) -> String {
    let public = public.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    include_str!("sql/privileges.sql").replace("'{public}'", &public)
}

fn record_routines(names: &[&str], source: impl Fn(&str) -> String) -> Statement {
    let rows: Vec<_> = names.iter().map(|name| serde_json::json!({ "name": name, "source": source(name) })).collect();
    Statement::Exactly(
        rows.len() as u64,
        include_str!("sql/record_routines.sql").to_owned(),
        serde_json::Value::Array(rows),
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
        if !untouched || was.is_some_and(|was| was.source != *source) {
            create.push(name.as_str());
        }
    }
    let sequences: BTreeSet<&str> = observed
        .live
        .relations
        .iter()
        .filter(|relation| relation.kind == "S")
        .map(|relation| relation.name.as_str())
        .collect();
    let mut statements: Vec<Statement> = desired
        .sequences
        .iter()
        .filter(|name| !sequences.contains(name.as_str()))
        .map(|name| Statement::Batch(format!("CREATE SEQUENCE pgrail.{name}")))
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
        .filter(|routine| !desired.routines.contains_key(&routine.name) && !fixed(&routine.name));
    let mut statements: Vec<Statement> = gone
        .map(|routine| Statement::Batch(format!("DROP FUNCTION pgrail.{}({})", routine.name, routine.arguments)))
        .collect();
    statements.extend(
        sequences
            .iter()
            .filter(|name| name.starts_with("blocked_") && !desired.sequences.contains(**name))
            .map(|name| Statement::Batch(format!("DROP SEQUENCE pgrail.{name}"))),
    );
    let forgotten = recorded.keys().any(|name| !desired.routines.contains_key(name) && !fixed(name));
    if !statements.is_empty() || forgotten {
        let kept: Vec<&str> =
            desired.routines.keys().map(String::as_str).chain(FUNCTIONS.iter().map(|(name, _)| *name)).collect();
        statements.push(Statement::Json(
            "DELETE FROM pgrail.routine WHERE name NOT IN (SELECT jsonb_array_elements_text($1::jsonb))".to_owned(),
            serde_json::json!(kept),
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
            (_, None) => None,
            (None, Some(_)) => Some("was dropped or replaced"),
            (Some(now), Some(was)) if now.fingerprint != was.fingerprint => Some("was changed"),
            (Some(now), Some(_)) if now.disabled => Some("was disabled"),
            (Some(now), Some(_)) if !now.always && owned(*rel) => Some("no longer fires ALWAYS"),
            _ => None,
        };
        if let Some(problem) = problem {
            drifted(*rel, format!("trigger {name} {problem}"));
        }
        let same =
            matches!((now, was), (Some(now), Some(was)) if now.fingerprint == was.fingerprint && was.source == *source);
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
            // Only with their function; then those that shall stay are made again, in the same transaction.
            let name = desired::trigger_function(oid);
            ddl.push(format!("DROP FUNCTION IF EXISTS pgrail.{name}() CASCADE"));
            create = desired
                .triggers
                .iter()
                .filter(|((rel, _), _)| *rel == oid)
                .map(|((_, name), source)| (name, source))
                .collect();
            if let Some(source) = desired.routines.get(&name) {
                ddl.push(source.clone());
                functions.push(name);
            }
        }
        for (name, source) in &create {
            ddl.push(format!("CREATE OR REPLACE TRIGGER {name} {source}"));
        }
        let created = create.iter().map(|(name, _)| *name).filter(|_| *owned);
        for name in created.chain(&change.always) {
            ddl.push(format!("ALTER TABLE {ident} ENABLE ALWAYS TRIGGER {name}"));
        }
    }
    let mut statements = Vec::new();
    if !ddl.is_empty() {
        statements.push(Statement::Batch(ddl.join(";\n")));
    }
    if !change.create.is_empty() {
        let rows: Vec<_> = change
            .create
            .iter()
            .map(|(name, source)| serde_json::json!({ "rel": oid, "name": name, "source": source }))
            .collect();
        statements.push(Statement::Exactly(
            rows.len() as u64,
            include_str!("sql/record_triggers.sql").to_owned(),
            serde_json::Value::Array(rows),
        ));
    }
    if change.forget || !change.drop.is_empty() {
        let kept: Vec<&str> =
            desired.triggers.keys().filter(|(rel, _)| *rel == oid).map(|(_, name)| name.as_str()).collect();
        statements.push(Statement::Json(
            "DELETE FROM pgrail.trigger WHERE rel = ($1::jsonb ->> 'rel')::oid AND name NOT IN (SELECT jsonb_array_elements_text($1::jsonb -> 'kept'))"
                .to_owned(),
            serde_json::json!({ "rel": oid, "kept": kept }),
        ));
    }
    Step { kind: StepKind::Triggers, table: Some((oid, observed.catalog.label(oid))), statements }
}

/// Everything of ours, the triggers table by table first. What somebody else put into our schema keeps it there.
fn everything_off(observed: &Observed) -> Vec<Step> {
    let Live { triggers, routines, relations, event_triggers, schema_owner, .. } = &observed.live;
    if schema_owner.is_none() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    if observed.live.configured {
        // Lets everything pass at once, before the first lock is waited for.
        steps.push(Step::new(StepKind::Configure, vec![Statement::Batch("DELETE FROM pgrail.guard".to_owned())]));
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
            vec![format!("DROP FUNCTION IF EXISTS pgrail.{}() CASCADE", desired::trigger_function(oid))]
        };
        steps.push(Step {
            kind: StepKind::Triggers,
            table: Some((oid, table.label())),
            statements: vec![Statement::Batch(drops.join(";\n"))],
        });
    }
    let views = relations
        .iter()
        .filter(|relation| relation.pins.is_some())
        .map(|view| format!("DROP VIEW pgrail.{}", view.name));
    let sequences = relations
        .iter()
        .filter(|relation| relation.kind == "S")
        .map(|sequence| format!("DROP SEQUENCE pgrail.{}", sequence.name));
    let functions = routines
        .iter()
        .map(|routine| format!("DROP FUNCTION IF EXISTS pgrail.{}({})", routine.name, routine.arguments));
    let ours = ["member", "assignment", "relation", "guard", "trigger", "routine", "install"];
    let tables = ours
        .iter()
        .filter(|name| relations.iter().any(|relation| relation.kind == "r" && relation.name == **name))
        .map(|name| format!("DROP TABLE pgrail.{name}"));
    let all: Vec<String> =
        views.chain(functions).chain(sequences).chain(tables).chain(["DROP SCHEMA pgrail".to_owned()]).collect();
    steps.push(Step::new(StepKind::Cleanup, vec![Statement::Batch(all.join(";\n"))]));
    steps
}

/// How every table of the guard stands now: what a step is still to be done for is not enforced.
fn statuses(
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
    let waiting: BTreeSet<Oid> =
        plan.steps.iter().filter_map(|step| step.table.as_ref().map(|(oid, _)| *oid)).collect();
    let drifted: BTreeSet<&str> = plan.drift.iter().map(|drift| drift.table.as_str()).collect();
    let mut tables: Vec<TableStatus> = Vec::new();
    for root in desired.roots.values().filter(|root| matched.tables.contains(&root.oid)) {
        let Some(held) = root.assignments.iter().find(|held| Some(held.guard) == guard) else { continue };
        let radius = blast_radius::of(&observed.catalog, &root.closure, true);
        let involved: BTreeSet<Oid> = root
            .closure
            .tree
            .iter()
            .copied()
            .chain(root.closure.members.iter().flat_map(|member| observed.catalog.partitions(member.table)))
            .collect();
        let (state, message) = table_state(&involved, root.oid, &waiting, &drifted, general, plan, observed);
        tables.push(TableStatus {
            oid: Some(root.oid),
            table: radius.table,
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
        });
    }
    tables.extend(matched.missing.iter().map(|table| TableStatus {
        oid: None,
        table: table.clone(),
        state: TableState::Missing,
        message: "no such table; it is guarded as soon as it exists".to_owned(),
        closure: 0,
        rows_at_risk: 0,
        blocked_attempts: 0,
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

fn listed(labels: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = labels.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if labels.len() > SHOWN { format!("{shown} and {} more", labels.len() - SHOWN) } else { shown }
}
