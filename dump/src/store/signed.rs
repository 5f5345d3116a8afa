//! Requests to S3 that the client library has no function for.

use object_store::{
    aws::{AmazonS3, AmazonS3ConfigKey, AwsAuthorizer},
    client::{HttpRequest, HttpRequestBody},
};
use reqwest::{Certificate, Method, Response};

use super::{Scheme, Store, StoreError, settings::s3_builder};
use crate::{Reason, text::error_chain};

const READ_CHECKSUM: &str = "read a checksum";

impl Store {
    /// Whether the store was asked to compute SHA-256 of what is uploaded.
    pub(crate) fn computes_sha256(&self) -> bool {
        self.settings.sha256 && self.settings.url.scheme() == Scheme::S3
    }

    /// The SHA-256 that the store computed of an object, in S3's form, where it has one.
    pub(crate) async fn sha256(&self, key: &str) -> Result<Option<String>, StoreError> {
        if !self.computes_sha256() {
            return Ok(None);
        }
        let client = s3_builder(&self.settings, &self.secrets)?
            .build()
            .map_err(|error| self.classify("open the store".into(), &error))?;
        let path = self.full_path(key)?;
        let header = Some(("x-amz-checksum-mode", "ENABLED"));
        let answer = self.signed_request(&client, Method::HEAD, path.as_ref(), &[], header, READ_CHECKSUM).await?;
        let checksum = answer.headers().get("x-amz-checksum-sha256");
        Ok(checksum.and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// Sends a signed request for an object of the bucket, or for the bucket itself with an empty `key`.
    pub(super) async fn signed_request(
        &self,
        client: &AmazonS3,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        header: Option<(&'static str, &'static str)>,
        action: &'static str,
    ) -> Result<Response, StoreError> {
        let builder = s3_builder(&self.settings, &self.secrets)?;
        let value = |key| builder.get_config_value(&key).unwrap_or_default();
        let region = value(AmazonS3ConfigKey::Region);
        let endpoint = match value(AmazonS3ConfigKey::Endpoint) {
            endpoint if endpoint.is_empty() => format!("https://s3.{region}.amazonaws.com"),
            endpoint => endpoint,
        };
        let bucket = self.settings.url.bucket();
        let address = format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/'));
        let mut url =
            url::Url::parse(address.trim_end_matches('/')).map_err(|error| StoreError::Settings(error.to_string()))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let credential = client
            .credentials()
            .get_credential()
            .await
            .map_err(|error| self.classify("find credentials".into(), &error))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| StoreError::Settings("the endpoint is not a URL".into()))?;
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, reqwest::header::HeaderValue::from_static(value));
        }
        AwsAuthorizer::new(&credential, "s3", &region)
            .try_authorize(&mut request, None)
            .map_err(|error| self.classify("sign a request".into(), &error))?;
        let failed = |error: reqwest::Error| self.failed(action, &error_chain(&error.without_url()));
        let mut client = reqwest::Client::builder().timeout(self.settings.timeout);
        for certificate in
            self.settings.ca_pem.iter().filter_map(|pem| Certificate::from_pem_bundle(pem).ok()).flatten()
        {
            client = client.add_root_certificate(certificate);
        }
        let answer = client
            .build()
            .map_err(failed)?
            .request(method, url)
            .headers(request.headers().clone())
            .send()
            .await
            .map_err(failed)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.map_err(failed)?;
        let reason = match status.as_u16() {
            401 | 403 => Reason::AccessDenied,
            404 => Reason::ObjectMissing,
            _ => Reason::StoreUnavailable,
        };
        Err(StoreError::response(action, reason, &format!("status code: {status}: {text}"), &self.secrets))
    }

    pub(super) fn failed(&self, action: &str, detail: &str) -> StoreError {
        StoreError::response(action, Reason::StoreUnavailable, detail, &self.secrets)
    }
}
