//! The server of a drill: whether it has what a dump needs, and the database that the dump is restored into.

use std::time::{Duration, Instant};

use pgrail_postgres::{ConnectError, Connection, ConnectionSettings, connect};
use tokio_postgres::Client;

use super::DrillProblem;
use crate::{Entry, Manifest, Source, create_database};

/// How long the server may take to start.
const START: Duration = Duration::from_mins(2);
const RETRY: Duration = Duration::from_millis(200);
/// Left out of every restore, so that no job runs.
const PG_CRON: &str = "pg_cron";

/// A throwaway server that has what a dump needs.
pub struct DrillServer {
    /// As the superuser.
    pub session: Connection,
    /// How it was reached.
    pub connection: ConnectionSettings,
    /// Its major version.
    pub major: u32,
    login: String,
}

impl DrillServer {
    /// Waits until the server answers, and checks its version and its extensions.
    pub async fn open(
        connection: &ConnectionSettings,
        manifest: &Manifest,
        entries: &[Entry],
    ) -> Result<Self, DrillProblem> {
        let not_run = |message: String| Err(DrillProblem::NotRun(message));
        let Some(source) = &manifest.source else { return not_run("the dump does not describe its database".into()) };
        let session = started(connection).await?;
        let (major, login, lacking) = check(&session, &extensions(source, entries)).await.map_err(of_server)?;
        let made_on = manifest.server_version.split(['.', ' ']).next().unwrap_or_default().parse().unwrap_or(0_u32);
        if made_on > major {
            return not_run(format!("the drill has PostgreSQL {major}, and the dump is of {made_on}"));
        }
        if !lacking.is_empty() {
            return not_run(format!("the drill's server lacks extensions of the database: {}", lacking.join(", ")));
        }
        Ok(Self { session, connection: connection.clone(), major, login })
    }

    /// Creates the roles of the dump and a database for it, of the owner or else of the login. Returns whether it has the locale
    /// of the source. What an earlier drill left is removed.
    pub async fn create_database(
        &self,
        name: &str,
        owner: Option<&str>,
        manifest: &Manifest,
        entries: &[Entry],
    ) -> Result<bool, DrillProblem> {
        let session = &self.session;
        let source = manifest.source.clone().unwrap_or_default();
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        session.batch_execute(&drop).await.map_err(of_server)?;
        let owners = entries.iter().map(|entry| entry.owner.as_str()).filter(|owner| !owner.is_empty());
        // What initdb created exists, too. A role that the archive names and the source does not have is not created.
        let roles: Vec<&str> = source.roles.iter().map(String::as_str).chain(owners).collect();
        let sql = "SELECT DISTINCT pg_catalog.format('CREATE ROLE %I', w.name) FROM pg_catalog.unnest($1::text[]) w(name) \
             WHERE w.name !~ '^pg_' AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname::text = w.name)";
        for row in session.query(sql, &[&roles]).await.map_err(of_server)? {
            session.batch_execute(row.get(0)).await.map_err(of_server)?;
        }
        let (encoding, owner) = (&manifest.encoding, owner.unwrap_or(&self.login));
        let plain =
            Source { collate: "C".into(), ctype: "C".into(), locale_provider: "libc".into(), ..Source::default() };
        for (of, exact) in [(&source, true), (&plain, false)] {
            let statement = create_database::statement(session, name, owner, encoding, of, self.major).await;
            let Ok(statement) = statement else { continue };
            if session.batch_execute(&statement).await.is_ok() {
                return Ok(exact);
            }
        }
        let message = format!("the drill's server cannot create a database with the encoding {encoding}");
        Err(DrillProblem::NotRun(message))
    }

    /// The server ends soon in any case.
    pub async fn drop_database(&self, name: &str) {
        let _ = self.session.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }
}

/// The extensions that a restore creates, as the dump orders them: those that others need first.
fn extensions<'a>(source: &'a Source, entries: &'a [Entry]) -> Vec<&'a str> {
    let of_source = |name: &str| source.extensions.iter().any(|extension| extension.name == name);
    let dumped = entries.iter().filter(|entry| entry.kind == "EXTENSION").map(|entry| entry.name.as_str());
    dumped.filter(|name| of_source(name) && *name != PG_CRON).collect()
}

/// The server may still be starting.
async fn started(server: &ConnectionSettings) -> Result<Connection, DrillProblem> {
    let deadline = Instant::now() + START;
    loop {
        match connect(server).await {
            Ok(session) => return Ok(session),
            Err(ConnectError::Refused(_) | ConnectError::NotReady) if Instant::now() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(DrillProblem::NotRun(format!("the drill's server does not answer: {error}"))),
        }
    }
}

/// The major version, the login, and the extensions that are lacking.
async fn check(session: &Client, wanted: &[&str]) -> Result<(u32, String, Vec<String>), tokio_postgres::Error> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int / 10000, current_user::text, \
         ARRAY(SELECT w.name FROM pg_catalog.unnest($1::text[]) w(name) WHERE NOT EXISTS \
             (SELECT FROM pg_catalog.pg_available_extensions e WHERE e.name::text = w.name))";
    let row = session.query_one(sql, &[&wanted]).await?;
    Ok((u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default(), row.try_get(1)?, row.try_get(2)?))
}

fn of_server(error: impl std::error::Error + 'static) -> DrillProblem {
    DrillProblem::NotRun(format!("the drill's server failed: {}", crate::error_chain(&error)))
}
