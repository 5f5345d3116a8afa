//! The objects that the page shows: those of the watches that the controllers have. Where this process is not the leader, or
//! no controller has a watch, the page has its own. No view of the page asks the apiserver for objects.

use super::attempts::Attempts;
use crate::context::Context;
use crate::controllers::checks::Checks;
use crate::controllers::guardrail_policy::Watches;
use crate::controllers::guardrail_policy::compliance::Policies;
use crate::controllers::protected_database::graphs::Graphs;
use crate::kubernetes::optional::{Kind, Objects, Optional};
use crate::kubernetes::watch::{Store, Watch, watch_only};
use crate::mutex::locked;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseRestore, GuardrailPolicy, ProtectedDatabase, TableGuard};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAMESPACE: Kind = Kind { group: "", version: "v1", kind: "Namespace", plural: "namespaces" };
/// How often the labels of the namespace are read, where this process is limited to one.
const LABELS_EVERY: Duration = Duration::from_mins(1);

/// A process that does not lead by then has watches for the page alone.
const STAND_BY_AFTER: Duration = Duration::from_secs(5);

/// The objects of these kinds.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) databases: Store<ProtectedDatabase>,
    pub(super) guards: Store<TableGuard>,
    pub(super) schedules: Store<BackupSchedule>,
    pub(super) backups: Store<DatabaseBackup>,
    /// When databases were last checked; `None` where another process checks them.
    pub(super) checks: Option<Arc<Checks>>,
    /// Whether this process checks databases, and so knows their graphs.
    pub(super) leads: bool,
}

impl Fleet {
    fn of(watches: &Watches<'_>, checks: Option<Arc<Checks>>, leads: bool) -> Self {
        Self {
            databases: watches.databases.store(),
            guards: watches.guards.store(),
            schedules: watches.schedules.store(),
            backups: watches.backups.store(),
            checks,
            leads,
        }
    }

    fn is_listed(&self) -> bool {
        is_listed(&self.databases) && is_listed(&self.guards) && is_listed(&self.schedules) && is_listed(&self.backups)
    }
}

/// Everything that the page shows.
pub(crate) struct Stores {
    fleet: Mutex<Option<Fleet>>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) graphs: Arc<Graphs>,
    restores: Watch<DatabaseRestore>,
    policies: Watch<GuardrailPolicy>,
    namespaces: Optional,
    /// Labels of the namespace that this process is limited to; `None` before they were asked for.
    labels: Mutex<Option<BTreeMap<String, BTreeMap<String, String>>>>,
    /// Cancelled when the watches of the controllers take over.
    standby: CancellationToken,
}

impl Stores {
    /// With what keeps them up to date, until `stop`.
    pub(super) fn new(
        context: &Arc<Context>,
        stop: &CancellationToken,
    ) -> (Arc<Self>, impl Future<Output = ()> + use<>) {
        let (run_restores, restores) = watch_only(context.watched(), stop.clone());
        let (run_policies, policies) = watch_only(Api::all(context.client.clone()), stop.clone());
        let stores = Arc::new(Self {
            fleet: Mutex::default(),
            attempts: Arc::default(),
            graphs: Arc::default(),
            restores,
            policies,
            namespaces: Optional::new(NAMESPACE, None, None),
            labels: Mutex::default(),
            standby: stop.child_token(),
        });
        let (run, context, stop) = (Arc::clone(&stores), Arc::clone(context), stop.clone());
        let run = async move {
            let labels = run.read_labels(&context, stop);
            futures::join!(run_restores, run_policies, labels);
        };
        (stores, run)
    }

    /// Watches of the page alone, until those of the controllers take over. They wait for the Lease, perhaps forever.
    pub(super) async fn stand_by(self: Arc<Self>, context: Arc<Context>) {
        tokio::select! {
            () = self.standby.cancelled() => return,
            () = tokio::time::sleep(STAND_BY_AFTER) => {}
        }
        let (databases, database_watch) = watch_only(context.watched(), self.standby.clone());
        let (guards, guard_watch) = watch_only(context.watched(), self.standby.clone());
        let (schedules, schedule_watch) = watch_only(context.watched(), self.standby.clone());
        let (backups, backup_watch) = watch_only(context.watched(), self.standby.clone());
        let watches = Watches {
            databases: &database_watch,
            guards: &guard_watch,
            schedules: &schedule_watch,
            backups: &backup_watch,
        };
        self.count_attempts(&guard_watch, &context);
        {
            let mut fleet = self.fleet();
            if self.standby.is_cancelled() {
                return;
            }
            *fleet = Some(Fleet::of(&watches, None, false));
        }
        futures::join!(databases, guards, schedules, backups);
    }

