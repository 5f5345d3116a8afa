//! Changes of the fleet as changes of the policies: those that happen within a second are one, however many they are.

use crate::kubernetes::watch::{Store, Watched};
use futures::{FutureExt, Stream, StreamExt, stream};
use kube::runtime::reflector::ObjectRef;
use pgrail_crds::GuardrailPolicy;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long further changes are waited for. Not longer while they go on.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// Changes that were not assessed yet.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Notify>);

impl Changes {
    /// To be called for every change.
    pub(super) fn notifier(&self) -> impl Fn() + Send + Sync + use<> {
        let notify = Arc::clone(&self.0);
        move || notify.notify_one()
    }

    /// Every policy, once after each change and what else changes within `settle`.
    pub(super) fn of_all(
        &self,
        policies: Store<GuardrailPolicy>,
        settle: Duration,
    ) -> impl Stream<Item = ObjectRef<Watched<GuardrailPolicy>>> + Send + use<> {
        let changed = stream::unfold(Arc::clone(&self.0), move |notify| async move {
            notify.notified().await;
            tokio::time::sleep(settle).await;
            // What changed meanwhile is seen by the same assessment.
            let _ = notify.notified().now_or_never();
            Some(((), notify))
        });
        changed.flat_map(move |()| {
            let all: Vec<_> = policies.state().iter().map(|policy| ObjectRef::from_obj(policy.as_ref())).collect();
            stream::iter(all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::DeserializeGuard;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    #[tokio::test]
    async fn many_changes_are_one() {
        let (store, mut writer) = reflector::store::<Watched<GuardrailPolicy>>();
        let policy: GuardrailPolicy = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {}})).unwrap();
        writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(policy))));
        let changes = Changes::default();
        let assessed = changes.of_all(store, Duration::from_millis(1));
        futures::pin_mut!(assessed);
        let change = changes.notifier();
        for _ in 0..1000 {
            change();
        }
        assert_eq!(assessed.next().await.unwrap().name, "p");
        assert!(assessed.next().now_or_never().is_none(), "nothing changed since");
        change();
        assert!(assessed.next().await.is_some());
    }
}
