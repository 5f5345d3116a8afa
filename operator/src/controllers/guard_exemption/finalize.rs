//! A deleted exemption is revoked at once. One that has expired waits for nothing.

use super::apply::{self, Outcome, Revocation};
use super::{GuardExemptions, announce, dereference, report, validate};
use crate::context::Context;
use crate::kubernetes::conditions::Conditions;
use crate::kubernetes::controller::Reconciler;
use crate::kubernetes::events::Severity;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::{annotation::is_true, finalizer};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::FORCE_DELETE;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{GuardExemption, ProtectedDatabase, TableGuard};
use pgrail_guard::GuardName;

/// How the removal from the database ended.
pub(super) enum Removal {
    /// It is not in the database any more.
    Done,
    /// It cannot be revoked: why.
    LeftBehind(String),
    /// It could not be revoked yet: why. Retried.
    Pending(String),
}

/// Revokes the exemption, then removes the finalizer.
pub(super) async fn finalize(exemption: &GuardExemption, context: &Context) -> Result<Action, kube::Error> {
    if !finalizer::is_set(exemption) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (exemption.namespace().unwrap_or_default(), exemption.name_any());
    let key = format!("exemption/{}", exemption.uid().unwrap_or_default());
    let (now, ends) = (context.now(), exemption.spec.not_after.0);
    match revoke(exemption, context).await? {
        Removal::Pending(why) if ends > now => {
            let message = format!(
                "deleted, but it could not be revoked yet: {why}. It ends by itself at {ends}. \
                The annotation {FORCE_DELETE}: \"true\" deletes it and leaves it in the database until then"
            );
            stall(exemption, message, context).await?;
            return Ok(Action::requeue(context.backoff.next(&key)));
        }
        Removal::LeftBehind(why) => {
            let note = format!("what is left of it in the database ends by itself at {ends}: {why}");
            tracing::warn!(namespace, name, why, "an exemption was left in the database");
            let reason = event::EXEMPTION_LEFT_BEHIND;
            context.events.publish(exemption, Severity::Warning, "Delete", reason, note, now).await;
        }
        Removal::Pending(_) | Removal::Done => {}
    }
    tracing::info!(namespace, name, role = exemption.spec.role, "exemption revoked");
    context.backoff.reset(&key);
    let api: Api<GuardExemption> = Api::namespaced(context.client.clone(), &namespace);
    finalizer::remove(&api, exemption).await?;
    Ok(Action::await_change())
}

async fn stall(exemption: &GuardExemption, message: String, context: &Context) -> Result<(), kube::Error> {
    let mut next = exemption.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&next.conditions, exemption.metadata.generation, context.now());
    conditions.stalled(Reason::DatabaseUnreachable, message);
    next.conditions = conditions.finish();
    context.write_status(GuardExemptions::NAME, exemption, exemption.status.as_ref(), &next).await.map(|_| ())
}

/// Reads the last use of an exemption that has expired, revokes it and removes the finalizer.
pub(super) async fn expire(
    api: &Api<GuardExemption>,
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Removal, kube::Error> {
    if let Some(why) = report_last_use(exemption, context).await? {
        return Ok(Removal::Pending(why));
    }
    let removal = revoke(exemption, context).await?;
    if !matches!(removal, Removal::Pending(_)) {
        finalizer::remove(api, exemption).await?;
    }
    Ok(removal)
}

/// Returns why it could not be read, if it is worth another try.
async fn report_last_use(exemption: &GuardExemption, context: &Context) -> Result<Option<String>, kube::Error> {
    let database = match dereference::dereference(exemption, context).await {
        Ok(database) => database,
        Err(error) => {
            error.into_rejection()?;
            return Ok(None);
        }
    };
    let Ok(spec) = validate::validate(exemption, &context.cluster_id) else { return Ok(None) };
    match apply::used(&spec, &database, context).await {
        Ok(Some(used)) => {
            let outcome = Outcome::Expired(used);
            let next = report::report(exemption, &outcome, context.now());
            let current = exemption.status.as_ref();
            if context.write_status(GuardExemptions::NAME, exemption, current, &next).await? {
                announce::announce(exemption, &outcome, &next, context).await;
            }
            Ok(None)
        }
        Ok(None) => Ok(None),
        Err(error) => Ok(Some(error.message)),
    }
}

async fn revoke(exemption: &GuardExemption, context: &Context) -> Result<Removal, kube::Error> {
    if is_true(exemption, FORCE_DELETE) {
        return Ok(Removal::LeftBehind(format!("it is annotated with {FORCE_DELETE}")));
    }
    let namespace = exemption.namespace().unwrap_or_default();
    let Some(database) = database_of(exemption, context).await? else {
        return Ok(Removal::LeftBehind("its guards, or their ProtectedDatabase, do not exist any more".to_owned()));
    };
    let name = GuardName::new(format!("{namespace}/{}", exemption.name_any()));
    let Ok(name) = name else { return Ok(Removal::Done) };
    let owner = &context.cluster_id;
    let revoked = context.databases.with(&database, async |session| apply::revoke(&name, session, owner).await).await;
    Ok(match revoked {
        Ok(Revocation::Done) => Removal::Done,
        Ok(Revocation::Pending(why)) => Removal::Pending(why),
        Err(error) if [Reason::SecretMissing, Reason::DatabaseMissing].contains(&error.reason) => {
            Removal::LeftBehind(error.message)
        }
        Err(error) => Removal::Pending(error.message),
    })
}

/// The database of the first of its guards that still exists.
async fn database_of(exemption: &GuardExemption, context: &Context) -> Result<Option<ProtectedDatabase>, kube::Error> {
    let namespace = exemption.namespace().unwrap_or_default();
    let guards: Api<TableGuard> = Api::namespaced(context.client.clone(), &namespace);
    let databases: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), &namespace);
    for guard in &exemption.spec.guard_refs {
        if let Some(guard) = guards.get_opt(&guard.name).await? {
            return databases.get_opt(&guard.spec.database_ref.name).await;
        }
    }
    Ok(None)
}
