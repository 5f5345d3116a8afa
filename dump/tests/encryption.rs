//! Encrypted dumps: made without a private key, read with one, and by the program `age`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use pgrail_dump::{
    ClientTools, Comparison, Extract, Identities, Manifest, Message, Reason, RowsKey, Scope, ShrinkAlarm, Store,
    UploadLimits, dump, list, verify,
};
use pgrail_testing::{Database, client_programs, for_each_server, programs, server};
use support::{SHOP, SHOP_ROWS, SHOP_TABLES, TestStore, quiet, request, stores, verify_request};

/// What may be read besides a block: the header of the encryption, a chunk at either end, the index.
const OVERHEAD: u64 = 1024 * 1024;

struct Key {
    secret: String,
    public: String,
}

impl Key {
    fn new() -> Self {
        let identity = Identity::generate();
        Self { secret: identity.to_string().expose_secret().to_owned(), public: identity.to_public().to_string() }
    }

    fn identities(&self) -> Identities {
        Identities::parse(&self.secret).unwrap()
    }

    /// As `age-keygen` writes it.
    fn file(&self, directory: &Path) -> PathBuf {
        let file = directory.join("key.txt");
        std::fs::write(&file, format!("# public key: {}\n{}\n", self.public, self.secret)).unwrap();
        file
    }
}

