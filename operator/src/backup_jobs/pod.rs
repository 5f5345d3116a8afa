//! The Jobs that make and remove dumps, and their pods. Pure.
//!
//! Pods satisfy the Pod Security Standard `restricted`, have no token of the apiserver, and get Secrets as files only.
//! A dump's pod has two containers with a result each: `dump`, which alone has the login, then `verify`, which alone has the private
//! keys of encrypted dumps. Beside them runs `postgres`, the server of the structural drill, which has no Secret. A drill's pod has
//! the same server, with a volume for all rows, beside `drill`.

use super::destination::Destination;
use super::job_spec::{ConnectionSpec, JobSpec};
use super::names::{self, Task};
use crate::agent::config::{
    AddressConfig, AgentConfig, CA_DIRECTORY, CA_FILE, CONFIG_VARIABLE, CONNECTION_DIRECTORY, DRILL_DIRECTORY,
    DrillConfig, EXIT_NOT_RETRYABLE, IDENTITY_DIRECTORY, IDENTITY_KEY, InventoryConfig, JOB_VARIABLE, POD_UID_VARIABLE,
    PruneConfig, RestoreConfig, SCRATCH_DIRECTORY, STORE_CA_DIRECTORY, STORE_DIRECTORY, VOLUME_DIRECTORY,
    WORK_DIRECTORY,
};
use crate::settings::Settings;
use k8s_openapi::api::batch::v1::{
    JobSpec as KubernetesJobSpec, JobTemplateSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, EphemeralVolumeSource, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use pgrail_crds::annotations::BACKUP_LABEL;
use pgrail_crds::{PodIdentity, PodTemplate, Scratch};
use std::collections::BTreeMap;

pub(crate) const DUMP_CONTAINER: &str = "dump";
pub(crate) const VERIFY_CONTAINER: &str = "verify";
/// The temporary PostgreSQL of drills. It runs code of the dump, and so has no Secret.
pub(crate) const POSTGRES_CONTAINER: &str = "postgres";
pub(crate) const PRUNE_CONTAINER: &str = "prune";
pub(crate) const INVENTORY_CONTAINER: &str = "inventory";
pub(crate) const RESTORE_CONTAINER: &str = "restore";
pub(crate) const DRILL_CONTAINER: &str = "drill";

/// The group that may write to a volume of `file://`: the image's own.
const IMAGE_GROUP: i64 = 65532;
/// Seconds in which the agent of a stopped pod aborts its uploads.
const GRACE_SECONDS: i64 = 30;
/// Seconds for which an ended Job that no CronJob owns is kept: its result is read at once, its log maybe later.
const KEEP_SECONDS: i32 = 7 * 24 * 3600;
/// The same of a drill's Job: its pod holds a volume with room for the whole database.
const KEEP_DRILL_SECONDS: i32 = 24 * 3600;
const PRUNE_DEADLINE_SECONDS: i64 = 6 * 3600;
/// A pod that cannot start must not hold up the retention for ever without a report.
const INVENTORY_DEADLINE_SECONDS: i64 = 3600;
/// Definitions without rows: three template databases, and a few pages for each table and index.
const STRUCTURE_SIZE: &str = "4Gi";
/// Readable by any user: the cluster may choose the pod's.
const READABLE: i32 = 0o444;

/// As `pgrail agent postgres`.
const SERVER_SCRIPT: &str = include_str!("server.sh");

/// What pods take from the operator's options.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// pgrail's own image.
    name: String,
    pull_policy: String,
    /// What pods connect to.
    addresses: AddressConfig,
}

impl From<&Settings> for Installation {
    fn from(settings: &Settings) -> Self {
        Self {
            name: settings.image.clone(),
            pull_policy: settings.image_pull_policy.clone(),
            addresses: settings.addresses.clone(),
        }
    }
}

#[cfg(test)]
impl Installation {
    pub(crate) fn for_tests() -> Self {
        Self { name: "pgrail:test".into(), pull_policy: "Never".into(), addresses: AddressConfig::default() }
    }
}

