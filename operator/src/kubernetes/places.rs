//! How many reconciles run at the same time, and that no namespace takes the places of the others.
//!
//! A reconcile that waits for something that others use, such as a connection, leaves its place meanwhile. It is still
//! admitted: the number of those bounds the memory.

use super::line::{Cause, Line};
use crate::mutex::locked;
use futures::poll;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Reconciles of one controller that run at the same time.
const PLACES: usize = 32;
/// Reconciles of one controller that run or wait at the same time.
const ADMITTED: usize = 256;
/// At most this part of them is for the objects of one namespace.
const SHARE_OF_ONE_NAMESPACE: usize = 4;

/// The places of one controller.
pub(super) struct Places {
    admitted: Arc<Semaphore>,
    all: Arc<Semaphore>,
    namespaces: Mutex<HashMap<String, Arc<OfNamespace>>>,
}

struct OfNamespace {
    /// One of those that have not begun waits for a place at a time, so that those that come back are not behind all.
    line: Line,
    admitted: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// The right to run one reconcile.
pub(super) struct Place {
    // The namespace's place is released first: its next object may then wait for a place of all.
    _namespace: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

/// The place of the reconcile that is running.
struct Held {
    places: Arc<Places>,
    namespace: Arc<OfNamespace>,
    cause: Cause,
    state: Mutex<State>,
}

struct State {
    /// `None` while the reconcile waits for something that others use.
    place: Option<Place>,
    /// Since when it waits.
    waits: Option<Instant>,
    /// How long it has waited before.
    waited: Duration,
}

tokio::task_local! {
    static HELD: Held;
}

/// Why the reconcile runs.
pub(crate) fn cause() -> Cause {
    HELD.try_with(|held| held.cause).unwrap_or_default()
}

/// Waits for something that another reconcile uses, such as a server's connections. Meanwhile, the place of this reconcile
/// is free for others, and the time does not count towards its limit. Every such wait must be made with this function: a
/// reconcile that waits in its place for one that waits for a place would wait for ever.
pub(crate) async fn wait_without_place<T>(wait: impl Future<Output = T>) -> T {
    let mut wait = pin!(wait);
    if let Poll::Ready(ready) = poll!(wait.as_mut()) {
        return ready;
    }
    let Ok(left) = HELD.try_with(|held| held.state().leave()) else { return wait.await };
    drop(left);
    let ready = wait.await;
    if let Ok((places, namespace)) = HELD.try_with(|held| (Arc::clone(&held.places), Arc::clone(&held.namespace))) {
        let place = places.place(&namespace).await;
        let _ = HELD.try_with(|held| held.state().come_back(place));
    }
    ready
}

/// Runs a reconcile for at most `limit`, without the time in which it waits for what others use. `None` when it took
/// longer.
pub(super) async fn limited<T>(limit: Duration, reconcile: impl Future<Output = T>) -> Option<T> {
    let mut reconcile = pin!(reconcile);
    let started = Instant::now();
    // When the limit is reached, if the reconcile does not wait from now on.
    let end = || started + limit + HELD.try_with(|held| held.state().waited()).unwrap_or_default();
    loop {
        tokio::select! {
            result = &mut reconcile => return Some(result),
            () = sleep_until(end()) => {}
        }
        if end() <= Instant::now() {
            return None;
        }
    }
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl State {
    fn leave(&mut self) -> Option<Place> {
        self.waits = Some(Instant::now());
        self.place.take()
    }

    fn come_back(&mut self, place: Option<Place>) {
        self.waited = self.waited();
        self.waits = None;
        self.place = place;
    }

    fn waited(&self) -> Duration {
        self.waited + self.waits.map(|since| since.elapsed()).unwrap_or_default()
    }
}

impl Default for OfNamespace {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            line: Line::default(),
            admitted: semaphore(ADMITTED / SHARE_OF_ONE_NAMESPACE),
            places: semaphore(PLACES / SHARE_OF_ONE_NAMESPACE),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(ADMITTED)),
            all: Arc::new(Semaphore::new(PLACES)),
            namespaces: Mutex::default(),
        }
    }
}

impl Places {
    /// Begins a reconcile when there is a place for it, and runs it. `None` when `stopped` completes before.
    pub(super) async fn run<T, Reconcile: Future<Output = T>>(
        self: &Arc<Self>,
        namespace: &str,
        cause: Cause,
        stopped: impl Future<Output = ()>,
        reconcile: impl FnOnce() -> Reconcile,
    ) -> Option<T> {
        let namespace = self.of(namespace);
        let admission = tokio::select! {
            admission = self.admit(&namespace, cause) => admission,
            () = stopped => return None,
        };
        let (place, _admitted) = admission?;
        let state = Mutex::new(State { place: Some(place), waits: None, waited: Duration::ZERO });
        let held = Held { places: Arc::clone(self), namespace, cause, state };
        Some(HELD.scope(held, reconcile()).await)
    }

