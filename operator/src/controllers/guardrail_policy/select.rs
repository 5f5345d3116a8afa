//! Which databases a policy selects. Pure.

use crate::kubernetes::rejection::{Reason, Rejection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{ParseExpressionError, Selector, SelectorExt as _};
use pgrail_crds::GuardrailPolicySpec;
use std::collections::BTreeMap;

/// The selectors of a policy.
pub(crate) struct Selection {
    namespaces: Option<Selector>,
    excluded: Option<Selector>,
    /// A selector that cannot be read.
    pub(crate) rejection: Option<Rejection>,
}

impl Selection {
    /// A selector of namespaces that cannot be read selects all of them, and one of exclusions excludes nothing: a typing
    /// error must not lift a policy.
    pub(crate) fn of(policy: &GuardrailPolicySpec) -> Self {
        let namespaces = parse(&policy.namespace_selector);
        let excluded = parse(&policy.exclude_databases);
        let invalid = |field: &str| {
            let message = format!("spec.{field} cannot be read: correct its operator and values");
            Some(Rejection::new(Reason::InvalidSpec, message))
        };
        let rejection = match (&namespaces, &excluded) {
            (Err(_), _) => invalid("namespaceSelector"),
            (_, Err(_)) => invalid("excludeDatabases"),
            (Ok(_), Ok(_)) => None,
        };
        let is_empty = |selector: &LabelSelector| {
            selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
                && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
        };
        let excluded = excluded.ok().filter(|_| !is_empty(&policy.exclude_databases));
        Self { namespaces: namespaces.ok(), excluded, rejection }
    }

    /// Whether the policy is for a namespace with these labels.
    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.as_ref().is_none_or(|selector| selector.matches(labels))
    }

    /// Whether a database with these labels is excluded.
    pub(crate) fn excludes(&self, labels: &BTreeMap<String, String>) -> bool {
        self.excluded.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

fn parse(selector: &LabelSelector) -> Result<Selector, ParseExpressionError> {
    Selector::try_from(selector.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn selection(spec: Value) -> Selection {
        Selection::of(&serde_json::from_value(spec).unwrap())
    }

    fn labels(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("team".to_owned(), value.to_owned())])
    }

    #[test]
    fn nothing_declared_selects_everything_and_excludes_nothing() {
        let all = selection(json!({}));
        assert!(all.selects(&labels("shop")) && all.selects(&BTreeMap::new()));
        assert!(!all.excludes(&labels("shop")) && !all.excludes(&BTreeMap::new()));
        assert!(all.rejection.is_none());
    }

    #[test]
    fn labels_select_and_exclude() {
        let some = selection(json!({"namespaceSelector": {"matchLabels": {"team": "shop"}},
            "excludeDatabases": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["sandbox"]}]}}));
        assert!(some.selects(&labels("shop")) && !some.selects(&labels("other")));
        assert!(some.excludes(&labels("sandbox")) && !some.excludes(&labels("shop")));
    }

    #[test]
    fn a_selector_that_cannot_be_read_lifts_nothing() {
        let wrong = json!({"matchExpressions": [{"key": "team", "operator": "Nonsense"}]});
        let namespaces = selection(json!({"namespaceSelector": wrong}));
        assert!(namespaces.selects(&labels("shop")));
        assert!(namespaces.rejection.unwrap().message.contains("namespaceSelector"));
        let excluded = selection(json!({"excludeDatabases": wrong}));
        assert!(!excluded.excludes(&labels("shop")));
        assert!(excluded.rejection.unwrap().message.contains("excludeDatabases"));
    }
}
