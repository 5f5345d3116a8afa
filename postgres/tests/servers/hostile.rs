//! Servers that wish us ill: what they send is refused before it costs memory or time.

use std::time::Duration;

use pgrail_postgres::{
    AuthenticationProblem, ConnectError, Connection, ConnectionSettings, MessageProblem, TlsMode, connect,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::of_uri;

const GIBIBYTE: u32 = 1 << 30;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// The head of a message of a gibibyte, without its body.
fn gibibyte(kind: u8) -> Vec<u8> {
    [&[kind][..], &GIBIBYTE.to_be_bytes()].concat()
}

fn logged_in() -> Vec<u8> {
    [message(b'R', &0u32.to_be_bytes()), message(b'Z', b"I")].concat()
}

/// A server that answers the startup with `login`, and the first request with `answer`, again and again where `endless`.
async fn server(login: Vec<u8>, answer: Vec<u8>, endless: bool) -> ConnectionSettings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = of_uri(&format!("postgres://u:p@{}/d", listener.local_addr().unwrap()));
    settings.tls = TlsMode::Disable;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&login).await.unwrap();
        request(&mut stream).await;
        while stream.write_all(&answer).await.is_ok() && endless && !answer.is_empty() {}
        // Stays open, and says nothing more.
        request(&mut stream).await;
        request(&mut stream).await;
    });
    settings
}

async fn request(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 4096]).await;
}

/// What ended a query.
async fn problem(connection: &Connection) -> MessageProblem {
    let error = connection.simple_query("SELECT 1").await.expect_err("a failed query");
    // The query fails because the session ended; the reason is kept beside it.
    connection.closed().await;
    connection.ended_by().unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn a_gibibyte_before_the_login_is_refused_by_its_head() {
    for kind in [b'R', b'E', b'N', b'S'] {
        let settings = server(gibibyte(kind), Vec::new(), false).await;
        let error = connect(&settings).await.expect_err("no connection");
        assert!(matches!(error, ConnectError::NotPostgres), "{error:?}");
    }
}

#[tokio::test]
async fn a_gibibyte_after_the_login_is_refused_by_its_head() {
    for kind in [b'T', b'D', b'N', b'A'] {
        let connection = connect(&server(logged_in(), gibibyte(kind), false).await).await.unwrap();
        assert!(matches!(problem(&connection).await, MessageProblem::TooLong { length: GIBIBYTE, .. }));
    }
}

#[tokio::test]
async fn silence_after_the_login_ends_the_query_in_time() {
    let mut settings = server(logged_in(), Vec::new(), false).await;
    settings.answer_timeout = Some(Duration::from_millis(300));
    let connection = connect(&settings).await.unwrap();
    assert!(matches!(problem(&connection).await, MessageProblem::NoAnswer { .. }));
}

#[tokio::test]
async fn endless_notices_end_the_query_in_time() {
    let notice = message(b'N', b"SNOTICE\0C00000\0Mon and on\0\0");
    let mut settings = server(logged_in(), notice, true).await;
    settings.answer_timeout = Some(Duration::from_millis(300));
    let connection = connect(&settings).await.unwrap();
    assert!(matches!(problem(&connection).await, MessageProblem::NoAnswer { .. }));
}

#[tokio::test]
async fn a_session_without_a_request_may_be_silent_for_as_long_as_it_likes() {
    let answer = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    let mut settings = server(logged_in(), answer, false).await;
    settings.answer_timeout = Some(Duration::from_millis(50));
    let connection = connect(&settings).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), connection.closed()).await.is_err());
    connection.simple_query("SELECT 1").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), connection.closed()).await.is_err());
}

#[tokio::test]
async fn a_challenge_that_helps_to_guess_the_password_is_refused_where_the_spec_chose_the_host() {
    // The nonce need not fit: the iterations are checked before the answer is made.
    let challenge = message(b'R', b"\0\0\0\x0br=x,s=c2FsdA==,i=1");
    let mechanisms = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let md5 = message(b'R', b"\0\0\0\x05salt");
    for (login, answer) in [(mechanisms, challenge), (md5, Vec::new())] {
        let mut settings = server(login, answer, false).await;
        settings.host_trusted = false;
        let error = connect(&settings).await.expect_err("no login");
        assert!(matches!(error, ConnectError::Authentication(AuthenticationProblem::WeakMethod)), "{error:?}");
    }
}