    /// Waits until a reconcile may begin. No semaphore is ever closed.
    async fn admit(&self, namespace: &OfNamespace, cause: Cause) -> Option<(Place, [OwnedSemaphorePermit; 2])> {
        let _turn = namespace.line.turn(cause).await;
        let of_namespace = Arc::clone(&namespace.admitted).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.admitted).acquire_owned().await.ok()?;
        Some((self.place(namespace).await?, [of_namespace, all]))
    }

    async fn place(&self, namespace: &OfNamespace) -> Option<Place> {
        let of_namespace = Arc::clone(&namespace.places).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _namespace: of_namespace, _all: all })
    }

    fn of(&self, namespace: &str) -> Arc<OfNamespace> {
        let mut namespaces = locked(&self.namespaces);
        // Those that nobody uses or waits for are made again when needed.
        namespaces.retain(|_, of| Arc::strong_count(of) > 1);
        Arc::clone(namespaces.entry(namespace.to_owned()).or_default())
    }
}

/// Runs something as a reconcile with this cause.
#[cfg(test)]
pub(crate) async fn with_cause<T>(cause: Cause, reconcile: impl Future<Output = T>) -> T {
    Arc::<Places>::default().run("test", cause, std::future::pending(), || reconcile).await.unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::{BoxFuture, pending};
    use tokio::sync::oneshot;

    const OF_ONE_NAMESPACE: usize = PLACES / SHARE_OF_ONE_NAMESPACE;

    /// A reconcile, begun: it is in its place if it could get one, and says so.
    fn begin<'a>(
        places: &Arc<Places>,
        namespace: &'a str,
        work: impl Future<Output = ()> + Send + 'a,
    ) -> (BoxFuture<'a, Option<()>>, bool) {
        let (began, mut has_begun) = oneshot::channel();
        let places = Arc::clone(places);
        // The runtime makes a task wait that takes many permits without a pause.
        let mut reconcile = tokio::task::unconstrained(async move {
            let work = async {
                let _ = began.send(());
                work.await;
            };
            places.run(namespace, Cause::Declared, pending(), || work).await
        })
        .boxed();
        assert!((&mut reconcile).now_or_never().is_none());
        (reconcile, has_begun.try_recv().is_ok())
    }

    #[tokio::test]
    async fn a_namespace_has_at_most_a_quarter_of_the_places() {
        let places = Arc::default();
        let mut loud: Vec<_> = (0..=OF_ONE_NAMESPACE).map(|_| begin(&places, "loud", pending())).collect();
        assert!(!loud.pop().unwrap().1, "one more waits");
        assert!(loud.iter().all(|(_, begun)| *begun));
        assert!(begin(&places, "quiet", pending()).1, "another namespace does not");
        loud.pop();
        assert!(begin(&places, "loud", pending()).1);
    }

    #[tokio::test]
    async fn all_namespaces_together_have_no_more_than_all_places() {
        let places = Arc::default();
        let names: Vec<String> = (0..PLACES).map(|number| (number / OF_ONE_NAMESPACE).to_string()).collect();
        let held: Vec<_> = names.iter().map(|name| begin(&places, name, pending())).collect();
        assert!(held.iter().all(|(_, begun)| *begun));
        assert!(!begin(&places, "late", pending()).1);
        drop(held);
        assert!(begin(&places, "late", pending()).1);
        drop(places.of("another"));
        assert_eq!(places.namespaces.lock().unwrap().len(), 1, "what nobody uses is dropped");
    }

    #[tokio::test]
    async fn a_reconcile_that_waits_leaves_its_place_to_others_and_comes_back_before_them() {
        let places = Arc::default();
        let (go, gone) = oneshot::channel::<()>();
        let wait = async {
            wait_without_place(gone).await.unwrap();
        };
        let (waiting, begun) = begin(&places, "loud", wait);
        assert!(begun);
        let mut running: Vec<_> = (0..OF_ONE_NAMESPACE).map(|_| begin(&places, "loud", pending())).collect();
        assert!(running.iter().all(|(_, begun)| *begun), "its place is free");
        let late: Vec<_> = (0..20).map(|_| begin(&places, "loud", pending())).collect();
        assert!(late.iter().all(|(_, begun)| !*begun));
        go.send(()).unwrap();
        let mut waiting = waiting;
        assert!((&mut waiting).now_or_never().is_none(), "it must have a place first");
        // The first of the others is before it, and no more.
        running.truncate(OF_ONE_NAMESPACE - 2);
        let mut late = late;
        assert!((&mut late[0].0).now_or_never().is_none());
        assert_eq!(waiting.await, Some(()));
    }

    #[tokio::test]
    async fn only_so_many_reconciles_are_admitted() {
        let places = Arc::default();
        let wait = || async { wait_without_place(pending()).await };
        let of_one = ADMITTED / SHARE_OF_ONE_NAMESPACE;
        let held: Vec<_> = (0..of_one).map(|_| begin(&places, "loud", wait())).collect();
        assert!(held.iter().all(|(_, begun)| *begun));
        assert!(!begin(&places, "loud", wait()).1);
        assert!(begin(&places, "quiet", wait()).1);
    }

    #[tokio::test]
    async fn the_time_in_which_a_reconcile_waits_does_not_count() {
        let places: Arc<Places> = Arc::default();
        let limit = Duration::from_millis(200);
        let waits = wait_without_place(tokio::time::sleep(limit * 3));
        assert_eq!(places.run("shop", Cause::Declared, pending(), || limited(limit, waits)).await, Some(Some(())));
        assert_eq!(
            places.run("shop", Cause::Declared, pending(), || limited(limit, pending::<()>())).await,
            Some(None)
        );
    }
}
