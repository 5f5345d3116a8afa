//! Dumps a database into a store, reads it back, and prints the time and the memory it needed.
//!
//! ```text
//! cargo run --release -p pgrail-dump --example backup -- postgres://… file:///dumps /tmp/volume [exact|archive] [BIN]
//! PGRAIL_TEST_S3="endpoint=… key=… secret=… bucket=…" … backup -- postgres://… s3 - [exact|archive] [BIN]
//! ```

use std::{env, error::Error, fs, path::PathBuf, time::Instant};

use jiff::Timestamp;
use pgrail_dump::{
    BackupIdentity, DumpRequest, RowCounts, Store, StoreCredentials, StoreSettings, StoreUrl, VerifyRequest, dump,
    verify,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [uri, url, root, counts, rest @ ..] = arguments.as_slice() else {
        return Err("backup DATABASE-URI STORE-URL|s3 ROOT exact|archive [CLIENT-DIRECTORY]".into());
    };
    let mut settings = if url == "s3" { s3()? } else { StoreSettings::new(StoreUrl::parse(url)?) };
    settings.root = (root != "-").then(|| PathBuf::from(root));
    let store = Store::open(&settings)?;

    let connection = pgrail_postgres::parse_uri(uri)?.into_settings(None)?;
    let now = Timestamp::now();
    let identity = BackupIdentity {
        cluster_id: "local".into(),
        namespace: "default".into(),
        schedule: "manual".into(),
        schedule_uid: "manual".into(),
        database: format!("default/{}", connection.database),
        database_uid: "manual".into(),
        backup_name: "manual".into(),
        timestamp: now,
        run_id: format!("{:x}", now.as_nanosecond() & 0xff_ffff),
    };
    let mut request = DumpRequest::new(connection, identity);
    request.row_counts = if counts == "archive" { RowCounts::Archive } else { RowCounts::Exact };
    request.client_directory = rest.first().map(PathBuf::from);

    let started = Instant::now();
    let result = dump(&request, &store, &|_| {}).await?;
    println!(
        "dump    {:6.2} s  {} MB of database, {} MB stored, {} tables, {} rows, peak {}",
        started.elapsed().as_secs_f64(),
        result.database_bytes / 1_000_000,
        result.size_bytes / 1_000_000,
        result.tables,
        result.rows,
        peak_memory()?
    );
    let started = Instant::now();
    let verified = verify(&VerifyRequest::new(result), &store, &|_| {}).await?;
    println!("verify  {:6.2} s  {}, peak {}", started.elapsed().as_secs_f64(), verified.manifest, peak_memory()?);
    Ok(())
}

/// The most memory that this process had at once: without its children, which are PostgreSQL's.
fn peak_memory() -> Result<String, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.unwrap_or_default().trim().to_owned())
}

fn s3() -> Result<StoreSettings, Box<dyn Error>> {
    let all = env::var("PGRAIL_TEST_S3")?;
    let part =
        |name: &str| all.split(' ').find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    let mut settings = StoreSettings::new(StoreUrl::parse(&format!("s3://{}/measured", part("bucket")))?);
    settings.endpoint = Some(part("endpoint").to_owned());
    settings.allow_http = true;
    settings.credentials = StoreCredentials::from_keys([
        ("AWS_ACCESS_KEY_ID".to_owned(), part("key").to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), part("secret").to_owned()),
    ]);
    Ok(settings)
}
