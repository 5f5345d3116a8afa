//! Random foreign key graphs, data, limits and deletes: what the unguarded server would remove decides whether the guard
//! must stop it. `PGRAIL_TEST_SEED` and `PGRAIL_TEST_GRAPHS` choose other cases, and more.
#![allow(missing_docs, clippy::expect_used, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use common::{install, run};
use pgrail_guard::{
    ClusterId, GuardName, GuardSpec, PartialLimits, Protect, TableLimits, TableSelector, closure, observe,
};
use pgrail_testing::{Client, for_each_server};

/// xorshift64*: the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Tables `t0…`, each with an id and some keys to tables, itself included; some partitioned by hash.
fn schema(random: &mut Random) -> (usize, String) {
    let tables = 2 + random.below(5) as usize;
    let mut sql = String::from(
        "SET client_min_messages = warning; DROP SCHEMA IF EXISTS t CASCADE; CREATE SCHEMA t; SET search_path = t;",
    );
    let mut keys = Vec::new();
    for table in 0..tables {
        let partitioned = random.chance(20);
        let columns: Vec<usize> = (0..random.below(3) as usize).collect();
        let list = columns.iter().fold(String::new(), |list, column| list + &format!(", k{column} int"));
        let suffix = if partitioned { " PARTITION BY HASH (id)" } else { "" };
        let _ = write!(sql, "CREATE TABLE t{table} (id int PRIMARY KEY{list}){suffix};");
        for part in (0..2).filter(|_| partitioned) {
            let _ = write!(
                sql,
                "CREATE TABLE t{table}_p{part} PARTITION OF t{table} FOR VALUES WITH (MODULUS 2, REMAINDER {part});"
            );
        }
        for column in columns {
            let action = ["CASCADE", "CASCADE", "CASCADE", "SET NULL", "SET DEFAULT"][random.below(5) as usize];
            keys.push((table, column, random.below(tables as u64), action));
        }
    }
    for table in 0..tables {
        let _ = write!(sql, "INSERT INTO t{table} (id) SELECT generate_series(1, {});", 1 + random.below(25));
    }
    for (table, column, target, action) in keys {
        let _ = write!(
            sql,
            "UPDATE t{table} SET k{column} = (SELECT id FROM t{target} x ORDER BY md5(x.id::text || t{table}.id::text || '{}') LIMIT 1) WHERE id % {} > 0;
             ALTER TABLE t{table} ADD FOREIGN KEY (k{column}) REFERENCES t{target} ON DELETE {action};",
            random.below(1000),
            1 + random.below(3),
        );
    }
    (tables, sql)
}

/// Rows that each table loses and that each has updated, by the server itself.
async fn effects(client: &Client, tables: usize, sql: &str) -> Vec<(i64, i64)> {
    let rows = async || {
        let mut all = Vec::new();
        for table in 0..tables {
            let sql = format!(
                "SELECT (SELECT count(*) FROM t{table}), coalesce((SELECT sum(pg_stat_get_xact_tuples_updated(x.oid))::int8 FROM (
                   SELECT 't.t{table}'::regclass::oid UNION SELECT relid FROM pg_partition_tree('t.t{table}')) x(oid)), 0)"
            );
            let row = client.query_one(&sql, &[]).await.expect("rows");
            all.push((row.get::<_, i64>(0), row.get::<_, i64>(1)));
        }
        all
    };
    run(client, "BEGIN").await;
    let before = rows().await;
    run(client, sql).await;
    let after = rows().await;
    run(client, "ROLLBACK").await;
    before.into_iter().zip(after).map(|((rows, updates), (left, updated))| (rows - left, updated - updates)).collect()
}

