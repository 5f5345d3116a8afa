//! The guardrail engine: catalog, closure, plan, SQL, verification. PostgreSQL only; knows nothing of Kubernetes.
//!
//! ```text
//! let observed = observe(&client).await?;             // three queries in one snapshot
//! let plan = plan(&spec, &observed)?;                  // pure
//! if !plan.is_empty() {
//!     let applied = apply(&mut client, &plan).await?;  // one transaction per step
//!     // what is enforced now is told by observing and planning again: plan.tables()
//! }
//! ```
pub mod apply;
pub mod blast_radius;
pub mod capabilities;
pub mod capture;
pub mod catalog;
pub mod closure;
pub mod configuration;
pub mod counters;
mod desired;
mod drop_protection;
pub mod exemption;
pub mod gate;
pub mod grants;
pub mod light_check;
mod matching;
pub mod observe;
pub mod plan;
pub mod rehearse;
pub mod spec;
mod status;
mod steps;
pub mod tamper;
pub mod undo;

pub use apply::{Applied, ApplyError, Outcome, apply};
pub use blast_radius::BlastRadius;
pub use capabilities::Capabilities;
pub use capture::{CapturedTable, CapturedTransaction, captured, captured_rows, prune};
pub use catalog::{Catalog, CatalogError, Oid};
pub use counters::{Counter, counters};
pub use drop_protection::DropProtection;
pub use exemption::{ExemptionError, ExemptionSpec, ExemptionUse, exemption_uses, plan_exemption, plan_revocation};
pub use light_check::{Fingerprint, light_check};
pub use observe::{ObserveError, Observed, observe};
pub use plan::{Drift, Plan, PlanError, Refused, Step, StepKind, TableState, TableStatus, plan, plan_removal};
pub use rehearse::{Rehearsal, RehearseError, Request, rehearse};
pub use spec::*;
pub use tamper::{TableTamper, TamperFacts};
pub use undo::{Conflicts, Undo, UndoError, Undone, undo};
