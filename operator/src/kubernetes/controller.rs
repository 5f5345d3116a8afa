//! One way to run a controller: a watch that survives objects it cannot read, bounded concurrency, and a metric per run.

use super::api::untyped;
use super::backoff::Backoff;
use super::conditions::whole_seconds;
use super::line::Cause;
use super::places::{Places, limited};
use super::text::chain;
use super::watch::{Store, Watched};
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use pgrail_crds::conditions::{READY, STALLED, reasons};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// kube runs every reconcile that is due; [`Places`] decides which of them go on.
const UNBOUNDED: u16 = 0;
/// Changes to one object within this time become one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How long one reconcile may take, without waiting for what others use, before it is cancelled and retried.
const LONGEST_RECONCILE: Duration = Duration::from_mins(4);
/// When an object is reconciled again that changed during its reconcile.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(10);
/// When an object that cannot be read is checked again.
const UNPARSABLE_RETRY: Duration = Duration::from_mins(10);

/// Reconciles objects of one kind. What it remembers between reconciles is its own.
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// The kind.
    type Kind: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync;
    /// What fails in Kubernetes itself. What the user can fix is reported on the object instead.
    type Error: std::error::Error + Send + Sync + 'static;
    /// Name of the controller: field manager, metric label, reporter of Events.
    const NAME: &'static str;

    /// The generation that the status of an object is about.
    fn observed_generation(object: &Self::Kind) -> Option<i64>;

    /// Reconciles one object and returns when to reconcile it again.
    fn reconcile(&self, object: Arc<Self::Kind>) -> impl Future<Output = Result<Action, Self::Error>> + Send;

    /// An object does not exist any more at the end of its reconcile: what is kept by its name ends.
    fn forget(&self, _namespace: &str, _name: &str) {}
}

/// What running a controller needs besides its reconciler.
pub(crate) trait Environment: Send + Sync + 'static {
    /// The apiserver.
    fn client(&self) -> &Client;
    /// The time.
    fn now(&self) -> Timestamp;
    /// How long failing objects wait.
    fn backoff(&self) -> &Backoff;
    /// A reconcile ended.
    fn reconciled(&self, controller: &'static str, elapsed: Duration, succeeded: bool);
}

/// A failed reconcile: retried with backoff.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The controller's own.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("cancelled after {} s", LONGEST_RECONCILE.as_secs())]
    TooLong,
    /// The status of an object that cannot be read could not be written.
    #[error("could not write the status of an object that cannot be read")]
    Unparsable(#[source] kube::Error),
}

/// A reconciler with what runs it.
struct Running<R: Reconciler, E> {
    reconciler: R,
    /// The objects that exist.
    store: Store<R::Kind>,
    environment: Arc<E>,
    places: Arc<Places>,
    stop: CancellationToken,
}

/// Runs a controller until `stop`; reconciles in progress are finished first.
pub(crate) async fn run<R: Reconciler, E: Environment>(
    controller: Controller<Watched<R::Kind>>,
    reconciler: R,
    environment: Arc<E>,
    stop: CancellationToken,
) where
    R::Kind: 'static,
{
    let store = controller.store();
    controller
        .with_config(Config::default().concurrency(UNBOUNDED).debounce(DEBOUNCE))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            |object, running| reconcile(object, running),
            |object, error, running| error_policy(object.as_ref(), error, &running),
            Arc::new(Running { reconciler, store, environment, places: Arc::default(), stop }),
        )
        .for_each(|result| async move {
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                tracing::warn!(controller = R::NAME, %error, "the watch failed and is restarted");
            }
        })
        .await;
}

