//! From the connection of a spec to settings: the Secrets it names, its own fields, and whether the host is allowed.

use super::hosts::{AllowedHosts, HostNotAllowed, host_allowed, lookup_name};
use crate::kubernetes::rejection::Reason;
use crate::secret::{Overrides, SecretError, from_secret};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use pgrail_crds::annotations::ALLOW_HOST_OVERRIDE;
use pgrail_crds::{Connection, TlsMode as DeclaredTls};
use pgrail_postgres::{AddressNotAllowed, ConnectionSettings, TlsMode};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a server may take to answer one request of the operator.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// A Secret that the spec names does not exist.
    #[error("the Secret {name:?} that {field} names does not exist in this namespace: create it, or correct the name")]
    SecretMissing {
        /// Where it is named.
        field: &'static str,
        /// Its name.
        name: String,
    },
    /// The Secret with the certificate authority lacks the key.
    #[error("the Secret {name:?} has no key {key:?}, which spec.connection.tls.caSecretRef names")]
    AuthorityMissing {
        /// The Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// The Secret cannot be used.
    #[error("the Secret {name:?}: {source}")]
    Secret {
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: SecretError,
    },
    /// The spec names a host that it may not name.
    #[error("spec.connection.host: the host {host:?} is not allowed: {source}")]
    Host {
        /// The host.
        host: String,
        /// Why not.
        source: HostNotAllowed,
    },
    /// The spec names another host than the Secret does.
    #[error(
        "spec.connection.host is another host than the one that the Secret {name:?} names, which would send its login \
         elsewhere: leave spec.connection.host out, or annotate the Secret with {ALLOW_HOST_OVERRIDE}: \"true\""
    )]
    HostOverride {
        /// The Secret.
        name: String,
    },
    /// A Unix socket of the operator's own machine.
    #[error("the host is not allowed: {0}")]
    UnixSocket(AddressNotAllowed),
    /// The apiserver did not answer.
    #[error("could not read a Secret")]
    Api(#[source] kube::Error),
}

impl ResolveError {
    /// The reason of `Reachable=False`.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::SecretMissing { .. } => Reason::SecretMissing,
            Self::AuthorityMissing { .. } | Self::Secret { .. } => Reason::SecretIncomplete,
            Self::Host { .. } | Self::HostOverride { .. } | Self::UnixSocket(_) => Reason::HostNotAllowed,
            Self::Api(_) => Reason::Timeout,
        }
    }
}

/// The keys of a Secret.
struct Keys {
    keys: BTreeMap<String, Vec<u8>>,
    /// Its author allows specs to name another host.
    host_override: bool,
    uid: String,
}

/// Settings of a connection and what led to them.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSource {
    /// What to connect with.
    pub(crate) settings: ConnectionSettings,
    /// Keys of the URI that mean nothing to PostgreSQL, named to the user.
    pub(crate) ignored_keys: Vec<String>,
    /// UID of the Secret with the login.
    pub(crate) secret_uid: String,
}

/// Reads the Secrets of a connection and makes settings of them.
pub(crate) async fn resolve(
    client: &Client,
    allowed_hosts: &AllowedHosts,
    namespace: &str,
    connection: &Connection,
) -> Result<ConnectionSource, ResolveError> {
    let name = &connection.secret_ref.name;
    let login = secret(client, namespace, "spec.connection.secretRef", name).await?;
    let authority = match &connection.tls.ca_secret_ref {
        None => None,
        Some(reference) => {
            let mut secret = secret(client, namespace, "spec.connection.tls.caSecretRef", &reference.name).await?;
            let pem = secret.keys.remove(&reference.key).ok_or_else(|| ResolveError::AuthorityMissing {
                name: reference.name.clone(),
                key: reference.key.clone(),
            })?;
            Some(pem)
        }
    };
    settings(allowed_hosts, namespace, connection, &login, authority)
}

fn settings(
    allowed_hosts: &AllowedHosts,
    namespace: &str,
    connection: &Connection,
    login: &Keys,
    authority: Option<Vec<u8>>,
) -> Result<ConnectionSource, ResolveError> {
    let overrides = Overrides {
        host: connection.host.clone(),
        port: connection.port.and_then(|port| u16::try_from(port).ok()),
        database: connection.database.clone(),
        user: connection.user.clone(),
        tls: Some(tls_mode(connection.tls.mode)),
    };
    let found = from_secret(&login.keys, &overrides)
        .map_err(|source| ResolveError::Secret { name: connection.secret_ref.name.clone(), source })?;
    let mut settings = found.settings;
    if settings.is_unix_socket() {
        return Err(ResolveError::UnixSocket(AddressNotAllowed));
    }
    if found.host_from_spec {
        host_allowed(&settings.host, namespace, allowed_hosts)
            .map_err(|source| ResolveError::Host { host: settings.host.clone(), source })?;
        let same = |own: &String| is_same_host(own, &settings.host, namespace);
        if !login.host_override && !found.own_host.as_ref().is_none_or(same) {
            return Err(ResolveError::HostOverride { name: connection.secret_ref.name.clone() });
        }
        settings.host_trusted = login.host_override || found.own_host.as_ref().is_some_and(same);
    }
    // A bare Service name means the object's namespace, not the operator's.
    settings.lookup = lookup_name(&settings.host, namespace);
    if authority.is_some() {
        settings.ca_pem = authority;
        // Whoever chooses the CA and can redirect the Service could stand in for the server.
        settings.host_trusted &= login.host_override;
    }
    settings.answer_timeout = Some(ANSWER_TIMEOUT);
    Ok(ConnectionSource { settings, ignored_keys: found.ignored_keys, secret_uid: login.uid.clone() })
}

async fn secret(client: &Client, namespace: &str, field: &'static str, name: &str) -> Result<Keys, ResolveError> {
    let secret = Api::<Secret>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(ResolveError::Api)?
        .ok_or_else(|| ResolveError::SecretMissing { field, name: name.to_owned() })?;
    let host_override = secret.annotations().get(ALLOW_HOST_OVERRIDE).is_some_and(|value| value == "true");
    let uid = secret.uid().unwrap_or_default();
    let keys = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Ok(Keys { keys, host_override, uid })
}

/// Whether two names are the same host to an object of this namespace.
fn is_same_host(one: &str, other: &str, namespace: &str) -> bool {
    let full = |host: &str| lookup_name(host, namespace).unwrap_or_else(|| host.trim_end_matches('.').to_lowercase());
    full(one) == full(other)
}

fn tls_mode(declared: DeclaredTls) -> TlsMode {
    match declared {
        DeclaredTls::Disable => TlsMode::Disable,
        DeclaredTls::Prefer => TlsMode::Prefer,
        DeclaredTls::Require => TlsMode::Require,
        DeclaredTls::VerifyCa => TlsMode::VerifyCa,
        DeclaredTls::VerifyFull => TlsMode::VerifyFull,
    }
}
