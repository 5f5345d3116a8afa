//! Follows an object until it has a result, and shows its progress.

use super::cluster::refused;
use crate::cli::CommandError;
use crate::signals::stop_requested;
use futures::StreamExt;
use kube::api::{Api, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// How a command waits.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct FollowArgs {
    /// Create the object and do not wait for its result
    #[arg(long)]
    no_wait: bool,
    /// How long to wait; the object remains
    #[arg(long, default_value = "1h", value_parser = duration)]
    timeout: Duration,
}

/// A duration as in the API: `30m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration: pgrail_crds::Duration = text.parse().map_err(|_| "must be a duration such as 30m".to_owned())?;
    Ok(duration.into())
}

/// What an object shows.
pub(super) enum Progress {
    /// Not finished. The text is printed when it changes.
    Running(String),
    /// The result.
    Finished,
}

/// Creates an object, and follows it until `progress` finds its result. `None`: it is not waited for.
pub(super) async fn create_and_follow<K>(
    client: &Client,
    namespace: &str,
    object: &K,
    args: &FollowArgs,
    progress: impl Fn(&K) -> Progress,
) -> Result<Option<K>, CommandError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + 'static,
{
    let kind = K::kind(&());
    // From the beginning: an interruption must not leave an object behind that is not named.
    let stop = stop_requested();
    futures::pin_mut!(stop);
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters = PostParams::default();
    let created = tokio::select! {
        biased;
        () = &mut stop => {
            return Err(CommandError::Refused(format!("interrupted while the {kind} was created: see `kubectl get`")));
        }
        created = api.create(&parameters, object) => created,
    };
    let name = created.map_err(|error| refused(&format!("{kind} not created"), error))?.name_any();
    eprintln!("{kind} {namespace}/{name} created");
    if args.no_wait {
        return Ok(None);
    }
    let remains = |why: &str| {
        CommandError::Refused(format!("{why}: the {kind} {namespace}/{name} remains; see `kubectl describe`"))
    };
    tokio::select! {
        result = tokio::time::timeout(args.timeout, until_finished(api, namespace, &name, progress)) => match result {
            Ok(result) => result.map(Some),
            Err(_) => Err(remains("no result in time")),
        },
        () = stop => Err(remains("interrupted")),
    }
}

async fn until_finished<K>(
    api: Api<K>,
    namespace: &str,
    name: &str,
    progress: impl Fn(&K) -> Progress,
) -> Result<K, CommandError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher::watcher(api, config).default_backoff();
    futures::pin_mut!(events);
    let mut shown = String::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => match progress(&object) {
                Progress::Finished => return Ok(object),
                Progress::Running(text) => {
                    if text != shown {
                        eprintln!("{name}: {text}");
                        shown = text;
                    }
                }
            },
            Ok(Event::Delete(_)) => {
                return Err(CommandError::Refused(format!("the {kind} {namespace}/{name} was deleted")));
            }
            Err(watcher::Error::InitialListFailed(error @ kube::Error::Api(_))) => {
                return Err(refused(&format!("{kind} {namespace}/{name}"), error));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Err(CommandError::Refused(format!("the watch of {namespace}/{name} ended")))
}
