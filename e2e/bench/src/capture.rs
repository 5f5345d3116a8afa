//! What keeping deleted rows adds to a guarded delete.

use std::ops::Range;

use pgrail_guard::{Capture, GuardSpec, TableLimits};
use pgrail_testing::Server;

use crate::Result;
use crate::measure::{Session, guard, install, median, microseconds, settle};
use crate::page::Row;

const ROUNDS: i32 = 9;
/// Users that are deleted one by one in a round, and such as take 1,000 rows with them.
const SINGLE: i32 = 1000;
const CASCADES: i32 = 20;

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let how = format!(
        "Prepared deletes by primary key, each with its COMMIT, from a table that five tables reference with ON \
         DELETE CASCADE: {SINGLE} users without dependent rows, and {CASCADES} users with 200 rows in each of the \
         five tables, {ROUNDS} rounds in alternation with the same guard without `capture`. CPU time of the server \
         process per delete, including the retention. There is no bar, because `capture` is off by default."
    );
    let mut row = Row::new("capture", "Capture", server.major.to_string(), how);
    let (mut databases, mut sessions) = (Vec::new(), Vec::new());
    for capture in [None, Some(Capture::default())] {
        let database = server.database("bench_capture").await;
        let mut client = database.connect().await;
        client.batch_execute(&tables()).await?;
        client.batch_execute("VACUUM ANALYZE").await?;
        let limits = TableLimits { max_rows: 100, max_cascade_rows: 2000, ..TableLimits::default() };
        install(&mut client, &GuardSpec { capture, ..guard("users", limits)? }).await?;
        settle(&client).await?;
        sessions.push(Session::of(client).await?);
        databases.push(database);
    }
    let mut costs = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..ROUNDS {
        let works = [round * SINGLE + 1..(round + 1) * SINGLE + 1, -(round + 1) * CASCADES..-round * CASCADES];
        for (session, costs) in sessions.iter().zip(&mut costs) {
            for (ids, costs) in works.iter().zip(costs) {
                costs.push(delete(session, ids.clone()).await?);
            }
        }
    }
    for (at, (what, name)) in [("one row", "single"), ("one row with a cascade of 1,000", "cascade")].iter().enumerate()
    {
        let [without, with] = [median(&costs[0][at]), median(&costs[1][at])];
        row.number(format!("{name}_without_us"), without);
        row.number(format!("{name}_with_us"), with);
        row.note(*what, format!("{without:.0} → {with:.0} µs (+{:.0})", with - without));
    }
    drop(sessions);
    for database in databases {
        database.finish().await;
    }
    Ok(row)
}

/// Microseconds of processor time for each delete.
async fn delete(session: &Session, ids: Range<i32>) -> Result<f64> {
    let statement = session.client.prepare("DELETE FROM users WHERE id = $1").await?;
    let number = f64::from(ids.end - ids.start);
    let cost = session.cost(async |client| {
        for id in ids {
            client.execute(&statement, &[&id]).await?;
        }
        Ok(())
    });
    Ok(microseconds(cost.await?.cpu) / number)
}

fn tables() -> String {
    let referencing: String = ["a", "b", "c", "d", "e"]
        .map(|table| {
            format!(
                "CREATE TABLE {table} (id bigint PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, body text);
                 INSERT INTO {table} SELECT i, -1 - (i - 1) / 200, 'a body of some length ' || i FROM generate_series(1, 200 * {ROUNDS} * {CASCADES}) i;
                 CREATE INDEX ON {table} (user_id);"
            )
        })
        .concat();
    format!(
        "CREATE TABLE users (id int PRIMARY KEY, name text, mail text, at timestamptz DEFAULT now());
         INSERT INTO users SELECT i, 'name ' || i, 'mail' || i || '@example.com'
           FROM generate_series(-{ROUNDS} * {CASCADES}, {ROUNDS} * {SINGLE}) i;
         {referencing}"
    )
}
