//! Where dumps are kept, and by whose pods: what a prune needs, and a dump too. Pure.

use super::dereference::StoreSecret;
use super::error::JobSpecError;
use crate::agent::config::StoreConfig;
use crate::allowed_stores::{AllowedStores, address};
use pgrail_crds::{BackupSchedule, DatabaseBackup, PodTemplate, SecretKeyReference, Storage};
use pgrail_dump::{ScheduleIdentity, Scheme, Store, StoreCredentials, StoreSettings, StoreUrl};
use std::net::IpAddr;

/// A store and its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreSpec {
    /// The agent's configuration of it.
    pub(crate) config: StoreConfig,
    /// The Secret with the credentials.
    pub(crate) secret: Option<String>,
    /// The CA of the endpoint.
    pub(crate) ca: Option<SecretKeyReference>,
    /// The claim of a `file://` store.
    pub(crate) claim: Option<String>,
    /// The Secret with the private keys of encrypted backups; for restores and drills.
    pub(crate) identity: Option<String>,
}

/// The dumps of one schedule, or of one backup without a schedule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Destination {
    /// Written into every manifest, and checked before a dump is removed.
    pub(crate) identity: ScheduleIdentity,
    /// Name of the `BackupSchedule`; absent for a backup without one.
    pub(crate) schedule: Option<String>,
    /// Name of the `ProtectedDatabase`.
    pub(crate) database: String,
    pub(crate) store: StoreSpec,
    /// Template of the Jobs' pods.
    pub(crate) pods: PodTemplate,
}

pub(crate) fn of_schedule(schedule: &BackupSchedule, cluster_id: &str) -> Result<Destination, JobSpecError> {
    let spec = &schedule.spec;
    let mut store = store(&spec.storage)?;
    // Earlier backups may be encrypted, too.
    store.identity = spec.decryption.identity_secret_ref.as_ref().map(|secret| secret.name.clone());
    Ok(Destination {
        identity: identity(schedule, cluster_id),
        schedule: schedule.metadata.name.clone(),
        database: spec.database_ref.name.clone(),
        store,
        pods: pods(&spec.pod_template)?,
    })
}

/// Of a backup without a schedule.
pub(crate) fn of_backup(backup: &DatabaseBackup, cluster_id: &str) -> Result<Destination, JobSpecError> {
    let missing = || JobSpecError::Storage("a backup without a schedule needs databaseRef and storage");
    Ok(Destination {
        identity: identity(backup, cluster_id),
        schedule: None,
        database: backup.spec.database_ref.as_ref().ok_or_else(missing)?.name.clone(),
        store: store(backup.spec.storage.as_ref().ok_or_else(missing)?)?,
        pods: PodTemplate::default(),
    })
}

fn identity(object: &impl kube::ResourceExt, cluster_id: &str) -> ScheduleIdentity {
    ScheduleIdentity {
        cluster_id: cluster_id.to_owned(),
        namespace: object.namespace().unwrap_or_default(),
        schedule: object.name_any(),
        schedule_uid: object.uid().unwrap_or_default(),
    }
}

fn store(storage: &Storage) -> Result<StoreSpec, JobSpecError> {
    let url = StoreUrl::parse(&storage.url)?;
    let is_file = url.scheme() == Scheme::File;
    let claim = storage.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
    if is_file != claim.is_some() {
        return Err(JobSpecError::Storage("a file:// url and persistentVolumeClaim go together"));
    }
    if is_file && storage.secret_ref.is_some() {
        return Err(JobSpecError::Storage("secretRef has no meaning with a file:// url: remove it"));
    }
    if url.scheme() != Scheme::S3 && (storage.endpoint.is_some() || storage.region.is_some()) {
        return Err(JobSpecError::Storage("endpoint and region go with an s3:// url"));
    }
    let allow_http = match &storage.endpoint {
        Some(endpoint) => plain_http_allowed(endpoint)?,
        None => false,
    };
    // Amazon S3 checks what arrives against it, and accepts nothing else in a bucket with a default retention (object lock).
    // Other servers need not know it.
    let sha256 = url.scheme() == Scheme::S3 && storage.endpoint.is_none();
    let secret = storage.secret_ref.as_ref().map(|reference| reference.name.clone());
    let config =
        StoreConfig { url, endpoint: storage.endpoint.clone(), region: storage.region.clone(), allow_http, sha256 };
    Ok(StoreSpec { config, secret, ca: storage.ca_secret_ref.clone(), claim, identity: None })
}

/// Whether an endpoint is plain http. It is allowed only for a Service of the cluster, since dumps are sent in clear. An
/// address tells nothing of where it is.
fn plain_http_allowed(endpoint: &str) -> Result<bool, JobSpecError> {
    let error = |problem| JobSpecError::Endpoint { endpoint: endpoint.chars().take(100).collect(), problem };
    let Some((scheme, authority)) = endpoint.split_once("://") else { return Err(error(NOT_A_SERVER)) };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
    let is_address = authority.starts_with('[') || host.parse::<IpAddr>().is_ok();
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && !host.is_empty();
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_server = authority.starts_with('[') || (is_name && is_port);
    if !is_server || authority.contains(['@', '/', '?', '#', '\\']) {
        return Err(error(NOT_A_SERVER));
    }
    match scheme {
        "https" => Ok(false),
        "http" if !is_address && is_service(host) => Ok(true),
        "http" => Err(error(NOT_A_SERVICE)),
        _ => Err(error(NOT_A_SERVER)),
    }
}

