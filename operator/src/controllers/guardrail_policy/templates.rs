//! The objects that a policy's templates declare. Pure.

use crate::backup_jobs::names::bounded;
use crate::kubernetes::rejection::{Reason, Rejection};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use pgrail_crds::annotations::{MANAGED_BY, POLICY_LABEL};
use pgrail_crds::{BackupSchedule, BackupScheduleSpec, GuardrailPolicy, TableGuard, TableGuardSpec, Templates};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// The longest name: that of a `BackupSchedule` has at most 40 characters.
const LONGEST_NAME: usize = 40;
/// The longest value of a label.
const LONGEST_LABEL: usize = 63;
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// A kind that a template can declare.
pub(crate) trait Templated:
    Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
    /// Its spec.
    type Spec: Clone + Debug + PartialEq + DeserializeOwned + Serialize;
    /// The field of `spec.templates`.
    const FIELD: &'static str;
    /// The template.
    fn template(templates: &Templates) -> Option<&Value>;
    /// Its spec.
    fn spec(&self) -> &Self::Spec;
    /// The spec for one database.
    fn of_database(spec: &Self::Spec, database: &str) -> Self::Spec;
    /// A new object.
    fn create(name: &str, spec: Self::Spec) -> Self;
}

impl Templated for TableGuard {
    type Spec = TableGuardSpec;
    const FIELD: &'static str = "tableGuard";

    fn template(templates: &Templates) -> Option<&Value> {
        templates.table_guard.as_ref()
    }
    fn spec(&self) -> &TableGuardSpec {
        &self.spec
    }
    fn of_database(spec: &TableGuardSpec, database: &str) -> TableGuardSpec {
        let mut spec = spec.clone();
        database.clone_into(&mut spec.database_ref.name);
        spec
    }
    fn create(name: &str, spec: TableGuardSpec) -> Self {
        Self::new(name, spec)
    }
}

impl Templated for BackupSchedule {
    type Spec = BackupScheduleSpec;
    const FIELD: &'static str = "backupSchedule";

    fn template(templates: &Templates) -> Option<&Value> {
        templates.backup_schedule.as_ref()
    }
    fn spec(&self) -> &BackupScheduleSpec {
        &self.spec
    }
    fn of_database(spec: &BackupScheduleSpec, database: &str) -> BackupScheduleSpec {
        let mut spec = spec.clone();
        database.clone_into(&mut spec.database_ref.name);
        spec
    }
    fn create(name: &str, spec: BackupScheduleSpec) -> Self {
        Self::new(name, spec)
    }
}

/// A template that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Template<K: Templated> {
    spec: K::Spec,
    policy: String,
}

impl<K: Templated> Template<K> {
    /// The template of a policy, if it has one.
    pub(crate) fn of(policy: &GuardrailPolicy) -> Result<Option<Self>, Rejection> {
        let Some(template) = K::template(&policy.spec.templates) else { return Ok(None) };
        let field = format!("spec.templates.{}", K::FIELD);
        let refused = |what: String| Rejection::new(Reason::InvalidSpec, format!("{field}{what}"));
        if !template["databaseRef"].is_null() {
            return Err(refused(".databaseRef: remove it, since each object is for a database of its own".to_owned()));
        }
        if !template.is_object() {
            return Err(refused(": must be a spec".to_owned()));
        }
        let mut whole = template.clone();
        whole["databaseRef"] = json!({"name": "template"});
        if whole.get("deletionPolicy").is_none() {
            // A guard that is deleted by hand stays in the database until the policy has created its object again.
            whole["deletionPolicy"] = json!("Retain");
        }
        let mut unknown = Vec::new();
        let parsed: Result<K::Spec, _> = serde_ignored::deserialize(whole, |path| unknown.push(path.to_string()));
        match (parsed, unknown.first()) {
            (Err(error), _) => Err(refused(format!(": {error}"))),
            (Ok(_), Some(unknown)) => Err(refused(format!(".{unknown}: there is no such field"))),
            (Ok(spec), None) => Ok(Some(Self { spec, policy: policy.name_any() })),
        }
    }

    /// The object for a database.
    pub(crate) fn object(&self, namespace: &str, database: &str) -> K {
        let mut object = K::create(&self.name(database), K::of_database(&self.spec, database));
        let metadata = object.meta_mut();
        let name = metadata.name.take();
        *metadata = ObjectMeta {
            name,
            namespace: Some(namespace.to_owned()),
            labels: Some(labels(&self.policy)),
            ..ObjectMeta::default()
        };
        object
    }

