//! Reaching a server: name, address, TLS, login, each with its own kind of failure.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::addresses::{AddressNotAllowed, AddressPolicy};
use crate::error::{ConnectError, Stage, TlsProblem, find};
use crate::messages::{LoginRules, MessageProblem, MessageWatch};
use crate::settings::{ConnectionSettings, Reached, TlsMode};
use crate::tls::{client_config, problem_of};
use crate::transport::{Ready, Transport, Watched};

/// How long a session may take to say goodbye once its [`Connection`] is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// An open session. Dereferences to [`tokio_postgres::Client`]. Dropping it ends the session, in the middle of a
/// statement too.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    settings: ConnectionSettings,
    reached: Reached,
    /// What the server sent that ended the session, if that is why. The channel ends with the session.
    ended: watch::Receiver<Option<MessageProblem>>,
    notified: watch::Receiver<u64>,
    // Last: its end tells the driver that the client is gone.
    _dropped: oneshot::Sender<()>,
}

impl Connection {
    /// How it got through.
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// Ends when the session does: the server ended it, or the network did.
    pub async fn closed(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// What the server sent that ended the session, once it has ended for that.
    pub fn ended_by(&self) -> Option<MessageProblem> {
        *self.ended.borrow()
    }

    /// Ends the session and waits until its socket is closed. Returns what the server sent that ended it before.
    pub async fn end(self) -> Option<MessageProblem> {
        let mut ended = self.ended.clone();
        drop(self);
        while ended.changed().await.is_ok() {}
        *ended.borrow()
    }

    /// Counts the notifications that arrived (`LISTEN`). It ends with the session.
    pub fn notifications(&self) -> watch::Receiver<u64> {
        self.notified.clone()
    }

    /// Asks the server to cancel the statement that runs on this session, over a second connection to the very same
    /// address. The server does not say whether there was one.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        let transport = open(&self.settings, self.reached.address, deadline).await?;
        let rules = LoginRules { clear_allowed: false, has_password: false, weak_allowed: false };
        let token = self.client.cancel_token();
        let request =
            token.cancel_query_raw(tokio::io::empty(), Ready(Watched::new(transport, MessageWatch::new(rules), None)));
        within(deadline, &self.settings, Stage::Connecting, request).await?.map_err(|_| ConnectError::Closed)
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Connects, to whatever address the host has. See [`connect_within`].
pub async fn connect(settings: &ConnectionSettings) -> Result<Connection, ConnectError> {
    connect_within(settings, &AddressPolicy::any()).await
}

/// Connects to an address that the policy allows. The host is looked up once, and the connection goes to the very
/// address that was judged; a certificate is still checked against the host's name.
///
/// All of it takes at most `connect_timeout`. Of several addresses the next is tried when one does not accept a
/// connection. Needs a Tokio runtime.
pub async fn connect_within(settings: &ConnectionSettings, policy: &AddressPolicy) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + settings.connect_timeout;
    let (transport, address, local_port) = if settings.is_unix_socket() {
        (open(settings, None, deadline).await?, None, None)
    } else {
        let addresses = within(deadline, settings, Stage::Resolving, resolve(settings, policy)).await??;
        open_first(settings, &addresses, deadline).await?
    };
    let reached = Reached { address, local_port, encrypted: matches!(transport, Transport::Encrypted(_)) };
    log_in(settings, transport, reached, deadline).await
}

/// The addresses of the host that the policy allows, in the order to try them. Never empty.
pub async fn resolve(settings: &ConnectionSettings, policy: &AddressPolicy) -> Result<Vec<IpAddr>, ConnectError> {
    let name = settings.lookup.as_deref().unwrap_or(&settings.host);
    let mut addresses: Vec<IpAddr> = lookup_host((name, settings.port))
        .await
        .map_err(ConnectError::NameResolution)?
        .map(|address| address.ip())
        .collect();
    if addresses.is_empty() {
        return Err(ConnectError::NameResolution(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    addresses.retain(|address| policy.allows(*address));
    if addresses.is_empty() { Err(AddressNotAllowed.into()) } else { Ok(addresses) }
}

async fn open_first(
    settings: &ConnectionSettings,
    addresses: &[IpAddr],
    deadline: Instant,
) -> Result<(Transport, Option<IpAddr>, Option<u16>), ConnectError> {
    let mut failure = ConnectError::Timeout { stage: Stage::Connecting, after: settings.connect_timeout };
    for (index, address) in addresses.iter().enumerate() {
        // One address that swallows packets must not take the time of the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match open_tcp(settings, *address, Instant::now() + share).await {
            Ok(stream) => {
                let local_port = stream.local_addr().ok().map(|local| local.port());
                return Ok((encrypt(settings, stream, deadline).await?, Some(*address), local_port));
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A transport to this address, or over the Unix socket.
async fn open(
    settings: &ConnectionSettings,
    address: Option<IpAddr>,
    deadline: Instant,
) -> Result<Transport, ConnectError> {
    let Some(address) = address else {
        let file = format!("{}/.s.PGSQL.{}", settings.host.trim_end_matches('/'), settings.port);
        let socket = within(deadline, settings, Stage::Connecting, UnixStream::connect(file)).await?;
        return Ok(Transport::Unix(socket.map_err(ConnectError::Refused)?));
    };
    let stream = open_tcp(settings, address, deadline).await?;
    encrypt(settings, stream, deadline).await
}

async fn open_tcp(
    settings: &ConnectionSettings,
    address: IpAddr,
    deadline: Instant,
) -> Result<TcpStream, ConnectError> {
    let target = SocketAddr::new(address, settings.port);
    let stream = within(deadline, settings, Stage::Connecting, TcpStream::connect(target)).await?.map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            ConnectError::Timeout { stage: Stage::Connecting, after: settings.connect_timeout }
        } else {
            ConnectError::Refused(error)
        }
    })?;
    // A server that is gone without a word is noticed within a minute, in the middle of a statement too.
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive).map_err(ConnectError::Refused)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_mins(1))).map_err(ConnectError::Refused)?;
    stream.set_nodelay(true).map_err(ConnectError::Refused)?;
    Ok(stream)
}

/// Asks for TLS as the mode says, and falls back to plain text only where the mode allows it and the server refuses.
async fn encrypt(
    settings: &ConnectionSettings,
    mut stream: TcpStream,
    deadline: Instant,
) -> Result<Transport, ConnectError> {
    /// `SSLRequest`: eight bytes long, code 1234 5679.
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

    if settings.tls == TlsMode::Disable {
        return Ok(Transport::Plain(stream));
    }
    let ask = async {
        stream.write_all(&REQUEST).await?;
        stream.read_u8().await
    };
    let answer = within(deadline, settings, Stage::Encrypting, ask).await?.map_err(|_| ConnectError::Closed)?;
    match answer {
        b'S' => {
            let mut connector = MakeRustlsConnect::new(client_config(settings)?);
            let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, &settings.host)
                .map_err(|_| TlsProblem::BadName)?;
            let handshake = within(deadline, settings, Stage::Encrypting, connector.connect(stream)).await?;
            let stream = handshake.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput => TlsProblem::BadName,
                _ => problem_of(&error),
            })?;
            Ok(Transport::Encrypted(Box::new(stream)))
        }
        b'N' if settings.tls == TlsMode::Prefer => Ok(Transport::Plain(stream)),
        b'N' => Err(TlsProblem::NotOffered.into()),
        // A server that could not start a process for us answers with an error at once.
        b'E' => Err(ConnectError::Rejected),
        _ => Err(ConnectError::NotPostgres),
    }
}

