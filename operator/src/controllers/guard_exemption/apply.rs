//! Granting an exemption in the database and revoking it; what is reported is what was found afterwards.

use crate::context::Context;
use crate::database::DatabaseError;
use crate::kubernetes::rejection::{Reason, Rejection};
use pgrail_crds::ProtectedDatabase;
use pgrail_guard::{
    ApplyError, ExemptionError, ExemptionSpec, ExemptionUse, GuardName, Outcome as StepOutcome, PlanError,
};
use tokio_postgres::Client;

/// How a reconcile ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It will never be in force.
    Rejected(Rejection),
    /// Something has to happen first.
    Waiting(Rejection),
    /// The database does not answer.
    Unreachable(DatabaseError),
    /// It is in the database; `notBefore` has not come.
    NotYet(ExemptionUse),
    /// It is in force.
    Active(ExemptionUse),
    /// It has ended.
    Expired(ExemptionUse),
}

/// How revoking an exemption ended.
pub(super) enum Revocation {
    /// It is not in the database any more.
    Done,
    /// Not yet: why. Retried.
    Pending(String),
}

/// Grants the exemption, if it is not in the database.
pub(super) async fn apply(spec: &ExemptionSpec, database: &ProtectedDatabase, context: &Context) -> Outcome {
    let outcome = context.databases.with(database, async |session| ensure(session, spec).await).await;
    outcome.unwrap_or_else(Outcome::Unreachable)
}

/// The same on a connection.
pub(crate) async fn ensure(client: &mut Client, spec: &ExemptionSpec) -> Result<Outcome, DatabaseError> {
    // What has ended is not granted again.
    if let Some(found) = find(client, spec).await?
        && found.over
    {
        return Ok(Outcome::Expired(found));
    }
    if let Some(waiting) = grant(client, spec).await? {
        return Ok(Outcome::Waiting(waiting));
    }
    Ok(match find(client, spec).await? {
        Some(found) if found.over => Outcome::Expired(found),
        Some(found) if found.active => Outcome::Active(found),
        Some(found) => Outcome::NotYet(found),
        None => {
            let message = "it was granted and removed again: another session is changing the guards";
            Outcome::Waiting(Rejection::new(Reason::GuardNotInstalled, message))
        }
    })
}

/// Runs the steps of the plan. Returns why it cannot be granted now.
async fn grant(client: &mut Client, spec: &ExemptionSpec) -> Result<Option<Rejection>, DatabaseError> {
    let observed = pgrail_guard::observe(client).await.map_err(|error| DatabaseError::lost(&error))?;
    let plan = match pgrail_guard::plan_exemption(spec, &observed) {
        Ok(plan) => plan,
        Err(error) => return Ok(Some(rejection(&error))),
    };
    match pgrail_guard::apply(client, &plan).await {
        Err(error @ ApplyError::Busy) => Ok(Some(Rejection::new(Reason::GuardNotInstalled, error.to_string()))),
        Err(error @ ApplyError::Query(_)) => Err(DatabaseError::lost(&error)),
        // A trigger that waits for its lock is installed with the guard: until then the exemption is stricter, not looser.
        Ok(applied) => Ok(applied.steps.iter().find_map(|(table, outcome)| match outcome {
            StepOutcome::Failed { .. } if table.is_none() => {
                outcome.problem().map(|message| Rejection::new(Reason::InstallFailed, message))
            }
            _ => None,
        })),
    }
}

fn rejection(error: &ExemptionError) -> Rejection {
    let reason = match error {
        ExemptionError::GuardMissing { .. } => Reason::GuardNotInstalled,
        ExemptionError::TableNotGuarded { .. } => Reason::TableNotGuarded,
        ExemptionError::Plan(PlanError::OwnedByOther { .. }) => Reason::OwnedByOther,
        ExemptionError::Plan(_) => Reason::DatabaseNotReady,
    };
    Rejection::new(reason, error.to_string())
}

async fn find(client: &Client, spec: &ExemptionSpec) -> Result<Option<ExemptionUse>, DatabaseError> {
    let uses = match pgrail_guard::exemption_uses(client).await {
        Ok(uses) => uses,
        Err(error) if error.not_installed() => return Ok(None),
        Err(error) => return Err(DatabaseError::lost(&error)),
    };
    Ok(uses.into_iter().find(|it| it.name == spec.name.as_str() && it.object == spec.object))
}

/// What it was used for, if it is in the database.
pub(super) async fn used(
    spec: &ExemptionSpec,
    database: &ProtectedDatabase,
    context: &Context,
) -> Result<Option<ExemptionUse>, DatabaseError> {
    context.databases.with(database, async |session| find(session, spec).await).await
}

/// Removes an exemption from the database.
pub(super) async fn revoke(name: &GuardName, client: &mut Client, owner: &str) -> Result<Revocation, DatabaseError> {
    let observed = pgrail_guard::observe(client).await.map_err(|error| DatabaseError::lost(&error))?;
    if observed.live.in_recovery || observed.owner().is_none_or(|found| found != owner) {
        return Ok(Revocation::Done);
    }
    let plan = pgrail_guard::plan_revocation(name, &observed);
    let applied = match pgrail_guard::apply(client, &plan).await {
        Ok(applied) => applied,
        Err(error @ ApplyError::Busy) => return Ok(Revocation::Pending(error.to_string())),
        Err(error @ ApplyError::Query(_)) => return Err(DatabaseError::lost(&error)),
    };
    // It is revoked with the configuration; functions and triggers follow with the guard's next check.
    let problem = applied.steps.iter().find_map(|(table, outcome)| table.is_none().then(|| outcome.problem())?);
    Ok(problem.map_or(Revocation::Done, Revocation::Pending))
}
