//! What every controller needs of Kubernetes: guarded watches, conditions, status patches, Events, finalizers.

pub(crate) mod annotation;
pub(crate) mod api;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod controller;
pub(crate) mod events;
pub(crate) mod finalizer;
pub(crate) mod line;
pub(crate) mod namespace;
pub(crate) mod optional;
pub(crate) mod places;
pub(crate) mod rejection;
pub(crate) mod status;
pub(crate) mod text;
pub(crate) mod watch;
