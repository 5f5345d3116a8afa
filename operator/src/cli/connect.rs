//! Which database a command is about, said as for every PostgreSQL client: a URL or keyword string, the `PG*` variables,
//! and the password file.

mod password_file;

use crate::kubernetes::text::chain;
use crate::secret::known_keys;
use password_file::Wanted;
use pgrail_postgres::{
    ConnectError, Connection, ConnectionSettings, MissingPart, ParsedUri, PartialSettings, Password, TlsMode, UriError,
    parse_connection_string,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Where Debian's and most other servers have their Unix socket.
const SOCKETS: &str = "/var/run/postgresql";
/// One of them says which database is meant.
const VARIABLES: [&str; 4] = ["PGHOST", "PGDATABASE", "PGUSER", "PGPORT"];

/// Which database a command is about.
#[derive(Debug, clap::Args)]
pub(super) struct DatabaseArgs {
    /// The database, as postgres://user@host:port/database?sslmode=… or "host=… dbname=… user=…". What it leaves out is
    /// taken from PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT, and the password file (.pgpass)
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// A file with the URL, so that the password shows in no process list
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
    /// Settings that were found otherwise: those of a `ProtectedDatabase`.
    #[arg(skip)]
    found: Option<Box<ConnectionSettings>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(
        "no database: give --database-url, --database-url-file, or the environment variables DATABASE_URL or PGHOST, \
         PGDATABASE, PGUSER"
    )]
    Missing,
    #[error("{}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    #[error("the database URL cannot be used")]
    Url(#[from] UriError),
    #[error("the environment variable {0} has an invalid value")]
    Variable(&'static str),
    #[error("the database URL lacks {}, and there is no environment variable for it", .0.0)]
    Part(MissingPart),
    #[error("cannot connect to {place} ({}): {}", .error.reason(), chain(.error))]
    Connect { place: String, error: ConnectError },
}

impl DatabaseArgs {
    /// Uses these settings, whatever the options say.
    pub(super) fn set(&mut self, settings: ConnectionSettings) {
        self.found = Some(Box::new(settings));
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectionError> {
        let settings = self.settings()?;
        let place = format!("{}:{}/{}", settings.host, settings.port, settings.database);
        pgrail_postgres::connect(&settings).await.map_err(|error| ConnectionError::Connect { place, error })
    }

    /// The settings. What is ignored, and what lets others read the password, is named on standard error.
    pub(super) fn settings(&self) -> Result<ConnectionSettings, ConnectionError> {
        if let Some(settings) = &self.found {
            return Ok(settings.as_ref().clone());
        }
        let mut parsed = match (&self.database_url, &self.database_url_file) {
            (Some(url), _) => {
                let parsed = parse_connection_string(url)?;
                if parsed.parts.password.is_some() && is_argument() {
                    eprintln!(
                        "pgrail: the password in --database-url shows in the list of processes: use --database-url-file, \
                         DATABASE_URL, PGPASSWORD or a password file"
                    );
                }
                parsed
            }
            (None, Some(file)) => {
                let parsed = parse_connection_string(&read(file)?)?;
                if parsed.parts.password.is_some() && others_can_read(file) {
                    eprintln!("pgrail: {}: others can read the password in this file: chmod 600 {0}", file.display());
                }
                parsed
            }
            (None, None) if VARIABLES.iter().any(|name| variable(name).is_some()) => {
                ParsedUri { parts: PartialSettings::default(), ignored_keys: Vec::new() }
            }
            (None, None) => return Err(ConnectionError::Missing),
        };
        let ignored = known_keys(std::mem::take(&mut parsed.ignored_keys));
        if !ignored.is_empty() {
            eprintln!("pgrail: ignored in the database URL: {}", ignored.join(", "));
        }
        from_environment(&mut parsed.parts)?;
        let (ca_file, password_file) = (parsed.parts.ca_file.take(), parsed.parts.password_file.take());
        let mut settings = parsed.into_settings(variable("USER").as_deref()).map_err(ConnectionError::Part)?;
        if let Some(file) = ca_file {
            settings.ca_pem = Some(read(&file)?.into());
        }
        if settings.password.is_none() {
            let wanted = Wanted {
                host: if settings.host == SOCKETS { "localhost" } else { &settings.host },
                port: settings.port,
                database: &settings.database,
                user: &settings.user,
            };
            settings.password = password_file::find(password_file, &wanted).map(Password::new);
        }
        Ok(settings)
    }
}

/// What the connection string leaves out, from the variables of libpq.
fn from_environment(parts: &mut PartialSettings) -> Result<(), ConnectionError> {
    let sockets = || Path::new(SOCKETS).is_dir().then(|| SOCKETS.to_owned());
    parts.host = parts.host.take().or_else(|| variable("PGHOST")).or_else(sockets).or(Some("localhost".to_owned()));
    if parts.port.is_none() {
        parts.port = parsed("PGPORT", |port| port.parse().ok().filter(|port| *port != 0))?;
    }
    parts.user = parts.user.take().or_else(|| variable("PGUSER")).or_else(|| variable("USER"));
    parts.database = parts.database.take().or_else(|| variable("PGDATABASE")).or_else(|| parts.user.clone());
    parts.password = parts.password.take().or_else(|| variable("PGPASSWORD").map(Password::new));
    if parts.tls.is_none() {
        parts.tls = parsed("PGSSLMODE", |mode| TlsMode::from_str(mode).ok())?;
    }
    if parts.ca_file.is_none() {
        match variable("PGSSLROOTCERT") {
            Some(system) if system == "system" => parts.tls = Some(TlsMode::VerifyFull),
            file => parts.ca_file = file.map(PathBuf::from),
        }
    }
    if parts.connect_timeout.is_none() {
        let seconds = parsed("PGCONNECT_TIMEOUT", |seconds| seconds.parse::<u64>().ok())?;
        parts.connect_timeout = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    }
    parts.channel_binding_required |= variable("PGCHANNELBINDING").as_deref() == Some("require");
    Ok(())
}

fn parsed<T>(name: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ConnectionError> {
    variable(name).map(|value| parse(&value).ok_or(ConnectionError::Variable(name))).transpose()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether the URL is among the arguments, and not in the environment.
fn is_argument() -> bool {
    std::env::args().any(|argument| argument.starts_with("--database-url") && !argument.starts_with("--database-url-"))
}

fn read(file: &Path) -> Result<String, ConnectionError> {
    std::fs::read_to_string(file).map_err(|error| ConnectionError::File(file.to_owned(), error))
}

/// Whether the group or everybody can read a regular file.
fn others_can_read(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o044 != 0)
}
