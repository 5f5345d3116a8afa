//! The backup engine's settings, from the agent's configuration and the mounted files.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::secret::{Overrides, SecretError, from_secret};
use pgrail_dump::{
    CredentialSource, Identities, IdentityTextError, Reason, Scheme, Store, StoreCredentials, StoreError, StoreSettings,
};
use pgrail_postgres::{AddressPolicy, ConnectionSettings, TlsMode, UnknownTlsMode};
use url::Url;

use super::Places;
use super::config::{AgentConfig, CA_FILE, ConnectionConfig, IDENTITY_KEY};

/// An invalid configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("no configuration: neither --config nor --config-file is given")]
    NoConfig,
    #[error("the configuration cannot be read")]
    Config(#[source] serde_json::Error),
    #[error("the configuration has no section `{0}`")]
    MissingSection(&'static str),
    #[error("{} cannot be read", .file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("the result of the dump cannot be read")]
    Result(#[source] serde_json::Error),
    #[error("the database's Secret cannot be used")]
    Secret(#[from] SecretError),
    #[error("the configuration names no TLS mode")]
    TlsMode(#[from] UnknownTlsMode),
    #[error(
        "the endpoint of the store, {host}, has the address {address}: loopback and link-local addresses and those of the apiserver are refused"
    )]
    Address { host: String, address: IpAddr },
    #[error("the key `identity` of the Secret with the age identity cannot be used")]
    Identity(#[from] IdentityTextError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SettingsError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Store(error) => error.reason(),
            Self::Address { .. } => Reason::StoreInvalid,
            Self::Identity(_) => Reason::IdentityRequired,
            Self::File { .. } => Reason::Internal,
            Self::NoConfig
            | Self::Config(_)
            | Self::MissingSection(_)
            | Self::Result(_)
            | Self::Secret(_)
            | Self::TlsMode(_) => Reason::InvalidRequest,
        }
    }
}

pub(super) fn config(places: &Places) -> Result<AgentConfig, SettingsError> {
    let text = match (&places.config, &places.config_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => read_to_string(file)?,
        (None, None) => return Err(SettingsError::NoConfig),
    };
    serde_json::from_str(&text).map_err(SettingsError::Config)
}

/// The store, with the private keys if they are mounted.
pub(super) async fn store(config: &AgentConfig, places: &Places) -> Result<Store, SettingsError> {
    let store = store_without_identity(config, places).await?;
    let identity = secret(&places.identity_directory)?.remove(IDENTITY_KEY);
    let Some(text) = identity.map(String::from_utf8) else { return Ok(store) };
    let identities = Identities::parse(&text.unwrap_or_default())?;
    Ok(store.with_identities(identities))
}

pub(super) async fn store_without_identity(config: &AgentConfig, places: &Places) -> Result<Store, SettingsError> {
    let (config, addresses) = (&config.store, config.policy());
    if let Some(endpoint) = &config.endpoint {
        check_endpoint(endpoint, &addresses).await?;
    }
    let mut settings = StoreSettings::new(config.url.clone());
    settings.endpoint.clone_from(&config.endpoint);
    settings.region.clone_from(&config.region);
    settings.allow_http = config.allow_http;
    settings.sha256 = config.sha256;
    settings.root = (config.url.scheme() == Scheme::File).then(|| places.volume.clone());
    settings.credentials = credentials(&places.store_directory)?;
    let directory = places.store_directory.clone();
    // The kubelet writes a changed Secret into the running pod.
    settings.renewal = Some(CredentialSource::new(move || credentials(&directory).ok()));
    settings.ca_pem = optional_file(&places.store_ca_directory.join(CA_FILE))?;
    Ok(Store::open(&settings)?)
}

/// The mounted Secret of the store.
fn credentials(directory: &Path) -> Result<StoreCredentials, SettingsError> {
    // A store's Secret may hold more than what is read from it, which then need not be text.
    let keys = secret(directory)?.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value).ok()?)));
    Ok(StoreCredentials::from_keys(keys))
}

/// The schedule's author chooses the endpoint: every address that its name has must be one that pods connect to.
async fn check_endpoint(endpoint: &str, policy: &AddressPolicy) -> Result<(), SettingsError> {
    let Some((host, port)) = endpoint_host(endpoint) else { return Ok(()) };
    // A name that does not resolve is the store's error, with its reason and its retries.
    let Ok(addresses) = tokio::net::lookup_host((host.as_str(), port)).await else { return Ok(()) };
    let refused = addresses.map(|address| address.ip()).find(|address| !policy.allows(*address));
    refused.map_or(Ok(()), |address| Err(SettingsError::Address { host: host.clone(), address }))
}

/// Host and port of an endpoint; the store refuses what is none.
fn endpoint_host(endpoint: &str) -> Option<(String, u16)> {
    let url = Url::parse(endpoint).ok()?;
    Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
}

pub(super) fn connection(config: &ConnectionConfig, places: &Places) -> Result<ConnectionSettings, SettingsError> {
    let tls = config.tls.as_deref().map(str::parse::<TlsMode>).transpose()?;
    let overrides = Overrides {
        host: config.host.clone(),
        port: config.port,
        database: config.database.clone(),
        user: config.user.clone(),
        tls,
    };
    let mut settings = from_secret(&secret(&places.connection_directory)?, &overrides)?.settings;
    "pgrail-dump".clone_into(&mut settings.application_name);
    settings.ca_pem = optional_file(&places.ca_directory.join(CA_FILE))?;
    Ok(settings)
}

fn optional_file(file: &Path) -> Result<Option<Vec<u8>>, SettingsError> {
    match std::fs::read(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SettingsError::File { file: file.to_owned(), source }),
    }
}

/// A mounted Secret, one file per key; none where nothing is mounted.
fn secret(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, SettingsError> {
    let failed = |source| SettingsError::File { file: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut keys = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // The kubelet swaps versions of a Secret by links and directories that start with two dots.
        if name.starts_with("..") || !entry.path().is_file() {
            continue;
        }
        let value = std::fs::read(entry.path()).map_err(|source| SettingsError::File { file: entry.path(), source })?;
        keys.insert(name, value);
    }
    Ok(keys)
}

pub(super) fn read_to_string(file: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(file).map_err(|source| SettingsError::File { file: file.to_owned(), source })
}
