//! The guardrail engine: catalog, closure, plan, SQL, verification.
pub mod blast_radius;
pub mod catalog;
pub mod closure;
pub mod spec;
pub use catalog::{Catalog, CatalogError, Oid};
pub use spec::*;
