//! The page of the operator: who sees what. Tokens and rights are those of the real apiserver.

use crate::fixture::{Fixture, refused};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, DeleteParams, PostParams};
use pgrail_crds::{ProtectedDatabase, TableGuard};
use pgrail_e2e::{Cluster, Operator, TestNamespace, eventually, holds, protected_database, table_guard, wait_for};
use pgrail_testing::free_port;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every path that needs a token.
const PATHS: [&str; 7] = [
    "/api/v1/session",
    "/api/v1/fleet",
    "/api/v1/databases/NAMESPACE/shop",
    "/api/v1/databases/NAMESPACE/shop/graph",
    "/api/v1/databases/NAMESPACE/shop/guards",
    "/api/v1/databases/NAMESPACE/shop/backups",
    "/api/v1/databases/NAMESPACE/shop/restores",
];

/// The page of one operator.
struct Page(u16);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Page {
    fn option(&self) -> String {
        format!("--page-bind-address=127.0.0.1:{}", self.0)
    }

    async fn request(&self, method: &str, path: &str, token: Option<&str>) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0)).await.unwrap();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: page\r\nConnection: close\r\n{token}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.request("GET", path, token).await
    }

    async fn until_listed(&self, token: &str) {
        eventually("the page has listed the objects", async || {
            (self.get("/api/v1/fleet", Some(token)).await.status == 200).then_some(())
        })
        .await;
    }

    /// Names of the databases that a token sees, as `namespace/name`; `?` after those that are not evaluated.
    async fn fleet(&self, token: &str) -> Vec<String> {
        let fleet = self.get("/api/v1/fleet", Some(token)).await;
        assert_eq!(fleet.status, 200, "{}", fleet.body);
        let fleet = fleet.json();
        let name = |it: &Value| format!("{}/{}", it["namespace"].as_str().unwrap(), it["name"].as_str().unwrap());
        let evaluated = fleet["databases"].as_array().unwrap().iter().map(|row| name(&row["metadata"]));
        let others = fleet["notEvaluated"].as_array().unwrap().iter().map(|it| name(it) + "?");
        let mut all: Vec<String> = evaluated.chain(others).collect();
        all.sort();
        all
    }

    async fn status(&self, path: &str, token: &str) -> u16 {
        self.get(path, Some(token)).await.status
    }
}

/// A token of a new service account, for one audience; for the apiserver where it is empty.
async fn token(namespace: &TestNamespace, name: &str, audience: &str) -> String {
    namespace.apply::<ServiceAccount>(&json!({"metadata": {"name": name}})).await;
    let audiences = if audience.is_empty() { Vec::new() } else { vec![audience.to_owned()] };
    let spec = TokenRequestSpec { audiences, expiration_seconds: Some(3600), bound_object_ref: None };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = namespace.api::<ServiceAccount>();
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token
}

/// Rights of a service account in its namespace.
async fn allow(namespace: &TestNamespace, name: &str, rules: Value) {
    namespace.apply::<Role>(&json!({"metadata": {"name": name}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace.name}]});
    namespace.apply::<RoleBinding>(&binding).await;
}

async fn suspended(namespace: &TestNamespace) {
    let database = json!({"metadata": {"name": "shop"},
        "spec": {"connection": {"secretRef": {"name": "none"}}, "suspend": true}});
    namespace.apply::<ProtectedDatabase>(&database).await;
}

/// An operator for all namespaces that never leads: its Lease is held by another.
async fn standby(namespace: &TestNamespace, page: &Page) -> Operator {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
    let lease = json!({"metadata": {"name": "pgrail-operator"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 86400, "renewTime": now}});
    namespace.apply::<Lease>(&lease).await;
    Operator::start_everywhere(namespace, "standby", &[&page.option()]).await
}

