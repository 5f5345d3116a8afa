//! Connection URIs and keyword strings, parsed as libpq does.
//!
//! No error and no `Debug` output contains a part of the URI: what looks like a host can be a part of a password that
//! is not percent-encoded.

mod keywords;

use std::path::PathBuf;
use std::str::FromStr;

use crate::settings::{ConnectionSettings, DEFAULT_PORT, Password, TlsMode};

/// Parameters of a URI. A missing parameter is `None`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PartialSettings {
    /// Host name, address, or directory of a Unix socket (starting with `/`).
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Database.
    pub database: Option<String>,
    /// Login role.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// `sslmode`, `ssl=true` or `sslrootcert=system`.
    pub tls: Option<TlsMode>,
    /// `channel_binding=require`.
    pub channel_binding_required: bool,
    /// `connect_timeout`.
    pub connect_timeout: Option<std::time::Duration>,
    /// `sslrootcert`, where files may be named.
    pub ca_file: Option<PathBuf>,
    /// `passfile`, where files may be named.
    pub password_file: Option<PathBuf>,
}

/// Shows which parameters are set, without their values.
impl std::fmt::Debug for PartialSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PartialSettings")
            .field("host", &self.host.is_some())
            .field("port", &self.port.is_some())
            .field("database", &self.database.is_some())
            .field("user", &self.user.is_some())
            .field("password", &self.password.is_some())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// A parsed URI.
#[derive(Clone, PartialEq, Eq)]
pub struct ParsedUri {
    /// Parameters.
    pub parts: PartialSettings,
    /// Names of ignored parameters: of other drivers (`pgbouncer` of Prisma), or of libpq (`keepalives`). An unknown name
    /// can be a part of a password: it must not be shown.
    pub ignored_keys: Vec<String>,
}

impl std::fmt::Debug for ParsedUri {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ParsedUri")
            .field("parts", &self.parts)
            .field("ignored_keys", &self.ignored_keys.len())
            .finish()
    }
}

/// Error of parsing a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme, or none.
    #[error("not a PostgreSQL URI: it must start with postgres:// or postgresql://, without jdbc: and without +driver")]
    Scheme,
    /// An `@` after `/`, `?` or `#`, or an unknown parameter after `password`, which is probably a part of a password.
    #[error(
        "invalid URI: percent-encode the characters '/', '?', '#', '@' and '&' in the password (%2F, %3F, %23, %40, %26)"
    )]
    UnencodedPassword,
    /// A `%` without two hexadecimal digits, invalid UTF-8, or a null byte.
    #[error(
        "invalid URI: '%' must be followed by two hexadecimal digits, and the result must be UTF-8 without null bytes"
    )]
    Encoding,
    /// Invalid host.
    #[error("invalid host in the URI: enclose an IPv6 address in brackets, as in [fd00::1]:5432")]
    Host,
    /// The port is not 1 to 65535.
    #[error(
        "invalid port in the URI: it must be a number from 1 to 65535, or the password contains a '/', '?' or '@' that is not percent-encoded"
    )]
    Port,
    /// More than one host.
    #[error("the URI contains several hosts: use only the host that accepts writes, such as the read-write Service")]
    SeveralHosts,
    /// A keyword string that is not a sequence of `key=value`.
    #[error(
        "invalid connection string: it must be key=value pairs, separated by spaces, with values that contain spaces in single quotes"
    )]
    Keywords,
    /// Something after `?` that is not `key=value`.
    #[error("invalid parameters in the URI: after '?', they must be key=value pairs, separated by '&'")]
    Parameters,
    /// Invalid `sslmode`.
    #[error("invalid sslmode in the URI: it must be disable, allow, prefer, require, verify-ca or verify-full")]
    TlsMode,
    /// Invalid value of another parameter.
    #[error("invalid value of {0} in the URI")]
    Value(&'static str),
    /// A parameter that refers to files, or that is not implemented.
    #[error("{key} in the URI is not supported: {remedy}")]
    Refused {
        /// Name of the parameter.
        key: &'static str,
        /// Alternative.
        remedy: &'static str,
    },
}