/// The configuration of a pod without its task.
fn config(destination: &Destination, image: &Installation) -> AgentConfig {
    AgentConfig {
        addresses: Some(image.addresses.clone()),
        identity: destination.identity.clone(),
        store: destination.store.config.clone(),
        dump: None,
        inventory: None,
        prune: None,
        restore: None,
        drill: None,
    }
}

/// The Job template of a dump. Without `backup`, the backup's name follows from the Job's.
pub(crate) fn dump_job(
    job: &JobSpec,
    image: &Installation,
    backup: Option<&str>,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let destination = &job.destination;
    let config = AgentConfig { dump: Some(job.dump_config(backup)), ..config(destination, image) };
    let labels = names::labels(Task::Dump, destination.schedule.as_deref(), &destination.database);
    let env = environment(&config)?;
    let (store, identity) = (store_mounts(destination), identity_mount(destination));
    let secret_mounts = connection_mounts(&job.connection);
    let dump = container(DUMP_CONTAINER, destination, image, env.clone(), [secret_mounts, store.clone()].concat());
    let socket = job.structure.then(|| mount("drill", DRILL_DIRECTORY, false));
    let identity = identity.filter(|_| job.structure && !job.age_recipients.is_empty());
    let mut volumes = [connection_volumes(&job.connection), store_volumes(destination)].concat();
    volumes.extend(identity.as_ref().and_then(|_| identity_volume(destination)));
    let mounts = store.into_iter().chain(identity).chain(socket).collect();
    let verify = container(VERIFY_CONTAINER, destination, image, env, mounts);
    let mut first = vec![dump];
    if job.structure {
        volumes.extend([empty_directory("drill", "1Mi"), empty_directory("scratch", STRUCTURE_SIZE)]);
        first.insert(0, postgres(destination, image, None));
    }
    let pod = pod(destination, labels.clone(), backup, first, verify, volumes);
    let spec = KubernetesJobSpec {
        backoff_limit: Some(job.backoff_limit),
        active_deadline_seconds: job.active_deadline_seconds,
        // The CronJob's history limits remove its own Jobs.
        ttl_seconds_after_finished: backup.map(|_| KEEP_SECONDS),
        ..retried(pod)
    };
    Ok(JobTemplateSpec { metadata: Some(metadata(labels, backup)), spec: Some(spec) })
}

/// The Job of a restore.
pub(crate) fn restore_job(
    destination: &Destination,
    connection: &ConnectionSpec,
    image: &Installation,
    restore: RestoreConfig,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let config = AgentConfig { restore: Some(restore), ..config(destination, image) };
    let labels = names::labels(Task::Restore, None, &destination.database);
    let mut mounts = [connection_mounts(connection), store_mounts(destination)].concat();
    mounts.extend(identity_mount(destination));
    let container = container(RESTORE_CONTAINER, destination, image, environment(&config)?, mounts);
    let mut volumes = [connection_volumes(connection), store_volumes(destination)].concat();
    volumes.extend(identity_volume(destination));
    let pod = pod(destination, labels.clone(), None, Vec::new(), container, volumes);
    let spec =
        KubernetesJobSpec { backoff_limit: Some(1), ttl_seconds_after_finished: Some(KEEP_SECONDS), ..retried(pod) };
    Ok(JobTemplateSpec { metadata: Some(metadata(labels, None)), spec: Some(spec) })
}

/// What a drill's Job needs besides its configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DrillJob {
    /// The volume of the restored database.
    pub(crate) scratch: Scratch,
    /// An image with a server and extensions of the user.
    pub(crate) image: Option<String>,
    /// Whether the backup may be encrypted.
    pub(crate) encrypted: bool,
    pub(crate) backoff_limit: i32,
    pub(crate) active_deadline_seconds: Option<i64>,
}

