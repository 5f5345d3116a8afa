//! The finalizer: set before anything is installed, taken away once it is gone.

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use pgrail_crds::annotations::FINALIZER;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;

/// Whether the object carries ours.
pub(crate) fn is_set(object: &impl ResourceExt) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Adds ours, unless the object has it. Fails on a conflict, so that another's finalizer is never lost.
pub(crate) async fn add<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if is_set(object) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    write(api, object, &finalizers).await
}

/// Takes ours away, if the object has it.
pub(crate) async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if !is_set(object) {
        return Ok(());
    }
    let finalizers: Vec<_> = object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    match write(api, object, &finalizers).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result,
    }
}

async fn write<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let patch =
        json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.meta().resource_version.clone()}});
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| ())
}