#[tokio::test]
async fn the_guard_agrees_with_what_the_server_would_remove() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default);
    let (seed, graphs) = (number("PGRAIL_TEST_SEED", 20_261_123), number("PGRAIL_TEST_GRAPHS", 80));
    for_each_server(async |server| {
        let database = server.database("verdicts").await;
        let mut client = database.connect().await;
        let (mut stopped, mut passed) = (0, 0);
        for graph in 0..graphs {
            let mut random = Random(seed.wrapping_mul(graph + 1) | 1);
            let (tables, sql) = schema(&mut random);
            run(&client, &sql).await;
            let deletes: Vec<(usize, String)> = (0..16)
                .map(|_| {
                    let table = random.below(tables as u64) as usize;
                    (table, format!("DELETE FROM t.t{table} WHERE id % {} <= {}", 1 + random.below(6), random.below(4)))
                })
                .collect();
            let unguarded = database.connect().await;
            run(&unguarded, "SET search_path = t").await;
            let mut expected = Vec::new();
            for (_, delete) in &deletes {
                expected.push(effects(&unguarded, tables, delete).await);
            }
            let everything = random.chance(50);
            let root = random.below(tables as u64) as usize;
            // Where every table is guarded, each has limits of its own.
            let all: Vec<TableLimits> = (0..tables)
                .map(|_| {
                    let (max_rows, max_cascade_rows) = (random.below(12) as i64, random.below(25) as i64);
                    let max_transaction_rows = random.chance(30).then(|| max_rows.max(max_cascade_rows) + random.below(10) as i64);
                    TableLimits { max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows: None, window: None }
                })
                .collect();
            let selectors = (0..tables).filter(|table| everything || *table == root).map(|table| {
                let TableLimits { max_rows, max_cascade_rows, max_transaction_rows, max_updated_rows, window } = all[table];
                let limits = PartialLimits { max_rows: Some(max_rows), max_cascade_rows: Some(max_cascade_rows), max_transaction_rows, max_updated_rows, window };
                TableSelector::new("t", format!("t{table}"), Vec::new(), limits).unwrap()
            });
            let spec = GuardSpec {
                protect: Protect { drop: false, ..Protect::default() },
                ..GuardSpec::new(GuardName::new("a/b").unwrap(), ClusterId::local(), selectors.collect())
            };
            install(&mut client, &spec).await;
            let catalog = observe(&client).await.expect("observe").catalog;
            let app = database.connect().await;
            for ((table, delete), effects) in deletes.iter().zip(expected) {
                let result = app.batch_execute(&format!("BEGIN; {delete}; ROLLBACK")).await;
                run(&app, "ROLLBACK").await;
                let is_stopped = match &result {
                    Ok(()) => false,
                    Err(error) => {
                        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("PGR01"), "{error:?}");
                        true
                    }
                };
                if is_stopped { stopped += 1 } else { passed += 1 }
                let about = format!("seed {seed}, graph {graph} on PostgreSQL {}, {all:?}, everything {everything}, root t{root}: {delete}: {effects:?}: {result:?}\n{sql}", server.major);
                if everything || *table == root {
                    let limits = all[*table];
                    // The root of this delete: its own rows, and what every other table loses or has updated.
                    let own = effects[*table].0;
                    let others: i64 = effects.iter().enumerate().map(|(at, (lost, updated))| updated + if at == *table { 0 } else { *lost }).sum();
                    let oid = catalog.table_named("t", &format!("t{table}")).expect("table").oid;
                    let reached: BTreeSet<_> = closure::of(&catalog, oid).members.into_iter().filter(|member| member.effect == closure::Effect::Deleted).map(|member| member.table).collect();
                    // In a cycle of guarded tables each counts for itself: stricter, never looser.
                    let cyclic = everything && reached.iter().any(|at| closure::of(&catalog, *at).members.iter().any(|member| member.table == oid && member.effect == closure::Effect::Deleted));
                    let in_all = limits.max_transaction_rows.is_some_and(|total| own > 0 && own + others > total);
                    let must = own > limits.max_rows || others > limits.max_cascade_rows || in_all;
                    assert!(is_stopped || !must, "passed, but should have been stopped: {about}");
                    assert!(!is_stopped || must || cyclic, "stopped, but should have passed: {about}");
                } else {
                    let limits = all[root];
                    // Through another table: the guarded one is the root of what it takes with it.
                    assert!(is_stopped || effects[root].0 <= limits.max_rows, "passed, but should have been stopped: {about}");
                    assert!(!is_stopped || effects[root].0 > 0, "stopped, but should have passed: {about}");
                }
            }
        }
        println!("PostgreSQL {}: {stopped} stopped, {passed} passed", server.major);
        assert!(stopped > 20 && passed > 20, "the cases are one-sided");
        database.finish().await;
    })
    .await;
}
