//! How pgrail reaches a PostgreSQL server: URIs, Secrets, TLS, connecting, and why that failed.
//!
//! From a Secret: [`from_secret`], [`host_allowed`] where the host is the spec's, [`lookup_name`], then
//! [`connect_within`]. From a URI on the command line: [`parse_uri`], [`ParsedUri::into_settings`], then [`connect`].
//!
//! Works with PostgreSQL 15 to 18 and what speaks its protocol. Knows nothing of Kubernetes.

mod connect;
mod error;
mod hosts;
mod pooler;
mod secret;
mod settings;
mod tls;
mod transport;
mod uri;

pub use connect::{Connection, connect, connect_within, resolve};
pub use error::{AuthenticationProblem, ConnectError, Stage, TlsProblem};
pub use hosts::{
    AddressPolicy, AllowedHosts, HostNotAllowed, PatternError, host_allowed, lookup_name, resolved_address_allowed,
};
pub use pooler::{DetectPoolerError, detect_pooler, detect_pooler_on};
pub use secret::{Overrides, SecretError, SecretSettings, from_secret};
pub use settings::{
    ConnectionSettings, DEFAULT_APPLICATION_NAME, DEFAULT_CONNECT_TIMEOUT, DEFAULT_PORT, LIBPQ_VARIABLES, Password,
    Reached, TlsMode, UnknownTlsMode,
};
pub use uri::{MissingPart, ParsedUri, PartialSettings, UriError, parse_uri};
