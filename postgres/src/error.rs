//! Errors of a connection attempt.
//!
//! `Display`, `Debug` and the sources of these errors contain no part of the settings, which come from a Secret, and no
//! text that a server sent before authentication. They contain the cause and the solution.

use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::addresses::AddressNotAllowed;
use crate::authentication::AuthenticationProblem;
use crate::messages::MessageProblem;

/// Error of a connection attempt.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The operating system could not connect.
    #[error("connection refused: check that the server is running, the host and the port, and the network policies")]
    Refused(#[source] io::Error),
    /// The connection was closed before the login was complete.
    #[error("the server closed the connection during the login: check the port, and the log of the server")]
    Closed,
    /// SQLSTATE 57P01, 57P02, 57P03, 57P05 or 55000.
    #[error(
        "the server is not accepting connections: it is starting up, shutting down or recovering, or the database does not allow connections; check the log of the server"
    )]
    NotReady,
    /// The answer is not a message of the PostgreSQL protocol.
    #[error("the server is not a PostgreSQL server: check the host and the port")]
    NotPostgres,
    /// Another error that the server or a proxy reported during the login.
    #[error("the server, or a proxy, reported an error during the login: check its log")]
    Rejected,
    /// The host name could not be resolved.
    #[error("the host name cannot be resolved: check its spelling, and that the Service exists")]
    NameResolution(#[source] io::Error),
    /// All addresses of the host are refused.
    #[error("the host is not allowed: {0}")]
    HostNotAllowed(#[from] AddressNotAllowed),
    /// The timeout expired.
    #[error("no answer within {} while {stage}: check the network, and the load of the server", seconds(*.after))]
    Timeout {
        /// The stage that did not complete.
        stage: Stage,
        /// Timeout for all stages together.
        after: Duration,
    },
    /// The authentication failed.
    #[error(transparent)]
    Authentication(#[from] AuthenticationProblem),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] TlsProblem),
    /// SQLSTATE 3D000.
    #[error("the database does not exist on the server: create it, or correct its name")]
    DatabaseMissing,
    /// SQLSTATE 53300.
    #[error(
        "the connection limit is reached: raise max_connections, or the limit of the role, the database or the pool, or close idle sessions"
    )]
    TooManyConnections,
}

/// Stage of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Name resolution.
    Resolving,
    /// The TCP connection.
    Connecting,
    /// TLS handshake.
    Encrypting,
    /// Authentication.
    LoggingIn,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Resolving => "resolving the host name",
            Self::Connecting => "connecting",
            Self::Encrypting => "negotiating TLS",
            Self::LoggingIn => "logging in",
        })
    }
}

/// Cause of a failed TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// The server does not support TLS.
    #[error(
        "the server does not support TLS, which the TLS mode requires: enable TLS on the server, or use TLS mode prefer"
    )]
    NotOffered,
    /// The certificate is not signed by a trusted CA.
    #[error("the certificate of the server is not signed by a trusted CA: configure its CA certificate")]
    UnknownIssuer,
    /// The certificate does not contain the host name.
    #[error(
        "the certificate of the server does not contain the host name: use a name that it contains, or TLS mode verify-ca"
    )]
    WrongName,
    /// The certificate has expired.
    #[error("the certificate of the server has expired: renew it")]
    Expired,
    /// The certificate is not valid yet.
    #[error("the certificate of the server is not valid yet: check the clocks")]
    NotYetValid,
    /// The certificate is invalid for another reason.
    #[error(
        "the certificate of the server is invalid: it must have version 3, a supported signature algorithm and the key usage serverAuth, and must not be a CA certificate"
    )]
    BadCertificate,
    /// No common TLS version or cipher suite.
    #[error(
        "the TLS handshake failed: the server must support TLS 1.2 or 1.3, and must not require a client certificate"
    )]
    Handshake,
    /// The CA certificates cannot be parsed.
    #[error("the CA certificate cannot be parsed: it must be one or more certificates in PEM format")]
    InvalidCa,
    /// There are no CA certificates.
    #[error("no CA certificates are installed to verify the server: configure its CA certificate")]
    MissingCa,
    /// The host is neither a DNS name nor an address.
    #[error("the host is neither a DNS name nor an IP address, so its certificate cannot be verified")]
    BadName,
}

impl ConnectError {
    /// Reason for the condition `Reachable`, also a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Closed | Self::NotReady | Self::NotPostgres | Self::Rejected => {
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

    /// Classifies an error of the login. The text of the message is used only for poolers that have no SQLSTATE, and is
    /// not kept.
    pub(crate) fn of_login(error: &tokio_postgres::Error, channel_binding_required: bool) -> Self {
        if let Some(answer) = error.as_db_error() {
            return Self::of_code(answer.code(), answer.message());
        }
        if let Some(problem) = find::<AuthenticationProblem>(error) {
            return Self::Authentication(*problem);
        }
        if find::<MessageProblem>(error).is_some() {
            return Self::NotPostgres;
        }
        // With TLS 1.3, a server reports a missing client certificate only after the handshake.
        if find::<rustls::Error>(error).is_some() {
            return Self::Tls(TlsProblem::Handshake);
        }
        // The kind of a tokio-postgres error is private. This text is its own, and not the server's.
        if error.to_string().starts_with("authentication error") {
            return Self::Authentication(if channel_binding_required {
                AuthenticationProblem::ChannelBinding
            } else {
                AuthenticationProblem::WrongServerSignature
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
            // PgBouncer before 1.21 and Supavisor use one SQLSTATE for all errors.
            "08P01" if message.contains("authentication failed") => {
                Self::Authentication(AuthenticationProblem::Rejected)
            }
            "08P01" if message.starts_with("no such database") => Self::DatabaseMissing,
            "08P01" if message.starts_with("no more connections allowed") => Self::TooManyConnections,
            "XX000" if message.contains("Tenant or user not found") => {
                Self::Authentication(AuthenticationProblem::Rejected)
            }
            _ => Self::Rejected,
        }
    }
}

/// Searches an error and its sources. `io::Error` does not return the error it wraps as its source.
pub(crate) fn find<'error, Wanted: std::error::Error + 'static>(
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
