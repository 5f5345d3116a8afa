//! The page of the book.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// One bar, and where the measurement came to lie.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) bar: String,
    /// `None` where there is no bar: told for comparison.
    pub(crate) met: Option<bool>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (bar {}: {})", self.what, self.measured, self.bar, verdict(self.met))
    }
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "**NOT met**",
        None => "–",
    }
}

/// A row of the benchmarks on one server.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// How it was measured: the same for every server.
    pub(crate) how: String,
    /// The versions of PostgreSQL that it was measured on.
    pub(crate) servers: String,
    pub(crate) lines: Vec<Line>,
    /// Every number, by its name, with the unit at its end.
    pub(crate) numbers: BTreeMap<String, f64>,
}

impl Row {
    pub(crate) fn new(name: &'static str, title: &'static str, servers: String, how: String) -> Self {
        Self { name, title, how, servers, lines: Vec::new(), numbers: BTreeMap::new() }
    }

    /// A measurement and its bar.
    pub(crate) fn line(&mut self, what: impl Into<String>, measured: String, bar: &str, met: bool) {
        self.lines.push(Line { what: what.into(), measured, bar: bar.to_owned(), met: Some(met) });
    }

    /// A measurement without a bar.
    pub(crate) fn note(&mut self, what: impl Into<String>, measured: String) {
        self.lines.push(Line { what: what.into(), measured, bar: "–".to_owned(), met: None });
    }

    pub(crate) fn number(&mut self, name: impl Into<String>, value: f64) {
        self.numbers.insert(name.into(), value);
    }

    /// The steps of a row that was measured in steps, in ascending order: the values of the numbers whose names end so.
    pub(crate) fn steps(&self, ending: &str) -> Vec<f64> {
        let of_steps = self.numbers.iter().filter(|(name, _)| name.ends_with(ending));
        let mut steps: Vec<f64> = of_steps.map(|(_, step)| *step).collect();
        steps.sort_by(f64::total_cmp);
        steps
    }

    /// A number of each step.
    pub(crate) fn of_steps(&self, steps: &[f64], what: &str) -> Vec<f64> {
        let number = |step| self.numbers.get(&format!("{step}_{what}")).copied().unwrap_or(f64::NAN);
        steps.iter().map(number).collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| json!({ "what": line.what, "measured": line.measured, "bar": line.bar, "met": line.met }))
            .collect();
        json!({ "name": self.name, "postgresql": self.servers, "lines": lines, "numbers": self.numbers })
    }
}

/// The page of what a guard costs, from what was measured in one run.
pub(crate) fn guards(machine: &Value, rows: &[Row]) -> String {
    let mut page = String::from(
        "# Benchmarks\n\nWritten by `make bench`, which measures everything on this page again in about ten minutes. Every ratio compares work on a guarded table \
         with the same work on an unguarded table, in one run and in alternation. The numbers are medians. [The operator with up to a thousand \
         databases](benchmarks/scale.md) and [dumps and restores](benchmarks/dump.md) have pages of their own.\n\n",
    );
    begin(&mut page, machine, rows);
    // Pages of their own are of another program.
    if machine["optimised"] == false {
        page.push_str(
            "\nThe benchmark program was built without optimization, which increases the time of an installation.\n",
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.name) {
            names.push(row.name);
        }
    }
    for name in names {
        let of: Vec<&Row> = rows.iter().filter(|row| row.name == name).collect();
        let Some(first) = of.first() else { continue };
        let _ = writeln!(page, "\n## {}\n\n{}\n", first.title, first.how);
        match name {
            "block" => {
                page.push_str("![Time to stop the delete against the size of the data](benchmarks/block-time.svg)\n\n");
            }
            "single" => {
                page.push_str("![CPU time that a guard adds to a delete](benchmarks/cost-per-delete.svg)\n\n");
            }
            _ => {}
        }
        page.push_str("| PostgreSQL | | Measured | Bar | |\n| --- | --- | --- | --- | --- |\n");
        for row in of {
            for line in &row.lines {
                let verdict = verdict(line.met);
                let _ = writeln!(
                    page,
                    "| {} | {} | {} | {} | {verdict} |",
                    row.servers, line.what, line.measured, line.bar
                );
            }
        }
    }
    page.push_str("\n## Not measured yet\n\nRepair of drift, many cores, managed services.\n");
    page
}

/// The page of a row that has its own, with a graph beside it. `time` is what a run takes, `graph` what the graph shows.
pub(crate) fn own(machine: &Value, row: &Row, time: &str, graph: &str) -> String {
    let (title, name, how) = (row.title, row.name, &row.how);
    let mut page = format!(
        "# {title}\n\nWritten by `make bench ROWS={name}`, which measures everything on this page again in about {time}.\n\n"
    );
    begin(&mut page, machine, std::slice::from_ref(row));
    let _ = writeln!(page, "\n{how}\n\n![{graph}]({name}.svg)\n");
    page.push_str("| | Measured | Bar | |\n| --- | --- | --- | --- |\n");
    for line in &row.lines {
        let _ = writeln!(page, "| {} | {} | {} | {} |", line.what, line.measured, line.bar, verdict(line.met));
    }
    page
}

/// The machine, the servers, and how many bars are met.
fn begin(page: &mut String, machine: &Value, rows: &[Row]) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let _ = writeln!(
        page,
        "Measured on: {}, {} cores, {} GiB of memory, Linux {}, data on {}.",
        text(&machine["processor"]),
        machine["cores"],
        machine["memory_gib"],
        text(&machine["kernel"]),
        text(&machine["disk"]),
    );
    for server in machine["servers"].as_array().into_iter().flatten() {
        let _ = writeln!(
            page,
            "{}, `fsync={}`, `synchronous_commit={}`.",
            text(&server["version"]),
            text(&server["fsync"]),
            text(&server["synchronous_commit"])
        );
    }
    page.push_str("All other settings have their defaults, except for `jit=off`, `checkpoint_timeout=1h` and `max_wal_size=2GB`, so that a checkpoint does not affect only one side.\n");
    if let Some(load) = machine["load"].as_f64().filter(|load| *load > 0.5) {
        let _ = writeln!(
            page,
            "\nThe machine was not idle: its load was {load:.1} at the start. This affects elapsed times most, and CPU times least."
        );
    }
    let bars = rows.iter().flat_map(|row| &row.lines).filter_map(|line| line.met);
    let (met, missed): (Vec<bool>, Vec<bool>) = bars.partition(|met| *met);
    let _ = writeln!(page, "\nBars met: {} of {}.", met.len(), met.len() + missed.len());
}
