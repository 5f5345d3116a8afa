//! What a guard adds to a delete of one row.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use pgrail_guard::{TableLimits, Window};
use pgrail_testing::{Client, Database, Server, programs};

use crate::Result;
use crate::graph::{Bars, bars};
use crate::measure::{Session, guard, install, median, microseconds, settle};
use crate::page::Row;

/// How the tables of one shape look that reference the one that rows are deleted from.
struct Shape {
    name: &'static str,
    label: &'static str,
    referencing: u32,
    /// Whether each has a row that goes by cascade.
    rows: bool,
}

impl Shape {
    /// How many rows each of its tables has at first.
    fn rows(&self) -> i32 {
        if self.rows { CPU_ROWS } else { CPU_ROWS + RACE_ROWS }
    }
}

const SHAPES: [Shape; 3] = [
    Shape { name: "alone", label: "no referencing table", referencing: 0, rows: false },
    Shape { name: "five", label: "5 referencing tables", referencing: 5, rows: false },
    Shape { name: "busy", label: "5, a row in each", referencing: 5, rows: true },
];
const VARIANTS: [(&str, &str); 5] = [
    ("none", "unguarded"),
    ("transaction", "per transaction"),
    ("two", "two levels"),
    ("window", "per transaction, with a window"),
    ("counted", "per transaction, with a window of which more than a quarter is used"),
];
/// Share of the unguarded throughput, microseconds of processor time: per transaction, two levels, with a window, and none
/// where it counts each transaction.
const BARS: [Option<(f64, f64)>; 4] = [Some((0.95, 20.0)), Some((0.90, 40.0)), Some((0.90, 30.0)), None];
/// Microseconds that a window adds to a guard without one.
const WINDOW_BAR: f64 = 10.0;

const OUT_OF_REACH: Window =
    Window { duration: 3600, max_rows: Some(100_000_000), max_cascade_rows: Some(1_000_000_000) };
/// What is used of the next before: enough that it counts each transaction.
const USED: i64 = 2_000_000;
const COUNTED: Window = Window { duration: 86_400, max_rows: Some(10_000_000), max_cascade_rows: Some(10_000_000) };
const CPU_ROUNDS: i32 = 24;
const CPU_DELETES: i32 = 250;
const CPU_ROWS: i32 = (CPU_ROUNDS + 1) * CPU_DELETES;
const RACE_ROUNDS: i32 = 10;
const RACE_SECONDS: f64 = 1.5;
const RACE_ROWS: i32 = 200_000;

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let how = format!(
        "`DELETE FROM t WHERE id = $1`, prepared, one row per transaction. Throughput: pgbench with 2 clients, \
         {RACE_ROUNDS} rounds of about {RACE_SECONDS:.1} s each, in alternation; every COMMIT waits for the disk. CPU \
         time: user and system time of the server process for {CPU_DELETES} deletes, one session at a time, \
         {CPU_ROUNDS} rounds in alternation, as the difference to the unguarded table in the same round. There, a \
         COMMIT does not wait for the disk, which would cause more noise than the difference. *Per transaction*: \
         `maxRows` and `maxCascadeRows`. *Two levels*: also `maxTransactionRows`. *With a window*: \
         per transaction, with both limits of `window` out of reach. *More than a quarter is used*: each transaction is \
         counted when it commits. The referencing tables have a \
         cascade and an index. In the last shape, one row of each is deleted, too, six rows in total; there is no bar \
         for it."
    );
    let mut row = Row::new("single", "Deleting one row", server.major.to_string(), how);
    let database = server.database("bench_single").await;
    prepare(&database).await?;
    processor_time(&database, &mut row).await?;
    race(&database, &mut row).await?;
    let client = database.connect().await;
    for shape in &SHAPES {
        is_counted(&client, shape).await?;
    }
    drop(client);
    database.finish().await;
    Ok(row)
}

async fn prepare(database: &Database) -> Result<()> {
    let mut client = database.connect().await;
    client.batch_execute("SET client_min_messages = warning").await?;
    for shape in &SHAPES {
        let rows = shape.rows();
        for (variant, _) in VARIANTS {
            let table = format!("{}_{variant}", shape.name);
            let mut sql = format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, name text) WITH (autovacuum_enabled = off);
                 INSERT INTO {table} SELECT i, 'user ' || i FROM generate_series(1, {rows}) i;"
            );
            for child in 1..=shape.referencing {
                let _ = write!(
                    sql,
                    "CREATE TABLE {table}_{child} (id int PRIMARY KEY, r int REFERENCES {table} ON DELETE CASCADE) WITH (autovacuum_enabled = off);
                     CREATE INDEX ON {table}_{child} (r);"
                );
                if shape.rows {
                    let _ = write!(sql, "INSERT INTO {table}_{child} SELECT i, i FROM generate_series(1, {rows}) i;");
                }
            }
            client.batch_execute(&sql).await?;
            let limits = match variant {
                "transaction" => TableLimits::default(),
                "two" => TableLimits { max_transaction_rows: Some(10_000), ..TableLimits::default() },
                "window" => TableLimits { window: Some(OUT_OF_REACH), ..TableLimits::default() },
                "counted" => TableLimits { window: Some(COUNTED), ..TableLimits::default() },
                _ => continue,
            };
            install(&mut client, &guard(&table, limits)?).await?;
            if variant == "counted" {
                use_window(&client, &table).await?;
            }
        }
    }
    client.batch_execute("VACUUM ANALYZE").await?;
    settle(&client).await
}

