//! Status patches: server-side apply with the controller's own field manager, and only when there is something new.

use super::api::untyped;
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes a status, unless the object has it already. Answers whether it was written. An object that went away is no error.
pub(crate) async fn write<K, S>(
    client: &Client,
    controller: &str,
    object: &K,
    current: Option<&S>,
    next: &S,
) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()>,
    S: Serialize,
{
    let next = serde_json::to_value(next).map_err(kube::Error::SerdeError)?;
    let current = serde_json::to_value(current).map_err(kube::Error::SerdeError)?;
    if !differs(&current, &next) {
        return Ok(false);
    }
    let api = untyped::<K>(client.clone(), object.namespace().as_deref());
    let patch = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "uid": object.uid()},
        "status": next,
    });
    let parameters = PatchParams::apply(&format!("pgrail-{controller}")).force();
    match api.patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `next` says anything that `current` does not. Conditions are compared by type, and others' are left alone.
fn differs(current: &Value, next: &Value) -> bool {
    let ours = |status: &Value| {
        let mut status = status.clone();
        let types: Vec<Value> =
            next["conditions"].as_array().into_iter().flatten().map(|condition| condition["type"].clone()).collect();
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
            // `Stalled` is ours even when it is not set: it must go.
            conditions.retain(|condition| types.contains(&condition["type"]) || condition["type"] == "Stalled");
            conditions.sort_by_key(|condition| condition["type"].to_string());
        }
        status
    };
    ours(current) != ours(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_written() {
        let ready = json!({"type": "Ready", "status": "True"});
        let current = json!({"tables": 3, "conditions": [{"type": "Foreign", "status": "True"}, ready]});
        assert!(!differs(&current, &json!({"tables": 3, "conditions": [ready]})));
        assert!(differs(&current, &json!({"tables": 4, "conditions": [ready]})));
        assert!(differs(&current, &json!({"tables": 3, "conditions": [{"type": "Ready", "status": "False"}]})));
        assert!(differs(&Value::Null, &json!({"conditions": [ready]})));
    }

    #[test]
    fn a_stalled_that_is_over_is_news() {
        let ready = json!({"type": "Ready", "status": "True"});
        let current = json!({"conditions": [{"type": "Stalled", "status": "True"}, ready]});
        assert!(differs(&current, &json!({"conditions": [ready]})));
    }
}
