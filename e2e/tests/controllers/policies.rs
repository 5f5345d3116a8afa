//! Policies: the fleet evaluated, objects of templates created and kept, clusters of other operators, reports. Each test has an
//! operator that runs policies only, and policies that select its own namespaces. One at a time: such an operator runs the
//! policies of all tests.

use crate::fixture::{Fixture, refused};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use pgrail_crds::{BackupSchedule, GuardrailPolicy, ProtectedDatabase, TableGuard, Violation};
use pgrail_e2e::{
    Cluster, Operator, TestNamespace, condition, daily_schedule, eventually, field, table_guard, wait_for,
};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tokio::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// An operator that runs policies, and one policy.
struct Policies {
    client: Client,
    name: String,
    operator: Operator,
    _alone: MutexGuard<'static, ()>,
}

impl Policies {
    async fn start(namespace: &TestNamespace) -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        let operator = Operator::start_policies(namespace).await;
        Self { client: namespace.cluster.client.clone(), name: namespace.name.clone(), operator, _alone: alone }
    }

    fn api(&self) -> Api<GuardrailPolicy> {
        Api::all(self.client.clone())
    }

    /// Applies the policy to namespaces.
    async fn apply(&self, namespaces: &[&str], spec: Value) {
        let mut spec = spec;
        spec["namespaceSelector"] = json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces}]});
        let policy = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardrailPolicy",
            "metadata": {"name": self.name}, "spec": spec});
        let parameters = PatchParams::apply("kubectl").force();
        self.api().patch(&self.name, &parameters, &Patch::Apply(&policy)).await.unwrap();
    }

    /// Waits until the policy is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&GuardrailPolicy) -> bool) -> GuardrailPolicy {
        let last = std::cell::RefCell::new(None);
        let found = eventually_or(
            what,
            || format!("{:#?}", last.borrow()),
            async || {
                let policy = self.api().get(&self.name).await.unwrap();
                last.borrow_mut().clone_from(&policy.status);
                wanted(&policy).then_some(policy)
            },
        );
        found.await
    }

    async fn until_compliant(&self, status: &str, reason: &str) -> GuardrailPolicy {
        let holds = |policy: &GuardrailPolicy| pgrail_e2e::holds(policy, "Compliant", status, reason);
        self.until(&format!("Compliant={status}, {reason}"), holds).await
    }

    /// Waits until exactly these violations are listed: database, rule and object.
    async fn until_violated(&self, expected: &[(&str, &str, &str)]) -> GuardrailPolicy {
        let wanted = |policy: &GuardrailPolicy| {
            let found: Vec<_> =
                violations(policy).iter().map(|it| (it.database.clone(), it.rule.clone(), it.object.clone())).collect();
            found.len() == expected.len()
                && expected.iter().all(|(a, b, c)| found.contains(&((*a).to_owned(), (*b).to_owned(), (*c).to_owned())))
        };
        self.until(&format!("violations {expected:?}"), wanted).await
    }

    async fn finish(self) {
        self.api().delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.operator.kill().await;
    }
}

