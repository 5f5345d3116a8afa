//! A deleted `ProtectedDatabase`: what pgrail arranged against DROP DATABASE is ended, or an Event says why it stays.

use super::ProtectedDatabases;
use crate::context::Context;
use crate::controllers::removal::Removal;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::conditions::Conditions;
use crate::kubernetes::controller::Reconciler;
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::{annotation::is_true, finalizer};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::ProtectedDatabase;
use pgrail_crds::annotations::FORCE_DELETE;
use pgrail_crds::conditions::reasons::event;
use pgrail_guard::{database_protection, protect_database};
use std::time::Duration;

/// When a suspended database is checked again; a change of the spec is seen immediately.
const SUSPENDED: Duration = Duration::from_mins(10);

/// Ends the protection, then removes the finalizer.
pub(super) async fn finalize(database: &ProtectedDatabase, context: &Context) -> Result<Action, kube::Error> {
    if !finalizer::is_set(database) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    let key = format!("finalize/{}", database.uid().unwrap_or_default());
    match release(database, context).await? {
        Removal::Pending(why) => {
            let message = format!(
                "deleted, but the database is still a template database, which cannot be dropped: {why}. The annotation \
                 {FORCE_DELETE}: \"true\" deletes the object and leaves it so"
            );
            let mut next = database.status.clone().unwrap_or_default();
            let mut conditions = Conditions::new(&next.conditions, database.metadata.generation, context.now());
            conditions.stalled(Reason::DatabaseUnreachable, message);
            next.conditions = conditions.finish();
            context.write_status(ProtectedDatabases::NAME, database, database.status.as_ref(), &next).await?;
            let wait = context.backoff.next(&key);
            return Ok(Action::requeue(if database.spec.suspend { SUSPENDED } else { wait }));
        }
        Removal::LeftBehind(why) => {
            let note = format!("the database stays a template database, which cannot be dropped: {why}");
            tracing::warn!(namespace, name, why, "protection from DROP DATABASE left behind");
            let now = context.now();
            context.events.publish(database, Severity::Warning, "Delete", event::GUARDS_LEFT_BEHIND, note, now).await;
        }
        Removal::Done => {}
    }
    context.backoff.reset(&key);
    let api: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), &namespace);
    finalizer::remove(&api, database).await?;
    Ok(Action::await_change())
}

async fn release(database: &ProtectedDatabase, context: &Context) -> Result<Removal, kube::Error> {
    // The watch can be behind the status.
    let api: Api<ProtectedDatabase> =
        Api::namespaced(context.client.clone(), &database.namespace().unwrap_or_default());
    let Some(latest) = api.get_opt(&database.name_any()).await? else { return Ok(Removal::Done) };
    if !latest.status.as_ref().is_some_and(|status| status.template_set) {
        return Ok(Removal::Done);
    }
    if is_true(database, FORCE_DELETE) {
        return Ok(Removal::LeftBehind(format!("it is annotated with {FORCE_DELETE}")));
    }
    if database.spec.suspend {
        return Ok(Removal::Pending("spec.suspend is true".to_owned()));
    }
    let released: Result<Removal, DatabaseError> =
        context.databases.with(database, async |session| release_with(session).await).await;
    Removal::settle(released, database, &context.client).await
}

async fn release_with(session: &Session) -> Result<Removal, DatabaseError> {
    let capabilities = pgrail_guard::capabilities::read(session).await.map_err(|error| DatabaseError::lost(&error))?;
    let found = database_protection(session).await.map_err(|error| DatabaseError::lost(&error))?;
    if !found.is_template {
        return Ok(Removal::Done);
    }
    if capabilities.in_recovery {
        return Ok(Removal::LeftBehind("the server is read only".to_owned()));
    }
    if !found.may_change {
        return Ok(Removal::Pending(format!("run {}, or {} as the owner", found.membership, found.release)));
    }
    match protect_database(session, &found, false).await {
        Ok(()) => Ok(Removal::Done),
        Err(error) => match error.as_db_error() {
            Some(server) => Ok(Removal::Pending(server.message().to_owned())),
            None => Err(DatabaseError::lost(&error)),
        },
    }
}
