//! Removing what retention let go, and what failed runs left.

use serde::{Deserialize, Serialize};

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Locations that were removed.
    pub deleted: Vec<String>,
}

impl PruneReport {
    pub(crate) fn shorten(&mut self) {
        self.deleted.truncate(10);
    }
}