#[tokio::test]
async fn a_token_shows_what_it_may_read_and_nothing_else() {
    let cluster = Cluster::connect().await;
    let (own, other) = (cluster.namespace("page-own").await, cluster.namespace("page-other").await);
    suspended(&own).await;
    suspended(&other).await;
    let all = json!([{"apiGroups": ["pgrail.dev"], "resources": ["*"], "verbs": ["get", "list"]}]);
    let viewer = token(&own, "viewer", "pgrail").await;
    allow(&own, "viewer", all).await;
    let no_guards = token(&own, "no-guards", "pgrail").await;
    let some = json!([{"apiGroups": ["pgrail.dev"], "resources": ["protecteddatabases", "databasebackups"], "verbs": ["get", "list"]}]);
    allow(&own, "no-guards", some).await;
    let named = token(&own, "named", "pgrail").await;
    let one = json!([{"apiGroups": ["pgrail.dev"], "resources": ["protecteddatabases"], "resourceNames": ["shop"], "verbs": ["get"]}]);
    allow(&own, "named", one).await;
    let nothing = token(&own, "nothing", "pgrail").await;
    let everything = token(&own, "everything", "pgrail").await;
    let binding = json!({"metadata": {"name": own.name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "everything", "namespace": own.name}]});
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();

    let page = Page(free_port());
    let operator = standby(&own, &page).await;
    page.until_listed(&viewer).await;
    let shop = |namespace: &TestNamespace| format!("/api/v1/databases/{}/shop", namespace.name);

    assert_eq!(page.fleet(&viewer).await, [format!("{}/shop", own.name)]);
    assert_eq!(page.status(&shop(&own), &viewer).await, 200);
    let compliance = &page.get(&shop(&own), Some(&viewer)).await.json()["compliance"];
    assert_eq!(compliance["violations"][0]["rule"], "Suspended", "{compliance}");
    for part in ["", "/graph", "/guards", "/backups", "/restores"] {
        assert_eq!(page.status(&format!("{}{part}", shop(&other)), &viewer).await, 403, "{part}");
    }
    // Whether something exists is not said.
    let absent = page.get(&shop(&other).replace("/shop", "/none"), Some(&viewer)).await;
    let present = page.get(&shop(&other), Some(&viewer)).await;
    assert_eq!((absent.status, absent.body.replace("none", "shop")), (403, present.body));
    assert_eq!(page.status(&shop(&own).replace("/shop", "/none"), &viewer).await, 404);

    // Compliance is evaluated from kinds that this one may not list.
    assert_eq!(page.fleet(&no_guards).await, [format!("{}/shop?", own.name)]);
    assert_eq!(page.get(&shop(&own), Some(&no_guards)).await.json()["compliance"], Value::Null);
    assert_eq!(page.status(&format!("{}/guards", shop(&own)), &no_guards).await, 403);
    assert_eq!(page.status(&format!("{}/backups", shop(&own)), &no_guards).await, 403, "it may not list schedules");

    // `get` of one name: not in the list, but under its address.
    assert!(page.fleet(&named).await.is_empty());
    assert_eq!(page.status(&shop(&own), &named).await, 200);
    assert_eq!(page.status(&shop(&own).replace("/shop", "/none"), &named).await, 403);

    assert!(page.fleet(&nothing).await.is_empty());
    assert_eq!(page.status(&shop(&own), &nothing).await, 403);

    let seen = page.fleet(&everything).await;
    for namespace in [&own, &other] {
        assert!(seen.contains(&format!("{}/shop", namespace.name)), "{seen:?}");
    }
    // Only the leader reads catalogs.
    let graph = page.get(&format!("{}/graph", shop(&own)), Some(&everything)).await;
    assert_eq!((graph.status, &graph.json()["reason"]), (503, &json!("Standby")));

    // A right that is withdrawn ends within the time that answers are cached.
    own.delete::<RoleBinding>("viewer").await;
    eventually("the right has ended", async || page.fleet(&viewer).await.is_empty().then_some(())).await;

    bindings.delete(&own.name, &DeleteParams::default()).await.unwrap();
    operator.kill().await;
    own.finish().await;
    other.finish().await;
}

