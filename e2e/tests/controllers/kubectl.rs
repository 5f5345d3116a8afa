//! `kubectl pgrail` as its user has it: a process with a kubeconfig, and the rights of its user.

use crate::fixture::{Fixture, count, refused};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::Kubeconfig;
use pgrail_crds::{BackupSchedule, DatabaseBackup, GuardExemption, GuardrailPolicy};
use pgrail_e2e::{Node, ObjectStore, STORE_ENDPOINT, TestNamespace, binary, eventually, holds, wait_for};
use pgrail_testing::programs;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tokio::process::Command;

/// The program under the names that kubectl looks for.
pub(crate) struct Plugin {
    directory: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Plugin {
    pub(crate) fn new(namespace: &TestNamespace) -> Self {
        let directory = std::env::temp_dir().join(format!("pgrail-plugin-{}", namespace.name));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["kubectl-pgrail", "kubectl_complete-pgrail"] {
            let _ = std::fs::remove_file(directory.join(name));
            std::os::unix::fs::symlink(binary(), directory.join(name)).unwrap();
        }
        Self { directory, kubeconfig: namespace.cluster.kubeconfig.clone(), namespace: namespace.name.clone() }
    }

    async fn start(&self, program: &str, args: &[&str], kubeconfig: &Path) -> Output {
        let mut command = Command::new(self.directory.join(program));
        command.args(args).env_clear().env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
        command.output().await.unwrap()
    }

    /// Runs a command in the namespace: exit status, standard output, standard error.
    pub(crate) async fn run(&self, args: &[&str]) -> (i32, String, String) {
        self.run_as(args, &self.kubeconfig).await
    }

    async fn run_as(&self, args: &[&str], kubeconfig: &Path) -> (i32, String, String) {
        let output = self.start("kubectl-pgrail", &[args, &["-n", &self.namespace]].concat(), kubeconfig).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// The report as JSON, and the exit status.
    async fn status(&self) -> (i32, Vec<Value>) {
        let (code, out, error) = self.run(&["status", "-o", "json"]).await;
        (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out} {error}")))
    }

    pub(crate) fn finish(self) {
        let _ = std::fs::remove_dir_all(self.directory);
    }
}

fn policies(namespace: &TestNamespace) -> Api<GuardrailPolicy> {
    Api::all(namespace.cluster.client.clone())
}

async fn policy(namespace: &TestNamespace, spec: Value) {
    let mut spec = spec;
    spec["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
    let policy = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardrailPolicy",
        "metadata": {"name": format!("cli-{}", namespace.name)}, "spec": spec});
    policies(namespace).create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
}

/// A kubeconfig of a user with rules in the namespace only.
async fn user(namespace: &TestNamespace, rules: Value) -> PathBuf {
    let name = json!({"name": "visitor"});
    namespace.apply::<ServiceAccount>(&json!({"metadata": name})).await;
    namespace.apply::<Role>(&json!({"metadata": name, "rules": rules})).await;
    let binding = json!({"metadata": name, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "visitor"},
        "subjects": [{"kind": "ServiceAccount", "name": "visitor", "namespace": namespace.name}]});
    namespace.apply::<RoleBinding>(&binding).await;
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: Vec::new(), expiration_seconds: Some(3600), bound_object_ref: None },
        ..TokenRequest::default()
    };
    let accounts = namespace.api::<ServiceAccount>();
    let token = accounts.create_token_request("visitor", &PostParams::default(), &request).await.unwrap();
    let token = token.status.unwrap().token;
    let config = Kubeconfig::read_from(&namespace.cluster.kubeconfig).unwrap();
    let mut config = serde_json::to_value(config).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({"token": token});
    }
    let path = std::env::temp_dir().join(format!("pgrail-visitor-{}", namespace.name));
    std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    path
}