/// The Job template of a drill.
pub(crate) fn drill_job(
    destination: &Destination,
    job: &DrillJob,
    image: &Installation,
    drill: DrillConfig,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let config = AgentConfig { drill: Some(drill), ..config(destination, image) };
    let labels = names::labels(Task::Drill, destination.schedule.as_deref(), &destination.database);
    let identity = identity_mount(destination).filter(|_| job.encrypted);
    let mut volumes = store_volumes(destination);
    volumes.extend(identity.as_ref().and_then(|_| identity_volume(destination)));
    volumes.extend([empty_directory("drill", "1Mi"), scratch_volume(&job.scratch)]);
    let socket = mount("drill", DRILL_DIRECTORY, false);
    let mounts = store_mounts(destination).into_iter().chain(identity).chain([socket]).collect();
    let drill = container(DRILL_CONTAINER, destination, image, environment(&config)?, mounts);
    let server = postgres(destination, image, job.image.as_deref());
    let mut pod = pod(destination, labels.clone(), None, vec![server], drill, volumes);
    if let Some(security) = pod.spec.as_mut().and_then(|spec| spec.security_context.as_mut()) {
        // As for the volume of dumps: a new volume belongs to root.
        security.fs_group.get_or_insert(IMAGE_GROUP);
        security.fs_group_change_policy.get_or_insert_with(|| "OnRootMismatch".to_owned());
    }
    let spec = KubernetesJobSpec {
        backoff_limit: Some(job.backoff_limit),
        active_deadline_seconds: job.active_deadline_seconds,
        ttl_seconds_after_finished: Some(KEEP_DRILL_SECONDS),
        ..retried(pod)
    };
    Ok(JobTemplateSpec { metadata: Some(metadata(labels, None)), spec: Some(spec) })
}

/// The Job template of a prune.
pub(crate) fn prune_job(
    destination: &Destination,
    image: &Installation,
    prune: PruneConfig,
    backup: Option<&str>,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let config = AgentConfig { prune: Some(prune), ..config(destination, image) };
    store_job(destination, image, (Task::Prune, PRUNE_CONTAINER), &config, backup)
}

/// The Job template of a comparison of the store with the backups.
pub(crate) fn inventory_job(
    destination: &Destination,
    image: &Installation,
    inventory: InventoryConfig,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let config = AgentConfig { inventory: Some(inventory), ..config(destination, image) };
    store_job(destination, image, (Task::Inventory, INVENTORY_CONTAINER), &config, None)
}

/// A Job that needs the store and not the database.
fn store_job(
    destination: &Destination,
    image: &Installation,
    (task, name): (Task, &str),
    config: &AgentConfig,
    backup: Option<&str>,
) -> Result<JobTemplateSpec, serde_json::Error> {
    let labels = names::labels(task, destination.schedule.as_deref(), &destination.database);
    let container = container(name, destination, image, environment(config)?, store_mounts(destination));
    let pod = pod(destination, labels.clone(), backup, Vec::new(), container, store_volumes(destination));
    let spec = KubernetesJobSpec {
        backoff_limit: Some(1),
        active_deadline_seconds: Some(match task {
            Task::Inventory => INVENTORY_DEADLINE_SECONDS,
            Task::Dump | Task::Drill | Task::Prune | Task::Restore => PRUNE_DEADLINE_SECONDS,
        }),
        // The controller deletes it when it has read its result; this is for the case that it does not.
        ttl_seconds_after_finished: Some(KEEP_SECONDS),
        ..retried(pod)
    };
    Ok(JobTemplateSpec { metadata: Some(metadata(labels, backup)), spec: Some(spec) })
}

/// One pod at a time. Errors that a retry cannot fix are not retried, and evictions do not count as failures.
fn retried(template: PodTemplateSpec) -> KubernetesJobSpec {
    let evicted = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
        }]),
        on_exit_codes: None,
    };
    let misconfigured = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_pod_conditions: None,
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: None,
            operator: "In".to_owned(),
            values: vec![i32::from(EXIT_NOT_RETRYABLE)],
        }),
    };
    KubernetesJobSpec {
        parallelism: Some(1),
        completions: Some(1),
        pod_failure_policy: Some(PodFailurePolicy { rules: vec![evicted, misconfigured] }),
        template,
        ..KubernetesJobSpec::default()
    }
}

