//! What it was measured on.

use std::fs;
use std::process::Command;

use pgrail_testing::{Server, connect};
use serde_json::{Value, json};

use crate::Result;

/// Processor, memory, kernel, disk, load at the start, and the servers' own words on their versions and settings.
pub(crate) async fn describe(servers: &[Server]) -> Result<Value> {
    let field = |file: &str, name: &str| -> String {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let first_of = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal");
    let kibibytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let mut versions = Vec::new();
    let mut folder = String::new();
    for server in servers {
        let client = connect(&server.uri).await;
        let row = client
            .query_one(
                "SELECT version(), current_setting('data_directory'), current_setting('fsync'), current_setting('synchronous_commit')",
                &[],
            )
            .await?;
        folder = row.try_get(1)?;
        versions.push(json!({
            "major": server.major,
            "version": row.try_get::<_, String>(0)?.split(" on ").next(),
            "fsync": row.try_get::<_, String>(2)?,
            "synchronous_commit": row.try_get::<_, String>(3)?,
        }));
    }
    let disk = Command::new("df").args(["--output=source,fstype", &folder]).output()?;
    let disk = String::from_utf8_lossy(&disk.stdout).lines().nth(1).unwrap_or("unknown").trim().to_owned();
    let load: f64 = first_of("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN);
    Ok(json!({
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism()?.get(),
        "memory_gib": (kibibytes + 524_288) / 1_048_576,
        "kernel": first_of("/proc/sys/kernel/osrelease").trim(),
        "disk": disk,
        "load": load,
        "optimised": !cfg!(debug_assertions),
        "servers": versions,
    }))
}
