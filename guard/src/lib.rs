//! The guardrail engine: catalog, closure, plan, SQL, verification.
