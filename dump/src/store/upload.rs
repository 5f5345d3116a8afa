//! A stream of unknown length into the store: equal parts, few in flight, segments, nothing visible before the end.

use std::time::Duration;

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{Store, StoreError, buffer::Buffer};
use crate::text::{base64, hex};

/// How an upload is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLimits {
    /// Bytes of a part. Stores want at least 5 MiB, and all parts but the last of one size.
    pub part_bytes: usize,
    /// Parts in memory at once, the one being filled included: memory is this times [`UploadLimits::part_bytes`].
    pub parts_in_flight: usize,
    /// Parts of a segment; stores take at most 10,000 parts in one object.
    pub parts_per_segment: usize,
}

/// The smallest part, in bytes, that stores take of an object in several parts.
const SMALLEST_PART: usize = 5 * 1024 * 1024;

/// How long parts in flight are waited for when an upload is given up.
const RECEIVING: Duration = Duration::from_secs(2);

impl UploadLimits {
    /// How many uploads at the same time keep to the same memory, at most so many.
    pub(crate) fn workers(self, jobs: u32) -> usize {
        let most = (self.part_bytes * self.parts_in_flight / SMALLEST_PART).max(1);
        usize::try_from(jobs).unwrap_or(most).clamp(1, most)
    }

    /// The limits of each of so many uploads at the same time: together they need the memory of one.
    pub(crate) fn shared_by(self, workers: usize) -> Self {
        if workers <= 1 {
            return self;
        }
        let each = self.part_bytes * self.parts_in_flight / workers;
        let parts_in_flight = (each / SMALLEST_PART).clamp(1, self.parts_in_flight);
        Self { part_bytes: (each / parts_in_flight).clamp(SMALLEST_PART, self.part_bytes), parts_in_flight, ..self }
    }
}

impl Default for UploadLimits {
    /// Parts of 8 MiB, 5 in memory, segments of 75 GiB.
    fn default() -> Self {
        Self { part_bytes: 8 * 1024 * 1024, parts_in_flight: 5, parts_per_segment: 9600 }
    }
}

/// One object of a dump: the stream is cut into segments when it is larger than what stores take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// Its name within the dump's directory: `dump.pgc.000`, …
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The store's own mark of the object that was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
    /// The SHA-256 that the store has to compute, in S3's form: that of an object in parts is of the parts' SHA-256. Only
    /// where the store was asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_checksum: Option<String>,
}

/// What an upload that was completed left in the store.
pub(crate) struct Uploaded {
    pub(crate) segments: Vec<Segment>,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
}

struct OpenSegment {
    name: String,
    upload: Box<dyn MultipartUpload>,
    size: u64,
    parts: usize,
    digest: Sha256,
    /// SHA-256 of the parts' SHA-256, where the store is asked for it.
    composite: Option<Sha256>,
}

/// A dump on its way into the store. Nothing is visible there before [`Upload::finish`].
pub(crate) struct Upload {
    store: Store,
    directory: String,
    /// What the names of its segments start with.
    stem: String,
    limits: UploadLimits,
    segments: Vec<OpenSegment>,
    parts: JoinSet<Result<(), object_store::Error>>,
    part: Vec<u8>,
    allocated: usize,
    idle: mpsc::UnboundedReceiver<Vec<u8>>,
    home: mpsc::UnboundedSender<Vec<u8>>,
    digest: Sha256,
    size: u64,
}

impl Upload {
    /// Begins the first segment, so that wrong credentials or a missing bucket show before anything is dumped.
    pub(crate) async fn begin(
        store: &Store,
        directory: &str,
        stem: String,
        limits: UploadLimits,
    ) -> Result<Self, StoreError> {
        let (home, idle) = mpsc::unbounded_channel();
        let mut upload = Self {
            store: store.clone(),
            directory: directory.to_owned(),
            stem,
            limits,
            segments: Vec::new(),
            parts: JoinSet::new(),
            part: Vec::new(),
            allocated: 1,
            idle,
            home,
            digest: Sha256::new(),
            size: 0,
        };
        upload.open_segment().await?;
        Ok(upload)
    }

    async fn open_segment(&mut self) -> Result<(), StoreError> {
        let name = format!("{}.{:03}", self.stem, self.segments.len());
        let upload = self.store.begin(&format!("{}/{name}", self.directory)).await?;
        let composite = self.store.computes_sha256().then(Sha256::new);
        self.segments.push(OpenSegment { name, upload, size: 0, parts: 0, digest: Sha256::new(), composite });
        Ok(())
    }