async fn log_in(
    settings: &ConnectionSettings,
    transport: Transport,
    reached: Reached,
    deadline: Instant,
) -> Result<Connection, ConnectError> {
    let mut config = Config::new();
    config.user(&settings.user).dbname(&settings.database).application_name(&settings.application_name);
    // "TLS, without asking first": takes the transport as it is.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    config.channel_binding(if settings.channel_binding_required {
        ChannelBinding::Require
    } else {
        ChannelBinding::Prefer
    });
    if let Some(password) = &settings.password {
        config.password(password.reveal());
    }
    let watch = MessageWatch::new(LoginRules {
        clear_allowed: settings.may_send_password_in_clear(),
        has_password: settings.password.is_some(),
        weak_allowed: settings.host_trusted,
    });
    let watched = Watched::new(transport, watch, settings.answer_timeout);
    let login = config.connect_raw(tokio::io::empty(), Ready(watched));
    let (client, driver) = within(deadline, settings, Stage::LoggingIn, login)
        .await?
        .map_err(|error| ConnectError::of_login(&error, settings.channel_binding_required))?;

    let (ending, ended) = watch::channel(None);
    let (notify, notified) = watch::channel(0);
    let (dropped, is_dropped) = oneshot::channel();
    tokio::spawn(async move {
        if let Some(problem) = drive(driver, is_dropped, notify).await {
            ending.send_replace(Some(problem));
        }
    });
    Ok(Connection { client, settings: settings.clone(), reached, ended, notified, _dropped: dropped })
}

type Driver = tokio_postgres::Connection<tokio::io::Empty, Watched>;

/// Moves the session's bytes until it ends, or until a moment after the client was dropped: enough to say goodbye, not
/// enough to wait for a statement.
async fn drive(
    mut driver: Driver,
    dropped: oneshot::Receiver<()>,
    notified: watch::Sender<u64>,
) -> Option<MessageProblem> {
    let session = async {
        loop {
            match poll_fn(|context| driver.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notice(notice))) => {
                    tracing::debug!(
                        severity = notice.severity(),
                        code = notice.code().code(),
                        "notice: {}",
                        notice.message()
                    );
                }
                Some(Ok(AsyncMessage::Notification(_))) => notified.send_modify(|count| *count += 1),
                Some(Ok(_)) => {}
                // The statements on it report how it ended, but not what the server sent.
                Some(Err(error)) => break find::<MessageProblem>(&error).copied(),
                None => break None,
            }
        }
    };
    tokio::pin!(session);
    tokio::select! {
        problem = &mut session => problem,
        _ = dropped => timeout(FAREWELL, session).await.ok().flatten(),
    }
}

async fn within<Output>(
    deadline: Instant,
    settings: &ConnectionSettings,
    stage: Stage,
    work: impl Future<Output = Output>,
) -> Result<Output, ConnectError> {
    timeout_at(deadline, work).await.map_err(|_| ConnectError::Timeout { stage, after: settings.connect_timeout })
}
