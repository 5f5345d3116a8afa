//! The namespace of an object.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};

/// Whether the object's namespace is being deleted, or is gone: nothing can be created in it.
pub(crate) async fn is_terminating(client: &Client, object: &impl ResourceExt) -> Result<bool, kube::Error> {
    let name = object.namespace().unwrap_or_default();
    let namespace = Api::<Namespace>::all(client.clone()).get_opt(&name).await?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}
