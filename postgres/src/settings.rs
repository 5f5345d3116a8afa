//! What it takes to reach one database.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// A password. Neither `Debug` nor anything else of it shows the text; [`Password::reveal`] hands it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps the text of a password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
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

/// How much of TLS is asked for. Ordered: the stricter is the greater, so `max` of two wishes honours both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS where the server offers it. A handshake that fails is an error, not a reason to go on without.
    #[default]
    Prefer,
    /// TLS or nothing; the certificate is not checked, unless an authority is given (then as `VerifyCa`).
    Require,
    /// TLS, with a certificate of a trusted authority, whatever name it is for.
    VerifyCa,
    /// TLS, with a certificate of a trusted authority for the very host name.
    VerifyFull,
}

impl TlsMode {
    /// The mode as libpq's `sslmode` and pgrail's `tls.mode` spell it.
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

/// The text is none of the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown TLS mode: use disable, prefer, require, verify-ca or verify-full")]
pub struct UnknownTlsMode;

impl FromStr for TlsMode {
    type Err = UnknownTlsMode;

    /// libpq's spellings. Its `allow` (TLS only when the server insists) becomes `Prefer`, and `no-verify` of the
    /// JavaScript drivers becomes `Require`: the nearest that is not weaker.
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

/// The port PostgreSQL listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 5432;
/// How long reaching a server may take in all: name, connection, TLS and login.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What sessions of pgrail are called in `pg_stat_activity`.
pub const DEFAULT_APPLICATION_NAME: &str = "pgrail";

/// Everything needed to reach one database as one role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Host name or address; the name that a certificate must be for. Starting with `/`: the folder of a Unix socket.
    pub host: String,
    /// Name to look up in place of `host`, where the two differ: a Service's short name means something only in its
    /// own namespace, yet its certificate may be for the short name.
    pub lookup: Option<String>,
    /// Port, or the number in a Unix socket's file name.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// Role to log in as.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<Password>,
    /// How much of TLS is asked for.
    pub tls: TlsMode,
    /// Certificates (PEM) of the authorities to trust in place of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Refuse a login that is not bound to the TLS channel (SCRAM with channel binding). Set by `channel_binding=require`.
    pub channel_binding_required: bool,
    /// What the session is called in `pg_stat_activity`.
    pub application_name: String,
    /// How long reaching the server may take in all.
    pub connect_timeout: Duration,
    /// How long the server may take to complete the answer to a request; `None`: for ever.
    pub answer_timeout: Option<Duration>,
    /// Whether the holder of the password chose the host. Otherwise the server gets nothing that helps to guess the
    /// password: not in clear, no MD5, no SCRAM with fewer than 4096 iterations.
    pub host_trusted: bool,
}

impl ConnectionSettings {
    /// Settings with everything else at its default: port 5432, no password, TLS where the server offers it.
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

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, database: impl Into<String>) -> Self {
        Self { database: database.into(), ..self.clone() }
    }

    /// Whether the host is the folder of a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Environment for libpq's programs (`pg_dump`, `pg_restore`, `psql`), to be set after everything of
    /// [`LIBPQ_VARIABLES`] was removed, so that nothing of the caller's environment has a say.
    ///
    /// `ca_file` is a file with `ca_pem`, needed where that is set. `reached` is how a connection of ours got through:
    /// the program then goes to that very address, and does not fall back to plain text where we had TLS.
    pub fn libpq_environment(&self, ca_file: Option<&Path>, reached: Option<&Reached>) -> Vec<(String, String)> {
        let encrypted = reached.is_some_and(|reached| reached.encrypted);
        let mode = if encrypted { self.tls.max(TlsMode::Require) } else { self.tls };
        // libpq rounds one second up to two, and zero means for ever.
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
            // Not a file of the account that runs the program.
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
            // `system` is for verify-full only; the file that Debian, Alpine and their images share is for the other.
            None if mode == TlsMode::VerifyCa => {
                variables.push(("PGSSLROOTCERT", "/etc/ssl/certs/ca-certificates.crt".to_owned()));
            }
            None => {}
        }
        if self.channel_binding_required {
            variables.push(("PGCHANNELBINDING", "require".to_owned()));
        }
        if !self.may_send_password_in_clear() {
            // libpq 16 and later; earlier ones do not know it and may send the password in clear.
            let refused = if self.host_trusted { "!password" } else { "!password,!md5" };
            variables.push(("PGREQUIREAUTH", refused.to_owned()));
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A password is sent in clear only to a trusted host that proved its name, or over a socket of this machine.
    pub(crate) fn may_send_password_in_clear(&self) -> bool {
        (self.tls == TlsMode::VerifyFull && self.host_trusted) || self.is_unix_socket()
    }

    /// With an address given, the host is only the name to check a certificate against; without one it is looked up.
    fn lookup_or_host_for_libpq(&self, reached: Option<&Reached>) -> String {
        match (&self.lookup, reached) {
            (Some(lookup), None) => lookup.clone(),
            _ => self.host.clone(),
        }
    }
}

/// How a connection got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The address it went to; none over a Unix socket.
    pub address: Option<IpAddr>,
    /// The port on this side; none over a Unix socket.
    pub local_port: Option<u16>,
    /// Whether it speaks TLS.
    pub encrypted: bool,
}

/// Every environment variable that libpq (up to 18) reads: to be removed before [`ConnectionSettings::libpq_environment`] is set.
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
