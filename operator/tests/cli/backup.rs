//! Backups that are made and verified without a cluster.

use super::restore::{PUBLIC, SECRET};
use super::{Shop, err, out, pgrail};
use pgrail_testing::{Fault, Proxy, for_each_server, programs, server};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What clients before 16 can do, too.
const DUMP: [&str; 5] = ["dump", "--compression", "gzip:1", "-o", "json"];

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.append(&mut files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

fn parsed(output: &Output) -> Value {
    assert!(!output.stdout.is_empty(), "{}", err(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// A backup in the directory `backups`.
fn dumped(shop: &Shop, more: &[&str]) -> Value {
    let output = shop.with_store(&[&DUMP[..], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    parsed(&output)
}

fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// The password of the superuser, which no output may contain.
fn password(shop: &Shop) -> String {
    url::Url::parse(&shop.database.uri).unwrap().password().unwrap().to_owned()
}

#[tokio::test]
async fn a_backup_is_listed_verified_and_restored() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let made = dumped(&shop, &["--jobs", "2"]);
        let backup = &made["backup"];
        assert_eq!((&backup["rows"], &backup["tables"], &made["level"]), (&json!(5110), &json!(3), &json!("ReadBack")));
        assert_eq!((&backup["partial"], &backup["encrypted"]), (&json!(false), &json!(false)));
        let location = text(&backup["location"]);
        assert!(location.starts_with("local/local/manual/"), "{location}");
        let named =
            dumped(&shop, &["--name", "before", "--namespace", "shop", "--no-globals", "--row-counts", "archive"]);
        let named = text(&named["backup"]["location"]);
        assert!(named.starts_with("local/shop/before/"), "{named}");
        assert!(!shop.path().join("backups").join(named).join("globals.sql").exists());

        let listed = parsed(&shop.with_store(&["backups", "list", "-o", "json"]));
        assert_eq!((&listed[0]["location"], &listed[1]["location"]), (&json!(named), &json!(location)));
        assert_eq!(listed[1]["database"], json!(format!("local/{}", shop.database.name)));
        assert_eq!(listed[1]["backup"].as_str().unwrap().len(), "manual-20261123-021500".len());

        let before = files(shop.path());
        let verified =
            shop.with_store(&["verify", location, "--manifest-sha256", text(&made["manifestSha256"]), "-o", "json"]);
        assert_eq!(verified.status.code(), Some(0), "{}", err(&verified));
        let found = parsed(&verified);
        assert_eq!(
            (&found[0]["compared"], &found[0]["rows"], &found[0]["mismatches"]),
            (&json!("Rows"), &json!(5110), &json!([]))
        );
        assert!(err(&verified).contains("and 5,110 rows of 3 tables, are as the manifest says"), "{}", err(&verified));
        let newest = shop.with_store(&["verify"]);
        assert!(
            newest.status.success() && out(&newest).contains(named) && !out(&newest).contains(location),
            "{}",
            out(&newest)
        );
        let all = shop.with_store(&["verify", "--all", "-o", "name"]);
        assert_eq!((all.status.code(), out(&all)), (Some(0), format!("{named}\n{location}\n")), "{}", err(&all));
        assert_eq!(files(shop.path()), before, "nothing is written");

        let name = server.role_name("copy");
        let restored = shop.with_store(&["restore", "--name", &name, "--backup", location]);
        assert_eq!(restored.status.code(), Some(0), "{}", err(&restored));
        let client = shop.database.connect().await;
        client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
        drop(client);
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_as_the_manifest_says_is_named_and_has_an_exit_status() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let made = dumped(&shop, &[]);
    let directory = shop.path().join("backups").join(text(&made["backup"]["location"]));
    let archive = directory.join("dump.pgc.000");
    let whole = std::fs::read(&archive).unwrap();
    let verify = |status: i32, expected: &str| {
        let output = shop.with_store(&["verify"]);
        assert_eq!(output.status.code(), Some(status), "{expected}: {}{}", out(&output), err(&output));
        assert!(err(&output).contains(expected), "{expected}: {}", err(&output));
        assert_eq!(err(&output).contains("are as the manifest says"), status == 0, "{}", err(&output));
        output
    };
    verify(0, "5,110 rows of 3 tables");
    flip(&archive);
    let output = verify(2, "ChecksumMismatch: ");
    assert!(
        out(&output).contains("Differs") && err(&output).contains("dump.pgc.000 has the SHA-256"),
        "{}",
        err(&output)
    );
    std::fs::remove_file(&archive).unwrap();
    verify(2, "dump.pgc.000 is not in the store");
    std::fs::write(&archive, whole).unwrap();

    let manifest = directory.join("manifest.json");
    let published = std::fs::read_to_string(&manifest).unwrap();
    let mut forged: Value = serde_json::from_str(&published).unwrap();
    forged["tables"][0]["rows"] = json!({"counted": 6});
    std::fs::write(&manifest, forged.to_string()).unwrap();
    verify(2, "rows instead of 6");
    std::fs::write(&manifest, "{").unwrap();
    verify(2, "is not a manifest");
    // A newer one that cannot be read is not passed over.
    std::fs::write(&manifest, &published).unwrap();
    let newer = shop.path().join("backups/local/local/manual/29991231T000000Z-x");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("manifest.json"), "{").unwrap();
    let output = verify_with(&shop, &["verify"]);
    assert!(output.0 == 2 && output.1.contains("29991231T000000Z-x: ArchiveInvalid"), "{output:?}");
    let output = verify_with(&shop, &["verify", "--all", "-o", "json"]);
    assert!(output.0 == 2 && output.1.contains("5,110 rows of 3 tables"), "{output:?}");
    std::fs::remove_dir_all(&newer).unwrap();
    verify(0, "5,110 rows of 3 tables");

    let output = verify_with(&shop, &["verify", "local/local/manual/20260101T000000Z-x"]);
    assert!(output.0 == 2 && output.1.contains("ObjectMissing"), "{output:?}");
    let output = verify_with(&shop, &["verify", text(&made["backup"]["location"]), "--manifest-sha256", "00"]);
    assert!(output.0 == 2 && output.1.contains("not the manifest that was published"), "{output:?}");
    // What could not be verified is not called damaged.
    let output = verify_with(&shop, &["verify", "--client-directory", "/nonexistent"]);
    assert!(output.0 == 1 && output.1.contains("not verified: ClientMissing"), "{output:?}");
    std::fs::remove_dir_all(shop.path().join("backups/local")).unwrap();
    let output = verify_with(&shop, &["verify"]);
    assert!(output.0 == 1 && output.1.contains("there is no backup in the store"), "{output:?}");
    shop.database.finish().await;
}

fn verify_with(shop: &Shop, args: &[&str]) -> (i32, String) {
    let output = shop.with_store(args);
    (output.status.code().unwrap(), err(&output))
}

#[tokio::test]
async fn a_dump_of_a_part_is_partial_and_says_why() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let filtered = shop.with_store(&[
        "dump",
        "--schema",
        "pub*",
        "--exclude-table",
        "messages",
        "--exclude-table-data",
        "public.leads",
    ]);
    assert_eq!(filtered.status.code(), Some(0), "{}", err(&filtered));
    assert!(out(&filtered).contains("ReadBack, partial"), "{}", out(&filtered));
    assert!(err(&filtered).contains("partial: Schemas, ExcludeTables, ExcludeTableData"), "{}", err(&filtered));
    let listed = parsed(&shop.with_store(&["backups", "list", "-o", "json"]));
    assert_eq!(
        (&listed[0]["partial"], &listed[0]["tables"], &listed[0]["rows"]),
        (&json!(true), &json!(1), &json!(10))
    );
    assert_eq!(verify_with(&shop, &["verify"]).0, 0);
    let whole = shop.with_store(&["dump"]);
    assert!(whole.status.success() && !err(&whole).contains("partial"), "{}", err(&whole));
    shop.database.finish().await;
}

#[tokio::test]
async fn a_failure_has_a_reason_and_no_secret_and_leaves_nothing() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let url = format!("file://{}/backups", shop.path().display());
    let wrong = shop.database.uri.replace(&password(&shop), "wrong-word");
    let fails = |database: &str, args: &[&str], expected: &[&str]| {
        let output = pgrail(shop.path(), &[&["dump", "--storage-url", &url], args].concat())
            .env("DATABASE_URL", database)
            .env("PGRAIL_PG_BIN", programs(18))
            .output()
            .unwrap();
        let everything = format!("{}{}", out(&output), err(&output));
        assert_eq!(output.status.code(), Some(1), "{everything}");
        for text in expected {
            assert!(everything.contains(text), "{text}: {everything}");
        }
        assert!(!everything.contains("wrong-word") && !everything.contains(&password(&shop)), "{everything}");
        assert_eq!(files(shop.path()), [""; 0].map(PathBuf::from), "{everything}");
    };
    fails(&wrong, &[], &["pgrail: AuthenticationFailed: "]);
    fails(&wrong, &["-o", "json"], &["AuthenticationFailed"]);
    fails(&shop.database.uri, &["--name", "a/b"], &["InvalidRequest", "\"a/b\" cannot be part of a location"]);
    fails(&shop.database.uri, &["--age-recipient", "age1x"], &["InvalidRequest", "age public key"]);
    fails(&shop.database.uri, &["--compression", "gzip:10"], &["InvalidRequest", "levels 1 to 9"]);
    fails(&shop.database.uri, &["--verification", "checksum"], &["needs an s3:// URL"]);
    fails(&shop.database.uri, &["--client-directory", "/nonexistent"], &["ClientMissing"]);
    let client = shop.database.connect().await;
    client.batch_execute("ALTER TABLE users ENABLE ROW LEVEL SECURITY").await.unwrap();
    let role = server(18).role_name("reader");
    client
        .batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'wrong-word' IN ROLE pg_read_all_data"))
        .await
        .unwrap();
    fails(&shop.database.uri_for(&role, "wrong-word"), &[], &["RowSecurity", "public.users"]);
    client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();
    drop(client);
    shop.database.finish().await;
}

#[tokio::test]
async fn rows_of_an_encrypted_backup_are_compared_with_a_key_only() {
    let shop = Shop::new(server(18).database("cli_age").await).await;
    let made = dumped(&shop, &["--age-recipient", PUBLIC]);
    assert_eq!((&made["backup"]["encrypted"], &made["level"]), (&json!(true), &json!("ReadBack")));
    std::fs::write(shop.path().join("key.txt"), format!("{SECRET}\n")).unwrap();
    std::fs::write(shop.path().join("bad.txt"), "x").unwrap();
    // The last character of a key is part of its checksum, so another key of the same form is needed.
    let other = "AGE-SECRET-KEY-1N9JEPW6DWJ0ZQUDX63F5A03GX8QUW7PXDE39N8UYF82VZ9PC8UFS3M7XA9";
    std::fs::write(shop.path().join("other.txt"), other).unwrap();

    let without = shop.with_store(&["verify", "-o", "json"]);
    assert_eq!(without.status.code(), Some(0), "{}", err(&without));
    assert_eq!((&parsed(&without)[0]["compared"], &parsed(&without)[0]["rows"]), (&json!("Bytes"), &Value::Null));
    assert!(
        err(&without).contains("the rows were not compared") && !err(&without).contains("rows of"),
        "{}",
        err(&without)
    );
    let with = shop.with_store(&["verify", "--identity-file", "key.txt", "-o", "json"]);
    assert_eq!(with.status.code(), Some(0), "{}", err(&with));
    assert_eq!((&parsed(&with)[0]["compared"], &parsed(&with)[0]["rows"]), (&json!("Rows"), &json!(5110)));
    assert_eq!(verify_with(&shop, &["verify", "--identity-file", "bad.txt"]).0, 1);
    let (status, message) = verify_with(&shop, &["verify", "--identity-file", "other.txt"]);
    assert!(status == 1 && message.contains("IdentityRequired"), "{message}");
    flip(&shop.path().join("backups").join(text(&made["backup"]["location"])).join("dump.pgc.age.000"));
    for args in [&["verify"][..], &["verify", "--identity-file", "key.txt"]] {
        let (status, message) = verify_with(&shop, args);
        assert!(status == 2 && message.contains("dump.pgc.age.000 has the SHA-256"), "{message}");
    }
    shop.database.finish().await;
}

/// A value that `e2e/s3/server.sh` printed about its server.
fn s3(part: &str) -> String {
    let all = std::env::var("PGRAIL_TEST_S3").unwrap();
    all.split_whitespace().find_map(|entry| entry.strip_prefix(part)?.strip_prefix('=')).unwrap().to_owned()
}

/// The program with a store in the bucket of the S3 server, through an endpoint.
fn in_bucket(shop: &Shop, prefix: &str, endpoint: &str, secret: &str, args: &[&str]) -> Command {
    let mut command = pgrail(shop.path(), args);
    command
        .args(["--storage-url", &format!("s3://{}/{prefix}", s3("bucket")), "--endpoint", endpoint])
        .env("DATABASE_URL", &shop.database.uri)
        .env("AWS_ACCESS_KEY_ID", s3("key"))
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("PGRAIL_PG_BIN", programs(18));
    command
}

/// The same prefix as the server keeps it.
fn bucket(prefix: &str) -> PathBuf {
    Path::new(&s3("folder")).join(s3("bucket")).join(prefix)
}

#[tokio::test]
async fn a_bucket_is_a_store_and_its_keys_are_not_shown() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let prefix = format!("cli-{}", std::process::id());
    let on_s3 = |secret: &str, args: &[&str]| {
        let output = in_bucket(&shop, &prefix, &s3("endpoint"), secret, args).output().unwrap();
        let everything = format!("{}{}", out(&output), err(&output));
        for hidden in [secret, &password(&shop)] {
            assert!(!everything.contains(hidden), "{everything}");
        }
        output
    };
    let refused = on_s3("not-the-secret", &["dump"]);
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    assert!(err(&refused).contains("pgrail: AccessDenied: "), "{}", err(&refused));
    let secret = s3("secret");
    let made = on_s3(&secret, &["dump", "--verification", "checksum", "-o", "json"]);
    assert_eq!((made.status.code(), &parsed(&made)["level"]), (Some(0), &json!("Checksum")), "{}", err(&made));
    let location = parsed(&made)["backup"]["location"].as_str().unwrap().to_owned();
    let verified = on_s3(&secret, &["verify", "-o", "json"]);
    assert_eq!((verified.status.code(), &parsed(&verified)[0]["rows"]), (Some(0), &json!(5110)), "{}", err(&verified));
    let unknown = on_s3("not-the-secret", &["verify", &location]);
    assert_eq!(unknown.status.code(), Some(1), "{}", err(&unknown));
    assert!(err(&unknown).contains("not verified: AccessDenied"), "{}", err(&unknown));
    flip(&bucket(&prefix).join(location).join("dump.pgc.000"));
    let damaged = on_s3(&secret, &["verify"]);
    assert_eq!(damaged.status.code(), Some(2), "{}", err(&damaged));
    shop.database.finish().await;
}

/// The client programs, of which one first runs a script.
fn clients(program: &str, script: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    for name in ["pg_dump", "pg_restore"] {
        let real = programs(18).join(name);
        let script = if name == program { script } else { "" };
        let file = directory.path().join(name);
        std::fs::write(&file, format!("#!/bin/bash\n{script}\nexec {} \"$@\"\n", real.display())).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

/// Interrupts a command as soon as a file is there.
fn interrupted(mut command: Command, started: &Path) -> Output {
    let child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !started.exists() {
        assert!(Instant::now() < deadline, "{} is missing", started.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn a_dump_that_is_interrupted_leaves_nothing_in_the_store() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let started = shop.path().join("started");
    let url = format!("file://{}/backups", shop.path().display());
    let touch = format!("[ \"$1\" = --version ] || {{ touch {}; exec sleep 60; }}", started.display());
    let slow = clients("pg_dump", &touch);
    let mut command = pgrail(shop.path(), &["dump", "--storage-url", &url]);
    command
        .env("DATABASE_URL", &shop.database.uri)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("PGRAIL_PG_BIN", slow.path());
    let output = interrupted(command, &started);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("Interrupted: the dump was interrupted"), "{}", err(&output));
    assert_eq!(files(shop.path()), [started]);
    shop.database.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_is_interrupted_leaves_nothing_in_the_store() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let prefix = format!("cli-interrupted-{}", std::process::id());
    let started = shop.path().join("started");
    let touched = started.clone();
    let proxy = Proxy::start(&s3("endpoint"), move |request| {
        if !(request.is_read() && request.target.contains("dump.pgc.000")) {
            return Fault::Pass;
        }
        std::fs::write(&touched, "").unwrap();
        Fault::Stall
    })
    .await;
    let output = interrupted(in_bucket(&shop, &prefix, &proxy.endpoint, &s3("secret"), &["dump"]), &started);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("Interrupted: the verification was interrupted"), "{}", err(&output));
    assert_eq!(files(&bucket(&prefix)), [""; 0].map(PathBuf::from));
    shop.database.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_not_asked_for_every_backup() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let prefix = format!("cli-refused-{}", std::process::id());
    for _ in 0..2 {
        let made = in_bucket(&shop, &prefix, &s3("endpoint"), &s3("secret"), &["dump"]).output().unwrap();
        assert!(made.status.success(), "{}", err(&made));
    }
    let proxy = Proxy::start(&s3("endpoint"), |request| {
        let refused = request.is_read() && request.target.contains("dump.pgc.000");
        if refused { Fault::error("403 Forbidden", "AccessDenied", "no") } else { Fault::Pass }
    })
    .await;
    let args = ["verify", "--all", "-o", "name"];
    let output = in_bucket(&shop, &prefix, &proxy.endpoint, &s3("secret"), &args).output().unwrap();
    assert_eq!((output.status.code(), out(&output).lines().count()), (Some(1), 1), "{}", err(&output));
    for expected in ["not verified: AccessDenied", "not tried: 1 of 2 backups"] {
        assert!(err(&output).contains(expected), "{}", err(&output));
    }
    shop.database.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_whose_checksums_the_store_does_not_return_is_not_called_verified() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let prefix = format!("cli-checksum-{}", std::process::id());
    let proxy = Proxy::start(&s3("endpoint"), |request| {
        if request.is_checksum() { Fault::Answer("200 OK", String::new()) } else { Fault::Pass }
    })
    .await;
    let args = ["dump", "--verification", "checksum", "-o", "json"];
    let output = in_bucket(&shop, &prefix, &proxy.endpoint, &s3("secret"), &args).output().unwrap();
    assert_eq!((output.status.code(), &parsed(&output)["level"]), (Some(2), &json!("None")), "{}", err(&output));
    assert!(err(&output).contains("SHA-256"), "{}", err(&output));
    assert!(files(&bucket(&prefix)).iter().any(|file| file.ends_with("manifest.json")), "it is kept");
    shop.database.finish().await;
}

#[tokio::test]
async fn a_dump_whose_rows_are_not_those_of_the_snapshot_is_removed() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let lossy = clients("pg_dump", "[ \"$1\" = --version ] || set -- \"$@\" --exclude-table-data=leads");
    let output = shop.with_store(&["dump", "--client-directory", lossy.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        err(&output).contains("RowCountMismatch: ") && err(&output).contains("public.leads is missing"),
        "{}",
        err(&output)
    );
    assert_eq!(files(shop.path()), [""; 0].map(PathBuf::from));
    shop.database.finish().await;
}
