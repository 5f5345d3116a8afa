//! How long the catastrophic delete lives.

use std::process::Command;

use pgrail_guard::TableLimits;
use pgrail_testing::{Database, Server};

use crate::Result;
use crate::graph::{Line, Lines, lines};
use crate::measure::{Cost, Session, guard, install, median, milliseconds};
use crate::page::Row;

/// Rows that hang on the 100 users.
const SIZES: [u32; 4] = [13_000, 130_000, 1_300_000, 13_000_000];
const SESSIONS: usize = 15;
const WARM: usize = 6;

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let how = format!(
        "`DELETE FROM users` on 100 users. All other rows depend on them in equal shares: leads, conversations and \
         messages in the ratio 1 : 10 : 100, and analytics. The guard has the default limits: 100 rows, and 1,000 \
         rows of other tables. The time ends when the client has received the error of the guard. {SESSIONS} sessions \
         per size, in alternation; in each session one first attempt and {WARM} more. The tables were filled with \
         INSERT … SELECT generate_series, and got their indexes and foreign keys afterwards, with `fsync=off` until \
         they were complete."
    );
    let mut row = Row::new("block", "Stopping a bulk delete", server.major.to_string(), how);
    let mut databases = Vec::new();
    let admin = pgrail_testing::connect(&server.uri).await;
    admin.batch_execute("ALTER SYSTEM SET fsync = off").await?;
    admin.batch_execute("SELECT pg_reload_conf()").await?;
    for size in SIZES {
        let database = server.database("bench_block").await;
        build(&database, size / 130).await?;
        databases.push((size, database));
    }
    admin.batch_execute("CHECKPOINT").await?;
    admin.batch_execute("ALTER SYSTEM RESET fsync").await?;
    admin.batch_execute("SELECT pg_reload_conf()").await?;
    Command::new("sync").status()?;

    let mut first: Vec<Vec<f64>> = vec![Vec::new(); SIZES.len()];
    let mut warm = first.clone();
    let mut processor = first.clone();
    for _ in 0..SESSIONS {
        for (at, (_, database)) in databases.iter().enumerate() {
            let session = Session::open(database).await?;
            first[at].push(milliseconds(stopped(&session).await?.elapsed));
            for _ in 0..WARM {
                let cost = stopped(&session).await?;
                warm[at].push(milliseconds(cost.elapsed));
                processor[at].push(milliseconds(cost.cpu));
            }
        }
    }
    for (at, size) in SIZES.iter().enumerate() {
        let (first, warm, processor) = (median(&first[at]), median(&warm[at]), median(&processor[at]));
        row.number(format!("{size}_warm_cpu_ms"), processor);
        row.number(format!("{size}_first_ms"), first);
        row.number(format!("{size}_warm_ms"), warm);
        if *size >= 1_300_000 {
            row.line(
                format!("{} rows, warm", grouped(*size)),
                format!("{warm:.2} ms (CPU {processor:.2})"),
                "≤ 2 ms",
                warm <= 2.0,
            );
            row.line(
                format!("{} rows, first in a session", grouped(*size)),
                format!("{first:.1} ms"),
                "≤ 25 ms",
                first <= 25.0,
            );
        } else {
            row.note(format!("{} rows, warm", grouped(*size)), format!("{warm:.2} ms (CPU {processor:.2})"));
            row.note(format!("{} rows, first in a session", grouped(*size)), format!("{first:.1} ms"));
        }
    }
    // Ten times the data: the same, but for what a clock on a machine that does other things too may differ by.
    let growth = median(&warm[3]) / median(&warm[2]);
    row.number("growth_ratio", growth);
    row.line(
        "13,000,000 rows against 1,300,000, warm",
        format!("× {growth:.2}"),
        "the same (within 25 %)",
        growth <= 1.25,
    );
    for (_, database) in databases {
        database.finish().await;
    }
    Ok(row)
}

/// 130 rows hang on 100 users for each of `leads`.
async fn build(database: &Database, leads: u32) -> Result<()> {
    let mut client = database.connect().await;
    let sql = format!(
        "SET synchronous_commit = off; SET maintenance_work_mem = '512MB';
         CREATE TABLE users (id int, name text);
         CREATE TABLE leads (id int, user_id int) WITH (autovacuum_enabled = off);
         CREATE TABLE conversations (id int, lead_id int) WITH (autovacuum_enabled = off);
         CREATE TABLE messages (id int, conversation_id int) WITH (autovacuum_enabled = off);
         CREATE TABLE analytics (id int, user_id int) WITH (autovacuum_enabled = off);
         INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 100) i;
         INSERT INTO leads SELECT i, (i - 1) / ({leads} / 100) + 1 FROM generate_series(1, {leads}) i;
         INSERT INTO conversations SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, {leads} * 10) i;
         INSERT INTO messages SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, {leads} * 100) i;
         INSERT INTO analytics SELECT i, (i - 1) / ({leads} / 100 * 19) + 1 FROM generate_series(1, {leads} * 19) i;
         ALTER TABLE users ADD PRIMARY KEY (id); ALTER TABLE leads ADD PRIMARY KEY (id); ALTER TABLE conversations ADD PRIMARY KEY (id);
         ALTER TABLE messages ADD PRIMARY KEY (id); ALTER TABLE analytics ADD PRIMARY KEY (id);
         CREATE INDEX ON leads (user_id); CREATE INDEX ON conversations (lead_id);
         CREATE INDEX ON messages (conversation_id); CREATE INDEX ON analytics (user_id);
         ANALYZE;
         ALTER TABLE leads ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
         ALTER TABLE conversations ADD FOREIGN KEY (lead_id) REFERENCES leads ON DELETE CASCADE;
         ALTER TABLE messages ADD FOREIGN KEY (conversation_id) REFERENCES conversations ON DELETE CASCADE;
         ALTER TABLE analytics ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;"
    );
    // One by one: each in a transaction of its own, as an INSERT into a table of the same transaction skips the log.
    for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        client.batch_execute(statement).await?;
    }
    install(&mut client, &guard("users", TableLimits::default())?).await
}

async fn stopped(session: &Session) -> Result<Cost> {
    let cost = session.cost(async |client| match client.batch_execute("DELETE FROM users").await {
        Err(error) if error.code().is_some_and(|code| code.code() == "PGR01") => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err("the delete was not stopped".into()),
    });
    cost.await
}

fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Time to stop it, against rows.
pub(crate) fn graph(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.name == "block").collect();
    let series = rows.iter().enumerate().flat_map(|(at, row)| {
        ["first", "warm"].map(|kind| Line {
            label: format!("{}, {}", row.servers, if kind == "first" { "first in a session" } else { "warm" }),
            colour: at,
            dashed: kind == "first",
            values: SIZES
                .iter()
                .map(|size| row.numbers.get(&format!("{size}_{kind}_ms")).copied().unwrap_or(f64::NAN))
                .collect(),
        })
    });
    lines(&Lines {
        title: "Time until DELETE FROM users is stopped, by number of dependent rows",
        unit: "ms",
        positions: SIZES.iter().map(|size| grouped(*size)).collect(),
        axis: "rows that the cascade would delete",
        bars: vec![(2.0, "bar: 2 ms"), (25.0, "bar: 25 ms")],
        series: series.collect(),
    })
}
