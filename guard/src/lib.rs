//! The guardrail engine: catalog, closure, plan, SQL, verification. PostgreSQL only; knows nothing of Kubernetes.
//!
//! ```text
//! let ensured = ensure(&mut client, &spec).await?;     // all of the following
//! let observed = observe(&client).await?;             // three queries in one snapshot
//! let plan = plan(&spec, &observed)?;                  // pure
//! if !plan.is_empty() {
//!     let applied = apply(&mut client, &plan).await?;  // one transaction per step
//!     // observe and plan again: plan.tables() is what is enforced
//! }
//! ```
pub mod apply;
pub mod blast_radius;
pub mod capabilities;
pub mod capture;
pub mod catalog;
pub mod closure;
mod complete;
pub mod configuration;
pub mod counters;
mod database_protection;
mod deferred;
mod desired;
mod drop_protection;
mod ensure;
pub mod exemption;
pub mod gate;
pub mod grants;
pub mod graph;
mod installed;
pub mod light_check;
mod matching;
pub mod observe;
mod outcome;
mod plan;
mod planner;
pub mod rehearse;
mod routines;
pub mod spec;
mod sql;
mod status;
mod steps;
pub mod tamper;
pub mod undo;
pub mod window;
mod window_checks;

pub use apply::{ApplyError, apply};
pub use blast_radius::BlastRadius;
pub use capabilities::Capabilities;
pub use capture::store::CaptureError;
pub use capture::{CapturedTable, CapturedTransaction, captured, captured_rows, prune};
pub use catalog::{Catalog, CatalogError, Oid};
pub use counters::{Counter, CountersMark, counters, counters_mark};
pub use database_protection::{DatabaseProtection, database_protection, protect_database};
pub use ensure::{EnsureError, Ensured, Progress, ensure};
pub use exemption::{ExemptionError, ExemptionSpec, ExemptionUse, exemption_uses, plan_exemption, plan_revocation};
pub use graph::Graph;
pub use installed::{Installed, installed};
pub use light_check::{Fingerprint, light_check};
pub use observe::{Moved, ObserveError, Observed, observe};
pub use outcome::{Applied, LockHolder, Outcome, Wait};
pub use plan::{Change, Drift, DropProtection, Plan, Refused, Step, StepKind, TableState, TableStatus};
pub use planner::{PlanError, plan, plan_removal, plan_uninstall};
pub use rehearse::{Rehearsal, RehearseError, Request, rehearse};
pub use spec::*;
pub use tamper::{TableTamper, TamperFacts};
pub use undo::{Conflicts, Undo, UndoError, Undone, undo};
pub use window::{WindowUse, windows};
