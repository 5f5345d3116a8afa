//! The transport to the server: a socket, with or without TLS, and a check of the messages of the server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::messages::{MessageProblem, MessageWatch};

pub(crate) type Encrypted = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::Stream;

pub(crate) enum Transport {
    Plain(TcpStream),
    Encrypted(Box<Encrypted>),
    Unix(UnixStream),
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A transport that checks the messages of the server. It closes the connection if the server requests the password in
/// clear text, which tokio-postgres would send, if a message is too long, which tokio-postgres would buffer, and if an
/// answer takes too long.
pub(crate) struct Watched {
    transport: Transport,
    watch: MessageWatch,
    answer: Option<AnswerTimer>,
}

impl Watched {
    pub(crate) fn new(transport: Transport, watch: MessageWatch, answer_timeout: Option<Duration>) -> Self {
        Self { transport, watch, answer: answer_timeout.map(AnswerTimer::new) }
    }
}

/// Timer from a request to the end of its answer, independent of what the server sends in between.
struct AnswerTimer {
    limit: Duration,
    running: Option<Pin<Box<Sleep>>>,
}

impl AnswerTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, running: None }
    }

    fn start(&mut self) {
        if self.running.is_none() {
            self.running = Some(Box::pin(tokio::time::sleep(self.limit)));
        }
    }

    /// Registers the task with the timer.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(sleep) = &mut self.running else { return Ok(()) };
        if sleep.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, MessageProblem::NoAnswer { after: self.limit }))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(answer) = &mut this.answer {
            answer.check(context)?;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.transport).poll_read(context, buffer))?;
        let ended = this.watch.read(buffer.filled().get(before..).unwrap_or_default())?;
        if ended && let Some(answer) = &mut this.answer {
            answer.running = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(answer) = &mut self.answer {
            answer.start();
            // The read might not be polled again before the server sends something, so the timer must wake the task.
            answer.check(context)?;
        }
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

impl TlsStream for Watched {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.transport {
            Transport::Encrypted(stream) => stream.channel_binding(),
            Transport::Plain(_) | Transport::Unix(_) => ChannelBinding::none(),
        }
    }
}

/// Gives tokio-postgres a stream on which TLS is already established. tokio-postgres uses it as the result of a
/// handshake, including channel binding.
pub(crate) struct Ready(pub(crate) Watched);

impl TlsConnect<tokio::io::Empty> for Ready {
    type Stream = Watched;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Watched>>;

    fn connect(self, _: tokio::io::Empty) -> Self::Future {
        std::future::ready(Ok(self.0))
    }
}
