//! What guards add to deletes in a real schema, where every table is guarded and most reference others.

use std::{env, fs};

use pgrail_guard::TableLimits;
use pgrail_testing::{Client, Database, Server};

use crate::Result;
use crate::measure::{Compared, Comparison, Cost, Session, guard, install, settle};
use crate::page::Row;

/// The file with the schema, which `e2e/postgres/schema.sh` downloads.
const FILE: &str = "PGRAIL_BENCH_ZABBIX";
const ROUNDS: usize = 9;
const GRAPHS: i64 = 4_000;
const TRIGGERS: i64 = 1_000;
const OUT_OF_REACH: i64 = 1_000_000_000;
const BAR: f64 = 1.5;

/// What is deleted, and how often before it is filled again.
struct Case {
    name: &'static str,
    label: String,
    sql: &'static str,
    bar: Option<f64>,
    /// Whether each of these deletes is the first statement of its session.
    new_session: bool,
}

fn cases() -> [Case; 4] {
    [
        Case {
            name: "graphs",
            label: format!("`delete from graphs`: {GRAPHS}, with 3 rows of graphs_items each"),
            sql: "DELETE FROM graphs",
            bar: Some(BAR),
            new_session: false,
        },
        Case {
            name: "triggers",
            label: format!("{TRIGGERS} triggers, with 2 functions and a tag each"),
            sql: "DELETE FROM triggers",
            bar: Some(BAR),
            new_session: false,
        },
        Case {
            name: "graph",
            label: "one graph with 3 rows of graphs_items".to_owned(),
            sql: "DELETE FROM graphs WHERE graphid = 1",
            bar: None,
            new_session: false,
        },
        Case {
            name: "first",
            label: "the same, first in a session".to_owned(),
            sql: "DELETE FROM graphs WHERE graphid = 1",
            bar: None,
            new_session: true,
        },
    ]
}

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let how = format!(
        "The schema of Zabbix 6.0, from Debian's package `zabbix-server-pgsql`: 173 tables, 186 foreign keys with ON \
         DELETE CASCADE; the cascades of `hosts` reach 61 tables. Every table is guarded by one glob, with limits out of \
         reach. One DELETE including its COMMIT, {ROUNDS} rounds in alternation with the same statement in a database \
         without guards. Between the rounds, the tables are vacuumed and filled again. `graphs_items` is reached from \
         three roots: `graphs`, `items` and `hosts`. The bars apply to the elapsed time. The CPU time of the server \
         process is shown next to it."
    );
    let mut row = Row::new("schema", "A large schema", server.major.to_string(), how);
    let Some(file) = env::var_os(FILE) else {
        eprintln!(
            "NOT MEASURED: the row schema needs the schema of Zabbix, which e2e/postgres/schema.sh could not get"
        );
        row.note("every table of Zabbix", "**not measured**: Debian's package could not be downloaded".to_owned());
        return Ok(row);
    };
    let schema = fs::read_to_string(file)?;
    let mut databases = Vec::new();
    for guarded in [false, true] {
        let database = server.database("bench_schema").await;
        let mut client = database.connect().await;
        client.batch_execute("SET client_min_messages = warning").await?;
        client.batch_execute(&schema).await?;
        client.batch_execute(&rows()).await?;
        if guarded {
            let limits =
                TableLimits { max_rows: OUT_OF_REACH, max_cascade_rows: OUT_OF_REACH, ..TableLimits::default() };
            install(&mut client, &guard("*", limits)?).await?;
        }
        for table in ["graphs", "triggers"] {
            refill(&client, table).await?;
        }
        client.batch_execute("VACUUM ANALYZE").await?;
        settle(&client).await?;
        databases.push((database, Session::of(client).await?));
    }
    for case in cases() {
        measure_case(&databases, &case, &mut row).await?;
    }
    for (database, session) in databases {
        drop(session);
        database.finish().await;
    }
    Ok(row)
}

async fn measure_case(databases: &[(Database, Session)], case: &Case, row: &mut Row) -> Result<()> {
    let mut comparison = Comparison::default();
    for round in 0..=ROUNDS {
        let mut costs = Vec::new();
        for (database, session) in databases {
            costs.push(cost(database, session, case).await?);
            refill(&session.client, if case.name == "triggers" { "triggers" } else { "graphs" }).await?;
        }
        let [plain, guarded] = costs.as_slice() else { continue };
        // The first round fills caches.
        if round > 0 {
            comparison.add(plain, guarded);
        }
    }
    let Compared { plain_ms, time_ratio, cpu_ratio } = comparison.record(case.name, row);
    let measured = format!("{plain_ms:.1} ms × {time_ratio:.2} (CPU × {cpu_ratio:.2})");
    match case.bar {
        Some(bar) => row.line(&case.label, measured, &format!("≤ × {bar:.1}"), time_ratio <= bar),
        None => row.note(&case.label, measured),
    }
    Ok(())
}

async fn cost(database: &Database, session: &Session, case: &Case) -> Result<Cost> {
    let of = async |client: &Client| Ok(client.batch_execute(case.sql).await?);
    if case.new_session { Session::open(database).await?.cost(of).await } else { session.cost(of).await }
}

/// What graphs and triggers refer to.
fn rows() -> String {
    "INSERT INTO hosts (hostid, host) SELECT i, 'host ' || i FROM generate_series(1, 10) i;
     INSERT INTO items (itemid, hostid, name, key_) SELECT i, i % 10 + 1, 'item ' || i, 'key ' || i FROM generate_series(1, 1000) i;"
        .to_owned()
}

/// Puts back what a case deletes.
async fn refill(client: &Client, root: &str) -> Result<()> {
    let (tables, rows) = match root {
        "triggers" => (
            "triggers, functions, trigger_tag",
            format!(
                "INSERT INTO triggers (triggerid, description) SELECT i, 'trigger ' || i FROM generate_series(1, {TRIGGERS}) i;
                 INSERT INTO functions (functionid, itemid, triggerid, name)
                   SELECT i, i % 1000 + 1, (i - 1) / 2 + 1, 'last' FROM generate_series(1, {TRIGGERS} * 2) i;
                 INSERT INTO trigger_tag (triggertagid, triggerid, tag) SELECT i, i, 'tag' FROM generate_series(1, {TRIGGERS}) i"
            ),
        ),
        _ => (
            "graphs, graphs_items",
            format!(
                "INSERT INTO graphs (graphid, name) SELECT i, 'graph ' || i FROM generate_series(1, {GRAPHS}) i ON CONFLICT DO NOTHING;
                 INSERT INTO graphs_items (gitemid, graphid, itemid)
                   SELECT i, (i - 1) / 3 + 1, i % 1000 + 1 FROM generate_series(1, {GRAPHS} * 3) i ON CONFLICT DO NOTHING"
            ),
        ),
    };
    client.batch_execute(&format!("VACUUM {tables}")).await?;
    client.batch_execute(&rows).await?;
    // Hint bits are set now, not by the delete that is measured.
    client.batch_execute(&format!("VACUUM ANALYZE {tables}")).await?;
    Ok(())
}
