//! What the operator counts. Labels are bounded: kinds, reasons, and the user's own objects.

use crate::mutex::locked;
use crate::version::VERSION;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    namespace: String,
    guard: String,
    table: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WindowLabels {
    namespace: String,
    guard: String,
    table: String,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabel {
    policy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabels {
    policy: String,
    rule: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DrillServerLabels {
    namespace: String,
    name: String,
    version: String,
    cpus: String,
    fsync: String,
    maintenance_work_mem: String,
    max_wal_size: String,
    shared_buffers: String,
    wal_level: String,
}

/// Every metric, registered once.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Family<ControllerLabel, Histogram>,
    status_writes: Family<ControllerLabel, Counter>,
    guard_steps: Family<ObjectLabels, Counter>,
    blocked_attempts: Family<TableLabels, Counter>,
    window_removed: Family<WindowLabels, Gauge>,
    window_limit: Family<WindowLabels, Gauge>,
    window_exhausted: Family<TableLabels, Counter>,
    drift_repairs: Family<ObjectLabels, Counter>,
    guard_enforced: Family<ObjectLabels, Gauge>,
    database_reachable: Family<ObjectLabels, Gauge>,
    database_repairs: Family<ObjectLabels, Counter>,
    backup_fresh: Family<ObjectLabels, Gauge>,
    last_verified: Family<ObjectLabels, Gauge>,
    policy_databases: Family<PolicyLabel, Gauge>,
    policy_compliant: Family<PolicyLabel, Gauge>,
    policy_violations: Family<RuleLabels, Gauge>,
    backup_shrinks: Family<ObjectLabels, Gauge>,
    drilled: Family<ObjectLabels, Gauge>,
    last_drill: Family<ObjectLabels, Gauge>,
    drill_seconds: Family<ObjectLabels, Gauge>,
    drill_server: Family<DrillServerLabels, Gauge>,
    /// The server of the last drill, by schedule: to remove its series when it changes.
    drill_servers: Mutex<HashMap<ObjectLabels, DrillServerLabels>>,
    /// Tables with a series of blocked attempts, by guard: to remove them with it.
    tables: Mutex<HashMap<ObjectLabels, HashSet<String>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("pgrail"),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0])
            }),
            status_writes: Family::default(),
            guard_steps: Family::default(),
            blocked_attempts: Family::default(),
            window_removed: Family::default(),
            window_limit: Family::default(),
            window_exhausted: Family::default(),
            drift_repairs: Family::default(),
            guard_enforced: Family::default(),
            database_reachable: Family::default(),
            database_repairs: Family::default(),
            backup_fresh: Family::default(),
            last_verified: Family::default(),
            policy_databases: Family::default(),
            policy_compliant: Family::default(),
            policy_violations: Family::default(),
            backup_shrinks: Family::default(),
            drilled: Family::default(),
            last_drill: Family::default(),
            drill_seconds: Family::default(),
            drill_server: Family::default(),
            drill_servers: Mutex::default(),
            tables: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        let version = Info::new([("version", VERSION)]);
        registry.register("build", "The running version", version);
        registry.register("reconciles", "Reconciles by controller and result", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of a reconcile",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        registry.register("status_writes", "Status patches sent to the apiserver", self.status_writes.clone());
        registry.register("guard_steps", "Changes made inside databases, by guard", self.guard_steps.clone());
        registry.register(
            "blocked_attempts",
            "Statements stopped, or in mode Warn warned of, since this operator started",
            self.blocked_attempts.clone(),
        );
        registry.register(
            "window_removed_rows",
            "Rows that all transactions removed within the window of a table",
            self.window_removed.clone(),
        );
        registry.register(
            "window_limit_rows",
            "Rows that all transactions may remove within the window of a table",
            self.window_limit.clone(),
        );
        registry.register(
            "window_exhausted",
            "Windows that stopped a statement, once per length of the window",
            self.window_exhausted.clone(),
        );
        registry.register("drift_repairs", "Guards that were repaired", self.drift_repairs.clone());
        registry.register("guard_enforced", "1 while every matched table stops deletes", self.guard_enforced.clone());
        registry.register("database_reachable", "1 while the database answers", self.database_reachable.clone());
        registry.register(
            "database_drift_repairs",
            "How often the protection from DROP DATABASE was reset by others, and restored",
            self.database_repairs.clone(),
        );
        registry.register(
            "backup_fresh",
            "1 while the newest verified backup is younger than maxAge",
            self.backup_fresh.clone(),
        );
        registry.register(
            "backup_shrinks",
            "Losses of rows between two backups that are not acknowledged",
            self.backup_shrinks.clone(),
        );
        registry.register(
            "backup_drilled",
            "1 while the last drill restored all rows, and is not late",
            self.drilled.clone(),
        );
        registry.register_with_unit(
            "last_drill_timestamp",
            "Time of the last drill that succeeded, since 1970",
            Unit::Seconds,
            self.last_drill.clone(),
        );
        registry.register_with_unit(
            "last_drill_duration",
            "The measured recovery time: how long the last drill that succeeded took to restore and count all rows",
            Unit::Seconds,
            self.drill_seconds.clone(),
        );
        registry.register(
            "last_drill_server",
            "1, with the settings of the server that the duration of the last drill depends on",
            self.drill_server.clone(),
        );
        registry.register_with_unit(
            "last_verified_backup_timestamp",
            "Snapshot time of the newest verified backup, since 1970",
            Unit::Seconds,
            self.last_verified.clone(),
        );
        registry.register("policy_databases", "Databases that a policy selects", self.policy_databases.clone());
        registry.register(
            "policy_compliant_databases",
            "Databases that a policy selects and that are compliant",
            self.policy_compliant.clone(),
        );
        registry.register("policy_violations", "Violations of a policy, by rule", self.policy_violations.clone());
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// A reconcile ended.
    pub(crate) fn reconciled(&self, controller: &'static str, elapsed: Duration, succeeded: bool) {
        let label = ControllerLabel { controller: controller.to_owned() };
        self.reconcile_seconds.get_or_create(&label).observe(elapsed.as_secs_f64());
        let result = if succeeded { "ok" } else { "error" };
        self.reconciles.get_or_create(&ReconcileLabels { controller: controller.to_owned(), result }).inc();
    }

    /// A status was sent to the apiserver.
    pub(crate) fn status_written(&self, controller: &str) {
        self.status_writes.get_or_create(&ControllerLabel { controller: controller.to_owned() }).inc();
    }

    /// So many changes were made inside a database.
    pub(crate) fn guard_steps(&self, namespace: &str, name: &str, steps: u64) {
        self.guard_steps.get_or_create(&object(namespace, name)).inc_by(steps);
    }

    /// So many more statements were stopped on a table.
    pub(crate) fn blocked(&self, namespace: &str, guard: &str, table: &str, more: u64) {
        let labels = TableLabels { namespace: namespace.to_owned(), guard: guard.to_owned(), table: table.to_owned() };
        self.blocked_attempts.get_or_create(&labels).inc_by(more);
        self.tables().entry(object(namespace, guard)).or_default().insert(table.to_owned());
    }

    /// How much of a window is used. `kind`: `rows`, or `cascade` for rows of other tables.
    pub(crate) fn window(
        &self,
        namespace: &str,
        guard: &str,
        table: &str,
        kind: &'static str,
        removed: i64,
        limit: i64,
    ) {
        let labels = WindowLabels {
            namespace: namespace.to_owned(),
            guard: guard.to_owned(),
            table: table.to_owned(),
            kind: kind.to_owned(),
        };
        self.window_removed.get_or_create(&labels).set(removed);
        self.window_limit.get_or_create(&labels).set(limit);
        self.tables().entry(object(namespace, guard)).or_default().insert(table.to_owned());
    }

    /// A window stopped a statement.
    pub(crate) fn window_exhausted(&self, namespace: &str, guard: &str, table: &str) {
        let labels = TableLabels { namespace: namespace.to_owned(), guard: guard.to_owned(), table: table.to_owned() };
        self.window_exhausted.get_or_create(&labels).inc();
        self.tables().entry(object(namespace, guard)).or_default().insert(table.to_owned());
    }

    /// A guard was repaired.
    pub(crate) fn drift_repaired(&self, namespace: &str, name: &str) {
        self.drift_repairs.get_or_create(&object(namespace, name)).inc();
    }

    /// Whether every table of a guard is enforced.
    pub(crate) fn guard_enforced(&self, namespace: &str, name: &str, enforced: bool) {
        self.guard_enforced.get_or_create(&object(namespace, name)).set(i64::from(enforced));
    }

    /// Whether a database answers.
    pub(crate) fn database_reachable(&self, namespace: &str, name: &str, reachable: bool) {
        self.database_reachable.get_or_create(&object(namespace, name)).set(i64::from(reachable));
    }

    /// The protection of a database was reset by others, and restored.
    pub(crate) fn database_repaired(&self, namespace: &str, name: &str) {
        self.database_repairs.get_or_create(&object(namespace, name)).inc();
    }

    /// How old the newest verified backup of a schedule is.
    pub(crate) fn backup_freshness(&self, namespace: &str, name: &str, fresh: bool, last_verified: Option<i64>) {
        self.backup_fresh.get_or_create(&object(namespace, name)).set(i64::from(fresh));
        if let Some(second) = last_verified {
            self.last_verified.get_or_create(&object(namespace, name)).set(second);
        }
    }

    /// The last drill of a schedule: whether it restored everything, and when and in how many seconds one did, on which server.
    pub(crate) fn drill(
        &self,
        namespace: &str,
        name: &str,
        drilled: Option<bool>,
        last: Option<(i64, i64)>,
        server: Option<&BTreeMap<String, String>>,
    ) {
        let schedule = object(namespace, name);
        if let Some(drilled) = drilled {
            self.drilled.get_or_create(&schedule).set(i64::from(drilled));
        }
        if let Some((second, seconds)) = last {
            self.last_drill.get_or_create(&schedule).set(second);
            self.drill_seconds.get_or_create(&schedule).set(seconds);
        }
        let Some(server) = server else { return };
        let of = |setting: &str| server.get(setting).cloned().unwrap_or_default();
        let labels = DrillServerLabels {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: of("version"),
            cpus: of("cpus"),
            fsync: of("fsync"),
            maintenance_work_mem: of("maintenance_work_mem"),
            max_wal_size: of("max_wal_size"),
            shared_buffers: of("shared_buffers"),
            wal_level: of("wal_level"),
        };
        let mut known = locked(&self.drill_servers);
        if let Some(before) = known.insert(schedule, labels.clone()).filter(|before| *before != labels) {
            self.drill_server.remove(&before);
        }
        self.drill_server.get_or_create(&labels).set(1);
    }

    /// How many databases a policy selects, how many of them are compliant, and its violations by rule.
    pub(crate) fn policy(
        &self,
        policy: &str,
        databases: usize,
        compliant: usize,
        violations: &[(&'static str, usize)],
    ) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let label = PolicyLabel { policy: policy.to_owned() };
        self.policy_databases.get_or_create(&label).set(number(databases));
        self.policy_compliant.get_or_create(&label).set(number(compliant));
        for (rule, count) in violations {
            let labels = RuleLabels { policy: policy.to_owned(), rule };
            if *count == 0 {
                // A series for each rule of each policy would mostly say 0.
                self.policy_violations.remove(&labels);
            } else {
                self.policy_violations.get_or_create(&labels).set(number(*count));
            }
        }
    }

    /// A policy was deleted: its series end. `rules` are all that it can have had.
    pub(crate) fn forget_policy(&self, policy: &str, rules: impl IntoIterator<Item = &'static str>) {
        let label = PolicyLabel { policy: policy.to_owned() };
        self.policy_databases.remove(&label);
        self.policy_compliant.remove(&label);
        for rule in rules {
            self.policy_violations.remove(&RuleLabels { policy: policy.to_owned(), rule });
        }
    }

    /// How many losses of rows of a schedule are not acknowledged.
    pub(crate) fn backup_shrinks(&self, namespace: &str, name: &str, shrinks: usize) {
        self.backup_shrinks.get_or_create(&object(namespace, name)).set(i64::try_from(shrinks).unwrap_or(i64::MAX));
    }

    /// A database was deleted: its series end.
    pub(crate) fn forget_database(&self, namespace: &str, name: &str) {
        self.database_reachable.remove(&object(namespace, name));
        self.database_repairs.remove(&object(namespace, name));
    }

    /// A guard was deleted: its series end.
    pub(crate) fn forget_guard(&self, namespace: &str, name: &str) {
        let guard = object(namespace, name);
        self.guard_enforced.remove(&guard);
        self.guard_steps.remove(&guard);
        self.drift_repairs.remove(&guard);
        for table in self.tables().remove(&guard).into_iter().flatten() {
            let labels = TableLabels { namespace: namespace.to_owned(), guard: name.to_owned(), table };
            self.blocked_attempts.remove(&labels);
            self.window_exhausted.remove(&labels);
            for kind in ["rows", "cascade"] {
                let TableLabels { namespace, guard, table } = labels.clone();
                let labels = WindowLabels { namespace, guard, table, kind: kind.to_owned() };
                self.window_removed.remove(&labels);
                self.window_limit.remove(&labels);
            }
        }
    }

    /// A schedule was deleted: its series end.
    pub(crate) fn forget_schedule(&self, namespace: &str, name: &str) {
        self.backup_fresh.remove(&object(namespace, name));
        self.last_verified.remove(&object(namespace, name));
        self.backup_shrinks.remove(&object(namespace, name));
        self.drilled.remove(&object(namespace, name));
        self.last_drill.remove(&object(namespace, name));
        self.drill_seconds.remove(&object(namespace, name));
        let mut known = locked(&self.drill_servers);
        if let Some(labels) = known.remove(&object(namespace, name)) {
            self.drill_server.remove(&labels);
        }
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<ObjectLabels, HashSet<String>>> {
        locked(&self.tables)
    }
}

fn object(namespace: &str, name: &str) -> ObjectLabels {
    ObjectLabels { namespace: namespace.to_owned(), name: name.to_owned() }
}