async fn eventually_or<T>(what: &str, state: impl Fn() -> String, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = check().await {
            return answer;
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(90), "gave up: {what}\n{}", state());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn violations(policy: &GuardrailPolicy) -> Vec<Violation> {
    policy.status.clone().unwrap_or_default().violations
}

fn counts(policy: &GuardrailPolicy) -> (Option<i64>, Option<i64>) {
    policy.status.as_ref().map_or((None, None), |status| (status.databases, status.compliant))
}

fn without_backups() -> Value {
    json!({"backups": {"required": false}})
}

/// Policies that exist before the operator: all of them wait for the same objects to be listed.
#[tokio::test]
async fn every_policy_is_evaluated_when_the_operator_starts() {
    let namespace = Cluster::connect().await.namespace("starting").await;
    let alone = ONE_AT_A_TIME.lock().await;
    let policies = Api::<GuardrailPolicy>::all(namespace.cluster.client.clone());
    let names: Vec<String> = (0..5).map(|number| format!("{}-{number}", namespace.name)).collect();
    for name in &names {
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
        let policy = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardrailPolicy", "metadata": {"name": name},
            "spec": {"namespaceSelector": selector}});
        let parameters = PatchParams::apply("kubectl").force();
        policies.patch(name, &parameters, &Patch::Apply(&policy)).await.unwrap();
    }
    let operator = Operator::start_policies(&namespace).await;
    for name in &names {
        eventually(&format!("{name} is evaluated"), async || {
            let policy = policies.get(name).await.unwrap();
            pgrail_e2e::holds(&policy, "Compliant", "Unknown", "NoDatabases").then_some(())
        })
        .await;
    }
    operator.kill().await;
    for name in &names {
        policies.delete(name, &DeleteParams::default()).await.unwrap();
    }
    drop(alone);
    namespace.finish().await;
}

#[tokio::test]
async fn a_fleet_is_evaluated_as_it_changes() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_database(&server, "policyfleet").await;
    let namespace = &fixture.namespace;
    assert!(fixture.operator.log().contains("limited to one namespace"), "it does not run policies, and reports that");
    let policies = Policies::start(namespace).await;
    let shop = format!("{}/shop", namespace.name);
    policies.apply(&[&namespace.name], without_backups()).await;
    let unguarded = "guards.minRowsAtRisk";
    let users = [
        (&*shop, unguarded, "public.users"),
        (&*shop, unguarded, "public.leads"),
        (&*shop, unguarded, "public.conversations"),
    ];
    let violated = policies.until_violated(&users).await;
    assert_eq!(counts(&violated), (Some(1), Some(0)));
    assert!(condition(&violated, "Compliant").unwrap().2.contains(&shop), "{violated:?}");
    assert!(violations(&violated).iter().all(|it| it.message.contains("add it to spec.tables")), "each with a remedy");

    fixture.guard(&table_guard(&["users", "leads", "conversations"]), "Enforced", "True", "Verified").await;
    let compliant = policies.until_compliant("True", "AllCompliant").await;
    assert_eq!(counts(&compliant), (Some(1), Some(1)));
    eventually("the metrics are those of the status", async || {
        let (series, policy) = (policies.operator.series().await, &policies.name);
        let has = |name: &str| series.contains(&format!("pgrail_policy_{name}{{policy=\"{policy}\"}} 1\n"));
        let violated = series.contains(&format!("pgrail_policy_violations{{policy=\"{policy}\""));
        (has("databases") && has("compliant_databases") && !violated).then_some(())
    })
    .await;

    // A guard that is too loose, and then its limits again.
    let mut loose = table_guard(&["users", "leads", "conversations"]);
    loose["spec"]["limits"] = json!({"maxRows": 5000, "maxCascadeRows": 1000});
    fixture.guard(&loose, "Enforced", "True", "Verified").await;
    let violated = policies.until_violated(&[(&shop, "guards.maxLimits", "core")]).await;
    assert!(violations(&violated)[0].message.contains("the policy allows 1000"), "{violated:?}");
    fixture.guard(&table_guard(&["users", "leads", "conversations"]), "Enforced", "True", "Verified").await;
    policies.until_compliant("True", "AllCompliant").await;

    // Backups are demanded as well.
    policies.apply(&[&namespace.name], json!({})).await;
    policies.until_violated(&[(&shop, "backups.required", "")]).await;
    policies.apply(&[&namespace.name], without_backups()).await;
    policies.until_compliant("True", "AllCompliant").await;

    // Not known is not compliant.
    let suspend = |suspend: bool| json!({"spec": {"suspend": suspend}});
    let databases = namespace.api::<ProtectedDatabase>();
    databases.patch("shop", &PatchParams::default(), &Patch::Merge(suspend(true))).await.unwrap();
    policies.until_violated(&[(&shop, "Suspended", "")]).await;
    databases.patch("shop", &PatchParams::default(), &Patch::Merge(suspend(false))).await.unwrap();
    policies.until_compliant("True", "AllCompliant").await;
    namespace.secret("shop-login", &[("uri", "postgres://nobody:wrong@127.0.0.1:1/shop")]).await;
    let slower = json!({"spec": {"connection": {"port": 1}}});
    databases.patch("shop", &PatchParams::default(), &Patch::Merge(slower)).await.unwrap();
    policies.until_violated(&[(&shop, "Unreachable", "")]).await;

    // An exclusion is seen.
    let label = json!({"metadata": {"labels": {"sandbox": "true"}}});
    databases.patch("shop", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    let mut excluding = without_backups();
    excluding["excludeDatabases"] = json!({"matchLabels": {"sandbox": "true"}});
    policies.apply(&[&namespace.name], excluding).await;
    let excluded = policies.until_compliant("Unknown", "NoDatabases").await;
    let status = excluded.status.unwrap();
    assert_eq!((status.excluded, status.excluded_count), (vec![shop], Some(1)));
    policies.finish().await;
    fixture.finish().await;
}

