//! The store that a command writes backups to, or reads them from.

use super::CommandError;
use pgrail_dump::{
    Identities, Listing, Manifest, ScheduleIdentity, Scheme, Scope, Store, StoreCredentials, StoreError, StoreSettings,
    StoreUrl, list,
};
use std::path::PathBuf;

/// Variables with the keys of a store.
const KEYS: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// A store.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The store: s3://bucket/prefix, gs://…, az://…, or file:///path. Keys are read from the environment, as
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "URL")]
    storage_url: String,
    /// Another server that speaks the S3 protocol
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// A file with the CA certificate of the endpoint, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The bucket's region
    #[arg(long)]
    region: Option<String>,
}

/// The store that a command reads backups from.
#[derive(Debug, clap::Args)]
pub(super) struct StorageArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// A file with the age private keys of encrypted backups, as age-keygen writes it
    #[arg(long, env = "PGRAIL_IDENTITY_FILE", value_name = "FILE")]
    identity_file: Option<PathBuf>,
    /// The directory of pg_restore, if it is not in PATH
    #[arg(long, env = "PGRAIL_PG_BIN", value_name = "DIRECTORY")]
    pub(super) client_directory: Option<PathBuf>,
}

impl StoreArgs {
    fn open(&self) -> Result<Store, CommandError> {
        Ok(Store::open(&self.settings()?)?)
    }

    /// The store to write to. With `checksums`, it is asked for the SHA-256 of what is uploaded.
    pub(super) fn open_to_write(&self, checksums: bool) -> Result<Store, CommandError> {
        let mut settings = self.settings()?;
        let is_s3 = settings.url.scheme() == Scheme::S3;
        if checksums && !is_s3 {
            return Err(CommandError::Refused(
                "--verification checksum needs an s3:// URL, whose store computes SHA-256: use read-back".to_owned(),
            ));
        }
        // As for the pods: Amazon S3 checks what arrives against it. Other servers need not know it.
        settings.sha256 = is_s3 && (checksums || self.endpoint.is_none());
        Ok(Store::open(&settings)?)
    }

    fn settings(&self) -> Result<StoreSettings, CommandError> {
        let url = StoreUrl::parse(&self.storage_url).map_err(StoreError::from)?;
        // A path of this machine.
        let root = (url.scheme() == Scheme::File).then(|| PathBuf::from("/"));
        let mut settings = StoreSettings::new(url);
        settings.root = root;
        settings.endpoint.clone_from(&self.endpoint);
        settings.region.clone_from(&self.region);
        // The user chose the server.
        settings.allow_http = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let keys = std::env::vars().filter(|(name, _)| KEYS.iter().any(|prefix| name.starts_with(prefix)));
        settings.credentials = StoreCredentials::from_keys(keys);
        if let Some(file) = &self.ca_file {
            let refused = |error| CommandError::Refused(format!("--ca-file {}: {error}", file.display()));
            settings.ca_pem = Some(std::fs::read(file).map_err(refused)?);
        }
        Ok(settings)
    }
}

impl StorageArgs {
    pub(super) fn open(&self) -> Result<Store, CommandError> {
        let store = self.store.open()?;
        let Some(file) = &self.identity_file else { return Ok(store) };
        let refused = |problem: String| CommandError::Refused(format!("--identity-file {}: {problem}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
        let identities = Identities::parse(&text).map_err(|error| refused(error.to_string()))?;
        Ok(store.with_identities(identities))
    }
}

/// Every published backup below the URL, newest first. What cannot be read is named on standard error.
pub(super) async fn backups(store: &Store) -> Result<Vec<Manifest>, CommandError> {
    let listing = listing(store).await?;
    for unreadable in &listing.unreadable {
        eprintln!("pgrail: {}: {}", unreadable.location, unreadable.problem);
    }
    Ok(listing.discovered)
}

/// Every published backup below the URL as discovered, newest first, and those whose manifest cannot be read.
pub(super) async fn listing(store: &Store) -> Result<Listing, CommandError> {
    // Of no schedule: so all of them are others'.
    let nobody = ScheduleIdentity {
        cluster_id: String::new(),
        namespace: String::new(),
        schedule: String::new(),
        schedule_uid: String::new(),
    };
    Ok(list(store, Scope::Everything(&nobody)).await?)
}
