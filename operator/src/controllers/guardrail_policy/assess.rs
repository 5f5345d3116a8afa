//! The whole fleet against one policy. Pure.

use super::compliance::UNREADABLE;
use super::evaluate::{Finding, Rule, evaluate, needs_guard};
use super::fleet::Snapshot;
use super::select::Selection;
use super::templates::{Template, Templated};
use super::undeclared;
use crate::controllers::checks::Checks;
use crate::kubernetes::rejection::Rejection;
use crate::kubernetes::watch::Watched;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::{BackupSchedule, GuardrailPolicy, TableGuard, Violation};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A selected database, or a cluster without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The most severe first.
    pub(super) findings: Vec<Finding>,
    /// The templates of the policy that are for it.
    pub(super) wants_guard: bool,
    pub(super) wants_schedule: bool,
}

impl Member {
    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The templates of a policy.
pub(super) struct TemplateSet {
    pub(super) guard: Result<Option<Template<TableGuard>>, Rejection>,
    pub(super) schedule: Result<Option<Template<BackupSchedule>>, Rejection>,
}

impl TemplateSet {
    pub(super) fn of(policy: &GuardrailPolicy) -> Self {
        Self { guard: Template::of(policy), schedule: Template::of(policy) }
    }
}

/// The result for one policy.
#[derive(Debug, Default)]
pub(super) struct Assessment {
    /// In the order of their names.
    pub(super) members: Vec<Member>,
    /// Excluded databases, as `namespace/name`.
    pub(super) excluded: Vec<String>,
    /// Kinds that cannot be read.
    pub(super) unknown: Vec<String>,
    /// What of the policy cannot be used.
    pub(super) rejections: Vec<Rejection>,
    /// When it changes although no object does.
    pub(super) next_change: Option<Timestamp>,
}

impl Assessment {
    pub(super) fn compliant(&self) -> usize {
        self.members.iter().filter(|member| member.findings.is_empty()).count()
    }

    /// All violations, the most severe first.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut all: Vec<(&Finding, String)> =
            self.members.iter().flat_map(|it| it.findings.iter().map(move |finding| (finding, it.label()))).collect();
        all.sort_by(|(a, database), (b, other)| (a.rule, database, a).cmp(&(b.rule, other, b)));
        all.into_iter().map(|(finding, database)| finding.violation(&database)).collect()
    }

    /// Violations by rule.
    pub(super) fn by_rule(&self) -> HashMap<Rule, usize> {
        let mut counts = HashMap::new();
        for finding in self.members.iter().flat_map(|member| &member.findings) {
            *counts.entry(finding.rule).or_default() += 1;
        }
        counts
    }
}

/// Evaluates every selected database.
pub(super) fn assess(
    policy: &GuardrailPolicy,
    templates: &TemplateSet,
    snapshot: &Snapshot,
    checks: Option<&Checks>,
    now: Timestamp,
) -> Assessment {
    let selection = Selection::of(&policy.spec);
    let index = snapshot.index();
    let guards = by_name(&snapshot.guards);
    let schedules = by_name(&snapshot.schedules);
    let mut assessment = Assessment { unknown: snapshot.unknown.clone(), ..Assessment::default() };
    assessment.rejections.extend(selection.rejection.clone());
    assessment.rejections.extend(templates.guard.as_ref().err().cloned());
    assessment.rejections.extend(templates.schedule.as_ref().err().cloned());
    // A namespace whose labels are not known could be selected.
    let selected = |namespace: &str| snapshot.labels(namespace).is_none_or(|labels| selection.selects(labels));
    for watched in &snapshot.databases {
        let (namespace, name) = (watched.namespace().unwrap_or_default(), watched.name_any());
        if !selected(&namespace) {
            continue;
        }
        let mut member = Member { namespace, name, ..Member::default() };
        if selection.excludes(watched.labels()) {
            assessment.excluded.push(member.label());
            continue;
        }
        match &watched.0 {
            Err(_) => {
                member.findings.push(Finding::new(Rule::NotReady, "", UNREADABLE));
            }
            Ok(database) => {
                let facts = index.facts(database, checks, now);
                let evaluation = evaluate(&policy.spec, &facts, now);
                member.findings = evaluation.findings;
                let due = checks.map(|checks| {
                    let uid = database.uid().unwrap_or_default();
                    checks.due(&uid, std::time::Duration::from(database.spec.check_interval))
                });
                let next = [assessment.next_change, evaluation.next_change, due.filter(|due| *due > now)];
                assessment.next_change = next.into_iter().flatten().min();
                let key = |name| (member.namespace.clone(), name);
                if let Ok(Some(template)) = &templates.guard {
                    let own = template.name(&member.name);
                    let of_policy = |guard: &TableGuard| guard.name_any() == own;
                    let exists = guards.contains_key(&key(own.clone()));
                    member.wants_guard = exists || needs_guard(&policy.spec.guards, &facts, of_policy);
                }
                if let Ok(Some(template)) = &templates.schedule {
                    let own = template.name(&member.name);
                    let exists = schedules.contains_key(&key(own.clone()));
                    let others = facts
                        .schedules
                        .iter()
                        .any(|schedule| schedule.name_any() != own && schedule.metadata.deletion_timestamp.is_none());
                    member.wants_schedule = exists || !others;
                }
            }
        }
        assessment.members.push(member);
    }
    undeclared(snapshot, &selection, &selected, &mut assessment);
    assessment
}

/// Clusters of other operators that no `ProtectedDatabase` is of.
fn undeclared(
    snapshot: &Snapshot,
    selection: &Selection,
    selected: &impl Fn(&str) -> bool,
    assessment: &mut Assessment,
) {
    let mut by_namespace: BTreeMap<String, Vec<&pgrail_crds::ProtectedDatabase>> = BTreeMap::new();
    for database in snapshot.databases.iter().filter_map(|it| it.0.as_ref().ok()) {
        by_namespace.entry(database.namespace().unwrap_or_default()).or_default().push(database);
    }
    for (kind, cluster) in snapshot.clusters.iter().filter(|(_, cluster)| selected(&cluster.namespace)) {
        let declared = by_namespace.get(&cluster.namespace).into_iter().flatten();
        if cluster.is_deleted || declared.into_iter().any(|it| undeclared::is_of(it, kind, cluster)) {
            continue;
        }
        let object = format!("{}.{}/{}", kind.plural, kind.group, cluster.name);
        let finding = Finding::new(Rule::Undeclared, object, undeclared::message(kind, cluster));
        let member = Member {
            namespace: cluster.namespace.clone(),
            name: cluster.name.clone(),
            findings: vec![finding],
            ..Member::default()
        };
        if selection.excludes(&cluster.labels) {
            assessment.excluded.push(member.label());
        } else {
            assessment.members.push(member);
        }
    }
}

/// Objects by namespace and name.
pub(super) fn by_name<K: Templated>(objects: &[Arc<Watched<K>>]) -> HashMap<(String, String), &Arc<Watched<K>>> {
    objects.iter().map(|object| ((object.namespace().unwrap_or_default(), object.name_any()), object)).collect()
}
