//! Real databases, real stores: what the tests of the engine share.
#![allow(dead_code, reason = "not every test file uses everything")]

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use jiff::Timestamp;
use pgrail_dump::{
    BackupIdentity, Compression, CompressionMethod, DumpRequest, DumpResult, Progress, Store, StoreCredentials,
    StoreSettings, StoreUrl, UploadLimits, VerifyRequest,
};
use pgrail_postgres::ConnectionSettings;
use pgrail_testing::{Database, Server, client_programs, programs};
use tempfile::TempDir;

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// A store of a test's own, and the directory where its files lie.
pub struct TestStore {
    pub kind: &'static str,
    pub store: Store,
    pub settings: StoreSettings,
    /// The store's prefix on the disk of this machine: both kinds keep an object as a file.
    pub files: PathBuf,
    _root: Option<TempDir>,
}

/// A value that `e2e/s3/server.sh` printed about its server.
pub fn s3(part: &str) -> String {
    let all = std::env::var("PGRAIL_TEST_S3").unwrap_or_else(|_| {
        panic!("PGRAIL_TEST_S3 is not set: run the tests with `e2e/s3/server.sh run cargo test …`")
    });
    all.split_whitespace()
        .find_map(|entry| entry.strip_prefix(part)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("PGRAIL_TEST_S3 has no {part}"))
        .to_owned()
}

pub fn s3_settings(prefix: &str) -> StoreSettings {
    let mut settings = StoreSettings::new(StoreUrl::parse(&format!("s3://{}/{prefix}", s3("bucket"))).unwrap());
    settings.endpoint = Some(s3("endpoint"));
    settings.allow_http = true;
    settings.retries = 2;
    settings.credentials = StoreCredentials::from_keys([
        ("AWS_ACCESS_KEY_ID".to_owned(), s3("key")),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), s3("secret")),
    ]);
    settings
}

pub fn s3_store() -> TestStore {
    let prefix = unique("test");
    let settings = s3_settings(&prefix);
    let files = Path::new(&s3("folder")).join(s3("bucket")).join(&prefix);
    TestStore { kind: "s3", store: Store::open(&settings).unwrap(), settings, files, _root: None }
}

pub fn file_store() -> TestStore {
    let root = TempDir::new().unwrap();
    let mut settings = StoreSettings::new(StoreUrl::parse("file:///dumps/shop").unwrap());
    settings.root = Some(root.path().to_owned());
    let files = root.path().join("dumps/shop");
    TestStore { kind: "file", store: Store::open(&settings).unwrap(), settings, files, _root: Some(root) }
}

/// One of each kind.
pub fn stores() -> Vec<TestStore> {
    vec![file_store(), s3_store()]
}

impl TestStore {
    /// A store that the test made itself.
    pub fn at(store: Store, settings: StoreSettings, files: PathBuf) -> Self {
        Self { kind: "own", store, settings, files, _root: None }
    }

    /// Every file of the store, relative to its prefix; the S3 server's own bookkeeping left out.
    pub fn list_files(&self) -> Vec<String> {
        fn walk(base: &Path, directory: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(base, &path, found);
                } else {
                    found.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.files, &self.files, &mut found);
        found.sort();
        found
    }
}

pub fn settings_of(uri: &str) -> ConnectionSettings {
    pgrail_postgres::parse_uri(uri).unwrap().into_settings(None).unwrap()
}

pub fn identity() -> BackupIdentity {
    BackupIdentity {
        cluster_id: "cluster-1".into(),
        namespace: "shop".into(),
        schedule: "nightly".into(),
        schedule_uid: "uid-nightly".into(),
        database: "shop/shop".into(),
        database_uid: "uid-shop".into(),
        backup_name: "nightly-20261123-021500".into(),
        timestamp: "2026-11-23T02:15:00Z".parse::<Timestamp>().unwrap(),
        run_id: unique("r").replace('-', ""),
    }
}

/// A dump of that database with the client of its own server's version, and what that client can compress.
pub fn request(database: &Database) -> DumpRequest {
    request_for(&database.uri, database.major)
}

pub fn request_for(uri: &str, client: u32) -> DumpRequest {
    let mut request = DumpRequest::new(settings_of(uri), identity());
    request.client_directory = Some(client_programs(client));
    if client < 16 {
        request.compression = Compression { method: CompressionMethod::Gzip, level: Some(1) };
    }
    request
}