/// As if `USED` rows had been removed within the window of a table.
async fn use_window(client: &Client, table: &str) -> Result<()> {
    let sql = "SELECT pg_catalog.setval(pg_catalog.format('pgrail.window_%s_%s', kind, a.id), -(1::bigint << 62)),
                      pgrail.count_in_window(kind, a.id::text, 86400, $2)
               FROM pgrail.assignment a JOIN pgrail.relation r ON r.id = a.root, unnest('{rows,cascade}'::text[]) kind
               WHERE r.label = 'public.' || $1";
    let counted = client.query(sql, &[&table, &USED]).await?.len();
    if counted == 2 { Ok(()) } else { Err(format!("{table} has no window").into()) }
}

/// Makes sure that each of the deletes was counted in the window that counts each transaction.
async fn is_counted(client: &Client, shape: &Shape) -> Result<()> {
    let table = format!("{}_counted", shape.name);
    let left: i64 = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.try_get(0)?;
    let removed = i64::from(shape.rows()) - left;
    // In the high bits of the buckets is when they began.
    let sql = "SELECT sum((pg_catalog.pg_sequence_last_value(pg_catalog.format('pgrail.window_rows_%s_%s', bucket, a.id)::regclass) & 68719476735)
                      * CASE WHEN bucket LIKE '%64' THEN 64 ELSE 1 END)::bigint
               FROM pgrail.assignment a JOIN pgrail.relation r ON r.id = a.root, unnest('{even,odd,even64,odd64}'::text[]) bucket
               WHERE r.label = 'public.' || $1";
    let counted: i64 = client.query_one(sql, &[&table]).await?.try_get(0)?;
    if removed > 0 && counted == USED + removed {
        return Ok(());
    }
    Err(format!(
        "{removed} rows were deleted from {table}, and its window has {counted}: not every transaction was counted"
    )
    .into())
}

/// Rows 1 to `CPU_ROWS` of every table.
async fn processor_time(database: &Database, row: &mut Row) -> Result<()> {
    for shape in &SHAPES {
        let mut sessions = Vec::new();
        for (variant, _) in VARIANTS {
            let session = Session::open(database).await?;
            session.client.batch_execute("SET synchronous_commit = off").await?;
            let sql = format!("DELETE FROM {}_{variant} WHERE id = $1", shape.name);
            sessions.push((session.client.prepare(&sql).await?, session));
        }
        let mut used: Vec<Vec<f64>> = vec![Vec::new(); VARIANTS.len()];
        for round in 0..=CPU_ROUNDS {
            for turn in 0..VARIANTS.len() {
                // Whoever comes first in one round comes last in another.
                let at = (turn + usize::try_from(round)?) % VARIANTS.len();
                let (statement, session) = &sessions[at];
                let cost = session
                    .cost(async |client| {
                        for id in 1..=CPU_DELETES {
                            if client.execute(statement, &[&(round * CPU_DELETES + id)]).await? != 1 {
                                return Err("a row to delete was missing".into());
                            }
                        }
                        Ok(())
                    })
                    .await?;
                // The first round fills caches.
                if round > 0 {
                    used[at].push(microseconds(cost.cpu) / f64::from(CPU_DELETES));
                }
            }
        }
        row.number(format!("{}_none_cpu_us", shape.name), median(&used[0]));
        for (at, (variant, label)) in VARIANTS.iter().enumerate().skip(1) {
            let added: Vec<f64> =
                used[at].iter().zip(&used[0]).map(|(guarded, unguarded)| guarded - unguarded).collect();
            let added = median(&added);
            row.number(format!("{}_{variant}_cpu_us", shape.name), median(&used[at]));
            row.number(format!("{}_{variant}_added_us", shape.name), added);
            let (what, measured) = (
                format!("{label}, {}: CPU time per delete", shape.label),
                format!("{:.0} µs + {added:.1} µs", median(&used[0])),
            );
            match BARS[at - 1] {
                Some((_, bar)) if !shape.rows => row.line(what, measured, &format!("≤ + {bar:.0} µs"), added <= bar),
                _ => row.note(what, measured),
            }
        }
        let [_, without, _, with] = [0, 1, 2, 3].map(|at| &used[at]);
        let added: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
        let added = median(&added);
        row.number(format!("{}_window_over_guard_us", shape.name), added);
        let (what, measured) = (
            format!("a window, {}: CPU time per delete, beside the same guard without", shape.label),
            format!("{:.0} µs + {added:.1} µs", median(without)),
        );
        row.line(what, measured, &format!("≤ + {WINDOW_BAR:.0} µs"), added <= WINDOW_BAR);
    }
    Ok(())
}

