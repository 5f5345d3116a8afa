//! `GuardExemption`: a login role's right, for a time, to go beyond the limits of guards. The database judges it by its own
//! clock, so it ends with the operator down; this controller gives it, watches what it is used for, and takes it back.

pub(crate) mod apply;
mod dereference;
mod finalize;
pub(crate) mod report;
pub(crate) mod validate;

use crate::context::Context;
use crate::kubernetes::controller::{self, Reconciler};
use crate::kubernetes::finalizer;
use crate::kubernetes::watch::{Watch, Watched, watch};
use jiff::{SignedDuration, Timestamp};
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::conditions::READY;
use pgrail_crds::{ExemptionPhase, GuardExemption, TableGuard};
use report::Finding;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A transaction that began in time may end later: what it used is read once more after so long.
const LAST_LOOK: SignedDuration = SignedDuration::from_mins(2);
/// How often one that waits for something, or is in force, is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Runs the controller until `stop`. A change of a guard is a change of the exemptions from it.
pub(crate) fn run(
    guards: &Watch<TableGuard>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let (exemptions, of_kind) = watch::<GuardExemption>(context.watched());
    let store = of_kind.store();
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

    async fn reconcile(&self, seen: Arc<GuardExemption>) -> Result<Action, kube::Error> {
        let context = &self.context;
        let api: Api<GuardExemption> = Api::namespaced(context.client.clone(), &seen.namespace().unwrap_or_default());
        // Read anew: one that is over must stay over, however old what the watch has seen is.
        let Some(exemption) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if exemption.metadata.deletion_timestamp.is_some() {
            return finalize::finalize(&exemption, context).await;
        }
        if is_over(&exemption) {
            return put_away(&api, &exemption, context).await;
        }
        let finding = judge(&api, &exemption, context).await?;
        let next = report::status(&exemption, &finding, context.now());
        let written = context.write_status(Self::NAME, &exemption, exemption.status.as_ref(), &next).await?;
        if written {
            report::announce(&exemption, &finding, &next, context).await;
        }
        Ok(Action::requeue(wait(&exemption, &finding, context)))
    }
}

/// dereference -> validate -> apply
async fn judge(
    api: &Api<GuardExemption>,
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Finding, kube::Error> {
    let was_active = phase(exemption) == Some(ExemptionPhase::Active);
    if !was_active {
        if let Some(rejected) = validate::rejected(exemption, context.now()) {
            return Ok(Finding::Rejected(rejected));
        }
        let policies = dereference::policies(exemption, context).await?;
        if let Some(rejected) = validate::against(exemption, &policies) {
            return Ok(Finding::Rejected(rejected));
        }
    }
    let database = match dereference::database(exemption, context).await? {
        Ok(database) => database,
        Err(dereference::Unresolved::Waits(why)) => return Ok(Finding::Waits(why)),
        // What is in force stays so, whatever became of its guards since.
        Err(dereference::Unresolved::Never(why)) if was_active => return Ok(Finding::Waits(why)),
        Err(dereference::Unresolved::Never(why)) => return Ok(Finding::Rejected(why)),
    };
    if !was_active && let Some(why) = dereference::backup_missing(exemption, &database, context).await? {
        return Ok(Finding::Waits(why));
    }
    let spec = match validate::spec(exemption, &context.cluster_id) {
        Ok(spec) => spec,
        Err(rejected) => return Ok(Finding::Rejected(rejected)),
    };
    finalizer::add(api, exemption).await?;
    Ok(apply::apply(&spec, &database, context).await)
}

fn phase(exemption: &GuardExemption) -> Option<ExemptionPhase> {
    exemption.status.as_ref().and_then(|status| status.phase)
}

/// Whether nothing can change any more but that it goes.
fn is_over(exemption: &GuardExemption) -> bool {
    matches!(phase(exemption), Some(ExemptionPhase::Expired | ExemptionPhase::Rejected))
}

/// What is over is read once more and taken out of the database; the object is deleted after `ttlSecondsAfterFinished`.
async fn put_away(
    api: &Api<GuardExemption>,
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Action, kube::Error> {
    if finalizer::is_set(exemption) {
        let due = exemption.spec.not_after.0.saturating_add(LAST_LOOK).unwrap_or(Timestamp::MAX);
        if let Some(left) = left_until(due, context.now()) {
            return Ok(Action::requeue(left));
        }
        if let Err(error) = finalize::settle(api, exemption, context).await? {
            tracing::warn!(name = exemption.name_any(), %error, "an exemption that is over is still in its database");
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

/// When to look again: when something is due, and often enough to tell what it is used for.
fn wait(exemption: &GuardExemption, finding: &Finding, context: &Context) -> Duration {
    let key = format!("exemption/{}", exemption.uid().unwrap_or_default());
    let now = context.now();
    let due = [exemption.spec.not_before.as_ref(), Some(&exemption.spec.not_after)];
    let due = due.into_iter().flatten().filter_map(|time| left_until(time.0, now));
    // A little later than the time itself: the database's clock decides.
    let due = due.map(|left| left.saturating_add(Duration::from_millis(500))).min();
    let wait = if let Finding::Unreachable(_) = finding {
        context.backoff.next(&key)
    } else {
        context.backoff.reset(&key);
        LOOK_AGAIN
    };
    due.map_or(wait, |due| due.min(wait))
}
