//! Which databases are compliant, worst first: for `kubectl pgrail status` and for the page. Evaluated by the rules of the
//! operator; what only the operator knows is taken from the status of the policies. Pure.

use super::evaluate::{Facts, Rule, evaluate};
use super::fleet::Index;
use super::select::Selection;
use crate::controllers::checks::Checks;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::conditions::ENFORCED;
use pgrail_crds::{GuardrailPolicy, GuardrailPolicySpec, ProtectedDatabase, TableGuard, Violation};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The name under which violations of the default rules are counted.
pub(crate) const DEFAULT_RULES: &str = "(default rules)";

/// One database.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    api_version: &'static str,
    kind: &'static str,
    pub(crate) metadata: Metadata,
    pub(crate) compliant: bool,
    /// Excluded by every policy that selects its namespace.
    pub(crate) excluded: bool,
    pub(crate) guards: usize,
    pub(crate) guards_enforced: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unguarded_at_risk: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_verified_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_drill_time: Option<Timestamp>,
    /// The policies that it was evaluated by; empty: the default rules.
    pub(crate) policies: Vec<String>,
    pub(crate) violations: Vec<Violation>,
    /// Violations by the policy that demands otherwise. One violation can be of several policies.
    pub(crate) violations_by_policy: BTreeMap<String, usize>,
    #[serde(skip)]
    pub(crate) worst: Option<Rule>,
}

/// The database of a [`Row`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Metadata {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Row {
    /// A database of which nothing but one violation is known.
    pub(crate) fn violating(namespace: &str, name: &str, rule: Rule, violation: Violation) -> Self {
        Self {
            api_version: "pgrail.dev/v1alpha1",
            kind: "ProtectedDatabase",
            metadata: Metadata { namespace: namespace.to_owned(), name: name.to_owned() },
            compliant: false,
            excluded: false,
            guards: 0,
            guards_enforced: 0,
            unguarded_at_risk: None,
            last_verified_time: None,
            last_drill_time: None,
            policies: Vec::new(),
            violations: vec![violation],
            violations_by_policy: BTreeMap::new(),
            worst: Some(rule),
        }
    }

    /// A `ProtectedDatabase` that cannot be read as its type.
    pub(crate) fn unreadable(namespace: &str, name: &str) -> Self {
        let violation = Violation {
            database: format!("{namespace}/{name}"),
            rule: Rule::NotReady.as_str().to_owned(),
            object: String::new(),
            message: UNREADABLE.to_owned(),
        };
        Self::violating(namespace, name, Rule::NotReady, violation)
    }
}

/// Of a `ProtectedDatabase` that cannot be read as its type.
pub(super) const UNREADABLE: &str = "this ProtectedDatabase cannot be read as its type: see its condition Stalled";

/// Sorts databases: the worst first.
pub(crate) fn worst_first(rows: &mut [Row]) {
    rows.sort_by(|a, b| {
        let rank = |row: &Row| (row.worst.is_none(), row.worst, Reverse(row.violations.len()));
        let name = |row: &Row| (row.metadata.namespace.clone(), row.metadata.name.clone());
        rank(a).cmp(&rank(b)).then_with(|| name(a).cmp(&name(b)))
    });
}

/// The policies, and the labels of the namespaces.
pub(crate) struct Policies {
    policies: Vec<(GuardrailPolicy, Selection)>,
    /// Absent: not known, so that every policy could be for it.
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

/// Evaluates databases, each with the objects that refer to it. `checks`: when they were last checked, where that is known.
pub(crate) fn rows<'a>(
    databases: impl IntoIterator<Item = &'a ProtectedDatabase>,
    index: &Index<'a>,
    policies: &Policies,
    checks: Option<&Checks>,
    now: Timestamp,
) -> Vec<Row> {
    databases.into_iter().map(|it| row(&index.facts(it, checks, now), policies, now)).collect()
}

impl Policies {
    /// `labels` of the namespaces, as far as they are known.
    pub(crate) fn new(
        policies: impl IntoIterator<Item = GuardrailPolicy>,
        labels: BTreeMap<String, BTreeMap<String, String>>,
    ) -> Self {
        let selections = policies.into_iter().map(|policy| {
            let selection = Selection::of(&policy.spec);
            (policy, selection)
        });
        Self { policies: selections.collect(), labels }
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &(GuardrailPolicy, Selection)> {
        let labels = self.labels.get(namespace);
        self.policies.iter().filter(move |(_, selection)| labels.is_none_or(|labels| selection.selects(labels)))
    }

    /// Clusters of other operators without a `ProtectedDatabase`, as the operator found them.
    pub(crate) fn undeclared(&self, scope: Option<&str>) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (policy, _) in &self.policies {
            for violation in policy.status.iter().flat_map(|status| &status.violations) {
                let Some((namespace, name)) = violation.database.split_once('/') else { continue };
                if violation.rule != Rule::Undeclared.as_str() || scope.is_some_and(|scope| scope != namespace) {
                    continue;
                }
                let known = rows.iter_mut().find(|row| {
                    row.violations.iter().any(|it| it.object == violation.object && it.database == violation.database)
                });
                let of_policy = if let Some(row) = known {
                    row
                } else {
                    rows.push(Row::violating(namespace, name, Rule::Undeclared, violation.clone()));
                    let Some(last) = rows.last_mut() else { continue };
                    last
                };
                of_policy.policies.push(policy.name_any());
                of_policy.violations_by_policy.insert(policy.name_any(), 1);
            }
        }
        rows
    }
}

