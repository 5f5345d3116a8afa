//! How a store is reached: endpoint, region and credentials, in the spellings that Secrets use.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    Certificate, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    list::PaginatedListStore,
    local::LocalFileSystem,
};

use super::{
    Scheme, StoreError, StoreUrl,
    credentials::{StoreCredentials, s3_keys},
    renewal::{CredentialSource, Renewed},
};
use crate::{secrets::Redactor, text::error_chain};

/// How long one request may take: a part of 16 MiB at 140 KB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// How a store is reached.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Where dumps are kept.
    pub url: StoreUrl,
    /// Another server that speaks the S3 protocol, as `https://host:port`. Only with `s3://`.
    pub endpoint: Option<String>,
    /// The region. Only with `s3://`; `us-east-1` where it is not set.
    pub region: Option<String>,
    /// The credentials, or none for the machine's own identity.
    pub credentials: StoreCredentials,
    /// Where the credentials are read again during a run, since they may change. Only with `s3://`.
    pub renewal: Option<CredentialSource>,
    /// Certificates in PEM of the CA of the endpoint, besides those of the machine.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether `http://` endpoints are allowed: only inside a cluster, the dump passes in clear.
    pub allow_http: bool,
    /// The directory that `file:///path` is relative to: where the volume is mounted. It must exist.
    pub root: Option<PathBuf>,
    /// Whether the store is asked to compute SHA-256 of what is uploaded. Only with `s3://`.
    pub sha256: bool,
    /// How often a request that failed on the store's side is tried again (with growing pauses, for 3 minutes at most).
    pub retries: usize,
    /// How long one request may take.
    pub timeout: Duration,
}

impl StoreSettings {
    /// Settings with nothing but the URL: the machine's own identity, no plain http, 10 retries, 2 minutes for a request.
    pub fn new(url: StoreUrl) -> Self {
        Self {
            url,
            endpoint: None,
            region: None,
            credentials: StoreCredentials::Ambient,
            renewal: None,
            ca_pem: None,
            allow_http: false,
            root: None,
            sha256: false,
            retries: 10,
            timeout: REQUEST_TIMEOUT,
        }
    }
}

pub(super) struct Client {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same, for lists of a few pages; absent for a directory.
    pub(super) pages: Option<Arc<dyn PaginatedListStore>>,
    pub(super) secrets: Redactor,
}

/// Makes the client. Nothing is asked of the store yet, except that a directory must exist.
pub(super) fn client(settings: &StoreSettings) -> Result<Client, StoreError> {
    // TLS with the process's own provider; if there is one already, it stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let secrets = Redactor::new(settings.credentials.secrets());
    if settings.url.scheme() != Scheme::S3 && settings.endpoint.is_some() {
        return Err(StoreError::Settings("an endpoint is only used with s3://".to_owned()));
    }
    let built = match settings.url.scheme() {
        Scheme::S3 => s3(settings, &secrets)?,
        Scheme::Gcs => gcs(settings)?,
        Scheme::Azure => azure(settings)?,
        Scheme::File => return Ok(Client { objects: directory(settings)?, pages: None, secrets }),
    };
    match built {
        Ok((objects, pages)) => Ok(Client { objects, pages: Some(pages), secrets }),
        Err(error) => Err(StoreError::Settings(secrets.clean(&error_chain(&error)))),
    }
}

type Built = Result<(Arc<dyn ObjectStore>, Arc<dyn PaginatedListStore>), object_store::Error>;

fn both(store: impl ObjectStore + PaginatedListStore) -> (Arc<dyn ObjectStore>, Arc<dyn PaginatedListStore>) {
    let store = Arc::new(store);
    (Arc::<_>::clone(&store) as Arc<dyn ObjectStore>, store)
}

fn options(settings: &StoreSettings) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_timeout(settings.timeout)
        .with_connect_timeout(Duration::from_secs(10))
        .with_allow_http(settings.allow_http)
        .with_pool_max_idle_per_host(4);
    if let Some(pem) = &settings.ca_pem {
        let certificates = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(StoreError::Settings("the CA of the endpoint is no certificate in PEM".to_owned()));
        }
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn retry(settings: &StoreSettings) -> RetryConfig {
    RetryConfig { max_retries: settings.retries, ..RetryConfig::default() }
}

