//! Errors of a store, by what resolves them.

use std::{error::Error, io};

use super::StoreUrlError;
use crate::{Reason, secrets::Redactor, text::error_chain};

/// Errors of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL cannot be understood.
    #[error("the store's URL cannot be used")]
    Url(#[from] StoreUrlError),
    /// The endpoint, region or credentials cannot be understood.
    #[error("the store's settings cannot be used: {0}")]
    Settings(String),
    /// Something already stands where an object may be written only once.
    #[error("{path} exists already and is never written twice")]
    Exists {
        /// The object.
        path: String,
    },
    /// An operation failed. The text contains no secret.
    #[error("the store failed to {action}: {detail}")]
    Failed {
        /// What was being done.
        action: String,
        /// Why it failed.
        reason: Reason,
        /// The store's own message.
        detail: String,
    },
}

impl StoreError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Url(_) | Self::Settings(_) => Reason::StoreInvalid,
            Self::Exists { .. } => Reason::AlreadyPublished,
            Self::Failed { reason, .. } => *reason,
        }
    }

    /// Classifies an error of the client library, which wraps the same causes in many ways.
    pub(super) fn classify(action: impl Into<String>, error: &object_store::Error, secrets: &Redactor) -> Self {
        let text = error_chain(error);
        if let object_store::Error::AlreadyExists { path, .. } | object_store::Error::Precondition { path, .. } = error
        {
            return Self::Exists { path: path.clone() };
        }
        Self::Failed { action: action.into(), reason: reason(error, &text), detail: secrets.clean(&text) }
    }
}

fn reason(error: &object_store::Error, text: &str) -> Reason {
    let contains = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    if contains(&["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]) {
        return Reason::BucketMissing;
    }
    match io_kind(error) {
        Some(io::ErrorKind::StorageFull) => return Reason::StoreFull,
        Some(io::ErrorKind::QuotaExceeded) => return Reason::QuotaExceeded,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => return Reason::AccessDenied,
        _ => {}
    }
    if contains(&["QuotaExceeded", "quota exceeded", "Quota exceeded", "BucketQuota", "disk quota"]) {
        return Reason::QuotaExceeded;
    }
    if contains(&[
        "507 Insufficient",
        "StorageFull",
        "InsufficientCapacity",
        "no space left",
        "No space left",
        "DiskFull",
    ]) {
        return Reason::StoreFull;
    }
    match error {
        object_store::Error::NotFound { .. } => Reason::ObjectMissing,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Reason::AccessDenied
        }
        object_store::Error::InvalidPath { .. } | object_store::Error::UnknownConfigurationKey { .. } => {
            Reason::StoreInvalid
        }
        _ if contains(&["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "ExpiredToken"]) => {
            Reason::AccessDenied
        }
        _ => Reason::StoreUnavailable,
    }
}

/// The kind of the innermost operating system error, for a directory.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            found = Some(error.kind());
        }
        next = error.source();
    }
    found
}
