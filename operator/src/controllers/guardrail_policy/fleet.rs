//! What policies are evaluated from: the objects of the whole cluster, as watches last reported them.

use super::evaluate::{Facts, Overdue};
use super::undeclared::{CLOUD_NATIVE_PG, PGO, ZALANDO};
use crate::controllers::checks::Checks;
use crate::kubernetes::optional::{Found, Kind, Objects, Optional};
use crate::kubernetes::watch::{Store, Watched};
use futures::FutureExt;
use jiff::Timestamp;
use kube::ResourceExt;
use pgrail_crds::annotations::RESULTS_HASH;
use pgrail_crds::{BackupSchedule, DatabaseBackup, ProtectedDatabase, TableGuard};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const NAMESPACE: Kind = Kind { group: "", version: "v1", kind: "Namespace", plural: "namespaces" };
/// `Report` of OpenReports.
pub(super) const REPORT: Kind =
    Kind { group: "openreports.io", version: "v1alpha1", kind: "Report", plural: "reports" };
/// The reports that pgrail wrote.
const OWN_REPORTS: &str = "app.kubernetes.io/managed-by=pgrail";

/// The stores of the watches.
pub(crate) struct Fleet {
    pub(super) databases: Store<ProtectedDatabase>,
    pub(super) guards: Store<TableGuard>,
    pub(super) schedules: Store<BackupSchedule>,
    pub(super) backups: Store<DatabaseBackup>,
    pub(super) namespaces: Optional,
    pub(super) clusters: [Optional; 3],
    pub(super) reports: Optional,
    /// `None`: another operator checks the databases.
    pub(super) checks: Option<Arc<Checks>>,
}

impl Fleet {
    pub(super) fn new(
        databases: Store<ProtectedDatabase>,
        guards: Store<TableGuard>,
        schedules: Store<BackupSchedule>,
        backups: Store<DatabaseBackup>,
        checks: Option<Arc<Checks>>,
    ) -> Self {
        Self {
            databases,
            guards,
            schedules,
            backups,
            namespaces: Optional::new(NAMESPACE, None, None),
            clusters: [CLOUD_NATIVE_PG, PGO, ZALANDO].map(|kind| Optional::new(kind, None, None)),
            reports: Optional::new(REPORT, Some(OWN_REPORTS), Some(RESULTS_HASH)),
            checks,
        }
    }

    /// The watches of metadata.
    pub(super) fn metadata(&self) -> impl Iterator<Item = &Optional> {
        [&self.namespaces, &self.reports].into_iter().chain(&self.clusters)
    }

    /// The objects now; `None` before everything was listed once.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        // Never awaited: of several policies that wait, only one would be woken.
        let is_listed = is_listed(&self.databases)
            && is_listed(&self.guards)
            && is_listed(&self.schedules)
            && is_listed(&self.backups);
        if !is_listed {
            return None;
        }
        let mut unknown = Vec::new();
        let mut listed = |optional: &Optional| match optional.objects() {
            Objects::Pending => None,
            Objects::Absent => Some(Vec::new()),
            Objects::Listed(found) => Some(found),
            Objects::Unreadable(message) => {
                unknown.push(message);
                Some(Vec::new())
            }
        };
        let namespaces = listed(&self.namespaces)?;
        let mut clusters = Vec::new();
        for optional in &self.clusters {
            let found = listed(optional)?;
            clusters.extend(found.into_iter().map(|cluster| (*optional.kind(), cluster)));
        }
        if self.reports.objects() == Objects::Pending {
            return None;
        }
        clusters.sort_by(|(_, a), (_, b)| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let mut databases = self.databases.state();
        databases.sort_by_cached_key(|it| (it.namespace(), it.name_any()));
        Some(Snapshot {
            databases,
            guards: self.guards.state(),
            schedules: self.schedules.state(),
            backups: self.backups.state(),
            namespaces: namespaces.into_iter().map(|it| (it.name.clone(), it)).collect(),
            clusters,
            unknown,
        })
    }
}

/// Whether a watch has listed its objects once.
fn is_listed<K>(store: &Store<K>) -> bool
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.wait_until_ready().now_or_never().is_some_and(|listed| listed.is_ok())
}

/// The objects at one moment.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// In the order of their names.
    pub(super) databases: Vec<Arc<Watched<ProtectedDatabase>>>,
    pub(super) guards: Vec<Arc<Watched<TableGuard>>>,
    pub(super) schedules: Vec<Arc<Watched<BackupSchedule>>>,
    pub(super) backups: Vec<Arc<Watched<DatabaseBackup>>>,
    pub(super) namespaces: HashMap<String, Found>,
    pub(super) clusters: Vec<(Kind, Found)>,
    /// Kinds that cannot be read.
    pub(super) unknown: Vec<String>,
}

