//! Connection attempts: name resolution, address, TLS and authentication, with an error for each stage.

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

/// Time to send Terminate after a [`Connection`] was dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// An open session. Dereferences to [`tokio_postgres::Client`]. Dropping it ends the session, also during a statement.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    settings: ConnectionSettings,
    reached: Reached,
    /// The violation that ended the session, if there was one. The channel ends with the session.
    ended: watch::Receiver<Option<MessageProblem>>,
    notified: watch::Receiver<u64>,
    // The last field: when it is dropped, the driver ends.
    _dropped: oneshot::Sender<()>,
}

impl Connection {
    /// Address and TLS of the connection.
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// Settings of the connection.
    pub fn settings(&self) -> &ConnectionSettings {
        &self.settings
    }

    /// Completes when the session has ended, because of the server or the network.
    pub async fn closed(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// The violation that ended the session, if there was one.
    pub fn ended_by(&self) -> Option<MessageProblem> {
        *self.ended.borrow()
    }

    /// Ends the session and waits until its socket is closed. Returns the violation that ended it before, if there was
    /// one.
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

    /// Sends a cancel request for this session over a second connection to the same address. The server does not report
    /// whether a statement was running.
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

/// Connects without restriction of the address. See [`connect_within`].
pub async fn connect(settings: &ConnectionSettings) -> Result<Connection, ConnectError> {
    connect_within(settings, &AddressPolicy::any()).await
}

/// Connects to an address that the policy allows. The host is resolved once, and the connection uses the address that
/// was checked. The certificate is verified with the host name.
///
/// The timeout `connect_timeout` includes all stages. If an address does not accept the connection, the next address is
/// tried. Requires a Tokio runtime.
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

/// The addresses of the host that the policy allows, in the order of the attempts. Never empty.
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
        // An address that does not answer must not use up the timeout of the others.
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

/// Opens the transport to this address, or over the Unix socket.
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
    // Detects a lost connection within a minute, also during a statement.
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive).map_err(ConnectError::Refused)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_mins(1))).map_err(ConnectError::Refused)?;
    stream.set_nodelay(true).map_err(ConnectError::Refused)?;
    Ok(stream)
}

/// Negotiates TLS. Falls back to clear text only if the mode allows it and the server does not support TLS.
async fn encrypt(
    settings: &ConnectionSettings,
    mut stream: TcpStream,
    deadline: Instant,
) -> Result<Transport, ConnectError> {
    /// `SSLRequest`: length 8, code 80877103.
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
        // A server that cannot start a process sends an error immediately.
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
    // Direct TLS negotiation: uses the transport as it is.
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

/// Drives the session until it ends, or until a short time after the client was dropped: enough to send Terminate, but
/// not to wait for a statement.
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
                // The statements report that the session ended, but not the violation.
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
