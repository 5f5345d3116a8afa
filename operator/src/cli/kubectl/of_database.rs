//! Commands that connect to the database of a `ProtectedDatabase`: with its Secret, which the user must have the right to
//! read.

use super::cluster::{ClusterArgs, refused};
use crate::cli::CommandError;
use crate::database::{AllowedHosts, DatabaseError, resolve};
use kube::{Api, Client};
use pgrail_crds::ProtectedDatabase;
use pgrail_postgres::ConnectionSettings;

/// A command on one database.
#[derive(Debug, clap::Args)]
pub(super) struct OfDatabase<Command: clap::Args> {
    /// The ProtectedDatabase
    #[arg(value_name = "DATABASE")]
    name: String,
    /// Connect to this HOST:PORT instead, such as 127.0.0.1:5433 of `kubectl port-forward`; the certificate is still checked
    /// for the declared host
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    address: Option<(String, u16)>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    pub(super) command: Command,
}

fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("must be HOST:PORT")?;
    let port = port.parse().map_err(|_| "must be HOST:PORT")?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

impl<Command: clap::Args> OfDatabase<Command> {
    /// The database.
    pub(super) async fn get(&self) -> Result<ProtectedDatabase, CommandError> {
        let (client, namespace) = self.cluster.connect().await?;
        find(&client, &namespace, &self.name).await
    }

    /// How to connect.
    pub(super) async fn settings(&mut self) -> Result<ConnectionSettings, CommandError> {
        let (client, namespace) = self.cluster.connect().await?;
        let database = find(&client, &namespace, &self.name).await?;
        // The user connects from his own machine and with his own right to read the Secret: every host is allowed.
        let everywhere = AllowedHosts::parse(["*", "0.0.0.0/0", "::/0"])
            .map_err(|error| CommandError::Refused(error.to_string()))?;
        let source = resolve(&client, &everywhere, &namespace, &database.spec.connection).await;
        let mut settings = source.map_err(DatabaseError::from)?.settings;
        if let Some((host, port)) = self.address.take() {
            (settings.lookup, settings.port) = (Some(host), port);
        }
        // A statement of a person may take longer than a check of the operator.
        settings.answer_timeout = None;
        Ok(settings)
    }
}

async fn find(client: &Client, namespace: &str, name: &str) -> Result<ProtectedDatabase, CommandError> {
    let api: Api<ProtectedDatabase> = Api::namespaced(client.clone(), namespace);
    let database = api.get(name).await;
    database.map_err(|error| refused(&format!("ProtectedDatabase {namespace}/{name}"), error))
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(address("127.0.0.1:5433"), Ok(("127.0.0.1".to_owned(), 5433)));
        assert_eq!(address("[::1]:5433"), Ok(("::1".to_owned(), 5433)));
        assert!(address("localhost").is_err() && address("localhost:x").is_err());
    }
}
