//! Connection settings.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// A password. `Debug` does not show it. [`Password::reveal`] returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Creates a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password as text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hidden)")
    }
}

impl fmt::Display for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hidden)")
    }
}

/// TLS mode. The order is by strictness, so `max` returns the stricter of two modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// Without TLS.
    Disable,
    /// With TLS, if the server supports it. If the handshake fails, the connection fails.
    #[default]
    Prefer,
    /// With TLS. The certificate is verified only if a CA is set (as with `VerifyCa`).
    Require,
    /// With TLS. The certificate must be signed by a trusted CA.
    VerifyCa,
    /// With TLS. The certificate must be signed by a trusted CA and contain the host name.
    VerifyFull,
}

impl TlsMode {
    /// The value of `sslmode` in libpq, and of `tls.mode` in pgrail.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The text is not a TLS mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown TLS mode: use disable, prefer, require, verify-ca or verify-full")]
pub struct UnknownTlsMode;

impl FromStr for TlsMode {
    type Err = UnknownTlsMode;

    /// Values of libpq. `allow` is `Prefer`, and `no-verify` of the JavaScript drivers is `Require`: the closest modes
    /// that are not weaker.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "disable" => Ok(Self::Disable),
            "allow" | "prefer" => Ok(Self::Prefer),
            "require" | "no-verify" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(UnknownTlsMode),
        }
    }
}

/// Default port of PostgreSQL.
pub const DEFAULT_PORT: u16 = 5432;
/// Default timeout of a connection attempt, including name resolution, TLS and authentication.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Default `application_name`.
pub const DEFAULT_APPLICATION_NAME: &str = "pgrail";

/// Settings of a connection to a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Host name or address. The certificate must contain it. If it starts with `/`, it is the directory of a Unix
    /// socket.
    pub host: String,
    /// Name to resolve, if it is not `host`. The short name of a Service can be resolved only in its namespace, but can
    /// be the name in the certificate.
    pub lookup: Option<String>,
    /// Port, or the number in the file name of a Unix socket.
    pub port: u16,
    /// Database name.
    pub database: String,
    /// Login role.
    pub user: String,
    /// Password of the role.
    pub password: Option<Password>,
    /// TLS mode.
    pub tls: TlsMode,
    /// Trusted CA certificates in PEM format. Default: the CA certificates of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Requires SCRAM with channel binding (`channel_binding=require`).
    pub channel_binding_required: bool,
    /// `application_name` of the session.
    pub application_name: String,
    /// Timeout of the connection attempt.
    pub connect_timeout: Duration,
    /// Timeout of the complete answer to a request. `None`: no timeout.
    pub answer_timeout: Option<Duration>,
    /// Whether the host was chosen by the owner of the password. Otherwise, the password is not sent in clear text, and
    /// MD5 and SCRAM with fewer than 4096 iterations are refused, because they allow guessing the password.
    pub host_trusted: bool,
}

impl ConnectionSettings {
    /// Settings with default values: port 5432, no password, TLS mode `Prefer`.
    pub fn new(host: impl Into<String>, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            lookup: None,
            port: DEFAULT_PORT,
            database: database.into(),
            user: user.into(),
            password: None,
            tls: TlsMode::default(),
            ca_pem: None,
            channel_binding_required: false,
            application_name: DEFAULT_APPLICATION_NAME.to_owned(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            answer_timeout: None,
            host_trusted: true,
        }
    }

    /// The same settings with another database.
    #[must_use]
    pub fn with_database(&self, database: impl Into<String>) -> Self {
        Self { database: database.into(), ..self.clone() }
    }

