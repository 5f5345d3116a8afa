//! Giving the right, and looking what is there afterwards.

use super::report::{Finding, Said};
use crate::context::Context;
use crate::database::DatabaseError;
use pgrail_crds::ProtectedDatabase;
use pgrail_crds::conditions::reasons::{exemption as exemption_reasons, guard as guard_reasons};
use pgrail_guard::{ApplyError, ExemptionError, ExemptionSpec, GuardName, Outcome, PlanError};
use tokio_postgres::Client;

/// Brings the exemption into the database, if it is not there, and tells how it stands.
pub(super) async fn apply(spec: &ExemptionSpec, database: &ProtectedDatabase, context: &Context) -> Finding {
    let found = context.databases.with(database, async |session| bring(session, spec).await).await;
    found.unwrap_or_else(Finding::Unreachable)
}

/// The same on a connection.
pub(crate) async fn bring(client: &mut Client, spec: &ExemptionSpec) -> Result<Finding, DatabaseError> {
    // What is over is not given again.
    if let Some(found) = find(client, spec).await?
        && found.over
    {
        return Ok(Finding::Over(found));
    }
    if let Some(waits) = give(client, spec).await? {
        return Ok(Finding::Waits(waits));
    }
    Ok(match find(client, spec).await? {
        Some(found) if found.over => Finding::Over(found),
        Some(found) if found.active => Finding::Active(found),
        Some(found) => Finding::NotYet(found),
        None => Finding::Waits(Said {
            reason: exemption_reasons::GUARD_NOT_INSTALLED,
            message: "it was given and is gone again: another change of the guards was under way".to_owned(),
        }),
    })
}

/// Runs the steps of the plan. Answers what is said when it cannot be given now.
async fn give(client: &mut Client, spec: &ExemptionSpec) -> Result<Option<Said>, DatabaseError> {
    let observed = pgrail_guard::observe(client).await.map_err(|error| DatabaseError::lost(&error))?;
    let plan = match pgrail_guard::plan_exemption(spec, &observed) {
        Ok(plan) => plan,
        Err(error) => return Ok(Some(unplannable(&error))),
    };
    match pgrail_guard::apply(client, &plan).await {
        Err(error @ ApplyError::Busy) => {
            Ok(Some(Said { reason: exemption_reasons::GUARD_NOT_INSTALLED, message: error.to_string() }))
        }
        Err(error @ ApplyError::Query(_)) => Err(DatabaseError::lost(&error)),
        // A trigger that waits for its lock comes with the guard: until then the exemption is stricter, not looser.
        Ok(applied) => Ok(applied.steps.iter().find_map(|(table, outcome)| match outcome {
            Outcome::Failed { .. } if table.is_none() => {
                outcome.problem().map(|message| Said { reason: guard_reasons::INSTALL_FAILED, message })
            }
            _ => None,
        })),
    }
}

fn unplannable(error: &ExemptionError) -> Said {
    let reason = match error {
        ExemptionError::GuardMissing { .. } => exemption_reasons::GUARD_NOT_INSTALLED,
        ExemptionError::TableNotGuarded { .. } => exemption_reasons::TABLE_NOT_GUARDED,
        ExemptionError::Plan(PlanError::OwnedByOther { .. }) => guard_reasons::OWNED_BY_OTHER,
        ExemptionError::Plan(_) => guard_reasons::DATABASE_NOT_READY,
    };
    Said { reason, message: error.to_string() }
}

async fn find(client: &Client, spec: &ExemptionSpec) -> Result<Option<pgrail_guard::ExemptionUse>, DatabaseError> {
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
) -> Result<Option<pgrail_guard::ExemptionUse>, DatabaseError> {
    context.databases.with(database, async |session| find(session, spec).await).await
}

/// Takes a right back. Answers why it could not be, if it may work later.
pub(super) async fn revoke(
    name: &GuardName,
    client: &mut Client,
    owner: &str,
) -> Result<Option<String>, DatabaseError> {
    let observed = pgrail_guard::observe(client).await.map_err(|error| DatabaseError::lost(&error))?;
    if observed.live.in_recovery || observed.owner().is_none_or(|found| found != owner) {
        return Ok(None);
    }
    let plan = pgrail_guard::plan_revocation(name, &observed);
    let applied = match pgrail_guard::apply(client, &plan).await {
        Ok(applied) => applied,
        Err(error @ ApplyError::Busy) => return Ok(Some(error.to_string())),
        Err(error @ ApplyError::Query(_)) => return Err(DatabaseError::lost(&error)),
    };
    // The right is gone with the configuration; what is left of it (functions, triggers) goes with the guard's next look.
    let problem = applied.steps.iter().find_map(|(table, outcome)| table.is_none().then(|| outcome.problem())?);
    Ok(problem)
}