/// Evaluates one database.
fn row(facts: &Facts<'_>, policies: &Policies, now: Timestamp) -> Row {
    let database = facts.database;
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    let label = format!("{namespace}/{name}");
    let selecting: Vec<_> = policies.of(&namespace).collect();
    let (excluding, evaluating): (Vec<_>, Vec<_>) =
        selecting.iter().copied().partition(|(_, selection)| selection.excludes(database.labels()));
    let default = GuardrailPolicy::new("", GuardrailPolicySpec::default());
    let excluded = evaluating.is_empty() && !excluding.is_empty();
    let by: Vec<&GuardrailPolicy> = match (excluded, evaluating.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => vec![&default],
        (false, false) => evaluating.iter().map(|(policy, _)| policy).collect(),
    };
    let mut findings = Vec::new();
    let mut violations_by_policy = BTreeMap::new();
    for policy in &by {
        let found = evaluate(&policy.spec, facts, now).findings;
        let name = if evaluating.is_empty() { DEFAULT_RULES.to_owned() } else { policy.name_any() };
        if !found.is_empty() {
            violations_by_policy.insert(name, found.len());
        }
        findings.extend(found);
    }
    findings.sort();
    findings.dedup();
    let mut violations: Vec<Violation> = findings.iter().map(|finding| finding.violation(&label)).collect();
    let mut worst = findings.first().map(|finding| finding.rule);
    // What only the operator knows.
    for rule in [Rule::NotChecked, Rule::GuardTemplate, Rule::ScheduleTemplate] {
        let reported = by.iter().flat_map(|policy| {
            let violations = policy.status.iter().flat_map(|status| &status.violations);
            violations.map(move |violation| (policy, violation))
        });
        for (policy, violation) in reported.filter(|(_, it)| it.database == label && it.rule == rule.as_str()) {
            if !findings.iter().any(|it| it.rule == rule && it.object == violation.object) {
                *violations_by_policy.entry(policy.name_any()).or_default() += 1;
            }
            if !violations.iter().any(|it| it.rule == violation.rule && it.object == violation.object) {
                violations.push(violation.clone());
                worst = Some(worst.map_or(rule, |worst| worst.min(rule)));
            }
        }
    }
    let enforced = |guard: &&&TableGuard| {
        let conditions = guard.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|it| {
            it.type_ == ENFORCED && it.status == "True" && it.observed_generation == guard.metadata.generation
        })
    };
    let statuses = || facts.schedules.iter().filter_map(|schedule| schedule.status.as_ref());
    Row {
        api_version: "pgrail.dev/v1alpha1",
        kind: "ProtectedDatabase",
        metadata: Metadata { namespace, name },
        compliant: violations.is_empty() && !excluded,
        excluded,
        guards: facts.guards.len(),
        guards_enforced: facts.guards.iter().filter(enforced).count(),
        unguarded_at_risk: database.status.as_ref().and_then(|status| status.unguarded_at_risk),
        last_verified_time: statuses().filter_map(|it| it.last_verified_time.as_ref()).map(|it| it.0).max(),
        last_drill_time: statuses().filter_map(|it| it.last_drill_time.as_ref()).map(|it| it.0).max(),
        policies: evaluating.iter().map(|(policy, _)| policy.name_any()).collect(),
        violations,
        violations_by_policy,
        worst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_rules_are_those_of_an_empty_policy() {
        let empty: GuardrailPolicySpec = serde_json::from_str("{}").unwrap();
        assert_eq!(GuardrailPolicySpec::default(), empty);
    }

    #[test]
    fn the_worst_database_is_the_first_and_a_compliant_one_the_last() {
        let of = |name: &str, rule| {
            let violation = Violation {
                database: String::new(),
                rule: String::new(),
                object: String::new(),
                message: String::new(),
            };
            let mut row = Row::violating("shop", name, Rule::NotReady, violation);
            row.worst = rule;
            row
        };
        let mut rows = [of("fine", None), of("late", Some(Rule::MaxAge)), of("gone", Some(Rule::Unreachable))];
        worst_first(&mut rows);
        assert_eq!(rows.map(|row| row.metadata.name), ["gone", "late", "fine"]);
    }
}
