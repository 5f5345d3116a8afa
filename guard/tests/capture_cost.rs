//! What keeping deleted rows costs, in CPU time of the backend, side by side with the same guard without it. Prints;
//! checks nothing that depends on the machine. Not part of a test run:
//!
//! `cargo test --release -p pgrail-guard --test capture_cost -- --ignored --nocapture`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::{count, install, limited, run};
use pgrail_guard::{Capture, GuardSpec};
use pgrail_testing::{Client, for_each_server};

const ROUNDS: i32 = 9;
const SINGLE: i32 = 2000;
const CASCADES: i32 = 30;

/// Milliseconds of CPU that the backend of this client has used. The kernel counts in hundredths of a second.
async fn cpu(client: &Client) -> f64 {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("pid").get(0);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a server on this machine");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("stat").1.split_whitespace().collect();
    let ticks = |place: usize| fields[place].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) * 10.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Deletes these rows one by one, each in a transaction of its own; microseconds of CPU for each.
async fn deleting(client: &Client, table: &str, ids: std::ops::Range<i32>) -> f64 {
    let statement = client.prepare(&format!("DELETE FROM {table} WHERE id = $1")).await.expect("prepare");
    let number = f64::from(ids.end - ids.start);
    let before = cpu(client).await;
    for id in ids {
        assert_eq!(client.execute(&statement, &[&id]).await.expect("delete"), 1);
    }
    (cpu(client).await - before) * 1000.0 / number
}

#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_capture() {
    for_each_server(async |server| {
        let version = server.major;
        let mut clients = Vec::new();
        let mut databases = Vec::new();
        for capture in [None, Some(Capture::default())] {
            let database = server.database("cost").await;
            let mut client = database.connect().await;
            let rows = ROUNDS * SINGLE;
            run(
                &client,
                &format!(
                    "CREATE TABLE plain (id int PRIMARY KEY, name text, mail text, at timestamptz DEFAULT now());
                     INSERT INTO plain SELECT i, 'name ' || i, 'mail' || i || '@example.com' FROM generate_series(1, {rows}) i;
                     CREATE TABLE users (id int PRIMARY KEY, name text, mail text, at timestamptz DEFAULT now());
                     INSERT INTO users SELECT i, 'name ' || i, 'mail' || i || '@example.com' FROM generate_series(1, {rows}) i;
                     INSERT INTO users SELECT -i, 'name ' || i, 'mail' || i || '@example.com' FROM generate_series(1, {ROUNDS} * {CASCADES}) i;"
                ),
            )
            .await;
            for table in ["a", "b", "c", "d", "e"] {
                run(
                    &client,
                    &format!(
                        "CREATE TABLE {table} (id bigint PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, body text); CREATE INDEX ON {table} (user_id);
                         INSERT INTO {table} SELECT i, -1 - (i - 1) / 200, 'a body of some length ' || i FROM generate_series(1, 200 * {ROUNDS} * {CASCADES}) i"
                    ),
                )
                .await;
            }
            run(&client, "VACUUM ANALYZE").await;
            let spec = limited("a/b", &[("public", "plain"), ("public", "users")], 100, 2000);
            install(&mut client, &GuardSpec { capture, ..spec }).await;
            databases.push(database);
            clients.push(client);
        }
        let mut results = vec![vec![Vec::new(); 2]; 3];
        for round in 0..ROUNDS {
            for (side, client) in clients.iter().enumerate() {
                let singles = round * SINGLE + 1..(round + 1) * SINGLE + 1;
                results[0][side].push(deleting(client, "plain", singles.clone()).await);
                results[1][side].push(deleting(client, "users", singles).await);
                let cascades = -(round + 1) * CASCADES..-round * CASCADES;
                results[2][side].push(deleting(client, "users", cascades).await);
            }
        }
        assert_eq!(count(&clients[1], "users").await, 0);
        for (what, sides) in ["one row, nothing refers to it", "one row, 5 tables refer to it", "a cascade of 1,000 rows"].iter().zip(results) {
            let [without, with] = [0, 1].map(|side| median(sides[side].clone()));
            println!("PostgreSQL {version}: {what}: {without:.0} us without, {with:.0} us with: + {:.0} us", with - without);
        }
        drop(clients);
        for database in databases {
            database.finish().await;
        }
    })
    .await;
}
