//! The page in a real Chromium: what it shows of a real operator and a real database, with a keyboard, on a phone, and for
//! screen readers. `e2e/test.sh page` runs this; the checks themselves are in `e2e/browser/check.mjs`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use pgrail_crds::{BackupSchedule, DatabaseBackup, DatabaseRestore, GuardrailPolicy, ProtectedDatabase, TableGuard};
use pgrail_e2e::{Cluster, Operator, TestNamespace, binary, daily_schedule, eventually, holds, wait_for};
use pgrail_testing::{Client, Database, free_port};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names that a hostile owner of tables could choose.
const HOSTILE: [&str; 2] = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(2)>"];

const SCHEMA: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text);
    CREATE TABLE teams (id int PRIMARY KEY, owner_id int REFERENCES users ON DELETE SET NULL);
    CREATE TABLE leads (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE TABLE conversations (id int PRIMARY KEY, lead_id int NOT NULL REFERENCES leads ON DELETE CASCADE);
    CREATE TABLE messages (id int PRIMARY KEY, conversation_id int NOT NULL REFERENCES conversations ON DELETE CASCADE,
        reply_to int REFERENCES messages ON DELETE SET NULL);
    CREATE TABLE analytics (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE TABLE order_lines (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders ON DELETE CASCADE);
    INSERT INTO users SELECT id, 'user ' || id FROM generate_series(1, 500) id;
    INSERT INTO teams SELECT id, id FROM generate_series(1, 40) id;
    INSERT INTO leads SELECT id, id % 500 + 1 FROM generate_series(1, 5000) id;
    INSERT INTO conversations SELECT id, id % 5000 + 1 FROM generate_series(1, 10000) id;
    INSERT INTO messages SELECT id, id % 10000 + 1, NULL FROM generate_series(1, 20000) id;
    INSERT INTO analytics SELECT id, id % 500 + 1 FROM generate_series(1, 5000) id;
    INSERT INTO orders SELECT id, id % 500 + 1 FROM generate_series(1, 3000) id;
    INSERT INTO order_lines SELECT id, id % 3000 + 1 FROM generate_series(1, 9000) id;
    CREATE INDEX ON leads (user_id);
    CREATE INDEX ON conversations (lead_id);
    CREATE INDEX ON messages (conversation_id);
    CREATE INDEX ON analytics (user_id);
    CREATE INDEX ON orders (user_id);
    CREATE INDEX ON order_lines (order_id);
    ANALYZE";

#[tokio::test]
async fn the_page_in_a_browser() {
    let server = pgrail_testing::servers().remove(0);
    let database = server.database("page").await;
    let app = database.connect().await;
    app.batch_execute(SCHEMA).await.unwrap();
    let hostile = server.database("page_hostile").await;
    create_hostile(&hostile.connect().await).await;
    let namespace = Cluster::connect().await.namespace("shop").await;
    label(&namespace).await;

    // What is finished is left alone by the operator, so it is there before it starts.
    declare(&namespace, &database, &hostile).await;
    history(&namespace).await;
    let port = free_port();
    let option = format!("--page-bind-address=127.0.0.1:{port}");
    let operator = Operator::start_with(&namespace, "test", &[&option]).await;
    wait_for::<TableGuard>(&namespace, "core", "the guard is enforced", |guard| {
        holds(guard, "Enforced", "True", "Verified")
    })
    .await;
    wait_for::<TableGuard>(&namespace, "hostile", "the other guard is enforced", |guard| {
        holds(guard, "Enforced", "True", "Verified")
    })
    .await;
    use_it(&app).await;
    wait_for::<TableGuard>(&namespace, "core", "attempts and the window are reported", |guard| {
        let status = guard.status.clone().unwrap_or_default();
        let window =
            status.tables.iter().filter_map(|table| table.window.as_ref()).any(|window| window.removed.is_some());
        status.blocked_attempts == Some(3) && window
    })
    .await;
    let standalone = standalone(&hostile, &namespace);

    let modules = std::env::var("PGRAIL_BROWSER_MODULES").expect("PGRAIL_BROWSER_MODULES: run `make test-page`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/check.mjs");
    let mut check = tokio::process::Command::new("node");
    check
        .arg(script)
        .env("PAGE_MODULES", modules)
        .env("PAGE_URL", format!("http://127.0.0.1:{port}/"))
        .env("PAGE_NAMESPACE", &namespace.name)
        .env("PAGE_TOKEN", token(&namespace).await)
        .env("PAGE_STANDALONE", &standalone)
        .env("PAGE_HOSTILE", json!(HOSTILE).to_string());
    let output = check.output().await.unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "checks failed: see above");
    std::fs::remove_file(standalone).unwrap();
    operator.kill().await;
    database.finish().await;
    hostile.finish().await;
    namespace.finish().await;
}

async fn create_hostile(app: &Client) {
    app.batch_execute("CREATE TABLE accounts (id int PRIMARY KEY); INSERT INTO accounts VALUES (1)").await.unwrap();
    for name in HOSTILE {
        let name = name.replace('"', "\"\"");
        let sql = format!(
            "CREATE TABLE \"{name}\" (id int PRIMARY KEY REFERENCES accounts ON DELETE CASCADE); INSERT INTO \"{name}\" VALUES (1)"
        );
        app.batch_execute(&sql).await.unwrap();
    }
    app.batch_execute("ANALYZE").await.unwrap();
}

/// So that one policy is for this namespace.
async fn label(namespace: &TestNamespace) {
    let api: Api<Namespace> = Api::all(namespace.cluster.client.clone());
    let patch = json!({"metadata": {"labels": {"environment": "production"}}});
    api.patch(&namespace.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let policies: Api<GuardrailPolicy> = Api::all(namespace.cluster.client.clone());
    let policy = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardrailPolicy", "metadata": {"name": "production"},
        "spec": {"namespaceSelector": {"matchLabels": {"environment": "production"}},
            "guards": {"minRowsAtRisk": 10000}, "backups": {"drilledWithin": "0s"},
            "excludeDatabases": {"matchLabels": {"pgrail.dev/sandbox": "true"}}}});
    policies.patch("production", &PatchParams::apply("kubectl").force(), &Patch::Apply(&policy)).await.unwrap();
}

