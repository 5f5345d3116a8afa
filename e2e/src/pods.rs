//! The node of one test's namespace: runs the pods of backups as processes of this machine.
//!
//! The control plane of `e2e/cluster` has no node, so its pods stay pending. What a kubelet would do for them is done
//! here with the operator's own binary: the Secrets are read and laid down as files, the containers run one after the
//! other with the environment and the arguments of the pod, and their ends and termination messages become the pod's
//! status. Everything else is real: the Job's controller, the agent, PostgreSQL and the store.

use crate::TestNamespace;
use crate::operator::binary;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pgrail_crds::annotations::TASK_LABEL;
use pgrail_testing::{as_server_user, reachable_programs};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Where manifests say that the S3 server is: a Service's name, as a node's DNS would resolve it.
pub const STORE_ENDPOINT: &str = "http://s3.storage.svc:9000";

/// An S3 server for the pods.
#[derive(Clone, Debug)]
pub struct ObjectStore {
    /// Where it really is.
    pub endpoint: String,
    /// The id of its key.
    pub key: String,
    /// The key.
    pub secret: String,
    /// The bucket.
    pub bucket: String,
    /// Where it keeps its buckets: an object is a file.
    pub files: PathBuf,
}

impl ObjectStore {
    /// The one that `e2e/s3/server.sh run` started.
    pub fn of_this_run() -> Self {
        let line = std::env::var("PGRAIL_TEST_S3").expect("PGRAIL_TEST_S3: run through `e2e/s3/server.sh run`");
        Self::parse(&line)
    }

    /// Reads what `e2e/s3/server.sh up` prints.
    pub fn parse(line: &str) -> Self {
        let part = |name: &str| {
            let value = line.split([' ', '"', '\n']).find_map(|entry| entry.strip_prefix(&format!("{name}=")));
            value.unwrap_or_else(|| panic!("no {name} of the S3 server")).to_owned()
        };
        Self {
            endpoint: part("endpoint"),
            key: part("key"),
            secret: part("secret"),
            bucket: part("bucket"),
            files: part("folder").into(),
        }
    }

    /// The keys of a Secret that opens it.
    pub fn keys(&self) -> [(&'static str, &str); 2] {
        [("AWS_ACCESS_KEY_ID", &self.key), ("AWS_SECRET_ACCESS_KEY", &self.secret)]
    }
}

/// Runs the pods of one namespace until it is dropped.
pub struct Node {
    task: JoinHandle<()>,
}

impl Node {
    /// Starts it. `clients` is the folder of `pg_dump`, as the image has it.
    pub fn start(namespace: &TestNamespace, store: &ObjectStore, clients: PathBuf) -> Self {
        let node = Runner {
            client: namespace.cluster.client.clone(),
            namespace: namespace.name.clone(),
            endpoint: store.endpoint.clone(),
            clients,
            software: OnceLock::new(),
        };
        Self { task: tokio::spawn(node.run()) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Runner {
    client: kube::Client,
    namespace: String,
    endpoint: String,
    clients: PathBuf,
    /// Made by the first pod with a sidecar.
    software: OnceLock<Software>,
}

/// The agent and the server programs where the user of a sidecar can read them: PostgreSQL refuses to run as root.
struct Software {
    agent: PathBuf,
    programs: PathBuf,
    directory: PathBuf,
}

impl Software {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!(
            "pgrail-node-{}-{}",
            std::process::id(),
            NODES.fetch_add(1, Ordering::Relaxed)
        ));
        fs::create_dir_all(&directory).expect("a folder");
        let agent = directory.join("pgrail");
        if fs::hard_link(binary(), &agent).is_err() {
            fs::copy(binary(), &agent).expect("the agent");
        }
        let programs = reachable_programs(&directory, 18);
        Self { agent, programs, directory }
    }
}

impl Drop for Software {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

static NODES: AtomicU32 = AtomicU32::new(0);

/// A container that runs beside the others.
struct Sidecar(Child);

impl Sidecar {
    async fn end(mut self) {
        if let Some(id) = self.0.id() {
            let _ = Command::new("kill").args(["-TERM", &id.to_string()]).status().await;
        }
        let _ = self.0.wait().await;
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl Runner {
    async fn run(self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut begun = HashSet::new();
        loop {
            let listed = pods.list(&ListParams::default().labels(TASK_LABEL)).await;
            for pod in listed.map(|list| list.items).unwrap_or_default() {
                if begun.insert(pod.uid()) {
                    self.run_pod(&pods, &pod).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn run_pod(&self, pods: &Api<Pod>, pod: &Pod) {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let folder = std::env::temp_dir().join(format!("pgrail-pod-{}", pod.uid().unwrap_or_default()));
        for name in ["work", "volume", "drill", "scratch"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
            // As an emptyDir: whoever the containers run as.
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o777)).expect("its permissions");
        }
        for volume in spec.volumes.iter().flatten() {
            if let Some(secret) = &volume.secret
                && let Some(name) = &secret.secret_name
            {
                self.mount(name, secret.optional == Some(true), &folder.join(&volume.name)).await;
            }
        }
        let started = Timestamp::now();
        let mut ends = Vec::new();
        let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
        let sidecars: Vec<_> = sidecars.map(|container| self.start_sidecar(container, &folder)).collect();
        let first = spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container));
        let first: Vec<_> = first.map(|container| ("initContainerStatuses", container)).collect();
        let containers = first.len() + spec.containers.len();
        let main = spec.containers.iter().map(|container| ("containerStatuses", container));
        for (kind, container) in first.into_iter().chain(main) {
            let (code, message) = self.run_container(pod, container, &folder).await;
            let ended = json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {
                    "exitCode": code, "message": message, "reason": if code == 0 { "Completed" } else { "Error" },
                    "startedAt": seconds(started), "finishedAt": seconds(Timestamp::now()),
                }},
            });
            ends.push((kind, ended));
            if code != 0 {
                break;
            }
        }
        for sidecar in sidecars {
            sidecar.end().await;
        }
        let _ = fs::remove_dir_all(&folder);
        let status = status(containers, &ends, started);
        let patch = Patch::Merge(json!({"status": status}));
        // The test may have taken the pod away meanwhile.
        if let Err(error) = pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            eprintln!("the status of {} was not taken: {error}", pod.name_any());
        }
    }