/// Parameters that are refused, because ignoring them would be unsafe.
const REFUSED: &[(&str, &str)] = &[
    ("service", "add host, port, dbname and user to the URI"),
    ("servicefile", "add host, port, dbname and user to the URI"),
    ("passfile", "add the password to the URI, or to the key password of the Secret"),
    ("options", "use ALTER ROLE … SET for the role"),
    ("hostaddr", "use the address as the host"),
    ("sslcert", "client certificates are not supported; use a password"),
    ("sslkey", "client certificates are not supported; use a password"),
    ("sslpassword", "client certificates are not supported; use a password"),
    (
        "sslrootcert",
        "files cannot be read; create a Secret with the CA certificate, and reference it in tls.caSecretRef",
    ),
    ("sslcrl", "certificate revocation lists are not supported"),
    ("sslcrldir", "certificate revocation lists are not supported"),
    ("require_auth", "remove it; a password is sent in clear text only with verify-full"),
    ("requirepeer", "remove it"),
    ("replication", "remove it; a replication connection cannot run SQL"),
];

/// Parses a URI. Accepts the same URIs as libpq, except for several hosts and some parameters.
///
/// Leading and trailing white space is ignored, because files and Secrets often end with a line feed.
pub fn parse_uri(uri: &str) -> Result<ParsedUri, UriError> {
    let uri = uri.trim();
    let rest = without_scheme(uri).ok_or(UriError::Scheme)?;
    parse_rest(rest, Files::Refused)
}

/// Parses a URI or a keyword string (`host=localhost dbname=shop`) of the command line, whose user may name files:
/// `sslrootcert` and `passfile`.
pub fn parse_connection_string(text: &str) -> Result<ParsedUri, UriError> {
    let text = text.trim();
    match without_scheme(text) {
        Some(rest) => parse_rest(rest, Files::Allowed),
        None if text.contains("://") || !text.contains('=') => Err(UriError::Scheme),
        None => keywords::parse(text),
    }
}

/// Whether parameters may name files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    Allowed,
    Refused,
}

fn without_scheme(uri: &str) -> Option<&str> {
    uri.strip_prefix("postgres://").or_else(|| uri.strip_prefix("postgresql://"))
}

fn parse_rest(rest: &str, files: Files) -> Result<ParsedUri, UriError> {
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    if tail.contains('#') || (!authority.contains('@') && tail.contains('@')) {
        return Err(UriError::UnencodedPassword);
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };

    let mut parts = PartialSettings::default();
    read_authority(authority, &mut parts)?;
    parts.database = filled(decode(path.strip_prefix('/').unwrap_or(path))?);
    let mut ignored_keys = Vec::new();
    let mut after_password = false;
    for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or(UriError::Parameters)?;
        if value.contains('=') || !is_key(key) {
            return Err(UriError::Parameters);
        }
        let known = read_parameter(key, decode(value)?, files, &mut parts)?;
        if !known && after_password {
            // It would be named to the user.
            return Err(UriError::UnencodedPassword);
        }
        if !known && !ignored_keys.iter().any(|ignored| ignored == key) {
            ignored_keys.push(key.to_owned());
        }
        after_password |= key == "password";
    }
    Ok(ParsedUri { parts, ignored_keys })
}

impl ParsedUri {
    /// Settings for the command line, which has only a URI. Host and database are required. `default_user` is used if
    /// the URI contains no user, as libpq does.
    pub fn into_settings(self, default_user: Option<&str>) -> Result<ConnectionSettings, MissingPart> {
        let parts = self.parts;
        let host = parts.host.ok_or(MissingPart("host"))?;
        let user = parts.user.or_else(|| default_user.map(str::to_owned)).ok_or(MissingPart("user"))?;
        let database = parts.database.ok_or(MissingPart("database"))?;
        let mut settings = ConnectionSettings::new(host, database, user);
        settings.port = parts.port.unwrap_or(DEFAULT_PORT);
        settings.password = parts.password;
        settings.tls = parts.tls.unwrap_or_default();
        settings.channel_binding_required = parts.channel_binding_required;
        settings.connect_timeout = parts.connect_timeout.unwrap_or(settings.connect_timeout);
        Ok(settings)
    }
}

/// A required parameter is missing in the URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URI contains no {0}: use postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct MissingPart(pub &'static str);

