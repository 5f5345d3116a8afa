//! The agent of backup pods against PostgreSQL's own programs: time, bytes and memory of dumps, verifications and restores.

mod agent;
mod data;
mod report;

use pgrail_testing::{Client, Database, Server, connect};
use serde_json::{Value, json};

use crate::Result;
use crate::measure::settle;
use crate::page::Row;
use agent::{Backup, Pod, Rounds, client, pipeline, run};
pub(crate) use report::graph;

/// Databases that are dumped, in MB of their tables; the bars apply to the last. `PGRAIL_BENCH_DUMP_MB` names others.
const SIZES: [u64; 2] = [100, 1000];
const ROUNDS: usize = 3;

/// What was measured on one database.
#[derive(Debug, Default)]
struct Size {
    /// Of its tables.
    megabytes: u64,
    /// On the server's disk, with indexes, and in the store.
    database_bytes: f64,
    archive_bytes: f64,
    /// The block of the table that was restored alone, and what was read to restore it: beside, and in place. Both begin with the
    /// head of the archive.
    block_bytes: f64,
    head_bytes: f64,
    read_bytes: [f64; 2],
    /// Seconds.
    times: Rounds,
    /// Seconds of CPU time of the whole machine.
    cpu: Rounds,
    /// MiB of the agent.
    peaks: Rounds,
}

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let mut sizes = Vec::new();
    for megabytes in sizes_of_this_run()? {
        println!("  {megabytes} MB");
        sizes.push(measure_size(server, megabytes).await?);
    }
    let structure = structure(server).await?;
    Ok(report::row(server, &sizes, &structure))
}

fn sizes_of_this_run() -> Result<Vec<u64>> {
    match std::env::var("PGRAIL_BENCH_DUMP_MB") {
        Ok(given) => Ok(given.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?),
        Err(_) => Ok(SIZES.to_vec()),
    }
}

async fn measure_size(server: &Server, megabytes: u64) -> Result<Size> {
    let database = data::large(server, megabytes).await?;
    let pod = Pod::new(&database)?;
    let mut size = Size { megabytes, ..Size::default() };
    let mut backup = None;
    for round in 0..ROUNDS {
        if let Some(earlier) = backup.replace(dumps(&database, &pod, &mut size, round).await?) {
            pod.remove(&earlier)?;
        }
    }
    let backup = backup.ok_or("no round")?;
    let manifest = pod.manifest(&backup)?;
    (size.database_bytes, size.archive_bytes) = (number(&manifest["databaseBytes"])?, number(&manifest["sizeBytes"])?);
    let tables = manifest["tables"].as_array().into_iter().flatten();
    let wanted = tables.into_iter().find(|table| table["name"] == data::WANTED_TABLE).ok_or("a table is missing")?;
    size.block_bytes = number(&wanted["block"]["length"])?;
    size.head_bytes = number(&manifest["head"]["length"])?;

    let archive = pod.path("archive");
    let file = format!("--file={}", archive.display());
    run(&mut client(&database, "pg_dump", &["--format=custom", "--compress=zstd:3", &file, &database.uri])).await?;
    let archive = archive.display().to_string();
    let restores = Restores { server, database: &database, pod: &pod, backup: &backup, archive: &archive };
    for _ in 0..ROUNDS {
        restores.one_table(&mut size).await?;
    }
    for _ in 0..ROUNDS {
        restores.whole(&mut size).await?;
    }
    database.finish().await;
    pod.remove(&backup)?;
    Ok(size)
}

/// One round of dumps. Every second one is in the reverse order.
async fn dumps(database: &Database, pod: &Pod, size: &mut Size, round: usize) -> Result<Backup> {
    let mut works = ["bare", "gzip", "jobs", "dump"];
    if round % 2 == 1 {
        works.reverse();
    }
    let mut published = None;
    for work in works {
        settle(&database.connect().await).await?;
        match work {
            "bare" => {
                let arguments = ["--format=custom", "--compress=zstd:3", &database.uri];
                let ran = run(&mut client(database, "pg_dump", &arguments)).await?;
                size.times.add("bare", ran.seconds);
                size.cpu.add("bare", ran.cpu);
            }
            "gzip" => {
                let file = pod.path("dump.sql.gz");
                size.times.add("gzip", run(&mut pipeline(database, &file)).await?.seconds);
                std::fs::remove_file(file)?;
            }
            "jobs" => pod.remove(&published_dump(pod, size, ["dump of 2 jobs", "proof of 2 jobs"], 2).await?)?,
            _ => published = Some(published_dump(pod, size, ["dump", "proof"], 1).await?),
        }
    }
    Ok(published.ok_or("no dump")?)
}

