//! What a guard needs of the apiserver: its database, and whether that can be worked with.

use crate::context::Context;
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
    context: &Context,
) -> Result<Result<ProtectedDatabase, Absent>, kube::Error> {
    let name = &guard.spec.database_ref.name;
    let api: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), &guard.namespace().unwrap_or_default());
    Ok(match api.get_opt(name).await? {
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
