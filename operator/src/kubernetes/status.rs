//! Status patches: server-side apply with the controller's own field manager, and only when there is something new.

use super::api::untyped;
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

/// How often a write is tried that others' writes of the object overtake.
const ATTEMPTS: usize = 5;

/// Writes a status, unless the object has it already. Returns whether it was written. An object that was deleted is no error,
/// also if there is another of its name now, which must not get what was found for this one.
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
    let name = object.name_any();
    let parameters = PatchParams::apply(&format!("pgrail-{controller}")).force();
    // The apiserver compares no UID when it applies a status, but the version, which an object of another UID does not have.
    let mut version = object.resource_version();
    let mut repetitions = 1..ATTEMPTS;
    loop {
        let patch = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": name, "resourceVersion": version},
            "status": next,
        });
        match api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(false),
            Err(kube::Error::Api(status)) if status.is_conflict() && repetitions.next().is_some() => {}
            Err(error) => return Err(error),
        }
        let Some(latest) = api.get_metadata_opt(&name).await? else { return Ok(false) };
        if latest.uid() != object.uid() {
            return Ok(false);
        }
        version = latest.resource_version();
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

/// Of the stage `controllers`.
#[cfg(test)]
mod apiserver {
    use super::*;
    use crate::backup_jobs::examples;
    use kube::api::DeleteParams;
    use pgrail_crds::BackupSchedule;
    use pgrail_e2e::{Cluster, TestNamespace};

    async fn created(namespace: &TestNamespace) -> BackupSchedule {
        let schedule = json!({"metadata": {"name": "nightly"}, "spec": examples::schedule(json!({})).spec});
        namespace.apply::<BackupSchedule>(&schedule).await;
        namespace.api::<BackupSchedule>().get("nightly").await.unwrap()
    }

    #[tokio::test]
    #[ignore = "needs an apiserver: the stage `controllers` runs it"]
    async fn the_status_of_a_deleted_object_is_not_written_to_the_next_of_its_name() {
        let cluster = Cluster::connect().await;
        let namespace = cluster.namespace("status").await;
        let api = namespace.api::<BackupSchedule>();
        let next = json!({"conditions": [], "lastScheduleTime": "2026-11-30T03:00:00Z"});
        let written = async |object: &BackupSchedule| {
            write::<_, Value>(&cluster.client, "test", object, None, &next).await.unwrap()
        };

        let first = created(&namespace).await;
        namespace.annotate::<BackupSchedule>("nightly", "touched", Some("by its user")).await;
        assert!(written(&first).await, "another's write is no reason to lose a status");
        assert_eq!(
            serde_json::to_value(api.get("nightly").await.unwrap().status).unwrap()["lastScheduleTime"],
            next["lastScheduleTime"]
        );

        api.delete("nightly", &DeleteParams::default()).await.unwrap();
        assert!(!written(&first).await, "there is none");
        let second = created(&namespace).await;
        assert_ne!(first.uid(), second.uid());
        assert!(!written(&first).await, "it is another");
        let status = api.get("nightly").await.unwrap().status;
        assert!(status.as_ref().is_none_or(|it| it.last_schedule_time.is_none()), "{status:?}");
        namespace.finish().await;
    }
}
