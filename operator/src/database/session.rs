//! One connection per database, held, shared by the controllers, renewed when its Secret changed.

use super::resolve::{ResolveError, resolve};
use crate::operator::Context;
use futures::Stream;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::conditions::reasons::reachable;
use pgrail_crds::{Connection as DeclaredConnection, ProtectedDatabase};
use pgrail_postgres::{ConnectError, Connection, ConnectionSettings};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, broadcast};

/// How often the Secret is read again, so that a changed password is picked up before it is needed.
const SECRET_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// A failure is told to everybody who asks within this time, instead of trying for each.
const FAILURE_STANDS: SignedDuration = SignedDuration::from_secs(2);
/// The channel that pgrail's event triggers notify.
const LISTEN: &str = "LISTEN pgrail";
/// Notifications of one database within this time are one.
const CHANGES_APART: Duration = Duration::from_millis(200);
/// Changes that a slow listener may fall behind by: what it misses is found at the next regular look.
const CHANGES_KEPT: usize = 1024;

/// Why a database cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct DatabaseError {
    /// The reason of `Reachable=False`.
    pub(crate) reason: &'static str,
    /// What is wrong and what mends it.
    pub(crate) message: String,
    /// Only the user can mend it.
    pub(crate) stalled: bool,
}

impl From<ResolveError> for DatabaseError {
    fn from(error: ResolveError) -> Self {
        let stalled = !matches!(error, ResolveError::Api(_));
        Self { reason: error.reason(), message: crate::kubernetes::controller::chain(&error), stalled }
    }
}

impl DatabaseError {
    /// A question that got no answer: the connection is gone or the server is.
    pub(crate) fn lost(error: &dyn std::error::Error) -> Self {
        let message = crate::kubernetes::controller::chain(error);
        Self { reason: reachable::TIMEOUT, message, stalled: false }
    }

    /// The errors of connecting say nothing of where: the host is named here, the login never.
    fn connecting(settings: &ConnectionSettings, error: &ConnectError) -> Self {
        let reason = error.reason();
        let stalled = [
            reachable::AUTHENTICATION_FAILED,
            reachable::DATABASE_MISSING,
            reachable::TLS_FAILED,
            reachable::HOST_NOT_ALLOWED,
        ]
        .contains(&reason);
        let ConnectionSettings { host, port, database, .. } = settings;
        let message = format!("{host}:{port}/{database}: {}", crate::kubernetes::controller::chain(error));
        Self { reason, message, stalled }
    }
}

type SharedHandle = Arc<tokio::sync::Mutex<Handle>>;

/// The connections of all databases, by namespace and name.
pub(crate) struct Databases {
    handles: Mutex<HashMap<(String, String), SharedHandle>>,
    changes: broadcast::Sender<(String, String)>,
}

impl Default for Databases {
    fn default() -> Self {
        Self { handles: Mutex::default(), changes: broadcast::channel(CHANGES_KEPT).0 }
    }
}

/// One database: its connection, or why there is none.
#[derive(Default)]
struct Handle {
    session: Option<Session>,
    failure: Option<(Timestamp, DeclaredConnection, DatabaseError)>,
}

/// A connection that is held.
struct Session {
    connection: Connection,
    declared: DeclaredConnection,
    settings: ConnectionSettings,
    ignored_keys: Vec<String>,
    secret_read: Timestamp,
}

/// The use of a database's connection. Nobody else uses it meanwhile.
pub(crate) struct Borrowed {
    handle: OwnedMutexGuard<Handle>,
}

