//! Creates the objects of templates, and makes them again what the templates declare. An object that somebody else created
//! under the same name is never changed.

use super::CONTROLLER;
use super::assess::{Assessment, Member, TemplateSet, by_name};
use super::evaluate::{Finding, Rule};
use super::fleet::Snapshot;
use super::templates::{Template, Templated, differences, is_as_declared};
use crate::context::Context;
use crate::kubernetes::api::untyped;
use crate::kubernetes::events::Severity;
use crate::kubernetes::text::{chain, listed};
use crate::kubernetes::watch::Watched;
use crate::mutex::locked;
use futures::{StreamExt, stream};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::GuardrailPolicy;
use pgrail_crds::conditions::reasons::event;
use serde_json::json;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// Requests to the apiserver at the same time.
const REQUESTS: usize = 8;
/// Who wrote an object, as the apiserver records it.
pub(super) const FIELD_MANAGER: &str = "pgrail-guardrailpolicy";

/// Objects of templates that this process has seen, by kind, namespace and name: one that is missing was deleted.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashSet<(&'static str, String, String)>>);

impl Memory {
    /// Returns whether it was seen before.
    fn seen(&self, kind: &'static str, namespace: &str, name: &str) -> bool {
        let mut seen = locked(&self.0);
        !seen.insert((kind, namespace.to_owned(), name.to_owned()))
    }
}

/// Applies the templates to every database that they are for. What cannot be applied becomes a finding of the database.
pub(super) async fn apply(
    policy: &GuardrailPolicy,
    templates: &TemplateSet,
    snapshot: &Snapshot,
    assessment: &mut Assessment,
    memory: &Memory,
    context: &Context,
) {
    if let Ok(Some(template)) = &templates.guard {
        let found = by_name(&snapshot.guards);
        let wants = |member: &Member| member.wants_guard;
        let pass = Pass { policy, template, snapshot, memory, context, rule: Rule::GuardTemplate };
        pass.run(&found, wants, assessment).await;
    }
    if let Ok(Some(template)) = &templates.schedule {
        let found = by_name(&snapshot.schedules);
        let wants = |member: &Member| member.wants_schedule;
        let pass = Pass { policy, template, snapshot, memory, context, rule: Rule::ScheduleTemplate };
        pass.run(&found, wants, assessment).await;
    }
}

struct Pass<'a, K: Templated> {
    policy: &'a GuardrailPolicy,
    template: &'a Template<K>,
    snapshot: &'a Snapshot,
    memory: &'a Memory,
    context: &'a Context,
    rule: Rule,
}

