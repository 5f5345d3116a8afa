//! The objects that a backup refers to. Secrets are read by `get`, never by a watch.

use crate::agent::config::IDENTITY_KEY;
use crate::context::Context;
use crate::database::{ResolveError, resolve};
use crate::kubernetes::rejection::{Reason, Rejection, StepError};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use pgrail_crds::{BackupSchedule, Connection, LocalReference, ProtectedDatabase, SecretKeyReference, Storage};
use pgrail_dump::{Identities, StoreCredentials};

/// The Secrets of a backup. Whether they can be used is validated with the spec.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// Why the connection's Secrets cannot be used, if they cannot.
    pub(crate) connection: Option<ResolveError>,
    /// UID of the Secret with the login.
    pub(crate) login_uid: String,
    pub(crate) store: StoreSecret,
    /// Why the CA of the store's endpoint cannot be used, if it cannot.
    pub(crate) store_ca: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) enum StoreSecret {
    /// The spec names none.
    #[default]
    None,
    Missing(String),
    Found {
        name: String,
        credentials: StoreCredentials,
    },
}

pub(crate) async fn schedule(namespace: &str, name: &str, context: &Context) -> Result<BackupSchedule, StepError> {
    let found = Api::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    found.ok_or_else(|| {
        let message = format!(
            "there is no BackupSchedule {name:?} in this namespace: create it, or name another in spec.scheduleRef"
        );
        Rejection::new(Reason::ScheduleNotFound, message).into()
    })
}

pub(crate) async fn database(namespace: &str, name: &str, context: &Context) -> Result<ProtectedDatabase, StepError> {
    let found = Api::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    found.ok_or_else(|| {
        let message = format!(
            "there is no ProtectedDatabase {name:?} in this namespace: create it, or name another in spec.databaseRef"
        );
        Rejection::new(Reason::DatabaseNotFound, message).into()
    })
}

/// Connection settings are only checked here, by the same rules as for guards: the pod reads the Secret itself.
pub(crate) async fn secrets(
    namespace: &str,
    connection: &Connection,
    storage: Option<&Storage>,
    context: &Context,
) -> Result<Secrets, kube::Error> {
    let resolved = resolve(&context.client, &context.settings.allowed_hosts, namespace, connection).await;
    let (connection, login_uid) = match resolved {
        Ok(source) => (None, source.secret_uid),
        Err(ResolveError::Api(error)) => return Err(error),
        Err(error) => (Some(error), String::new()),
    };
    let store_ca = store_ca(namespace, storage, context).await?;
    Ok(Secrets { connection, login_uid, store: store_secret(namespace, storage, context).await?, store_ca })
}

/// A pod with a missing key would wait for it without an error.
async fn store_ca(
    namespace: &str,
    storage: Option<&Storage>,
    context: &Context,
) -> Result<Option<String>, kube::Error> {
    let Some(SecretKeyReference { name, key }) = storage.and_then(|storage| storage.ca_secret_ref.as_ref()) else {
        return Ok(None);
    };
    let secret = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(name).await?;
    let has_key = secret.as_ref().is_some_and(|it| it.data.as_ref().is_some_and(|data| data.contains_key(key)));
    Ok(match secret {
        None => Some(format!("there is no Secret {name:?} in this namespace")),
        Some(_) if !has_key => Some(format!("the Secret {name:?} has no key {key:?}")),
        Some(_) => None,
    })
}

pub(crate) async fn store_secret(
    namespace: &str,
    storage: Option<&Storage>,
    context: &Context,
) -> Result<StoreSecret, kube::Error> {
    let Some(reference) = storage.and_then(|storage| storage.secret_ref.as_ref()) else { return Ok(StoreSecret::None) };
    let name = reference.name.clone();
    let Some(secret) = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(&name).await? else {
        return Ok(StoreSecret::Missing(name));
    };
    // A key that is no text is no credential, such as a trust store.
    let keys = secret.data.unwrap_or_default().into_iter();
    let keys = keys.filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
    Ok(StoreSecret::Found { name, credentials: StoreCredentials::from_keys(keys) })
}

/// The Secret with the private keys of encrypted backups.
#[derive(Debug, Default)]
pub(crate) enum IdentitySecret {
    /// The spec names none.
    #[default]
    None,
    Missing(String),
    Found {
        name: String,
        /// Why it cannot be used. It contains no key.
        problem: Option<String>,
    },
}

impl IdentitySecret {
    /// The name of the Secret, if the backup needs it; a rejection if it needs one that is not there. An earlier version did
    /// not record whether a backup is encrypted, and could not encrypt.
    pub(crate) fn usable(self, backup: &str, encrypted: Option<bool>) -> Result<Option<String>, Rejection> {
        const FIELD: &str = "spec.decryption.identitySecretRef";
        let rejected = |message| Err(Rejection::new(Reason::IdentityRequired, message));
        match (encrypted.unwrap_or(false), self) {
            (false, _) => Ok(None),
            (true, Self::Found { name, problem: None }) => Ok(Some(name)),
            (true, Self::None) => rejected(format!(
                "the backup {backup:?} is encrypted: name a Secret with the age identity (key `{IDENTITY_KEY}`) in {FIELD}"
            )),
            (true, Self::Missing(name)) => rejected(format!(
                "there is no Secret {name:?} in this namespace, which {FIELD} names: create it, or correct the name"
            )),
            (true, Self::Found { name, problem: Some(problem) }) => {
                rejected(format!("the Secret {name:?}, which {FIELD} names, cannot be used: {problem}"))
            }
        }
    }
}

pub(crate) async fn identity(
    namespace: &str,
    reference: Option<&LocalReference>,
    context: &Context,
) -> Result<IdentitySecret, kube::Error> {
    let Some(name) = reference.map(|reference| reference.name.clone()) else { return Ok(IdentitySecret::None) };
    let Some(secret) = Api::<Secret>::namespaced(context.client.clone(), namespace).get_opt(&name).await? else {
        return Ok(IdentitySecret::Missing(name));
    };
    let text = secret.data.unwrap_or_default().remove(IDENTITY_KEY).map(|value| String::from_utf8(value.0));
    let problem = match text {
        None => Some(format!("it has no key `{IDENTITY_KEY}`")),
        Some(Err(_)) => Some(format!("its key `{IDENTITY_KEY}` is no text")),
        Some(Ok(text)) => Identities::parse(&text).err().map(|error| error.to_string()),
    };
    Ok(IdentitySecret::Found { name, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_backup_needs_a_usable_identity() {
        let found =
            |problem: Option<&str>| IdentitySecret::Found { name: "age".into(), problem: problem.map(str::to_owned) };
        assert_eq!(found(None).usable("b", Some(true)), Ok(Some("age".into())));
        assert_eq!(found(None).usable("b", Some(false)), Ok(None), "no key where none is needed");
        assert_eq!(IdentitySecret::None.usable("b", None), Ok(None));
        for (identity, part) in [
            (IdentitySecret::None, "spec.decryption.identitySecretRef"),
            (IdentitySecret::Missing("age".into()), "no Secret \"age\""),
            (found(Some("it has no key")), "it has no key"),
        ] {
            let rejection = identity.usable("b", Some(true)).unwrap_err();
            assert_eq!(rejection.reason, Reason::IdentityRequired);
            assert!(rejection.message.contains(part), "{}", rejection.message);
        }
    }
}
