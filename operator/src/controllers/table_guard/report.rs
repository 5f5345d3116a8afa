//! The status of a `TableGuard`, from what was found. Pure.

use super::dereference::Absent;
use super::validate::ValidateError;
use crate::controllers::protected_database::two_digits;
use crate::database::DatabaseError;
use crate::kubernetes::conditions::{Conditions, Status, whole_seconds};
use crate::kubernetes::text::{chain, listed, truncated};
use jiff::Timestamp;
use pgrail_crds::conditions::reasons::{self, guard as guard_reasons};
use pgrail_crds::conditions::{DROP_PROTECTED, ENFORCED, READY, TAMPER_RESISTANT};
use pgrail_crds::{GuardMode, GuardedTable, TableGuard, TableGuardStatus, TableState, Time};
use pgrail_guard::{Applied, Counter, Drift, Ensured, PlanError, Progress, Refused, TableStatus, TamperFacts};
use std::collections::HashMap;

/// Tables that the status lists; the rest is summed in one row.
const LISTED: usize = 200;
/// The longest message of a table, in bytes.
const LONGEST_TABLE_MESSAGE: usize = 1000;

/// What came of one reconcile.
pub(crate) enum Outcome {
    /// There is no database to work with.
    Blocked(Absent),
    /// The spec cannot be used.
    Refused(ValidateError),
    /// The database does not answer: what was known stands.
    Unreachable(DatabaseError),
    /// The database answers, but nothing can be planned for it.
    Unplannable(PlanError),
    /// Nothing but counters can have changed.
    Unchanged(Vec<Counter>),
    /// Looked at as a whole.
    Judged(Box<Judgement>),
}

/// A guard as it was found after everything that could be done was done.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each a part of the report")]
pub(crate) struct Judgement {
    /// Its tables.
    pub(crate) tables: Vec<TableStatus>,
    /// Declared names that match nothing.
    pub(crate) missing: Vec<String>,
    /// Relations that cannot be guarded.
    pub(crate) refused: Vec<Refused>,
    /// What somebody had changed.
    pub(crate) drift: Vec<Drift>,
    /// It was not in the database before.
    pub(crate) installed_first: bool,
    /// What could not be done that is not about one table.
    failure: Option<String>,
    /// Steps are left to do.
    incomplete: bool,
    /// A step failed for want of a privilege.
    lacks_privilege: bool,
    track_counts: bool,
    tamper: Result<TamperFacts, String>,
}

impl Judgement {
    /// From what was found, and what was done before.
    pub(crate) fn of(ensured: Ensured) -> Self {
        let Ensured { observed, plan, tamper, progress, fingerprint: _ } = ensured;
        let mut judgement = Self {
            tables: plan.tables().to_vec(),
            missing: plan.missing().to_vec(),
            refused: plan.refused().to_vec(),
            drift: Vec::new(),
            installed_first: false,
            failure: None,
            incomplete: !plan.is_empty(),
            lacks_privilege: false,
            track_counts: observed.live.track_counts,
            tamper: tamper.map_err(|error| chain(&error)),
        };
        match progress {
            Progress::UpToDate => {}
            Progress::Busy => {
                judgement.failure =
                    Some("another session is changing the guards of this database; retried soon".to_owned());
            }
            Progress::Applied { applied, drift, first } => {
                judgement.drift = drift;
                judgement.installed_first = first;
                judgement.add(&applied);
            }
        }
        judgement
    }

    fn add(&mut self, applied: &Applied) {
        for (table, outcome) in applied.unfinished() {
            let Some(message) = outcome.problem() else { continue };
            self.lacks_privilege |= outcome.lacks_privilege();
            let Some(table) = table else {
                self.failure = Some(message);
                continue;
            };
            for status in self.tables.iter_mut().filter(|status| status.table == table) {
                status.message.clone_from(&message);
                if matches!(outcome, pgrail_guard::Outcome::Failed { .. }) {
                    status.state = pgrail_guard::TableState::Failed;
                }
            }
        }
    }

    /// Whether every matched table was verified.
    pub(crate) fn all_enforced(&self) -> bool {
        self.track_counts && !self.incomplete && self.failure.is_none() && self.worst().is_none()
    }

    /// Whether something that had drifted is as declared again.
    pub(super) fn repaired(&self) -> bool {
        !self.drift.is_empty() && !self.incomplete
    }

