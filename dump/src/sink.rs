//! Where an archive goes: through the encryption, if there is one, into the store.

use sha2::{Digest, Sha256};

use crate::{
    DumpError, Head, Recipients, Store, UploadLimits,
    encryption::Encryption,
    store::{Upload, Uploaded},
    text::hex,
};

/// An archive on its way into the store.
pub(crate) struct Sink {
    upload: Upload,
    encryption: Option<Encryption>,
    encrypted: Vec<u8>,
    /// Of what was encrypted.
    digest: Sha256,
    length: u64,
}

impl Sink {
    pub(crate) async fn begin(
        store: &Store,
        location: &str,
        stem: String,
        recipients: Option<&Recipients>,
        limits: UploadLimits,
    ) -> Result<Self, DumpError> {
        let encryption = recipients.map(Encryption::start).transpose();
        let encryption = encryption.map_err(DumpError::Encryption)?;
        let upload = Upload::begin(store, location, stem, limits).await?;
        Ok(Self { upload, encryption, encrypted: Vec::new(), digest: Sha256::new(), length: 0 })
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), DumpError> {
        let Some(encryption) = &mut self.encryption else { return Ok(self.upload.write(bytes).await?) };
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        encryption.write(bytes, &mut self.encrypted).map_err(DumpError::Encryption)?;
        Ok(self.upload.write(&self.encrypted).await?)
    }

    /// The archive as pg_dump wrote it, if it was encrypted.
    pub(crate) fn plain(&self) -> Option<Head> {
        (self.length > 0).then(|| Head { length: self.length, sha256: hex(&self.digest.clone().finalize()) })
    }

    /// The archive is at its end: the rest is sent, and the buffers are free. Nothing is visible in the store yet.
    pub(crate) async fn end(&mut self) -> Result<(), DumpError> {
        if let Some(encryption) = self.encryption.take() {
            encryption.finish(&mut self.encrypted).map_err(DumpError::Encryption)?;
            self.upload.write(&self.encrypted).await?;
        }
        self.encrypted = Vec::new();
        Ok(self.upload.send_rest().await?)
    }

    pub(crate) async fn finish(self) -> Result<Uploaded, DumpError> {
        Ok(self.upload.finish().await?)
    }

    pub(crate) async fn abort(self) {
        self.upload.abort().await;
    }
}
