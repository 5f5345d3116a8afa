//! What this program calls itself.

/// The version, and in builds of `make release` the commit.
pub(crate) const VERSION: &str = match option_env!("PGRAIL_VERSION") {
    Some(version) if !version.is_empty() => version,
    _ => env!("CARGO_PKG_VERSION"),
};