#[tokio::test]
async fn without_a_valid_token_there_is_nothing_but_the_files() {
    let cluster = Cluster::connect().await;
    let namespace = cluster.namespace("page-login").await;
    suspended(&namespace).await;
    let all = json!([{"apiGroups": ["pgrail.dev"], "resources": ["*"], "verbs": ["get", "list"]}]);
    let valid = token(&namespace, "viewer", "pgrail").await;
    allow(&namespace, "viewer", all.clone()).await;
    let deleted = token(&namespace, "deleted", "pgrail").await;
    allow(&namespace, "deleted", all).await;
    let page = Page(free_port());
    let operator = standby(&namespace, &page).await;
    page.until_listed(&valid).await;

    for path in ["/", "/page.css", "/app.js", "/graph.js", "/icon.svg"] {
        let file = page.get(path, None).await;
        assert_eq!((file.status, file.header("cache-control")), (200, Some("no-cache")), "{path}");
        check_headers(&file);
    }
    let forged = forged(&valid);
    let other_audience = token(&namespace, "viewer", "").await;
    let invalid = ["abc", "a.b.c", &forged, &other_audience];
    for path in PATHS.map(|path| path.replace("NAMESPACE", &namespace.name)) {
        let answer = page.get(&path, None).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(answer.json()["audiences"], json!(["pgrail"]));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        check_headers(&answer);
    }
    for (number, token) in invalid.iter().enumerate() {
        let answer = page.get("/api/v1/fleet", Some(token)).await;
        assert_eq!(answer.status, 401, "token {number}: {}", answer.body);
        assert!(!answer.body.contains(token), "the token is not in the answer");
    }
    match signing_key() {
        Some(key) => {
            let signed = |moved| signed(&valid, moved, &key);
            assert_eq!(page.status("/api/v1/session", &signed(0)).await, 200, "a token made like this is valid");
            assert_eq!(page.status("/api/v1/session", &signed(-7200)).await, 401, "and expired, it is not");
        }
        None => println!("SKIPPED: expired tokens; the signing key of this cluster is not known"),
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = page.request(method, "/api/v1/fleet", Some(&valid)).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(page.status("/api/v1/none", &valid).await, 404);
    assert_eq!(page.status("/../etc/passwd", &valid).await, 404);

    // A service account that is deleted ends its tokens, within the time that answers are cached.
    assert_eq!(page.status("/api/v1/session", &deleted).await, 200);
    namespace.delete::<ServiceAccount>("deleted").await;
    eventually("the token has ended", async || (page.status("/api/v1/session", &deleted).await == 401).then_some(()))
        .await;

    // Tokens that are tried one after the other are refused without asking the apiserver; a known one is not.
    let mut last = 0;
    for number in 0..40 {
        last = page.status("/api/v1/session", &format!("tried-{number}")).await;
    }
    assert_eq!(last, 429);
    assert_eq!(page.status("/api/v1/session", &valid).await, 200);
    let log = operator.log();
    for token in invalid.iter().copied().chain([&*valid, &*deleted]).filter(|token| token.len() > 10) {
        assert!(!log.contains(token), "a token is in the log");
    }
    operator.kill().await;
    namespace.finish().await;
}

#[tokio::test]
async fn the_page_has_the_graph_and_the_attempts_and_no_secret() {
    let server = pgrail_testing::servers().remove(0);
    let page = Page(free_port());
    let fixture = Fixture::with_options(&server, "pageshop", &[&page.option()]).await.database_ready().await;
    fixture
        .app
        .batch_execute("CREATE TABLE notes (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE SET NULL)")
        .await
        .unwrap();
    let namespace = &fixture.namespace;
    let token = token(namespace, "viewer", "pgrail").await;
    let all = json!([{"apiGroups": ["pgrail.dev"], "resources": ["*"], "verbs": ["get", "list"]}]);
    allow(namespace, "viewer", all).await;
    fixture.guard(&table_guard(&["users"]), "Enforced", "True", "Verified").await;
    let shop = format!("/api/v1/databases/{}/shop", namespace.name);
    let get = async |part: &str| page.get(&format!("{shop}{part}"), Some(&token)).await;

    let graph = eventually("the graph has the guard and the new table", async || {
        let graph = get("/graph").await.json()["graph"].clone();
        let tables = graph["tables"].as_array()?;
        let guarded = tables.iter().any(|it| it["table"] == "public.users" && it["guarded"] == true);
        (guarded && tables.len() == 6).then_some(graph)
    })
    .await;
    let at = |name: &str| graph["tables"].as_array().unwrap().iter().position(|it| it["table"] == name).unwrap();
    let edge = |from: &str, to: &str, effect: &str| json!({"from": at(from), "to": at(to), "effect": effect});
    let edges = graph["edges"].as_array().unwrap();
    assert!(edges.contains(&edge("public.users", "public.leads", "CASCADE")), "{graph:#}");
    assert!(edges.contains(&edge("public.users", "public.notes", "SET NULL")), "{graph:#}");
    assert_eq!((edges.len(), at("public.users")), (5, 0), "the worst table is the first");

    assert_eq!(refused(&fixture.app, "DELETE FROM users").await, "PGR01");
    eventually("the attempt is in its series", async || {
        let guards = get("/guards").await.json();
        let buckets = guards["guards"][0]["attempts"]["buckets"].as_array()?.clone();
        buckets.iter().any(|bucket| bucket[1] == 1).then_some(())
    })
    .await;

    // As `kubectl pgrail status` evaluates: no backup.
    let compliance = get("").await.json()["compliance"].clone();
    let rules: Vec<_> = compliance["violations"].as_array().unwrap().iter().map(|it| it["rule"].clone()).collect();
    assert!(rules.contains(&json!("backups.required")), "{compliance:#}");
    assert_eq!((&compliance["compliant"], &compliance["guardsEnforced"]), (&json!(false), &json!(1)));

    // What an unreachable database had is still there, with its time.
    let before = get("/graph").await.json();
    namespace.secret("wrong-login", &[("uri", "postgres://pgrail:hidden-word@127.0.0.1:1/shop")]).await;
    let mut unreachable = protected_database();
    unreachable["spec"]["connection"]["secretRef"]["name"] = "wrong-login".into();
    namespace.apply::<ProtectedDatabase>(&unreachable).await;
    wait_for::<ProtectedDatabase>(namespace, "shop", "the database is unreachable", |database| {
        holds(database, "Reachable", "False", "ConnectionRefused")
    })
    .await;
    assert_eq!(get("/graph").await.json(), before);
    let (password, uri) = ("hidden-word", fixture.database.uri.clone());
    for part in ["", "/graph", "/guards", "/backups", "/restores"] {
        let answer = get(part).await;
        assert_eq!(answer.status, 200, "{part}: {}", answer.body);
        assert!(!answer.body.contains(&uri) && !answer.body.contains(password), "{part}");
        assert!(!answer.body.contains("secretRef"), "{part}");
    }
    // A guard that is deleted is not shown any more.
    namespace.apply::<ProtectedDatabase>(&protected_database()).await;
    namespace.delete::<TableGuard>("core").await;
    eventually("no guard is shown", async || {
        get("/guards").await.json()["guards"].as_array()?.is_empty().then_some(())
    })
    .await;
    fixture.finish().await;
}

fn check_headers(answer: &Answer) {
    let policy = answer.header("content-security-policy").expect("a Content-Security-Policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("set-cookie"), None);
}

/// The token with another user in it, and the signature of before.
fn forged(token: &str) -> String {
    let [head, claims, signature] = parts(token);
    let text = String::from_utf8(base64(&["-d"], padded(claims).as_bytes())).unwrap();
    let changed = text.replace("viewer", "everything");
    assert_ne!(changed, text);
    format!("{head}.{}.{signature}", url_safe(changed.as_bytes()))
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

fn signing_key() -> Option<PathBuf> {
    let key = Path::new(&std::env::var_os("PGRAIL_CLUSTER_STATE")?).join("pki/sa.key");
    key.exists().then_some(key)
}

/// The claims of a token, all times moved by so many seconds, signed with the key of the cluster.
fn signed(token: &str, moved: i64, key: &Path) -> String {
    let [head, claims, _] = parts(token);
    let mut claims: Value = serde_json::from_slice(&base64(&["-d"], padded(claims).as_bytes())).unwrap();
    for time in ["exp", "iat", "nbf"] {
        claims[time] = (claims[time].as_i64().unwrap() + moved).into();
    }
    let text = format!("{head}.{}", url_safe(claims.to_string().as_bytes()));
    let der = run(Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key), text.as_bytes());
    format!("{text}.{}", url_safe(&raw_signature(&der)))
}

/// The two numbers of an ECDSA signature, 32 bytes each, from their DER encoding: 30 len 02 len r 02 len s.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        raw.extend(std::iter::repeat_n(0, 32 - number.len()));
        raw.extend(number);
        rest = &rest[2 + length..];
    }
    raw
}

fn padded(text: &str) -> String {
    let text = text.replace('-', "+").replace('_', "/");
    let missing = (4 - text.len() % 4) % 4;
    text + &"=".repeat(missing)
}

fn url_safe(bytes: &[u8]) -> String {
    let text = String::from_utf8(base64(&["-w0"], bytes)).unwrap();
    text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn base64(options: &[&str], bytes: &[u8]) -> Vec<u8> {
    run(Command::new("base64").args(options), bytes)
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}
