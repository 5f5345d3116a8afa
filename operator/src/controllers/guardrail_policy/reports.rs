//! Results as OpenReports: one `Report` for each policy in each of its namespaces, where the cluster has the kind. A report is
//! written only when its results changed.

use super::CONTROLLER;
use super::assess::{Assessment, Member};
use super::fleet::{Fleet, REPORT};
use super::templates::{label, labels};
use crate::backup_jobs::names::bounded;
use crate::context::Context;
use crate::kubernetes::optional::{Found, Objects};
use crate::kubernetes::text::chain;
use futures::{StreamExt, stream};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::GuardrailPolicy;
use pgrail_crds::annotations::{POLICY_LABEL, RESULTS_HASH};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// Requests to the apiserver at the same time.
const REQUESTS: usize = 8;
/// Results of one report: the others are counted in its summary.
const RESULTS: usize = 500;
/// The longest name of a report.
const LONGEST_NAME: usize = 253;

/// Writes what changed, and removes the reports of namespaces that the policy does not select any more. A report that cannot
/// be written is logged: it never fails the policy.
pub(super) async fn write(policy: &GuardrailPolicy, assessment: &Assessment, fleet: &Fleet, context: &Context) {
    let Objects::Listed(found) = fleet.reports.objects() else { return };
    let of_policy = label(&policy.name_any());
    let found: HashMap<&str, &Found> = found
        .iter()
        .filter(|report| report.labels.get(POLICY_LABEL) == Some(&of_policy))
        .map(|report| (report.namespace.as_str(), report))
        .collect();
    let wanted = by_namespace(assessment);
    let stale = found.values().filter(|report| !wanted.contains_key(report.namespace.as_str()));
    let deletions: Vec<_> = stale.map(|report| (report.namespace.clone(), report.name.clone())).collect();
    let changed = wanted.into_iter().filter_map(|(namespace, members)| {
        let report = report(policy, namespace, &members);
        let hash = report["metadata"]["annotations"][RESULTS_HASH].as_str();
        let is_new = found.get(namespace).and_then(|it| it.annotation.as_deref()) != hash;
        is_new.then(|| (namespace.to_owned(), report))
    });
    let changed: Vec<_> = changed.collect();
    let api = &|namespace: &str| -> Api<DynamicObject> {
        Api::namespaced_with(context.client.clone(), namespace, &REPORT.resource())
    };
    stream::iter(changed)
        .for_each_concurrent(REQUESTS, |(namespace, report)| async move {
            let name = report["metadata"]["name"].as_str().unwrap_or_default();
            let parameters = PatchParams::apply(super::apply::FIELD_MANAGER).force();
            if let Err(error) = api(&namespace).patch(name, &parameters, &Patch::Apply(&report)).await {
                tracing::warn!(controller = CONTROLLER, namespace, error = %chain(&error), "could not write a Report");
            }
        })
        .await;
    for (namespace, name) in deletions {
        match api(&namespace).delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => {
                tracing::warn!(controller = CONTROLLER, namespace, error = %chain(&error), "could not delete a Report");
            }
            Ok(_) => {}
        }
    }
}

fn by_namespace(assessment: &Assessment) -> BTreeMap<&str, Vec<&Member>> {
    let mut namespaces: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in &assessment.members {
        namespaces.entry(&member.namespace).or_default().push(member);
    }
    namespaces
}

/// The report of one namespace.
fn report(policy: &GuardrailPolicy, namespace: &str, members: &[&Member]) -> Value {
    let name = policy.name_any();
    let result = |member: &Member, result: &str, more: Value| {
        let mut value = json!({
            "source": "pgrail", "policy": name, "result": result, "scored": true, "category": "Database guardrails",
            "resources": [{"apiVersion": "pgrail.dev/v1alpha1", "kind": "ProtectedDatabase", "namespace": namespace, "name": member.name}],
        });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    };
    let mut results = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for member in members {
        if member.findings.is_empty() {
            passed += 1;
            results.push(result(member, "pass", json!({"message": "the database is compliant"})));
        }
        for finding in &member.findings {
            failed += 1;
            let mut more = json!({
                "rule": finding.rule.as_str(), "message": finding.message, "severity": finding.rule.severity(),
            });
            if !finding.object.is_empty() {
                more["properties"] = json!({"object": finding.object});
            }
            results.push(result(member, "fail", more));
        }
    }
    // Failures first, so that none of them is what is left out.
    results.sort_by_key(|result| result["result"] == "pass");
    results.truncate(RESULTS);
    let summary = json!({"pass": passed, "fail": failed, "warn": 0, "error": 0, "skip": 0});
    let content = json!({"results": results, "summary": summary});
    json!({
        "apiVersion": format!("{}/{}", REPORT.group, REPORT.version), "kind": REPORT.kind,
        "metadata": {
            "name": bounded(&format!("pgrail-{name}"), LONGEST_NAME), "namespace": namespace, "labels": labels(&name),
            "annotations": {RESULTS_HASH: hash(&content)},
            // Deleted by Kubernetes with the policy.
            "ownerReferences": policy.controller_owner_ref(&()).into_iter().collect::<Vec<_>>(),
        },
        "source": "pgrail", "scope": {"apiVersion": "v1", "kind": "Namespace", "name": namespace},
        "summary": summary, "results": content["results"],
    })
}

fn hash(content: &Value) -> String {
    Sha256::digest(content.to_string()).iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::evaluate::{Finding, Rule};
    use super::*;

    fn policy() -> GuardrailPolicy {
        serde_json::from_value(json!({"metadata": {"name": "floor", "uid": "u"}, "spec": {}})).unwrap()
    }

    fn member(name: &str, findings: Vec<Finding>) -> Member {
        Member { namespace: "shop".into(), name: name.into(), findings, ..Member::default() }
    }

    #[test]
    fn violations_fail_and_compliant_databases_pass() {
        let violated = member("a", vec![Finding::new(Rule::MaxAge, "nightly", "late")]);
        let compliant = member("b", Vec::new());
        let report = report(&policy(), "shop", &[&compliant, &violated]);
        assert_eq!(report["metadata"]["name"], "pgrail-floor");
        assert_eq!(report["summary"], json!({"pass": 1, "fail": 1, "warn": 0, "error": 0, "skip": 0}));
        assert_eq!(report["results"][0]["rule"], "backups.maxAge");
        assert_eq!(report["results"][0]["properties"]["object"], "nightly");
        assert_eq!(report["results"][1]["result"], "pass");
        assert_eq!(report["metadata"]["ownerReferences"][0]["name"], "floor", "deleted with the policy");
    }

    #[test]
    fn only_other_results_are_another_hash() {
        let of = |message: &str| {
            let violated = member("a", vec![Finding::new(Rule::MaxAge, "", message)]);
            report(&policy(), "shop", &[&violated])["metadata"]["annotations"][RESULTS_HASH].clone()
        };
        assert_eq!(of("late"), of("late"));
        assert_ne!(of("late"), of("later"));
    }

    #[test]
    fn the_number_of_results_is_bounded_and_the_summary_counts_all() {
        let many: Vec<Finding> =
            (0..600).map(|number| Finding::new(Rule::MinRowsAtRisk, format!("t{number}"), "")).collect();
        let (violated, compliant) = (member("a", many), member("b", Vec::new()));
        let report = report(&policy(), "shop", &[&compliant, &violated]);
        assert_eq!(report["results"].as_array().unwrap().len(), RESULTS);
        assert_eq!((report["summary"]["fail"].as_i64(), report["summary"]["pass"].as_i64()), (Some(600), Some(1)));
    }
}
