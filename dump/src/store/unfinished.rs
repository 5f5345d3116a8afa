//! Uploads that were begun and never completed: invisible, but paid for.

use std::path::{Path as FilePath, PathBuf};

use jiff::Timestamp;
use object_store::{
    aws::{AmazonS3, AmazonS3ConfigKey, AwsAuthorizer},
    client::{HttpRequest, HttpRequestBody},
    multipart::MultipartStore,
    path::Path,
};
use serde::Deserialize;

use super::{Scheme, Store, StoreError, settings::s3_builder};
use crate::{Reason, text::error_chain};

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
    /// Ends the unfinished uploads below a directory that were begun before `before`, except those of `running` runs, and
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
        let client =
            s3_builder(&self.settings)?.build().map_err(|error| self.classify("open the store".into(), &error))?;
        let prefix = format!("{}/", self.full_path(directory)?);
        let (mut key_marker, mut id_marker, mut aborted) = (String::new(), String::new(), 0);
        loop {
            let page = self.s3_uploads(&client, &prefix, &key_marker, &id_marker).await?;
            for upload in page.begun {
                // A server may take the prefix as a hint.
                let ours = upload.key.starts_with(&prefix) && upload.initiated < before;
                let path = Path::parse(&upload.key).map_err(|error| self.failed(&error.to_string()))?;
                let spared = self.key_of(&path).is_none_or(|key| is_of(&key, running));
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

    /// One page of the list, which the client library cannot ask for.
    async fn s3_uploads(&self, client: &AmazonS3, prefix: &str, key: &str, id: &str) -> Result<Uploads, StoreError> {
        let builder = s3_builder(&self.settings)?;
        let value = |key| builder.get_config_value(&key).unwrap_or_default();
        let region = value(AmazonS3ConfigKey::Region);
        let endpoint = match value(AmazonS3ConfigKey::Endpoint) {
            endpoint if endpoint.is_empty() => format!("https://s3.{region}.amazonaws.com"),
            endpoint => endpoint,
        };
        let mut url = url::Url::parse(&format!("{}/{}", endpoint.trim_end_matches('/'), self.settings.url.bucket()))
            .map_err(|error| StoreError::Settings(error.to_string()))?;
        url.query_pairs_mut().append_pair("prefix", prefix).append_pair("uploads", "");
        if !key.is_empty() {
            url.query_pairs_mut().append_pair("key-marker", key).append_pair("upload-id-marker", id);
        }
        let credential = client
            .credentials()
            .get_credential()
            .await
            .map_err(|error| self.classify("find credentials".into(), &error))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| StoreError::Settings("the endpoint is not a URL".into()))?;
        AwsAuthorizer::new(&credential, "s3", &region)
            .try_authorize(&mut request, None)
            .map_err(|error| self.classify("sign a request".into(), &error))?;
        let answer = reqwest::Client::builder()
            .timeout(super::settings::REQUEST_TIMEOUT)
            .build()
            .map_err(|error| self.failed(&error_chain(&error.without_url())))?
            .get(url)
            .headers(request.headers().clone())
            .send()
            .await
            .map_err(|error| self.failed(&error_chain(&error.without_url())))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.failed(&error_chain(&error.without_url())))?;
        if !status.is_success() {
            let mut short: String = text.chars().take(300).collect();
            short.insert_str(0, &format!("{status}: "));
            let error = self.failed(&short);
            return Err(if matches!(status.as_u16(), 401 | 403) {
                with_reason(error, Reason::AccessDenied)
            } else {
                error
            });
        }
        quick_xml::de::from_str(&text).map_err(|error| self.failed(&format!("the answer cannot be read: {error}")))
    }

    fn failed(&self, detail: &str) -> StoreError {
        StoreError::Failed {
            action: "list unfinished uploads".to_owned(),
            reason: Reason::StoreUnavailable,
            detail: self.secrets.clean(detail),
        }
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
                if old && !is_of(&key, &running) && std::fs::remove_file(&file).is_ok() {
                    removed += 1;
                    // Only if nothing else is in it.
                    let _ = file.parent().map(std::fs::remove_dir);
                }
            }
            removed
        });
        walk.await.map_err(|error| self.failed(&error.to_string()))
    }

    /// Removes a run's directory that a failed dump left empty. Object stores have no directories.
    pub(super) fn remove_empty_directory(&self, directory: &str) {
        if let (Scheme::File, Some(root)) = (self.settings.url.scheme(), &self.settings.root) {
            let _ = std::fs::remove_dir(root.join(self.settings.url.prefix()).join(directory));
        }
    }
}

fn with_reason(error: StoreError, reason: Reason) -> StoreError {
    match error {
        StoreError::Failed { action, detail, .. } => StoreError::Failed { action, reason, detail },
        other => other,
    }
}

/// Whether an object lies in one of these runs' directories.
fn is_of(key: &str, runs: &[String]) -> bool {
    runs.iter().any(|run| key.strip_prefix(run.as_str()).is_some_and(|rest| rest.starts_with('/')))
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