#[tokio::test]
async fn the_report_has_the_worst_first_and_says_by_its_exit_status_whether_all_are_compliant() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "pluginstatus").await;
    let namespace = &fixture.namespace;
    let plugin = Plugin::new(namespace);
    // Without a policy: the default rules, which demand backups.
    let (code, rows) = plugin.status().await;
    assert_eq!((code, rows.len()), (2, 1), "{rows:#?}");
    assert_eq!((&rows[0]["guards"], &rows[0]["guardsEnforced"]), (&json!(1), &json!(1)));
    let rules: Vec<_> =
        rows[0]["violations"].as_array().unwrap().iter().map(|it| it["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"backups.required") && rules.contains(&"guards.minRowsAtRisk"), "{rules:?}");

    policy(namespace, json!({"backups": {"required": false}, "guards": {"minRowsAtRisk": 1_000_000}})).await;
    let (code, rows) = plugin.status().await;
    assert_eq!((code, &rows[0]["compliant"]), (0, &json!(true)), "{rows:#?}");
    assert_eq!(rows[0]["policies"], json!([format!("cli-{}", namespace.name)]));
    // One that is not: it is the first, with the rule that it violates and how to fix it.
    let worse =
        json!({"metadata": {"name": "zoo"}, "spec": {"connection": {"secretRef": {"name": "none"}}, "suspend": true}});
    namespace.apply::<pgrail_crds::ProtectedDatabase>(&worse).await;
    let (code, rows) = plugin.status().await;
    assert_eq!(
        (code, rows[0]["metadata"]["name"].as_str(), rows[1]["metadata"]["name"].as_str()),
        (2, Some("zoo"), Some("shop"))
    );
    let (code, out, _) = plugin.run(&["status", "-o", "wide"]).await;
    assert_eq!(code, 2);
    assert!(out.lines().nth(1).unwrap().contains("/zoo") && out.contains("set it to false"), "{out}");
    let (_, names, _) = plugin.run(&["status", "-o", "name"]).await;
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        ["protecteddatabase.pgrail.dev/zoo", "protecteddatabase.pgrail.dev/shop"]
    );

    // A user with rights in the namespace only.
    let kinds = json!(["protecteddatabases", "tableguards", "backupschedules", "databasebackups"]);
    let visitor =
        user(namespace, json!([{"apiGroups": ["pgrail.dev"], "resources": kinds, "verbs": ["get", "list"]}])).await;
    let (code, out, error) = plugin.run_as(&["status"], &visitor).await;
    assert_eq!(code, 2, "{error}");
    assert!(out.contains("/shop") && error.contains("no right to list GuardrailPolicies"), "{out}{error}");
    let output = plugin.start("kubectl-pgrail", &["status", "-A"], &visitor).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot list protecteddatabases") && error.contains("forbidden"), "{error}");
    // The Secret is not his to read; what the status has is.
    let (code, _, error) = plugin.run_as(&["blast-radius", "shop"], &visitor).await;
    assert_eq!(code, 1);
    assert!(error.contains("forbidden") && !error.contains("postgres://"), "{error}");
    let (code, out, error) = plugin.run_as(&["blast-radius", "shop", "--from-status"], &visitor).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("public.users"), "{out}");
    // A namespace without databases is not compliant.
    let empty = plugin.start("kubectl-pgrail", &["status", "-n", "no-such-namespace"], &plugin.kubeconfig).await;
    assert_eq!(empty.status.code(), Some(2));

    policies(namespace).delete(&format!("cli-{}", namespace.name), &DeleteParams::default()).await.unwrap();
    let _ = std::fs::remove_file(visitor);
    plugin.finish();
    fixture.finish().await;
}

#[tokio::test]
async fn an_exemption_is_created_and_waited_for() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "pluginexempt").await;
    let plugin = Plugin::new(&fixture.namespace);
    let role = server.role_name("purge");
    let grant = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    );
    fixture.app.batch_execute(&grant).await.unwrap();
    let app = fixture.database.connect_as(&role, "secret").await;
    let bulk = "DELETE FROM users WHERE id <= 200";
    assert_eq!(refused(&app, bulk).await, "PGR01");
    let exempt =
        ["exempt", "core", "--role", &role, "--duration", "30m", "--reason", "ticket 4711", "--table", "public.users"];
    let (code, _, error) = plugin.run(&exempt).await;
    assert!(code == 2 && error.contains("--limits"), "{code} {error}");
    let limits = ["--limits", "maxRows=400,maxCascadeRows=100000"];
    let (code, out, error) = plugin.run(&[&exempt[..], &limits[..]].concat()).await;
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.starts_with("active: Active: in force"), "{out}");
    assert_eq!(app.execute(bulk, &[]).await.unwrap(), 200);
    let all = fixture.namespace.api::<GuardExemption>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!((all.len(), all[0].spec.reason.as_str()), (1, "ticket 4711"));
    // One that a policy forbids is a failure, with its reason.
    policy(&fixture.namespace, json!({"exemptions": {"maxDuration": "10m"}})).await;
    let (code, out, _) = plugin.run(&[&exempt[..], &limits[..]].concat()).await;
    assert_eq!(code, 1);
    assert!(out.contains("not active: ExceedsPolicy"), "{out}");
    // One that waits: the object remains.
    let waits = [
        "exempt",
        "no-such-guard",
        "--role",
        &role,
        "--duration",
        "5m",
        "--reason",
        "r",
        "--limits",
        "maxRows=5",
        "--timeout",
        "1s",
    ];
    let (code, _, error) = plugin.run(&waits).await;
    assert_eq!(code, 1);
    assert!(error.contains("remains"), "{error}");
    policies(&fixture.namespace)
        .delete(&format!("cli-{}", fixture.namespace.name), &DeleteParams::default())
        .await
        .unwrap();
    drop(app);
    fixture.app.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
    plugin.finish();
    fixture.finish().await;
}

