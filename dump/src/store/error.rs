//! What can go wrong with a store, told apart by what mends it.

use std::{error::Error, io};

use super::StoreUrlError;
use crate::{Reason, secrets::Redactor};

/// What can go wrong with a store.
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
    /// The store, or a folder of it, refused an operation. The text holds no secret.
    #[error("the store failed to {action}: {detail}")]
    Failed {
        /// What was being done.
        action: String,
        /// Why it failed.
        reason: Reason,
        /// The store's own words.
        detail: String,
    },
}

impl StoreError {
    /// The reason as one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Url(_) | Self::Settings(_) => Reason::StoreInvalid,
            Self::Exists { .. } => Reason::AlreadyPublished,
            Self::Failed { reason, .. } => *reason,
        }
    }

    /// Sorts an error of the client library, which wraps the same causes in many ways.
    pub(super) fn sort(action: impl Into<String>, error: &object_store::Error, secrets: &Redactor) -> Self {
        let text = chain(error);
        if let object_store::Error::AlreadyExists { path, .. } | object_store::Error::Precondition { path, .. } = error
        {
            return Self::Exists { path: path.clone() };
        }
        Self::Failed { action: action.into(), reason: reason(error, &text), detail: secrets.clean(&text) }
    }
}

fn reason(error: &object_store::Error, text: &str) -> Reason {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]) {
        return Reason::BucketMissing;
    }
    match io_kind(error) {
        Some(io::ErrorKind::StorageFull) => return Reason::StoreFull,
        Some(io::ErrorKind::QuotaExceeded) => return Reason::QuotaExceeded,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => return Reason::AccessDenied,
        _ => {}
    }
    if says(&["QuotaExceeded", "quota exceeded", "Quota exceeded", "BucketQuota", "disk quota"]) {
        return Reason::QuotaExceeded;
    }
    if says(&["507 Insufficient", "StorageFull", "InsufficientCapacity", "no space left", "No space left", "DiskFull"])
    {
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
        _ if says(&["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "ExpiredToken"]) => {
            Reason::AccessDenied
        }
        _ => Reason::StoreUnavailable,
    }
}

/// The kind of the innermost operating system error, for a folder.
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

/// The error and its causes as one line, without the repetitions that wrapping makes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}