    /// The controllers start: from now on, their watches are used. `checks`: `None` where this process only runs policies.
    /// To be called before the controllers run.
    pub(crate) fn lead(&self, watches: &Watches<'_>, checks: Option<Arc<Checks>>, context: &Arc<Context>) {
        self.count_attempts(watches.guards, context);
        let leads = checks.is_some();
        let mut fleet = self.fleet();
        self.standby.cancel();
        *fleet = Some(Fleet::of(watches, checks, leads));
    }

    /// Where the controllers keep the graphs.
    pub(crate) fn graphs(&self) -> Arc<Graphs> {
        Arc::clone(&self.graphs)
    }

    fn count_attempts(&self, guards: &Watch<TableGuard>, context: &Arc<Context>) {
        let (attempts, clock) = (Arc::clone(&self.attempts), context.clock);
        guards.on_object(move |guard| {
            if let Ok(guard) = &guard.0 {
                attempts.observe(guard, clock());
            }
        });
        let attempts = Arc::clone(&self.attempts);
        guards.on_delete(move |guard: &ObjectRef<_>| attempts.forget(guard.extra.uid.as_deref().unwrap_or_default()));
    }

    async fn read_labels(&self, context: &Context, stop: CancellationToken) {
        let Some(namespace) = &context.settings.watch_namespace else {
            return self.namespaces.run(context.client.clone(), || {}, stop).await;
        };
        let api: Api<Namespace> = Api::all(context.client.clone());
        while !stop.is_cancelled() {
            match api.get_opt(namespace).await {
                Ok(found) => {
                    let labels = found.map(|it| it.labels().clone()).unwrap_or_default();
                    *locked(&self.labels) = Some(BTreeMap::from([(namespace.clone(), labels)]));
                }
                Err(error) => {
                    locked(&self.labels).get_or_insert_default();
                    tracing::warn!(%error, namespace, "the labels of the namespace cannot be read");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LABELS_EVERY) => {}
            }
        }
    }

    /// The objects; `None` before all of them were listed.
    pub(super) fn listed(&self) -> Option<Fleet> {
        let fleet = self.fleet().clone()?;
        let listed = fleet.is_listed() && is_listed(&self.restores.store()) && is_listed(&self.policies.store());
        (listed && self.namespaces_are_known()).then_some(fleet)
    }

    fn namespaces_are_known(&self) -> bool {
        locked(&self.labels).is_some() || self.namespaces.objects() != Objects::Pending
    }

    pub(super) fn restores(&self) -> Store<DatabaseRestore> {
        self.restores.store()
    }

    /// The policies, and the names of those that cannot be read as their type.
    pub(super) fn policies(&self) -> (Policies, Vec<String>) {
        let (mut policies, mut unreadable) = (Vec::new(), Vec::new());
        for policy in self.policies.store().state() {
            match &policy.0 {
                Ok(parsed) => policies.push(parsed.clone()),
                Err(_) => unreadable.push(policy.name_any()),
            }
        }
        policies.sort_by_key(ResourceExt::name_any);
        let mut labels = locked(&self.labels).clone().unwrap_or_default();
        // A namespace whose labels cannot be read could be selected by any policy.
        if let Objects::Listed(found) = self.namespaces.objects() {
            labels.extend(found.into_iter().map(|namespace| (namespace.name, namespace.labels)));
        }
        (Policies::new(policies, labels), unreadable)
    }

    fn fleet(&self) -> MutexGuard<'_, Option<Fleet>> {
        locked(&self.fleet)
    }
}

fn is_listed<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.wait_until_ready().now_or_never().is_some_and(|listed| listed.is_ok())
}
