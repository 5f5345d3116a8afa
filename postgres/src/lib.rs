//! Connections to a PostgreSQL server: URIs, TLS, and errors.
//!
//! From a URI: [`parse_uri`], [`ParsedUri::into_settings`], then [`connect`]; [`connect_within`] where an
//! [`AddressPolicy`] applies.
//!
//! Supports PostgreSQL 15 to 18, and does not depend on Kubernetes.

mod addresses;
mod authentication;
mod connect;
mod error;
mod messages;
mod pooler;
mod settings;
mod tls;
mod transport;
mod uri;

pub use addresses::{AddressNotAllowed, AddressPolicy};
pub use authentication::AuthenticationProblem;
pub use connect::{Connection, connect, connect_within, resolve};
pub use error::{ConnectError, Stage, TlsProblem};
pub use messages::MessageProblem;
pub use pooler::{DetectPoolerError, detect_pooler, detect_pooler_on, is_direct};
pub use settings::{
    ConnectionSettings, DEFAULT_APPLICATION_NAME, DEFAULT_CONNECT_TIMEOUT, DEFAULT_PORT, LIBPQ_VARIABLES, Password,
    Reached, TlsMode, UnknownTlsMode,
};
pub use uri::{MissingPart, ParsedUri, PartialSettings, UriError, parse_connection_string, parse_uri};
