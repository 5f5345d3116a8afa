//! An exemption that is deleted is taken back at once. One whose time is over waits for nothing.

use super::report::{self, Finding, Said};
use super::{GuardExemptions, apply, dereference, validate};
use crate::context::Context;
use crate::kubernetes::controller::Reconciler;
use crate::kubernetes::events::Severity;
use crate::kubernetes::{annotation::is_true, finalizer};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::FORCE_DELETE;
use pgrail_crds::conditions::reasons::{event, guard as guard_reasons, reachable};
use pgrail_crds::{GuardExemption, ProtectedDatabase, TableGuard};
use pgrail_guard::GuardName;

/// What came of taking it back.
enum Revoked {
    Done,
    /// Nobody can use it, or nobody can take it back: why.
    LetGo(String),
    Later(String),
}

/// Takes back, then lets go.
pub(super) async fn finalize(exemption: &GuardExemption, context: &Context) -> Result<Action, kube::Error> {
    if !finalizer::is_set(exemption) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (exemption.namespace().unwrap_or_default(), exemption.name_any());
    let key = format!("exemption/{}", exemption.uid().unwrap_or_default());
    let now = context.now();
    match revoke(exemption, context).await? {
        Revoked::Later(why) if exemption.spec.not_after.0 > now => {
            let message = format!(
                "deleted, but it could not be taken back yet: {why}. It ends by itself at {}",
                exemption.spec.not_after.0
            );
            let said = Said { reason: guard_reasons::DATABASE_UNREACHABLE, message };
            let next = report::stalled(exemption, &said, now);
            context.write_status(GuardExemptions::NAME, exemption, exemption.status.as_ref(), &next).await?;
            return Ok(Action::requeue(context.backoff.next(&key)));
        }
        Revoked::LetGo(why) => {
            let note =
                format!("what is left of it in the database ends by itself at {}: {why}", exemption.spec.not_after.0);
            tracing::warn!(namespace, name, why, "an exemption was left in the database");
            context
                .events
                .publish(exemption, Severity::Warning, "Delete", event::EXEMPTION_LEFT_BEHIND, note, now)
                .await;
        }
        Revoked::Later(_) | Revoked::Done => {}
    }
    tracing::info!(namespace, name, role = exemption.spec.role, "exemption taken back");
    context.backoff.reset(&key);
    let api: Api<GuardExemption> = Api::namespaced(context.client.clone(), &namespace);
    finalizer::remove(&api, exemption).await?;
    Ok(Action::await_change())
}

/// Reads once more what one that is over was used for, takes it out of the database and lets go.
pub(super) async fn settle(
    api: &Api<GuardExemption>,
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Result<(), String>, kube::Error> {
    if let (Ok(database), Ok(spec)) =
        (dereference::database(exemption, context).await?, validate::spec(exemption, &context.cluster_id))
    {
        match apply::used(&spec, &database, context).await {
            Ok(Some(used)) => {
                let finding = Finding::Over(used);
                let next = report::status(exemption, &finding, context.now());
                let current = exemption.status.as_ref();
                if context.write_status(GuardExemptions::NAME, exemption, current, &next).await? {
                    report::announce(exemption, &finding, &next, context).await;
                }
            }
            Ok(None) => {}
            Err(error) => return Ok(Err(error.message)),
        }
    }
    if let Revoked::Later(why) = revoke(exemption, context).await? {
        return Ok(Err(why));
    }
    finalizer::remove(api, exemption).await.map(Ok)
}

async fn revoke(exemption: &GuardExemption, context: &Context) -> Result<Revoked, kube::Error> {
    if is_true(exemption, FORCE_DELETE) {
        return Ok(Revoked::LetGo(format!("it is annotated with {FORCE_DELETE}")));
    }
    let namespace = exemption.namespace().unwrap_or_default();
    let guards: Api<TableGuard> = Api::namespaced(context.client.clone(), &namespace);
    let databases: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), &namespace);
    let mut database = None;
    for guard in &exemption.spec.guard_refs {
        if let Some(guard) = guards.get_opt(&guard.name).await? {
            database = databases.get_opt(&guard.spec.database_ref.name).await?;
            break;
        }
    }
    let Some(database) = database else {
        return Ok(Revoked::LetGo("its guards, or their ProtectedDatabase, are gone".to_owned()));
    };
    let name = GuardName::new(format!("{namespace}/{}", exemption.name_any()));
    let Ok(name) = name else { return Ok(Revoked::Done) };
    let owner = &context.cluster_id;
    let revoked = context.databases.with(&database, async |session| apply::revoke(&name, session, owner).await).await;
    Ok(match revoked {
        Ok(None) => Revoked::Done,
        Ok(Some(why)) => Revoked::Later(why),
        Err(error) if [reachable::SECRET_MISSING, reachable::DATABASE_MISSING].contains(&error.reason) => {
            Revoked::LetGo(error.message)
        }
        Err(error) => Revoked::Later(error.message),
    })
}
