//! A plan: its steps, and how every table of the guard stands. Types only.

use std::fmt;

use serde::Serialize;

use crate::catalog::Oid;
use crate::sql::literal;

/// The version of pgrail's own schema that this version installs.
pub const SCHEMA_VERSION: i32 = 4;

/// How a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableState {
    /// A step failed for a reason that waiting does not remove.
    Failed,
    /// Installed earlier, changed since by others.
    Drifted,
    /// A declared table that does not exist.
    Missing,
    /// Not installed yet, or waiting for a lock.
    Pending,
    /// Verified in the catalog, under another name or in another schema than the guard names.
    Renamed,
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
    /// The name that the guard knows, where the table has another one by now.
    pub renamed_from: Option<String>,
    /// How it stands.
    pub state: TableState,
    /// Why, and what to do; else empty.
    pub message: String,
    /// How many other tables its deletes reach.
    pub closure: usize,
    /// Estimated rows of those.
    pub rows_at_risk: u64,
    /// Attempts that this guard stopped or warned of here.
    pub blocked_attempts: i64,
    /// What holds DROP TABLE now.
    pub drop_protection: DropProtection,
    /// What holds DROP COLUMN, and type changes that rewrite the table.
    pub column_protection: DropProtection,
    /// What holds DROP and DETACH of a partition.
    pub partition_protection: DropProtection,
}

/// Something of pgrail's that others changed.
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
    /// Protects a table from DROP TABLE, or ends that.
    DropProtection,
    /// Drops what is no longer needed.
    Cleanup,
}

/// Whether a step adds to the database, changes what is there, or removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Change {
    /// Something new.
    Create,
    /// Something that is there.
    Change,
    /// Something goes.
    Remove,
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
    /// Whether it adds, changes or removes.
    pub change: Change,
    /// The table it is about, for [`StepKind::Triggers`] and [`StepKind::DropProtection`].
    pub table: Option<(Oid, String)>,
    pub(crate) statements: Vec<Statement>,
}

impl Step {
    pub(crate) fn new(kind: StepKind, statements: Vec<Statement>) -> Self {
        let change = if kind == StepKind::Cleanup { Change::Remove } else { Change::Change };
        Self { kind, change, table: None, statements }
    }

    pub(crate) fn creating(self) -> Self {
        Self { change: Change::Create, ..self }
    }

    /// What it changes, in words for a person.
    pub fn summary(&self) -> String {
        let of =
            |what: &str| self.table.as_ref().map_or_else(|| what.to_owned(), |(_, table)| format!("{what} on {table}"));
        match self.kind {
            StepKind::Bootstrap => "the schema pgrail, its functions, tables and views".to_owned(),
            StepKind::Configure => "the configuration of the guards".to_owned(),
            StepKind::Routines => "functions and counters in the schema pgrail".to_owned(),
            StepKind::Triggers => of("triggers"),
            StepKind::DropProtection if self.table.is_some() => of("the view that holds DROP TABLE"),
            StepKind::DropProtection => "the event triggers that stop DROP".to_owned(),
            StepKind::Cleanup => "what of the schema pgrail is no longer needed".to_owned(),
        }
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
    /// A plan that has nothing to do.
    pub(crate) fn empty() -> Self {
        Self { steps: Vec::new(), drift: Vec::new(), tables: Vec::new(), missing: Vec::new(), refused: Vec::new() }
    }

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

    /// The plan as it is when it is interrupted after so many steps.
    #[must_use]
    pub fn interrupted_after(&self, steps: usize) -> Self {
        Self { steps: self.steps.iter().take(steps).cloned().collect(), ..self.clone() }
    }

    /// What others changed since it was installed.
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

/// What stands between a guarded table and a DROP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropProtection {
    /// Nothing.
    None,
    /// A view of ours on the table: a plain DROP TABLE fails, one with CASCADE passes.
    Pinned,
    /// An event trigger.
    EventTrigger,
    /// The guard does not ask for it.
    NotAsked,
}
