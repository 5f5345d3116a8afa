//! Why a database cannot be used.

use super::resolve::ResolveError;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::chain;
use pgrail_postgres::{ConnectError, ConnectionSettings, MessageProblem, TlsProblem};

/// Why a database cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct DatabaseError {
    /// The reason of `Reachable=False`.
    pub(crate) reason: Reason,
    /// What is wrong and how to fix it.
    pub(crate) message: String,
    /// Only the user can fix it.
    pub(crate) stalled: bool,
}

impl From<ResolveError> for DatabaseError {
    fn from(error: ResolveError) -> Self {
        let stalled = !matches!(error, ResolveError::Api(_));
        Self { reason: error.reason(), message: chain(&error), stalled }
    }
}

impl DatabaseError {
    /// A query that got no answer: the connection or the server is gone.
    pub(crate) fn lost(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { reason: Reason::Timeout, message: chain(error), stalled: false }
    }

    /// A session that pgrail ended because of what the server sent, or did not send in time.
    pub(super) fn ended(problem: MessageProblem) -> Self {
        let reason = match problem {
            MessageProblem::NoAnswer { .. } => Reason::Timeout,
            MessageProblem::TooLong { .. } => Reason::ConnectionRefused,
        };
        Self { reason, message: problem.to_string(), stalled: false }
    }

    /// Every connection that pgrail may use on the server stayed busy.
    pub(super) fn busy(limit: usize) -> Self {
        let message = format!(
            "all {limit} connections that pgrail may use on this server (--max-connections-per-server, at most 5 % of its \
             max_connections) are busy with other databases; tried again"
        );
        Self { reason: Reason::TooManyConnections, message, stalled: false }
    }

    /// A connection that could not be made. The host appears only where the spec names it: what a Secret holds is
    /// never shown.
    pub(super) fn connecting(settings: &ConnectionSettings, named_in_spec: bool, error: &ConnectError) -> Self {
        let reason = Reason::named(error.reason()).unwrap_or(Reason::ConnectionRefused);
        let stalled =
            [Reason::AuthenticationFailed, Reason::DatabaseMissing, Reason::TlsFailed, Reason::HostNotAllowed]
                .contains(&reason);
        let place = if named_in_spec { format!("{}: ", settings.host) } else { String::new() };
        let field = match error {
            ConnectError::Tls(TlsProblem::UnknownIssuer | TlsProblem::MissingCa | TlsProblem::InvalidCa) => {
                " (spec.connection.tls.caSecretRef)"
            }
            _ => "",
        };
        Self { reason, message: format!("{place}{}{field}", chain(error)), stalled }
    }
}
