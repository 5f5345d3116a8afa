//! The connections to one PostgreSQL server, shared by all its databases: never more than the budget, least recently
//! used closed first.

use super::DatabaseError;
use crate::clock::is_recent;
use crate::kubernetes::line::{Behind, Line};
use crate::kubernetes::places::cause;
use crate::mutex::locked;
use jiff::{SignedDuration, Timestamp};
use pgrail_postgres::{Connection, MessageProblem};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long the one whose turn it is waits for one of the server's connections. Without one, it and all that wait are
/// tried again later.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a closed connection may take to end before its place counts as free.
const CLOSING: Duration = Duration::from_secs(2);
/// At most this share of the server's `max_connections`.
const SHARE: usize = 20;
/// A failure to reach the server holds for all its databases for this long. Then one of them tries, and the failure holds
/// for the others until that attempt has ended: a server that does not answer occupies one reconcile, not all.
const FAILURE_HOLDS: SignedDuration = SignedDuration::from_secs(2);

/// A database: namespace and name of its object.
pub(super) type Key = (String, String);

/// One server, by host and port.
pub(super) struct Server {
    /// `--max-connections-per-server`.
    most: usize,
    /// One of those that wait has the turn: for the others the time does not run.
    line: Line,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// Connections that may be open at the same time: 1 until `max_connections` is known.
    limit: usize,
    /// Open and unused, least recently used first.
    idle: Vec<(Key, Connection)>,
    /// Databases that use this server.
    databases: HashSet<Key>,
    /// The last failure to reach it.
    failure: Option<Failure>,
    /// Since when no connection becomes free.
    busy: Option<(Timestamp, DatabaseError)>,
}

struct Failure {
    since: Timestamp,
    error: DatabaseError,
    /// One reconcile tries whether it still holds.
    probed: bool,
}

/// The right to use one connection of a server's budget.
pub(super) struct Place {
    // Declared first and so released first: an attempt ends when its connection's place is free.
    _permit: OwnedSemaphorePermit,
    server: Arc<Server>,
    /// The attempt that decides whether the last failure still holds. Dropped with the place.
    _probe: Option<Probe>,
}

/// While it exists, the others do not try to reach the server.
struct Probe(Arc<Server>);

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(failure) = &mut self.0.state().failure {
            failure.probed = false;
        }
    }
}

impl Server {
    pub(super) fn new(most: usize) -> Self {
        let state = State { limit: 1, idle: Vec::new(), databases: HashSet::new(), failure: None, busy: None };
        Self {
            most: most.max(1),
            line: Line::default(),
            permits: Arc::new(Semaphore::new(1)),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Waits for a place within the budget, with those that wait `behind`. Fails immediately while the server is known to be out
    /// of reach.
    pub(super) async fn place(
        self: &Arc<Self>,
        key: &Key,
        clock: fn() -> Timestamp,
        behind: &Behind,
    ) -> Result<Place, DatabaseError> {
        let limit = {
            let mut state = self.state();
            state.databases.insert(key.clone());
            state.limit
        };
        self.check(clock())?;
        let _turn = self.line.turn_before(cause(), behind).await;
        // It may have failed meanwhile.
        self.check(clock())?;
        let waited = tokio::time::timeout(PATIENCE, Arc::clone(&self.permits).acquire_owned()).await;
        // The semaphore is never closed.
        let Ok(Ok(permit)) = waited else {
            let busy = DatabaseError::busy(limit);
            self.state().busy = Some((clock(), busy.clone()));
            return Err(busy);
        };
        Ok(Place { _permit: permit, server: Arc::clone(self), _probe: self.probe(clock())? })
    }

    /// The last failure, while it holds.
    fn check(&self, now: Timestamp) -> Result<(), DatabaseError> {
        let state = self.state();
        match (&state.failure, &state.busy) {
            (Some(failure), _) if failure.holds(now) => Err(failure.error.clone()),
            (_, Some((since, busy))) if is_recent(*since, now, FAILURE_HOLDS) => Err(busy.clone()),
            _ => Ok(()),
        }
    }

    /// The last failure, while it holds; else the right to try again, where there was one.
    fn probe(self: &Arc<Self>, now: Timestamp) -> Result<Option<Probe>, DatabaseError> {
        match &mut self.state().failure {
            Some(failure) if failure.holds(now) => Err(failure.error.clone()),
            Some(failure) => {
                failure.probed = true;
                Ok(Some(Probe(Arc::clone(self))))
            }
            None => Ok(None),
        }
    }

    /// The server could not be reached.
    pub(super) fn failed(&self, since: Timestamp, error: DatabaseError) {
        self.state().failure = Some(Failure { since, error, probed: false });
    }

    /// The server answered.
    pub(super) fn answered(&self) {
        self.state().failure = None;
    }

    /// Adapts the budget to the server's `max_connections`.
    pub(super) fn fit(&self, max_connections: usize) {
        let wanted = (max_connections / SHARE).clamp(1, self.most);
        let mut state = self.state();
        if wanted > state.limit {
            self.permits.add_permits(wanted - state.limit);
            state.limit = wanted;
        } else {
            // A permit in use cannot be taken away: what is missing goes the next time.
            state.limit -= self.permits.forget_permits(state.limit - wanted);
        }
    }

    /// Whether every database of this server can keep a connection: only then may one wait for notifications.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.databases.len() <= state.limit
    }

    /// A second connection within the budget, if one is free now.
    pub(super) fn spare(self: &Arc<Self>) -> Option<Place> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, server: Arc::clone(self), _probe: None })
    }

    /// Closes the unused connection of a database, if there is one.
    pub(super) fn close(&self, key: &Key) {
        self.state().idle.retain(|(of, _)| of != key);
    }

    /// A database does not use this server any more. Answers whether any other does.
    pub(super) fn forget(&self, key: &Key) -> bool {
        self.close(key);
        let mut state = self.state();
        state.databases.remove(key);
        !state.databases.is_empty()
    }
}

