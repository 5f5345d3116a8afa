use super::*;
use crate::backup_jobs::examples::{backup, schedule, succeeded};
use serde_json::{Value, json};

const NOW: &str = "2026-11-23T12:00:00Z";

fn merged(mut whole: Value, patch: &Value) -> Value {
    for (key, value) in patch.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "why", "observedGeneration": 1,
           "lastTransitionTime": "2026-11-23T00:00:00Z"})
}

fn at_risk(table: &str, rows: i64, guarded: bool) -> Value {
    json!({"table": table, "rows": 100, "cascadeTables": 4, "rowsAtRisk": rows, "perRow": 13, "guarded": guarded})
}

/// A database whose only table at risk is guarded.
fn status() -> Value {
    json!({"blastRadius": [at_risk("public.users", 1_300_000, true)], "unguardedAtRisk": 0, "tables": 5,
           "conditions": [condition("Ready", "True", "AsDeclared"), condition("Reachable", "True", "Connected")]})
}

fn database(status: Value) -> ProtectedDatabase {
    serde_json::from_value(json!({
        "metadata": {"name": "shop", "namespace": "shop", "uid": "database-uid", "generation": 1},
        "spec": {"connection": {"secretRef": {"name": "shop-pgrail"}}}, "status": status,
    }))
    .unwrap()
}

fn guard(name: &str, spec: Value) -> TableGuard {
    let spec =
        merged(json!({"databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}]}), &spec);
    let conditions =
        [condition("Enforced", "True", "Verified"), condition("TamperResistant", "True", "AdministratorsOnly")];
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1},
        "spec": spec, "status": {"conditions": conditions}}))
    .unwrap()
}

/// The database, a guard, a schedule, and a backup that was drilled.
struct Shop {
    database: ProtectedDatabase,
    guards: Vec<TableGuard>,
    schedules: Vec<BackupSchedule>,
    backups: Vec<DatabaseBackup>,
    overdue: Vec<Overdue>,
}

impl Default for Shop {
    fn default() -> Self {
        let drilled = merged(
            succeeded("2026-11-23T02:15:00Z"),
            &json!({"verification": {"level": "Drill", "time": "2026-11-23T05:00:00Z"}}),
        );
        Self {
            database: database(status()),
            guards: vec![guard("core", json!({}))],
            schedules: vec![schedule(json!({}))],
            backups: vec![backup("b", "2026-11-23T02:15:00Z", drilled)],
            overdue: Vec::new(),
        }
    }
}

impl Shop {
    fn facts(&self) -> Facts<'_> {
        Facts {
            database: &self.database,
            guards: self.guards.iter().collect(),
            schedules: self.schedules.iter().collect(),
            backups: self.backups.iter().collect(),
            overdue: self.overdue.clone(),
        }
    }

    fn evaluated(&self, policy: Value) -> Evaluation {
        let policy = serde_json::from_value(policy).unwrap();
        evaluate(&policy, &self.facts(), NOW.parse().unwrap())
    }

    /// Rules and objects of the violations.
    fn violates(&self, policy: Value) -> Vec<(&'static str, String)> {
        self.evaluated(policy).findings.into_iter().map(|it| (it.rule.as_str(), it.object)).collect()
    }
}

fn found(rule: &'static str, object: &str) -> Vec<(&'static str, String)> {
    vec![(rule, object.to_owned())]
}

#[test]
fn a_database_that_meets_everything_is_compliant_until_its_backup_is_too_old() {
    let evaluation = Shop::default().evaluated(json!({}));
    assert_eq!(evaluation.findings, Vec::new());
    // maxAge 26h after the snapshot, before the other times.
    assert_eq!(evaluation.next_change, Some("2026-11-24T04:15:00Z".parse().unwrap()));
}

