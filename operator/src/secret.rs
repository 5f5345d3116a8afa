//! Settings from the keys of a Kubernetes Secret, in the shapes that PostgreSQL operators and platforms write.

use std::collections::BTreeMap;

use pgrail_postgres::{ConnectionSettings, DEFAULT_PORT, PartialSettings, Password, TlsMode, UriError, parse_uri};

/// What a `ProtectedDatabase` says beside its Secret; it beats the URI, which beats the other keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// Host name or address.
    pub(crate) host: Option<String>,
    /// Port.
    pub(crate) port: Option<u16>,
    /// Database.
    pub(crate) database: Option<String>,
    /// Role.
    pub(crate) user: Option<String>,
    /// TLS mode; of this and the URI's, the stricter holds.
    pub(crate) tls: Option<TlsMode>,
}

/// Settings from a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretSettings {
    /// The settings. The certificate authority comes from another Secret: fill in `ca_pem`.
    pub(crate) settings: ConnectionSettings,
    /// Names of the URI's keys that were ignored.
    pub(crate) ignored_keys: Vec<String>,
    /// Whether the host is the spec's, not the Secret's: then it must be an allowed one.
    pub(crate) host_from_spec: bool,
    /// The host that the Secret itself names.
    pub(crate) own_host: Option<String>,
}

/// Why a Secret gives no settings. The condition's reason is always `SecretIncomplete`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecretError {
    /// Keys are missing.
    #[error("the Secret lacks {}: {remedy}", .missing.join(", "))]
    Incomplete {
        /// What is missing, as the keys that would give it.
        missing: Vec<&'static str>,
        /// What to do.
        remedy: &'static str,
    },
    /// `uri` cannot be used.
    #[error("the key uri of the Secret cannot be used: {0}")]
    Uri(#[from] UriError),
    /// A key's value cannot be used.
    #[error("the key {key} of the Secret cannot be used: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Puts settings together from a Secret's keys (already base64-decoded) and the spec.
///
/// Keys: `uri`; `host`; `port`; `dbname` or `database`; `user` or `username`; `password`. All others are left alone
/// (`jdbc-uri`, `pgpass`, `pgbouncer-uri`, …). Line feeds at the end of a value are dropped, empty values count as none.
///
/// No password is fine (certificate or trust authentication of a proxy); no host, database or user is not.
pub(crate) fn from_secret(
    keys: &BTreeMap<String, Vec<u8>>,
    overrides: &Overrides,
) -> Result<SecretSettings, SecretError> {
    let (uri, ignored_keys) = match value(keys, "uri")? {
        Some(text) => {
            let parsed = parse_uri(text)?;
            (parsed.parts, known_keys(parsed.ignored_keys))
        }
        None => (PartialSettings::default(), Vec::new()),
    };
    let text = |names: [&'static str; 2]| -> Result<Option<String>, SecretError> {
        let first = value(keys, names[0])?;
        Ok(if first.is_some() { first } else { value(keys, names[1])? }.map(str::to_owned))
    };
    let own_host = uri.host.or(value(keys, "host")?.map(str::to_owned));
    let host = overrides.host.clone().or_else(|| own_host.clone());
    let database = overrides.database.clone().or(uri.database).or(text(["dbname", "database"])?);
    let user = overrides.user.clone().or(uri.user).or(text(["user", "username"])?);
    let password = uri.password.or(value(keys, "password")?.map(Password::new));
    let port = overrides.port.or(uri.port).or(port(keys)?).unwrap_or(DEFAULT_PORT);

    let (Some(host), Some(database), Some(user)) = (&host, &database, &user) else {
        return Err(incomplete(host.is_none(), database.is_none(), user.is_none()));
    };
    check_host(host)?;
    let mut settings = ConnectionSettings::new(host, database, user);
    settings.port = port;
    settings.password = password;
    settings.tls = match (overrides.tls, uri.tls) {
        (Some(spec), Some(uri)) => spec.max(uri),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    settings.channel_binding_required = uri.channel_binding_required;
    settings.connect_timeout = uri.connect_timeout.unwrap_or(settings.connect_timeout);
    settings.host_trusted = overrides.host.is_none();
    Ok(SecretSettings { settings, ignored_keys, host_from_spec: overrides.host.is_some(), own_host })
}

/// Keys of the URI that other drivers know. Only these are named in status and log: anything else in a Secret may be one.
const KNOWN_KEYS: &[&str] = &[
    "connection_limit",
    "max_conns",
    "pgbouncer",
    "pool_size",
    "pool_timeout",
    "prepareThreshold",
    "schema",
    "socket_timeout",
    "sslaccept",
    "statement_cache_size",
    "supa",
    "workaround",
];

/// The known ones among the ignored keys, and how many others there are.
pub(crate) fn known_keys(ignored: Vec<String>) -> Vec<String> {
    let (mut known, others): (Vec<_>, Vec<_>) = ignored.into_iter().partition(|key| KNOWN_KEYS.contains(&key.as_str()));
    if !others.is_empty() {
        known.push(format!("{} that no driver is known to use", others.len()));
    }
    known
}

fn incomplete(host: bool, database: bool, user: bool) -> SecretError {
    let missing: Vec<_> = [(host, "host"), (database, "dbname"), (user, "username")]
        .into_iter()
        .filter_map(|(missing, key)| missing.then_some(key))
        .collect();
    let remedy = match (host, database, user) {
        // Zalando's operator writes the login only.
        (true, true, false) => "add the keys, or set spec.connection.host and spec.connection.database",
        (true, false, false) => "add the key, or set spec.connection.host",
        (false, true, false) => "add the key, or set spec.connection.database",
        _ => {
            "give it a key uri (postgres://USER:PASSWORD@HOST:PORT/DATABASE), or host, port, dbname, username and password"
        }
    };
    SecretError::Incomplete { missing, remedy }
}

fn check_host(host: &str) -> Result<(), SecretError> {
    let problem = if host.starts_with('/') || host.starts_with('@') {
        "Unix sockets cannot be reached from here; name a Service"
    } else if host.contains(',') {
        "it names several hosts; name the one that takes writes"
    } else if host.len() > 253
        || host.contains(|character: char| {
            character.is_whitespace() || character.is_control() || "@?#/".contains(character)
        })
    {
        "it is not a host name or an address"
    } else {
        return Ok(());
    };
    Err(SecretError::Value { key: "host", problem })
}

fn port(keys: &BTreeMap<String, Vec<u8>>) -> Result<Option<u16>, SecretError> {
    let Some(text) = value(keys, "port")? else { return Ok(None) };
    match text.parse() {
        Ok(port) if port != 0 => Ok(Some(port)),
        _ => Err(SecretError::Value { key: "port", problem: "it is not a number from 1 to 65535" }),
    }
}

fn value<'keys>(keys: &'keys BTreeMap<String, Vec<u8>>, key: &'static str) -> Result<Option<&'keys str>, SecretError> {
    let Some(bytes) = keys.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| SecretError::Value { key, problem: "it is not UTF-8" })?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.contains('\0') {
        return Err(SecretError::Value { key, problem: "it has a NUL byte" });
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests;
