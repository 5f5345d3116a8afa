//! The options of `pgrail operator`, read once: nothing reads the environment later.

use crate::agent::config::AddressConfig;
use crate::allowed_stores::AllowedStores;
use crate::database::AllowedHosts;

/// The options of the operator.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The namespace it runs in: where its Lease lives.
    pub(crate) namespace: String,
    /// Only objects of this namespace; absent: of all.
    pub(crate) watch_namespace: Option<String>,
    /// This process, usually the pod's name.
    pub(crate) identity: String,
    /// The image that Job pods run: pgrail's own.
    pub(crate) image: String,
    /// Pull policy of that image.
    pub(crate) image_pull_policy: String,
    /// Hosts that the connection of a spec may name besides Services of its own namespace.
    pub(crate) allowed_hosts: AllowedHosts,
    /// Stores that dumps may be sent to.
    pub(crate) allowed_stores: AllowedStores,
    /// What the pods of Jobs connect to.
    pub(crate) addresses: AddressConfig,
}
