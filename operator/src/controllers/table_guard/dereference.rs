//! What a guard needs of the apiserver: its database, and whether that can be worked with.

use crate::context::Context;
use crate::kubernetes::watch::Store;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::conditions::reasons::{self, guard as guard_reasons};
use pgrail_crds::conditions::{READY, STALLED};
use pgrail_crds::{ProtectedDatabase, TableGuard};

/// Why there is no database to work with.
#[derive(Debug)]
pub(crate) struct Absent {
    /// Reason of `Ready=False`.
    pub(crate) reason: &'static str,
    /// What is wrong and what mends it.
    pub(crate) message: String,
}

/// The database of a guard.
pub(super) async fn database(
    guard: &TableGuard,
    databases: &Store<ProtectedDatabase>,
    context: &Context,
) -> Result<Result<ProtectedDatabase, Absent>, kube::Error> {
    let name = &guard.spec.database_ref.name;
    Ok(match find(&guard.namespace().unwrap_or_default(), name, databases, context).await? {
        None => Err(Absent {
            reason: guard_reasons::DATABASE_NOT_FOUND,
            message: format!(
                "spec.databaseRef names the ProtectedDatabase {name:?}, which does not exist in this namespace: create it"
            ),
        }),
        Some(database) if database.spec.suspend => Err(Absent {
            reason: reasons::SUSPENDED,
            message: format!("the ProtectedDatabase {name:?} is suspended: what is installed there stays as it is"),
        }),
        Some(database) => match refused(&database) {
            Some(message) => Err(Absent { reason: guard_reasons::DATABASE_NOT_READY, message }),
            None => Ok(database),
        },
    })
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

/// A database that can be reached but not worked with (a standby, a pooler, too old). One that cannot be reached is
/// found out by trying, so that a guard never waits for the next look at its database.
fn refused(database: &ProtectedDatabase) -> Option<String> {
    use reasons::database::{POOLER_DETECTED, READ_ONLY_SERVER, UNSUPPORTED_VERSION};
    let conditions = &database.status.as_ref()?.conditions;
    let current = database.status.as_ref()?.observed_generation == database.metadata.generation;
    let stalled = conditions.iter().any(|condition| condition.type_ == STALLED && condition.status == "True");
    let ready = conditions.iter().find(|condition| condition.type_ == READY)?;
    let unusable = [POOLER_DETECTED, READ_ONLY_SERVER, UNSUPPORTED_VERSION].contains(&ready.reason.as_str());
    (current && stalled && unusable)
        .then(|| format!("the ProtectedDatabase {:?} cannot be guarded: {}", database.name_any(), ready.message))
}