    /// Whether something is left to do that time will mend.
    pub(crate) fn pending(&self) -> bool {
        self.incomplete || self.failure.is_some()
    }

    fn worst(&self) -> Option<&TableStatus> {
        let bad = |status: &&TableStatus| status.state != pgrail_guard::TableState::Enforced;
        self.tables.iter().filter(bad).min_by_key(|status| status.state)
    }
}

impl Outcome {
    /// Whether the guard was looked at in the database.
    pub(super) fn was_seen(&self) -> bool {
        matches!(self, Self::Unchanged(_) | Self::Judged(_))
    }

    /// Attempts on each table since the status was last written: table, more, in all.
    pub(super) fn attempts_since(&self, told: Option<&TableGuardStatus>) -> Vec<(String, u64, i64)> {
        let mut before: HashMap<&str, i64> = HashMap::new();
        for table in told.iter().flat_map(|status| &status.tables) {
            before.insert(&table.table, table.blocked_attempts);
        }
        let now: Vec<(&str, i64)> = match self {
            Self::Unchanged(counters) => counters.iter().map(|it| (it.table.as_str(), it.blocked_attempts)).collect(),
            Self::Judged(judgement) => {
                judgement.tables.iter().map(|it| (it.table.as_str(), it.blocked_attempts)).collect()
            }
            _ => Vec::new(),
        };
        now.into_iter()
            .filter_map(|(table, total)| {
                let more = u64::try_from(total - before.get(table).copied().unwrap_or(0)).ok()?;
                (more > 0).then(|| (table.to_owned(), more, total))
            })
            .collect()
    }
}

/// The status that the guard should have.
pub(crate) fn status(guard: &TableGuard, outcome: &Outcome, now: Timestamp) -> TableGuardStatus {
    let mut status = guard.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&status.conditions, guard.metadata.generation, now);
    if !outcome.attempts_since(guard.status.as_ref()).is_empty() {
        status.last_blocked_time = Some(Time(whole_seconds(now)));
    }
    match outcome {
        Outcome::Unchanged(counters) => {
            count(&mut status, counters);
            status.observed_generation = guard.metadata.generation;
            return status;
        }
        Outcome::Judged(judgement) => {
            judged(&mut status, judgement);
            judge(guard, judgement, &mut conditions);
        }
        Outcome::Blocked(absent) if absent.reason == reasons::SUSPENDED => {
            conditions.set(READY, Status::Unknown, absent.reason, &absent.message);
            unknown(&mut conditions, absent.reason, &absent.message);
        }
        Outcome::Blocked(absent) => {
            conditions.stalled(absent.reason, &absent.message);
            unknown(&mut conditions, absent.reason, &absent.message);
        }
        Outcome::Refused(refused) => {
            let message = format!("{}: {}", refused.field, refused.source);
            conditions.stalled(reasons::INVALID_SPEC, &message);
            kept(&mut conditions, reasons::INVALID_SPEC, &message);
        }
        Outcome::Unreachable(error) => {
            let message = format!("the last known state stands: {}", error.message);
            conditions.set(READY, Status::False, guard_reasons::DATABASE_UNREACHABLE, &message);
            kept(&mut conditions, guard_reasons::DATABASE_UNREACHABLE, &error.message);
        }
        Outcome::Unplannable(error) => {
            let (reason, remedy) = unplannable(error);
            conditions.stalled(reason, format!("{error}{remedy}"));
            unknown(&mut conditions, reason, &error.to_string());
        }
    }
    status.observed_generation = guard.metadata.generation;
    status.conditions = conditions.finish();
    status
}

/// What was known before nothing could be looked at any more; what was never known is unknown, and why.
fn kept(conditions: &mut Conditions, reason: &str, message: &str) {
    unknown(conditions, reason, message);
    for kind in [ENFORCED, DROP_PROTECTED, TAMPER_RESISTANT] {
        conditions.keep(kind);
    }
}

fn unknown(conditions: &mut Conditions, reason: &str, message: &str) {
    for kind in [ENFORCED, DROP_PROTECTED, TAMPER_RESISTANT] {
        conditions.set(kind, Status::Unknown, reason, message);
    }
}

