//! Clocks, and what every row needs.

use std::fs;
use std::time::{Duration, Instant};

use pgrail_guard::{ClusterId, GuardName, GuardSpec, Protect, TableLimits, TableSelector, apply, observe, plan};
use pgrail_testing::{Client, Database};

use crate::Result;
use crate::page::Row;

/// A connection of which we know the server's process.
pub(crate) struct Session {
    pub(crate) client: Client,
    process: i32,
}

/// What something took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// By the wall's clock, with the round trip.
    pub(crate) elapsed: Duration,
    /// What the server's process of this session used of a processor, in user and kernel mode.
    pub(crate) cpu: Duration,
}

impl Session {
    pub(crate) async fn open(database: &Database) -> Result<Self> {
        Self::of(database.connect().await).await
    }

    pub(crate) async fn of(client: Client) -> Result<Self> {
        let process = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        Ok(Self { client, process })
    }

    pub(crate) async fn cost(&self, work: impl AsyncFnOnce(&Client) -> Result<()>) -> Result<Cost> {
        let (cpu, at) = (cpu_time(self.process)?, Instant::now());
        work(&self.client).await?;
        let elapsed = at.elapsed();
        Ok(Cost { elapsed, cpu: cpu_time(self.process)?.saturating_sub(cpu) })
    }
}

/// The processor time of a process: in nanoseconds where the kernel keeps them, else in ticks of 10 ms.
fn cpu_time(process: i32) -> Result<Duration> {
    if let Ok(exact) = fs::read_to_string(format!("/proc/{process}/schedstat")) {
        let nanoseconds = exact.split_whitespace().next().ok_or("an empty schedstat")?;
        return Ok(Duration::from_nanos(nanoseconds.parse()?));
    }
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name, in brackets, may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("a strange stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<u64> { Ok(fields.get(at).ok_or("a short stat")?.parse()?) };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// A size that `/proc` reports of a process, in MiB: such as `VmHWM:`, the most that was resident.
pub(crate) fn memory_field(process: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("a short status")?;
    Ok(line.split_whitespace().nth(1).ok_or("a short line")?.parse::<f64>()? / 1024.0)
}

/// What the same work costs without guards and with them, in alternation.
#[derive(Default)]
pub(crate) struct Comparison {
    time_ratios: Vec<f64>,
    cpu_ratios: Vec<f64>,
    plain_ms: Vec<f64>,
    guarded_ms: Vec<f64>,
}

/// The medians of a comparison.
pub(crate) struct Compared {
    pub(crate) plain_ms: f64,
    pub(crate) time_ratio: f64,
    pub(crate) cpu_ratio: f64,
}

impl Comparison {
    pub(crate) fn add(&mut self, plain: &Cost, guarded: &Cost) {
        self.time_ratios.push(guarded.elapsed.as_secs_f64() / plain.elapsed.as_secs_f64());
        self.cpu_ratios.push(guarded.cpu.as_secs_f64() / plain.cpu.as_secs_f64());
        self.plain_ms.push(milliseconds(plain.elapsed));
        self.guarded_ms.push(milliseconds(guarded.elapsed));
    }

    /// Its medians, which are also numbers of the row.
    pub(crate) fn record(&self, case: &str, row: &mut Row) -> Compared {
        let compared = Compared {
            plain_ms: median(&self.plain_ms),
            time_ratio: median(&self.time_ratios),
            cpu_ratio: median(&self.cpu_ratios),
        };
        row.number(format!("{case}_plain_ms"), compared.plain_ms);
        row.number(format!("{case}_guarded_ms"), median(&self.guarded_ms));
        row.number(format!("{case}_time_ratio"), compared.time_ratio);
        row.number(format!("{case}_cpu_ratio"), compared.cpu_ratio);
        compared
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A guard of one table, or of a glob, in the schema `public`.
pub(crate) fn guard(table: &str, limits: TableLimits) -> Result<GuardSpec> {
    let selector = TableSelector::table("public", table)?;
    let name = GuardName::new(format!("bench/{}", table.replace('*', "all")))?;
    let protect = Protect { drop: false, ..Protect::default() };
    Ok(GuardSpec { limits, protect, ..GuardSpec::new(name, ClusterId::local(), vec![selector]) })
}

/// Installs a guard, and makes sure that it is there.
pub(crate) async fn install(client: &mut Client, spec: &GuardSpec) -> Result<()> {
    let steps = plan(spec, &observe(client).await?)?;
    let applied = apply(client.as_mut(), &steps).await?;
    if !applied.is_complete() {
        return Err(format!("the guard was not installed: {:?}", applied.unfinished()).into());
    }
    if !plan(spec, &observe(client).await?)?.is_empty() {
        return Err("the guard is not as it shall be".into());
    }
    Ok(())
}

/// Everything written so far is on the disk, and does not get there while something is measured.
pub(crate) async fn settle(client: &Client) -> Result<()> {
    client.batch_execute("CHECKPOINT").await?;
    Ok(())
}
