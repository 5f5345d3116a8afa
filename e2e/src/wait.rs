//! Waiting for conditions: looked at often, given up after a bound, and then with everything that helps.

use crate::TestNamespace;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a condition may take before its test fails: a bound against hanging, no measure of speed.
const BOUND: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Checks until there is an answer.
pub async fn eventually<T>(what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(BOUND, what, check).await
}

/// As [`eventually`], for what takes long on a busy machine.
pub async fn eventually_within<T>(bound: Duration, what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(started.elapsed() < bound, "gave up after {} s: {what}", bound.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at an object until it is as wanted. Prints it when it never is.
pub async fn wait_for<K>(namespace: &TestNamespace, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
{
    let api = namespace.api::<K>();
    let started = Instant::now();
    loop {
        let object = api.get_opt(name).await.expect("the apiserver answers");
        if let Some(object) = object
            && wanted(&object)
        {
            return object;
        }
        assert!(
            started.elapsed() <= BOUND,
            "gave up after {} s: {what}\n{}\nEvents: {:#?}",
            BOUND.as_secs(),
            namespace.describe::<K>(name).await,
            namespace.events(name).await
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A condition of an object: status, reason, message.
pub fn condition<K: Serialize>(object: &K, kind: &str) -> Option<(String, String, String)> {
    let object = serde_json::to_value(object).ok()?;
    let generation = &object["metadata"]["generation"];
    let condition = object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind && condition["observedGeneration"] == *generation)?;
    let text = |field: &str| condition[field].as_str().map(str::to_owned);
    Some((text("status")?, text("reason")?, text("message")?))
}

/// Whether an object's condition has this status and reason, for its present generation.
pub fn holds<K: Serialize>(object: &K, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind).is_some_and(|(is, why, _)| is == status && why == reason)
}

/// A field of an object by JSON pointer.
pub fn field<K: Serialize>(object: &K, pointer: &str) -> Value {
    serde_json::to_value(object).ok().and_then(|it| it.pointer(pointer).cloned()).unwrap_or_default()
}
