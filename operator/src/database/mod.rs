//! Databases as the controllers use them: the Secret resolved, the host checked, connections from a budget per server.

mod connections;
mod entry;
mod error;
mod hosts;
mod last_logins;
mod light_checks;
mod resolve;
mod server;

pub(crate) use connections::{Databases, Limits, Session};
pub(crate) use error::DatabaseError;
pub(crate) use hosts::{AllowedHosts, PatternError};
pub(crate) use light_checks::LightCheck;
pub(crate) use resolve::{ResolveError, resolve};
