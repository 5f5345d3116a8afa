//! A deleted guard: its triggers are removed, or an Event says why they stay.

use super::TableGuards;
use super::memory::{MASS, Memory};
use crate::context::Context;
use crate::controllers::removal::Removal;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::conditions::Conditions;
use crate::kubernetes::controller::Reconciler;
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::{Reason, Rejection};
use crate::kubernetes::{annotation::is_true, finalizer, namespace};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::{ALLOW_MASS_DELETION, FORCE_DELETE};
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_guard::GuardName;
use std::time::Duration;

/// When a paused deletion is checked again; an annotation is seen at once.
const PAUSED: Duration = Duration::from_mins(10);

/// Removes the guard from the database, then removes the finalizer.
pub(super) async fn finalize(guard: &TableGuard, memory: &Memory, context: &Context) -> Result<Action, kube::Error> {
    if !finalizer::is_set(guard) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (guard.namespace().unwrap_or_default(), guard.name_any());
    if let Some(action) = pause(guard, memory, context).await? {
        return Ok(action);
    }
    let key = format!("finalize/{}", guard.uid().unwrap_or_default());
    match remove(guard, context).await? {
        Removal::Pending(why) => {
            let message = format!(
                "deleted, but its triggers could not be removed yet: {why}. \
                The annotation {FORCE_DELETE}: \"true\" deletes it and leaves them in the database"
            );
            report(guard, &Rejection::new(Reason::DatabaseUnreachable, message), context).await?;
            return Ok(Action::requeue(context.backoff.next(&key)));
        }
        Removal::LeftBehind(why) => {
            let note = format!("the guard's triggers, if any, stay in the database: {why}");
            tracing::warn!(namespace, name, why, "guards left behind");
            let now = context.now();
            context.events.publish(guard, Severity::Warning, "Delete", event::GUARDS_LEFT_BEHIND, note, now).await;
        }
        Removal::Done => {}
    }
    context.backoff.reset(&key);
    context.metrics.forget_guard(&namespace, &name);
    memory.forget(guard);
    let api: Api<TableGuard> = Api::namespaced(context.client.clone(), &namespace);
    finalizer::remove(&api, guard).await?;
    Ok(Action::await_change())
}

/// Too many at once wait for the user.
async fn pause(guard: &TableGuard, memory: &Memory, context: &Context) -> Result<Option<Action>, kube::Error> {
    let deleted = guard.metadata.deletion_timestamp.as_ref().map_or(context.now(), |time| time.0);
    let namespace = guard.namespace().unwrap_or_default();
    let others = memory.deletions.around(&guard.uid().unwrap_or_default(), &namespace, deleted);
    if others < MASS || is_true(guard, FORCE_DELETE) || is_true(guard, ALLOW_MASS_DELETION) {
        return Ok(None);
    }
    if namespace::is_terminating(&context.client, guard).await? {
        return Ok(None);
    }
    let message = format!(
        "more than {MASS} guards were deleted within a minute: this one stays until it is annotated with \
         {ALLOW_MASS_DELETION}: \"true\""
    );
    report(guard, &Rejection::new(Reason::MassDeletion, message), context).await?;
    Ok(Some(Action::requeue(PAUSED)))
}

async fn report(guard: &TableGuard, rejection: &Rejection, context: &Context) -> Result<(), kube::Error> {
    let mut next = guard.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&next.conditions, guard.metadata.generation, context.now());
    conditions.stalled(rejection.reason, &rejection.message);
    next.conditions = conditions.finish();
    context.write_status(TableGuards::NAME, guard, guard.status.as_ref(), &next).await.map(|_| ())
}

async fn remove(guard: &TableGuard, context: &Context) -> Result<Removal, kube::Error> {
    if is_true(guard, FORCE_DELETE) {
        return Ok(Removal::LeftBehind(format!("it is annotated with {FORCE_DELETE}")));
    }
    let (namespace, database) = (guard.namespace().unwrap_or_default(), &guard.spec.database_ref.name);
    let api: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), &namespace);
    let Some(declared) = api.get_opt(database).await? else {
        let gone = Removal::LeftBehind(format!("the ProtectedDatabase {database:?} is gone"));
        return Ok(remove_by_last_login(guard, context).await?.unwrap_or(gone));
    };
    let removed = context.databases.with(&declared, async |session| remove_with(guard, session, context).await).await;
    if removed.as_ref().is_err_and(|error| error.reason == Reason::SecretMissing)
        && let Some(removal) = remove_by_last_login(guard, context).await?
    {
        return Ok(removal);
    }
    Removal::settle(removed, guard, &context.client).await
}

/// The deletion of a namespace deletes its Secrets and databases before or after its guards.
async fn remove_by_last_login(guard: &TableGuard, context: &Context) -> Result<Option<Removal>, kube::Error> {
    if !namespace::is_terminating(&context.client, guard).await? {
        return Ok(None);
    }
    let key = (guard.namespace().unwrap_or_default(), guard.spec.database_ref.name.clone());
    let work = async |session: &mut Session| remove_with(guard, session, context).await;
    match context.databases.with_last_login(&key, work).await {
        Some(removed) => Ok(Some(Removal::settle(removed, guard, &context.client).await?)),
        None => Ok(None),
    }
}

async fn remove_with(guard: &TableGuard, session: &mut Session, context: &Context) -> Result<Removal, DatabaseError> {
    let name = GuardName::new(format!("{}/{}", guard.namespace().unwrap_or_default(), guard.name_any()))
        .map_err(|error| DatabaseError::lost(&error))?;
    let observed = pgrail_guard::observe(session).await.map_err(|error| DatabaseError::lost(&error))?;
    if observed.live.in_recovery {
        return Ok(Removal::LeftBehind("the server is read only".to_owned()));
    }
    match observed.owner() {
        None => return Ok(Removal::Done),
        Some(owner) if owner != context.cluster_id => {
            return Ok(Removal::LeftBehind(format!("the guards in this database are managed by {owner}")));
        }
        Some(_) => {}
    }
    let plan = pgrail_guard::plan_removal(&name, &observed);
    if plan.is_empty() {
        return Ok(Removal::Done);
    }
    let kept = if observed.guards() == [name] {
        pgrail_guard::captured_rows(session).await.map_err(|error| DatabaseError::lost(&error))?.unwrap_or(0)
    } else {
        0
    };
    let applied = match pgrail_guard::apply(session, &plan).await {
        Ok(applied) => applied,
        Err(error @ pgrail_guard::ApplyError::Busy) => return Ok(Removal::Pending(error.to_string())),
        Err(error @ pgrail_guard::ApplyError::Query(_)) => return Err(DatabaseError::lost(&error)),
    };
    let unfinished = applied.unfinished();
    let problem = unfinished.iter().find_map(|(table, outcome)| {
        outcome.problem().map(|problem| format!("{}: {problem}", table.unwrap_or("pgrail's schema")))
    });
    if kept > 0 && problem.is_none() {
        let note = format!("it was the last guard of its database: {kept} captured rows were deleted with it");
        let now = context.now();
        context.events.publish(guard, Severity::Normal, "Delete", event::CAPTURED_ROWS_REMOVED, note, now).await;
    }
    Ok(problem.map_or(Removal::Done, Removal::Pending))
}