fn template() -> Value {
    json!({
        "guards": {"maxLimits": {"maxRows": 100, "maxCascadeRows": 1000}}, "backups": {"required": false},
        "templates": {"tableGuard": {"tables": [{"schema": "public", "name": "*"}], "limits": {"maxRows": 10}}},
    })
}

#[tokio::test]
async fn a_template_is_a_floor_that_nobody_in_the_namespace_can_weaken() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_database(&server, "policyfloor").await;
    let namespace = &fixture.namespace;
    let policies = Policies::start(namespace).await;
    policies.apply(&[&namespace.name], template()).await;
    let name = format!("{}-shop", policies.name);
    let guard = fixture.guard_until(&name, "Enforced", "True", "Verified").await;
    assert_eq!(guard.labels()["pgrail.dev/policy"], policies.name);
    assert!(guard.owner_references().is_empty(), "nothing that deletes the policy deletes the guard");
    namespace.event(&name, "PolicyObjectCreated", &policies.name).await;
    policies.until_compliant("True", "AllCompliant").await;
    assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id <= 11").await, "PGR01");

    // Looser limits and an allowance, added by somebody with the right to edit guards: gone again, and reported.
    let api = namespace.api::<TableGuard>();
    let looser = json!({"spec": {"limits": {"maxRows": 400, "maxTransactionRows": 100_000}, "mode": "Warn",
        "allowances": [{"role": "postgres", "limits": {"maxRows": 400}}]}, "metadata": {"labels": {"pgrail.dev/policy": null}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(looser)).await.unwrap();
    let is_restored = |guard: &TableGuard| guard.spec.limits.max_rows == 10 && guard.spec.allowances.is_empty();
    let restored: TableGuard = wait_for(namespace, &name, "the guard is as the template declares", is_restored).await;
    assert_eq!(restored.spec.limits.max_transaction_rows, None);
    assert_eq!(restored.labels()["pgrail.dev/policy"], policies.name);
    namespace.event(&name, "PolicyObjectRestored", "spec.limits").await;
    fixture.guard_until(&name, "Enforced", "True", "Verified").await;

    // Deleted: created again, and the database was guarded all the time.
    let uid = restored.uid();
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("the guard is created again", async || {
        assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id <= 11").await, "PGR01");
        let found = api.get_opt(&name).await.unwrap()?;
        (found.uid() != uid).then_some(())
    })
    .await;
    namespace.event(&name, "PolicyObjectRestored", "deleted").await;
    fixture.guard_until(&name, "Enforced", "True", "Verified").await;

    // A looser guard beside it is reported, and the strictest limits hold.
    let mut own = table_guard(&["users"]);
    own["spec"]["limits"] = json!({"maxRows": 400, "maxCascadeRows": 1000});
    fixture.guard(&own, "Enforced", "True", "Verified").await;
    let shop = format!("{}/shop", namespace.name);
    policies.until_violated(&[(&shop, "guards.maxLimits", "core")]).await;
    assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id <= 11").await, "PGR01");

    // The policy goes: its guard stays, and is a guard like any other.
    let kept = api.get(&name).await.unwrap().uid();
    policies.finish().await;
    assert_eq!(api.get(&name).await.unwrap().uid(), kept);
    assert_eq!(refused(&fixture.app, "DELETE FROM users WHERE id <= 11").await, "PGR01");
    fixture.finish().await;
}

#[tokio::test]
async fn an_object_of_a_user_is_never_changed_and_what_cannot_be_created_is_reported() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.namespace("policy-taken").await;
    let database =
        json!({"metadata": {"name": "shop"}, "spec": {"connection": {"secretRef": {"name": "none"}}, "suspend": true}});
    namespace.apply::<ProtectedDatabase>(&database).await;
    // A schedule with the name that the policy would give it.
    let name = format!("{}-shop", namespace.name);
    let storage = json!({"url": "s3://mine/x"});
    let schedule = json!({"metadata": {"name": name}, "spec": {"databaseRef": {"name": "shop"}, "schedule": daily_schedule(), "storage": storage}});
    let before = namespace.apply::<BackupSchedule>(&schedule).await;
    let policies = Policies::start(&namespace).await;
    let mut spec =
        json!({"templates": {"backupSchedule": {"schedule": "H H * * *", "storage": {"url": "s3://backups/fleet"}}}});
    policies.apply(&[&namespace.name], spec.clone()).await;
    let taken = |policy: &GuardrailPolicy| {
        violations(policy)
            .iter()
            .any(|it| it.rule == "templates.backupSchedule" && it.message.contains("did not create"))
    };
    policies.until("the name is taken", taken).await;
    let after = namespace.api::<BackupSchedule>().get(&name).await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version(), "untouched");
    namespace.delete::<BackupSchedule>(&name).await;
    let created = |schedule: &BackupSchedule| schedule.spec.storage.url == "s3://backups/fleet";
    wait_for(&namespace, &name, "the policy's own schedule", created).await;
    // What the apiserver refuses, in its words.
    spec["templates"]["backupSchedule"]["schedule"] = "99 1 * * *".into();
    policies.apply(&[&namespace.name], spec.clone()).await;
    let refused = |policy: &GuardrailPolicy| {
        violations(policy)
            .iter()
            .any(|it| it.rule == "templates.backupSchedule" && it.message.contains("minute must be 0 to 59"))
    };
    policies.until("the schedule is refused", refused).await;
    // What is no template at all.
    spec["templates"]["backupSchedule"]["shedule"] = "H H * * *".into();
    policies.apply(&[&namespace.name], spec).await;
    let stalled = |policy: &GuardrailPolicy| {
        condition(policy, "Stalled")
            .is_some_and(|(_, reason, message)| reason == "InvalidSpec" && message.contains("shedule"))
    };
    policies.until("Stalled", stalled).await;
    policies.finish().await;
    namespace.finish().await;
}

