//! The port of the page: a bounded number of connections, and none that is idle for long.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at the same time. Others wait.
const CONNECTIONS: usize = 128;
/// A connection ends after this time without a whole request, so that others get its place: neither one that is idle nor
/// one that sends a byte now and then keeps it.
const IDLE: Duration = Duration::from_secs(30);

/// The listener.
pub(super) struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl BoundedListener {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, places: Arc::new(Semaphore::new(CONNECTIONS)) })
    }
}

impl Listener for BoundedListener {
    type Io = Bounded<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        // Never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Bounded::new(stream, place), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection.
pub(super) struct Bounded<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    /// A request has begun, and nothing was answered yet.
    asked: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Bounded<S> {
    fn new(stream: S, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, end: Box::pin(sleep(IDLE)), asked: false, _place: place }
    }

    fn start_again(&mut self) {
        self.end.as_mut().reset(Instant::now() + IDLE);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(task, buffer) {
            Poll::Ready(result) => {
                if buffer.filled().len() > before && !self.asked {
                    self.asked = true;
                    self.start_again();
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.end.as_mut().poll(task).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "no request")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        if written.is_ready() {
            self.asked = false;
            self.start_again();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// The address of the client, or of a proxy before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn only_the_first_byte_of_a_request_and_its_answer_give_a_connection_more_time() {
        let (mut client, server) = duplex(64);
        let mut server = Bounded::new(server, None);
        let mut ends = vec![server.end.deadline()];
        for _ in 0..2 {
            for _ in 0..3 {
                client.write_all(b"G").await.unwrap();
                server.read_u8().await.unwrap();
                ends.push(server.end.deadline());
            }
            server.write_all(b"o").await.unwrap();
            ends.push(server.end.deadline());
        }
        let later: Vec<bool> = ends.windows(2).map(|pair| pair[0] < pair[1]).collect();
        assert_eq!(later, [true, false, false, true, true, false, false, true]);
        server.end.as_mut().reset(Instant::now());
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
