//! Invalid certificates, presented by a server that implements only the TLS handshake.

use std::sync::Arc;

use pgrail_postgres::{ConnectError, ConnectionSettings, TlsMode, TlsProblem, connect};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn certificate_authority() -> Ca {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn for_names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// Accepts `SSLRequest` as a PostgreSQL server does, presents this certificate, and closes the connection.
async fn serve(certificate: CertificateDer<'static>, key: &KeyPair, clients: Option<&Ca>) -> u16 {
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

/// The error with this TLS mode and this trusted CA.
async fn outcome(port: u16, mode: TlsMode, trusted: Option<&Ca>) -> ConnectError {
    let mut settings = ConnectionSettings::new("127.0.0.1", "d", "u");
    settings.port = port;
    settings.tls = mode;
    settings.ca_pem = trusted.map(|authority| authority.pem().into_bytes());
    connect(&settings).await.expect_err("a server that goes no further than TLS")
}

#[tokio::test]
async fn each_invalid_certificate_has_its_error() {
    let authority = certificate_authority();
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
            // `require` without a CA accepts any certificate.
            let error = outcome(port, mode, (mode != TlsMode::Require).then_some(&authority)).await;
            match (&error, expected) {
                (ConnectError::Tls(found), Some(problem)) => assert_eq!(*found, problem, "{what} under {mode}"),
                // The handshake succeeds, and then the server closes the connection.
                (ConnectError::Closed, None) => {}
                _ => panic!("{what} under {mode}: {error:?}"),
            }
            assert!(!crate::texts(&error).contains("crooked"), "{}", crate::texts(&error));
        }
    }
}

/// The CA was created again with the same name, and the Secret contains the old certificate.
#[tokio::test]
async fn a_ca_with_a_new_key_is_not_trusted() {
    let (old, new) = (certificate_authority(), certificate_authority());
    let key = KeyPair::generate().unwrap();
    let certificate = for_names(&["127.0.0.1"]).signed_by(&key, &new).unwrap();
    let port = serve(certificate.der().clone(), &key, None).await;
    let error = outcome(port, TlsMode::VerifyCa, Some(&old)).await;
    assert!(matches!(error, ConnectError::Tls(TlsProblem::UnknownIssuer)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_requires_a_client_certificate_is_reported() {
    let authority = certificate_authority();
    let key = KeyPair::generate().unwrap();
    let certificate = for_names(&["127.0.0.1"]).signed_by(&key, &authority).unwrap();
    let port = serve(certificate.der().clone(), &key, Some(&authority)).await;
    let error = outcome(port, TlsMode::Require, None).await;
    assert!(matches!(error, ConnectError::Tls(TlsProblem::Handshake)), "{error:?}");
}