impl Databases {
    /// The connection of a database, made if need be.
    pub(crate) async fn borrow(
        &self,
        context: &Context,
        database: &ProtectedDatabase,
    ) -> Result<Borrowed, DatabaseError> {
        let namespace = database.namespace().unwrap_or_default();
        let handle = self.handle(&namespace, &database.name_any());
        let mut handle = handle.lock_owned().await;
        let now = context.now();
        let declared = &database.spec.connection;
        if let Some((since, wanted, failure)) = &handle.failure
            && wanted == declared
            && now.duration_since(*since) < FAILURE_STANDS
        {
            return Err(failure.clone());
        }
        match handle.connect(context, &namespace, declared, now).await {
            Ok(renewed) => {
                if renewed {
                    self.listen(&mut handle, namespace, database.name_any()).await;
                }
                handle.failure = None;
                Ok(Borrowed { handle })
            }
            Err(error) => {
                handle.session = None;
                handle.failure = Some((context.now(), declared.clone(), error.clone()));
                Err(error)
            }
        }
    }

    /// Databases, by namespace and name, in which something was changed that guards depend on, as their event triggers tell.
    pub(crate) fn changes(&self) -> impl Stream<Item = (String, String)> + Send + 'static {
        let receiver = self.changes.subscribe();
        futures::stream::unfold(receiver, async |mut receiver| {
            loop {
                match receiver.recv().await {
                    Ok(database) => return Some((database, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Closes the connection of a database that is suspended or gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Passes on what the event triggers of a database tell, as long as this session lives. Where there are none, nothing comes.
    async fn listen(&self, handle: &mut Handle, namespace: String, name: String) {
        let Some(session) = &handle.session else { return };
        // A standby takes no listeners: it is looked at regularly all the same.
        if let Err(error) = session.connection.batch_execute(LISTEN).await {
            tracing::debug!(namespace, name, %error, "cannot listen for changes");
            return;
        }
        let mut notified = session.connection.notifications();
        let changes = self.changes.clone();
        tokio::spawn(async move {
            while notified.changed().await.is_ok() {
                // Nobody listens before the controllers run.
                let _ = changes.send((namespace.clone(), name.clone()));
                tokio::time::sleep(CHANGES_APART).await;
            }
        });
    }

    fn handle(&self, namespace: &str, name: &str) -> Arc<tokio::sync::Mutex<Handle>> {
        let key = (namespace.to_owned(), name.to_owned());
        Arc::clone(self.handles.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

impl Handle {
    /// Answers whether the session is a new one.
    async fn connect(
        &mut self,
        context: &Context,
        namespace: &str,
        declared: &DeclaredConnection,
        now: Timestamp,
    ) -> Result<bool, DatabaseError> {
        if let Some(session) = &mut self.session
            && session.declared == *declared
            && !session.connection.is_closed()
        {
            if now.duration_since(session.secret_read) < SECRET_EVERY {
                return Ok(false);
            }
            let source = resolve(context, namespace, declared).await?;
            if source.settings == session.settings {
                session.secret_read = now;
                return Ok(false);
            }
        }
        self.session = None;
        let source = resolve(context, namespace, declared).await?;
        let connection = pgrail_postgres::connect_within(&source.settings, &context.settings.address_policy)
            .await
            .map_err(|error| DatabaseError::connecting(&source.settings, &error))?;
        self.session = Some(Session {
            connection,
            declared: declared.clone(),
            settings: source.settings,
            ignored_keys: source.ignored_keys,
            secret_read: now,
        });
        Ok(true)
    }
}

impl Borrowed {
    /// The connection.
    pub(crate) fn connection(&mut self) -> Result<&mut Connection, DatabaseError> {
        self.handle.session.as_mut().map(|session| &mut session.connection).ok_or_else(|| DatabaseError {
            reason: reachable::CONNECTION_REFUSED,
            message: "the connection was closed".to_owned(),
            stalled: false,
        })
    }

    /// What it was made with.
    pub(crate) fn settings(&self) -> Option<&ConnectionSettings> {
        self.handle.session.as_ref().map(|session| &session.settings)
    }

    /// Keys of the Secret's URI that mean nothing to PostgreSQL.
    pub(crate) fn ignored_keys(&self) -> &[String] {
        self.handle.session.as_ref().map_or(&[], |session| &session.ignored_keys)
    }

    /// The connection is not to be trusted any more: the next user makes a new one.
    pub(crate) fn discard(mut self) {
        self.handle.session = None;
    }
}