/// A CRD with the names of another operator's, and any content.
fn other_crd(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true, "schema": schema}]},
    })
}

async fn install(client: &Client, crd: &Value) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply("pgrail-tests").force(), &Patch::Apply(crd)).await.unwrap();
    kube::runtime::wait::await_condition(api, name, kube::runtime::conditions::is_crd_established()).await.unwrap();
}

async fn uninstall(client: &Client, name: &str) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    if api.delete(name, &DeleteParams::default()).await.is_ok() {
        eventually("the CRD is gone", async || api.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }
}

const OTHERS: [(&str, &str, &str, &str); 3] = [
    ("postgresql.cnpg.io", "v1", "Cluster", "clusters"),
    ("postgres-operator.crunchydata.com", "v1beta1", "PostgresCluster", "postgresclusters"),
    ("acid.zalan.do", "v1", "postgresql", "postgresqls"),
];

#[tokio::test]
async fn clusters_of_other_operators_are_noticed_whenever_their_kinds_appear() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.namespace("policy-others").await;
    for (group, _, _, plural) in OTHERS {
        uninstall(&cluster.client, &format!("{plural}.{group}")).await;
    }
    let policies = Policies::start(&namespace).await;
    policies.apply(&[&namespace.name], without_backups()).await;
    policies.until_compliant("Unknown", "NoDatabases").await;
    // The kinds appear while the operator runs.
    let mut expected = Vec::new();
    for (group, version, kind, plural) in OTHERS {
        install(&cluster.client, &other_crd(group, version, kind, plural)).await;
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace.name, &resource);
        let object = DynamicObject::new("main", &resource).data(json!({"spec": {"instances": 3}}));
        // The new kind is served a moment after it is established.
        eventually("the cluster is created", async || api.create(&PostParams::default(), &object).await.ok()).await;
        expected.push((format!("{}/main", namespace.name), "Undeclared", format!("{plural}.{group}/main")));
    }
    let borrowed: Vec<_> = expected.iter().map(|(a, b, c)| (a.as_str(), *b, c.as_str())).collect();
    let violated = policies.until_violated(&borrowed).await;
    assert_eq!(counts(&violated), (Some(3), Some(0)));
    assert!(violations(&violated).iter().all(|it| it.message.contains("has no ProtectedDatabase: create one")));
    // One of them is declared, by its Service; suspended, so that it is in the list for another reason.
    let database = json!({"metadata": {"name": "shop"},
        "spec": {"connection": {"secretRef": {"name": "shop-pgrail"}, "host": "main-rw"}, "suspend": true}});
    namespace.apply::<ProtectedDatabase>(&database).await;
    let shop = format!("{}/shop", namespace.name);
    policies.until_violated(&[(&shop, "Suspended", ""), borrowed[1], borrowed[2]]).await;
    // A kind that goes takes its clusters along, and stops nothing.
    for (group, _, _, plural) in OTHERS {
        uninstall(&cluster.client, &format!("{plural}.{group}")).await;
    }
    policies.until_violated(&[(&shop, "Suspended", "")]).await;
    policies.finish().await;
    namespace.finish().await;
}

