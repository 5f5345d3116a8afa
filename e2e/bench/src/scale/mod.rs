//! The operator with one to a thousand databases: memory, connections, requests, processor time, time to `Enforced`.

mod fleet;
mod observer;
mod report;

use std::process::Command;
use std::time::{Duration, Instant};

use pgrail_e2e::{Cluster, Operator};
use pgrail_testing::{Server, connect};

use crate::Result;
use crate::page::Row;
use fleet::Fleet;
use observer::{Connections, Enforced, Rest, forget_peak, memory, rest};
pub(crate) use report::graph;

/// Databases at each step; the last are declared all at once. `PGRAIL_BENCH_SCALE` names others.
const STEPS: [usize; 6] = [1, 10, 80, 200, 500, 1000];
/// After a change, before the operator counts as at rest.
const SETTLE: Duration = Duration::from_secs(15);
/// How long it is watched at rest: two intervals of its checks.
const REST: Duration = Duration::from_mins(1);
/// Guards that are declared one after the other beside all others.
const ONE_BY_ONE: usize = 100;
/// The same while half of the databases cannot be reached.
const ONE_BY_ONE_HALF: usize = 10;

/// What was measured with so many databases.
#[derive(Clone, Copy, Debug)]
struct Step {
    databases: usize,
    /// From the first `apply` to the last `Enforced=True`.
    seconds: f64,
    /// MiB while installing.
    peak: f64,
    /// To one server.
    connections: i64,
    rest: Rest,
}

/// What was measured with all of them.
#[derive(Clone, Debug)]
struct Whole {
    /// One guard, declared while all others were being installed.
    meanwhile: f64,
    /// Seconds from `apply` to `Enforced=True`, one by one.
    one_by_one: Vec<f64>,
    /// After a restart: seconds until every guard was checked, MiB at most, and at rest.
    restart: (f64, f64, Rest),
    /// With half of the servers silent.
    half: (Rest, Vec<f64>),
}

pub(crate) async fn measure(servers: &[Server]) -> Result<Row> {
    let steps = steps()?;
    let (last, growing) = steps.split_last().ok_or("no steps")?;
    let namespace = Cluster::connect().await.namespace("scale").await;
    let mut fleet = Fleet::new(servers, namespace).await?;
    let mut measured = Vec::new();
    if !growing.is_empty() {
        grow(&mut fleet, servers, growing, &mut measured).await?;
        fleet.reset().await?;
    }
    // One more, for the guard that is declared meanwhile.
    fleet.create(last + 1).await?;
    let whole = all_at_once(&fleet, servers, *last, &mut measured).await?;
    Ok(report::row(servers, &measured, &whole))
}

fn steps() -> Result<Vec<usize>> {
    match std::env::var("PGRAIL_BENCH_SCALE") {
        Ok(given) => Ok(given.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?),
        Err(_) => Ok(STEPS.to_vec()),
    }
}

async fn observers(servers: &[Server]) -> Connections {
    let admins = futures::future::join_all(servers.iter().map(|server| connect(&server.uri))).await;
    Connections::count(admins)
}

/// More and more databases under one operator.
async fn grow(fleet: &mut Fleet, servers: &[Server], steps: &[usize], measured: &mut Vec<Step>) -> Result<()> {
    let operator = Operator::start(fleet.namespace()).await;
    let connections = observers(servers).await;
    let mut enforced = Enforced::watch(fleet.namespace());
    let mut before = 0;
    for databases in steps {
        fleet.create(*databases).await?;
        forget_peak(&operator)?;
        connections.most();
        let started = Instant::now();
        fleet.declare(before..*databases).await;
        enforced.reach(*databases).await?;
        let seconds = started.elapsed().as_secs_f64();
        measured.push(step(*databases, seconds, &operator, &connections, fleet).await?);
        before = *databases;
    }
    operator.stop().await;
    Ok(())
}

async fn step(
    databases: usize,
    seconds: f64,
    operator: &Operator,
    connections: &Connections,
    fleet: &Fleet,
) -> Result<Step> {
    tokio::time::sleep(SETTLE).await;
    let (peak, most) = (memory(operator)?.peak, connections.most());
    let rest = rest(operator, fleet.namespace(), connections, REST).await?;
    let step = Step { databases, seconds, peak, connections: most.max(rest.connections), rest };
    println!("  {step:?}");
    Ok(step)
}

