//! Credentials that change during a run: temporary ones expire, and a Secret can be rotated while a large dump is uploaded.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use object_store::{CredentialProvider, aws::AwsCredential};

use super::credentials::{StoreCredentials, s3_keys};
use crate::secrets::Redactor;

/// How often they are read.
const INTERVAL: Duration = Duration::from_secs(10);

/// Reads the credentials as they are now; nothing if they cannot be read at the moment.
#[derive(Clone)]
pub struct CredentialSource {
    read: Arc<dyn Fn() -> Option<StoreCredentials> + Send + Sync>,
    interval: Duration,
}

impl CredentialSource {
    /// A function that reads them, for example from the files of a mounted Secret.
    pub fn new(read: impl Fn() -> Option<StoreCredentials> + Send + Sync + 'static) -> Self {
        Self { read: Arc::new(read), interval: INTERVAL }
    }

    /// How often they are read, at most; every 10 seconds by default.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CredentialSource")
    }
}

/// The keys for S3 as they are in their source.
#[derive(Debug)]
pub(super) struct Renewed {
    source: CredentialSource,
    secrets: Redactor,
    current: Mutex<(Instant, Arc<AwsCredential>)>,
}

impl Renewed {
    pub(super) fn new(source: CredentialSource, secrets: Redactor, first: AwsCredential) -> Self {
        Self { source, secrets, current: Mutex::new((Instant::now(), Arc::new(first))) }
    }
}

#[async_trait]
impl CredentialProvider for Renewed {
    type Credential = AwsCredential;

    /// What cannot be used, such as a Secret that is half written, changes nothing.
    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0.elapsed() >= self.source.interval {
            current.0 = Instant::now();
            let read = (self.source.read)();
            if let Some(credential) = read.as_ref().and_then(|read| s3_keys(read).ok().flatten())
                && credential != *current.1
            {
                tracing::info!("the credentials of the store have changed");
                self.secrets.add(read.iter().flat_map(StoreCredentials::secrets));
                current.1 = Arc::new(credential);
            }
        }
        Ok(Arc::clone(&current.1))
    }
}