#[tokio::test]
async fn commands_run_in_the_database_of_an_object() {
    let server = pgrail_testing::servers().remove(0);
    let fixture = Fixture::with_guard(&server, "plugindatabase").await;
    let plugin = Plugin::new(&fixture.namespace);
    let (code, out, error) = plugin.run(&["blast-radius", "shop", "public.users", "-o", "json"]).await;
    assert_eq!(code, 0, "{error}");
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&rows[0]["table"], &rows[0]["guarded"]), (&json!("public.users"), &json!(true)));
    let (code, out, error) = plugin.run(&["rehearse", "shop", "DELETE FROM users", "--timeout", "5m"]).await;
    assert_eq!(code, 2, "{error}");
    assert!(out.contains("STOPPED by a guard"), "{out}");
    assert_eq!(count(&fixture.app, "users").await, 500);
    let (code, _, error) = plugin.run(&["undo", "shop"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("no deleted rows are captured"), "{error}");
    let (code, _, error) = plugin.run(&["rehearse", "nowhere", "DELETE FROM users"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("nowhere") && error.contains("not found"), "{error}");
    // The password is in no message, also where the address is wrong.
    let (code, out, error) = plugin.run(&["blast-radius", "shop", "--address", "127.0.0.1:1"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("ConnectionRefused") && !format!("{out}{error}").contains("secret"), "{error}");
    // kubectl asks for completions.
    let completed = plugin.start("kubectl_complete-pgrail", &["re"], &plugin.kubeconfig).await;
    let completed = String::from_utf8(completed.stdout).unwrap();
    let words: Vec<_> = completed.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(words, ["restore", "rehearse", ":4"]);
    let script = plugin.start("kubectl-pgrail", &["completion", "bash"], &plugin.kubeconfig).await;
    assert!(String::from_utf8(script.stdout).unwrap().contains("kubectl-pgrail"));
    plugin.finish();
    fixture.finish().await;
}

#[tokio::test]
async fn a_backup_is_made_and_rows_are_restored_from_it() {
    let server = pgrail_testing::server(18);
    let fixture = Fixture::with_guard(&server, "pluginbackup").await;
    let namespace = &fixture.namespace;
    let plugin = Plugin::new(namespace);
    let store = ObjectStore::of_this_run();
    namespace.secret("s3", &store.keys()).await;
    let node = Node::start(namespace, &store, programs(18));
    let (code, _, error) = plugin.run(&["backup", "nightly"]).await;
    assert!(code == 1 && error.contains("not found"), "{error}");
    let storage = json!({"url": format!("s3://{}/{}", store.bucket, namespace.name),
        "endpoint": STORE_ENDPOINT, "region": "us-east-1", "secretRef": {"name": "s3"}});
    let mut schedule = pgrail_e2e::backup_schedule(&storage);
    schedule["spec"]["runOnCreate"] = false.into();
    namespace.apply::<BackupSchedule>(&schedule).await;
    wait_for(namespace, "nightly", "the schedule is ready", |it: &BackupSchedule| {
        holds(it, "Ready", "True", "Scheduled")
    })
    .await;
    let (code, out, error) = plugin.run(&["backup", "nightly", "--pin"]).await;
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("succeeded: 40,500 rows of "), "{out}");
    let backups = namespace.api::<DatabaseBackup>().list(&ListParams::default()).await.unwrap().items;
    assert!(backups.len() == 1 && backups[0].spec.pinned);
    let backup = backups[0].metadata.name.clone().unwrap();

    fixture.app.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap();
    let restore = ["restore", &backup, "--table", "public.users", "--where", "id = 42", "--follow-cascade"];
    let (code, _, error) = plugin.run(&restore).await;
    assert!(code == 2 && error.contains("--in-place"), "not without a confirmation: {error}");
    let (code, out, error) = plugin.run(&[&restore[..], &["--dry-run"]].concat()).await;
    assert_eq!(code, 0, "{out}{error}");
    assert!(out.contains("TO INSERT"), "{out}");
    assert_eq!(count(&fixture.app, "users").await, 499);
    let (code, out, error) = plugin.run(&[&restore[..], &["--in-place"]].concat()).await;
    assert_eq!(code, 0, "{out}{error}");
    assert_eq!(count(&fixture.app, "users").await, 500);
    // The row exists and is different now: a dry run finds that.
    fixture.app.batch_execute("UPDATE users SET name = 'changed' WHERE id = 42").await.unwrap();
    let (code, out, _) = plugin.run(&[&restore[..], &["--dry-run"]].concat()).await;
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("failed: "), "{out}");
    drop(node);
    plugin.finish();
    fixture.finish().await;
}

#[tokio::test]
async fn interrupted_commands_leave_their_object_and_name_it() {
    let namespace = pgrail_e2e::Cluster::connect().await.namespace("plugin-stop").await;
    let plugin = Plugin::new(&namespace);
    let mut command = Command::new(plugin.directory.join("kubectl-pgrail"));
    command.args([
        "exempt",
        "core",
        "--role",
        "r",
        "--duration",
        "5m",
        "--reason",
        "r",
        "--unlimited",
        "-n",
        &namespace.name,
    ]);
    command.env_clear().env("KUBECONFIG", &plugin.kubeconfig).stdin(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let api = namespace.api::<GuardExemption>();
    let name = eventually("the exemption is created", async || {
        api.list(&ListParams::default()).await.unwrap().items.into_iter().next()?.metadata.name
    })
    .await;
    let process = child.id().unwrap().to_string();
    Command::new("kill").args(["-INT", &process]).status().await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("interrupted") && error.contains(&name), "{error}");
    plugin.finish();
    namespace.finish().await;
}