/// Some 25 MB: five parts of a dump that is made `in_parts`.
pub const BLOB: &str = "CREATE TABLE blob AS SELECT repeat(md5(n::text), 40) AS text FROM generate_series(1, 20000) n";

/// The same dump, not compressed, in the smallest parts: some stores insist on 5 MiB for all but the last.
pub fn in_parts(mut request: DumpRequest, parts_per_segment: usize) -> DumpRequest {
    request.compression = Compression { method: CompressionMethod::None, level: None };
    request.upload = UploadLimits { part_bytes: 5 * 1024 * 1024, parts_in_flight: 2, parts_per_segment };
    request
}

/// A directory of client programs in which one is replaced by a script.
pub fn clients_with(name: &str, script: &str) -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    for program in ["pg_dump", "pg_restore"] {
        let real = programs(18).join(program);
        let file = directory.path().join(program);
        let real = real.display();
        let text = if program == name {
            format!(
                "#!/bin/bash\n[ \"$1\" = --version ] && exec {real} --version\n{}\n",
                script.replace("REAL", &real.to_string())
            )
        } else {
            format!("#!/bin/bash\nexec {real} \"$@\"\n")
        };
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    directory
}

pub fn verify_request(dump: &DumpResult) -> VerifyRequest {
    VerifyRequest::new(dump.clone())
}

pub fn quiet(_: Progress) {}

/// The superuser's password on a server: no result may hold it.
pub fn password_of(server: &Server) -> String {
    settings_of(&server.uri).password.unwrap().reveal().to_owned()
}

/// A small shop with odd names, every kind of relation, and large objects.
pub const SHOP: &str = r#"
    CREATE TABLE users (id int PRIMARY KEY, name text);
    INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 1000) n;
    CREATE TABLE orders (id bigserial PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, note text);
    INSERT INTO orders (user_id, note) SELECT n % 1000 + 1, E'tab\t, line\n, back\\slash, \\.' FROM generate_series(1, 5000) n;
    CREATE TABLE empty (id int);
    CREATE TABLE no_columns ();
    INSERT INTO no_columns DEFAULT VALUES;
    INSERT INTO no_columns DEFAULT VALUES;
    CREATE TABLE events (at date, what text) PARTITION BY RANGE (at);
    CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO events SELECT '2025-06-01'::date + n, 'x' FROM generate_series(1, 400) n;
    CREATE TABLE parent (id int);
    CREATE TABLE child (more int) INHERITS (parent);
    INSERT INTO parent VALUES (1);
    INSERT INTO child VALUES (2, 2), (3, 3);
    CREATE UNLOGGED TABLE cache (id int);
    INSERT INTO cache VALUES (1);
    CREATE MATERIALIZED VIEW report AS SELECT count(*) FROM users;
    CREATE VIEW visible AS SELECT * FROM users;
    CREATE SCHEMA "Odd ""schema"" mit Ümläut";
    CREATE TABLE "Odd ""schema"" mit Ümläut"."select; COPY x FROM stdin;
1
\.
" ("the ""column""" int, "FROM stdin" int);
    INSERT INTO "Odd ""schema"" mit Ümläut"."select; COPY x FROM stdin;
1
\.
" VALUES (1, 2), (3, 4);
    CREATE SEQUENCE "odd'
COPY public.users (id) FROM stdin;
";
    SELECT lo_from_bytea(0, decode(repeat('00ff27', 1000), 'hex')), lo_from_bytea(0, '');
    CREATE FUNCTION trap() RETURNS text LANGUAGE sql AS $$ SELECT 'x
COPY public.users (id) FROM stdin;
1
\.
'::text $$;
"#;

/// The rows that [`SHOP`] has, by table, as `schema.table`.
pub const SHOP_ROWS: u64 = 1000 + 5000 + 2 + 400 + 3 + 1 + 2;

/// Tables with rows of their own in [`SHOP`].
pub const SHOP_TABLES: u64 = 10;

/// The program of PostgreSQL itself, on an archive of [`request`], into a server.
#[track_caller]
pub fn pg_restore(major: u32, arguments: &[&str]) {
    let mut command = std::process::Command::new(client_programs(major).join("pg_restore"));
    // One of 18 sets what a server of 16 lacks, and goes on.
    let lacks = usize::from(major == 16);
    if lacks == 0 {
        command.arg("--exit-on-error");
    }
    let output = command.args(arguments).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    let known = message.matches("unrecognized configuration parameter \"transaction_timeout\"").count();
    assert!(output.status.success() || message.matches("pg_restore: error: ").count() == known.min(lacks), "{message}");
}
