//! Measures pgrail against its bars, side by side with the same work on unguarded tables.
//!
//! Started by `e2e/bench.sh`, which starts the servers. Without arguments it measures every row and writes the page of
//! the book; with names of rows only those, into `target/bench`. It reports: nothing fails because something is slow.

mod block;
mod bulk;
mod capture;
mod dump;
mod graph;
mod install;
mod machine;
mod measure;
mod page;
mod scale;
mod schema;
mod single;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use pgrail_testing::{Server, servers};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The rows that can be measured, in the order in which they are: the heavy writers last.
const ROWS: [&str; 6] = ["install", "single", "capture", "schema", "bulk", "block"];
/// The row of the operator: all servers together, and a Kubernetes. Measured alone, on servers of its own.
const SCALE: &str = "scale";
/// The row of dumps and restores: the newest server, and a store. Measured alone.
const DUMP: &str = "dump";

async fn row(name: &str, server: &Server) -> Result<page::Row> {
    match name {
        "install" => install::measure(server).await,
        "single" => single::measure(server).await,
        "capture" => capture::measure(server).await,
        "schema" => schema::measure(server).await,
        "bulk" => bulk::measure(server).await,
        "block" => block::measure(server).await,
        _ => Err(format!("no row is called {name}; there are {}", ROWS.join(", ")).into()),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let rows: Vec<&str> = if asked.is_empty() { ROWS.to_vec() } else { asked.iter().map(String::as_str).collect() };
    let results = Path::new("target/bench");
    fs::create_dir_all(results)?;
    let machine = machine::describe(&servers()).await?;
    if rows == [SCALE] || rows == [DUMP] {
        return own_page(rows[0], &machine, results).await;
    }
    if let Some(unknown) = rows.iter().find(|name| !ROWS.contains(name)) {
        return Err(format!(
            "no row is called {unknown}; there are {}, and {SCALE} and {DUMP}, each alone",
            ROWS.join(", ")
        )
        .into());
    }
    let started = Instant::now();
    let mut measured = Vec::new();
    for server in servers() {
        for name in &rows {
            let at = Instant::now();
            println!("PostgreSQL {}, {name}", server.major);
            let row = row(name, &server).await?;
            for line in &row.lines {
                println!("  {line}");
            }
            println!("  ({:.0} s)", at.elapsed().as_secs_f64());
            write_row(&machine, &row, &results.join(format!("{name}-{}.json", server.major)))?;
            measured.push(row);
        }
    }
    println!("all of it took {:.0} s", started.elapsed().as_secs_f64());
    if asked.is_empty() {
        write_page(&machine, &measured)?;
    }
    Ok(())
}

/// A row with a page of its own.
async fn own_page(name: &str, machine: &Value, results: &Path) -> Result<()> {
    let started = Instant::now();
    // Other numbers and sizes of databases than the usual ones are tried while developing.
    let usual = ["PGRAIL_BENCH_SCALE", "PGRAIL_BENCH_DUMP_MB"].iter().all(|name| std::env::var_os(name).is_none());
    let (row, graph, time, shows) = if name == SCALE {
        let row = scale::measure(&servers()).await?;
        let graph = scale::graph(&row);
        (row, graph, "three quarters of an hour", "The operator by number of databases")
    } else {
        let row = dump::measure(servers().last().ok_or("no server")?).await?;
        let graph = dump::graph(&row);
        (row, graph, "ten minutes", "Dumps and restores by size of the database")
    };
    for line in &row.lines {
        println!("  {line}");
    }
    println!("  ({:.0} s)", started.elapsed().as_secs_f64());
    write_row(machine, &row, &results.join(format!("{name}.json")))?;
    if usual {
        let book = Path::new("docs/src/benchmarks");
        fs::create_dir_all(book)?;
        fs::write(book.join(format!("{name}.svg")), graph)?;
        fs::write(book.join(format!("{name}.md")), page::own(machine, &row, time, shows))?;
        println!("written: docs/src/benchmarks/{name}.md");
    }
    Ok(())
}

fn write_row(machine: &Value, row: &page::Row, file: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "row": row.to_json() }))?;
    Ok(fs::write(file, text)?)
}

fn write_page(machine: &Value, measured: &[page::Row]) -> Result<()> {
    let book = Path::new("docs/src");
    fs::create_dir_all(book.join("benchmarks"))?;
    fs::write(book.join("benchmarks/block-time.svg"), block::graph(measured))?;
    fs::write(book.join("benchmarks/cost-per-delete.svg"), single::graph(measured))?;
    fs::write(book.join("benchmarks.md"), page::guards(machine, measured))?;
    println!("written: docs/src/benchmarks.md");
    Ok(())
}
