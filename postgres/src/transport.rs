//! The bytes between us and the server: a socket, in TLS or not, watched until the login is through.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::AuthenticationProblem;

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

/// A transport that reads along until the server says that the login is through, and ends the connection rather than
/// let a request for the password in clear reach tokio-postgres, which would answer it.
pub(crate) struct Watched {
    transport: Transport,
    watch: Option<LoginWatch>,
}

impl Watched {
    pub(crate) fn new(transport: Transport, watch: LoginWatch) -> Self {
        Self { transport, watch: Some(watch) }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        if let Some(watch) = &mut self.watch {
            match watch.read(buffer.filled().get(before..).unwrap_or_default()) {
                Ok(Login::Waiting) => {}
                Ok(Login::Through) => self.watch = None,
                Err(problem) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

/// Hands tokio-postgres a stream that is ready: TLS was agreed on before. It takes it for the result of a handshake,
/// which is how it comes to ask it for channel binding.
pub(crate) struct Ready(pub(crate) Watched);

impl TlsConnect<tokio::io::Empty> for Ready {
    type Stream = Watched;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Watched>>;

    fn connect(self, _: tokio::io::Empty) -> Self::Future {
        std::future::ready(Ok(self.0))
    }
}

/// Follows the server's messages of a login: type byte, length (itself included), body; of `R` the first four bytes of
/// the body say what is asked for.
#[derive(Debug)]
pub(crate) struct LoginWatch {
    clear_allowed: bool,
    has_password: bool,
    /// Type, length and the first four bytes of the body of the message being read.
    head: Vec<u8>,
    /// Bytes of that message still to come after its head.
    rest: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Waiting,
    Through,
}

const AUTHENTICATION: u8 = b'R';

impl LoginWatch {
    pub(crate) fn new(clear_allowed: bool, has_password: bool) -> Self {
        Self { clear_allowed, has_password, head: Vec::with_capacity(9), rest: 0 }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<Login, AuthenticationProblem> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let (byte, after) = (bytes[0], bytes.get(1..).unwrap_or_default());
            self.head.push(byte);
            bytes = after;
            let Some(length) = self.head.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes)
            else {
                continue;
            };
            let body = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(4);
            let wanted = if self.head.first() == Some(&AUTHENTICATION) { body.min(4) } else { 0 };
            if self.head.len() < 5 + wanted {
                continue;
            }
            let request = self.head.get(5..9).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
            self.rest = body - wanted;
            self.head.clear();
            if let Some(request) = request
                && self.judge(request)? == Login::Through
            {
                return Ok(Login::Through);
            }
        }
        Ok(Login::Waiting)
    }

    fn judge(&self, request: u32) -> Result<Login, AuthenticationProblem> {
        match request {
            0 => Ok(Login::Through),
            3 | 5 | 10 if !self.has_password => Err(AuthenticationProblem::PasswordMissing),
            3 if !self.clear_allowed => Err(AuthenticationProblem::ClearPassword),
            // Kerberos, SCM credentials, GSSAPI, SSPI.
            2 | 6 | 7 | 9 => Err(AuthenticationProblem::UnsupportedMethod),
            // In clear (allowed), MD5, SASL and its continuation.
            _ => Ok(Login::Waiting),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn outcome(watch: &mut LoginWatch, bytes: &[u8], step: usize) -> Result<Login, AuthenticationProblem> {
        for chunk in bytes.chunks(step) {
            if watch.read(chunk)? == Login::Through {
                return Ok(Login::Through);
            }
        }
        Ok(Login::Waiting)
    }

    #[test]
    fn a_request_for_the_password_in_clear_is_seen_however_the_bytes_are_cut() {
        let mut bytes = message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
        bytes.extend(message(b'N', b"R\0\0\0\x08\0\0\0\0"));
        bytes.extend(message(b'R', &3u32.to_be_bytes()));
        for step in 1..=bytes.len() {
            let problem = outcome(&mut LoginWatch::new(false, true), &bytes, step);
            assert_eq!(problem, Err(AuthenticationProblem::ClearPassword), "in steps of {step}");
            assert_eq!(outcome(&mut LoginWatch::new(true, true), &bytes, step), Ok(Login::Waiting));
            let problem = outcome(&mut LoginWatch::new(true, false), &bytes, step);
            assert_eq!(problem, Err(AuthenticationProblem::PasswordMissing));
        }
    }

    #[test]
    fn a_login_by_scram_is_watched_to_its_end() {
        let mut bytes = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        bytes.extend(message(b'R', b"\0\0\0\x0br=abc,s=def,i=4096"));
        bytes.extend(message(b'R', b"\0\0\0\x0cv=ghi"));
        for step in 1..=bytes.len() {
            assert_eq!(outcome(&mut LoginWatch::new(false, true), &bytes, step), Ok(Login::Waiting));
        }
        bytes.extend(message(b'R', &0u32.to_be_bytes()));
        for step in 1..=bytes.len() {
            assert_eq!(outcome(&mut LoginWatch::new(false, true), &bytes, step), Ok(Login::Through));
        }
    }

    proptest::proptest! {
        #[test]
        fn nonsense_is_no_reason_to_panic(bytes: Vec<u8>, step in 1_usize..20) {
            let _ = outcome(&mut LoginWatch::new(false, true), &bytes, step);
        }
    }
}