/// The rows above `CPU_ROWS`.
async fn race(database: &Database, row: &mut Row) -> Result<()> {
    for shape in SHAPES.iter().filter(|shape| !shape.rows) {
        let limit = RACE_ROWS / (RACE_ROUNDS + 1) / 2;
        let unguarded = format!("{}_none", shape.name);
        let calibration = pgbench(database, &unguarded, CPU_ROWS, 200.min(limit))?;
        #[allow(clippy::cast_possible_truncation, reason = "a few thousand")]
        let each = ((calibration * RACE_SECONDS / 2.0) as i32).clamp(100, limit);
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); VARIANTS.len()];
        for round in 0..RACE_ROUNDS {
            for turn in 0..VARIANTS.len() {
                let at = (turn + usize::try_from(round)?) % VARIANTS.len();
                let base = CPU_ROWS + 2 * limit + round * 2 * each;
                rates[at].push(pgbench(database, &format!("{}_{}", shape.name, VARIANTS[at].0), base, each)?);
            }
        }
        let client = database.connect().await;
        for (variant, _) in VARIANTS {
            let sql = format!("SELECT count(*) FROM {}_{variant} WHERE id > {}", shape.name, CPU_ROWS + 2 * limit);
            let left: i64 = client.query_one(&sql, &[]).await?.try_get(0)?;
            if left != i64::from(RACE_ROWS - 2 * limit - RACE_ROUNDS * 2 * each) {
                return Err(format!(
                    "{left} rows are left in {}_{variant}: not every delete found its row",
                    shape.name
                )
                .into());
            }
        }
        row.number(format!("{}_none_tps", shape.name), median(&rates[0]));
        for (at, (variant, label)) in VARIANTS.iter().enumerate().skip(1) {
            let ratios: Vec<f64> =
                rates[at].iter().zip(&rates[0]).map(|(guarded, unguarded)| guarded / unguarded).collect();
            let ratio = median(&ratios);
            row.number(format!("{}_{variant}_tps", shape.name), median(&rates[at]));
            row.number(format!("{}_{variant}_tps_ratio", shape.name), ratio);
            let what = format!("{label}, {}: transactions per second", shape.label);
            let measured = format!("{:.0} × {ratio:.2}", median(&rates[0]));
            match BARS[at - 1] {
                Some((bar, _)) => row.line(what, measured, &format!("≥ × {bar:.2}"), ratio >= bar),
                None => row.note(what, measured),
            }
        }
    }
    Ok(())
}

/// Deletes rows `base + 1` to `base + 2 × each`, two clients; returns transactions per second.
fn pgbench(database: &Database, table: &str, base: i32, each: i32) -> Result<f64> {
    let script = Path::new("target/bench/delete.sql");
    fs::write(
        script,
        format!("\\set id {base} + 2 * :i + :client_id + 1\n\\set i :i + 1\nDELETE FROM {table} WHERE id = :id;\n"),
    )?;
    let output = Command::new(programs(database.major).join("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--client=2", "--jobs=2", "--define=i=0"])
        .arg(format!("--transactions={each}"))
        .arg("--file")
        .arg(script)
        .arg(&database.uri)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    match rate {
        Some(rate) if output.status.success() => Ok(rate),
        _ => Err(format!("pgbench failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Processor time per delete, by shape, side by side.
pub(crate) fn graph(rows: &[Row]) -> String {
    let rows = rows.iter().filter(|row| row.name == "single");
    let panels: Vec<_> = rows
        .map(|row| {
            let groups = SHAPES.iter().map(|shape| {
                let value = |variant: &str| row.numbers.get(&format!("{}_{variant}_cpu_us", shape.name)).copied();
                (shape.label, VARIANTS.iter().map(|(variant, _)| value(variant).unwrap_or(f64::NAN)).collect())
            });
            (format!("PostgreSQL {}", row.servers), groups.collect())
        })
        .collect();
    bars(&Bars {
        title: "CPU time of the server per single-row DELETE",
        unit: "µs",
        series: VARIANTS.map(|(_, label)| label).to_vec(),
        panels,
    })
}
