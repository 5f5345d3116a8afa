//! Errors of a store, by what resolves them.

use std::{error::Error, io};

use super::StoreUrlError;
use crate::{
    Reason,
    secrets::Redactor,
    text::{error_chain, truncated},
};

/// The longest message of a store that is repeated, in characters.
const DETAIL_CHARS: usize = 300;

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
    /// What is encrypted cannot be read.
    #[error("{what} cannot be decrypted: {detail}")]
    Decrypt {
        /// The dump, or an object of it.
        what: String,
        /// Why.
        reason: Reason,
        /// The same in words.
        detail: String,
    },
}

impl StoreError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Url(_) | Self::Settings(_) => Reason::StoreInvalid,
            Self::Exists { .. } => Reason::AlreadyPublished,
            Self::Failed { reason, .. } | Self::Decrypt { reason, .. } => *reason,
        }
    }

    /// An error response of the store, with `otherwise` where its code has no reason of its own.
    pub(super) fn response(action: &str, otherwise: Reason, text: &str, secrets: &Redactor) -> Self {
        let answer = Answer::of(text);
        let reason = answer.reason().unwrap_or(otherwise);
        Self::Failed { action: action.to_owned(), reason, detail: secrets.clean(&answer.detail(text)) }
    }

    /// Classifies an error of the client library, which wraps the same causes in many ways.
    pub(super) fn classify(action: impl Into<String>, error: &object_store::Error, secrets: &Redactor) -> Self {
        let text = error_chain(error);
        if let object_store::Error::AlreadyExists { path, .. } | object_store::Error::Precondition { path, .. } = error
        {
            return Self::Exists { path: path.clone() };
        }
        let answer = Answer::of(&text);
        let reason = answer.reason().unwrap_or_else(|| reason(error, &text));
        Self::Failed { action: action.into(), reason, detail: secrets.clean(&answer.detail(&text)) }
    }
}

/// The parts of a store's error response that its reader needs: S3's and Azure's are XML. What S3 answers to the deletion of
/// several objects, the client library has as text.
struct Answer<'a> {
    /// `403 Forbidden`
    status: Option<&'a str>,
    code: Option<&'a str>,
    message: Option<&'a str>,
}

impl<'a> Answer<'a> {
    fn of(text: &'a str) -> Self {
        let between = |start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0.trim());
        let not_deleted = || text.split_once("DeleteObjects request failed for key ")?.1.split_once(" (code: ");
        Self {
            status: between("status code: ", ": ").filter(|status| status.len() < 60),
            code: between("<Code>", "</Code>").or_else(|| not_deleted()?.1.split_once(')').map(|(code, _)| code)),
            message: between("<Message>", "</Message>")
                .or_else(|| not_deleted()?.0.split_once(": ").map(|(_, message)| message)),
        }
    }

    fn reason(&self) -> Option<Reason> {
        Some(match self.code? {
            "NoSuchBucket" | "ContainerNotFound" => Reason::BucketMissing,
            "AccessDenied"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "AuthenticationFailed"
            | "AuthorizationFailure"
            | "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "NoSuchUser"
            | "SignatureDoesNotMatch"
            | "TokenRefreshRequired" => Reason::AccessDenied,
            // What arrived is not what was sent.
            "BadDigest"
            | "InvalidDigest"
            | "Md5Mismatch"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch" => Reason::ChecksumMismatch,
            // Parts that the store acknowledged, or an upload that it has completed or forgotten.
            "InvalidPart" | "NoSuchUpload" => Reason::StoreUnavailable,
            "QuotaExceeded" | "BucketQuotaExceeded" => Reason::QuotaExceeded,
            // Servers of S3 name an unknown access key in many ways, and some with status 404.
            code if code.contains("UserNotFound") || code.contains("AccessKey") => Reason::AccessDenied,
            "StorageFull" | "InsufficientCapacity" | "InsufficientStorage" | "XMinioStorageFull" => Reason::StoreFull,
            _ => return None,
        })
    }

    fn detail(&self, text: &str) -> String {
        let parts: Vec<_> = [self.status, self.code, self.message].into_iter().flatten().collect();
        if self.code.is_some() { truncated(&parts.join(": "), DETAIL_CHARS) } else { truncated(text, DETAIL_CHARS) }
    }
}

fn reason(error: &object_store::Error, text: &str) -> Reason {
    let contains = |messages: &[&str]| messages.iter().any(|message| text.contains(message));
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            return Reason::AccessDenied;
        }
        object_store::Error::InvalidPath { .. } | object_store::Error::UnknownConfigurationKey { .. } => {
            return Reason::StoreInvalid;
        }
        _ => {}
    }
    match io_kind(error) {
        Some(io::ErrorKind::StorageFull) => return Reason::StoreFull,
        Some(io::ErrorKind::QuotaExceeded) => return Reason::QuotaExceeded,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => return Reason::AccessDenied,
        _ => {}
    }
    // Stores that report these without a code of their own.
    if contains(&["quota exceeded", "Quota exceeded", "BucketQuota", "disk quota"]) {
        return Reason::QuotaExceeded;
    }
    if contains(&["507 Insufficient", "no space left", "No space left", "DiskFull"]) {
        return Reason::StoreFull;
    }
    match error {
        object_store::Error::NotFound { .. } if contains(&["bucket does not exist"]) => Reason::BucketMissing,
        object_store::Error::NotFound { .. } => Reason::ObjectMissing,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> (Reason, String) {
        let source = io::Error::other(text.to_owned());
        let error = object_store::Error::Generic { store: "S3", source: source.into() };
        match StoreError::classify("write x", &error, &Redactor::default()) {
            StoreError::Failed { reason, detail, .. } => (reason, detail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_xml_response_is_reduced_to_status_code_and_message() {
        let xml = format!(
            "Error performing PUT http://s3/backups/x in 2ms - Server returned non-2xx status code: 403 Forbidden: \
             <?xml version=\"1.0\"?><Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message>\
             <Resource>NoSuchBucket</Resource><HostId>{}</HostId></Error>",
            "x".repeat(600)
        );
        assert_eq!(
            failed(&xml),
            (Reason::AccessDenied, "403 Forbidden: InvalidAccessKeyId: The key does not exist.".into())
        );
        assert_eq!(
            failed("DeleteObjects request failed for key shop/a: protected by object lock (code: AccessDenied)"),
            (Reason::AccessDenied, "AccessDenied: protected by object lock".into())
        );
        let (reason, detail) = failed(&"y".repeat(1000));
        assert_eq!(
            (reason, detail.chars().filter(|char| *char == 'y').count() < 301),
            (Reason::StoreUnavailable, true)
        );
    }
}
