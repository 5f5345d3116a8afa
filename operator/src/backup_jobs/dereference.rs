//! The objects that a backup refers to. Secrets are read by `get`, never by a watch.

use crate::context::Context;
use crate::database::{ResolveError, resolve};
use crate::kubernetes::rejection::{Reason, Rejection, StepError};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use pgrail_crds::{BackupSchedule, Connection, ProtectedDatabase, Storage};
use pgrail_dump::StoreCredentials;

/// The Secrets of a backup. Whether they can be used is validated with the spec.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// Why the connection's Secrets cannot be used, if they cannot.
    pub(crate) connection: Option<ResolveError>,
    pub(crate) store: StoreSecret,
}

#[derive(Debug, Default)]
pub(crate) enum StoreSecret {
    /// The spec names none.
    #[default]
    None,
    Missing(String),
    Found {
        name: String,
        credentials: StoreCredentials,
    },
}

pub(crate) async fn schedule(namespace: &str, name: &str, context: &Context) -> Result<BackupSchedule, StepError> {
    let found = Api::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    found.ok_or_else(|| {
        let message = format!(
            "there is no BackupSchedule {name:?} in this namespace: create it, or name another in spec.scheduleRef"
        );
        Rejection::new(Reason::ScheduleNotFound, message).into()
    })
}

pub(crate) async fn database(namespace: &str, name: &str, context: &Context) -> Result<ProtectedDatabase, StepError> {
    let found = Api::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    found.ok_or_else(|| {
        let message = format!(
            "there is no ProtectedDatabase {name:?} in this namespace: create it, or name another in spec.databaseRef"
        );
        Rejection::new(Reason::DatabaseNotFound, message).into()
    })
}

/// Connection settings are only checked here, by the same rules as for guards: the pod reads the Secret itself.
pub(crate) async fn secrets(
    namespace: &str,
    connection: &Connection,
    storage: Option<&Storage>,
    context: &Context,
) -> Result<Secrets, kube::Error> {
    let connection = match resolve(&context.client, &context.settings.allowed_hosts, namespace, connection).await {
        Ok(_) => None,
        Err(ResolveError::Api(error)) => return Err(error),
        Err(error) => Some(error),
    };
    Ok(Secrets { connection, store: store_secret(namespace, storage, context).await? })
}

pub(crate) async fn store_secret(
    namespace: &str,
    storage: Option<&Storage>,
    context: &Context,
) -> Result<StoreSecret, kube::Error> {
    let Some(reference) = storage.and_then(|storage| storage.secret_ref.as_ref()) else { return Ok(StoreSecret::None) };
    let name = reference.name.clone();
    let Some(secret) = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(&name).await? else {
        return Ok(StoreSecret::Missing(name));
    };
    // A key that is no text is no credential, such as a trust store.
    let keys = secret.data.unwrap_or_default().into_iter();
    let keys = keys.filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
    Ok(StoreSecret::Found { name, credentials: StoreCredentials::from_keys(keys) })
}