async fn all_at_once(fleet: &Fleet, servers: &[Server], databases: usize, measured: &mut Vec<Step>) -> Result<Whole> {
    let operator = Operator::start(fleet.namespace()).await;
    let connections = observers(servers).await;
    let mut enforced = Enforced::watch(fleet.namespace());
    fleet.declare(databases..=databases).await;
    enforced.reach(1).await?;
    forget_peak(&operator)?;
    let started = Instant::now();
    let declare_one = async {
        // When the operator is in the middle of it.
        enforced.reach(databases / 4).await?;
        let took = fleet.guard_one_more(databases, "meanwhile").await;
        enforced.reach(databases + 2).await?;
        Ok::<_, Box<dyn std::error::Error>>(took.as_secs_f64())
    };
    let (meanwhile, ()) = futures::join!(declare_one, fleet.declare(0..databases));
    let (meanwhile, seconds) = (meanwhile?, started.elapsed().as_secs_f64());
    println!("  all enforced after {seconds:.1} s, one meanwhile after {meanwhile:.2} s");
    measured.push(step(databases, seconds, &operator, &connections, fleet).await?);

    let mut one_by_one = Vec::new();
    for number in (0..databases).step_by((databases / ONE_BY_ONE).max(1)) {
        one_by_one.push(fleet.guard_one_more(number, "single").await.as_secs_f64());
    }
    println!("  one by one: {one_by_one:?}");
    operator.stop().await;

    let guards = databases + 2 + one_by_one.len();
    let (operator, restart) = restart(fleet, &connections, guards).await?;
    let half = half_unreachable(fleet, &operator, &connections, databases).await?;
    operator.stop().await;
    Ok(Whole { meanwhile, one_by_one, restart, half })
}

/// A new operator that finds everything installed.
async fn restart(fleet: &Fleet, connections: &Connections, guards: usize) -> Result<(Operator, (f64, f64, Rest))> {
    let started = Instant::now();
    let operator = Operator::start(fleet.namespace()).await;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    while operator.metric("pgrail_reconciles_total", &["controller=\"tableguard\""]).await < guards as f64 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let peak = memory(&operator)?.peak;
    let rest = rest(&operator, fleet.namespace(), connections, REST).await?;
    println!("  restart: checked after {seconds:.1} s, at most {peak:.1} MiB, {rest:?}");
    Ok((operator, (seconds, peak, rest)))
}

/// Every second server accepts connections and answers nothing, as behind a firewall that drops packets.
async fn half_unreachable(
    fleet: &Fleet,
    operator: &Operator,
    connections: &Connections,
    databases: usize,
) -> Result<(Rest, Vec<f64>)> {
    let mut silenced = Vec::new();
    for admin in fleet.admins().iter().skip(1).step_by(2) {
        let row = admin.query_one("SELECT pg_read_file('postmaster.pid')", &[]).await?;
        let file: String = row.try_get(0)?;
        silenced.push(Silenced::new(file.lines().next().ok_or("an empty postmaster.pid")?)?);
    }
    tokio::time::sleep(SETTLE).await;
    let rest = rest(operator, fleet.namespace(), connections, REST).await?;
    println!("  half unreachable: {rest:?}");
    let mut one_by_one = Vec::new();
    let reachable = (0..databases).filter(|number| (number % fleet.admins().len()).is_multiple_of(2));
    for number in reachable.step_by((databases / 2 / ONE_BY_ONE_HALF).max(1)) {
        one_by_one.push(fleet.guard_one_more(number, "half").await.as_secs_f64());
    }
    println!("  one by one: {one_by_one:?}");
    Ok((rest, one_by_one))
}

/// A process that is stopped until this is dropped.
struct Silenced(String);

impl Silenced {
    fn new(process: &str) -> Result<Self> {
        Command::new("kill").args(["-STOP", process]).status()?;
        Ok(Self(process.to_owned()))
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0]).status();
    }
}
