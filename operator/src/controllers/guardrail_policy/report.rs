//! The status of a policy. Pure.

use super::assess::Assessment;
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::listed;
use jiff::Timestamp;
use pgrail_crds::conditions::{COMPLIANT, READY};
use pgrail_crds::{GuardrailPolicy, GuardrailPolicyStatus, Violation};

/// Violations, and excluded databases, that the status lists.
const LISTED: usize = 100;
/// Bytes of these lists: the whole status stays below 64 KiB.
const VIOLATION_BYTES: usize = 40 * 1024;
const EXCLUDED_BYTES: usize = 16 * 1024;
/// What a violation has besides its texts, in JSON.
const VIOLATION_OVERHEAD: usize = 64;

/// The status that the policy should have.
pub(super) fn report(policy: &GuardrailPolicy, assessment: &Assessment, now: Timestamp) -> GuardrailPolicyStatus {
    let mut status = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation;
    let violations = assessment.violations();
    let mut conditions = Conditions::new(&status.conditions, generation, now);
    match assessment.rejections.first() {
        Some(rejection) => {
            conditions.stalled(rejection.reason, &rejection.message);
        }
        None => {
            conditions.set(READY, Status::True, Reason::AsDeclared, "every selected database is checked");
        }
    }
    let (holds, reason, message) = compliance(assessment, &violations);
    conditions.set(COMPLIANT, holds, reason, message);
    let number = |count: usize| i64::try_from(count).ok();
    status.databases = number(assessment.members.len());
    status.compliant = number(assessment.compliant());
    status.excluded_count = number(assessment.excluded.len());
    status.violation_count = number(violations.len());
    let mut excluded = assessment.excluded.clone();
    excluded.sort();
    status.excluded = bounded(excluded, EXCLUDED_BYTES, |name| name.len() + 4);
    status.violations = bounded(violations, VIOLATION_BYTES, size);
    status.observed_generation = generation;
    status.conditions = conditions.finish();
    status
}

fn compliance(assessment: &Assessment, violations: &[Violation]) -> (Status, Reason, String) {
    let (all, compliant) = (assessment.members.len(), assessment.compliant());
    if !violations.is_empty() {
        let mut databases: Vec<String> = Vec::new();
        for violation in violations {
            if !databases.contains(&violation.database) && databases.len() < LISTED {
                databases.push(violation.database.clone());
            }
        }
        let message = format!(
            "{} of {all} databases are not compliant, with {} violations: {}",
            all - compliant,
            violations.len(),
            listed(&databases)
        );
        return (Status::False, Reason::ViolationsFound, message);
    }
    if !assessment.unknown.is_empty() {
        let message = format!("not known, since {}", listed(&assessment.unknown));
        return (Status::Unknown, Reason::NotKnown, message);
    }
    if all == 0 {
        let excluded = assessment.excluded.len();
        let message = format!("the policy selects no database ({excluded} excluded): see spec.namespaceSelector");
        return (Status::Unknown, Reason::NoDatabases, message);
    }
    (Status::True, Reason::AllCompliant, format!("{all} of {all} databases are compliant"))
}

/// The first ones, within a number and a size.
fn bounded<T>(items: Vec<T>, bytes: usize, size: impl Fn(&T) -> usize) -> Vec<T> {
    let mut used = 0;
    let fits = |item: &T| {
        used += size(item);
        used <= bytes
    };
    items.into_iter().take(LISTED).take_while(fits).collect()
}

/// Bytes of a violation in JSON. Characters that JSON escapes are counted as six.
fn size(violation: &Violation) -> usize {
    let Violation { database, rule, object, message } = violation;
    let bytes = |it: char| if it.is_control() || "\"\\".contains(it) { 6 } else { it.len_utf8() };
    let texts = [database, rule, object, message];
    texts.into_iter().flat_map(|text| text.chars()).map(bytes).sum::<usize>() + VIOLATION_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::super::assess::Member;
    use super::super::evaluate::{Finding, Rule};
    use super::*;
    use crate::kubernetes::rejection::Rejection;
    use serde_json::json;

    fn policy() -> GuardrailPolicy {
        serde_json::from_value(json!({"metadata": {"name": "floor", "generation": 3}, "spec": {}})).unwrap()
    }

    fn member(name: &str, rules: &[Rule]) -> Member {
        let findings = rules.iter().map(|rule| Finding::new(*rule, "", "why")).collect();
        Member { namespace: "shop".into(), name: name.into(), findings, ..Member::default() }
    }

    fn of(assessment: &Assessment) -> GuardrailPolicyStatus {
        report(&policy(), assessment, Timestamp::UNIX_EPOCH)
    }

    fn compliant(status: &GuardrailPolicyStatus) -> (&str, &str) {
        let condition = status.conditions.iter().find(|it| it.type_ == COMPLIANT).unwrap();
        (&condition.status, &condition.reason)
    }

    #[test]
    fn one_violation_is_enough_and_the_most_severe_is_first() {
        let members = vec![member("a", &[Rule::DrilledWithin]), member("b", &[]), member("c", &[Rule::Undeclared])];
        let status = of(&Assessment { members, ..Assessment::default() });
        assert_eq!(compliant(&status), ("False", "ViolationsFound"));
        assert_eq!((status.databases, status.compliant, status.violation_count), (Some(3), Some(1), Some(2)));
        let first = &status.violations[0];
        assert_eq!((first.database.as_str(), first.rule.as_str()), ("shop/c", "Undeclared"));
    }

    #[test]
    fn what_is_not_known_is_not_compliant() {
        assert_eq!(compliant(&of(&Assessment::default())), ("Unknown", "NoDatabases"));
        let members = vec![member("a", &[])];
        let unknown = vec!["clusters.postgresql.cnpg.io cannot be listed".to_owned()];
        assert_eq!(
            compliant(&of(&Assessment { members: members.clone(), unknown, ..Assessment::default() })),
            ("Unknown", "NotKnown")
        );
        assert_eq!(compliant(&of(&Assessment { members, ..Assessment::default() })), ("True", "AllCompliant"));
    }

    #[test]
    fn what_cannot_be_used_stalls_and_the_rest_is_evaluated() {
        let rejections = vec![Rejection::new(Reason::InvalidSpec, "spec.namespaceSelector cannot be read")];
        let status = of(&Assessment { members: vec![member("a", &[])], rejections, ..Assessment::default() });
        assert!(status.conditions.iter().any(|it| it.type_ == "Stalled" && it.reason == "InvalidSpec"));
        assert_eq!(compliant(&status), ("True", "AllCompliant"));
    }

    #[test]
    fn the_status_is_bounded_and_counts_all() {
        let long = "ä\"".repeat(150);
        let findings: Vec<Finding> =
            (0..50).map(|number| Finding::new(Rule::MinRowsAtRisk, format!("{long}.{number}"), long.clone())).collect();
        let members: Vec<Member> = (0..40)
            .map(|number| Member {
                namespace: "n".repeat(63),
                name: format!("{}{number}", "d".repeat(240)),
                findings: findings.clone(),
                ..Member::default()
            })
            .collect();
        let excluded = (0..300).map(|number| format!("{}/{number}", "e".repeat(300))).collect();
        let status = of(&Assessment { members, excluded, ..Assessment::default() });
        let bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(bytes <= 64 * 1024, "{bytes} bytes");
        assert_eq!((status.violation_count, status.excluded_count), (Some(2000), Some(300)));
        assert!(status.violations.len() > 10 && status.violations.len() <= LISTED);
        assert!(status.excluded.len() > 10 && status.excluded.len() <= LISTED);
    }
}