async fn declare(namespace: &TestNamespace, database: &Database, hostile: &Database) {
    namespace.secret("shop-login", &[("uri", &database.uri)]).await;
    namespace.secret("hostile-login", &[("uri", &hostile.uri)]).await;
    for (name, secret, spec, labels) in [
        ("shop", "shop-login", json!({}), json!({})),
        ("reports", "hostile-login", json!({}), json!({})),
        ("billing", "none", json!({}), json!({})),
        ("archive", "none", json!({"suspend": true}), json!({})),
        ("sandbox", "none", json!({"suspend": true}), json!({"pgrail.dev/sandbox": "true"})),
    ] {
        let mut database = json!({"metadata": {"name": name, "labels": labels},
            "spec": {"connection": {"secretRef": {"name": secret}}, "checkInterval": "5s"}});
        for (field, value) in spec.as_object().unwrap() {
            database["spec"][field] = value.clone();
        }
        namespace.apply::<ProtectedDatabase>(&database).await;
    }
    let window = json!({"duration": "1h", "maxRows": 400, "maxCascadeRows": 40000});
    let limits = json!({"maxRows": 20, "maxCascadeRows": 5000, "window": window});
    let guard = json!({"metadata": {"name": "core"}, "spec": {"databaseRef": {"name": "shop"}, "limits": limits,
        "tables": [{"schema": "public", "name": "users"}, {"schema": "public", "name": "leads"}]}});
    namespace.apply::<TableGuard>(&guard).await;
    let guard = json!({"metadata": {"name": "hostile"}, "spec": {"databaseRef": {"name": "reports"},
        "tables": [{"schema": "public", "name": "*"}]}});
    namespace.apply::<TableGuard>(&guard).await;
    let schedule = json!({"metadata": {"name": "nightly"}, "spec": {"databaseRef": {"name": "shop"}, "schedule": daily_schedule(),
        "suspend": true, "storage": {"url": "s3://backups/shop"}}});
    namespace.apply::<BackupSchedule>(&schedule).await;
}

