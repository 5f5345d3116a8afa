//! Certificates that a server should not have, shown by a TLS server that is real up to the handshake.

use std::sync::Arc;

use pgrail_postgres::{ConnectError, ConnectionSettings, TlsMode, TlsProblem, connect};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn for_names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Accepts TLS as a PostgreSQL server does, shows this certificate, and ends.
async fn serve(certificate: CertificateDer<'static>, key: &KeyPair, clients: Option<&Authority>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            )
        }
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"S").await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.shutdown().await;
            }
        }
    });
    port
}

/// What comes of it, under one mode, with this authority trusted.
async fn outcome(port: u16, mode: TlsMode, trusted: Option<&Authority>) -> ConnectError {
    let mut settings = ConnectionSettings::new("127.0.0.1", "d", "u");
    settings.port = port;
    settings.tls = mode;
    settings.ca_pem = trusted.map(|authority| authority.pem().into_bytes());
    connect(&settings).await.expect_err("a server that goes no further than TLS")
}

#[tokio::test]
async fn every_kind_of_bad_certificate_has_its_message() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let good = for_names(&["127.0.0.1"]);
    let mut expired = good.clone();
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut early = good.clone();
    early.not_before = date_time_ymd(4000, 1, 1);
    let mut not_for_servers = good.clone();
    not_for_servers.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let mut authority_itself = good.clone();
    authority_itself.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let table = [
        ("good", good, None, None),
        ("expired", expired, Some(TlsProblem::Expired), Some(TlsProblem::Expired)),
        ("early", early, Some(TlsProblem::NotYetValid), Some(TlsProblem::NotYetValid)),
        ("for clients", not_for_servers, Some(TlsProblem::BadCertificate), Some(TlsProblem::BadCertificate)),
        ("an authority's", authority_itself, Some(TlsProblem::BadCertificate), Some(TlsProblem::BadCertificate)),
        ("another name", for_names(&["crooked.example"]), None, Some(TlsProblem::WrongName)),
        ("no name", for_names(&[]), None, Some(TlsProblem::WrongName)),
    ];
    for (what, params, under_verify_ca, under_verify_full) in table {
        let certificate = params.signed_by(&key, &authority).unwrap();
        let port = serve(certificate.der().clone(), &key, None).await;
        for (mode, expected) in
            [(TlsMode::VerifyCa, under_verify_ca), (TlsMode::VerifyFull, under_verify_full), (TlsMode::Require, None)]
        {
            // Require with an authority is verify-ca; here it has none, and takes any certificate.
            let error = outcome(port, mode, (mode != TlsMode::Require).then_some(&authority)).await;
            match (&error, expected) {
                (ConnectError::Tls(found), Some(problem)) => assert_eq!(*found, problem, "{what} under {mode}"),
                // Through the handshake: the server then hangs up.
                (ConnectError::Closed, None) => {}
                _ => panic!("{what} under {mode}: {error:?}"),
            }
            assert!(!crate::texts(&error).contains("crooked"), "{}", crate::texts(&error));
        }
    }
}

/// The authority of that name was made anew; the Secret still has the old one.
#[tokio::test]
async fn an_authority_made_anew_is_an_unknown_one() {
    let (old, new) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = for_names(&["127.0.0.1"]).signed_by(&key, &new).unwrap();
    let port = serve(certificate.der().clone(), &key, None).await;
    let error = outcome(port, TlsMode::VerifyCa, Some(&old)).await;
    assert!(matches!(error, ConnectError::Tls(TlsProblem::UnknownIssuer)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_none() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let certificate = for_names(&["127.0.0.1"]).signed_by(&key, &authority).unwrap();
    let port = serve(certificate.der().clone(), &key, Some(&authority)).await;
    let error = outcome(port, TlsMode::Require, None).await;
    assert!(matches!(error, ConnectError::Tls(TlsProblem::Handshake)), "{error:?}");
}