#[test]
fn what_is_not_known_is_never_compliant() {
    let shop = |database| Shop { database, ..Shop::default() };
    let without_status = shop(database(Value::Null));
    assert_eq!(without_status.violates(json!({})), found("NotChecked", ""));
    let mut suspended = database(status());
    suspended.spec.suspend = true;
    assert_eq!(shop(suspended).violates(json!({})), found("Suspended", ""));
    let with = |conditions: Value| shop(database(merged(status(), &json!({"conditions": conditions}))));
    let unreachable =
        with(json!([condition("Ready", "False", "Unreachable"), condition("Reachable", "False", "Timeout")]));
    assert_eq!(unreachable.violates(json!({})), found("Unreachable", ""));
    assert_eq!(with(json!([condition("Ready", "False", "ReadOnlyServer")])).violates(json!({})), found("NotReady", ""));
    assert_eq!(with(json!([condition("Ready", "Unknown", "Pending")])).violates(json!({})), found("NotReady", ""));
    assert_eq!(with(json!([])).violates(json!({})), found("NotChecked", ""));
    let mut changed = database(status());
    changed.metadata.generation = Some(2);
    assert_eq!(shop(changed).violates(json!({})), found("NotChecked", ""), "the status is of an earlier spec");
    let mut not_surveyed = status();
    not_surveyed.as_object_mut().unwrap().remove("unguardedAtRisk");
    assert_eq!(shop(database(not_surveyed)).violates(json!({})), found("NotChecked", ""));
    let due = NOW.parse().unwrap();
    let overdue = vec![Overdue { guard: "core".into(), due }];
    assert_eq!(Shop { overdue, ..Shop::default() }.violates(json!({})), found("NotChecked", "core"));
}

#[test]
fn a_table_at_risk_needs_a_guard_that_is_declared_and_installed() {
    let table = |guarded| {
        let blast_radius = json!([at_risk("public.users", 10_001, guarded), at_risk("public.small", 10_000, false)]);
        database(merged(status(), &json!({"blastRadius": blast_radius, "unguardedAtRisk": 1})))
    };
    let unguarded = found("guards.minRowsAtRisk", "public.users");
    let shop = |guarded, guards| Shop { database: table(guarded), guards, ..Shop::default() };
    assert_eq!(shop(true, vec![guard("core", json!({}))]).violates(json!({})), Vec::new());
    assert_eq!(shop(true, Vec::new()).violates(json!({})), unguarded, "installed, but nothing keeps it");
    assert_eq!(
        shop(false, vec![guard("core", json!({}))]).violates(json!({})),
        unguarded,
        "declared, but not installed"
    );
    let other = json!({"tables": [{"schema": "public", "name": "o*"}]});
    assert_eq!(shop(true, vec![guard("core", other)]).violates(json!({})), unguarded);
    let excluded = json!({"tables": [{"schema": "*", "name": "*", "exclude": ["us*"]}]});
    assert_eq!(shop(true, vec![guard("core", excluded)]).violates(json!({})), unguarded);
    let globs = json!({"tables": [{"schema": "pub*", "name": "*"}]});
    assert_eq!(shop(true, vec![guard("core", globs)]).violates(json!({})), Vec::new());
    let lower = json!({"guards": {"minRowsAtRisk": 9_999}});
    let both = Shop { database: table(true), ..Shop::default() }.violates(lower);
    assert_eq!(both, found("guards.minRowsAtRisk", "public.small"));
}

#[test]
fn tables_that_the_status_does_not_list_are_counted_where_they_can_be_at_risk() {
    let shop = |listed: Value, unguarded: i64| {
        let status = merged(status(), &json!({"blastRadius": listed, "unguardedAtRisk": unguarded}));
        Shop { database: database(status), ..Shop::default() }
    };
    let users = || at_risk("public.users", 1_300_000, true);
    // Its least unguarded table is not at risk, so that the ones beyond are not either.
    let least = json!([users(), at_risk("public.small", 9_000, false)]);
    assert_eq!(shop(least, 30).violates(json!({})), Vec::new());
    let unknown = shop(json!([users()]), 30).violates(json!({}));
    assert_eq!(unknown, found("guards.minRowsAtRisk", ""));
}

