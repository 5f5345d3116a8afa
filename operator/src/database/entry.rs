//! What is cached of one database, and who waits for it.

use super::resolve::ConnectionSource;
use super::server::{Key, Place, Server};
use crate::kubernetes::line::{Behind, Cause};
use crate::kubernetes::places::cause;
use jiff::Timestamp;
use pgrail_crds::Connection as DeclaredConnection;
use pgrail_postgres::Connection;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Mutex, MutexGuard};

/// So many reconciles use one connection in turn, before other databases of the server get its place.
const IN_TURN: usize = 8;

/// What is cached of one database.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) source: Option<Resolved>,
    pub(super) server: Option<Arc<Server>>,
    /// The connection of the last reconcile, with its place, for the next one that already waits.
    handed_on: Option<(Place, Connection)>,
    /// How often it was handed on.
    turns: usize,
}

/// A connection as it is declared, with its Secrets.
pub(super) struct Resolved {
    pub(super) declared: DeclaredConnection,
    pub(super) source: Arc<ConnectionSource>,
    pub(super) at: Timestamp,
}

/// The entry of a database. It is locked while the database is used: one reconcile at a time.
pub(super) struct Shared {
    key: Key,
    entry: Mutex<Entry>,
    /// Those that wait for the lock.
    waiting: AtomicUsize,
    /// Those of them with something that a user has declared.
    behind: Behind,
}

/// The right to use a database.
pub(super) struct Locked<'a> {
    entry: MutexGuard<'a, Entry>,
    shared: &'a Shared,
}

/// One that waits.
struct Waiting<'a>(&'a Shared);

impl Shared {
    pub(super) fn new(key: Key) -> Self {
        Self { key, entry: Mutex::default(), waiting: AtomicUsize::new(0), behind: Behind::default() }
    }

    /// Waits until nobody else uses the database.
    pub(super) async fn lock(&self) -> Locked<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(self);
        let declared = (cause() == Cause::Declared).then(|| self.behind.one());
        let entry = self.entry.lock().await;
        drop((waiting, declared));
        Locked { entry, shared: self }
    }

    /// Gives back the place that was handed on to a reconcile that was cancelled meanwhile.
    fn settle(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Ok(mut entry) = self.entry.try_lock()
            && let Some((place, connection)) = entry.handed_on()
        {
            place.keep(self.key.clone(), connection);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.settle();
    }
}

impl Entry {
    /// The connection that the last reconcile handed on, with its place.
    pub(super) fn handed_on(&mut self) -> Option<(Place, Connection)> {
        let handed_on = self.handed_on.take();
        if handed_on.is_none() {
            self.turns = 0;
        }
        handed_on
    }
}

impl<'a> Locked<'a> {
    /// Those that wait behind this one.
    pub(super) fn behind(&self) -> &'a Behind {
        &self.shared.behind
    }

    /// Ends the use of the database. The connection and its place are handed on where another reconcile of the same
    /// database already waits: a new connection costs the server more than most checks.
    pub(super) fn hand_on(self, place: Place, connection: Connection) {
        let Self { mut entry, shared } = self;
        if shared.waiting.load(Ordering::SeqCst) == 0 || entry.turns == IN_TURN {
            place.keep(shared.key.clone(), connection);
            return;
        }
        entry.turns += 1;
        entry.handed_on = Some((place, connection));
        drop(entry);
        shared.settle();
    }
}

impl Deref for Locked<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Entry {
        &mut self.entry
    }
}
