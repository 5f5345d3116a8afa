//! What a guard needs of the apiserver: its database, and whether that can be guarded.

use crate::context::Context;
use crate::kubernetes::rejection::{Reason, Rejection, StepError};
use crate::kubernetes::watch::Store;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::conditions::{READY, STALLED};
use pgrail_crds::{ProtectedDatabase, TableGuard};

/// The database of a guard.
pub(super) async fn dereference(
    guard: &TableGuard,
    databases: &Store<ProtectedDatabase>,
    context: &Context,
) -> Result<ProtectedDatabase, StepError> {
    let name = &guard.spec.database_ref.name;
    let found = find(&guard.namespace().unwrap_or_default(), name, databases, context).await?;
    let Some(database) = found else {
        let message = format!(
            "spec.databaseRef names the ProtectedDatabase {name:?}, which does not exist in this namespace: create it"
        );
        return Err(Rejection::new(Reason::DatabaseNotFound, message).into());
    };
    if database.spec.suspend {
        let message = format!("the ProtectedDatabase {name:?} is suspended: what is installed there stays as it is");
        return Err(Rejection::new(Reason::Suspended, message).into());
    }
    match unusable(&database) {
        Some(message) => Err(Rejection::new(Reason::DatabaseNotReady, message).into()),
        None => Ok(database),
    }
}

/// From the watch, whose every change triggers the guards of a database; what the watch does not show yet, from the
/// apiserver.
async fn find(
    namespace: &str,
    name: &str,
    databases: &Store<ProtectedDatabase>,
    context: &Context,
) -> Result<Option<ProtectedDatabase>, kube::Error> {
    let watched = databases.get(&ObjectRef::new(name).within(namespace));
    if let Some(Ok(database)) = watched.as_deref().map(|database| &database.0) {
        return Ok(Some(database.clone()));
    }
    let api: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), namespace);
    api.get_opt(name).await
}

/// Why a database that can be reached cannot be guarded: a standby, a pooler, too old. Whether it can be reached is found
/// out by connecting, so that a guard never waits for the next check of its database.
fn unusable(database: &ProtectedDatabase) -> Option<String> {
    let status = database.status.as_ref()?;
    let stalled = status.conditions.iter().any(|condition| condition.type_ == STALLED && condition.status == "True");
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY)?;
    let reason = Reason::named(&ready.reason)?;
    let unusable = matches!(reason, Reason::PoolerDetected | Reason::ReadOnlyServer | Reason::UnsupportedVersion);
    let current = status.observed_generation == database.metadata.generation;
    (current && stalled && unusable)
        .then(|| format!("the ProtectedDatabase {:?} cannot be guarded: {}", database.name_any(), ready.message))
}
