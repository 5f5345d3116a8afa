//! Connections to the databases of all objects. One is used inside [`Databases::with`] and returns to its server's pool
//! only when the work on it ended well, so that a cancelled reconcile leaves no lock and no setting behind.

use super::entry::{Entry, Locked, Resolved, Shared};
use super::last_logins::LastLogins;
use super::light_checks::{LightCheck, LightChecks};
use super::resolve::{ConnectionSource, resolve};
use super::server::{Key, Place, Server};
use super::{AllowedHosts, DatabaseError};
use crate::clock::is_recent;
use crate::kubernetes::places::wait_without_place;
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::chain;
use crate::mutex::locked;
use futures::Stream;
use jiff::{SignedDuration, Timestamp};
use kube::{Client, ResourceExt};
use pgrail_crds::{Connection as DeclaredConnection, ProtectedDatabase};
use pgrail_guard::{Fingerprint, ObserveError};
use pgrail_postgres::{AddressPolicy, Connection, ConnectionSettings, DEFAULT_CONNECT_TIMEOUT};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;

/// How often the Secret is read again, so that a changed password is picked up before it is needed.
const SECRET_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// The channel that pgrail's event triggers notify.
const LISTEN: &str = "LISTEN pgrail";
/// Notifications of one database within this time are one.
const CHANGES_APART: Duration = Duration::from_millis(200);
/// Changes that a slow listener may fall behind by: what it misses is found at the next regular check.
const CHANGES_KEPT: usize = 1024;

/// What the operator may do where.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Hosts that the connection of a spec may name besides Services of its own namespace.
    pub(crate) allowed_hosts: AllowedHosts,
    /// Addresses that may be connected to.
    pub(crate) addresses: AddressPolicy,
    /// Connections to one server at the same time.
    pub(crate) per_server: usize,
}

/// The connections of all databases.
pub(crate) struct Databases {
    client: Client,
    limits: Limits,
    clock: fn() -> Timestamp,
    servers: Mutex<HashMap<(String, u16), Arc<Server>>>,
    entries: Mutex<HashMap<Key, Arc<Shared>>>,
    last_logins: LastLogins,
    light_checks: Arc<LightChecks>,
    changes: broadcast::Sender<Key>,
}

