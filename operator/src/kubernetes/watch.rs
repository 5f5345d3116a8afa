//! One watch of a kind, however many controllers depend on its objects.

use crate::mutex::locked;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, predicates};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// Objects in one page of a list: a page is decoded as a whole, and its memory is not given back to the system.
const PAGE: u32 = 50;
/// What `kubectl apply` keeps of the last manifest: the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The kinds as they are watched: an object that cannot be read does not end the watch.
pub(crate) type Watched<K> = DeserializeGuard<K>;

/// The objects of a kind as the watch last reported them.
pub(crate) type Store<K> = reflector::Store<Watched<K>>;

/// Gets every event of a watch.
type Follower<K> = Box<dyn FnMut(&Event<Watched<K>>) + Send>;

/// A watch that a controller runs, for the other controllers that depend on its objects.
pub(crate) struct Watch<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    followers: Arc<Mutex<Vec<Follower<K>>>>,
}

/// How every kind is watched.
pub(crate) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// A watch of one kind, and the controller on it. `status` changes of the object itself do not trigger it. The watch runs
/// with the controller.
pub(crate) fn watch<K>(api: Api<Watched<K>>) -> (Controller<Watched<K>>, Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (events, watch) = events(api);
    let changes = events.applied_objects().predicate_filter(declared, PredicateConfig::default());
    (Controller::for_stream(changes, watch.store()), watch)
}

/// A watch of one kind without a controller, and what runs it until `stop`.
pub(crate) fn watch_only<K>(
    api: Api<Watched<K>>,
    stop: CancellationToken,
) -> (impl Future<Output = ()> + Send, Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (events, watch) = events(api);
    let run = events.take_until(stop.cancelled_owned()).for_each(|event| {
        if let Err(error) = event {
            tracing::warn!(kind = %K::kind(&()), %error, "the watch failed and is restarted");
        }
        std::future::ready(())
    });
    (run, watch)
}