impl Snapshot {
    /// Labels of a namespace; `None` where they are not known.
    pub(super) fn labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace).map(|found| &found.labels)
    }

    pub(super) fn index(&self) -> Index<'_> {
        fn parsed<K: kube::Resource>(objects: &[Arc<Watched<K>>]) -> impl Iterator<Item = &K> {
            objects.iter().filter_map(|object| object.0.as_ref().ok())
        }
        Index::new(parsed(&self.guards), parsed(&self.schedules), parsed(&self.backups))
    }
}

type ByName<'a, K> = HashMap<(String, String), Vec<&'a K>>;

/// The objects by the database that they refer to.
pub(crate) struct Index<'a> {
    guards: ByName<'a, TableGuard>,
    schedules: ByName<'a, BackupSchedule>,
    /// By the UID of the database that was dumped.
    dumps: HashMap<&'a str, Vec<&'a DatabaseBackup>>,
    /// Those without one, by schedule, and by database.
    by_schedule: ByName<'a, DatabaseBackup>,
    by_database: ByName<'a, DatabaseBackup>,
}

impl<'a> Index<'a> {
    pub(crate) fn new(
        guards: impl Iterator<Item = &'a TableGuard>,
        schedules: impl Iterator<Item = &'a BackupSchedule>,
        backups: impl Iterator<Item = &'a DatabaseBackup>,
    ) -> Self {
        let mut index = Self {
            guards: HashMap::new(),
            schedules: HashMap::new(),
            dumps: HashMap::new(),
            by_schedule: HashMap::new(),
            by_database: HashMap::new(),
        };
        for guard in guards {
            index.guards.entry(key(guard, &guard.spec.database_ref.name)).or_default().push(guard);
        }
        for schedule in schedules {
            index.schedules.entry(key(schedule, &schedule.spec.database_ref.name)).or_default().push(schedule);
        }
        for backup in backups {
            if let Some(uid) = backup.status.as_ref().and_then(|status| status.database_uid.as_deref()) {
                index.dumps.entry(uid).or_default().push(backup);
            } else if let Some(schedule) = &backup.spec.schedule_ref {
                index.by_schedule.entry(key(backup, &schedule.name)).or_default().push(backup);
            } else if let Some(database) = &backup.spec.database_ref {
                index.by_database.entry(key(backup, &database.name)).or_default().push(backup);
            }
        }
        index
    }

    /// What there is of a database.
    pub(crate) fn facts(&self, database: &'a ProtectedDatabase, checks: Option<&Checks>, now: Timestamp) -> Facts<'a> {
        let name = key(database, &database.name_any());
        let of_it = |objects: Option<&Vec<&'a _>>| objects.cloned().unwrap_or_default();
        let mut guards: Vec<&TableGuard> = self.guards.get(&name).cloned().unwrap_or_default();
        let mut schedules: Vec<&BackupSchedule> = self.schedules.get(&name).cloned().unwrap_or_default();
        guards.sort_by_key(|guard| guard.name_any());
        schedules.sort_by_key(|schedule| schedule.name_any());
        let mut backups: Vec<&DatabaseBackup> = of_it(self.by_database.get(&name));
        for schedule in &schedules {
            backups.extend(of_it(self.by_schedule.get(&key(*schedule, &schedule.name_any()))));
        }
        let uid = database.uid().unwrap_or_default();
        let dumps = self.dumps.get(uid.as_str()).into_iter().flatten();
        backups.extend(dumps.filter(|backup| backup.namespace() == database.namespace()));
        let overdue = checks.map(|checks| overdue(checks, database, &guards, now)).unwrap_or_default();
        Facts { database, guards, schedules, backups, overdue }
    }
}

fn key(object: &impl ResourceExt, name: &str) -> (String, String) {
    (object.namespace().unwrap_or_default(), name.to_owned())
}

/// The database and its guards that were not checked in time.
fn overdue(checks: &Checks, database: &ProtectedDatabase, guards: &[&TableGuard], now: Timestamp) -> Vec<Overdue> {
    let interval = Duration::from(database.spec.check_interval);
    let of_database = std::iter::once((String::new(), database.uid()));
    let of_guards = guards.iter().map(|guard| (guard.name_any(), guard.uid()));
    let due = of_database.chain(of_guards).map(|(guard, uid)| {
        let due = checks.due(&uid.unwrap_or_default(), interval);
        Overdue { guard, due }
    });
    due.filter(|it| it.due < now).collect()
}
