//! `--database-url`, and the connection that it leads to.

use crate::kubernetes::text::chain;
use pgrail_postgres::{ConnectError, Connection, MissingPart, UriError};
use std::path::PathBuf;

/// Which database a command is about.
#[derive(Debug, clap::Args)]
pub(super) struct DatabaseArgs {
    /// The database, as postgres://user:password@host:port/database?sslmode=…
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// A file with the URL, so that the password shows in no process list
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("no database: give --database-url, --database-url-file, or the environment variable DATABASE_URL")]
    Missing,
    #[error("--database-url-file {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    #[error("the database URL cannot be used")]
    Url(#[from] UriError),
    #[error("the database URL lacks {}", .0.0)]
    Part(MissingPart),
    #[error("cannot connect to {place} ({}): {}", .error.reason(), chain(.error))]
    Connect { place: String, error: ConnectError },
}

impl DatabaseArgs {
    /// Connects. Keys of the URL that mean nothing to PostgreSQL are named on standard error.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectionError> {
        let url = match (&self.database_url, &self.database_url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => {
                std::fs::read_to_string(file).map_err(|error| ConnectionError::File(file.clone(), error))?
            }
            (None, None) => return Err(ConnectionError::Missing),
        };
        let parsed = pgrail_postgres::parse_uri(url.trim())?;
        if !parsed.ignored_keys.is_empty() {
            eprintln!("pgrail: ignored in the database URL: {}", parsed.ignored_keys.join(", "));
        }
        let user = std::env::var("USER").ok();
        let settings = parsed.into_settings(user.as_deref()).map_err(ConnectionError::Part)?;
        let place = format!("{}:{}/{}", settings.host, settings.port, settings.database);
        pgrail_postgres::connect(&settings).await.map_err(|error| ConnectionError::Connect { place, error })
    }
}
