//! A `ProtectedDatabase` as the other controllers use it: its Secret resolved, its one connection held.

mod resolve;
mod session;

pub(crate) use resolve::{ResolveError, resolve};
pub(crate) use session::{Borrowed, DatabaseError, Databases};
