//! The figures of the operator against their bars.

use pgrail_testing::Server;

use super::fleet::TABLES;
use super::observer::Rest;
use super::{ONE_BY_ONE, Step, Whole};
use crate::graph::{Panel, panels};
use crate::page::Row;

/// MiB, at most.
const MEMORY: f64 = 64.0;
/// Percent of a core at rest, at most.
const PROCESSOR: f64 = 5.0;
/// Connections to one server, at most: 5, which is less than 5 % of the 200 that each allows.
const CONNECTIONS: i64 = 5;
/// Seconds until all are enforced, at most.
const ALL: f64 = 120.0;
/// Seconds until one is that was declared meanwhile, at most.
const MEANWHILE: f64 = 5.0;
/// Seconds until one is while the others rest, at most.
const ONE: f64 = 1.0;

pub(super) fn row(servers: &[Server], steps: &[Step], whole: &Whole) -> Row {
    let majors: Vec<_> = servers.iter().map(|server| server.major.to_string()).collect();
    let how = format!(
        "One operator process and {} servers (PostgreSQL {}), each with `max_connections = 200`; {TABLES} tables in each database, half of them \
         referenced with ON DELETE CASCADE, one guard over all of them, `checkInterval` 30 s as by default. The last number of databases is \
         declared at once in new databases, the numbers before it one after the other under one operator. *At rest*: a minute without \
         any change. Memory is the operator's resident set, code included. Connections: the most to one server, counted twice a second in \
         `pg_stat_activity`. Requests: those for pgrail's kinds, Secrets, Events and Leases that the apiserver counts, but watches. \
         Half of the databases unreachable: every second server accepts connections and answers nothing. All of it shares one machine: \
         the servers, the apiserver with etcd, the operator and what measures.",
        servers.len(),
        majors.join(", "),
    );
    let mut row = Row::new("scale", "The operator at scale", majors.join(", "), how);
    for step in steps {
        let name = step.databases;
        row.number(format!("{name}_databases"), count(name));
        row.number(format!("{name}_enforced_s"), step.seconds);
        row.number(format!("{name}_install_peak_mib"), step.peak);
        rest_numbers(&mut row, &name.to_string(), step.rest);
    }
    if let Some(last) = steps.last() {
        whole_lines(&mut row, *last, whole);
    }
    let most = steps.iter().map(|step| step.connections).max().unwrap_or(0);
    let met = most <= CONNECTIONS;
    row.line("connections to one server, at any time", most.to_string(), &format!("≤ {CONNECTIONS}"), met);
    row
}

fn rest_numbers(row: &mut Row, name: &str, rest: Rest) {
    row.number(format!("{name}_rest_mib"), rest.memory.peak);
    row.number(format!("{name}_rest_anonymous_mib"), rest.memory.anonymous);
    row.number(format!("{name}_rest_requests_per_s"), rest.requests);
    row.number(format!("{name}_rest_processor_percent"), rest.processor);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    row.number(format!("{name}_rest_connections"), rest.connections as f64);
}

fn whole_lines(row: &mut Row, last: Step, whole: &Whole) {
    let many = format!("{} databases, {} tables", last.databases, last.databases * TABLES);
    let memory = format!("≤ {MEMORY:.0} MiB");
    let mebibytes = |value: f64| format!("{value:.1} MiB");
    row.line(format!("{many}: memory while installing"), mebibytes(last.peak), &memory, last.peak <= MEMORY);
    rest_lines(row, &format!("{many}, at rest"), last.rest);
    let seconds = last.seconds;
    row.line(
        format!("{many}: `kubectl apply` of all to all `Enforced`"),
        format!("{seconds:.0} s"),
        &format!("≤ {ALL:.0} s"),
        seconds <= ALL,
    );
    let meanwhile = whole.meanwhile;
    row.line(
        "one guard declared meanwhile",
        format!("{meanwhile:.1} s"),
        &format!("≤ {MEANWHILE:.0} s"),
        meanwhile <= MEANWHILE,
    );
    let (slowest, middle) = (quantile(&whole.one_by_one, 0.99), quantile(&whole.one_by_one, 0.5));
    row.line(
        format!("{ONE_BY_ONE} guards more, one by one: `kubectl apply` to `Enforced`"),
        format!("median {middle:.2} s, p99 {slowest:.2} s"),
        &format!("p99 ≤ {ONE:.0} s"),
        slowest <= ONE,
    );
    let (checked, peak, rest) = whole.restart;
    row.line("after a restart: memory while everything is checked", mebibytes(peak), &memory, peak <= MEMORY);
    row.note("after a restart: every guard checked", format!("{checked:.0} s"));
    rest_lines(row, "after a restart, at rest", rest);
    let (rest, one_by_one) = &whole.half;
    rest_lines(row, "half of the databases unreachable", *rest);
    let (slowest, middle) = (quantile(one_by_one, 1.0), quantile(one_by_one, 0.5));
    row.line(
        format!("half unreachable: {} guards more on the others", one_by_one.len()),
        format!("median {middle:.2} s, slowest {slowest:.2} s"),
        &format!("≤ {MEANWHILE:.0} s"),
        slowest <= MEANWHILE,
    );
    row.number("restart_checked_s", checked);
    row.number("restart_peak_mib", peak);
    rest_numbers(row, "restart", whole.restart.2);
    rest_numbers(row, "half", *rest);
}

fn rest_lines(row: &mut Row, when: &str, rest: Rest) {
    let peak = rest.memory.peak;
    row.line(format!("{when}: memory"), format!("{peak:.1} MiB"), &format!("≤ {MEMORY:.0} MiB"), peak <= MEMORY);
    row.line(
        format!("{when}: processor time"),
        format!("{:.1} % of a core", rest.processor),
        &format!("≤ {PROCESSOR:.0} %"),
        rest.processor <= PROCESSOR,
    );
    row.note(format!("{when}: requests to the apiserver"), format!("{:.1} per second", rest.requests));
}

fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Every figure against the number of databases.
pub(crate) fn graph(row: &Row) -> String {
    let steps = row.steps("_databases");
    let panel = |title, unit, bar, what: &str| Panel { title, unit, bar, values: row.of_steps(&steps, what) };
    panels(
        "The operator by number of databases, ten guarded tables in each",
        "databases",
        &steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        &[
            panel("Memory while installing", "MiB", Some(MEMORY), "install_peak_mib"),
            panel("Memory at rest", "MiB", Some(MEMORY), "rest_mib"),
            panel("Processor time at rest", "% of a core", Some(PROCESSOR), "rest_processor_percent"),
            panel("Connections to one server", "", Some(5.0), "rest_connections"),
            panel("Requests to the apiserver at rest", "per second", None, "rest_requests_per_s"),
            panel("Declared to all enforced", "s", None, "enforced_s"),
        ],
    )
}
