//! Why a connection could not be made.
//!
//! Nothing of the settings (they come from a Secret) and no text that a server sent before it proved anything is in
//! these errors, in `Display`, in `Debug` or as a source: only what went wrong and what mends it.

use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::addresses::AddressNotAllowed;

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The operating system could not connect.
    #[error(
        "nothing accepts connections there: check that the database runs, that host and port are right and that no network policy is in the way"
    )]
    Refused(#[source] io::Error),
    /// The connection ended before the login was through.
    #[error("the connection was closed during the login: check that the port is the database's, and see its log")]
    Closed,
    /// SQLSTATE class 57P0x and the like.
    #[error(
        "the server takes no logins just now: it is starting, stopping, recovering, or the database is closed to connections; this passes or its log says why"
    )]
    NotReady,
    /// The answer was not one of PostgreSQL's.
    #[error("what answers there is not PostgreSQL: check host and port")]
    NotPostgres,
    /// The server or a proxy ended the login with an error of another kind.
    #[error("the server, or a proxy before it, turned the login down: see its log")]
    TurnedDown,
    /// The name did not resolve.
    #[error("the host name does not resolve: check its spelling, and that the Service exists")]
    NameResolution(#[source] io::Error),
    /// The host has no address that may be connected to.
    #[error("the host is not allowed: {0}")]
    HostNotAllowed(#[from] AddressNotAllowed),
    /// Time was up.
    #[error("no answer within {} while {stage}: check the network between here and the database, and its load", seconds(*.after))]
    Timeout {
        /// What was being waited for.
        stage: Stage,
        /// The time allowed for all stages together.
        after: Duration,
    },
    /// The login failed.
    #[error(transparent)]
    Authentication(#[from] AuthenticationProblem),
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// SQLSTATE 3D000.
    #[error("the server has no such database: create it, or name another one")]
    DatabaseMissing,
    /// SQLSTATE 53300.
    #[error(
        "the server has no connection left: raise max_connections, the role's or the database's limit, or the pool's size, or close idle sessions"
    )]
    TooManyConnections,
}

/// What a connection attempt was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// An address for the name.
    Resolving,
    /// The TCP connection.
    Connecting,
    /// TLS.
    Encrypting,
    /// The login.
    LoggingIn,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Resolving => "resolving the host name",
            Self::Connecting => "connecting",
            Self::Encrypting => "agreeing on TLS",
            Self::LoggingIn => "logging in",
        })
    }
}

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationProblem {
    /// SQLSTATE class 28.
    #[error(
        "the server rejected the login: check user and password, and that pg_hba.conf lets this role in from here, with or without TLS as set"
    )]
    Rejected,
    /// SQLSTATE 42501.
    #[error(
        "the role may not connect to the database: GRANT CONNECT ON DATABASE … TO the role, and check that it may log in"
    )]
    NotPermitted,
    /// There is none to send.
    #[error("the server asks for a password and the settings have none")]
    PasswordMissing,
    /// It was not sent.
    #[error(
        "the server asks for the password in clear, which is sent only under TLS mode verify-full: set that mode, or let the server use scram-sha-256"
    )]
    ClearPassword,
    /// Kerberos and the like.
    #[error(
        "the server asks for a way of authentication that pgrail does not know: use scram-sha-256 for this role in pg_hba.conf"
    )]
    UnsupportedMethod,
    /// `channel_binding=require`, and the server did without.
    #[error(
        "the login is not bound to the TLS channel, which channel_binding=require asks for: use TLS and scram-sha-256, or leave the key out"
    )]
    ChannelBinding,
    /// The server did not prove that it knows the password.
    #[error("the server did not prove that it knows the password: is it the right server?")]
    ServerNotProven,
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// The server speaks none.
    #[error("the server does not offer TLS, which the TLS mode asks for: turn it on there, or set mode prefer")]
    NotOffered,
    /// Not signed by a trusted authority.
    #[error("the server's certificate is not signed by a trusted authority: name its authority in tls.caSecretRef")]
    UnknownIssuer,
    /// For another name.
    #[error("the server's certificate is not for this host name: use a name it is for, or TLS mode verify-ca")]
    WrongName,
    /// Past its time.
    #[error("the server's certificate has expired: renew it")]
    Expired,
    /// Before its time.
    #[error("the server's certificate is not valid yet: check the clocks")]
    NotYetValid,
    /// Anything else about the certificate.
    #[error(
        "the server's certificate cannot be used: it must be version 3, signed with a current algorithm and for servers; an authority's own certificate is not accepted as a server's"
    )]
    BadCertificate,
    /// No version or cipher in common.
    #[error(
        "the TLS handshake failed: the server must speak TLS 1.2 or 1.3, and must not ask for a client certificate"
    )]
    Handshake,
    /// The certificates to trust cannot be read.
    #[error("the certificate authority cannot be read: it must be one or more certificates in PEM form")]
    BadAuthority,
    /// There is nothing to check a certificate with.
    #[error("this machine has no certificate authorities to check the server with: name one in tls.caSecretRef")]
    NoAuthorities,
    /// The host is neither a DNS name nor an address.
    #[error("the host is not a name that a certificate can be for")]
    BadName,
}

