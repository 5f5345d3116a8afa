//! A watch of the metadata of a kind that the cluster may not have. A kind that is missing, appears later or is removed stops
//! nothing: the watch is retried, and what it last found is one of three states.

use super::text::chain;
use super::watch;
use crate::mutex::locked;
use futures::StreamExt;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Error, Event};
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Without any kind of the group, the answer is no `Status`: it has a code and no reason.
const NOT_FOUND: u16 = 404;

/// A kind by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
}

impl Kind {
    /// As the untyped API needs it.
    pub(crate) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

/// An object: what is kept of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The annotation that the watch was made for.
    pub(crate) annotation: Option<String>,
    pub(crate) is_deleted: bool,
}

/// What is known of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objects {
    /// Not listed yet.
    Pending,
    /// The cluster does not have the kind.
    Absent,
    /// It cannot be listed.
    Unreadable(String),
    /// Its objects.
    Listed(Vec<Found>),
}

#[derive(Default)]
struct State {
    objects: HashMap<(String, String), Found>,
    listed: bool,
    problem: Option<Problem>,
    /// While the objects are listed anew.
    next: HashMap<(String, String), Found>,
}

enum Problem {
    Absent,
    Unreadable(String),
}

/// The watch.
pub(crate) struct Optional {
    kind: Kind,
    labels: Option<&'static str>,
    annotation: Option<&'static str>,
    state: Mutex<State>,
}

impl Optional {
    /// `labels` selects the objects, and `annotation` names the one that is kept.
    pub(crate) fn new(kind: Kind, labels: Option<&'static str>, annotation: Option<&'static str>) -> Self {
        Self { kind, labels, annotation, state: Mutex::default() }
    }

    /// The kind.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What is known now.
    pub(crate) fn objects(&self) -> Objects {
        let state = self.state();
        match &state.problem {
            Some(Problem::Absent) => Objects::Absent,
            Some(Problem::Unreadable(message)) => Objects::Unreadable(message.clone()),
            None if state.listed => Objects::Listed(state.objects.values().cloned().collect()),
            None => Objects::Pending,
        }
    }

    /// Watches until `stop`, and calls `changed` whenever something is known that was not.
    pub(crate) async fn run(&self, client: Client, changed: impl Fn(), stop: CancellationToken) {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &self.kind.resource());
        let mut config = watch::config();
        if let Some(labels) = self.labels {
            config = config.labels(labels);
        }
        let events = watcher::watcher(api, config).default_backoff().take_until(stop.cancelled());
        futures::pin_mut!(events);
        while let Some(event) = events.next().await {
            if self.handle(event) {
                changed();
            }
        }
    }

    /// Whether it said something new.
    fn handle(&self, event: Result<Event<PartialObjectMeta<DynamicObject>>, Error>) -> bool {
        let mut state = self.state();
        match event {
            Ok(Event::Init) => {
                state.next = HashMap::new();
                false
            }
            Ok(Event::InitApply(object)) => {
                let found = self.found(&object);
                state.next.insert((found.namespace.clone(), found.name.clone()), found);
                false
            }
            Ok(Event::InitDone) => {
                let next = std::mem::take(&mut state.next);
                let is_new = !state.listed || state.problem.is_some() || state.objects != next;
                (state.objects, state.listed, state.problem) = (next, true, None);
                is_new
            }
            Ok(Event::Apply(object)) => {
                let found = self.found(&object);
                let before = state.objects.insert((found.namespace.clone(), found.name.clone()), found.clone());
                before.as_ref() != Some(&found)
            }
            Ok(Event::Delete(object)) => {
                let key = (object.namespace().unwrap_or_default(), object.name_any());
                state.objects.remove(&key).is_some()
            }
            Err(Error::InitialListFailed(error) | Error::WatchStartFailed(error)) => {
                let absent = matches!(&error, kube::Error::Api(status) if status.code == NOT_FOUND);
                let was_absent = matches!(state.problem, Some(Problem::Absent));
                let was_unreadable = matches!(state.problem, Some(Problem::Unreadable(_)));
                if absent {
                    state.objects = HashMap::new();
                    state.problem = Some(Problem::Absent);
                    return !was_absent;
                }
                let kind = &self.kind;
                let message = format!("{}.{} cannot be listed: {}", kind.plural, kind.group, chain(&error));
                state.problem = Some(Problem::Unreadable(message));
                !was_unreadable
            }
            // An interrupted watch is started again by the watcher: what is known stays.
            Err(_) => false,
        }
    }

    fn found(&self, object: &PartialObjectMeta<DynamicObject>) -> Found {
        Found {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            labels: object.labels().clone(),
            annotation: self.annotation.and_then(|name| object.annotations().get(name).cloned()),
            is_deleted: object.metadata.deletion_timestamp.is_some(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use serde_json::json;

    const KIND: Kind = Kind { group: "g.example", version: "v1", kind: "Thing", plural: "things" };

    fn object(name: &str) -> PartialObjectMeta<DynamicObject> {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}})).unwrap()
    }

    fn failed(code: u16, reason: &str) -> Result<Event<PartialObjectMeta<DynamicObject>>, Error> {
        let status = Status::failure("no", reason).with_code(code);
        Err(Error::InitialListFailed(kube::Error::Api(Box::new(status))))
    }

    fn names(optional: &Optional) -> Vec<String> {
        match optional.objects() {
            Objects::Listed(found) => found.into_iter().map(|it| it.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_kind_can_be_missing_appear_and_be_removed() {
        let optional = Optional::new(KIND, None, None);
        assert_eq!(optional.objects(), Objects::Pending);
        assert!(optional.handle(failed(404, "Failed to parse error data")), "the whole group is missing");
        assert!(!optional.handle(failed(404, "NotFound")), "nothing new");
        assert_eq!(optional.objects(), Objects::Absent);
        for event in [Event::Init, Event::InitApply(object("a"))] {
            assert!(!optional.handle(Ok(event)));
        }
        assert_eq!(optional.objects(), Objects::Absent, "until the list is complete");
        assert!(optional.handle(Ok(Event::InitDone)));
        assert_eq!(names(&optional), ["a"]);
        assert!(!optional.handle(Ok(Event::Apply(object("a")))), "nothing new");
        assert!(optional.handle(Ok(Event::Delete(object("a")))));
        assert!(names(&optional).is_empty());
        assert!(optional.handle(failed(404, "NotFound")));
        assert_eq!(optional.objects(), Objects::Absent);
    }

    #[test]
    fn a_kind_that_cannot_be_listed_is_not_known() {
        let optional = Optional::new(KIND, None, None);
        assert!(optional.handle(failed(403, "Forbidden")));
        assert!(matches!(optional.objects(), Objects::Unreadable(message) if message.contains("things.g.example")));
        assert!(optional.handle(Ok(Event::InitDone)));
        assert!(names(&optional).is_empty());
    }
}