const NOT_A_SERVER: &str = "it is not https:// or http://, a host, and possibly a port";
const NOT_A_SERVICE: &str = "plain http is allowed only for the name of a Service (name, or name.namespace.svc), since dumps are sent in clear: use https://";

fn is_service(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let name = name.strip_suffix(".cluster.local").unwrap_or(name);
    let mut labels = name.split('.');
    let (service, namespace, svc) = (labels.next(), labels.next(), labels.next());
    let is_named = service.is_some_and(|name| !name.is_empty() && name != "localhost");
    is_named && labels.next().is_none() && matches!((namespace, svc), (None, None) | (Some(_), Some("svc")))
}

impl StoreSpec {
    /// Whether the operator's options allow the store.
    pub(crate) fn check_allowed(&self, allowed: &AllowedStores) -> Result<(), JobSpecError> {
        if allowed.allow(&self.config) { Ok(()) } else { Err(JobSpecError::NotAllowed(address(&self.config))) }
    }

    /// Whether the Secret has the keys that the provider needs. No request is sent to the store.
    pub(crate) fn check_secret(&self, secret: StoreSecret) -> Result<(), JobSpecError> {
        let (name, credentials) = match secret {
            StoreSecret::None => return Ok(()),
            StoreSecret::Missing(name) => return Err(JobSpecError::StoreSecretMissing(name)),
            StoreSecret::Found { name, credentials } => (name, credentials),
        };
        if matches!(credentials, StoreCredentials::Ambient) {
            return Err(JobSpecError::StoreSecret { name, problem: "it has no keys".to_owned() });
        }
        if self.config.url.scheme() == Scheme::File {
            return Ok(());
        }
        let settings = StoreSettings {
            endpoint: self.config.endpoint.clone(),
            region: self.config.region.clone(),
            credentials,
            allow_http: self.config.allow_http,
            ..StoreSettings::new(self.config.url.clone())
        };
        match Store::open(&settings) {
            Ok(_) => Ok(()),
            Err(error) => Err(JobSpecError::StoreSecret { name, problem: error.to_string() }),
        }
    }
}

fn pods(template: &PodTemplate) -> Result<PodTemplate, JobSpecError> {
    let ids = template.security_context.clone().unwrap_or_default();
    let groups = ids.supplemental_groups.unwrap_or_default();
    let all = [ids.run_as_user, ids.run_as_group, ids.fs_group].into_iter().flatten().chain(groups);
    if all.into_iter().any(|id| id < 1) { Err(JobSpecError::Root) } else { Ok(template.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::schedule;
    use serde_json::json;

    fn destination(storage: serde_json::Value) -> Result<Destination, JobSpecError> {
        of_schedule(&schedule(json!({"storage": storage})), "cluster")
    }

    #[test]
    fn stores_that_cannot_be_used() {
        for (storage, expected) in [
            (json!({"url": "s3://UPPER/x"}), "not a bucket"),
            (json!({"url": "s3://backups/a/../b"}), "another directory"),
            (json!({"url": "file:///dumps"}), "persistentVolumeClaim"),
            (json!({"url": "gs://backups/x", "region": "eu"}), "s3:// url"),
            (json!({"url": "s3://backups/x", "endpoint": "http://s3.example.com"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://8.8.8.8:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://localhost:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://svc.evil.com:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://10.96.0.7:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://[fd00::7]:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://a.b.c.svc:9000"}), "plain http"),
            (json!({"url": "s3://backups/x", "endpoint": "http://s3.infra.svc:9000@evil.com"}), "it is not"),
            (json!({"url": "s3://backups/x", "endpoint": "http://s3.infra.svc:9000/path"}), "it is not"),
            (json!({"url": "s3://backups/x", "endpoint": "ftp://s3.infra.svc"}), "it is not"),
        ] {
            let error = destination(storage).unwrap_err();
            assert_eq!(error.reason().as_str(), "InvalidStorage");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn plain_http_is_allowed_inside_the_cluster() {
        let allow_http = |endpoint: &str| {
            destination(json!({"url": "s3://backups/x", "endpoint": endpoint})).unwrap().store.config.allow_http
        };
        for inside in ["http://s3.infra.svc:9000", "http://s3:9000", "http://s3.infra.svc.cluster.local/"] {
            assert!(allow_http(inside), "{inside}");
        }
        for tls in ["https://s3.example.com", "https://[2001:db8::1]:9000", "https://192.0.2.7"] {
            assert!(!allow_http(tls), "{tls}");
        }
    }

    #[test]
    fn amazon_is_asked_for_sha256_and_others_are_not() {
        let sha256 = |storage| destination(storage).unwrap().store.config.sha256;
        assert!(sha256(json!({"url": "s3://backups/x", "region": "eu-central-1"})));
        assert!(!sha256(json!({"url": "s3://backups/x", "endpoint": "https://s3.example.com"})));
        assert!(!sha256(json!({"url": "gs://backups/x"})));
    }

    #[test]
    fn root_is_refused() {
        let root = json!({"podTemplate": {"securityContext": {"supplementalGroups": [0]}}});
        assert_eq!(of_schedule(&schedule(root), "cluster").unwrap_err().reason().as_str(), "InvalidSpec");
    }
}
