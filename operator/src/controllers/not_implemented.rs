//! Kinds whose controller is not part of this release: accepted, and told so, never silently ignored.

use crate::context::Context;
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::controller::{Reconciler, run as run_controller};
use crate::kubernetes::watch::watch;
use kube::Resource;
use kube::api::Api;
use kube::runtime::controller::Action;
use pgrail_crds::conditions::{READY, reasons};
use pgrail_crds::{Condition, GuardrailPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const RESYNC: Duration = Duration::from_hours(1);

/// Watches the kinds until `stop`.
pub(crate) async fn run(context: &Arc<Context>, stop: CancellationToken) {
    let policies = Api::all(context.client.clone());
    run_controller(watch(policies).0, Waiting::<GuardrailPolicy>::new(context), Arc::clone(context), stop).await;
}

/// Says `Ready=Unknown` on every object of a kind.
struct Waiting<K> {
    context: Arc<Context>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Waiting<K> {
    fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context), kind: PhantomData }
    }
}

impl<K> Reconciler for Waiting<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Kind = K;
    type Error = kube::Error;
    const NAME: &'static str = "notimplemented";

    async fn reconcile(&self, object: Arc<K>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let current = serde_json::to_value(object.as_ref()).map_err(kube::Error::SerdeError)?["status"].take();
        let previous: Vec<Condition> = serde_json::from_value(current["conditions"].clone()).unwrap_or_default();
        let generation = object.meta().generation;
        let mut conditions = Conditions::new(&previous, generation, context.now());
        let message = format!("pgrail {} does not act on a {} yet", env!("CARGO_PKG_VERSION"), K::kind(&()));
        conditions.set(READY, Status::Unknown, reasons::NOT_IMPLEMENTED, message);
        let next = json!({"observedGeneration": generation, "conditions": conditions.finish()});
        context.write_status::<K, Value>(Self::NAME, object.as_ref(), Some(&current), &next).await?;
        Ok(Action::requeue(RESYNC))
    }
}