    /// Whether the host is the directory of a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Environment variables for libpq programs (`pg_dump`, `pg_restore`, `psql`). Remove all [`LIBPQ_VARIABLES`]
    /// first, so that the environment of the caller has no effect.
    ///
    /// `ca_file` is a file with `ca_pem`, and is required if that is set. With `reached` of an existing connection, the
    /// program uses the same address, and does not fall back to clear text if that connection uses TLS.
    pub fn libpq_environment(&self, ca_file: Option<&Path>, reached: Option<&Reached>) -> Vec<(String, String)> {
        let encrypted = reached.is_some_and(|reached| reached.encrypted);
        let mode = if encrypted { self.tls.max(TlsMode::Require) } else { self.tls };
        // libpq rounds one second up to two. Zero means no timeout.
        let seconds = self.connect_timeout.as_secs().max(2);
        let mut variables = vec![
            ("PGHOST", self.lookup_or_host_for_libpq(reached)),
            ("PGPORT", self.port.to_string()),
            ("PGDATABASE", self.database.clone()),
            ("PGUSER", self.user.clone()),
            ("PGSSLMODE", mode.to_string()),
            ("PGAPPNAME", self.application_name.clone()),
            ("PGCONNECT_TIMEOUT", seconds.to_string()),
            ("PGGSSENCMODE", "disable".to_owned()),
            // Not a file of the operating system user.
            ("PGPASSFILE", "/dev/null".to_owned()),
        ];
        if let Some(Reached { address: Some(address), .. }) = reached {
            variables.push(("PGHOSTADDR", address.to_string()));
        }
        if let Some(password) = &self.password {
            variables.push(("PGPASSWORD", password.reveal().to_owned()));
        }
        match ca_file {
            Some(file) => variables.push(("PGSSLROOTCERT", file.display().to_string())),
            None if mode == TlsMode::VerifyFull => variables.push(("PGSSLROOTCERT", "system".to_owned())),
            // `system` requires verify-full. For verify-ca, use the file of Debian and Alpine.
            None if mode == TlsMode::VerifyCa => {
                variables.push(("PGSSLROOTCERT", "/etc/ssl/certs/ca-certificates.crt".to_owned()));
            }
            None => {}
        }
        if self.channel_binding_required {
            variables.push(("PGCHANNELBINDING", "require".to_owned()));
        }
        if !self.may_send_password_in_clear() {
            // libpq 16 and later. Earlier versions ignore it, and can send the password in clear text.
            let refused = if self.host_trusted { "!password" } else { "!password,!md5" };
            variables.push(("PGREQUIREAUTH", refused.to_owned()));
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A password is sent in clear text only to a trusted host with a verified name, or over a Unix socket.
    pub(crate) fn may_send_password_in_clear(&self) -> bool {
        (self.tls == TlsMode::VerifyFull && self.host_trusted) || self.is_unix_socket()
    }

    /// With an address, the host is used only to verify the certificate. Without an address, it is resolved.
    fn lookup_or_host_for_libpq(&self, reached: Option<&Reached>) -> String {
        match (&self.lookup, reached) {
            (Some(lookup), None) => lookup.clone(),
            _ => self.host.clone(),
        }
    }
}

/// Address and TLS of an existing connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Address of the server; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// Local port; `None` for a Unix socket.
    pub local_port: Option<u16>,
    /// Whether the connection uses TLS.
    pub encrypted: bool,
}

/// All environment variables that libpq 18 reads. Remove them before you set [`ConnectionSettings::libpq_environment`].
pub const LIBPQ_VARIABLES: &[&str] = &[
    "PGAPPNAME",
    "PGCHANNELBINDING",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGDATABASE",
    "PGDATESTYLE",
    "PGGEQO",
    "PGGSSDELEGATION",
    "PGGSSENCMODE",
    "PGGSSLIB",
    "PGHOST",
    "PGHOSTADDR",
    "PGKRBSRVNAME",
    "PGLOADBALANCEHOSTS",
    "PGLOCALEDIR",
    "PGMAXPROTOCOLVERSION",
    "PGMINPROTOCOLVERSION",
    "PGOAUTHDEBUG",
    "PGOPTIONS",
    "PGPASSFILE",
    "PGPASSWORD",
    "PGPORT",
    "PGREALM",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLCERT",
    "PGSSLCERTMODE",
    "PGSSLCOMPRESSION",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLKEY",
    "PGSSLKEYLOGFILE",
    "PGSSLMAXPROTOCOLVERSION",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMODE",
    "PGSSLNEGOTIATION",
    "PGSSLROOTCERT",
    "PGSSLSNI",
    "PGSYSCONFDIR",
    "PGTARGETSESSIONATTRS",
    "PGTZ",
    "PGUSER",
];

#[cfg(test)]
mod tests;
