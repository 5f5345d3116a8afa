//! Real backups of real databases: what the tests of the restore share.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs, reason = "not every test file uses everything")]

pub mod whole;

use std::collections::BTreeSet;

use pgrail_dump::{
    BackupIdentity, Compression, CompressionMethod, DumpRequest, DumpResult, Extract, Manifest, Store, StoreSettings,
    StoreUrl, VerifyRequest, VerifyResult, dump, verify,
};
use pgrail_postgres::ConnectionSettings;
use pgrail_restore::{
    Condition, RestoreError, RestoreProgress, RowsRequest, RowsRestored, TableSelection, restore_rows,
};
use pgrail_testing::{Client, Database, Server, client_programs};
use tempfile::TempDir;

/// A published backup, opened with the manifest that was published.
pub struct Backup {
    pub extract: Extract,
    pub store: Store,
    pub location: String,
    pub manifest_sha256: String,
    pub verified: VerifyResult,
    /// Where its files are, in a store of its own.
    pub root: Option<TempDir>,
}

pub fn settings_of(uri: &str) -> ConnectionSettings {
    pgrail_postgres::parse_uri(uri).unwrap().into_settings(None).unwrap()
}

pub fn identity() -> BackupIdentity {
    BackupIdentity {
        cluster_id: "cluster".into(),
        namespace: "shop".into(),
        schedule: "nightly".into(),
        schedule_uid: "uid".into(),
        database: "shop/shop".into(),
        database_uid: "uid".into(),
        backup_name: "nightly-1".into(),
        timestamp: "2026-11-23T02:15:00Z".parse().unwrap(),
        run_id: "r".into(),
    }
}

pub async fn backup(database: &Database) -> Backup {
    backup_of(&database.uri, database.major).await
}

pub async fn backup_of(uri: &str, major: u32) -> Backup {
    backup_with(uri, major, |_| ()).await
}

/// By several pg_dump at the same time.
pub async fn parallel_backup(database: &Database) -> Backup {
    backup_with(&database.uri, database.major, |request| request.jobs = 3).await
}

/// With other options.
pub async fn backup_with(uri: &str, major: u32, change: impl Fn(&mut DumpRequest)) -> Backup {
    let (root, store) = file_store();
    let backup = backup_in(&store, uri, major, change).await;
    Backup { root: Some(root), ..backup }
}

/// In another store.
pub async fn backup_in(store: &Store, uri: &str, major: u32, change: impl Fn(&mut DumpRequest)) -> Backup {
    let dumped = dumped_in(store, uri, major, change).await;
    publish(store, &VerifyRequest::new(dumped)).await
}

pub fn file_store() -> (TempDir, Store) {
    let root = TempDir::new().unwrap();
    let mut settings = StoreSettings::new(StoreUrl::parse("file:///dumps").unwrap());
    settings.root = Some(root.path().to_owned());
    let store = Store::open(&settings).unwrap();
    (root, store)
}

/// A dump that is not yet published.
pub async fn dumped_in(store: &Store, uri: &str, major: u32, change: impl Fn(&mut DumpRequest)) -> DumpResult {
    let mut request = DumpRequest::new(settings_of(uri), identity());
    request.client_directory = Some(client_programs(major));
    if major < 16 {
        request.compression = Compression { method: CompressionMethod::Gzip, level: Some(1) };
    }
    change(&mut request);
    dump(&request, store, &|_| {}).await.unwrap()
}

/// Verifies a dump, and opens it with the manifest that was published.
pub async fn publish(store: &Store, wanted: &VerifyRequest) -> Backup {
    let verified = verify(wanted, store, &|_| {}).await.unwrap();
    let (location, manifest_sha256) = (verified.backup.location.clone(), verified.manifest_sha256.clone());
    let manifest = Manifest::read_published(store, &location, &manifest_sha256).await.unwrap();
    let extract = Extract::open(store, manifest).await.unwrap();
    Backup { extract, store: store.clone(), location, manifest_sha256, verified, root: None }
}

pub fn selection(table: &str, condition: &str) -> TableSelection {
    let condition = (!condition.is_empty()).then(|| Condition::parse(condition).unwrap());
    TableSelection { schema: "public".into(), name: table.into(), condition }
}

/// A request of one table's rows and what depends on them.
pub fn request(database: &Database, uri: &str, table: &str, condition: &str) -> RowsRequest {
    let mut request = RowsRequest::new(settings_of(uri), vec![selection(table, condition)]);
    request.follow_cascade = true;
    request.client_directory = Some(client_programs(database.major));
    request
}

pub async fn restore(request: &RowsRequest, backup: &Backup) -> Result<RowsRestored, RestoreError> {
    restore_rows(request, &backup.extract, &|_: RestoreProgress| {}).await
}

/// Numbers of a table in a result: selected, inserted, identical, different, links, links restored.
pub fn numbers(restored: &RowsRestored, table: &str) -> [i64; 6] {
    let found = restored.tables.iter().find(|it| it.table == format!("public.{table}"));
    let it = found.unwrap_or_else(|| panic!("{table} is not in {restored:#?}"));
    [it.selected, it.inserted, it.identical, it.different, it.links, it.links_restored]
}

/// An owner of tables, and pgrail's role, which is a member of it and no superuser. `admin` works as the owner.
pub async fn roles(server: &Server, database: &Database) -> (Client, String, String) {
    let admin = database.connect().await;
    let (owner, rail) = (server.role_name("owner"), server.role_name("rail"));
    let sql = format!(
        "CREATE ROLE {owner}; CREATE ROLE {rail} LOGIN PASSWORD 'secret' IN ROLE {owner};
         GRANT CREATE ON DATABASE {} TO {rail}, {owner}; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; SET ROLE {owner}",
        database.name
    );
    run(&admin, &sql).await;
    (admin, owner, rail)
}

pub async fn drop_roles(admin: &Client, roles: &[&String]) {
    run(admin, "RESET ROLE").await;
    for role in roles {
        run(admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
    }
}

pub async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

pub async fn count(client: &Client, from: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {from}"), &[]).await.unwrap().get(0)
}

/// A digest of rows, whatever their order. `format` looks up no cast.
pub async fn digest(client: &Client, from: &str) -> String {
    let sql = format!(
        "SELECT coalesce(md5(string_agg(format('%s', t), ';' ORDER BY format('%s', t) COLLATE \"C\")), '') FROM {from}"
    );
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

/// Everything in these tables.
pub async fn contents(client: &Client, tables: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for table in tables {
        all.push(digest(client, &format!("{table} t")).await);
    }
    all
}

/// What ran, with the role that it ran as.
pub async fn ran(admin: &Client) -> BTreeSet<String> {
    let rows = admin.query("SELECT DISTINCT who || ': ' || what FROM ran", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