/// The program `age`, as its authors publish it.
fn age() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster/tools.sh");
    let output = Command::new(script).arg("age").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Path::new(String::from_utf8(output.stdout).unwrap().trim()).join("age")
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Every byte that is in the store.
fn everything(store: &TestStore) -> Vec<u8> {
    store.list_files().iter().flat_map(|file| std::fs::read(store.files.join(file)).unwrap()).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn an_encrypted_dump_is_verified_without_a_key_and_read_with_any_of_them() {
    for_each_server(async |server| {
        let database = server.database("encrypted").await;
        let client = database.connect().await;
        client.batch_execute(SHOP).await.unwrap();
        client
            .batch_execute(
                "CREATE TABLE bulk AS SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400000) n GROUP BY n % 2000;
                 CREATE SCHEMA secret_schema",
            )
            .await
            .unwrap();
        let keys = [Key::new(), Key::new()];
        for store in stores() {
            let mut request = request(&database);
            request.age_recipients = keys.iter().map(|key| key.public.clone()).collect();
            request.upload = UploadLimits { part_bytes: 5 * 1024 * 1024, parts_in_flight: 2, parts_per_segment: 1 };
            request.filter.exclude_table_data = vec!["public.cache".into()];
            request.rows_key = Some(RowsKey::new("key-of-rows".into()));
            let result = dump(&request, &store.store, &quiet).await.unwrap();
            assert!(result.encrypted && result.details.as_ref().unwrap().segments.len() > 1);
            let mut verification = verify_request(&result);
            verification.shrink_alarm = Some(ShrinkAlarm { percent: 50, min_rows: 1 });
            let verified = verify(&verification, &store.store, &quiet).await.unwrap();

            // Nothing of the data is in clear: no row, no name of a table, a column or a role, no pattern.
            let bytes = everything(&store);
            for hidden in ["orders", "user 77", "no_columns", "secret_schema", "public.cache", "CREATE TABLE", "PGDMP"] {
                assert!(!contains(&bytes, hidden), "{hidden} is in clear in the {} store", store.kind);
            }
            assert!(store.list_files().iter().all(|file| file.ends_with("manifest.json") || file.contains(".age")));
            let manifest = Manifest::read_published(&store.store, &result.location, &verified.manifest_sha256).await.unwrap();
            assert!(manifest.is_encrypted() && manifest.is_partial() && manifest.tables.is_empty());
            assert_eq!((manifest.table_count(), manifest.rows), (SHOP_TABLES, SHOP_ROWS + 2000 - 1));

            for key in &keys {
                let reading = Store::open(&store.settings).unwrap().with_identities(key.identities());
                let extract = Extract::open(&reading, manifest.clone()).await.unwrap();
                assert_eq!(extract.manifest().tables, result.details.as_ref().unwrap().table_rows);
                assert_eq!(extract.manifest().filter, request.filter);
                let tables = extract.tables("public", "orders");
                let tools = ClientTools::find(Some(&client_programs(server.major))).await.unwrap();
                let mut rows = extract.rows(&tables[0], &tools).await.unwrap();
                while rows.next().await.unwrap().is_some() {}
                assert_eq!(rows.rows(), 5000);
                let read = reading.bytes_read();
                let size = Extract::size(&tables[0]).unwrap();
                assert!(read <= size + OVERHEAD && size + 4 * OVERHEAD < result.size_bytes, "{read} of {size}");
            }
            let other = Store::open(&store.settings).unwrap().with_identities(Key::new().identities());
            for reading in [&other, &store.store] {
                let error = Extract::open(reading, manifest.clone()).await.unwrap_err();
                assert_eq!(error.reason(), Reason::IdentityRequired, "{error:?}");
                assert!(error.to_string().contains("age identit"), "{error}");
            }
            // It is listed without a key.
            let listed = list(&store.store, Scope::Schedule(&request.identity.schedule_identity())).await.unwrap();
            assert_eq!(listed.ours.len(), 1, "{listed:?}");
            for message in [Message::Dump(result), Message::Verify(verified)] {
                assert!(keys.iter().all(|key| !message.to_json().contains(&key.secret)));
            }
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn the_program_age_decrypts_what_pgrail_encrypted() {
    let server = server(18);
    let database = server.database("age").await;
    let client = database.connect().await;
    client.batch_execute(SHOP).await.unwrap();
    let (key, store) = (Key::new(), support::file_store());
    let mut request = request(&database);
    request.age_recipients = vec![Key::new().public, key.public.clone()];
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let (age, identity) = (age(), key.file(directory.path()));
    let decrypted = |name: &str| {
        let file = store.files.join(&result.location).join(name);
        run(Command::new(&age).arg("--decrypt").arg("--identity").arg(&identity).arg(file)).stdout
    };
    let archive = directory.path().join("dump.pgc");
    std::fs::write(&archive, decrypted("dump.pgc.age.000")).unwrap();
    let manifest = Manifest::read(&store.store, &result.location).await.unwrap();
    let revealed = manifest.reveal(&store.store.clone().with_identities(key.identities())).await.unwrap();
    let sum = run(Command::new("sha256sum").arg(&archive)).stdout;
    assert!(String::from_utf8(sum).unwrap().starts_with(&revealed.archive().sha256));
    assert_eq!(revealed.archive().length, std::fs::metadata(&archive).unwrap().len());
    let target = server.database("age_target").await;
    let pg_restore = programs(18).join("pg_restore");
    run(Command::new(pg_restore).args(["--exit-on-error", "--dbname", &target.uri]).arg(&archive));
    let digest = "SELECT md5(string_agg(o::text, ';' ORDER BY o.id)) FROM orders o";
    assert_eq!(
        target.connect().await.query_one(digest, &[]).await.unwrap().get::<_, String>(0),
        client.query_one(digest, &[]).await.unwrap().get::<_, String>(0)
    );
    assert!(contains(&decrypted("globals.sql.age"), "CREATE ROLE"));
    let index: serde_json::Value = serde_json::from_slice(&decrypted("index.json.age")).unwrap();
    assert_eq!(index["tables"].as_array().unwrap().len() as u64, SHOP_TABLES);
    target.finish().await;
    database.finish().await;
}

#[tokio::test]
async fn a_damaged_or_foreign_part_is_an_error() {
    let database = server(18).database("damaged_age").await;
    database.connect().await.batch_execute(SHOP).await.unwrap();
    let (key, store) = (Key::new(), support::file_store());
    let mut request = request(&database);
    request.age_recipients = vec![key.public.clone()];
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    // Found without a key.
    let archive = store.files.join(&result.location).join("dump.pgc.age.000");
    let whole = std::fs::read(&archive).unwrap();
    let mut damaged = whole.clone();
    let last = damaged.len() - 20;
    damaged[last] ^= 1;
    std::fs::write(&archive, &damaged).unwrap();
    let error = verify(&verify_request(&result), &store.store, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch);
    let index = store.files.join(&result.location).join("index.json.age");
    let good = std::fs::read(&index).unwrap();
    std::fs::write(&archive, &whole).unwrap();
    std::fs::write(&index, &good[1..]).unwrap();
    let error = verify(&verify_request(&result), &store.store, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch);

    // Damaged later: found when it is read.
    request.identity.run_id = support::unique("r").replace('-', "");
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    let archive = store.files.join(&result.location).join("dump.pgc.age.000");
    let index = store.files.join(&result.location).join("index.json.age");
    let whole = std::fs::read(&archive).unwrap();
    let reading = Store::open(&store.settings).unwrap().with_identities(key.identities());
    let manifest = Manifest::read(&reading, &result.location).await.unwrap();
    damaged = whole.clone();
    damaged[300] ^= 1;
    std::fs::write(&archive, &damaged).unwrap();
    let error = Extract::open(&reading, manifest.clone()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ArchiveInvalid, "{error:?}");
    std::fs::write(&archive, &whole).unwrap();
    // Another index for the same key is not the one of the manifest.
    let encrypted = age::encrypt(&key.public.parse::<age::x25519::Recipient>().unwrap(), b"{}").unwrap();
    std::fs::write(&index, encrypted).unwrap();
    let error = Extract::open(&reading, manifest).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch, "{error:?}");
    database.finish().await;
}

#[tokio::test]
async fn a_recipient_that_is_no_key_is_refused_before_anything_is_written() {
    let database = server(18).database("norecipient").await;
    let store = support::file_store();
    let mut request = request(&database);
    request.age_recipients = vec![Key::new().public, Key::new().secret];
    let error = dump(&request, &store.store, &quiet).await.unwrap_err();
    let failure = error.failure(&request, &store.store);
    assert_eq!((failure.reason, failure.retryable), (Reason::InvalidRequest, false));
    assert!(failure.message.contains("entry 2") && !failure.message.contains("AGE-SECRET-KEY"), "{}", failure.message);
    assert!(store.list_files().is_empty());
    database.finish().await;
}

/// Makes a backup at that minute, and compares its rows with those of the one before.
async fn compared(
    database: &Database,
    store: &TestStore,
    minute: u32,
    (recipient, rows_key, identities): (&str, Option<&str>, Option<&Key>),
) -> Comparison {
    let rows_key = rows_key.map(|key| RowsKey::new(key.to_owned()));
    let mut request = request(database);
    request.identity.timestamp = format!("2026-11-23T02:{minute:02}:00Z").parse().unwrap();
    request.identity.backup_name = format!("b{minute}");
    (request.age_recipients, request.rows_key) = (vec![recipient.to_owned()], rows_key.clone());
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    let mut verification = verify_request(&result);
    verification.shrink_alarm = Some(ShrinkAlarm { percent: 50, min_rows: 1 });
    verification.rows_key = rows_key;
    let with_key = identities.map(|key| store.store.clone().with_identities(key.identities()));
    let verified = verify(&verification, with_key.as_ref().unwrap_or(&store.store), &quiet).await.unwrap();
    assert!(!Message::Verify(verified.clone()).to_json().contains("key-of-rows"));
    verified.comparison.unwrap()
}

/// Nothing that the store contains decrypts the row counts; what cannot be compared is reported.
#[tokio::test]
async fn row_counts_are_compared_by_who_has_the_key_of_the_schedule_or_a_private_key() {
    let database = server(18).database("blind").await;
    let client = database.connect().await;
    client.batch_execute("CREATE TABLE secret_table AS SELECT generate_series(1, 98765) AS n").await.unwrap();
    let (store, key, other) = (support::file_store(), Key::new(), Key::new());
    let with = |rows_key, identities| (key.public.as_str(), rows_key, identities);
    let not_compared = |found: &Comparison, part: &str| {
        assert_eq!(found.with, None, "{found:?}");
        assert!(found.not_compared_because.as_ref().unwrap().contains(part), "{found:?}");
    };
    let compared_with = |found: &Comparison, name: &str| assert_eq!(found.with.as_deref(), Some(name), "{found:?}");
    compared(&database, &store, 1, with(None, None)).await;
    let found = compared(&database, &store, 2, with(Some("key-of-rows"), None)).await;
    not_compared(&found, "the row counts of b1 are encrypted, and it has none that the next run can read");
    compared_with(&compared(&database, &store, 3, with(Some("key-of-rows"), None)).await, "b2");
    not_compared(&compared(&database, &store, 4, with(Some("key-of-rows-2"), None)).await, "another key than this run");
    compared_with(&compared(&database, &store, 5, with(Some("key-of-rows-2"), None)).await, "b4");
    // A private key reads the index of the backup, where the run has one that fits.
    compared_with(&compared(&database, &store, 6, with(None, Some(&key))).await, "b5");
    compared_with(&compared(&database, &store, 7, with(Some("key-of-rows"), Some(&key))).await, "b6");
    not_compared(&compared(&database, &store, 8, with(None, Some(&other))).await, "other recipients");
    not_compared(&compared(&database, &store, 9, with(None, None)).await, "the row counts of b8 are encrypted");
    compared(&database, &store, 10, with(Some("key-of-rows"), None)).await;

    let bytes = everything(&store);
    for hidden in ["secret_table", "key-of-rows"] {
        assert!(!contains(&bytes, hidden), "{hidden} is in clear");
    }
    // Counts that somebody changes, deletes, or copies from another backup are not believed.
    let counts = |minute: u32| {
        let is_of = |file: &&String| file.contains(&format!("T02{minute:02}00Z")) && file.ends_with("rows.json.age");
        store.files.join(store.list_files().iter().find(is_of).unwrap())
    };
    let (third, tenth) = (std::fs::read(counts(3)).unwrap(), std::fs::read(counts(10)).unwrap());
    std::fs::write(counts(10), third).unwrap();
    not_compared(&compared(&database, &store, 11, with(Some("key-of-rows"), None)).await, "it has none");
    let mut damaged = tenth.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(counts(11), damaged).unwrap();
    not_compared(&compared(&database, &store, 12, with(Some("key-of-rows"), None)).await, "another key than this run");
    std::fs::remove_file(counts(12)).unwrap();
    not_compared(&compared(&database, &store, 13, with(Some("key-of-rows"), None)).await, "cannot be read");
    compared_with(&compared(&database, &store, 14, with(Some("key-of-rows"), None)).await, "b13");
    // A dump whose counts were lost before it was published is no backup.
    let mut request = request(&database);
    (request.age_recipients, request.rows_key) = (vec![key.public.clone()], Some(RowsKey::new("key-of-rows".into())));
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    std::fs::remove_file(store.files.join(&result.location).join("rows.json.age")).unwrap();
    let error = verify(&verify_request(&result), &store.store, &quiet).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectMissing);
    database.finish().await;
}