/// What to log in with.
#[derive(Clone, Copy)]
enum Login<'a> {
    /// What is declared, with its Secrets.
    Declared(&'a DeclaredConnection),
    /// What was used last, whatever is declared now.
    Last(&'a Arc<ConnectionSource>),
}

/// One database in use. Dereferences to its connection.
pub(crate) struct Session {
    connection: Connection,
    server: Arc<Server>,
    /// The login.
    pub(crate) user: String,
    /// Keys of the URI that PostgreSQL does not know and that are ignored.
    pub(crate) ignored_keys: Vec<String>,
}

impl Databases {
    pub(crate) fn new(client: Client, limits: Limits, clock: fn() -> Timestamp) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        Self {
            client,
            limits,
            clock,
            servers: Mutex::default(),
            entries: Mutex::default(),
            last_logins: LastLogins::default(),
            light_checks: Arc::default(),
            changes,
        }
    }

    /// Runs `work` on a connection to a database. The connection is kept for the next use only when `work` succeeds: after
    /// an error, a timeout or a cancellation it is closed, with whatever it had locked or set.
    pub(crate) async fn with<T, E, Work>(&self, database: &ProtectedDatabase, work: Work) -> Result<T, E>
    where
        E: From<DatabaseError>,
        Work: AsyncFnOnce(&mut Session) -> Result<T, E>,
    {
        let key = (database.namespace().unwrap_or_default(), database.name_any());
        let result = self.with_entry(&key, Login::Declared(&database.spec.connection), work).await;
        if result.is_err() {
            // What was found before may not hold any more.
            self.light_checks.forget(&key);
        }
        result
    }

    /// The same with the login that was used last, where it is known: for what is left in a database when the namespace,
    /// with the Secret and the `ProtectedDatabase`, is being deleted.
    pub(crate) async fn with_last_login<T, E, Work>(&self, key: &Key, work: Work) -> Option<Result<T, E>>
    where
        E: From<DatabaseError>,
        Work: AsyncFnOnce(&mut Session) -> Result<T, E>,
    {
        let source = self.last_logins.find(key, (self.clock)())?;
        let result = self.with_entry(key, Login::Last(&source), work).await;
        // Nothing else uses the database.
        self.forget(&key.0, &key.1);
        Some(result)
    }

    async fn with_entry<T, E, Work>(&self, key: &Key, login: Login<'_>, work: Work) -> Result<T, E>
    where
        E: From<DatabaseError>,
        Work: AsyncFnOnce(&mut Session) -> Result<T, E>,
    {
        let shared = self.entry(key);
        let mut entry = wait_without_place(shared.lock()).await;
        let (place, mut session) = self.connect(key, login, &mut entry).await?;
        match work(&mut session).await {
            Ok(result) => {
                entry.hand_on(place, session.connection);
                Ok(result)
            }
            Err(error) => match place.close(session.connection).await {
                // What ended the session explains more than what the work on it reports.
                Some(problem) => Err(DatabaseError::ended(problem).into()),
                None => Err(error),
            },
        }
    }

    /// Whether a transaction-mode pooler is between pgrail and this database; `None` where finding out needs a second
    /// connection and the budget has none left.
    pub(crate) async fn is_pooled(&self, session: &Session) -> Option<bool> {
        if pgrail_postgres::is_direct(&session.connection).await.unwrap_or(false) {
            return Some(false);
        }
        let place = session.server.spare()?;
        place.make_room().await;
        pgrail_postgres::detect_pooler_on(&session.connection, &self.limits.addresses).await.ok()
    }

    /// Databases, by namespace and name, in which something changed that guards depend on, as their event triggers report.
    pub(crate) fn changes(&self) -> impl Stream<Item = Key> + Send + 'static {
        futures::stream::unfold(self.changes.subscribe(), async |mut receiver| {
            loop {
                match receiver.recv().await {
                    Ok(database) => return Some((database, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Lets the guards of a database use the check that found this fingerprint. Where something cannot be read, each of them
    /// checks on its own, and reports that.
    pub(crate) async fn share_check(
        &self,
        database: &ProtectedDatabase,
        at: Timestamp,
        fingerprint: Fingerprint,
        session: &Session,
    ) {
        let last = self.light_checks.last(database).filter(|last| last.fingerprint == fingerprint);
        let read = async {
            // Before the counters: what moves in between shows at the next check.
            let mark = pgrail_guard::counters_mark(session).await?;
            let counters = match &last {
                Some(last) if last.mark == mark => last.counters.clone(),
                _ => pgrail_guard::counters(session).await?,
            };
            let windows = match &last {
                // No guard has one.
                Some(last) if last.windows.is_empty() => Vec::new(),
                _ => pgrail_guard::windows(session, None).await?,
            };
            Ok::<_, ObserveError>(LightCheck { at, fingerprint, mark, counters, windows })
        };
        match read.await {
            Ok(check) => self.light_checks.record(database, check),
            Err(error) => tracing::debug!(database = database.name_any(), error = chain(&error), "no shared check"),
        }
    }

    /// The last regular check of a database as it is declared now.
    pub(crate) fn last_check(&self, database: &ProtectedDatabase) -> Option<Arc<LightCheck>> {
        self.light_checks.last(database)
    }

    /// Closes the connection of a database that is suspended or deleted. Its login is kept for a while.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        locked(&self.entries).remove(&key);
        self.last_logins.end(&key, (self.clock)());
        self.light_checks.forget(&key);
        // Its server is looked for among all of them: an entry in use cannot be asked.
        locked(&self.servers).retain(|_, server| server.forget(&key));
    }

    fn entry(&self, key: &Key) -> Arc<Shared> {
        Arc::clone(locked(&self.entries).entry(key.clone()).or_insert_with(|| Arc::new(Shared::new(key.clone()))))
    }

    fn server(&self, settings: &ConnectionSettings) -> Arc<Server> {
        let host = settings.lookup.as_deref().unwrap_or(&settings.host).to_ascii_lowercase();
        let new = || Arc::new(Server::new(self.limits.per_server));
        Arc::clone(locked(&self.servers).entry((host, settings.port)).or_insert_with(new))
    }

    async fn connect(
        &self,
        key: &Key,
        login: Login<'_>,
        entry: &mut Locked<'_>,
    ) -> Result<(Place, Session), DatabaseError> {
        let handed_on = entry.handed_on();
        let (source, renewed) = match login {
            Login::Declared(declared) => self.resolve(key, declared, entry).await?,
            Login::Last(source) => (Arc::clone(source), false),
        };
        let server = self.server(&source.settings);
        if let Some(before) = entry.server.replace(Arc::clone(&server))
            && !Arc::ptr_eq(&before, &server)
        {
            before.forget(key);
        }
        if renewed {
            server.close(key);
        }
        let session = |connection| Session {
            connection,
            server: Arc::clone(&server),
            user: source.settings.user.clone(),
            ignored_keys: source.ignored_keys.clone(),
        };
        if let Some((place, connection)) = handed_on
            && !renewed
            && place.is_of(&server)
            && !connection.is_closed()
        {
            return Ok((place, session(connection)));
        }
        let place = wait_without_place(server.place(key, self.clock, entry.behind())).await?;
        if let Some(connection) = place.take(key) {
            return Ok((place, session(connection)));
        }
        place.make_room().await;
        match pgrail_postgres::connect_within(&source.settings, &self.limits.addresses).await {
            Ok(connection) => {
                server.answered();
                self.prepare(key, &connection, &server).await?;
                Ok((place, session(connection)))
            }
            Err(error) => {
                let host_declared = matches!(login, Login::Declared(declared) if declared.host.is_some());
                let failure = DatabaseError::connecting(&source.settings, host_declared, &error);
                if concerns_all(&source.settings, failure.reason) {
                    let shared = DatabaseError::connecting(&source.settings, false, &error);
                    server.failed((self.clock)(), shared);
                }
                // The Secret may have changed: the next try reads it again.
                entry.source = None;
                Err(failure)
            }
        }
    }

    /// The settings of a connection, and whether they changed. Its Secrets are read where that is due.
    async fn resolve(
        &self,
        key: &Key,
        declared: &DeclaredConnection,
        entry: &mut Entry,
    ) -> Result<(Arc<ConnectionSource>, bool), DatabaseError> {
        let now = (self.clock)();
        let current = entry.source.take_if(|resolved| resolved.declared == *declared);
        if let Some(resolved) = &current
            && is_recent(resolved.at, now, SECRET_EVERY)
        {
            let source = Arc::clone(&resolved.source);
            entry.source = current;
            return Ok((source, false));
        }
        let source = Arc::new(resolve(&self.client, &self.limits.allowed_hosts, &key.0, declared).await?);
        let renewed = current.is_none_or(|resolved| resolved.source.settings != source.settings);
        self.last_logins.record(key, &source);
        entry.source = Some(Resolved { declared: declared.clone(), source: Arc::clone(&source), at: now });
        Ok((source, renewed))
    }

    /// Adapts the server's budget, and subscribes to changes where there is room for a connection that stays.
    async fn prepare(&self, key: &Key, connection: &Connection, server: &Arc<Server>) -> Result<(), DatabaseError> {
        let row = connection
            .query_one("SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4", &[])
            .await
            .map_err(|error| DatabaseError::lost(&error))?;
        let most: i32 = row.try_get(0).map_err(|error| DatabaseError::lost(&error))?;
        server.fit(usize::try_from(most).unwrap_or(0));
        if !server.has_room() {
            return Ok(());
        }
        // A standby takes no listeners: it is checked regularly all the same.
        if let Err(error) = connection.batch_execute(LISTEN).await {
            tracing::debug!(namespace = key.0, name = key.1, %error, "cannot listen for changes");
            return Ok(());
        }
        let (mut notified, changes, key) = (connection.notifications(), self.changes.clone(), key.clone());
        let (light_checks, clock) = (Arc::clone(&self.light_checks), self.clock);
        tokio::spawn(async move {
            while notified.changed().await.is_ok() {
                light_checks.changed(&key, clock());
                // There is no receiver before the controllers run.
                let _ = changes.send(key.clone());
                tokio::time::sleep(CHANGES_APART).await;
            }
        });
        Ok(())
    }
}

/// Whether a failure to connect is one of the server, not of this database. A time limit that the URI made shorter says
/// nothing of the others.
fn concerns_all(settings: &ConnectionSettings, reason: Reason) -> bool {
    match reason {
        Reason::ConnectionRefused | Reason::NameResolution => true,
        Reason::Timeout => settings.connect_timeout >= DEFAULT_CONNECT_TIMEOUT,
        _ => false,
    }
}

impl Deref for Session {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests;
