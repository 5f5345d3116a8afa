//! How long the catastrophic delete lives: 1.3 million rows hang on 100 users.
#![allow(missing_docs)]
mod common;

use std::time::{Duration, Instant};

use common::{FRIDAY, guard, install, run, stopped};
use pgrail_testing::for_each_server;

#[tokio::test]
async fn the_catastrophic_delete_is_stopped_at_once() {
    for_each_server(async |server| {
        let database = server.database("speed").await;
        let mut client = database.connect().await;
        run(&client, FRIDAY).await;
        run(
            &client,
            "INSERT INTO users SELECT i, 'u' FROM generate_series(1, 100) i;
             INSERT INTO leads SELECT i, (i - 1) / 100 + 1 FROM generate_series(1, 10000) i;
             INSERT INTO conversations SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, 100000) i;
             INSERT INTO messages SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, 1000000) i;
             INSERT INTO analytics SELECT i, (i - 1) / 1900 + 1 FROM generate_series(1, 190000) i; ANALYZE",
        )
        .await;
        install(&mut client, &guard("shop/core", &[("public", "users")])).await;
        let (mut first, mut warm) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let app = database.connect().await;
            for attempt in 0..4 {
                let started = Instant::now();
                let failed = app.batch_execute("DELETE FROM users").await;
                let took = started.elapsed();
                assert!(failed.is_err());
                if attempt == 0 { first.push(took) } else { warm.push(took) }
            }
            stopped(&app, "PGR01", "DELETE FROM users WHERE id = 1").await;
        }
        first.sort();
        warm.sort();
        println!(
            "PostgreSQL {}: first in a session {first:?}, warm: best {:?}, median {:?}",
            server.major,
            warm[0],
            warm[warm.len() / 2]
        );
        // The best of several: the machine may be busy with other things, the guard is not.
        assert!(warm[0] <= Duration::from_millis(10), "{warm:?}");
        assert!(first[0] <= Duration::from_millis(30), "{first:?}");
        database.finish().await;
    })
    .await;
}
