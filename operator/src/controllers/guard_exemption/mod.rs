//! `GuardExemption`: for a time, a login role can exceed the limits of guards. The database decides by its own clock, so an
//! exemption ends with the operator down; this controller grants it, reports its use, and revokes it.

mod announce;
pub(crate) mod apply;
mod dereference;
mod finalize;
pub(crate) mod report;
pub(crate) mod validate;

use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::watch::{Watch, Watched, watch};
use apply::Outcome;
use finalize::Removal;
use jiff::{SignedDuration, Timestamp};
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::conditions::READY;
use pgrail_crds::{ExemptionPhase, GuardExemption, TableGuard};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A transaction that began in time can end later: its use is read once more after so long.
const LAST_READ: SignedDuration = SignedDuration::from_mins(2);
/// How often an exemption that waits for something, or is in force, is checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Runs the controller until `stop`. A change of a guard is a change of the exemptions from it.
pub(crate) fn run(
    guards: &Watch<TableGuard>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let (exemptions, of_kind) = watch::<GuardExemption>(context.watched());
    let store = of_kind.store();
    of_kind.on_delete(context.forgets());
    let changed = guards.follow(version, move |guard: &Watched<TableGuard>| {
        let (namespace, name) = (guard.namespace(), guard.name_any());
        let of_it = store.state().into_iter().filter(move |exemption| {
            let refers = |it: &GuardExemption| it.spec.guard_refs.iter().any(|guard| guard.name == name);
            exemption.namespace() == namespace && exemption.0.as_ref().is_ok_and(refers)
        });
        of_it.map(|exemption| ObjectRef::from_obj(exemption.as_ref())).collect::<Vec<_>>()
    });
    let reconciler = GuardExemptions { context: Arc::clone(context) };
    controller::run(exemptions.reconcile_on(changed), reconciler, Arc::clone(context), stop)
}

/// Any change of a guard, its status included.
fn version(guard: &Watched<TableGuard>) -> u64 {
    let mut hasher = DefaultHasher::new();
    guard.resource_version().hash(&mut hasher);
    hasher.finish()
}

struct GuardExemptions {
    context: Arc<Context>,
}

impl Reconciler for GuardExemptions {
    type Kind = GuardExemption;
    type Error = kube::Error;
    const NAME: &'static str = "guardexemption";

    fn observed_generation(object: &GuardExemption) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, seen: Arc<GuardExemption>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let api: Api<GuardExemption> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read anew: one that has expired must stay so, however old what the watch has is.
        let Some(exemption) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if exemption.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(&exemption, context).await;
        }
        if is_final(&exemption) {
            return finish(&api, &exemption, context).await;
        }
        let outcome = ensure(&api, &exemption, context).await?;
        let next = report::report(&exemption, &outcome, context.now());
        let written = context.write_status(Self::NAME, &exemption, exemption.status.as_ref(), &next).await?;
        if written {
            announce::announce(&exemption, &outcome, &next, context).await;
        }
        Ok(Action::requeue(wait(&exemption, &outcome, context)))
    }
}

/// dereference -> validate -> apply. What is in force stays so, whatever happened to its guards since.
async fn ensure(
    api: &Api<GuardExemption>,
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Outcome, kube::Error> {
    let was_active = phase(exemption) == Some(ExemptionPhase::Active);
    if !was_active {
        if let Some(rejection) = validate::too_late(exemption, context.now()) {
            return Ok(Outcome::Rejected(rejection));
        }
        let policies = dereference::policies(exemption, context).await?;
        if let Some(rejection) = validate::exceeds_policy(exemption, &policies) {
            return Ok(Outcome::Rejected(rejection));
        }
    }
    let database = match dereference::dereference(exemption, context).await {
        Ok(database) => database,
        Err(error) => {
            let rejection = error.into_rejection()?;
            let is_final = rejection.reason == Reason::InvalidSpec && !was_active;
            return Ok(if is_final { Outcome::Rejected(rejection) } else { Outcome::Waiting(rejection) });
        }
    };
    if !was_active && let Some(rejection) = dereference::backup_missing(exemption, &database, context).await? {
        return Ok(Outcome::Waiting(rejection));
    }
    let spec = match validate::validate(exemption, &context.cluster_id) {
        Ok(spec) => spec,
        Err(rejection) => return Ok(Outcome::Rejected(rejection)),
    };
    finalizer::add(api, exemption).await?;
    Ok(apply::apply(&spec, &database, context).await)
}

fn phase(exemption: &GuardExemption) -> Option<ExemptionPhase> {
    exemption.status.as_ref().and_then(|status| status.phase)
}

/// Whether its phase cannot change any more.
fn is_final(exemption: &GuardExemption) -> bool {
    matches!(phase(exemption), Some(ExemptionPhase::Expired | ExemptionPhase::Rejected))
}

/// The last use of an expired exemption is read and it is revoked; the object is deleted after `ttlSecondsAfterFinished`.
async fn finish(
    api: &Api<GuardExemption>,
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Action, kube::Error> {
    if finalizer::is_set(exemption) {
        let due = exemption.spec.not_after.0.saturating_add(LAST_READ).unwrap_or(Timestamp::MAX);
        if let Some(left) = left_until(due, context.now()) {
            return Ok(Action::requeue(left));
        }
        if let Removal::Pending(why) = finalize::expire(api, exemption, context).await? {
            tracing::warn!(name = exemption.name_any(), why, "an expired exemption is still in its database");
            let key = format!("exemption/{}", exemption.uid().unwrap_or_default());
            return Ok(Action::requeue(context.backoff.next(&key)));
        }
    }
    let Some(seconds) = exemption.spec.ttl_seconds_after_finished else { return Ok(Action::await_change()) };
    let conditions = exemption.status.iter().flat_map(|status| &status.conditions);
    let since = conditions.filter(|it| it.type_ == READY).map(|it| it.last_transition_time.0).next_back();
    let Some(end) = since.and_then(|since| Timestamp::from_second(since.as_second().saturating_add(seconds)).ok())
    else {
        return Ok(Action::await_change());
    };
    if let Some(left) = left_until(end, context.now()) {
        return Ok(Action::requeue(left));
    }
    match api.delete(&exemption.name_any(), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        result => drop(result?),
    }
    Ok(Action::await_change())
}

fn left_until(end: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(end.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// When to check again: when something is due, and often enough to report its use.
fn wait(exemption: &GuardExemption, outcome: &Outcome, context: &Context) -> Duration {
    let key = format!("exemption/{}", exemption.uid().unwrap_or_default());
    let now = context.now();
    let due = [exemption.spec.not_before.as_ref(), Some(&exemption.spec.not_after)];
    let due = due.into_iter().flatten().filter_map(|time| left_until(time.0, now));
    // A little later than the time itself: the database's clock decides.
    let due = due.map(|left| left.saturating_add(Duration::from_millis(500))).min();
    let wait = if let Outcome::Unreachable(_) = outcome {
        context.backoff.next(&key)
    } else {
        context.backoff.reset(&key);
        CHECK_EVERY
    };
    due.map_or(wait, |due| due.min(wait))
}
