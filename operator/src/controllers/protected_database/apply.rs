//! What the controller changes in a database: captured rows past their bounds are deleted.

use crate::context::Context;
use crate::database::Session;
use crate::kubernetes::text::chain;
use kube::ResourceExt;
use pgrail_crds::ProtectedDatabase;

/// Deletes captured rows that are kept too long. What fails is retried: until then the rows are only kept longer.
pub(super) async fn prune(database: &ProtectedDatabase, session: &Session, context: &Context) {
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    match pgrail_guard::prune(session, &context.cluster_id).await {
        Ok(0) => {}
        Ok(transactions) => tracing::info!(namespace, name, transactions, "captured rows past their bounds deleted"),
        Err(error) => tracing::warn!(namespace, name, error = chain(&error), "captured rows cannot be deleted"),
    }
}
