//! Uploads that were begun and never completed: invisible, but paid for.

use std::path::{Path as FilePath, PathBuf};

use jiff::Timestamp;
use object_store::{aws::AmazonS3, multipart::MultipartStore, path::Path};
use reqwest::Method;
use serde::Deserialize;

use super::{Scheme, Store, StoreError, settings::s3_builder};
use crate::{identity::is_running, text::error_chain};

const LIST_UPLOADS: &str = "list unfinished uploads";

/// The answer of S3's `ListMultipartUploads`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default, rename = "Upload")]
    begun: Vec<Unfinished>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Unfinished {
    key: String,
    upload_id: String,
    initiated: Timestamp,
}

impl Store {
    /// Ends the unfinished uploads below a directory that were begun before `before`, except those of running runs (by the start of their run id), and
    /// returns how many. Only S3 and directories: Google and Azure remove theirs themselves or by a lifecycle rule.
    pub(crate) async fn abort_uploads(
        &self,
        directory: &str,
        running: &[String],
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        match self.settings.url.scheme() {
            Scheme::S3 => self.abort_s3_uploads(directory, running, before).await,
            Scheme::File => self.remove_staged_files(directory, running, before).await,
            Scheme::Gcs | Scheme::Azure => Ok(0),
        }
    }

    async fn abort_s3_uploads(
        &self,
        directory: &str,
        running: &[String],
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let client = s3_builder(&self.settings, self.secrets())?
            .build()
            .map_err(|error| self.classify("open the store".into(), &error))?;
        let prefix = format!("{}/", self.full_path(directory)?);
        let (mut key_marker, mut id_marker, mut aborted) = (String::new(), String::new(), 0);
        loop {
            let page = self.s3_uploads(&client, &prefix, &key_marker, &id_marker).await?;
            for upload in page.begun {
                // A server may take the prefix as a hint.
                let ours = upload.key.starts_with(&prefix) && upload.initiated < before;
                let path = Path::parse(&upload.key).map_err(|error| self.failed(LIST_UPLOADS, &error.to_string()))?;
                let spared = self.key_of(&path).is_none_or(|key| is_running(&key, running));
                if ours && !spared {
                    client
                        .abort_multipart(&path, &upload.upload_id)
                        .await
                        .map_err(|error| self.classify("end an unfinished upload".into(), &error))?;
                    aborted += 1;
                }
            }
            if !page.is_truncated || (&page.next_key_marker, &page.next_upload_id_marker) == (&key_marker, &id_marker) {
                return Ok(aborted);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    async fn s3_uploads(&self, client: &AmazonS3, prefix: &str, key: &str, id: &str) -> Result<Uploads, StoreError> {
        let mut query = vec![("prefix", prefix), ("uploads", "")];
        if !key.is_empty() {
            query.extend([("key-marker", key), ("upload-id-marker", id)]);
        }
        let answer = self.signed_request(client, Method::GET, "", &query, None, LIST_UPLOADS).await?;
        let text =
            answer.text().await.map_err(|error| self.failed(LIST_UPLOADS, &error_chain(&error.without_url())))?;
        quick_xml::de::from_str(&text)
            .map_err(|error| self.failed(LIST_UPLOADS, &format!("the response cannot be read: {error}")))
    }

    /// A directory's unfinished files are beside the finished ones, as `name#number`.
    async fn remove_staged_files(
        &self,
        directory: &str,
        running: &[String],
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let Some(root) = &self.settings.root else { return Ok(0) };
        let base = root.join(self.settings.url.prefix());
        let (start, running) = (base.join(directory), running.to_vec());
        let walk = tokio::task::spawn_blocking(move || {
            let mut removed = 0;
            for file in staged_files(&start) {
                let key = file.strip_prefix(&base).map(|key| key.to_string_lossy().into_owned()).unwrap_or_default();
                let modified = std::fs::metadata(&file).and_then(|meta| meta.modified()).ok();
                let old = modified.and_then(|time| Timestamp::try_from(time).ok()).is_some_and(|time| time < before);
                if old && !is_running(&key, &running) && std::fs::remove_file(&file).is_ok() {
                    removed += 1;
                    // Only if nothing else is in it.
                    let _ = file.parent().map(std::fs::remove_dir);
                }
            }
            removed
        });
        walk.await.map_err(|error| self.failed(LIST_UPLOADS, &error.to_string()))
    }

    /// Removes a run's directory that a failed dump left empty. Object stores have no directories.
    pub(super) fn remove_empty_directory(&self, directory: &str) {
        if let (Scheme::File, Some(root)) = (self.settings.url.scheme(), &self.settings.root) {
            let _ = std::fs::remove_dir(root.join(self.settings.url.prefix()).join(directory));
        }
    }
}

fn staged_files(directory: &FilePath) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // Links are not followed: what they lead to is not in this store.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let name = entry.file_name();
                    let staged = name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(|(_, number)| {
                        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                    });
                    if staged {
                        found.push(entry.path());
                    }
                }
                _ => {}
            }
        }
    }
    found
}
