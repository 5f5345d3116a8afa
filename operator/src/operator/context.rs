//! What the controllers share.

use super::{Metrics, Settings};
use crate::database::Databases;
use crate::kubernetes::backoff::Backoff;
use crate::kubernetes::controller::Store;
use crate::kubernetes::events::Events;
use jiff::Timestamp;
use kube::Client;
use pgrail_crds::TableGuard;
use std::sync::OnceLock;

/// What every reconcile can use.
pub(crate) struct Context {
    /// The apiserver.
    pub(crate) client: Client,
    /// What the operator was told at its start.
    pub(crate) settings: Settings,
    /// UID of `kube-system`: stamped on everything that is installed in a database or a store.
    pub(crate) cluster_id: String,
    /// Connections to databases, one held each.
    pub(crate) databases: Databases,
    /// What was last seen of each database.
    pub(crate) seen: crate::protected_database::Seen,
    /// The guards as they are declared, once their controller runs.
    pub(crate) guards: OnceLock<Store<TableGuard>>,
    /// What is known of each guard.
    pub(crate) known: crate::table_guard::Known,
    /// Guards that are being deleted.
    pub(crate) deletions: crate::table_guard::Deletions,
    /// How long failing objects wait.
    pub(crate) backoff: Backoff,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Kubernetes Events.
    pub(crate) events: Events,
    /// The clock.
    pub(crate) clock: fn() -> Timestamp,
}

impl Context {
    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