fn unplannable(error: &PlanError) -> (&'static str, &'static str) {
    match error {
        PlanError::OwnedByOther { .. } => (
            guard_reasons::OWNED_BY_OTHER,
            ": delete the guards there, or annotate this one with pgrail.dev/take-over: \"true\"",
        ),
        PlanError::NewerSchema { .. } => {
            (guard_reasons::DATABASE_NOT_READY, ": use that version of pgrail or a newer one")
        }
        PlanError::ReadOnlyServer => (reasons::database::READ_ONLY_SERVER, ": point the connection at the primary"),
        PlanError::UnsupportedVersion { .. } => (reasons::database::UNSUPPORTED_VERSION, ""),
        PlanError::SchemaOfOther { .. } => {
            (guard_reasons::NO_PRIVILEGE, ": connect as that role, or make pgrail's role a member of it")
        }
        PlanError::Published { .. } | PlanError::Spec(_) => (reasons::INVALID_SPEC, ""),
    }
}

fn count(status: &mut TableGuardStatus, counters: &[Counter]) {
    let by_table: HashMap<&str, i64> = counters.iter().map(|it| (it.table.as_str(), it.blocked_attempts)).collect();
    for table in &mut status.tables {
        if let Some(attempts) = by_table.get(table.table.as_str()) {
            table.blocked_attempts = *attempts;
        }
    }
    status.blocked_attempts = Some(counters.iter().map(|it| it.blocked_attempts).sum());
}

fn judged(status: &mut TableGuardStatus, judgement: &Judgement) {
    let enforced = |it: &&TableStatus| it.state == pgrail_guard::TableState::Enforced;
    let matched = judgement.tables.iter().filter(|it| it.state != pgrail_guard::TableState::Missing);
    status.tables_matched = i64::try_from(matched.count()).ok();
    let enforced = if judgement.track_counts { judgement.tables.iter().filter(enforced).count() } else { 0 };
    status.tables_enforced = i64::try_from(enforced).ok();
    status.blocked_attempts = Some(judgement.tables.iter().map(|it| it.blocked_attempts).sum());
    let repairs = status.drift_repairs.unwrap_or(0);
    status.drift_repairs = Some(repairs + i64::from(judgement.repaired()));
    status.tables = rows(&status.tables, judgement);
}

/// The tables worst first; beyond the first 200 summed in one row.
fn rows(told: &[GuardedTable], judgement: &Judgement) -> Vec<GuardedTable> {
    let told: HashMap<&str, i64> = told.iter().map(|it| (it.table.as_str(), it.rows_at_risk)).collect();
    let mut rows: Vec<GuardedTable> = judgement
        .tables
        .iter()
        .map(|it| GuardedTable {
            table: it.table.clone(),
            state: state(it.state),
            closure: i64::try_from(it.closure).unwrap_or(i64::MAX),
            rows_at_risk: steady(told.get(it.table.as_str()).copied(), two_digits(it.rows_at_risk)),
            blocked_attempts: it.blocked_attempts,
            message: truncated(&it.message, LONGEST_TABLE_MESSAGE),
        })
        .chain(judgement.refused.iter().map(|it| GuardedTable {
            table: it.table.clone(),
            state: TableState::Failed,
            closure: 0,
            rows_at_risk: 0,
            blocked_attempts: 0,
            message: it.reason.clone(),
        }))
        .collect();
    let rank = |it: &GuardedTable| match it.state {
        TableState::Failed => 0,
        TableState::Drifted => 1,
        TableState::Missing => 2,
        TableState::Pending => 3,
        TableState::Degraded => 4,
        TableState::Enforced => 5,
    };
    rows.sort_by(|a, b| rank(a).cmp(&rank(b)).then(b.rows_at_risk.cmp(&a.rows_at_risk)).then(a.table.cmp(&b.table)));
    if rows.len() > LISTED {
        let rest = rows.split_off(LISTED - 1);
        rows.push(GuardedTable {
            table: format!("{} more", rest.len()),
            state: rest.first().map_or(TableState::Enforced, |it| it.state),
            closure: rest.iter().map(|it| it.closure).max().unwrap_or(0),
            rows_at_risk: rest.iter().map(|it| it.rows_at_risk).sum(),
            blocked_attempts: rest.iter().map(|it| it.blocked_attempts).sum(),
            message: String::new(),
        });
    }
    rows
}

/// An estimate that moved by less than a tenth has not moved: statistics tremble.
fn steady(told: Option<i64>, now: i64) -> i64 {
    told.filter(|told| (told - now).abs() * 10 <= *told).unwrap_or(now)
}

