use std::time::{Duration, Instant};

use pgrail_postgres::{AuthenticationProblem, ConnectError, Password, Stage, TlsMode, connect};
use pgrail_testing::for_each_server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{fails, of_uri, settings, texts};

#[tokio::test]
async fn a_refused_connection() {
    // A port that was free a moment ago, and is not reused so soon.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = fails(&of_uri(&format!("postgres://u:p@127.0.0.1:{port}/d")), "ConnectionRefused").await;
    assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_missing_socket_file() {
    let error = fails(&of_uri("postgres://u:p@%2Fnonexistent/d"), "ConnectionRefused").await;
    assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved() {
    // A label has at most 63 characters. A longer one is refused without a DNS query.
    fails(&of_uri(&format!("postgres://u:p@{}.invalid/d", "a".repeat(64))), "NameResolution").await;
}

#[tokio::test]
async fn no_answer_is_a_timeout_at_each_stage() {
    for (mode, stage) in [(TlsMode::Prefer, Stage::Encrypting), (TlsMode::Disable, Stage::LoggingIn)] {
        // The backlog accepts the connection, and nothing is sent.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = of_uri(&format!("postgres://u:p@{}/d", listener.local_addr().unwrap()));
        settings.connect_timeout = Duration::from_millis(300);
        settings.tls = mode;
        let began = Instant::now();
        let error = fails(&settings, "Timeout").await;
        assert!(matches!(error, ConnectError::Timeout { stage: found, .. } if found == stage), "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(error.to_string().starts_with("no answer within 300 ms while "), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password() {
    for_each_server(async |server| {
        let mut settings = settings(&server);
        settings.password = Some(Password::new("Geheimnis"));
        let error = fails(&settings, "AuthenticationFailed").await;
        assert!(matches!(error, ConnectError::Authentication(AuthenticationProblem::Rejected)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_role_and_one_that_pg_hba_rejects() {
    for_each_server(async |server| {
        for role in ["nobody_there", "hba_rejected"] {
            let mut settings = settings(&server);
            settings.user = role.into();
            let error = fails(&settings, "AuthenticationFailed").await;
            assert!(
                matches!(error, ConnectError::Authentication(AuthenticationProblem::Rejected)),
                "{role}: {error:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_password() {
    for_each_server(async |server| {
        for role in ["postgres", "hba_md5", "hba_cleartext"] {
            let mut settings = settings(&server);
            settings.user = role.into();
            settings.password = None;
            let error = fails(&settings, "AuthenticationFailed").await;
            assert!(
                matches!(error, ConnectError::Authentication(AuthenticationProblem::PasswordMissing)),
                "{role}: {error:?}"
            );
        }
        let mut settings = settings(&server);
        settings.user = "hba_trust".into();
        settings.password = None;
        assert!(connect(&settings).await.is_ok(), "trust asks for none");
    })
    .await;
}

#[tokio::test]
async fn md5_still_logs_in() {
    for_each_server(async |server| {
        let mut settings = settings(&server);
        settings.user = "hba_md5".into();
        assert!(connect(&settings).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_missing_database() {
    for_each_server(async |server| {
        let settings = settings(&server).with_database("never_created");
        assert!(matches!(fails(&settings, "DatabaseMissing").await, ConnectError::DatabaseMissing));
    })
    .await;
}

#[tokio::test]
async fn a_role_without_connect() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        let client = database.connect().await;
        client.batch_execute(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", database.name)).await.unwrap();
        let mut settings = of_uri(&database.uri);
        settings.user = "hba_trust".into();
        let error = fails(&settings, "AuthenticationFailed").await;
        assert!(matches!(error, ConnectError::Authentication(AuthenticationProblem::NotPermitted)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn too_many_connections() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        let client = database.connect().await;
        let role = server.role_name("connect");
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'Geheimnis' CONNECTION LIMIT 1"))
            .await
            .unwrap();
        let settings = of_uri(&database.uri_for(&role, "Geheimnis"));
        let held = connect(&settings).await.unwrap();
        assert!(matches!(fails(&settings, "TooManyConnections").await, ConnectError::TooManyConnections));
        drop(held);
        database.finish().await;
        pgrail_testing::connect(&server.uri).await.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_database_that_does_not_allow_connections() {
    for_each_server(async |server| {
        let database = server.database("connect").await;
        let admin = pgrail_testing::connect(&server.uri).await;
        admin.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", database.name)).await.unwrap();
        let error = fails(&of_uri(&database.uri), "ConnectionRefused").await;
        assert!(matches!(error, ConnectError::NotReady), "{error:?}");
    })
    .await;
}

/// Answers each connection with these bytes, one after the other, each after reading from the connection.
async fn answering(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = answer(&mut stream, &answers).await;
        }
    });
    format!("postgres://u:Geheimnis@{address}/d")
}

async fn answer(stream: &mut TcpStream, answers: &[Vec<u8>]) -> std::io::Result<()> {
    for bytes in answers {
        let mut buffer = [0; 1024];
        if stream.read(&mut buffer).await? == 0 {
            return Ok(());
        }
        stream.write_all(bytes).await?;
    }
    stream.shutdown().await
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind], length.to_be_bytes().as_slice(), body].concat()
}

fn fatal(code: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mcrooked words\0Dcrooked words\0Hcrooked words\0\0").as_bytes())
}

/// Text that a peer sends before authentication is not in any error.
#[tokio::test]
async fn text_before_authentication_is_in_no_error() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let no_tls = || bytes("N");
    let sasl = || message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let table = [
        (vec![bytes("HTTP/1.1 400 crooked words\r\n\r\n")], "ConnectionRefused"),
        (vec![bytes("E crooked words\0")], "ConnectionRefused"),
        (vec![bytes("")], "ConnectionRefused"),
        (vec![bytes("S"), bytes("crooked words")], "TlsFailed"),
        (vec![no_tls(), fatal("CROOK")], "ConnectionRefused"),
        (vec![no_tls(), fatal("28P01")], "AuthenticationFailed"),
        (vec![no_tls(), fatal("3D000")], "DatabaseMissing"),
        (vec![no_tls(), fatal("53300")], "TooManyConnections"),
        (vec![no_tls(), fatal("57P03")], "ConnectionRefused"),
        (vec![no_tls(), bytes("crooked words, and no message at all")], "ConnectionRefused"),
        (vec![no_tls(), message(b'?', b"crooked words")], "ConnectionRefused"),
        (vec![no_tls(), message(b'N', b"Mcrooked words\0\0")], "ConnectionRefused"),
        (vec![no_tls(), bytes("")], "ConnectionRefused"),
        // AuthenticationCleartextPassword.
        (vec![no_tls(), message(b'R', &[0, 0, 0, 3]), bytes("thanks")], "AuthenticationFailed"),
        // AuthenticationKerberosV5.
        (vec![no_tls(), message(b'R', &[0, 0, 0, 2])], "AuthenticationFailed"),
        // An unknown SASL mechanism, and then SCRAM with a wrong server signature.
        (vec![no_tls(), message(b'R', b"\0\0\0\x0acrooked words\0\0")], "AuthenticationFailed"),
        (vec![no_tls(), sasl(), message(b'R', b"\0\0\0\x0br=crooked words,s=Y3Jvb2s=,i=1")], "AuthenticationFailed"),
        (vec![no_tls(), sasl(), fatal("XX000")], "ConnectionRefused"),
    ];
    for (answers, reason) in table {
        let said = format!("{:?}", answers.iter().map(|answer| String::from_utf8_lossy(answer)).collect::<Vec<_>>());
        let settings = of_uri(&answering(answers).await);
        let error = connect(&settings).await.expect_err("a failed connection");
        assert_eq!(error.reason(), reason, "{error:?} after {said}");
        assert!(!texts(&error).to_lowercase().contains("crook"), "{}", texts(&error));
    }
}