    /// The name of its object for a database.
    pub(crate) fn name(&self, database: &str) -> String {
        bounded(&format!("{}-{database}", self.policy), LONGEST_NAME)
    }
}

/// The labels of what a policy creates.
pub(crate) fn labels(policy: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(POLICY_LABEL.to_owned(), label(policy)), (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())])
}

/// The name of a policy as the value of a label.
pub(crate) fn label(policy: &str) -> String {
    bounded(policy, LONGEST_LABEL)
}

/// Whether an object is as the template declares.
pub(crate) fn is_as_declared<K: Templated>(found: &K, wanted: &K) -> bool {
    let labels = wanted.labels().iter().all(|(key, value)| found.labels().get(key) == Some(value));
    labels && found.spec() == wanted.spec()
}

/// The fields of the spec in which an object differs from its template.
pub(crate) fn differences<K: Templated>(found: &K, wanted: &K) -> Vec<String> {
    let fields = |object: &K| serde_json::to_value(object.spec()).unwrap_or_default();
    let (found_fields, wanted_fields) = (fields(found), fields(wanted));
    let both = [&found_fields, &wanted_fields];
    let names: std::collections::BTreeSet<&String> =
        both.into_iter().filter_map(Value::as_object).flat_map(|fields| fields.keys()).collect();
    let differ = names.into_iter().filter(|name| found_fields.get(*name) != wanted_fields.get(*name));
    let mut differences: Vec<String> = differ.map(|name| format!("spec.{name}")).collect();
    if differences.is_empty() {
        differences.push("metadata.labels".to_owned());
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrail_crds::DeletionPolicy;

    fn policy(templates: Value) -> GuardrailPolicy {
        serde_json::from_value(json!({"metadata": {"name": "floor"}, "spec": {"templates": templates}})).unwrap()
    }

    fn guard_template() -> Value {
        json!({"tables": [{"schema": "public", "name": "*"}], "limits": {"maxRows": 50}})
    }

    #[test]
    fn an_object_of_a_template_is_for_its_database_and_kept_when_it_is_deleted() {
        let template = Template::<TableGuard>::of(&policy(json!({"tableGuard": guard_template()}))).unwrap().unwrap();
        let guard = template.object("shop", "orders");
        assert_eq!((guard.name_any().as_str(), guard.namespace().as_deref()), ("floor-orders", Some("shop")));
        assert_eq!(guard.spec.database_ref.name, "orders");
        assert_eq!((guard.spec.limits.max_rows, guard.spec.deletion_policy), (50, DeletionPolicy::Retain));
        assert_eq!(guard.labels()[POLICY_LABEL], "floor");
        let long = template.name(&"d".repeat(100));
        assert!(long.len() <= 40 && long != template.name(&"d".repeat(101)));
        assert!(Template::<BackupSchedule>::of(&policy(json!({}))).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |change: (&str, Value)| {
            let mut template = guard_template();
            template[change.0] = change.1;
            Template::<TableGuard>::of(&policy(json!({"tableGuard": template}))).unwrap_err().message
        };
        assert!(refused(("databaseRef", json!({"name": "x"}))).starts_with("spec.templates.tableGuard.databaseRef"));
        assert!(refused(("limit", json!({}))).contains("spec.templates.tableGuard.limit: there is no such field"));
        assert!(refused(("tables", json!("users"))).starts_with("spec.templates.tableGuard: "));
    }

    #[test]
    fn every_change_of_an_object_is_seen_and_named() {
        let template = Template::<TableGuard>::of(&policy(json!({"tableGuard": guard_template()}))).unwrap().unwrap();
        let wanted = template.object("shop", "orders");
        // As the apiserver returns it, with every default.
        let found: TableGuard = serde_json::from_value(serde_json::to_value(&wanted).unwrap()).unwrap();
        assert!(is_as_declared(&found, &wanted));
        let mut looser = found.clone();
        looser.spec.limits.max_transaction_rows = Some(1_000_000);
        assert!(!is_as_declared(&looser, &wanted));
        assert_eq!(differences(&looser, &wanted), ["spec.limits"]);
        let mut unlabelled = found;
        unlabelled.labels_mut().clear();
        assert!(!is_as_declared(&unlabelled, &wanted));
        assert_eq!(differences(&unlabelled, &wanted), ["metadata.labels"]);
    }
}
