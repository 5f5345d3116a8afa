//! How many reconciles run at the same time, and that no namespace takes the places of the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reconciles of one controller that run at the same time.
const PLACES: usize = 32;
/// At most this many of them for the objects of one namespace.
const OF_ONE_NAMESPACE: usize = PLACES / 4;

/// The places of one controller.
pub(super) struct Places {
    all: Arc<Semaphore>,
    namespaces: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The right to run one reconcile.
pub(super) struct Place {
    // The namespace's place is released first: its next object may then wait for a place of all.
    _namespace: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(PLACES)), namespaces: Mutex::default() }
    }
}

impl Places {
    /// Waits for a place, in the order of asking within each namespace.
    pub(super) async fn take(&self, namespace: &str) -> Option<Place> {
        // Neither semaphore is ever closed.
        let of_namespace = self.of(namespace).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _namespace: of_namespace, _all: all })
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody uses or waits for are made again when needed.
        namespaces.retain(|_, places| Arc::strong_count(places) > 1);
        let places =
            namespaces.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_NAMESPACE)));
        Arc::clone(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_namespace_has_at_most_a_quarter_of_the_places() {
        let places = Places::default();
        let mut held = Vec::new();
        for _ in 0..OF_ONE_NAMESPACE {
            held.push(places.take("loud").now_or_never().flatten().unwrap());
        }
        assert!(places.take("loud").now_or_never().is_none(), "one more waits");
        let other = places.take("quiet").now_or_never().flatten();
        assert!(other.is_some(), "another namespace does not");
        held.pop();
        assert!(places.take("loud").now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn all_namespaces_together_have_no_more_than_all_places() {
        let places = Places::default();
        let mut held = Vec::new();
        for number in 0..PLACES {
            held.push(places.take(&(number / OF_ONE_NAMESPACE).to_string()).now_or_never().flatten().unwrap());
        }
        assert!(places.take("late").now_or_never().is_none());
        held.clear();
        assert!(places.take("late").now_or_never().flatten().is_some());
        assert_eq!(places.namespaces.lock().unwrap().len(), 1, "what nobody uses is dropped");
    }
}