fn metadata(labels: BTreeMap<String, String>, backup: Option<&str>) -> ObjectMeta {
    ObjectMeta { labels: Some(labels), annotations: of_backup(backup), ..ObjectMeta::default() }
}

/// Names the backup in full: a label's value may be too short for it.
fn of_backup(backup: Option<&str>) -> Option<BTreeMap<String, String>> {
    backup.map(|name| BTreeMap::from([(BACKUP_LABEL.to_owned(), name.to_owned())]))
}

fn environment(config: &AgentConfig) -> Result<Vec<EnvVar>, serde_json::Error> {
    let from_pod = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    Ok(vec![
        EnvVar { name: CONFIG_VARIABLE.to_owned(), value: Some(serde_json::to_string(config)?), ..EnvVar::default() },
        from_pod(JOB_VARIABLE, "metadata.labels['batch.kubernetes.io/job-name']"),
        from_pod(POD_UID_VARIABLE, "metadata.uid"),
    ])
}

/// A sidecar: it starts before the others, and ends with the pod. The server itself starts when it is needed. Another image than
/// pgrail's has no agent: a script does the same, except that it cannot forbid the network.
fn postgres(destination: &Destination, image: &Installation, other: Option<&str>) -> Container {
    let mounts = vec![mount("drill", DRILL_DIRECTORY, false), mount("scratch", SCRATCH_DIRECTORY, false)];
    let mut container = container(POSTGRES_CONTAINER, destination, image, Vec::new(), mounts);
    container.restart_policy = Some("Always".to_owned());
    if let Some(other) = other {
        container.image = Some(other.to_owned());
        container.image_pull_policy = None;
        container.command = Some(vec!["sh".to_owned(), "-c".to_owned(), SERVER_SCRIPT.to_owned()]);
        container.args = None;
    }
    // No file of another container.
    if let Some(mounts) = &mut container.volume_mounts {
        mounts.retain(|mount| mount.name != "work");
    }
    container
}

fn container(
    name: &str,
    destination: &Destination,
    image: &Installation,
    env: Vec<EnvVar>,
    mounts: Vec<VolumeMount>,
) -> Container {
    let scratch = [mount("work", WORK_DIRECTORY, false), mount("tmp", "/tmp", false)];
    Container {
        name: name.to_owned(),
        image: Some(image.name.clone()),
        image_pull_policy: Some(image.pull_policy.clone()),
        args: Some(vec!["agent".to_owned(), name.to_owned()]),
        env: Some(env).filter(|it| !it.is_empty()),
        resources: Some(destination.pods.resources.clone().unwrap_or_else(default_resources)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            ..SecurityContext::default()
        }),
        // A killed agent writes no message: the end of its log is reported instead.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts.into_iter().chain(scratch).collect()),
        ..Container::default()
    }
}

fn default_resources() -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&[("cpu", "100m"), ("memory", "64Mi")]),
        limits: quantities(&[("memory", "256Mi")]),
        ..ResourceRequirements::default()
    }
}