impl<K: Templated> Pass<'_, K> {
    async fn run(
        &self,
        found: &std::collections::HashMap<(String, String), &Arc<Watched<K>>>,
        wants: impl Fn(&Member) -> bool,
        assessment: &mut Assessment,
    ) {
        let mut work = Vec::new();
        for (index, member) in assessment.members.iter().enumerate().filter(|(_, member)| wants(member)) {
            if self.snapshot.namespaces.get(&member.namespace).is_some_and(|namespace| namespace.is_deleted) {
                continue;
            }
            let wanted = self.template.object(&member.namespace, &member.name);
            let found = found.get(&(member.namespace.clone(), wanted.name_any())).copied();
            if let Some(found) = found {
                self.memory.seen(K::FIELD, &member.namespace, &wanted.name_any());
                if found.meta().deletion_timestamp.is_some()
                    || found.0.as_ref().is_ok_and(|found| is_as_declared(found, &wanted))
                {
                    continue;
                }
            }
            work.push((index, wanted));
        }
        let results: Vec<(usize, Result<(), Finding>)> = stream::iter(work)
            .map(|(index, wanted)| async move { (index, self.ensure(&wanted).await) })
            .buffer_unordered(REQUESTS)
            .collect()
            .await;
        for (index, result) in results {
            if let (Err(finding), Some(member)) = (result, assessment.members.get_mut(index)) {
                member.findings.push(finding);
                member.findings.sort();
            }
        }
    }

    /// Creates the object, or restores it.
    async fn ensure(&self, wanted: &K) -> Result<(), Finding> {
        let api = untyped::<K>(self.context.client.clone(), wanted.namespace().as_deref());
        let name = wanted.name_any();
        // Read again: the watch can be behind, and does not show who wrote it.
        match api.get_opt(&name).await {
            Ok(None) => self.create(&api, wanted).await,
            Ok(Some(found)) if !is_ours(&found) => Err(self.failed(
                wanted,
                "an object of this name exists that the policy did not create, and it is not changed: rename it",
            )),
            Ok(Some(found)) => self.restore(&api, &found, wanted).await,
            Err(error) => Err(self.failed(wanted, &chain(&error))),
        }
    }

    async fn create(&self, api: &Api<DynamicObject>, wanted: &K) -> Result<(), Finding> {
        let object = serde_json::to_value(wanted).and_then(serde_json::from_value::<DynamicObject>);
        let object = object.map_err(|error| self.failed(wanted, &error.to_string()))?;
        // Not by apply: that would take over what another user creates at the same moment.
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&parameters, &object).await {
            Ok(created) => {
                let namespace = wanted.namespace().unwrap_or_default();
                let was_deleted = self.memory.seen(K::FIELD, &namespace, &wanted.name_any());
                let policy = self.policy.name_any();
                if was_deleted {
                    let note = format!("it was deleted, and the GuardrailPolicy {policy} created it again");
                    self.publish(&created, Severity::Warning, event::POLICY_OBJECT_RESTORED, note).await;
                } else {
                    let note = format!("created from spec.templates.{} of the GuardrailPolicy {policy}", K::FIELD);
                    self.publish(&created, Severity::Normal, event::POLICY_OBJECT_CREATED, note).await;
                }
                Ok(())
            }
            Err(error) => Err(self.failed(wanted, &chain(&error))),
        }
    }

    async fn restore(&self, api: &Api<DynamicObject>, found: &DynamicObject, wanted: &K) -> Result<(), Finding> {
        if found.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let typed = serde_json::to_value(found).and_then(serde_json::from_value::<K>).ok();
        if typed.as_ref().is_some_and(|typed| is_as_declared(typed, wanted)) {
            return Ok(());
        }
        let changed = typed.map_or_else(|| vec!["spec".to_owned()], |typed| differences(&typed, wanted));
        let mut labels = found.labels().clone();
        labels.extend(wanted.labels().clone());
        // A whole spec: an apply would leave what another user added.
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": found.uid()},
            {"op": "replace", "path": "/spec", "value": wanted.spec()},
            {"op": "add", "path": "/metadata/labels", "value": labels},
        ]);
        let patch = serde_json::from_value(patch).map_err(|error| self.failed(wanted, &error.to_string()))?;
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&wanted.name_any(), &parameters, &Patch::<()>::Json(patch)).await {
            Ok(restored) => {
                let policy = self.policy.name_any();
                let note = format!(
                    "{} changed: restored as the GuardrailPolicy {policy} declares in spec.templates.{}",
                    listed(&changed),
                    K::FIELD
                );
                self.publish(&restored, Severity::Warning, event::POLICY_OBJECT_RESTORED, note).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(self.failed(wanted, &chain(&error))),
        }
    }

    async fn publish(&self, object: &DynamicObject, severity: Severity, reason: &str, note: String) {
        let object = serde_json::to_value(object).and_then(serde_json::from_value::<K>);
        let Ok(object) = object else { return };
        self.context.events.publish(&object, severity, "Template", reason, note, self.context.now()).await;
    }

    fn failed(&self, wanted: &K, why: &str) -> Finding {
        let what = format!("{} {}", K::kind(&()), wanted.name_any());
        tracing::warn!(controller = CONTROLLER, namespace = wanted.namespace(), what, why, "template not applied");
        Finding::new(self.rule, what, why)
    }
}

/// Whether the policy controller wrote it.
fn is_ours(object: &DynamicObject) -> bool {
    let managers = object.metadata.managed_fields.iter().flatten();
    managers.into_iter().any(|it| it.manager.as_deref() == Some(FIELD_MANAGER))
}
