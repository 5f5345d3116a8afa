//! The state of a guard after everything that could be done was done: what the catalog said, never what was intended. Pure.

use super::window::Windows;
use crate::kubernetes::rejection::{Reason, Rejection};
use crate::kubernetes::text::chain;
use pgrail_guard::{
    Applied, Drift, Ensured, Outcome, Progress, Refused, TableState, TableStatus, TamperFacts, WindowUse,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// When the database is checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recheck {
    /// As soon as something changes: an event trigger notifies of it.
    AtOnce,
    /// At least that often.
    Every(Duration),
    /// Not by itself: there is no operator.
    Never,
    /// By an operator whose interval is not known here.
    Unknown,
}

/// What a guard is found to be.
#[derive(Debug)]
pub(crate) struct GuardState {
    /// Its tables, worst first.
    pub(super) tables: Vec<TableStatus>,
    /// Other tables of the closures with something wrong.
    pub(super) closure: Vec<ClosureTable>,
    /// Declared names that match nothing.
    pub(super) missing: Vec<String>,
    /// Relations that cannot be guarded.
    pub(super) refused: Vec<Refused>,
    /// What others had changed, and is as declared again.
    pub(super) repaired: Vec<Drift>,
    /// The guard was not in the database before.
    pub(super) first: bool,
    /// What could not be done that is not about one table.
    pub(super) failure: Option<Rejection>,
    /// Tables for which the role lacks a privilege.
    pub(super) lacking: BTreeSet<String>,
    /// Steps are left to do.
    pub(super) incomplete: bool,
    pub(super) track_counts: bool,
    pub(super) recheck: Recheck,
    pub(super) tamper: Result<TamperFacts, String>,
    /// How much of the windows is used.
    pub(super) windows: Windows,
}

/// A table that loses rows with a guarded one, on which something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClosureTable {
    /// `schema.table`
    pub(super) table: String,
    pub(super) state: TableState,
    /// What is wrong, and how to fix it.
    pub(super) message: String,
}

impl GuardState {
    /// With how much of its windows is used.
    pub(crate) fn showing(self, uses: Vec<WindowUse>) -> Self {
        Self { windows: Windows::shown(uses), ..self }
    }

    /// From what was found, and what was done before. `installed_before`: the guard was in the database at the last check.
    pub(crate) fn new(ensured: Ensured, installed_before: bool, recheck: Recheck) -> Self {
        let Ensured { observed, plan, tamper, progress, fingerprint: _ } = ensured;
        let mut state = Self {
            tables: plan.tables().to_vec(),
            closure: Vec::new(),
            missing: plan.missing().to_vec(),
            refused: plan.refused().to_vec(),
            repaired: Vec::new(),
            first: false,
            failure: None,
            lacking: BTreeSet::new(),
            incomplete: !plan.is_empty(),
            track_counts: observed.live.track_counts,
            recheck: if recheck != Recheck::Never && observed.live.notifies_ddl() { Recheck::AtOnce } else { recheck },
            tamper: tamper.map_err(|error| chain(&error)),
            windows: Windows::default(),
        };
        match progress {
            Progress::UpToDate => {}
            Progress::Busy => {
                let message = "another session is changing the guards of this database; retried soon";
                state.failure = Some(Rejection::new(Reason::Installing, message));
            }
            Progress::Applied { applied, drift, first } => {
                state.repaired = drift.into_iter().filter(|it| !plan.drift().contains(it)).collect();
                state.first = first && !installed_before;
                if first && installed_before && !state.is_absent(&applied) {
                    let what = "the guard was missing from the database: its schema was dropped, or the connection leads to another database";
                    state.repaired.push(Drift { table: "pgrail".to_owned(), what: what.to_owned() });
                }
                state.add_problems(&applied);
            }
        }
        state
    }

    /// Whether nothing was installed at all.
    fn is_absent(&self, applied: &Applied) -> bool {
        self.tables.is_empty() || applied.done() == 0
    }

    fn add_problems(&mut self, applied: &Applied) {
        for (table, outcome) in applied.unfinished() {
            let Some(message) = outcome.problem() else { continue };
            let failed = matches!(outcome, Outcome::Failed { .. });
            let Some(table) = table else {
                let reason = match (failed, outcome.lacks_privilege()) {
                    (_, true) => Reason::NoPrivilege,
                    (true, false) => Reason::InstallFailed,
                    (false, false) => Reason::Installing,
                };
                self.failure = Some(Rejection::new(reason, message));
                continue;
            };
            if outcome.lacks_privilege() {
                self.lacking.insert(table.to_owned());
            }
            let state = if failed { TableState::Failed } else { TableState::Pending };
            match self.tables.iter_mut().find(|status| status.table == table) {
                Some(status) => {
                    status.message = message;
                    if failed {
                        status.state = state;
                    }
                }
                None => self.closure.push(ClosureTable { table: table.to_owned(), state, message }),
            }
        }
    }

    /// Whether every matched table was verified.
    pub(crate) fn is_enforced(&self) -> bool {
        self.track_counts && !self.incomplete && self.failure.is_none() && self.worst().is_none()
    }

    /// Tables that are guarded under another name than the spec has.
    pub(super) fn renamed(&self) -> impl Iterator<Item = &TableStatus> {
        self.tables.iter().filter(|it| it.state == TableState::Renamed)
    }

    /// The worst of what is not enforced: table, state, message.
    pub(super) fn worst(&self) -> Option<(&str, TableState, &str)> {
        let tables = self.tables.iter().map(|it| (it.table.as_str(), it.state, it.message.as_str()));
        let closure = self.closure.iter().map(|it| (it.table.as_str(), it.state, it.message.as_str()));
        let bad = |state| !matches!(state, TableState::Enforced | TableState::Renamed);
        tables.chain(closure).filter(|(_, state, _)| bad(*state)).min_by_key(|(_, state, _)| *state)
    }

    /// Whether something is left to do, and is tried again.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete || self.failure.is_some()
    }
}