fn pod(
    destination: &Destination,
    mut labels: BTreeMap<String, String>,
    backup: Option<&str>,
    first: Vec<Container>,
    main: Container,
    volumes: Vec<Volume>,
) -> PodTemplateSpec {
    let PodTemplate {
        resources: _,
        service_account_name,
        image_pull_secrets,
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        annotations,
        labels: more_labels,
        security_context,
    } = destination.pods.clone();
    for (key, value) in more_labels {
        // The controllers find pods by their own labels.
        labels.entry(key).or_insert(value);
    }
    let mut annotations = annotations;
    annotations.extend(of_backup(backup).unwrap_or_default());
    let scratch = [empty_directory("work", "256Mi"), empty_directory("tmp", "256Mi")];
    let spec = PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name,
        image_pull_secrets,
        node_selector: Some(node_selector).filter(|it| !it.is_empty()),
        tolerations,
        affinity,
        priority_class_name,
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(pod_security(security_context.unwrap_or_default(), destination.store.claim.is_some())),
        init_containers: Some(first).filter(|it| !it.is_empty()),
        containers: vec![main],
        volumes: Some(volumes.into_iter().chain(scratch).collect()),
        ..PodSpec::default()
    };
    let metadata = ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations).filter(|it| !it.is_empty()),
        ..ObjectMeta::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn pod_security(ids: PodIdentity, writes_to_volume: bool) -> PodSecurityContext {
    let fs_group = ids.fs_group.or(writes_to_volume.then_some(IMAGE_GROUP));
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: ids.run_as_user,
        run_as_group: ids.run_as_group,
        fs_group,
        // Changing the owner of every file of a volume with many dumps takes long.
        fs_group_change_policy: fs_group.map(|_| "OnRootMismatch".to_owned()),
        supplemental_groups: ids.supplemental_groups,
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn connection_mounts(connection: &ConnectionSpec) -> Vec<VolumeMount> {
    let ca = connection.ca.iter().map(|_| mount("ca", CA_DIRECTORY, true));
    std::iter::once(mount("connection", CONNECTION_DIRECTORY, true)).chain(ca).collect()
}

fn connection_volumes(connection: &ConnectionSpec) -> Vec<Volume> {
    let mut volumes = vec![secret("connection", &connection.secret, None)];
    if let Some(ca) = &connection.ca {
        let items = vec![KeyToPath { key: ca.key.clone(), path: CA_FILE.to_owned(), mode: None }];
        volumes.push(secret("ca", &ca.name, Some(items)));
    }
    volumes
}

fn store_volumes(destination: &Destination) -> Vec<Volume> {
    let keys = destination.store.secret.iter().map(|name| secret("store", name, None));
    let claim = destination.store.claim.iter().map(|claim| Volume {
        name: "dumps".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None }),
        ..Volume::default()
    });
    let ca = destination.store.ca.iter().map(|ca| {
        let items = vec![KeyToPath { key: ca.key.clone(), path: CA_FILE.to_owned(), mode: None }];
        secret("store-authority", &ca.name, Some(items))
    });
    keys.chain(ca).chain(claim).collect()
}

/// The private keys. A Secret that does not exist is no reason to make no backup: what needs it reports that.
fn identity_volume(destination: &Destination) -> Option<Volume> {
    let name = destination.store.identity.as_ref()?;
    // Nothing else of that Secret.
    let items = vec![KeyToPath { key: IDENTITY_KEY.to_owned(), path: IDENTITY_KEY.to_owned(), mode: None }];
    let mut volume = secret("identity", name, Some(items));
    if let Some(secret) = &mut volume.secret {
        secret.optional = Some(true);
    }
    Some(volume)
}

fn identity_mount(destination: &Destination) -> Option<VolumeMount> {
    destination.store.identity.as_ref().map(|_| mount("identity", IDENTITY_DIRECTORY, true))
}

/// A volume that is created for the pod, and deleted with it.
fn scratch_volume(scratch: &Scratch) -> Volume {
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(scratch.size.clone()))]);
    let claim = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: scratch.storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
        ..PersistentVolumeClaimSpec::default()
    };
    let template = PersistentVolumeClaimTemplate { metadata: None, spec: claim };
    Volume {
        name: "scratch".to_owned(),
        ephemeral: Some(EphemeralVolumeSource { volume_claim_template: Some(template) }),
        ..Volume::default()
    }
}

fn store_mounts(destination: &Destination) -> Vec<VolumeMount> {
    let keys = destination.store.secret.iter().map(|_| mount("store", STORE_DIRECTORY, true));
    let claim = destination.store.claim.iter().map(|_| mount("dumps", VOLUME_DIRECTORY, false));
    let ca = destination.store.ca.iter().map(|_| mount("store-authority", STORE_CA_DIRECTORY, true));
    keys.chain(ca).chain(claim).collect()
}

fn secret(volume: &str, name: &str, items: Option<Vec<KeyToPath>>) -> Volume {
    Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            items,
            default_mode: Some(READABLE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn empty_directory(name: &str, size: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(Quantity(size.to_owned())), medium: None }),
        ..Volume::default()
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests;