#[test]
fn a_guard_that_is_not_enforced_does_not_count() {
    let violates = |policy: Value, change: &dyn Fn(&mut TableGuard)| {
        let mut core = guard("core", json!({}));
        change(&mut core);
        Shop { guards: vec![core], ..Shop::default() }.violates(policy)
    };
    let set = |guard: &mut TableGuard, kind: &str, status: &str, reason: &str| {
        let conditions = &mut guard.status.as_mut().unwrap().conditions;
        conditions.retain(|it| it.type_ != kind);
        conditions.push(serde_json::from_value(condition(kind, status, reason)).unwrap());
    };
    let not_enforced = found("guards.requiredMode", "core");
    assert_eq!(violates(json!({}), &|it| set(it, "Enforced", "False", "Drifted")), not_enforced);
    assert_eq!(violates(json!({}), &|it| set(it, "Enforced", "Unknown", "DatabaseNotReady")), not_enforced);
    assert_eq!(violates(json!({}), &|it| it.status = None), found("NotChecked", "core"));
    assert_eq!(violates(json!({}), &|it| it.metadata.generation = Some(2)), found("NotChecked", "core"));
    let deleted = |it: &mut TableGuard| {
        it.metadata.deletion_timestamp = Some(serde_json::from_value(json!(NOW)).unwrap());
    };
    assert_eq!(violates(json!({}), &deleted), found("guards.minRowsAtRisk", "public.users"));
    // Warn is enough where the policy says so, once it is installed.
    let warn = |it: &mut TableGuard| {
        it.spec.mode = pgrail_crds::GuardMode::Warn;
        set(it, "Enforced", "False", "Warn");
        set(it, "Ready", "True", "AsDeclared");
    };
    let required = json!({"guards": {"requiredMode": "Warn"}});
    assert_eq!(violates(required, &warn), Vec::new());
    let both = violates(json!({}), &warn);
    let expected = [found("guards.minRowsAtRisk", "public.users"), not_enforced].concat();
    assert_eq!(both, expected);
    let resistant = json!({"guards": {"requireTamperResistant": true}});
    let owner = |it: &mut TableGuard| set(it, "TamperResistant", "False", "OwnerCanDisable");
    assert_eq!(violates(json!({}), &owner), Vec::new(), "only where it is required");
    assert_eq!(violates(resistant, &owner), found("guards.requireTamperResistant", "core"));
}

#[test]
fn looser_limits_are_found_wherever_they_are() {
    let violates = |spec: Value| Shop { guards: vec![guard("core", spec)], ..Shop::default() }.violates(json!({}));
    let looser = found("guards.maxLimits", "core");
    assert_eq!(violates(json!({"limits": {"maxRows": 1000, "maxCascadeRows": 10_000}})), Vec::new());
    assert_eq!(violates(json!({"limits": {"maxRows": 1001}})), looser);
    assert_eq!(violates(json!({"limits": {"maxCascadeRows": 10_001}})), looser);
    assert_eq!(violates(json!({"limits": {"maxTransactionRows": 100_001}})), looser);
    let of_table = json!({"tables": [{"schema": "public", "name": "users", "limits": {"maxRows": 5000}}]});
    assert_eq!(violates(of_table), looser);
    // A strict one beside it does not make it right: it is reported.
    let guards = vec![guard("core", json!({"limits": {"maxRows": 1001}})), guard("strict", json!({}))];
    assert_eq!(Shop { guards, ..Shop::default() }.violates(json!({})), looser);
    let allowances = json!({"allowances": [{"role": "purge", "limits": {"maxRows": 1_000_000}}]});
    let guards = || vec![guard("core", allowances.clone())];
    assert_eq!(Shop { guards: guards(), ..Shop::default() }.violates(json!({})), Vec::new());
    let forbidden = json!({"guards": {"allowAllowances": false}});
    assert_eq!(
        Shop { guards: guards(), ..Shop::default() }.violates(forbidden),
        found("guards.allowAllowances", "core")
    );
}

#[test]
fn a_guard_of_the_policy_is_needed_where_the_users_leave_a_gap() {
    let policy: GuardrailPolicySpec = serde_json::from_value(json!({})).unwrap();
    let rules = policy.guards;
    let needs = |guards: Vec<TableGuard>| {
        let shop = Shop { guards, ..Shop::default() };
        needs_guard(&rules, &shop.facts(), |guard| guard.name_any() == "floor-shop")
    };
    assert!(needs(Vec::new()));
    assert!(!needs(vec![guard("core", json!({}))]));
    assert!(needs(vec![guard("floor-shop", json!({}))]), "its own does not count");
    assert!(needs(vec![guard("core", json!({"limits": {"maxRows": 1001}}))]), "looser");
    assert!(needs(vec![guard("core", json!({"mode": "Warn"}))]));
    assert!(
        needs(vec![guard("core", json!({"tables": [{"schema": "public", "name": "leads"}]}))]),
        "a table is left out"
    );
    // One that is being installed is enough.
    let mut installing = guard("core", json!({}));
    installing.status = None;
    assert!(!needs(vec![installing]));
}

