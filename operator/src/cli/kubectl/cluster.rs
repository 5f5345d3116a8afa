//! Which cluster a command is about: the user's kubeconfig, as kubectl finds it.

use crate::cli::CommandError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::PathBuf;

/// Which cluster a command is about.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// The kubeconfig; default: KUBECONFIG, or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; default: the current one
    #[arg(long)]
    context: Option<String>,
    /// The namespace; default: that of the context
    #[arg(short = 'n', long)]
    namespace: Option<String>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[source] KubeconfigError),
    #[error("no client for the cluster")]
    Client(#[source] kube::Error),
}

impl ClusterArgs {
    /// A client, and the namespace.
    pub(super) async fn connect(&self) -> Result<(Client, String), CommandError> {
        let config = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let config = config.map_err(ClusterError::Kubeconfig)?;
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(config, &options).await.map_err(ClusterError::Kubeconfig)?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok((Client::try_from(config).map_err(ClusterError::Client)?, namespace))
    }
}

/// An error of the apiserver in the words of a user.
pub(super) fn refused(what: &str, error: kube::Error) -> CommandError {
    match error {
        kube::Error::Api(status) => CommandError::Refused(format!("{what}: {}", status.message)),
        error => CommandError::Refused(format!("{what}: {}", crate::kubernetes::text::chain(&error))),
    }
}
