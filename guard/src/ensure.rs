//! The whole way of a guard into a database.

use thiserror::Error;
use tokio_postgres::Client;

use crate::apply::{ApplyError, apply};
use crate::light_check::{Fingerprint, light_check};
use crate::observe::{ObserveError, Observed, observe};
use crate::outcome::Applied;
use crate::plan::{Drift, Plan};
use crate::planner::{PlanError, plan};
use crate::spec::GuardSpec;
use crate::tamper::{self, TamperFacts};

/// Why it is not known how a guard stands.
#[derive(Debug, Error)]
pub enum EnsureError {
    /// Nothing can be planned for this database.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The database could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The connection broke.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// A guard as it was found after everything that could be done was done.
#[derive(Debug)]
pub struct Ensured {
    /// The database.
    pub observed: Observed,
    /// What is left to do there; empty where the guard is as declared.
    pub plan: Plan,
    /// Who could remove or pass the guard, where that could be read.
    pub tamper: Result<TamperFacts, ObserveError>,
    /// What was done before.
    pub progress: Progress,
    /// The database just before it was found so: a change in between shows at the next check.
    pub fingerprint: Fingerprint,
}

/// What was done for a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing had to be done.
    UpToDate,
    /// Nothing was done, since another session is changing the guards of this database.
    Busy,
    /// Steps were run.
    Applied {
        /// How each ended.
        applied: Applied,
        /// What others had changed before.
        drift: Vec<Drift>,
        /// The guard was not in the database before.
        first: bool,
    },
}

impl Ensured {
    /// How many steps were committed.
    pub fn steps(&self) -> u64 {
        match &self.progress {
            Progress::Applied { applied, .. } => applied.done(),
            Progress::UpToDate | Progress::Busy => 0,
        }
    }

    /// Whether trying again soon can help: another session holds a lock, or changes the guards.
    pub fn waits(&self) -> bool {
        match &self.progress {
            Progress::UpToDate => false,
            Progress::Busy => true,
            Progress::Applied { applied, .. } => applied.waits(),
        }
    }
}

/// Observes, plans, applies; and, where something was done, observes again.
pub async fn ensure(client: &mut Client, spec: &GuardSpec) -> Result<Ensured, EnsureError> {
    let before = ensured(client, spec, Progress::UpToDate).await?;
    if before.plan.is_empty() {
        return Ok(before);
    }
    let applied = match apply(client, &before.plan).await {
        Ok(applied) => applied,
        Err(ApplyError::Busy) => return Ok(Ensured { progress: Progress::Busy, ..before }),
        Err(error) => return Err(error.into()),
    };
    let recorded = before.observed.recorded.as_ref();
    let first = recorded.is_none_or(|it| it.configuration.guard_id(&spec.name).is_none());
    let drift = before.plan.drift;
    // Not in memory twice.
    drop(before.observed);
    ensured(client, spec, Progress::Applied { applied, drift, first }).await
}

async fn ensured(client: &Client, spec: &GuardSpec, progress: Progress) -> Result<Ensured, EnsureError> {
    let fingerprint = light_check(client).await?;
    let observed = observe(client).await?;
    let plan = plan(spec, &observed)?;
    let tables: Vec<_> = plan.tables().iter().filter_map(|table| table.oid).collect();
    let tamper = tamper::read(client, &tables).await;
    Ok(Ensured { observed, plan, tamper, progress, fingerprint })
}
