//! What the controllers share: infrastructure, nothing that belongs to one of them.

use crate::database::Databases;
use crate::kubernetes::backoff::Backoff;
use crate::kubernetes::controller::Environment;
use crate::kubernetes::events::Events;
use crate::kubernetes::status;
use crate::metrics::Metrics;
use crate::settings::Settings;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// What every reconcile can use.
pub(crate) struct Context {
    /// The apiserver.
    pub(crate) client: Client,
    /// The operator's options.
    pub(crate) settings: Settings,
    /// UID of `kube-system`: stamped on everything that is installed in a database or a store.
    pub(crate) cluster_id: String,
    /// Connections to databases, a budget of them per server.
    pub(crate) databases: Databases,
    /// How long failing objects wait.
    pub(crate) backoff: Backoff,
    /// Counters and gauges.
    pub(crate) metrics: Metrics,
    /// Kubernetes Events.
    pub(crate) events: Events,
    /// The clock.
    pub(crate) clock: fn() -> Timestamp,
}

impl Context {
    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The objects of a kind in the namespaces that the operator watches.
    pub(crate) fn watched<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.settings.watch_namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// For the deletions of a watch: what is kept of an object that was deleted, whatever its kind, is forgotten.
    pub(crate) fn forgets<K: kube::runtime::reflector::Lookup>(
        self: &Arc<Self>,
    ) -> impl Fn(&ObjectRef<K>) + Send + use<K> {
        let context = Arc::clone(self);
        move |object| context.backoff.forget(object.extra.uid.as_deref().unwrap_or(&object.name))
    }

    /// The object with the status that the next one is computed from, and that next one. Where they differ, the object is
    /// read again: the watch can be behind this controller's own status, and what it showed earlier must not be written
    /// back. `None` where the object was changed or deleted meanwhile.
    pub(crate) async fn latest<K>(
        &self,
        object: Arc<K>,
        report: impl Fn(&K) -> K::Status,
    ) -> Result<Option<(Arc<K>, K::Status)>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + HasStatus + Clone + Debug + DeserializeOwned,
        K::Status: PartialEq,
    {
        let next = report(&object);
        if object.status() == Some(&next) {
            return Ok(Some((object, next)));
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        let Some(latest) = api.get_opt(&object.name_any()).await? else { return Ok(None) };
        if latest.uid() != object.uid() || latest.meta().generation != object.meta().generation {
            return Ok(None);
        }
        let next = report(&latest);
        Ok(Some((Arc::new(latest), next)))
    }

    /// Writes a status where it differs, and counts it. Returns whether it was written.
    pub(crate) async fn write_status<K, S>(
        &self,
        controller: &'static str,
        object: &K,
        current: Option<&S>,
        next: &S,
    ) -> Result<bool, kube::Error>
    where
        K: Resource<DynamicType = ()>,
        S: Serialize,
    {
        let written = status::write(&self.client, controller, object, current, next).await?;
        if written {
            self.metrics.status_written(controller);
        }
        Ok(written)
    }
}

impl Environment for Context {
    fn client(&self) -> &Client {
        &self.client
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    fn reconciled(&self, controller: &'static str, elapsed: Duration, succeeded: bool) {
        self.metrics.reconciled(controller, elapsed, succeeded);
    }
}
