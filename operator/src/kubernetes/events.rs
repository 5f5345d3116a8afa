//! Kubernetes Events: one per thing that happened; the same thing again within six minutes is counted, not repeated.

use super::text::truncated;
use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use std::collections::HashMap;
use std::sync::Mutex;

/// The longest note that the apiserver accepts, in bytes.
const LONGEST_NOTE: usize = 1024;
/// How long the recorder of a note is kept: as long as it counts repetitions.
const KEPT: SignedDuration = SignedDuration::from_mins(6);

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// As planned.
    Normal,
    /// Needs attention.
    Warning,
}

/// Object (UID), reason and note.
type Key = (String, String, String);

/// Writes Events. A failed write is logged: an Event never fails a reconcile.
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
    /// kube's recorder counts an Event with another note as a repetition and drops the note: one recorder per note.
    recorders: Mutex<HashMap<Key, (Recorder, Timestamp)>>,
}

impl Events {
    /// `instance` names this process, usually the pod.
    pub(crate) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: "pgrail.dev/operator".to_owned(), instance: Some(instance) };
        Self { client, reporter, recorders: Mutex::default() }
    }

    /// Publishes an Event about an object. `action` is what pgrail was doing, `reason` the outcome.
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
        let note = truncated(&note.into(), LONGEST_NOTE);
        let recorder = self.recorder((object.uid().unwrap_or_default(), reason.to_owned(), note.clone()), now);
        let event = Event {
            type_: if severity == Severity::Normal { EventType::Normal } else { EventType::Warning },
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &reference).await {
            tracing::warn!(reason, note = event.note, object = object.name_any(), %error, "could not write an Event");
        }
    }

    fn recorder(&self, key: Key, now: Timestamp) -> Recorder {
        let mut recorders = locked(&self.recorders);
        recorders.retain(|_, (_, used)| now.duration_since(*used) < KEPT);
        let new = || (Recorder::new(self.client.clone(), self.reporter.clone()), now);
        let (recorder, used) = recorders.entry(key).or_insert_with(new);
        *used = now;
        recorder.clone()
    }
}
