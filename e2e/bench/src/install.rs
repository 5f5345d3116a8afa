//! A guard over a thousand tables.

use std::time::Instant;

use pgrail_guard::{TableLimits, apply, observe, plan};
use pgrail_testing::Server;

use crate::Result;
use crate::measure::{guard, median, milliseconds};
use crate::page::Row;

const TABLES: i32 = 1000;

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let how = format!(
        "A guard with a glob that matches {TABLES} tables, in a database without guards. The tables with odd numbers \
         reference those with even numbers with ON DELETE CASCADE. Observe, plan and install, with one transaction \
         per table. Then the same guard again. Three databases."
    );
    let mut row = Row::new("install", "Installing a guard", server.major.to_string(), how);
    let (mut first, mut second, mut again) = (Vec::new(), Vec::new(), 0);
    for _ in 0..3 {
        let database = server.database("bench_install").await;
        let mut client = database.connect().await;
        let create = format!(
            "DO $$ BEGIN FOR i IN 1..{TABLES} LOOP
               EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, r int)', i);
               IF i % 2 = 1 AND i > 1 THEN EXECUTE format('ALTER TABLE t%s ADD FOREIGN KEY (r) REFERENCES t%s ON DELETE CASCADE', i, i - 1); END IF;
             END LOOP; END $$; ANALYZE; CHECKPOINT"
        );
        client.batch_execute(&create).await?;
        let spec = guard("t*", TableLimits::default())?;
        let at = Instant::now();
        let steps = plan(&spec, &observe(&client).await?)?;
        let applied = apply(client.as_mut(), &steps).await?;
        first.push(at.elapsed().as_secs_f64());
        if !applied.is_complete() {
            return Err(format!("the guard was not installed: {:?}", applied.unfinished()).into());
        }
        let at = Instant::now();
        let steps = plan(&spec, &observe(&client).await?)?;
        second.push(milliseconds(at.elapsed()));
        again += steps.steps().len();
        drop(client);
        database.finish().await;
    }
    let (first, second) = (median(&first), median(&second));
    row.number("install_s", first);
    row.number("second_look_ms", second);
    row.line(format!("{TABLES} tables"), format!("{first:.2} s"), "≤ 3 s", first <= 3.0);
    row.line("second run", format!("{again} steps, {second:.0} ms"), "no DDL", again == 0);
    Ok(row)
}
