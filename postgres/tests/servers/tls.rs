use pgrail_postgres::{AuthenticationProblem, ConnectError, TlsMode, TlsProblem, connect};
use pgrail_testing::{authority_file, for_each_server, other_authority_file, plain_server};

use crate::{fails, settings, text, with_mode};

const ENCRYPTED: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[tokio::test]
async fn every_mode_against_a_server_with_tls() {
    for_each_server(async |server| {
        let (own, other) = (authority_file(), other_authority_file());
        let table = [
            (TlsMode::Disable, None, "127.0.0.1", Ok("false")),
            (TlsMode::Prefer, None, "127.0.0.1", Ok("true")),
            (TlsMode::Require, None, "127.0.0.1", Ok("true")),
            (TlsMode::Prefer, Some(&own), "127.0.0.1", Ok("true")),
            (TlsMode::Require, Some(&own), "127.0.0.1", Ok("true")),
            (TlsMode::VerifyCa, Some(&own), "127.0.0.1", Ok("true")),
            (TlsMode::VerifyFull, Some(&own), "127.0.0.1", Ok("true")),
            (TlsMode::VerifyFull, Some(&own), "localhost", Ok("true")),
            // With a CA, the certificate is verified in each TLS mode, and `prefer` does not fall back.
            (TlsMode::Prefer, Some(&other), "127.0.0.1", Err(TlsProblem::UnknownIssuer)),
            (TlsMode::Require, Some(&other), "127.0.0.1", Err(TlsProblem::UnknownIssuer)),
            (TlsMode::VerifyCa, Some(&other), "127.0.0.1", Err(TlsProblem::UnknownIssuer)),
            (TlsMode::VerifyFull, Some(&other), "127.0.0.1", Err(TlsProblem::UnknownIssuer)),
            // The certificate is not signed by a CA of the system.
            (TlsMode::VerifyCa, None, "127.0.0.1", Err(TlsProblem::UnknownIssuer)),
            (TlsMode::VerifyFull, None, "127.0.0.1", Err(TlsProblem::UnknownIssuer)),
            // 127.0.0.2 is the same server with another name.
            (TlsMode::VerifyCa, Some(&own), "elsewhere.example", Ok("true")),
            (TlsMode::Require, Some(&own), "elsewhere.example", Ok("true")),
            (TlsMode::VerifyFull, Some(&own), "elsewhere.example", Err(TlsProblem::WrongName)),
        ];
        for (mode, authority, host, expected) in table {
            let mut settings = with_mode(&server, mode, authority.map(std::path::PathBuf::as_path));
            settings.host = host.into();
            settings.lookup = Some("127.0.0.1".into());
            match expected {
                Ok(encrypted) => {
                    let connection = connect(&settings).await.unwrap_or_else(|error| panic!("{mode} {host}: {error}"));
                    assert_eq!(text(&connection, ENCRYPTED).await, encrypted, "{mode} {host}");
                    assert_eq!(connection.reached().encrypted.to_string(), encrypted);
                }
                Err(problem) => match fails(&settings, "TlsFailed").await {
                    ConnectError::Tls(found) => assert_eq!(found, problem, "{mode} {host}"),
                    other => panic!("{mode} {host}: {other:?}"),
                },
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_without_tls_is_used_only_if_the_mode_allows_it() {
    let server = plain_server();
    for mode in [TlsMode::Disable, TlsMode::Prefer] {
        let connection = connect(&with_mode(&server, mode, Some(&authority_file()))).await.unwrap();
        assert_eq!(text(&connection, ENCRYPTED).await, "false");
        assert!(!connection.reached().encrypted);
    }
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let error = fails(&with_mode(&server, mode, None), "TlsFailed").await;
        assert!(matches!(error, ConnectError::Tls(TlsProblem::NotOffered)), "{error:?}");
    }
}

#[tokio::test]
async fn an_invalid_ca_is_reported() {
    for_each_server(async |server| {
        for pem in [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n",
        ] {
            let mut settings = settings(&server);
            settings.tls = TlsMode::VerifyFull;
            settings.ca_pem = Some(pem.into());
            let error = fails(&settings, "TlsFailed").await;
            assert!(matches!(error, ConnectError::Tls(TlsProblem::InvalidCa)), "{pem:?}: {error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_that_cannot_be_in_a_certificate_is_reported() {
    for_each_server(async |server| {
        let mut settings = with_mode(&server, TlsMode::VerifyFull, Some(&authority_file()));
        settings.lookup = Some("127.0.0.1".into());
        settings.host = "no..name".into();
        let error = fails(&settings, "TlsFailed").await;
        assert!(matches!(error, ConnectError::Tls(TlsProblem::BadName)), "{error:?}");
    })
    .await;
}

/// Roles that pg_hba.conf accepts only with TLS, or only without TLS.
#[tokio::test]
async fn pg_hba_can_require_or_forbid_tls() {
    for_each_server(async |server| {
        let table = [
            ("hba_tls_only", TlsMode::Require, true),
            ("hba_tls_only", TlsMode::Disable, false),
            ("hba_plain_only", TlsMode::Disable, true),
            ("hba_plain_only", TlsMode::Require, false),
        ];
        for (role, mode, welcome) in table {
            let mut settings = with_mode(&server, mode, None);
            settings.user = role.into();
            if welcome {
                connect(&settings).await.unwrap_or_else(|error| panic!("{role} {mode}: {error}"));
            } else {
                let error = fails(&settings, "AuthenticationFailed").await;
                assert!(
                    matches!(error, ConnectError::Authentication(AuthenticationProblem::Rejected)),
                    "{role} {mode}: {error:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_password_is_sent_in_clear_text_only_with_verify_full() {
    for_each_server(async |server| {
        for mode in [TlsMode::Disable, TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa] {
            let authority = (mode == TlsMode::VerifyCa).then(authority_file);
            let mut settings = with_mode(&server, mode, authority.as_deref());
            settings.user = "hba_cleartext".into();
            let error = fails(&settings, "AuthenticationFailed").await;
            assert!(
                matches!(error, ConnectError::Authentication(AuthenticationProblem::ClearPassword)),
                "{mode}: {error:?}"
            );
        }
        let mut settings = with_mode(&server, TlsMode::VerifyFull, Some(&authority_file()));
        settings.user = "hba_cleartext".into();
        assert_eq!(text(&connect(&settings).await.unwrap(), "SELECT session_user::text").await, "hba_cleartext");
    })
    .await;
}

#[tokio::test]
async fn channel_binding_is_used_with_tls_and_can_be_required() {
    for_each_server(async |server| {
        let mut settings = with_mode(&server, TlsMode::Require, None);
        settings.channel_binding_required = true;
        assert!(connect(&settings).await.is_ok(), "SCRAM over TLS binds to the channel");
        for (role, mode) in
            [("postgres", TlsMode::Disable), ("hba_md5", TlsMode::Require), ("hba_trust", TlsMode::Require)]
        {
            settings.user = role.into();
            settings.tls = mode;
            let error = fails(&settings, "AuthenticationFailed").await;
            assert!(
                matches!(error, ConnectError::Authentication(AuthenticationProblem::ChannelBinding)),
                "{role} {mode}: {error:?}"
            );
        }
    })
    .await;
}