#[tokio::test]
async fn results_are_open_reports_where_the_cluster_has_them() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.namespace("policy-reports").await;
    let other = cluster.namespace("policy-reports").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/openreports.sh");
    let printed = Command::new(script).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let path = String::from_utf8(printed.stdout).unwrap();
    let crd: Value = serde_norway::from_str(&std::fs::read_to_string(path.trim()).unwrap()).unwrap();
    install(&cluster.client, &crd).await;
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report"), "reports");
    for namespace in [&namespace, &other] {
        let database = json!({"metadata": {"name": "shop"}, "spec": {"connection": {"secretRef": {"name": "none"}}, "suspend": true}});
        namespace.apply::<ProtectedDatabase>(&database).await;
    }
    let policies = Policies::start(&namespace).await;
    policies.apply(&[&namespace.name, &other.name], without_backups()).await;
    let report = async |namespace: &TestNamespace| {
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace.name, &resource);
        api.list(&ListParams::default()).await.unwrap().items.into_iter().next()
    };
    let first = eventually("a report of the namespace", async || report(&namespace).await).await;
    assert_eq!(first.name_any(), format!("pgrail-{}", policies.name));
    assert_eq!(field(&first, "/summary/fail"), 1);
    let result = field(&first, "/results/0");
    assert_eq!(
        (&result["rule"], &result["result"], &result["source"]),
        (&json!("Suspended"), &json!("fail"), &json!("pgrail"))
    );
    assert_eq!(result["resources"][0]["name"], "shop");
    eventually("a report of the other namespace", async || report(&other).await).await;
    // Results that are the same are not written again: the policy is assessed for another reason meanwhile.
    let reconciles = async || policies.operator.metric("pgrail_reconciles_total", &["guardrailpolicy"]).await;
    let before = reconciles().await;
    namespace.annotate::<ProtectedDatabase>("shop", "example.com/note", Some("changed")).await;
    eventually("assessed again", async || (reconciles().await > before).then_some(())).await;
    assert_eq!(report(&namespace).await.unwrap().resource_version(), first.resource_version());
    // Other results are.
    let second = json!({"metadata": {"name": "other"}, "spec": {"connection": {"secretRef": {"name": "none"}}, "suspend": true}});
    namespace.apply::<ProtectedDatabase>(&second).await;
    eventually("both databases are in the report", async || {
        (field(&report(&namespace).await?, "/summary/fail") == 2).then_some(())
    })
    .await;
    // A namespace that is not selected any more has none.
    policies.apply(&[&namespace.name], without_backups()).await;
    eventually("the other report is deleted", async || report(&other).await.is_none().then_some(())).await;
    policies.finish().await;
    uninstall(&cluster.client, "reports.openreports.io").await;
    namespace.finish().await;
    other.finish().await;
}