#[test]
fn backups_must_exist_be_young_be_read_back_and_drilled() {
    let of = |backups: Vec<DatabaseBackup>| Shop { backups, ..Shop::default() };
    let without = Shop { schedules: Vec::new(), ..Shop::default() };
    assert_eq!(without.violates(json!({})), found("backups.required", ""));
    assert_eq!(without.violates(json!({"backups": {"required": false}})), Vec::new());
    let rules = |shop: &Shop, policy| shop.violates(policy).into_iter().map(|it| it.0).collect::<Vec<_>>();
    let none = of(Vec::new());
    assert_eq!(rules(&none, json!({})), ["backups.maxAge", "backups.verifiedWithin", "backups.drilledWithin"]);
    let nothing = json!({"backups": {"maxAge": "0s", "verifiedWithin": "0s", "drilledWithin": "0s"}});
    assert_eq!(rules(&none, nothing), Vec::<&str>::new());
    let read_back = of(vec![backup("b", "2026-11-22T02:15:00Z", succeeded("2026-11-22T02:15:00Z"))]);
    assert_eq!(rules(&read_back, json!({})), ["backups.maxAge", "backups.drilledWithin"], "33 hours old");
    assert_eq!(rules(&read_back, json!({"backups": {"maxAge": "34h"}})), ["backups.drilledWithin"]);
    let checksum = merged(succeeded("2026-11-23T02:15:00Z"), &json!({"verification": {"level": "Checksum"}}));
    let compared = of(vec![backup("b", "2026-11-23T02:15:00Z", checksum)]);
    assert_eq!(rules(&compared, json!({})), ["backups.verifiedWithin", "backups.drilledWithin"]);
    let message = |shop: &Shop| {
        let found = shop.evaluated(json!({"backups": {"maxAge": "34h"}})).findings;
        found.into_iter().find(|it| it.rule == Rule::DrilledWithin).unwrap().message
    };
    assert!(message(&read_back).contains("no BackupSchedule declares spec.verification.drill: declare it"));
    // By the schedule's own record too.
    let mut drilled = Shop { backups: read_back.backups, ..Shop::default() };
    drilled.schedules[0].status =
        Some(serde_json::from_value(json!({"lastDrillTime": "2026-11-01T05:00:00Z"})).unwrap());
    assert_eq!(rules(&drilled, json!({"backups": {"maxAge": "34h"}})), Vec::<&str>::new());
    let unverified = merged(succeeded("2026-11-23T02:15:00Z"), &json!({"phase": "Discovered"}));
    let found = of(vec![backup("b", "2026-11-23T02:15:00Z", unverified)]);
    assert_eq!(rules(&found, json!({})).len(), 3, "found in a store: not verified here");
    let other = merged(succeeded("2026-11-23T02:15:00Z"), &json!({"databaseUID": "another"}));
    assert_eq!(rules(&of(vec![backup("b", "2026-11-23T02:15:00Z", other)]), json!({})).len(), 3, "of another database");
}

#[test]
fn a_partial_backup_counts_only_where_that_is_allowed() {
    let change = json!({"partial": true, "partialBecause": ["ExcludeTables"],
        "verification": {"level": "Drill", "time": "2026-11-23T05:00:00Z"}});
    let partial = |change: &Value| {
        let status = merged(succeeded("2026-11-23T02:15:00Z"), change);
        Shop { backups: vec![backup("b", "2026-11-23T02:15:00Z", status)], ..Shop::default() }
    };
    assert_eq!(partial(&change).violates(json!({})), found("backups.allowPartial", "nightly"));
    assert_eq!(partial(&change).violates(json!({"backups": {"allowPartial": true}})), Vec::new());
    let undeclared = merged(change, &json!({"partialBecause": ["UnloggedTables: public.cache"]}));
    let rules = partial(&undeclared).violates(json!({"backups": {"allowPartial": true}}));
    assert_eq!(rules.first().map(|it| it.0), Some("backups.maxAge"), "nobody declared that");
}

#[test]
fn a_message_is_bounded() {
    assert!(Finding::new(Rule::NotReady, "", "x".repeat(5000)).message.len() <= LONGEST_MESSAGE);
}