/// Backups of two weeks and two restores, as finished ones are.
async fn history(namespace: &TestNamespace) {
    let shop = namespace.api::<ProtectedDatabase>().get("shop").await.unwrap();
    let nightly = namespace.api::<BackupSchedule>().get("nightly").await.unwrap();
    let now = Timestamp::now();
    for days in 0..14_i64 {
        let time = now - SignedDuration::from_hours(24 * days + 9);
        let name = format!("nightly-{}", time.strftime("%Y%m%d"));
        let mut status = json!({"phase": "Succeeded", "startTime": time, "completionTime": time + SignedDuration::from_mins(4),
            "sizeBytes": 181_000_000 + days * 1_000_000, "tables": 8, "rows": 52_540 - days * 100, "databaseUID": shop.uid(),
            "scheduleUID": nightly.uid(), "observedGeneration": 1, "verification": {"level": "ReadBack", "time": time},
            "keptBecause": ["Daily"], "message": "",
            "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "", "observedGeneration": 1, "lastTransitionTime": time}]});
        match days {
            1 => {
                status["comparison"] = json!({"with": "before", "shrunkTables": 1,
                    "tables": [{"table": "public.orders", "before": 3000, "after": 1200, "dropped": false}]});
            }
            2 => status["keptBecause"] = json!(["BeforeLoss", "Daily"]),
            4 | 11 => status["verification"]["level"] = "Drill".into(),
            7 => {
                status["phase"] = "Failed".into();
                status["verification"] = json!({"level": "None"});
                status["keptBecause"] = json!([]);
                status["message"] = "pg_dump: error: <b>could not open</b> large object".into();
            }
            9 => status["verification"]["level"] = "None".into(),
            _ => {}
        }
        let backup =
            json!({"metadata": {"name": name}, "spec": {"scheduleRef": {"name": "nightly"}, "pinned": days == 13}});
        finished::<DatabaseBackup>(namespace, &backup, &status).await;
    }
    for (name, phase, rows, message) in
        [("orders-back", "Succeeded", 1800, ""), ("users-back", "Failed", 0, "the target schema exists")]
    {
        let restore = json!({"metadata": {"name": name}, "spec": {"source": {"scheduleRef": {"name": "nightly"}},
            "tables": [{"schema": "public", "name": "orders"}], "target": {"databaseRef": {"name": "shop"}, "mode": "NewSchema"}}});
        let status = json!({"phase": phase, "source": "nightly", "restoredRows": rows, "expectedRows": 1800, "seconds": 12,
            "target": "restored_orders", "message": message, "observedGeneration": 1, "conditions": []});
        finished::<DatabaseRestore>(namespace, &restore, &status).await;
    }
}

async fn finished<K>(namespace: &TestNamespace, manifest: &Value, status: &Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let object = namespace.apply::<K>(manifest).await;
    let patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    let parameters = PatchParams::default();
    namespace.api::<K>().patch_status(&object.name_any(), &parameters, &Patch::Merge(&patch)).await.unwrap();
}

/// Deletes within the limits, and some that are stopped.
async fn use_it(app: &Client) {
    for first in [1, 11] {
        let sql = format!("DELETE FROM users WHERE id BETWEEN {first} AND {}", first + 9);
        assert_eq!(app.execute(&sql, &[]).await.unwrap(), 10);
    }
    for sql in ["DELETE FROM users", "DELETE FROM leads", "TRUNCATE users CASCADE"] {
        app.batch_execute(sql).await.expect_err(sql);
    }
    // Counters are flushed when a session is idle for a moment.
    eventually("the session answers", async || app.batch_execute("SELECT 1").await.ok()).await;
}

/// `pgrail blast-radius -o html` of the hostile database.
fn standalone(database: &Database, namespace: &TestNamespace) -> PathBuf {
    let output =
        Command::new(binary()).args(["blast-radius", "-o", "html", "--database-url", &database.uri]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = std::env::temp_dir().join(format!("pgrail-graph-{}.html", namespace.name));
    std::fs::write(&path, output.stdout).unwrap();
    path
}

async fn token(namespace: &TestNamespace) -> String {
    let name = json!({"name": "viewer"});
    namespace.apply::<ServiceAccount>(&json!({"metadata": name})).await;
    let rules = json!([{"apiGroups": ["pgrail.dev"], "resources": ["*"], "verbs": ["get", "list"]}]);
    namespace.apply::<Role>(&json!({"metadata": name, "rules": rules})).await;
    let binding = json!({"metadata": name,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "viewer"},
        "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": namespace.name}]});
    namespace.apply::<RoleBinding>(&binding).await;
    let spec = TokenRequestSpec {
        audiences: vec!["pgrail".to_owned()],
        expiration_seconds: Some(3600),
        bound_object_ref: None,
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = namespace.api::<ServiceAccount>();
    accounts.create_token_request("viewer", &PostParams::default(), &request).await.unwrap().status.unwrap().token
}
