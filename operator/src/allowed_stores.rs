//! The operator's `--allowed-stores`: to which stores pods may send dumps.

use crate::agent::config::StoreConfig;
use std::sync::Arc;
use wildmatch::WildMatch;

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no pattern of a store: write s3://bucket/*, gs://bucket/*, az://container/* or file:///*, or with an endpoint https://host/bucket/*"
)]
pub(crate) struct StorePatternError(String);

/// Patterns of stores. None allows every store.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedStores {
    patterns: Arc<[WildMatch]>,
}

impl AllowedStores {
    pub(crate) fn parse<Text: AsRef<str>>(patterns: impl IntoIterator<Item = Text>) -> Result<Self, StorePatternError> {
        let pattern = |text: Text| {
            let text = text.as_ref().trim();
            let known = ["s3://", "gs://", "az://", "file:///", "https://", "http://"];
            let is_pattern =
                text == "*" || known.iter().any(|start| text.starts_with(start) && text.len() > start.len());
            is_pattern.then(|| WildMatch::new(text)).ok_or_else(|| StorePatternError(text.to_owned()))
        };
        Ok(Self { patterns: patterns.into_iter().map(pattern).collect::<Result<Vec<_>, _>>()?.into() })
    }

    pub(crate) fn allow(&self, store: &StoreConfig) -> bool {
        let address = address(store);
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(&address))
    }
}

/// What patterns are compared with: the URL, or where there is an endpoint, that followed by bucket and prefix. A bucket's name
/// says nothing without the server.
pub(crate) fn address(store: &StoreConfig) -> String {
    let url = &store.url;
    match &store.endpoint {
        None => url.to_string(),
        Some(endpoint) => {
            let bucket = format!("{}/{}", endpoint.trim_end_matches('/').to_ascii_lowercase(), url.bucket());
            if url.prefix().is_empty() { bucket } else { format!("{bucket}/{}", url.prefix()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn allowed(patterns: &[&str], store: Value) -> bool {
        AllowedStores::parse(patterns).unwrap().allow(&serde_json::from_value(store).unwrap())
    }

    #[test]
    fn a_store_is_allowed_by_its_url_or_by_its_server() {
        let amazon = || json!({"url": "s3://backups/shop"});
        let own = || json!({"url": "s3://backups/shop", "endpoint": "https://S3.example.com:9000/"});
        assert!(allowed(&[], amazon()) && allowed(&["*"], own()));
        assert!(allowed(&["s3://backups/*"], amazon()));
        assert!(!allowed(&["s3://backups/*"], own()), "the same name at another server");
        assert!(allowed(&["gs://x/*", "https://s3.example.com:9000/backups/*"], own()));
        assert!(!allowed(&["https://s3.example.com:9000/backups/*"], amazon()));
        assert!(!allowed(&["s3://backup/*"], amazon()));
        assert!(allowed(&["s3://backups"], json!({"url": "s3://backups"})));
        assert!(!allowed(&["s3://backups/*"], json!({"url": "file:///backups/x"})));
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        for pattern in ["backups", "s3:/backups", "s3.example.com", "", "ftp://x"] {
            assert!(AllowedStores::parse([pattern]).is_err(), "{pattern}");
        }
    }
}
