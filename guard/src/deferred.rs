//! Statements that run on a session even if the future that should have run them is dropped.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio_postgres::{Client, Error};

/// Runs a statement when it is finished or dropped, whichever comes first. Dropped, it is queued on the connection, behind
/// the statement that may still run there and the ROLLBACK of an open [`tokio_postgres::Transaction`]: the next
/// user of the session finds it as it was.
pub(crate) struct Deferred<'a> {
    client: &'a mut Client,
    sql: &'static str,
    armed: bool,
}

impl<'a> Deferred<'a> {
    /// Arm it before the statement that needs it, since that one may be cancelled after the server has run it.
    pub(crate) fn new(client: &'a mut Client, sql: &'static str) -> Self {
        Self { client, sql, armed: true }
    }

    pub(crate) fn client(&mut self) -> &mut Client {
        self.client
    }

    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        let finished = self.client.batch_execute(self.sql).await;
        self.armed = false;
        finished
    }

    /// The statement is not needed.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Deferred<'_> {
    fn drop(&mut self) {
        if self.armed && !self.client.is_closed() {
            queue(self.client, self.sql);
        }
    }
}

/// A transaction that only reads, of a client that is shared: rolled back even when its future is dropped.
pub(crate) struct Rollback<'a> {
    client: &'a Client,
    armed: bool,
}

impl<'a> Rollback<'a> {
    pub(crate) async fn begin(client: &'a Client, begin: &str) -> Result<Self, Error> {
        let transaction = Self { client, armed: true };
        client.batch_execute(begin).await?;
        Ok(transaction)
    }

    pub(crate) async fn end(mut self) -> Result<(), Error> {
        let ended = self.client.batch_execute("ROLLBACK").await;
        self.armed = false;
        ended
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        if self.armed && !self.client.is_closed() {
            queue(self.client, "ROLLBACK");
        }
    }
}

/// Sends a statement without waiting for its end: the first poll puts it on the connection.
fn queue(client: &Client, sql: &str) {
    let sent = pin!(client.batch_execute(sql));
    match sent.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending | Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(error)) => tracing::debug!(%error, "a session that was given up cannot be cleaned"),
    }
}
