//! Connection URIs, read the way libpq reads them.
//!
//! No error and no `Debug` here shows a part of the URI: what looks like a host may be half a password that somebody
//! forgot to percent-encode.

use std::str::FromStr;

use crate::settings::{ConnectionSettings, DEFAULT_PORT, Password, TlsMode};

/// What a URI says; what it leaves out is `None`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PartialSettings {
    /// Host name, address, or folder of a Unix socket (starting with `/`).
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Database.
    pub database: Option<String>,
    /// Role.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// `sslmode`, or what `ssl=true` and `sslrootcert=system` mean.
    pub tls: Option<TlsMode>,
    /// `channel_binding=require`.
    pub channel_binding_required: bool,
    /// `connect_timeout`.
    pub connect_timeout: Option<std::time::Duration>,
}

/// Shows which parts there are, and none of their contents.
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

/// A URI, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedUri {
    /// What it says.
    pub parts: PartialSettings,
    /// Names of the keys that mean nothing here and were left alone, in order: of other drivers (Prisma's `pgbouncer`),
    /// or of libpq where they make no difference (`keepalives`).
    pub ignored_keys: Vec<String>,
}

/// Why a URI was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Another scheme, or none.
    #[error("not a PostgreSQL URI: it must start with postgres:// or postgresql:// (no jdbc: and no +driver)")]
    Scheme,
    /// An `@` where only half a password can have brought it.
    #[error("the URI is malformed: percent-encode '/', '?', '#' and '@' in the password (%2F, %3F, %23, %40)")]
    UnencodedPassword,
    /// A `%` without two hexadecimal digits, or bytes that are no UTF-8 or have a NUL.
    #[error(
        "the URI is malformed: after '%' there must be two hexadecimal digits, and what they spell must be UTF-8 without NUL"
    )]
    Encoding,
    /// A bracket or colon too many.
    #[error("the host in the URI is malformed: an IPv6 address stands in brackets, as in [fd00::1]:5432")]
    Host,
    /// The port is not 1 to 65535.
    #[error(
        "the port in the URI is not a number from 1 to 65535 (or the password has a '/', '?' or '@' that must be percent-encoded)"
    )]
    Port,
    /// More than one host.
    #[error("the URI names several hosts: name the one that takes writes, such as the read-write Service")]
    SeveralHosts,
    /// Something after `?` that is not `key=value`.
    #[error("the parameters after '?' in the URI must be key=value pairs joined by '&'")]
    Parameters,
    /// Unknown `sslmode`.
    #[error("sslmode in the URI must be disable, allow, prefer, require, verify-ca or verify-full")]
    TlsMode,
    /// Unknown value of another key.
    #[error("the value of {0} in the URI is not one of those PostgreSQL knows")]
    Value(&'static str),
    /// A key that would reach outside the URI, or promise what pgrail does not do.
    #[error("{key} in the URI is not supported: {remedy}")]
    Refused {
        /// The key.
        key: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
}

/// Keys that are refused because ignoring them would break what they promise.
const REFUSED: &[(&str, &str)] = &[
    ("service", "write host, port, dbname and user into the URI"),
    ("servicefile", "write host, port, dbname and user into the URI"),
    ("passfile", "put the password into the URI or next to it in the Secret"),
    ("options", "set what the role needs with ALTER ROLE … SET"),
    ("hostaddr", "put the address into host"),
    ("sslcert", "files cannot be read from here; log in with a password"),
    ("sslkey", "files cannot be read from here; log in with a password"),
    ("sslpassword", "files cannot be read from here; log in with a password"),
    ("sslrootcert", "files cannot be read from here; put the certificate into a Secret and name it in tls.caSecretRef"),
    ("sslcrl", "revocation lists are not read"),
    ("sslcrldir", "revocation lists are not read"),
    ("require_auth", "leave it out; a password is never sent in clear unless under verify-full"),
    ("requirepeer", "leave it out"),
    ("replication", "leave it out; it is not for SQL"),
];

/// Reads a URI. Accepts what libpq accepts, but one host only, and no key of a fixed list of refusals.
///
/// White space around the URI is dropped: files and Secrets tend to end with a line feed.
pub fn parse_uri(uri: &str) -> Result<ParsedUri, UriError> {
    let uri = uri.trim();
    let rest = uri.strip_prefix("postgres://").or_else(|| uri.strip_prefix("postgresql://")).ok_or(UriError::Scheme)?;

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
    for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or(UriError::Parameters)?;
        if value.contains('=') || !is_key(key) {
            return Err(UriError::Parameters);
        }
        if !read_parameter(key, decode(value)?, &mut parts)? && !ignored_keys.iter().any(|ignored| ignored == key) {
            ignored_keys.push(key.to_owned());
        }
    }
    Ok(ParsedUri { parts, ignored_keys })
}

impl ParsedUri {
    /// The settings, for whoever has nothing but a URI (the command line, where Unix sockets are fine too).
    /// Host and database must be in it. No user: the one given, as libpq takes the login name.
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

/// A URI without a part that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URI names no {0}: write postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct MissingPart(pub &'static str);

fn read_authority(authority: &str, parts: &mut PartialSettings) -> Result<(), UriError> {
    let address = match authority.rsplit_once('@') {
        Some((login, address)) => {
            // An '@' in the password is as common as it is wrong; the last one can only be the separator.
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

/// Takes in one parameter; false when it means nothing here.
fn read_parameter(key: &str, value: String, parts: &mut PartialSettings) -> Result<bool, UriError> {
    if key == "sslrootcert" && value == "system" {
        // libpq: trust the system's authorities, and then only verify-full will do.
        parts.tls = Some(TlsMode::VerifyFull);
        return Ok(true);
    }
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
        // JDBC's, which libpq understands in URIs too.
        "ssl" if value == "true" => parts.tls = Some(parts.tls.unwrap_or_default().max(TlsMode::Require)),
        "channel_binding" => match value.as_str() {
            "require" => parts.channel_binding_required = true,
            "prefer" | "disable" => {}
            _ => return Err(UriError::Value("channel_binding")),
        },
        "connect_timeout" => {
            let seconds: i32 = value.parse().map_err(|_| UriError::Value("connect_timeout"))?;
            // libpq: zero and less mean for ever, which nobody wants of a controller.
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

/// Keys are shown when ignored, so nothing but a key may pass for one.
fn is_key(key: &str) -> bool {
    (1..=40).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || byte == b'.')
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Percent-decoding as libpq does it: strict, and `+` is a plus.
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