fn state(state: pgrail_guard::TableState) -> TableState {
    match state {
        pgrail_guard::TableState::Failed => TableState::Failed,
        pgrail_guard::TableState::Drifted => TableState::Drifted,
        pgrail_guard::TableState::Missing => TableState::Missing,
        pgrail_guard::TableState::Pending => TableState::Pending,
        pgrail_guard::TableState::Degraded => TableState::Degraded,
        pgrail_guard::TableState::Enforced => TableState::Enforced,
    }
}

fn judge(guard: &TableGuard, judgement: &Judgement, conditions: &mut Conditions) {
    let (ready, reason, message) = ready(judgement);
    if judgement.refused.is_empty() {
        conditions.set(READY, ready, reason, message);
    } else {
        conditions.stalled(reason, message);
    }
    let (enforced, reason, message) = enforced(guard, judgement);
    conditions.set(ENFORCED, enforced, reason, message);
    super::protection::report(&judgement.tables, judgement.tamper.as_ref().map_err(String::as_str), conditions);
}

/// Applied to everything that exists and matches.
fn ready(judgement: &Judgement) -> (Status, &'static str, String) {
    use pgrail_guard::TableState::{Drifted, Failed, Pending};
    if let Some(refused) = judgement.refused.first() {
        let message = format!(
            "spec.tables names {}, which cannot be guarded: {}. Name tables only",
            refused.table, refused.reason
        );
        return (Status::False, guard_reasons::NOT_A_TABLE, message);
    }
    if let Some(failure) = &judgement.failure {
        return (Status::False, guard_reasons::INSTALL_FAILED, failure.clone());
    }
    match judgement.worst() {
        Some(worst) if worst.state == Failed => {
            (Status::False, guard_reasons::INSTALL_FAILED, format!("{}: {}", worst.table, worst.message))
        }
        Some(worst) if worst.state == Drifted => {
            (Status::False, guard_reasons::DRIFTED, format!("{}: {}", worst.table, worst.message))
        }
        _ => match judgement.tables.iter().find(|it| it.state == Pending) {
            Some(pending) => {
                (Status::False, guard_reasons::INSTALLING, format!("{}: {}", pending.table, pending.message))
            }
            None => (Status::True, reasons::AS_DECLARED, "applied to every table that exists and matches".to_owned()),
        },
    }
}

/// Verified to stop DELETE and TRUNCATE.
fn enforced(guard: &TableGuard, judgement: &Judgement) -> (Status, &'static str, String) {
    use pgrail_guard::TableState::{Degraded, Drifted, Enforced, Failed, Missing, Pending};
    let no = Status::False;
    if !judgement.track_counts {
        let message =
            "the server's setting track_counts is off, so that it counts no rows and nothing is stopped: set it to on";
        return (no, guard_reasons::TRACK_COUNTS_OFF, message.to_owned());
    }
    if guard.spec.mode == GuardMode::Warn {
        let message = "mode Warn lets everything pass and warns the client: set spec.mode to Enforce";
        return (no, guard_reasons::WARN, message.to_owned());
    }
    if !judgement.missing.is_empty() {
        let message = format!("no such table: {}. It is guarded as soon as it exists", listed(&judgement.missing));
        return (no, guard_reasons::TABLES_MISSING, message);
    }
    if let Some(refused) = judgement.refused.first() {
        return (no, guard_reasons::NOT_A_TABLE, format!("{}: {}", refused.table, refused.reason));
    }
    let Some(worst) = judgement.worst() else {
        if let Some(failure) = &judgement.failure {
            return (no, guard_reasons::INSTALLING, failure.clone());
        }
        if judgement.tables.is_empty() {
            return (no, guard_reasons::TABLES_MISSING, "spec.tables matches no table".to_owned());
        }
        let count = judgement.tables.len();
        return (
            Status::True,
            guard_reasons::VERIFIED,
            format!("DELETE and TRUNCATE are limited on {count} of {count} tables"),
        );
    };
    let reason = match worst.state {
        Failed if judgement.lacks_privilege => guard_reasons::NO_PRIVILEGE,
        Failed => guard_reasons::INSTALL_FAILED,
        Drifted => guard_reasons::DRIFTED,
        Missing => guard_reasons::TABLES_MISSING,
        Pending => guard_reasons::INSTALLING,
        Degraded => guard_reasons::NO_PRIVILEGE,
        Enforced => guard_reasons::VERIFIED,
    };
    (no, reason, format!("{}: {}", worst.table, worst.message))
}
