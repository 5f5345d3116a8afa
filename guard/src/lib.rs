//! The guardrail engine: catalog, closure, plan, SQL, verification.
pub mod spec;
pub use spec::*;