impl Failure {
    fn holds(&self, now: Timestamp) -> bool {
        self.probed || is_recent(self.since, now, FAILURE_HOLDS)
    }
}

impl Place {
    /// Whether it is one of this server's.
    pub(super) fn is_of(&self, server: &Arc<Server>) -> bool {
        Arc::ptr_eq(&self.server, server)
    }

    /// The open connection of this database, if it has one.
    pub(super) fn take(&self, key: &Key) -> Option<Connection> {
        let mut state = self.server.state();
        let at = state.idle.iter().position(|(of, connection)| of == key && !connection.is_closed())?;
        Some(state.idle.remove(at).1)
    }

    /// Makes room for a new connection: closes unused ones, least recently used first, until it is within the budget.
    pub(super) async fn make_room(&self) {
        while let Some(connection) = self.surplus() {
            end(connection).await;
        }
    }

    /// An unused connection that must go so that one more fits beside those in use.
    fn surplus(&self) -> Option<Connection> {
        let mut state = self.server.state();
        state.idle.retain(|(_, connection)| !connection.is_closed());
        let in_use = state.limit.saturating_sub(self.server.permits.available_permits());
        (state.idle.len() + in_use > state.limit && !state.idle.is_empty()).then(|| state.idle.remove(0).1)
    }

    /// Closes the connection, then gives the place back.
    pub(super) async fn close(self, connection: Connection) -> Option<MessageProblem> {
        let problem = end(connection).await;
        drop(self);
        problem
    }

    /// Gives the place back and keeps the connection open for the next use.
    pub(super) fn keep(self, key: Key, connection: Connection) {
        self.server.state().idle.push((key, connection));
    }
}

async fn end(connection: Connection) -> Option<MessageProblem> {
    // One that does not end within the time keeps its place at the server: the socket is closed all the same.
    tokio::time::timeout(CLOSING, connection.end()).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn key(number: usize) -> Key {
        ("shop".to_owned(), format!("database-{number}"))
    }

    #[test]
    fn the_budget_is_a_twentieth_of_the_servers_connections_and_at_least_one() {
        let limit = |max_connections| {
            let server = Server::new(5);
            server.fit(max_connections);
            (server.state().limit, server.permits.available_permits())
        };
        assert_eq!([10, 20, 50, 100, 1000].map(limit), [(1, 1), (1, 1), (2, 2), (5, 5), (5, 5)]);
        let server = Server::new(5);
        server.fit(1000);
        server.fit(40);
        assert_eq!((server.state().limit, server.permits.available_permits()), (2, 2));
    }

    #[tokio::test]
    async fn a_connection_waits_for_notifications_only_while_every_database_can_have_one() {
        let (server, behind) = (Arc::new(Server::new(5)), Behind::default());
        server.fit(40);
        drop(server.place(&key(1), || Timestamp::UNIX_EPOCH, &behind).await.unwrap());
        drop(server.place(&key(2), || Timestamp::UNIX_EPOCH, &behind).await.unwrap());
        assert!(server.has_room());
        drop(server.place(&key(3), || Timestamp::UNIX_EPOCH, &behind).await.unwrap());
        assert!(!server.has_room());
        assert!(server.forget(&key(3)));
        assert!(server.has_room());
    }

    #[tokio::test]
    async fn a_failure_to_reach_the_server_is_shared_and_one_tries_again() {
        let (server, behind) = (Arc::new(Server::new(5)), Behind::default());
        server.fit(1000);
        let at = |second| Timestamp::from_second(second).unwrap();
        server.failed(at(100), DatabaseError::busy(1));
        assert!(server.place(&key(1), || Timestamp::from_second(101).unwrap(), &behind).await.is_err());
        let late: fn() -> Timestamp = || Timestamp::from_second(102).unwrap();
        let probe = server.place(&key(2), late, &behind).await.unwrap();
        assert!(server.place(&key(3), late, &behind).await.is_err(), "one tries");
        drop(probe);
        let probe = server.place(&key(3), late, &behind).await.unwrap();
        server.answered();
        assert!(server.place(&key(4), late, &behind).await.is_ok());
        drop(probe);
    }

    #[tokio::test]
    async fn what_waits_for_a_connection_does_not_try_a_server_that_failed_meanwhile() {
        let (server, behind) = (Arc::new(Server::new(1)), Behind::default());
        let now: fn() -> Timestamp = || Timestamp::from_second(100).unwrap();
        let first = server.place(&key(1), now, &behind).await.unwrap();
        let second = key(2);
        let mut waiting = Box::pin(server.place(&second, now, &behind));
        assert!((&mut waiting).now_or_never().is_none());
        server.failed(now(), DatabaseError::busy(1));
        drop(first);
        assert!(waiting.await.is_err());
    }
}