    /// Takes some bytes; waits while all buffers are under way.
    pub(crate) async fn write(&mut self, mut data: &[u8]) -> Result<(), StoreError> {
        while !data.is_empty() {
            if self.part.len() == self.limits.part_bytes {
                self.send_part().await?;
                self.part = self.next_buffer().await?;
            }
            // Uploads that have not begun, or have ended, need no memory.
            self.part.reserve_exact(self.limits.part_bytes - self.part.len());
            let room = self.limits.part_bytes - self.part.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.part.extend_from_slice(now);
            data = later;
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        if self.segments.last().is_none_or(|segment| segment.parts == self.limits.parts_per_segment) {
            self.open_segment().await?;
        }
        let content = std::mem::take(&mut self.part);
        self.size += content.len() as u64;
        self.digest.update(&content);
        let only = self.segments.len() == 1;
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        if only {
            // The only segment of most dumps has the digest of the whole: no second pass over the bytes.
            segment.digest = self.digest.clone();
        } else {
            segment.digest.update(&content);
        }
        if let Some(composite) = &mut segment.composite {
            composite.update(Sha256::digest(&content));
        }
        segment.size += content.len() as u64;
        segment.parts += 1;
        let payload = PutPayload::from(Bytes::from_owner(Buffer { content, home: self.home.clone() }));
        self.parts.spawn(segment.upload.put_part(payload));
        Ok(())
    }

    async fn next_buffer(&mut self) -> Result<Vec<u8>, StoreError> {
        loop {
            while let Some(done) = self.parts.try_join_next() {
                self.check_part(done)?;
            }
            if let Ok(mut buffer) = self.idle.try_recv() {
                buffer.clear();
                return Ok(buffer);
            }
            if self.allocated < self.limits.parts_in_flight {
                self.allocated += 1;
                return Ok(Vec::with_capacity(self.limits.part_bytes));
            }
            tokio::select! {
                Some(done) = self.parts.join_next() => self.check_part(done)?,
                Some(mut buffer) = self.idle.recv() => {
                    buffer.clear();
                    return Ok(buffer);
                }
            }
        }
    }

    fn check_part(
        &self,
        done: Result<Result<(), object_store::Error>, tokio::task::JoinError>,
    ) -> Result<(), StoreError> {
        let error = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(source) => object_store::Error::JoinError { source },
        };
        Err(self.store.missing_is_bucket(format!("write a part of {}", self.directory), &error))
    }

    /// Sends what is left, and waits until it has arrived. Only [`Upload::finish`] makes it visible.
    pub(crate) async fn send_rest(&mut self) -> Result<(), StoreError> {
        if !self.part.is_empty() {
            self.send_part().await?;
        }
        while let Some(done) = self.parts.join_next().await {
            self.check_part(done)?;
        }
        self.idle.close();
        while self.idle.try_recv().is_ok() {}
        Ok(())
    }

    /// Sends what is left and completes every segment: only now do the objects exist.
    ///
    /// On an error everything that this upload wrote is deleted, as far as the store allows.
    pub(crate) async fn finish(mut self) -> Result<Uploaded, StoreError> {
        match self.complete().await {
            Ok(segments) => Ok(Uploaded { segments, size_bytes: self.size, sha256: hex(&self.digest.finalize()) }),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self) -> Result<Vec<Segment>, StoreError> {
        // The only part may be empty.
        if !self.part.is_empty() || self.segments.iter().all(|segment| segment.parts == 0) {
            self.send_part().await?;
        }
        while let Some(done) = self.parts.join_next().await {
            self.check_part(done)?;
        }
        let mut segments = Vec::with_capacity(self.segments.len());
        for segment in &mut self.segments {
            let done = segment.upload.complete().await;
            let done = done.map_err(|error| {
                self.store.missing_is_bucket(format!("complete {}/{}", self.directory, segment.name), &error)
            })?;
            segments.push(Segment {
                name: segment.name.clone(),
                size_bytes: segment.size,
                sha256: hex(&segment.digest.clone().finalize()),
                e_tag: done.e_tag,
                store_checksum: segment
                    .composite
                    .take()
                    .map(|composite| format!("{}-{}", base64(&composite.finalize()), segment.parts)),
            });
        }
        Ok(segments)
    }

    /// Deletes everything: uploaded parts, completed segments. A store can still receive a part that was broken off, after the
    /// upload was aborted: parts in flight may end.
    pub(crate) async fn abort(mut self) {
        let end = async { while self.parts.join_next().await.is_some() {} };
        if timeout(RECEIVING, end).await.is_err() {
            self.parts.shutdown().await;
        }
        for segment in &mut self.segments {
            let key = format!("{}/{}", self.directory, segment.name);
            if let Err(error) = segment.upload.abort().await {
                tracing::debug!(%key, error = %self.store.secrets().clean(&error.to_string()), "could not abort an upload");
            }
            // A segment may have been completed before a later one failed.
            if let Err(error) = self.store.delete(&key).await {
                tracing::warn!(%key, %error, "could not remove an object of a failed dump; it is swept later");
            }
        }
        self.store.remove_empty_directory(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_jobs_keeps_to_the_memory_of_one() {
        let limits = UploadLimits::default();
        let memory = |limits: UploadLimits, workers: usize| limits.part_bytes * limits.parts_in_flight * workers;
        for jobs in 1..=64 {
            let workers = limits.workers(jobs);
            assert!(workers <= jobs as usize && workers >= 1.min(jobs as usize));
            let shared = limits.shared_by(workers);
            assert!(memory(shared, workers) <= memory(limits, 1), "{jobs}: {shared:?}");
            assert!(shared.part_bytes >= SMALLEST_PART && shared.parts_in_flight >= 1, "{jobs}: {shared:?}");
        }
        assert_eq!((limits.workers(4), limits.workers(64)), (4, 8));
    }
}
