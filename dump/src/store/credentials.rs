//! The credentials of a store, in the spellings that Secrets use.

use std::{collections::BTreeMap, fmt};

use object_store::aws::AwsCredential;

use super::StoreError;

/// How the agent authenticates to the store.
#[derive(Clone, Default)]
pub enum StoreCredentials {
    /// The machine's own: workload identity, an instance's role, or the usual environment variables.
    #[default]
    Ambient,
    /// The keys of a Secret, see [`StoreCredentials::from_keys`].
    Keys(BTreeMap<String, String>),
}

impl StoreCredentials {
    /// Reads a Secret's keys in the provider's usual spellings, and ignores unknown ones:
    ///
    /// - S3: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`; also `accessKeyId`,
    ///   `secretAccessKey`, `sessionToken`, `ACCESS_KEY_ID`, `ACCESS_SECRET_KEY`, `SECRET_ACCESS_KEY`, `accesskey`, `secretkey`;
    /// - Google: `GOOGLE_SERVICE_ACCOUNT_KEY`, `GOOGLE_SERVICE_ACCOUNT_JSON_KEY`, `serviceAccountKey`, `gcsCredentials`,
    ///   `credentials.json`: the key's JSON itself;
    /// - Azure: `AZURE_STORAGE_ACCOUNT_NAME` (or `AZURE_STORAGE_ACCOUNT`, `AZURE_ACCOUNT_NAME`, `accountName`) with
    ///   `AZURE_STORAGE_ACCOUNT_KEY` (or `AZURE_STORAGE_KEY`, `AZURE_ACCOUNT_KEY`, `accountKey`), or
    ///   `AZURE_STORAGE_SAS_TOKEN`, or `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` and `AZURE_TENANT_ID`.
    pub fn from_keys(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        let keys: BTreeMap<_, _> =
            keys.into_iter().map(|(key, value)| (key, value.trim_end_matches(['\r', '\n']).to_owned())).collect();
        if keys.is_empty() { Self::Ambient } else { Self::Keys(keys) }
    }

    pub(super) fn find(&self, names: &[&str]) -> Option<&str> {
        let Self::Keys(keys) = self else { return None };
        let plain = |name: &str| name.replace(['_', '-', '.'], "").to_ascii_lowercase();
        names.iter().find_map(|name| {
            keys.iter()
                .find(|(key, value)| plain(key) == plain(name) && !value.is_empty())
                .map(|(_, value)| value.as_str())
        })
    }

    /// The values that must never be shown.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Ambient => Vec::new(),
            // Names of accounts and regions in error messages help; they are not secret.
            Self::Keys(keys) => keys
                .iter()
                .filter(|(key, _)| {
                    let key = key.to_ascii_lowercase();
                    !(key.contains("region")
                        || key.contains("endpoint")
                        || key.contains("account") && key.contains("name"))
                })
                .map(|(_, value)| value.as_str())
                .collect(),
        }
    }
}

impl fmt::Debug for StoreCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambient => formatter.write_str("Ambient"),
            Self::Keys(keys) => write!(formatter, "Keys({:?})", keys.keys().collect::<Vec<_>>()),
        }
    }
}

/// The keys for S3. `None` without a Secret; an error if it is incomplete.
pub(super) fn s3_keys(credentials: &StoreCredentials) -> Result<Option<AwsCredential>, StoreError> {
    let key = credentials.find(&["AWS_ACCESS_KEY_ID", "ACCESS_KEY_ID", "ACCESS_KEY"]);
    let secret = credentials.find(&["AWS_SECRET_ACCESS_KEY", "SECRET_ACCESS_KEY", "ACCESS_SECRET_KEY", "SECRET_KEY"]);
    match (key, secret) {
        (Some(key), Some(secret)) => Ok(Some(AwsCredential {
            key_id: key.to_owned(),
            secret_key: secret.to_owned(),
            token: credentials.find(&["AWS_SESSION_TOKEN", "SESSION_TOKEN"]).map(str::to_owned),
        })),
        (None, None) if matches!(credentials, StoreCredentials::Ambient) => Ok(None),
        (key, _) => {
            let missing = if key.is_none() { "AWS_ACCESS_KEY_ID" } else { "AWS_SECRET_ACCESS_KEY" };
            Err(StoreError::Settings(format!("the Secret has no {missing}")))
        }
    }
}