impl ConnectError {
    /// Reason for the condition `Reachable`, also a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Closed | Self::NotReady | Self::NotPostgres | Self::TurnedDown => {
                "ConnectionRefused"
            }
            Self::NameResolution(_) => "NameResolution",
            Self::HostNotAllowed(_) => "HostNotAllowed",
            Self::Timeout { .. } => "Timeout",
            Self::Authentication(_) => "AuthenticationFailed",
            Self::Tls(_) => "TlsFailed",
            Self::DatabaseMissing => "DatabaseMissing",
            Self::TooManyConnections => "TooManyConnections",
        }
    }

    /// Judges an error of the login. Its text is looked at for two poolers that have no codes, and never kept.
    pub(crate) fn of_login(error: &tokio_postgres::Error, channel_binding_required: bool) -> Self {
        if let Some(answer) = error.as_db_error() {
            return Self::of_code(answer.code(), answer.message());
        }
        if let Some(problem) = find::<AuthenticationProblem>(error) {
            return Self::Authentication(*problem);
        }
        // With TLS 1.3 a server complains of a missing client certificate only after the handshake.
        if find::<rustls::Error>(error).is_some() {
            return Self::Tls(TlsProblem::Handshake);
        }
        // The kinds of tokio-postgres are private; its texts of this kind are its own, not the server's.
        if error.to_string().starts_with("authentication error") {
            return Self::Authentication(if channel_binding_required {
                AuthenticationProblem::ChannelBinding
            } else {
                AuthenticationProblem::ServerNotProven
            });
        }
        if find::<io::Error>(error).is_some() || error.is_closed() {
            return Self::Closed;
        }
        Self::NotPostgres
    }

    fn of_code(code: &SqlState, message: &str) -> Self {
        match code.code() {
            "28000" | "28P01" => Self::Authentication(AuthenticationProblem::Rejected),
            "42501" => Self::Authentication(AuthenticationProblem::NotPermitted),
            "3D000" => Self::DatabaseMissing,
            "53300" => Self::TooManyConnections,
            "57P01" | "57P02" | "57P03" | "57P05" | "55000" => Self::NotReady,
            // PgBouncer before 1.21 has one code for everything; Supavisor's says nothing.
            "08P01" if message.contains("authentication failed") => {
                Self::Authentication(AuthenticationProblem::Rejected)
            }
            "08P01" if message.starts_with("no such database") => Self::DatabaseMissing,
            "08P01" if message.starts_with("no more connections allowed") => Self::TooManyConnections,
            "XX000" if message.contains("Tenant or user not found") => {
                Self::Authentication(AuthenticationProblem::Rejected)
            }
            _ => Self::TurnedDown,
        }
    }
}

/// Searches an error and everything it wraps; `io::Error` does not count what it wraps as its source.
fn find<'error, Wanted: std::error::Error + 'static>(
    error: &'error (dyn std::error::Error + 'static),
) -> Option<&'error Wanted> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Wanted>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<Wanted>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn seconds(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}