async fn reconcile<R: Reconciler, E: Environment>(
    object: Arc<Watched<R::Kind>>,
    running: Arc<Running<R, E>>,
) -> Result<Action, ReconcileError> {
    let Running { reconciler, store, environment, places, stop } = running.as_ref();
    let namespace = object.namespace().unwrap_or_default();
    // Made only when there is a place for it: it takes several kilobytes, and thousands may wait.
    let reconcile = || {
        Box::pin(async {
            let started = Instant::now();
            let result = match &object.0 {
                Err(invalid) => refuse_unparsable::<R, E>(object.as_ref(), &invalid.error, environment).await,
                Ok(parsed) => match limited(LONGEST_RECONCILE, reconciler.reconcile(Arc::new(parsed.clone()))).await {
                    Some(result) => result.map_err(|error| ReconcileError::Failed(Box::new(error))),
                    None => Err(ReconcileError::TooLong),
                },
            };
            (started, result)
        })
    };
    let Some((started, result)) = places.run(&namespace, cause::<R>(&object), stop.cancelled(), reconcile).await else {
        return Ok(Action::await_change());
    };
    environment.reconciled(R::NAME, started.elapsed(), result.is_ok());
    if store.get(&ObjectRef::from_obj(object.as_ref())).is_none() {
        reconciler.forget(&namespace, &object.name_any());
    }
    if result.is_ok() {
        environment.backoff().reset(&key::<R>(object.as_ref()));
    }
    result
}

/// Whether a user has declared something that the status does not tell of yet.
fn cause<R: Reconciler>(object: &Watched<R::Kind>) -> Cause {
    let is_observed =
        |it: &R::Kind| it.meta().deletion_timestamp.is_none() && R::observed_generation(it) == it.meta().generation;
    if object.0.as_ref().is_ok_and(is_observed) { Cause::Check } else { Cause::Declared }
}

fn error_policy<R: Reconciler, E: Environment>(
    object: &Watched<R::Kind>,
    error: &ReconcileError,
    running: &Running<R, E>,
) -> Action {
    let wait = running.environment.backoff().next(&key::<R>(object));
    tracing::warn!(
        controller = R::NAME,
        object = %ObjectRef::from_obj(object),
        error = %chain(error),
        retry_in_seconds = wait.as_secs(),
        "reconcile failed"
    );
    Action::requeue(wait)
}

fn key<R: Reconciler>(object: &impl ResourceExt) -> String {
    format!("{}/{}", R::NAME, object.uid().unwrap_or_else(|| object.name_any()))
}

/// Reports on an object why it cannot be read. What was carried out for it stays as it is.
async fn refuse_unparsable<R: Reconciler, E: Environment>(
    object: &Watched<R::Kind>,
    error: &str,
    environment: &E,
) -> Result<Action, ReconcileError> {
    let (name, namespace) = (object.name_any(), object.namespace());
    let kind = R::Kind::kind(&());
    let message = format!(
        "this {kind} cannot be read as its type: {error}. Nothing was changed because of it; correct the field and apply it again"
    );
    tracing::warn!(controller = R::NAME, object = %ObjectRef::from_obj(object), error, "object cannot be read");
    let api = untyped::<R::Kind>(environment.client().clone(), namespace.as_deref());
    let current = api.get(&name).await.map_err(ReconcileError::Unparsable)?;
    let reported = current.data["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
        condition["type"] == STALLED && condition["message"] == message.as_str() && condition["status"] == "True"
    });
    if !reported {
        let now = whole_seconds(environment.now());
        let condition = |kind: &str, status: &str| {
            json!({"type": kind, "status": status, "reason": reasons::UNPARSABLE, "message": message,
                   "observedGeneration": object.meta().generation, "lastTransitionTime": now.to_string()})
        };
        // The whole status as it was, under the controller's own field manager: so that the next successful reconcile
        // owns, and can remove, what is reported here.
        let mut status = current.data["status"].clone();
        if !status.is_object() {
            status = json!({});
        }
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != READY && condition["type"] != STALLED);
        conditions.extend([condition(READY, "False"), condition(STALLED, "True")]);
        status["conditions"] = conditions.into();
        let patch = json!({
            "apiVersion": R::Kind::api_version(&()), "kind": kind, "metadata": {"name": name}, "status": status
        });
        let parameters = PatchParams::apply(&format!("pgrail-{}", R::NAME)).force();
        api.patch_status(&name, &parameters, &Patch::Apply(&patch)).await.map_err(ReconcileError::Unparsable)?;
    }
    Ok(Action::requeue(UNPARSABLE_RETRY))
}
