//! The agent as a pod runs it: a process with mounted Secrets, a configuration in its environment, a termination message.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pgrail_testing::{Database, Sidecar, programs, server};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a pod's containers see, in one directory.
struct Pod {
    directory: TempDir,
    config: Value,
}

impl Pod {
    /// With a volume as store.
    fn new(database: &Database) -> Self {
        let pod = Self {
            directory: TempDir::new().unwrap(),
            config: json!({
                "identity": {"clusterId": "cluster-1", "namespace": "shop", "schedule": "nightly", "scheduleUid": "uid-1"},
                "store": {"url": "file:///dumps"},
                "dump": {
                    "database": "shop/shop", "databaseUid": "uid-2", "cronJob": "nightly-dump",
                    "compression": {"method": "zstd", "level": 3},
                    "globals": true, "rowCounts": "Exact", "verification": "ReadBack",
                },
            }),
        };
        // As the kubelet mounts a Secret: files are links into a directory that is swapped as a whole.
        let secret = pod.path("connection");
        std::fs::create_dir_all(secret.join("..2026_11_23")).unwrap();
        std::fs::write(secret.join("..2026_11_23/uri"), &database.uri).unwrap();
        std::os::unix::fs::symlink("..2026_11_23", secret.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/uri", secret.join("uri")).unwrap();
        for directory in ["store", "volume", "work"] {
            std::fs::create_dir(pod.path(directory)).unwrap();
        }
        pod
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, step: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrail"));
        command
            .args(["agent", step])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("PGRAIL_AGENT_CONFIG", self.config.to_string())
            .env("PGRAIL_JOB_NAME", "nightly-dump-29858535")
            .env("PGRAIL_POD_UID", "0f3a1c2e-77aa-4b1c-8000-000000000000")
            .env("PGRAIL_PG_BIN", programs(18));
        for (option, name) in [
            ("--connection-directory", "connection"),
            ("--ca-directory", "authority"),
            ("--store-directory", "store"),
            ("--volume", "volume"),
            ("--work", "work"),
            ("--drill", "drill"),
            ("--termination-log", "termination-log"),
        ] {
            command.arg(option).arg(self.path(name));
        }
        command
    }

    /// Runs a step; its exit status and the message that it left.
    fn run(&self, step: &str) -> (i32, Value) {
        let output = self.command(step).output().unwrap();
        self.ended(&output)
    }

    fn ended(&self, output: &Output) -> (i32, Value) {
        let log = String::from_utf8_lossy(&output.stderr);
        let text =
            std::fs::read_to_string(self.path("termination-log")).unwrap_or_else(|_| panic!("no message: {log}"));
        assert!(text.len() <= 4096);
        let password = password_in(&std::fs::read_to_string(self.path("connection/uri")).unwrap());
        for text in [&text, &log.into_owned(), &String::from_utf8_lossy(&output.stdout).into_owned()] {
            assert!(!text.contains(&password), "{text}");
        }
        (output.status.code().unwrap_or(-1), serde_json::from_str(&text).unwrap())
    }

    fn files(&self) -> Vec<String> {
        fn walk(base: &Path, directory: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(base, &entry.path(), found);
                } else {
                    found.push(entry.path().strip_prefix(base).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("volume/dumps"), &self.path("volume/dumps"), &mut found);
        found.sort();
        found
    }
}

/// The password of a URI that a test server gave out.
fn password_in(uri: &str) -> String {
    uri.split_once("://").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap().1.to_owned()
}

async fn database() -> Database {
    let database = server(18).database("agent").await;
    database.connect().await.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 100) AS n").await.unwrap();
    database
}

/// The container `postgres`.
fn sidecar(pod: &Pod) -> Sidecar {
    Sidecar::start(Path::new(env!("CARGO_BIN_EXE_pgrail")), pod.directory.path(), 18)
}

#[tokio::test]
async fn the_structure_is_restored_into_the_server_of_the_sidecar() {
    let database = database().await;
    let mut pod = Pod::new(&database);
    pod.config["dump"]["structure"] = json!(true);
    let sidecar = sidecar(&pod);
    assert_eq!(pod.run("dump").0, 0);
    assert!(!pod.path("scratch/data").exists(), "the server starts only when it is needed");
    let (status, message) = pod.run("verify");
    assert_eq!((status, &message["structure"]["outcome"]), (0, &json!("Restored")), "{message}");

    // A second run in the same pod, of a dump that cannot be restored: it is not retried.
    let sql = "CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('sad'); CREATE TABLE u (mood other.mood)";
    database.connect().await.batch_execute(sql).await.unwrap();
    pod.config["dump"]["filter"] = json!({"schemas": ["public"]});
    assert_eq!(pod.run("dump").0, 0);
    let (status, message) = pod.run("verify");
    assert_eq!((status, &message["reason"]), (78, &json!("NotRestorable")), "{message}");
    assert!(message["message"].as_str().unwrap().contains("schema \"other\" does not exist"), "{message}");

    assert_eq!(sidecar.end(), Some(0));
    let socket = pod.path("drill/.s.PGSQL.5432");
    let refuses = || std::os::unix::net::UnixStream::connect(&socket).is_err();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !refuses() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(refuses(), "the server ends with the sidecar");
    database.finish().await;
}

#[tokio::test]
async fn a_drill_restores_everything_into_the_server_of_the_sidecar() {
    let database = database().await;
    let mut pod = Pod::new(&database);
    let sidecar = sidecar(&pod);
    let (_, dumped) = pod.run("dump");
    let (_, verified) = pod.run("verify");
    // It has no login.
    let uri = std::fs::read_to_string(pod.path("connection/uri")).unwrap();
    let query = |sql: &str, expect: &str| json!({"name": "q", "sql": sql, "expect": expect});
    let mut drill = |queries: Value| {
        pod.config["drill"] = json!({"backup": "b", "location": dumped["location"],
            "manifestSha256": verified["manifestSha256"], "queries": queries});
        std::fs::write(pod.path("connection/..data/uri"), "").unwrap();
        let output = pod.command("drill").output().unwrap();
        std::fs::write(pod.path("connection/..data/uri"), &uri).unwrap();
        pod.ended(&output)
    };
    let (status, message) = drill(json!([query("SELECT count(*) FROM t", "= 100")]));
    assert_eq!((status, &message["outcome"], &message["rows"]), (0, &json!("Restored"), &json!(100)), "{message}");
    assert_eq!((&message["queries"][0]["passed"], &message["server"]["fsync"]), (&json!(true), &json!("off")));
    let (status, message) = drill(json!([query("SELECT count(*) FROM t", "> 100")]));
    assert_eq!((status, &message["reason"]), (78, &json!("QueryFailed")), "{message}");
    let (status, message) = drill(json!([query("SELECT 1", "> x")]));
    assert_eq!((status, &message["outcome"]), (78, &json!("NotRun")), "{message}");
    assert_eq!(sidecar.end(), Some(0));
    database.finish().await;
}

#[tokio::test]
async fn the_server_of_the_sidecar_reaches_no_network() {
    let database = database().await;
    let pod = Pod::new(&database);
    let sidecar = sidecar(&pod);
    std::fs::write(pod.path("drill/start"), "").unwrap();
    let socket = pod.path("drill/.s.PGSQL.5432");
    let deadline = Instant::now() + Duration::from_mins(2);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reach = format!("exec 3<>/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
    assert!(Command::new("bash").args(["-c", &reach]).status().unwrap().success(), "this process reaches it");
    let psql = |sql: &str| {
        let mut command = Command::new(programs(18).join("psql"));
        command.args(["-X", "-w", "-U", "postgres", "-d", "postgres", "-h"]).arg(pod.path("drill")).args(["-c", sql]);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Not even a superuser does.
    let (reached, error) = psql(&format!("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; bash -c \"{reach}\"'"));
    assert!(!reached && error.contains("failed"), "{error}");
    assert!(psql("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'").0, "programs run");
    assert_eq!(sidecar.end(), Some(0));
    database.finish().await;
}

#[tokio::test]
async fn a_backup_from_dump_to_prune() {
    let database = database().await;
    let mut pod = Pod::new(&database);
    let (status, message) = pod.run("dump");
    assert_eq!((status, &message["kind"], &message["rows"]), (0, &json!("dump"), &json!(100)), "{message}");
    assert_eq!(message["backupName"], "nightly-20261009-021500");
    let location = message["location"].as_str().unwrap().to_owned();
    assert!(location.starts_with("cluster-1/shop/nightly/20261009T021500Z-0f3a1c2e"), "{location}");
    assert!(!pod.files().iter().any(|file| file.ends_with("manifest.json")));

    // The other container has no login.
    std::fs::rename(pod.path("connection"), pod.path("connection-away")).unwrap();
    let output = pod.command("verify").output().unwrap();
    std::fs::rename(pod.path("connection-away"), pod.path("connection")).unwrap();
    let (status, message) = pod.ended(&output);
    assert_eq!((status, &message["kind"], &message["level"]), (0, &json!("verify"), &json!("ReadBack")), "{message}");
    assert_eq!(message["backup"]["location"], json!(location));
    assert!(pod.files().contains(&format!("{location}/manifest.json")));

    pod.config["prune"] = json!({"locations": [location]});
    let (status, message) = pod.run("prune");
    assert_eq!((status, &message["deleted"]), (0, &json!([location])), "{message}");
    assert_eq!(pod.files(), [""; 0]);

    // What is not this schedule's is refused, and trying again does not help.
    pod.config["prune"] = json!({"locations": ["cluster-1/shop/other/20261009T021500Z-x"]});
    let (status, message) = pod.run("prune");
    assert_eq!((status, &message["refused"][0]["reason"]), (78, &json!("NotOurs")), "{message}");
    database.finish().await;
}

#[tokio::test]
async fn failures_report_whether_a_retry_can_help() {
    let database = database().await;
    let mut pod = Pod::new(&database);
    let failure = |pod: &Pod, step: &str| {
        let (status, message) = pod.run(step);
        assert_eq!((&message["kind"], &message["phase"]), (&json!("failed"), &json!(step)), "{message}");
        (status, message["reason"].as_str().unwrap().to_owned())
    };
    // Verify without a dump before it.
    assert_eq!(failure(&pod, "verify"), (1, "Internal".to_owned()));
    pod.config["dump"]["connection"] = json!({"port": 1});
    assert_eq!(failure(&pod, "dump"), (1, "ConnectionFailed".to_owned()));
    pod.config["dump"]["connection"] = json!({"database": "does_not_exist"});
    assert_eq!(failure(&pod, "dump"), (78, "DatabaseMissing".to_owned()));
    pod.config["dump"]["connection"] = json!({});
    std::fs::remove_dir(pod.path("volume")).unwrap();
    assert_eq!(failure(&pod, "dump"), (78, "BucketMissing".to_owned()));
    pod.config = json!({"identity": 7});
    assert_eq!(failure(&pod, "prune"), (78, "InvalidRequest".to_owned()));
    database.finish().await;
}

/// The rules of the operator hold in the pods, where the author of a schedule chooses what is connected to.
#[tokio::test]
async fn loopback_link_local_and_the_apiserver_are_refused() {
    let database = database().await;
    let mut pod = Pod::new(&database);
    let failure = |pod: &Pod, step: &str| {
        let (status, message) = pod.run(step);
        (status, message["reason"].as_str().unwrap().to_owned(), message["message"].as_str().unwrap().to_owned())
    };
    // The test's server is on this machine.
    pod.config["addresses"] = json!({});
    let (status, reason, message) = failure(&pod, "dump");
    assert_eq!((status, reason.as_str()), (78, "InvalidRequest"), "{message}");
    assert!(message.contains("not allowed") || message.contains("refused"), "{message}");
    pod.config["addresses"] = json!({"allowed": ["127.0.0.0/8", "::1/128"]});
    assert_eq!(pod.run("dump").0, 0);

    pod.config["inventory"] = json!({"known": []});
    pod.config["prune"] = json!({"locations": []});
    for (endpoint, addresses) in [
        ("https://localhost:9000", json!({})),
        ("http://169.254.169.254", json!({})),
        ("https://[fe80::1]:9000", json!({})),
        ("https://192.0.2.7:6443", json!({"refused": ["192.0.2.7"]})),
    ] {
        pod.config["store"] = json!({"url": "s3://backups/x", "endpoint": endpoint, "allowHttp": true});
        pod.config["addresses"] = addresses;
        for step in ["inventory", "prune", "dump", "verify"] {
            let (status, reason, message) = failure(&pod, step);
            assert_eq!((status, reason.as_str()), (78, "StoreInvalid"), "{endpoint}: {message}");
            assert!(message.contains("are refused"), "{message}");
        }
    }
    database.finish().await;
}

#[tokio::test]
async fn a_stopped_pod_leaves_nothing() {
    let database = server(18).database("agent").await;
    let client = database.connect().await;
    client.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    // The dump waits for this lock for as long as the test wants.
    client.batch_execute("BEGIN; LOCK TABLE t").await.unwrap();
    let pod = Pod::new(&database);
    let agent = pod.command("dump").stderr(Stdio::piped()).spawn().unwrap();
    let watcher = database.connect().await;
    loop {
        let waiting: i64 = watcher
            .query_one("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass", &[])
            .await
            .unwrap()
            .get(0);
        if waiting > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let signalled = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(signalled.success());
    let (status, message) = pod.ended(&agent.wait_with_output().unwrap());
    assert_eq!((status, &message["reason"]), (1, &json!("Interrupted")), "{message}");
    assert_eq!(pod.files(), [""; 0]);
    drop(client);
    database.finish().await;
}
