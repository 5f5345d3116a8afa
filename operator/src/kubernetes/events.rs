//! Kubernetes Events: one per thing that happened, the same thing again within an hour counted instead of repeated.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::collections::HashMap;
use tokio::sync::Mutex;

/// How long the same Event is counted up instead of created again, in seconds.
const SERIES_SECONDS: i64 = 3600;
/// The longest note that the apiserver accepts, in bytes.
const LONGEST_NOTE: usize = 1024;

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// As planned.
    Normal,
    /// Somebody should look.
    Warning,
}

type Subject = (String, String, String);
type Published = (String, i32, Timestamp);

/// Writes Events. A failed write is logged: an Event never fails a reconcile.
pub(crate) struct Events {
    client: Client,
    instance: String,
    recent: Mutex<HashMap<Subject, Published>>,
}

impl Events {
    /// `instance` names this process, usually the pod.
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self { client, instance, recent: Mutex::default() }
    }

    /// Publishes an Event about an object. `action` is what pgrail was doing, `reason` what came of it.
    pub(crate) async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        severity: Severity,
        action: &str,
        reason: &str,
        note: impl Into<String>,
        now: Timestamp,
    ) {
        let reference = object.object_ref(&());
        let note = bounded(note.into());
        if let Err(error) = self.write(&reference, severity, action, reason, &note, now).await {
            tracing::warn!(reason, note, object = object.name_any(), %error, "could not write an Event");
        }
    }

    async fn write(
        &self,
        reference: &ObjectReference,
        severity: Severity,
        action: &str,
        reason: &str,
        note: &str,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        // Cluster-scoped objects have their Events in `default`.
        let namespace = reference.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = (reference.uid.clone().unwrap_or_default(), reason.to_owned(), note.to_owned());
        let mut recent = self.recent.lock().await;
        recent.retain(|_, (_, _, seen)| now.as_second() - seen.as_second() < SERIES_SECONDS);
        if let Some((name, count, seen)) = recent.get_mut(&key) {
            let series = EventSeries { count: *count + 1, last_observed_time: MicroTime(now) };
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"series": series}))).await;
            match patched {
                Ok(_) => {
                    (*count, *seen) = (*count + 1, now);
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let name = format!("{}.{:x}", reference.name.clone().unwrap_or_default(), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
            action: Some(action.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(note.to_owned()),
            type_: Some(if severity == Severity::Normal { "Normal" } else { "Warning" }.to_owned()),
            event_time: Some(MicroTime(now)),
            regarding: Some(reference.clone()),
            reporting_controller: Some("pgrail.dev/operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await?;
        recent.insert(key, (name, 1, now));
        Ok(())
    }
}

fn bounded(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let mut end = LONGEST_NOTE - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    note
}
