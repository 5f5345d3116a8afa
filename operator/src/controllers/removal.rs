//! What a deleted object leaves in its database: for every kind that cleans up there.

use crate::database::DatabaseError;
use crate::kubernetes::namespace;
use crate::kubernetes::rejection::Reason;
use k8s_openapi::NamespaceResourceScope;
use kube::{Client, Resource};

/// How the removal from a database ended.
pub(crate) enum Removal {
    /// Nothing of the object is left.
    Done,
    /// It stays: why.
    LeftBehind(String),
    /// It could not be removed yet: why. Retried.
    Pending(String),
}

impl Removal {
    /// What a failure to use the database means: it is left behind where the database cannot come back, or the namespace
    /// would wait for it.
    pub(crate) async fn settle<K>(
        removed: Result<Self, DatabaseError>,
        object: &K,
        client: &Client,
    ) -> Result<Self, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Ok(match removed {
            Ok(removal) => removal,
            Err(error) if [Reason::SecretMissing, Reason::DatabaseMissing].contains(&error.reason) => {
                Self::LeftBehind(error.message)
            }
            Err(error) if namespace::is_terminating(client, object).await? => {
                Self::LeftBehind(format!("the namespace is being deleted and the database cannot be reached: {error}"))
            }
            Err(error) => Self::Pending(error.message),
        })
    }
}
