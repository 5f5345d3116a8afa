//! Where dumps are kept, as a URL.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::text::truncated;

/// Longest prefix of a store, in bytes. Keys hold 1,024; a dump's own part of the key needs the rest.
const LONGEST_PREFIX: usize = 256;

/// A value in the wrong field may be a secret: errors repeat at most this many of its characters.
const SHOWN: usize = 24;

/// What kind of store a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `s3://bucket/prefix`: Amazon S3 and everything that speaks its protocol.
    S3,
    /// `gs://bucket/prefix`: Google Cloud Storage.
    Gcs,
    /// `az://container/prefix`: Azure Blob Storage; the account is part of the credentials.
    Azure,
    /// `file:///path`: a directory, relative to the mounted volume.
    File,
}

impl Scheme {
    /// The scheme as it is written in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
            Self::File => "file",
        }
    }
}

/// Where dumps are kept: a scheme, a bucket and a prefix. Only made by [`StoreUrl::parse`], so always valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreUrl {
    scheme: Scheme,
    bucket: String,
    prefix: String,
}

/// What is wrong with a store's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// No `scheme://` that is known.
    #[error("{0:?} does not start with s3://, gs://, az:// or file:///")]
    Scheme(String),
    /// `s3:///prefix`.
    #[error("the URL names no bucket: write {0}://bucket/prefix")]
    NoBucket(&'static str),
    /// A bucket's name with characters that no store allows.
    #[error("{0:?} is not a bucket's name: 3 to 222 lowercase letters, digits, `-`, `_` or `.`")]
    Bucket(String),
    /// `file://host/path` or `file:relative`.
    #[error("a file URL has three slashes and a path: write file:///directory")]
    NoPath,
    /// A user name, password, port, query or fragment.
    #[error(
        "the URL must hold nothing but a bucket and a prefix: {0} does not belong here; set it in the Secret or in the other fields of the storage"
    )]
    Extra(&'static str),
    /// A `..`, `.` or empty segment, or a character that stores and file systems read in their own ways.
    #[error("{segment:?} cannot be part of the prefix: {problem}")]
    Segment {
        /// The segment between two slashes.
        segment: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The prefix leaves no room for a dump's own name.
    #[error("the prefix is {0} bytes long, more than 256")]
    TooLong(usize),
}

impl StoreUrl {
    /// Reads `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///path`, and returns what is wrong with anything else.
    pub fn parse(text: &str) -> Result<Self, StoreUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| StoreUrlError::Scheme(truncated(text, SHOWN)))?;
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Gcs,
            "az" => Scheme::Azure,
            "file" => Scheme::File,
            other => return Err(StoreUrlError::Scheme(truncated(other, SHOWN))),
        };
        for (sign, what) in [('@', "a user"), ('?', "a query"), ('#', "a fragment")] {
            if rest.contains(sign) {
                return Err(StoreUrlError::Extra(what));
            }
        }
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme == Scheme::File {
            if !bucket.is_empty() || path.trim_matches('/').is_empty() {
                return Err(StoreUrlError::NoPath);
            }
        } else if bucket.is_empty() {
            return Err(StoreUrlError::NoBucket(scheme.as_str()));
        } else if bucket.contains(':') {
            return Err(StoreUrlError::Extra("a port"));
        } else if !is_bucket(bucket) {
            return Err(StoreUrlError::Bucket(truncated(bucket, SHOWN)));
        }
        let prefix = path.strip_suffix('/').unwrap_or(path);
        if !prefix.is_empty() {
            for segment in prefix.split('/') {
                check_segment(segment)?;
            }
        }
        if prefix.len() > LONGEST_PREFIX {
            return Err(StoreUrlError::TooLong(prefix.len()));
        }
        Ok(Self { scheme, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// What kind of store it is.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The bucket or container; empty for a directory.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The prefix without a slash at its ends; may be empty, except for a directory.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of something below this store, for people to read: `s3://bucket/prefix/location`.
    pub fn join(&self, location: &str) -> String {
        format!("{self}/{location}")
    }
}

fn is_bucket(name: &str) -> bool {
    (3..=222).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
        && !name.contains("..")
}

fn check_segment(segment: &str) -> Result<(), StoreUrlError> {
    let problem = if segment.is_empty() {
        "it is empty (two slashes in a row)"
    } else if segment == ".." || segment == "." {
        "it names another directory"
    } else if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=+".contains(&byte)) {
        "only letters, digits, `-`, `_`, `.`, `=` and `+` are allowed"
    } else {
        return Ok(());
    };
    Err(StoreUrlError::Segment { segment: truncated(segment, SHOWN), problem })
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.as_str(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(formatter, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = StoreUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> Self {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_round_trip() {
        for (text, bucket, prefix) in [
            ("s3://backups/shop", "backups", "shop"),
            ("s3://backups", "backups", ""),
            ("gs://my_bucket.example/a/b", "my_bucket.example", "a/b"),
            ("az://container/x", "container", "x"),
            ("file:///dumps/shop", "", "dumps/shop"),
        ] {
            let url = StoreUrl::parse(text).unwrap();
            assert_eq!((url.bucket(), url.prefix()), (bucket, prefix), "{text}");
            assert_eq!(url.to_string(), text);
        }
        assert_eq!(StoreUrl::parse("s3://backups/shop/").unwrap().to_string(), "s3://backups/shop");
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        for (text, expected) in [
            ("backups/shop", "does not start with"),
            ("https://s3.example.com/x", "does not start with"),
            ("s3:///shop", "names no bucket"),
            ("s3://Bucket/shop", "not a bucket's name"),
            ("s3://key:secret@backups/shop", "a user"),
            ("s3://backups:9000/shop", "a port"),
            ("s3://backups/shop?region=x", "a query"),
            ("s3://backups/a//b", "two slashes"),
            ("s3://backups/../other", "another directory"),
            ("s3://backups/a b", "only letters"),
            ("file://host/path", "three slashes"),
            ("file:///", "three slashes"),
            ("file:///../etc", "another directory"),
            ("file:////etc", "two slashes"),
        ] {
            let error = StoreUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let long = format!("s3://backups/{}", "x".repeat(300));
        assert_eq!(StoreUrl::parse(&long).unwrap_err(), StoreUrlError::TooLong(300));
    }
}
