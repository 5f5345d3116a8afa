//! `GuardrailPolicy`: what the platform team demands of every database, who complies, and the objects of its templates. Of the
//! whole cluster: an operator that is limited to one namespace does not run it.

mod announce;
mod apply;
mod assess;
pub(crate) mod compliance;
pub(crate) mod evaluate;
pub(crate) mod fleet;
mod report;
mod reports;
pub(crate) mod select;
mod settle;
mod templates;
mod undeclared;

use super::checks::Checks;
use crate::context::Context;
use crate::kubernetes::controller::{self, AT_ONCE, Reconciler};
use crate::kubernetes::watch::{Watch, Watched, watch};
use apply::Memory;
use assess::TemplateSet;
use evaluate::Rule;
use fleet::Fleet;
use futures::future::join_all;
use jiff::SignedDuration;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use pgrail_crds::{BackupSchedule, DatabaseBackup, GuardrailPolicy, ProtectedDatabase, TableGuard};
use settle::{Changes, SETTLE};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Name of the controller: field manager of the status, metric label.
const CONTROLLER: &str = "guardrailpolicy";
/// The longest time between two assessments.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);
/// When a policy is assessed again whose objects were not all listed yet.
const NOT_LISTED: Duration = Duration::from_secs(1);

/// The watches that compliance is computed from.
pub(crate) struct Watches<'a> {
    pub(crate) databases: &'a Watch<ProtectedDatabase>,
    pub(crate) guards: &'a Watch<TableGuard>,
    pub(crate) schedules: &'a Watch<BackupSchedule>,
    pub(crate) backups: &'a Watch<DatabaseBackup>,
}

/// Runs the controller until `stop`. Any change of the fleet is a change of every policy: changes within a second are one.
/// `checks`: when the databases were last checked; `None` where another operator does.
pub(crate) fn run(
    watches: &Watches<'_>,
    checks: Option<Arc<Checks>>,
    context: &Arc<Context>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let Watches { databases, guards, schedules, backups } = watches;
    let stores = (databases.store(), guards.store(), schedules.store(), backups.store());
    let fleet = Arc::new(Fleet::new(stores.0, stores.1, stores.2, stores.3, checks));
    let changes = Changes::default();
    databases.on_change(version, changes.notifier());
    guards.on_change(version, changes.notifier());
    schedules.on_change(version, changes.notifier());
    backups.on_change(result, changes.notifier());
    let (policies, of_kind) = watch::<GuardrailPolicy>(Api::all(context.client.clone()));
    let (of_deleted, forget) = (Arc::clone(context), context.forgets());
    of_kind.on_delete(move |policy: &ObjectRef<Watched<GuardrailPolicy>>| {
        forget_series(&policy.name, &of_deleted);
        forget(policy);
    });
    let policies = policies.reconcile_on(changes.of_all(of_kind.store(), SETTLE));
    let metadata = metadata(Arc::clone(&fleet), context.client.clone(), changes, stop.clone());
    let reconciler = GuardrailPolicies { context: Arc::clone(context), fleet, memory: Memory::default() };
    let controller = controller::run(policies, reconciler, Arc::clone(context), stop);
    async move {
        futures::join!(metadata, controller);
    }
}

/// Runs the watches of metadata.
async fn metadata(fleet: Arc<Fleet>, client: kube::Client, changes: Changes, stop: CancellationToken) {
    let watches = fleet.metadata().map(|watch| watch.run(client.clone(), changes.notifier(), stop.clone()));
    join_all(watches).await;
}

/// Any change of an object, its status included.
fn version<K: ResourceExt>(object: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.resource_version().hash(&mut hasher);
    hasher.finish()
}

/// What of a backup a policy depends on: not its progress.
fn result(backup: &Watched<DatabaseBackup>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Ok(backup) = &backup.0 else { return 0 };
    let status = backup.status.as_ref();
    let reasons = status.into_iter().flat_map(|status| &status.conditions).map(|it| (&it.type_, &it.reason));
    reasons.for_each(|reason| reason.hash(&mut hasher));
    status.and_then(|status| status.phase).map(|phase| format!("{phase:?}")).hash(&mut hasher);
    let proof = status.and_then(|status| status.verification.as_ref());
    proof.map(|proof| (format!("{:?}", proof.level), proof.time.as_ref().map(|time| time.0))).hash(&mut hasher);
    hasher.finish()
}

/// Ends the series of a policy that was deleted.
fn forget_series(policy: &str, context: &Context) {
    context.metrics.forget_policy(policy, Rule::ALL.map(Rule::as_str));
}

struct GuardrailPolicies {
    context: Arc<Context>,
    fleet: Arc<Fleet>,
    memory: Memory,
}

impl Reconciler for GuardrailPolicies {
    type Kind = GuardrailPolicy;
    type Error = kube::Error;
    const NAME: &'static str = CONTROLLER;

    fn observed_generation(object: &GuardrailPolicy) -> Option<i64> {
        object.status.as_ref()?.observed_generation
    }

    async fn reconcile(&self, seen: Arc<GuardrailPolicy>) -> Result<Action, kube::Error> {
        let Self { context, fleet, memory } = self;
        // Read again: the watch can be behind this controller's own status.
        let api: Api<GuardrailPolicy> = Api::all(context.client.clone());
        let Some(policy) = api.get_opt(&seen.name_any()).await? else { return Ok(Action::await_change()) };
        if policy.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let Some(snapshot) = fleet.snapshot() else { return Ok(Action::requeue(NOT_LISTED)) };
        let now = context.now();
        let templates = TemplateSet::of(&policy);
        let mut assessment = assess::assess(&policy, &templates, &snapshot, fleet.checks.as_deref(), now);
        apply::apply(&policy, &templates, &snapshot, &mut assessment, memory, context).await;
        reports::write(&policy, &assessment, fleet, context).await;
        let next = report::report(&policy, &assessment, now);
        let by_rule = assessment.by_rule();
        let counts = Rule::ALL.map(|rule| (rule.as_str(), by_rule.get(&rule).copied().unwrap_or(0)));
        context.metrics.policy(&policy.name_any(), assessment.members.len(), assessment.compliant(), &counts);
        if context.write_status(CONTROLLER, &policy, policy.status.as_ref(), &next).await? {
            announce::announce(&policy, &next, context).await;
        }
        let wait =
            assessment.next_change.map_or(LONGEST_WAIT, |time| time.duration_since(now) + SignedDuration::from_secs(1));
        let wait = wait.clamp(SignedDuration::from_secs(1), LONGEST_WAIT);
        Ok(Action::requeue(Duration::try_from(wait).unwrap_or(AT_ONCE)))
    }

    fn forget(&self, _namespace: &str, name: &str) {
        forget_series(name, &self.context);
    }
}