/// The events of a watch, which fill its store.
fn events<K>(api: Api<Watched<K>>) -> (impl Stream<Item = watcher::Result<Event<Watched<K>>>> + Send, Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let followers: Arc<Mutex<Vec<Follower<K>>>> = Arc::default();
    let told = Arc::clone(&followers);
    let events =
        kube::runtime::watcher(api, config()).default_backoff().modify(trim).reflect(writer).inspect(move |event| {
            if let Ok(event) = event {
                locked(&told).iter_mut().for_each(|follower| follower(event));
            }
        });
    (events, Watch { store, followers })
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// The objects.
    pub(crate) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Calls `deleted` for every object that does not exist any more: a controller reconciles only objects that do. To be
    /// called before the controller runs.
    pub(crate) fn on_delete(&self, deleted: impl Fn(&ObjectRef<Watched<K>>) + Send + 'static) {
        let mut deletions = Deletions { store: self.store(), missing: HashSet::new() };
        let follower = move |event: &Event<Watched<K>>| deletions.of(event).iter().for_each(&deleted);
        locked(&self.followers).push(Box::new(follower));
    }

    /// Calls `seen` for every object that is listed, and after every change. To be called before the controller runs.
    pub(crate) fn on_object(&self, seen: impl Fn(&Watched<K>) + Send + 'static) {
        let follower = move |event: &Event<Watched<K>>| match event {
            Event::InitApply(object) | Event::Apply(object) => seen(object),
            Event::Init | Event::InitDone | Event::Delete(_) => {}
        };
        locked(&self.followers).push(Box::new(follower));
    }

    /// Calls `changed` each time that what `matters` of an object changes, and when it is created or deleted. To be called
    /// before the controller runs.
    pub(crate) fn on_change(&self, matters: fn(&Watched<K>) -> u64, changed: impl Fn() + Send + 'static) {
        let (mut last, mut listed): (HashMap<String, u64>, HashMap<String, u64>) = (HashMap::new(), HashMap::new());
        let follower = move |event: &Event<Watched<K>>| {
            let is_new = match event {
                Event::Init => {
                    listed = HashMap::new();
                    false
                }
                Event::InitApply(object) => {
                    listed.insert(key(object), matters(object));
                    false
                }
                Event::InitDone => {
                    let before = std::mem::replace(&mut last, std::mem::take(&mut listed));
                    before != last
                }
                Event::Apply(object) => {
                    let now = matters(object);
                    last.insert(key(object), now) != Some(now)
                }
                Event::Delete(object) => last.remove(&key(object)).is_some(),
            };
            if is_new {
                changed();
            }
        };
        locked(&self.followers).push(Box::new(follower));
    }

    /// The objects of another kind that depend on one of this kind, each time that what `matters` of it changes, and when
    /// it is deleted. To be called before the controller runs.
    pub(crate) fn follow<T, Dependents>(
        &self,
        matters: fn(&Watched<K>) -> u64,
        dependents: impl Fn(&Watched<K>) -> Dependents + Send + 'static,
    ) -> impl Stream<Item = ObjectRef<Watched<T>>> + Send + 'static
    where
        T: Resource<DynamicType = ()> + Clone + Send + 'static,
        Dependents: IntoIterator<Item = ObjectRef<Watched<T>>>,
    {
        let (sender, receiver): (UnboundedSender<ObjectRef<Watched<T>>>, UnboundedReceiver<_>) = unbounded();
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut listed = HashMap::new();
        // What a list shows is in the store only at its end.
        let mut waiting: Vec<ObjectRef<Watched<T>>> = Vec::new();
        let follower = move |event: &Event<Watched<K>>| {
            match event {
                Event::Init => (listed, waiting) = (HashMap::new(), Vec::new()),
                Event::InitApply(object) => {
                    let (key, now) = (key(object), matters(object));
                    if last.get(&key) != Some(&now) {
                        waiting.extend(dependents(object));
                    }
                    listed.insert(key, now);
                }
                Event::InitDone => last = std::mem::take(&mut listed),
                Event::Apply(object) => {
                    let now = matters(object);
                    if last.insert(key(object), now) != Some(now) {
                        waiting.extend(dependents(object));
                    }
                }
                Event::Delete(object) => {
                    last.remove(&key(object));
                    waiting.extend(dependents(object));
                }
            }
            if !matches!(event, Event::Init | Event::InitApply(_)) {
                for dependent in waiting.drain(..) {
                    // Fails once the other controller has ended: so does the operator.
                    let _ = sender.unbounded_send(dependent);
                }
            }
        };
        locked(&self.followers).push(Box::new(follower));
        receiver
    }
}

/// Finds the objects that were deleted, also while the watch was interrupted.
struct Deletions<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    /// While the objects are listed anew: those that were not listed yet.
    missing: HashSet<ObjectRef<Watched<K>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Deletions<K> {
    fn of(&mut self, event: &Event<Watched<K>>) -> Vec<ObjectRef<Watched<K>>> {
        match event {
            Event::Init => {
                // The store has the objects of before until the list is complete.
                let before = self.store.state();
                self.missing = before.iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.missing.remove(&ObjectRef::from_obj(object));
                Vec::new()
            }
            Event::InitDone => self.missing.drain().collect(),
            Event::Apply(_) => Vec::new(),
            Event::Delete(object) => vec![ObjectRef::from_obj(object)],
        }
    }
}

fn key(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_else(|| object.name_any())
}

/// Removes what no controller reads.
fn trim<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove(LAST_APPLIED);
}

/// What of an object a controller acts on: everything but its status.
#[allow(clippy::unnecessary_wraps, reason = "the signature is kube's")]
fn declared<K: Resource>(object: &K) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    predicates::generation(object).hash(&mut hasher);
    predicates::finalizers(object).hash(&mut hasher);
    predicates::annotations(object).hash(&mut hasher);
    predicates::labels(object).hash(&mut hasher);
    object.meta().deletion_timestamp.is_some().hash(&mut hasher);
    object.meta().uid.hash(&mut hasher);
    Some(hasher.finish())
}