#[tokio::test]
async fn many_databases_that_change_at_once_are_few_writes_of_a_bounded_status() {
    const DATABASES: usize = 300;
    let cluster = Cluster::connect().await;
    let namespace = cluster.namespace("policy-many").await;
    let policies = Policies::start(&namespace).await;
    policies.apply(&[&namespace.name], without_backups()).await;
    policies.until_compliant("Unknown", "NoDatabases").await;
    let writes = async || policies.operator.metric("pgrail_status_writes_total", &["guardrailpolicy"]).await;
    let before = writes().await;
    let started = std::time::Instant::now();
    for number in 0..DATABASES {
        let database = json!({"metadata": {"name": format!("shop-{number}")}, "spec": {"connection": {"secretRef": {"name": "none"}}}});
        namespace.apply::<ProtectedDatabase>(&database).await;
    }
    let wanted = |policy: &GuardrailPolicy| counts(policy) == (i64::try_from(DATABASES).ok(), Some(0));
    let policy = policies.until("all are counted", wanted).await;
    let status = policy.status.clone().unwrap();
    assert_eq!((status.violations.len(), status.violation_count), (100, i64::try_from(DATABASES).ok()));
    assert!(serde_json::to_vec(&status).unwrap().len() <= 64 * 1024);
    assert!(status.violations.iter().all(|it| it.rule == "NotChecked"), "a database without a status is a violation");
    // At most one assessment in a second, whatever the size of the fleet.
    let seconds = f64::from(u32::try_from(started.elapsed().as_secs()).unwrap());
    let after = writes().await;
    assert!(after - before <= seconds + 2.0, "{} writes in {seconds} s", after - before);
    // And none where nothing is new.
    let reconciles = async || policies.operator.metric("pgrail_reconciles_total", &["guardrailpolicy"]).await;
    for _ in 0..3 {
        let assessed = reconciles().await;
        namespace.annotate::<ProtectedDatabase>("shop-0", "example.com/note", Some(&assessed.to_string())).await;
        eventually("assessed again", async || (reconciles().await > assessed).then_some(())).await;
    }
    let last = policies.api().get(&policies.name).await.unwrap();
    assert_eq!(last.resource_version(), policy.resource_version());
    let memory = policies.operator.memory();
    println!("{DATABASES} databases: {memory} bytes resident, {} status writes in {seconds} s", after - before);
    assert!(memory < 64 << 20, "{memory} bytes resident");
    policies.finish().await;
    namespace.finish().await;
}
