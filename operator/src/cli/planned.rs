//! What `pgrail plan` shows of an object.

use pgrail_guard::{Change, Plan};
use serde::Serialize;
use std::io::Write;

/// What would be done for one object.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Planned {
    kind: &'static str,
    name: String,
    /// What stands in the way, or is worth knowing.
    notes: Vec<String>,
    changes: Vec<PlannedChange>,
    /// Something is left to do that is no step yet.
    #[serde(skip)]
    waits: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PlannedChange {
    action: Change,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
}

impl Planned {
    /// An object with nothing to do.
    pub(super) fn new(kind: &'static str, name: &str) -> Self {
        Self { kind, name: name.to_owned(), ..Self::default() }
    }

    /// With the steps of a plan.
    pub(super) fn with(mut self, plan: &Plan, sql: bool) -> Self {
        self.notes.extend(plan.missing().iter().map(|table| format!("no such table: {table}")));
        self.notes.extend(plan.refused().iter().map(|it| format!("{} cannot be guarded: {}", it.table, it.reason)));
        self.notes.extend(plan.drift().iter().map(|drift| format!("changed by others: {drift}")));
        self.changes = plan
            .steps()
            .iter()
            .map(|step| PlannedChange {
                action: step.change,
                what: step.summary(),
                table: step.table.as_ref().map(|(_, table)| table.clone()),
                sql: sql.then(|| step.sql()),
            })
            .collect();
        self
    }

    /// With something that cannot be planned yet.
    pub(super) fn waiting(mut self, note: String) -> Self {
        self.notes.push(note);
        self.waits = true;
        self
    }

    /// Whether there is anything to do.
    pub(super) fn is_anything(&self) -> bool {
        self.waits || !self.changes.is_empty()
    }
}

/// Prints what would be done, a line for each change.
pub(super) fn print(out: &mut impl Write, all: &[Planned], sql: bool) -> std::io::Result<()> {
    for planned in all {
        let Planned { kind, name, notes, changes, .. } = planned;
        writeln!(out, "{kind} {name}")?;
        for note in notes {
            writeln!(out, "  ! {note}")?;
        }
        for change in changes {
            writeln!(out, "  {} {}", sign(change.action), change.what)?;
            for line in change.sql.iter().flat_map(|sql| sql.lines()) {
                writeln!(out, "      {line}")?;
            }
        }
        if !planned.is_anything() {
            writeln!(out, "  nothing to do")?;
        }
    }
    let count = |action| all.iter().flat_map(|it| &it.changes).filter(|change| change.action == action).count();
    let (create, change, remove) = (count(Change::Create), count(Change::Change), count(Change::Remove));
    let hint = if sql || create + change + remove == 0 { "" } else { " --sql shows the statements." };
    writeln!(
        out,
        "\n{create} to create, {change} to change, {remove} to remove; each in a transaction of its own.{hint}"
    )
}

fn sign(action: Change) -> char {
    match action {
        Change::Create => '+',
        Change::Change => '~',
        Change::Remove => '-',
    }
}
