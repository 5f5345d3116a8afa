//! Whether one database meets a policy. Pure. What is not known is a violation: never compliant.

mod backups;
mod guards;
mod rule;

use crate::kubernetes::text::truncated;
pub(crate) use guards::needs_guard;
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};
use pgrail_crds::conditions::{REACHABLE, READY};
use pgrail_crds::{
    BackupSchedule, Condition, DatabaseBackup, GuardrailPolicySpec, ProtectedDatabase, TableGuard, Violation,
};
pub(crate) use rule::Rule;

/// The longest message of a violation, in bytes: a hundred of them must fit into the status.
const LONGEST_MESSAGE: usize = 300;

/// A database, with the objects that refer to it.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) database: &'a ProtectedDatabase,
    pub(crate) guards: Vec<&'a TableGuard>,
    pub(crate) schedules: Vec<&'a BackupSchedule>,
    pub(crate) backups: Vec<&'a DatabaseBackup>,
    /// When the operator last checked the database and its guards is too long ago.
    pub(crate) overdue: Vec<Overdue>,
}

/// An object that was not checked in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// Name of the guard; empty for the database itself.
    pub(crate) guard: String,
    /// The time until which it was to be checked.
    pub(crate) due: Timestamp,
}

/// What a policy demands and a database does not meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// The table or object.
    pub(crate) object: String,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(rule: Rule, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self { rule, object: object.into(), message: truncated(&message.into(), LONGEST_MESSAGE) }
    }

    /// As the status has it.
    pub(crate) fn violation(&self, database: &str) -> Violation {
        Violation {
            database: database.to_owned(),
            rule: self.rule.as_str().to_owned(),
            object: self.object.clone(),
            message: self.message.clone(),
        }
    }
}

/// The evaluation of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evaluation {
    /// The most severe first.
    pub(crate) findings: Vec<Finding>,
    /// When it changes although no object does.
    pub(crate) next_change: Option<Timestamp>,
}

impl Evaluation {
    fn find(&mut self, rule: Rule, object: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::new(rule, object, message));
    }

    fn changes_at(&mut self, time: Timestamp) {
        self.next_change = Some(self.next_change.map_or(time, |next| next.min(time)));
    }
}

/// Evaluates a database.
pub(crate) fn evaluate(policy: &GuardrailPolicySpec, facts: &Facts<'_>, now: Timestamp) -> Evaluation {
    let mut evaluation = Evaluation::default();
    let is_known = evaluate_database(facts, &mut evaluation);
    guards::evaluate(&policy.guards, facts, is_known, &mut evaluation);
    backups::evaluate(&policy.backups, facts, now, &mut evaluation);
    evaluation.findings.sort();
    evaluation
}

/// Whether the state of the database is known.
fn evaluate_database(facts: &Facts<'_>, evaluation: &mut Evaluation) -> bool {
    let database = facts.database;
    if database.spec.suspend {
        evaluation.find(Rule::Suspended, "", "spec.suspend is true, so that nothing is checked: set it to false");
        return false;
    }
    let Some(status) = &database.status else {
        evaluation.find(Rule::NotChecked, "", "the operator has not checked this database yet");
        return false;
    };
    if let Some(reachable) = find(&status.conditions, REACHABLE)
        && reachable.status == "False"
    {
        let message = format!("{}: {}", reachable.reason, reachable.message);
        evaluation.find(Rule::Unreachable, "", message);
        return false;
    }
    let ready = find(&status.conditions, READY);
    let Some(ready) = ready.filter(|ready| is_current(database, ready)) else {
        evaluation.find(Rule::NotChecked, "", "the operator has not checked the last change of the spec yet");
        return false;
    };
    if ready.status != "True" {
        evaluation.find(Rule::NotReady, "", format!("{}: {}", ready.reason, ready.message));
        return false;
    }
    if status.unguarded_at_risk.is_none() {
        evaluation.find(Rule::NotChecked, "", "its tables were not read yet");
        return false;
    }
    for overdue in &facts.overdue {
        let message = format!("the operator did not check it until {}: read the operator's log", overdue.due);
        evaluation.find(Rule::NotChecked, &overdue.guard, message);
    }
    true
}

/// A condition by its type.
fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is of the object's present generation.
fn is_current(object: &impl Resource, condition: &Condition) -> bool {
    condition.observed_generation == object.meta().generation
}

/// The names of objects of a database, for a message.
fn names<'a, K: ResourceExt + 'a>(objects: impl IntoIterator<Item = &'a K>) -> String {
    objects.into_iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ")
}

/// A time plus a duration.
fn after(time: Timestamp, duration: std::time::Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|it| time.checked_add(it).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
