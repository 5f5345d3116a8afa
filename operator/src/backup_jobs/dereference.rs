//! What a backup refers to: schedule, database, Secrets. By `get`, never by a watch of Secrets.

use super::order::{self, Order, OrderError, OrderedStore, Site};
use crate::context::Context;
use crate::database::{ResolveError, resolve};
use crate::kubernetes::text::chain;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use pgrail_crds::conditions::reasons::{backup, guard};
use pgrail_crds::{BackupSchedule, Connection, DatabaseBackup, ProtectedDatabase};
use pgrail_dump::{Scheme, Store, StoreCredentials, StoreSettings};

/// Why there is nothing to make a backup from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DereferenceError {
    /// No such schedule.
    #[error("there is no BackupSchedule {0:?} in this namespace: create it, or name another in spec.scheduleRef")]
    ScheduleNotFound(String),
    /// No such database.
    #[error("there is no ProtectedDatabase {0:?} in this namespace: create it, or name another in spec.databaseRef")]
    DatabaseNotFound(String),
    /// The connection's Secrets cannot be used.
    #[error(transparent)]
    Connection(ResolveError),
    /// The store's Secret does not exist.
    #[error(
        "there is no Secret {0:?} in this namespace, which spec.storage.secretRef names: create it, or correct the name"
    )]
    StoreSecretMissing(String),
    /// The store's Secret cannot be used.
    #[error("the Secret {name:?}, which spec.storage.secretRef names, cannot be used: {problem}")]
    StoreSecret {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What is declared cannot be ordered.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The apiserver did not answer.
    #[error("could not read from the apiserver")]
    Api(#[from] kube::Error),
}

impl DereferenceError {
    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::ScheduleNotFound(_) => backup::SCHEDULE_NOT_FOUND,
            Self::DatabaseNotFound(_) => guard::DATABASE_NOT_FOUND,
            Self::Connection(error) => error.reason(),
            Self::StoreSecretMissing(_) | Self::StoreSecret { .. } => backup::SECRET_MISSING,
            Self::Order(error) => error.reason(),
            Self::Api(_) => backup::FAILED,
        }
    }

    /// The error of the apiserver, if it is one: the reconcile is tried again. Everything else waits for the user.
    pub(crate) fn or_refusal(self) -> Result<(&'static str, String), kube::Error> {
        match self {
            Self::Api(error) | Self::Connection(ResolveError::Api(error)) => Err(error),
            other => Ok((other.reason(), chain(&other))),
        }
    }
}

/// What a schedule orders, with every Secret looked at.
pub(crate) async fn order_of_schedule(
    context: &Context,
    schedule: &BackupSchedule,
) -> Result<(Order, ProtectedDatabase), DereferenceError> {
    let namespace = schedule.namespace().unwrap_or_default();
    let database = database(context, &namespace, &schedule.spec.database_ref.name).await?;
    let order = order::of_schedule(schedule, &database, &context.cluster_id)?;
    let connection = schedule.spec.connection.as_ref().unwrap_or(&database.spec.connection);
    check_secrets(context, &namespace, connection, &order.site.store).await?;
    Ok((order, database))
}

/// What a backup orders, with every Secret looked at.
pub(crate) async fn order_of_backup(context: &Context, backup: &DatabaseBackup) -> Result<Order, DereferenceError> {
    let namespace = backup.namespace().unwrap_or_default();
    if let Some(reference) = &backup.spec.schedule_ref {
        let schedule = schedule(context, &namespace, &reference.name).await?;
        return order_of_schedule(context, &schedule).await.map(|(order, _)| order);
    }
    let name = backup.spec.database_ref.as_ref().map(|reference| reference.name.clone()).unwrap_or_default();
    let database = database(context, &namespace, &name).await?;
    let order = order::of_backup(backup, &database, &context.cluster_id)?;
    check_secrets(context, &namespace, &database.spec.connection, &order.site.store).await?;
    Ok(order)
}

/// Where a backup's dump is, as far as a prune needs to know.
pub(crate) async fn site_of_backup(context: &Context, backup: &DatabaseBackup) -> Result<Site, DereferenceError> {
    let namespace = backup.namespace().unwrap_or_default();
    let site = match &backup.spec.schedule_ref {
        Some(reference) => {
            order::site_of_schedule(&schedule(context, &namespace, &reference.name).await?, &context.cluster_id)?
        }
        None => order::site_of_backup(backup, &context.cluster_id)?,
    };
    check_store(context, &namespace, &site.store).await?;
    Ok(site)
}

/// The schedule of that name.
pub(crate) async fn schedule(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<BackupSchedule, DereferenceError> {
    let found = Api::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    found.ok_or_else(|| DereferenceError::ScheduleNotFound(name.to_owned()))
}

async fn database(context: &Context, namespace: &str, name: &str) -> Result<ProtectedDatabase, DereferenceError> {
    let found = Api::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    found.ok_or_else(|| DereferenceError::DatabaseNotFound(name.to_owned()))
}

async fn check_secrets(
    context: &Context,
    namespace: &str,
    connection: &Connection,
    store: &OrderedStore,
) -> Result<(), DereferenceError> {
    // What comes of it is for the pod; that something does is what is asked here, by the same rules as for guards.
    resolve(&context.client, &context.settings.allowed_hosts, namespace, connection)
        .await
        .map_err(DereferenceError::Connection)?;
    check_store(context, namespace, store).await
}

/// Whether the store's Secret has what its provider needs. Nothing is asked of the store itself.
async fn check_store(context: &Context, namespace: &str, store: &OrderedStore) -> Result<(), DereferenceError> {
    let Some(name) = &store.secret else { return Ok(()) };
    let secret = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    let secret = secret.ok_or_else(|| DereferenceError::StoreSecretMissing(name.clone()))?;
    let refuse = |problem: String| DereferenceError::StoreSecret { name: name.clone(), problem };
    let keys = secret.data.unwrap_or_default().into_iter().filter_map(|(key, value)| {
        // A key that is no text is no credential, such as a trust store beside them.
        Some((key, String::from_utf8(value.0).ok()?))
    });
    let credentials = StoreCredentials::from_keys(keys);
    if matches!(credentials, StoreCredentials::Ambient) {
        return Err(refuse("it has no keys".to_owned()));
    }
    if store.config.url.scheme() == Scheme::File {
        return Ok(());
    }
    let settings = StoreSettings {
        endpoint: store.config.endpoint.clone(),
        region: store.config.region.clone(),
        credentials,
        allow_http: store.config.allow_http,
        ..StoreSettings::new(store.config.url.clone())
    };
    Store::open(&settings).map(|_| ()).map_err(|error| refuse(error.to_string()))
}