fn read_authority(authority: &str, parts: &mut PartialSettings) -> Result<(), UriError> {
    let address = match authority.rsplit_once('@') {
        Some((login, address)) => {
            // Passwords often contain an '@' that is not encoded. Only the last one can be the separator.
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            parts.user = filled(decode(user)?);
            parts.password = password.map(decode).transpose()?.and_then(filled).map(Password::new);
            address
        }
        None => authority,
    };
    if address.contains(',') {
        return Err(UriError::SeveralHosts);
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or(UriError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| UriError::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, port),
                None if after.is_empty() => (host, ""),
                None => return Err(UriError::Host),
            }
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    parts.host = filled(decode(host)?).map(checked_host).transpose()?;
    parts.port = if port.is_empty() { None } else { Some(read_port(port)?) };
    Ok(())
}

/// Reads one parameter. Returns false if it is ignored.
fn read_parameter(key: &str, value: String, files: Files, parts: &mut PartialSettings) -> Result<bool, UriError> {
    if key == "sslrootcert" && value == "system" {
        // As libpq: use the CA certificates of the system, which requires verify-full.
        parts.tls = Some(TlsMode::VerifyFull);
        return Ok(true);
    }
    match key {
        "sslrootcert" if files == Files::Allowed => parts.ca_file = filled(value).map(PathBuf::from),
        "passfile" if files == Files::Allowed => parts.password_file = filled(value).map(PathBuf::from),
        _ => return read_value(key, value, parts),
    }
    Ok(true)
}

/// Reads one parameter that names no file. Returns false if it is ignored.
fn read_value(key: &str, value: String, parts: &mut PartialSettings) -> Result<bool, UriError> {
    if let Some((key, remedy)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
        return if value.is_empty() { Ok(true) } else { Err(UriError::Refused { key, remedy }) };
    }
    if value.is_empty() {
        return Ok(true);
    }
    match key {
        "host" => parts.host = Some(checked_host(value)?),
        "port" => parts.port = Some(read_port(&value)?),
        "dbname" => parts.database = Some(value),
        "user" => parts.user = Some(value),
        "password" => parts.password = Some(Password::new(value)),
        "sslmode" => {
            let mode = TlsMode::from_str(&value).map_err(|_| UriError::TlsMode)?;
            parts.tls = Some(parts.tls.map_or(mode, |other| other.max(mode)));
        }
        // A parameter of JDBC, which libpq accepts in URIs, too.
        "ssl" if value == "true" => parts.tls = Some(parts.tls.unwrap_or_default().max(TlsMode::Require)),
        "channel_binding" => match value.as_str() {
            "require" => parts.channel_binding_required = true,
            "prefer" | "disable" => {}
            _ => return Err(UriError::Value("channel_binding")),
        },
        "connect_timeout" => {
            let seconds: i32 = value.parse().map_err(|_| UriError::Value("connect_timeout"))?;
            // In libpq, zero and negative values mean no timeout. A controller requires one.
            parts.connect_timeout =
                u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(std::time::Duration::from_secs);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn checked_host(host: String) -> Result<String, UriError> {
    if host.contains(',') {
        Err(UriError::SeveralHosts)
    } else if host
        .contains(|character: char| character.is_whitespace() || character.is_control() || "@?#".contains(character))
    {
        Err(UriError::Host)
    } else {
        Ok(host)
    }
}

fn read_port(text: &str) -> Result<u16, UriError> {
    if text.contains(',') {
        return Err(UriError::SeveralHosts);
    }
    match text.parse() {
        Ok(port) if port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(UriError::Port),
    }
}

/// The names of ignored parameters are shown, so a name must not contain a part of a password.
fn is_key(key: &str) -> bool {
    (1..=40).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || byte == b'.')
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Percent-decoding as in libpq: strict, and `+` is not a space.
fn decode(text: &str) -> Result<String, UriError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (rest.next().and_then(hexadecimal), rest.next().and_then(hexadecimal)) else {
                return Err(UriError::Encoding);
            };
            bytes.push(high * 16 + low);
        } else {
            bytes.push(byte);
        }
    }
    if bytes.contains(&0) {
        return Err(UriError::Encoding);
    }
    String::from_utf8(bytes).map_err(|_| UriError::Encoding)
}

fn hexadecimal(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests;