/// The builder for S3: the machine's own environment only where the Secret holds no credentials.
pub(super) fn s3_builder(settings: &StoreSettings, secrets: &Redactor) -> Result<AmazonS3Builder, StoreError> {
    let credentials = &settings.credentials;
    let mut builder = match (s3_keys(credentials)?, &settings.renewal) {
        (None, _) => AmazonS3Builder::from_env(),
        (Some(first), Some(source)) => {
            let renewed = Renewed::new(source.clone(), secrets.clone(), first);
            AmazonS3Builder::new().with_credentials(Arc::new(renewed))
        }
        (Some(AwsCredential { key_id, secret_key, token }), None) => {
            let builder = AmazonS3Builder::new().with_access_key_id(key_id).with_secret_access_key(secret_key);
            match token {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
    };
    let region =
        settings.region.as_deref().or_else(|| credentials.find(&["AWS_REGION", "AWS_DEFAULT_REGION", "REGION"]));
    if let Some(region) = region {
        check_region(region)?;
        builder = builder.with_region(region);
    } else if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
        builder = builder.with_region("us-east-1");
    }
    if let Some(endpoint) = &settings.endpoint {
        check_endpoint(endpoint, settings.allow_http)?;
        builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_virtual_hosted_style_request(false);
    }
    if settings.sha256 {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    Ok(builder
        .with_bucket_name(settings.url.bucket())
        .with_client_options(options(settings)?)
        .with_allow_http(settings.allow_http)
        .with_retry(retry(settings)))
}

/// Without an endpoint, the region becomes a part of the server's name.
fn check_region(region: &str) -> Result<(), StoreError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=64).contains(&region.len()) && region.bytes().all(known) {
        return Ok(());
    }
    Err(StoreError::Settings("the region is not letters, digits, `-` and `_`".to_owned()))
}

fn s3(settings: &StoreSettings, secrets: &Redactor) -> Result<Built, StoreError> {
    Ok(s3_builder(settings, secrets)?.build().map(both))
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), StoreError> {
    let bad = |problem: &str| Err(StoreError::Settings(format!("the endpoint {problem}")));
    let Ok(url) = url::Url::parse(endpoint) else { return bad("is not a URL: write https://host:port") };
    if !url.username().is_empty() || url.password().is_some() {
        return bad("contains credentials: put them into the Secret");
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return bad("is plain http, which is only allowed inside the cluster"),
        _ => return bad("is neither https:// nor http://"),
    }
    if url.path() != "/" || url.query().is_some() {
        return bad("must be a host and a port only");
    }
    Ok(())
}

/// The key of a service account can name another server, which is chosen by the URL alone.
fn check_service_account(key: &str) -> Result<(), StoreError> {
    let fields: serde_json::Value = serde_json::from_str(key).unwrap_or_default();
    match ["gcs_base_url", "disable_oauth"].into_iter().find(|field| fields.get(field).is_some()) {
        Some(field) => Err(StoreError::Settings(format!("the key of the service account contains {field}: remove it"))),
        None => Ok(()),
    }
}

/// The name becomes a part of the server's.
fn check_account(account: &str) -> Result<(), StoreError> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if (3..=24).contains(&account.len()) && account.bytes().all(known) {
        return Ok(());
    }
    Err(StoreError::Settings("AZURE_STORAGE_ACCOUNT_NAME is not 3 to 24 lowercase letters and digits".to_owned()))
}

fn gcs(settings: &StoreSettings) -> Result<Built, StoreError> {
    let key = settings.credentials.find(&[
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT_JSON_KEY",
        "SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GCS_CREDENTIALS",
        "CREDENTIALS_JSON",
    ]);
    let mut builder = match key {
        Some(key) => check_service_account(key)
            .map(|()| GoogleCloudStorageBuilder::new().with_config(GoogleConfigKey::ServiceAccountKey, key))?,
        None => GoogleCloudStorageBuilder::from_env(),
    };
    builder = builder
        .with_bucket_name(settings.url.bucket())
        .with_client_options(options(settings)?)
        .with_retry(retry(settings));
    Ok(builder.build().map(both))
}

