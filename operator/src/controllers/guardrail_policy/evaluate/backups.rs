//! The rules `backups.*`.

use super::{Evaluation, Facts, Rule, after, names};
use crate::backup_jobs::record::{counted, is_of_database, proof, snapshot_time};
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{BackupRules, BackupSchedule, DatabaseBackup, VerificationLevel};
use std::time::Duration;

/// The causes of a partial backup that a schedule can declare.
const DECLARED: [&str; 3] = ["Schemas", "ExcludeTables", "ExcludeTableData"];

pub(super) fn evaluate(rules: &BackupRules, facts: &Facts<'_>, now: Timestamp, evaluation: &mut Evaluation) {
    let is_kept = |schedule: &&&BackupSchedule| schedule.metadata.deletion_timestamp.is_none();
    let schedules: Vec<&BackupSchedule> = facts.schedules.iter().filter(is_kept).copied().collect();
    if schedules.is_empty() {
        if rules.required {
            let message = "no BackupSchedule of this database exists: create one";
            evaluation.find(Rule::BackupRequired, "", message);
        }
        return;
    }
    let uid = facts.database.uid().unwrap_or_default();
    let of_it: Vec<&DatabaseBackup> =
        facts.backups.iter().copied().filter(|backup| is_of_database(backup, &uid)).collect();
    let allowed: &[&str] = if rules.allow_partial { &DECLARED } else { &[] };
    let counts = |backup: &&DatabaseBackup, allowed: &[&str]| counted(backup, allowed, now).is_ok();
    let counting: Vec<&DatabaseBackup> = of_it.iter().copied().filter(|it| counts(it, allowed)).collect();
    if counting.is_empty() && of_it.iter().any(|it| counts(it, &DECLARED)) {
        let message = "its backups do not contain the whole database: remove spec.dump.schemas, excludeTables and \
                       excludeTableData of the BackupSchedule, or create another one without them";
        evaluation.find(Rule::AllowPartial, names(schedules), message);
        return;
    }
    let object = names(schedules.iter().copied());
    let newest = counting.iter().map(|it| snapshot_time(it)).max();
    let remedy = "see the conditions of the BackupSchedule";
    within(Rule::MaxAge, rules.max_age.into(), newest, "verified backup", remedy, &object, now, evaluation);
    let read_back = |it: &&&DatabaseBackup| proof(it) >= VerificationLevel::ReadBack;
    let verified = counting.iter().filter(read_back).map(|it| verified_at(it)).max();
    let remedy = "set spec.verification.level of the BackupSchedule to ReadBack";
    within(Rule::VerifiedWithin, rules.verified_within.into(), verified, "read-back", remedy, &object, now, evaluation);
    let by_schedule = schedules.iter().filter_map(|it| it.status.as_ref()?.last_drill_time.as_ref()).map(|time| time.0);
    let by_backup = counting.iter().filter(|it| proof(it) == VerificationLevel::Drill).map(|it| verified_at(it));
    let drilled = by_schedule.chain(by_backup).max();
    let declared = schedules.iter().any(|it| it.spec.verification.drill.is_some());
    let remedy = if declared {
        "see the condition Drilled of the BackupSchedule"
    } else {
        "no BackupSchedule declares spec.verification.drill: declare it, or set backups.drilledWithin of the policy to 0s"
    };
    within(Rule::DrilledWithin, rules.drilled_within.into(), drilled, "drill", remedy, &object, now, evaluation);
}

/// What a rule demands must be at most `longest` old. Zero: it is not demanded.
#[allow(clippy::too_many_arguments, reason = "each is one part of the sentence")]
fn within(
    rule: Rule,
    longest: Duration,
    last: Option<Timestamp>,
    what: &str,
    remedy: &str,
    object: &str,
    now: Timestamp,
    evaluation: &mut Evaluation,
) {
    if longest.is_zero() {
        return;
    }
    match last {
        None => evaluation.find(rule, object, format!("there is no {what}: {remedy}")),
        Some(last) if after(last, longest) < now => {
            let hours = longest.as_secs() / 3600;
            evaluation.find(rule, object, format!("the last {what} is of {last}, more than {hours}h ago: {remedy}"));
        }
        Some(last) => evaluation.changes_at(after(last, longest)),
    }
}

/// When a backup was verified; before that was recorded, its snapshot.
fn verified_at(backup: &DatabaseBackup) -> Timestamp {
    let verification = backup.status.as_ref().and_then(|status| status.verification.as_ref());
    verification.and_then(|it| it.time.as_ref()).map_or_else(|| snapshot_time(backup), |time| time.0)
}