/// A dump and its verification: `names` are those of the dump alone, and of both.
async fn published_dump(pod: &Pod, size: &mut Size, names: [&'static str; 2], jobs: u32) -> Result<Backup> {
    let settings = json!({"jobs": jobs});
    let (dumped, _) = pod.step("dump", "dump", settings.clone()).await?;
    let (verified, message) = pod.step("verify", "dump", settings).await?;
    if message["level"] != "ReadBack" {
        return Err(format!("not verified: {message}").into());
    }
    size.times.add(names[0], dumped.seconds);
    size.cpu.add(names[0], dumped.cpu);
    size.times.add(names[1], dumped.seconds + verified.seconds);
    size.peaks.add(names[0], dumped.peak);
    size.peaks.add("verification", verified.peak);
    Backup::of(&message)
}

/// What is restored, from the store and from a local file.
struct Restores<'a> {
    server: &'a Server,
    database: &'a Database,
    pod: &'a Pod,
    backup: &'a Backup,
    archive: &'a str,
}

impl Restores<'_> {
    /// One table out of the whole backup.
    async fn one_table(&self, size: &mut Size) -> Result<()> {
        let Self { server, database, pod, backup, archive } = self;
        let (wanted, table) = (data::WANTED_TABLE, format!("public.{}", data::WANTED_TABLE));
        let client_of_source = database.connect().await;
        let rows = count(&client_of_source, wanted).await?;
        let target = server.database("bench_table").await;
        settle(&client_of_source).await?;
        let arguments = ["--exit-on-error", "--table", wanted, "--dbname", &target.uri, archive];
        size.times.add("pg_restore of a table", run(&mut client(&target, "pg_restore", &arguments)).await?.seconds);
        expect(count(&target.connect().await, wanted).await?, rows)?;
        target.finish().await;

        settle(&client_of_source).await?;
        let (ran, result) = pod.restore_table(database, backup, &["--table", &table, "--name", "beside"]).await?;
        expect(count(&client_of_source, &format!("beside.{wanted}")).await?, rows)?;
        client_of_source.batch_execute("DROP SCHEMA beside CASCADE").await?;
        size.times.add("table beside", ran.seconds);
        size.peaks.add("restore of a table", ran.peak);
        size.read_bytes[0] = size.head_bytes + number(&result["bytesRead"])?;

        client_of_source.batch_execute(&format!("TRUNCATE {wanted}")).await?;
        settle(&client_of_source).await?;
        let (ran, result) = pod.restore_table(database, backup, &["--in-place", "--table", &table]).await?;
        expect(count(&client_of_source, wanted).await?, rows)?;
        size.times.add("table in place", ran.seconds);
        size.peaks.add("restore of a table", ran.peak);
        size.read_bytes[1] = size.head_bytes + number(&result["bytesRead"])?;
        Ok(())
    }

    /// The whole backup into a new database.
    async fn whole(&self, size: &mut Size) -> Result<()> {
        let Self { server, database, pod, backup, archive } = self;
        let admin = connect(&server.uri).await;
        let target = server.database("bench_whole").await;
        settle(&admin).await?;
        let arguments = ["--exit-on-error", "--dbname", &target.uri, archive];
        size.times.add("pg_restore", run(&mut client(&target, "pg_restore", &arguments)).await?.seconds);
        target.finish().await;

        settle(&admin).await?;
        let name = format!("{}_restored", database.name);
        let settings = json!({
            "location": backup.location, "manifestSha256": backup.manifest_sha256,
            "newDatabase": {"name": name, "id": "bench"},
        });
        let (ran, message) = pod.step("restore", "restore", settings).await?;
        if message["done"] != true {
            return Err(format!("not restored: {message}").into());
        }
        size.times.add("restore", ran.seconds);
        size.peaks.add("restore", ran.peak);
        admin.batch_execute(&format!("DROP DATABASE {name}")).await?;
        Ok(())
    }
}

/// Structural drills of many tables.
async fn structure(server: &Server) -> Result<Rounds> {
    let database = data::many_tables(server).await?;
    let pod = Pod::new(&database)?;
    let mut times = Rounds::default();
    for _ in 0..ROUNDS {
        pod.step("dump", "dump", Value::Null).await?;
        let sidecar = pod.sidecar();
        let (ran, message) = pod.step("verify", "dump", json!({"structure": true})).await?;
        sidecar.end();
        if message["structure"]["outcome"] != "Restored" {
            return Err(format!("the structure was not restored: {message}").into());
        }
        times.add("structure", ran.seconds);
        pod.remove(&Backup::of(&message)?)?;
        // The next pod has a server of its own.
        std::fs::remove_dir_all(pod.path("drill"))?;
    }
    database.finish().await;
    Ok(times)
}

async fn count(client: &Client, table: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.try_get(0)?)
}

fn expect(rows: i64, expected: i64) -> Result<()> {
    if rows == expected { Ok(()) } else { Err(format!("{rows} rows instead of {expected}").into()) }
}

fn number(value: &Value) -> Result<f64> {
    Ok(value.as_f64().ok_or("a number is missing")?)
}
