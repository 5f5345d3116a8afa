//! The catastrophic delete ends at its first row too many, however much hangs on it: what it costs follows the limit, not
//! the data. How many milliseconds that is, `make bench` tells.
#![allow(missing_docs)]
mod common;

use common::{FRIDAY, guard, install, run, stopped};
use pgrail_testing::for_each_server;

#[tokio::test]
async fn the_catastrophic_delete_is_stopped_at_its_first_row_too_many() {
    for_each_server(async |server| {
        for scale in [1, 10] {
            let database = server.database("early").await;
            let mut client = database.connect().await;
            run(&client, FRIDAY).await;
            run(
                &client,
                &format!(
                    "INSERT INTO users SELECT i, 'u' FROM generate_series(1, 100) i;
                     INSERT INTO leads SELECT i, i % 100 + 1 FROM generate_series(1, {scale} * 1000) i;
                     INSERT INTO conversations SELECT i, i % ({scale} * 1000) + 1 FROM generate_series(1, {scale} * 2000) i;
                     INSERT INTO messages SELECT i, i % ({scale} * 2000) + 1 FROM generate_series(1, {scale} * 20000) i;
                     INSERT INTO analytics SELECT i, i % 100 + 1 FROM generate_series(1, {scale} * 3000) i; ANALYZE"
                ),
            )
            .await;
            install(&mut client, &guard("shop/core", &[("public", "users")])).await;
            let app = database.connect().await;
            for sql in ["DELETE FROM users", "DELETE FROM users WHERE id = 42", "DELETE FROM users"] {
                let few = scale == 1 && sql.contains("42");
                if few {
                    run(&app, &format!("BEGIN; {sql}; ROLLBACK")).await;
                    continue;
                }
                let error = stopped(&app, "PGR01", sql).await;
                let detail = error.detail().unwrap_or_default();
                assert!(detail.contains("and 1001 rows of other tables in this transaction"), "{sql}: {error:?}");
            }
            database.finish().await;
        }
    })
    .await;
}