    async fn mount(&self, secret: &str, optional: bool, folder: &Path) {
        fs::create_dir_all(folder).expect("a folder");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get_opt(secret).await.expect("a Secret that a pod mounts");
        assert!(secret.is_some() || optional, "a Secret that a pod mounts exists");
        let secret = secret.unwrap_or_default();
        for (key, value) in secret.data.unwrap_or_default() {
            fs::write(folder.join(key), value.0).expect("a key as a file");
        }
    }

    /// It gets none of the folders with Secrets.
    fn start_sidecar(&self, container: &Container, folder: &Path) -> Sidecar {
        let software = self.software.get_or_init(Software::new);
        let mut command = Command::from(as_server_user(&software.agent));
        command.args(container.args.iter().flatten());
        for (option, name) in [("--drill", "drill"), ("--scratch", "scratch")] {
            command.arg(option).arg(folder.join(name));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("PGRAIL_PG_BIN", &software.programs);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Sidecar(command.spawn().expect("the sidecar starts"))
    }

    async fn run_container(&self, pod: &Pod, container: &Container, folder: &Path) -> (i32, String) {
        let log = folder.join(format!("{}.termination-log", container.name));
        let job = pod.labels().get("batch.kubernetes.io/job-name").cloned().unwrap_or_default();
        let mut command = Command::new(binary());
        command.args(container.args.iter().flatten());
        for (option, name) in [
            ("--connection-directory", "connection"),
            ("--ca-directory", "authority"),
            ("--store-directory", "store"),
            ("--store-ca-directory", "store-authority"),
            ("--identity-directory", "identity"),
            ("--volume", "volume"),
            ("--work", "work"),
            ("--drill", "drill"),
        ] {
            // The kubelet mounts only what the container declares.
            let is_mounted = container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
            let place = if is_mounted || name == "volume" { name.to_owned() } else { format!("no-{name}") };
            command.arg(option).arg(folder.join(place));
        }
        command.arg("--termination-log").arg(&log).env_clear();
        for variable in container.env.iter().flatten() {
            let value = variable.value.clone().unwrap_or_default().replace(STORE_ENDPOINT, &self.endpoint);
            command.env(&variable.name, value);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let output = command
            .env("PATH", path)
            .env("PGRAIL_PG_BIN", &self.clients)
            .env("PGRAIL_JOB_NAME", job)
            .env("PGRAIL_POD_UID", pod.uid().unwrap_or_default())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("the agent starts");
        let message = fs::read_to_string(&log).unwrap_or_else(|_| String::from_utf8_lossy(&output.stderr).into_owned());
        (output.status.code().unwrap_or(137), message)
    }
}

fn status(containers: usize, ends: &[(&str, Value)], started: Timestamp) -> Value {
    let failed = ends.len() < containers || ends.iter().any(|(_, end)| end["state"]["terminated"]["exitCode"] != 0);
    let of = |kind: &str| -> Vec<&Value> { ends.iter().filter(|(it, _)| *it == kind).map(|(_, end)| end).collect() };
    json!({
        "phase": if failed { "Failed" } else { "Succeeded" },
        "startTime": seconds(started),
        "initContainerStatuses": of("initContainerStatuses"),
        "containerStatuses": of("containerStatuses"),
    })
}

/// As Kubernetes writes times.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