fn azure(settings: &StoreSettings) -> Result<Built, StoreError> {
    let credentials = &settings.credentials;
    let mut builder = match credentials {
        StoreCredentials::Ambient => MicrosoftAzureBuilder::from_env(),
        StoreCredentials::Keys(_) => {
            let account = credentials.find(&[
                "AZURE_STORAGE_ACCOUNT_NAME",
                "AZURE_STORAGE_ACCOUNT",
                "AZURE_ACCOUNT_NAME",
                "ACCOUNT_NAME",
            ]);
            let Some(account) = account else {
                return Err(StoreError::Settings("the Secret has no AZURE_STORAGE_ACCOUNT_NAME".to_owned()));
            };
            check_account(account)?;
            MicrosoftAzureBuilder::new().with_account(account)
        }
    };
    for (key, names) in [
        (
            AzureConfigKey::AccessKey,
            &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_ACCOUNT_KEY", "ACCOUNT_KEY"][..],
        ),
        (AzureConfigKey::SasKey, &["AZURE_STORAGE_SAS_TOKEN", "SAS_TOKEN"]),
        (AzureConfigKey::ClientId, &["AZURE_CLIENT_ID"]),
        (AzureConfigKey::ClientSecret, &["AZURE_CLIENT_SECRET"]),
        (AzureConfigKey::AuthorityId, &["AZURE_TENANT_ID"]),
    ] {
        if let Some(value) = credentials.find(names) {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_container_name(settings.url.bucket())
        .with_client_options(options(settings)?)
        .with_retry(retry(settings));
    Ok(builder.build().map(both))
}

fn directory(settings: &StoreSettings) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let Some(root) = &settings.root else {
        return Err(StoreError::Settings("file:// needs the directory where the volume is mounted".to_owned()));
    };
    // A directory that is not there means a volume that is not mounted: creating it would fill the wrong disk.
    let store = LocalFileSystem::new_with_prefix(root)
        .map_err(|error| {
            StoreError::classify(format!("open the directory {}", root.display()), &error, &Redactor::default())
        })
        .map_err(|error| match error {
            StoreError::Failed {
                action,
                reason: crate::Reason::ObjectMissing | crate::Reason::StoreUnavailable,
                detail,
            } => StoreError::Failed { action, reason: crate::Reason::BucketMissing, detail },
            other => other,
        })?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pairs: &[(&str, &str)]) -> StoreCredentials {
        StoreCredentials::from_keys(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn secrets_in_every_usual_spelling() {
        for pairs in [
            [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret\n")],
            [("accessKeyId", "id"), ("secretAccessKey", "secret")],
            [("ACCESS_KEY_ID", "id"), ("ACCESS_SECRET_KEY", "secret")],
            [("accesskey", "id"), ("secretkey", "secret")],
        ] {
            let mut settings = StoreSettings::new(StoreUrl::parse("s3://backups/shop").unwrap());
            settings.credentials = keys(&pairs);
            let builder = s3_builder(&settings, &Redactor::default()).unwrap();
            assert_eq!(builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("id"));
            assert_eq!(builder.get_config_value(&AmazonS3ConfigKey::SecretAccessKey).as_deref(), Some("secret"));
            assert!(!format!("{settings:?}").contains("secret\""), "{settings:?}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused_before_any_request() {
        let mut settings = StoreSettings::new(StoreUrl::parse("s3://backups/shop").unwrap());
        settings.credentials = keys(&[("AWS_ACCESS_KEY_ID", "id")]);
        let error_of = |settings: &StoreSettings| client(settings).err().unwrap().to_string();
        assert!(error_of(&settings).contains("no AWS_SECRET_ACCESS_KEY"));
        settings.credentials = keys(&[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
        for (endpoint, text) in [
            ("http://s3.infra.svc:9000", "only allowed inside"),
            ("s3.infra.svc", "not a URL"),
            ("https://me:hush@s3.infra.svc", "put them into the Secret"),
            ("https://s3.infra.svc/bucket", "host and a port only"),
            ("ftp://s3.infra.svc", "neither"),
        ] {
            settings.endpoint = Some(endpoint.to_owned());
            let error = error_of(&settings);
            assert!(error.contains(text) && !error.contains("hush"), "{endpoint}: {error}");
        }
        let mut settings = StoreSettings::new(StoreUrl::parse("file:///dumps").unwrap());
        assert!(error_of(&settings).contains("mounted"));
        settings.root = Some("/does/not/exist".into());
        assert_eq!(client(&settings).err().unwrap().reason(), crate::Reason::BucketMissing);
        let mut settings = StoreSettings::new(StoreUrl::parse("az://dumps/x").unwrap());
        settings.credentials = keys(&[("AZURE_STORAGE_ACCOUNT_KEY", "aGk=")]);
        assert!(error_of(&settings).contains("AZURE_STORAGE_ACCOUNT_NAME"));
    }

    /// The server follows from the URL and the endpoint alone: that is what the operator's `--allowed-stores` compares.
    #[test]
    fn a_secret_cannot_name_another_server() {
        for (url, pairs, text) in [
            (
                "s3://b01/x",
                [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "x.evil.com/")],
                "region",
            ),
            ("az://b01/x", [("ACCOUNT_NAME", "evil.com/x"), ("ACCOUNT_KEY", "aGk="), ("x", "")], "24 lowercase"),
            (
                "gs://b01/x",
                [
                    ("CREDENTIALS_JSON", r#"{"gcs_base_url": "https://evil.com", "disable_oauth": true}"#),
                    ("x", ""),
                    ("y", ""),
                ],
                "gcs_base_url",
            ),
        ] {
            let mut settings = StoreSettings::new(StoreUrl::parse(url).unwrap());
            settings.credentials = keys(&pairs);
            let error = client(&settings).err().unwrap().to_string();
            assert!(error.contains(text) && !error.contains("evil"), "{url}: {error}");
        }
    }

    #[test]
    fn every_provider_can_be_opened() {
        for (url, pairs) in [
            ("s3://backups/shop", &[][..]),
            ("gs://backups/shop", &[]),
            ("az://backups/shop", &[("accountName", "shop"), ("accountKey", "aGk=")]),
        ] {
            let mut settings = StoreSettings::new(StoreUrl::parse(url).unwrap());
            settings.credentials = keys(pairs);
            assert!(client(&settings).is_ok(), "{url}");
        }
    }
}
