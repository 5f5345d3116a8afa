//! Stores behind TLS with a CA of their own, credentials that change during a run, and buckets whose objects are locked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgrail_dump::{
    CredentialSource, PruneRequest, Reason, Scope, Store, StoreCredentials, StoreSettings, StoreUrl, dump, list, prune,
    verify,
};
use pgrail_testing::server;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{BLOB, in_parts, quiet, request, s3, unique, verify_request};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A proxy with TLS before the S3 server: its endpoint, and the certificate of its CA.
async fn with_tls() -> (String, Vec<u8>) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let target = s3("endpoint").trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate ends here.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (endpoint, authority.pem().into_bytes())
}

fn settings(prefix: &str) -> StoreSettings {
    let mut settings = support::s3_settings(&unique(prefix));
    settings.retries = 0;
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_the_endpoint_is_trusted_and_no_other() {
    let (endpoint, ca) = with_tls().await;
    let database = server(18).database("storeca").await;
    database.connect().await.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS n").await.unwrap();
    let mut settings = settings("ca");
    (settings.endpoint, settings.allow_http, settings.sha256) = (Some(endpoint), false, true);
    let unknown = Store::open(&settings).unwrap();
    let error = dump(&request(&database), &unknown, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::StoreUnavailable, "{error:?}");
    settings.ca_pem = Some(with_tls().await.1);
    let other = Store::open(&settings).unwrap();
    assert!(dump(&request(&database), &other, &quiet).await.is_err(), "the CA of another server");
    settings.ca_pem = Some(b"no certificate".to_vec());
    assert_eq!(Store::open(&settings).unwrap_err().reason(), Reason::StoreInvalid);

    settings.ca_pem = Some(ca);
    let store = Store::open(&settings).unwrap();
    let request = request(&database);
    let result = dump(&request, &store, &quiet).await.unwrap();
    // Also the requests that the client library has no function for.
    let mut verification = verify_request(&result);
    verification.level = pgrail_dump::VerificationLevel::Checksum;
    verify(&verification, &store, &quiet).await.unwrap();
    assert_eq!(list(&store, Scope::Schedule(&request.identity.schedule_identity())).await.unwrap().ours.len(), 1);
    database.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_read_again_when_they_change() {
    let database = server(18).database("renewal").await;
    database.connect().await.batch_execute(BLOB).await.unwrap();
    // What is mounted: at first keys that the store does not know (any more), then those that it does.
    let keys = |secret: &str| {
        StoreCredentials::from_keys([
            ("AWS_ACCESS_KEY_ID".to_owned(), s3("key")),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), secret.to_owned()),
        ])
    };
    let mounted = Arc::new(Mutex::new(Some(keys("expired-secret-key"))));
    let mut settings = settings("renewal");
    settings.credentials = keys("expired-secret-key");
    let reads = Arc::clone(&mounted);
    settings.renewal = Some(CredentialSource::new(move || reads.lock().unwrap().clone()).every(Duration::ZERO));
    let store = Store::open(&settings).unwrap();
    let request = in_parts(request(&database), 3);
    assert_eq!(dump(&request, &store, &quiet).await.unwrap_err().reason(), Reason::AccessDenied);
    // A Secret that cannot be read for a moment, and one that is half written, change nothing.
    *mounted.lock().unwrap() = None;
    assert_eq!(dump(&request, &store, &quiet).await.unwrap_err().reason(), Reason::AccessDenied);
    *mounted.lock().unwrap() = Some(keys(&s3("secret")));
    // The same store, without being opened again.
    let result = dump(&request, &store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store, &quiet).await.unwrap();
    database.finish().await;
}

/// What only the owner of a bucket does, and the client library has no function for.
fn put(url: &str, headers: &[&str], body: &str) {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--request",
        "PUT",
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
    ]);
    curl.args([
        "--user",
        &format!("{}:{}", s3("key"), s3("secret")),
        "--header",
        "x-amz-content-sha256: UNSIGNED-PAYLOAD",
    ]);
    curl.args(headers.iter().flat_map(|header| ["--header", header]));
    let output = curl.args(["--data-binary", body, url]).output().unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Object lock in compliance mode: for a day, nobody can remove an object or replace it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_a_default_retention_takes_dumps_and_keeps_them() {
    let bucket = unique("locked");
    let url = format!("{}/{bucket}", s3("endpoint"));
    put(&url, &["x-amz-bucket-object-lock-enabled: true"], "");
    let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
         <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    put(&format!("{url}?object-lock="), &["Content-MD5: bAtV4GhRHjlhyrqo+OfhYg=="], lock);
    let database = server(18).database("locked").await;
    database.connect().await.batch_execute(BLOB).await.unwrap();
    let mut settings = support::s3_settings("shop");
    (settings.url, settings.sha256) = (StoreUrl::parse(&format!("s3://{bucket}/shop")).unwrap(), true);
    let store = Store::open(&settings).unwrap();
    let request = in_parts(request(&database), 3);
    let result = dump(&request, &store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store, &quiet).await.unwrap();

    let schedule = request.identity.schedule_identity();
    let listed = async || list(&store, Scope::Schedule(&schedule)).await.unwrap().ours;
    let before = listed().await;
    let location = before[0].location.clone();
    let request = PruneRequest::new(schedule.clone(), vec![location.clone()], jiff::Timestamp::now());
    let report = prune(&store, &request).await.unwrap();
    assert_eq!(report.deleted, Vec::<String>::new());
    let [refused] = &report.refused[..] else { panic!("{report:?}") };
    assert_eq!((&refused.location, refused.reason), (&location, Reason::AccessDenied));
    assert!(refused.message.contains("lock"), "{}", refused.message);
    // It is whole.
    assert_eq!(listed().await, before);
    let files = Path::new(&s3("folder")).join(&bucket).join("shop").join(&location);
    let sizes = files.read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    assert!(sizes.sum::<u64>() > result.size_bytes);
    database.finish().await;
}
