//! Why a spec makes no Job.

use crate::database::ResolveError;
use crate::kubernetes::rejection::{Reason, Rejection};
use crate::kubernetes::text::chain;
use pgrail_dump::{PatternError, RecipientError, StoreUrlError};

/// Why a spec makes no Job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobSpecError {
    #[error("spec.storage.url: {0}")]
    Url(#[from] StoreUrlError),
    #[error("spec.storage.endpoint {endpoint:?}: {problem}")]
    Endpoint { endpoint: String, problem: &'static str },
    #[error(
        "spec.storage: the operator does not send dumps to {0}: use another store, or have its --allowed-stores extended (chart value allowedStores)"
    )]
    NotAllowed(String),
    /// Fields that do not go together.
    #[error("spec.storage: {0}")]
    Storage(&'static str),
    #[error("spec.dump: {0}")]
    Pattern(#[from] PatternError),
    #[error("spec.encryption.ageRecipients: {0}")]
    Recipient(#[from] RecipientError),
    #[error(
        "spec.podTemplate.securityContext: user and group 0 are root, which pods of pgrail must not be: set another number, or remove it"
    )]
    Root,
    /// A value that the schema should have rejected.
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: &'static str },
    #[error(transparent)]
    Connection(#[from] ResolveError),
    #[error(
        "there is no Secret {0:?} in this namespace, which spec.storage.secretRef names: create it, or correct the name"
    )]
    StoreSecretMissing(String),
    #[error("{0}, which spec.storage.caSecretRef names: create it, or correct the name")]
    StoreCa(String),
    #[error("the Secret {name:?}, which spec.storage.secretRef names, cannot be used: {problem}")]
    StoreSecret { name: String, problem: String },
}

impl JobSpecError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Url(_) | Self::Endpoint { .. } | Self::Storage(_) => Reason::InvalidStorage,
            Self::NotAllowed(_) => Reason::StoreNotAllowed,
            Self::Pattern(_) | Self::Recipient(_) | Self::Root | Self::Field { .. } => Reason::InvalidSpec,
            Self::Connection(error) => error.reason(),
            Self::StoreSecretMissing(_) | Self::StoreSecret { .. } | Self::StoreCa(_) => Reason::SecretMissing,
        }
    }

    pub(crate) fn rejection(&self) -> Rejection {
        Rejection::new(self.reason(), chain(self))
    }
}
