//! Tables that the cascades of several roots reach: whatever a gate leaves out, each root's limit is exact.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use common::{count, guard, install, limited, run, stopped};
use pgrail_guard::{Allowance, GuardSpec, Mode, Operation, PartialLimits, TableLimits, TableSelector, counters};
use pgrail_testing::{Client, Database, for_each_server};

/// The closure of `graph` is `leaf`; that of `item` are ten tables, that of `host` 24: `item` with its closure, 12 of its own,
/// and one more. Each graph has 10 leaves, each item 5 and a row in each of `p1` to `p9`, each host 2 items and a row in each of
/// `c1` to `c12`.
async fn shared(database: &Database) -> Client {
    let client = database.connect().await;
    let mut sql = String::from(
        "CREATE TABLE host (id int PRIMARY KEY); INSERT INTO host SELECT generate_series(1, 40);
         CREATE TABLE item (id int PRIMARY KEY, host_id int REFERENCES host ON DELETE CASCADE);
         INSERT INTO item SELECT i, (i - 1) / 2 + 1 FROM generate_series(1, 80) i; CREATE INDEX ON item (host_id);
         CREATE TABLE graph (id int PRIMARY KEY); INSERT INTO graph SELECT generate_series(1, 40);
         CREATE TABLE leaf (id int PRIMARY KEY, item_id int REFERENCES item ON DELETE CASCADE, graph_id int REFERENCES graph ON DELETE CASCADE);
         INSERT INTO leaf SELECT i, (i - 1) / 5 + 1, NULL FROM generate_series(1, 400) i;
         INSERT INTO leaf SELECT 1000 + i, NULL, (i - 1) / 10 + 1 FROM generate_series(1, 400) i;
         CREATE INDEX ON leaf (item_id); CREATE INDEX ON leaf (graph_id);
         CREATE TABLE odd (id int PRIMARY KEY, host_id int REFERENCES host ON DELETE CASCADE); CREATE INDEX ON odd (host_id);",
    );
    for (prefix, root, tables) in [("c", "host", 12), ("p", "item", 9)] {
        for table in 1..=tables {
            let _ = write!(
                sql,
                "CREATE TABLE {prefix}{table} (id int PRIMARY KEY, r int REFERENCES {root} ON DELETE CASCADE);
                 INSERT INTO {prefix}{table} SELECT id, id FROM {root}; CREATE INDEX ON {prefix}{table} (r);"
            );
        }
    }
    run(&client, &sql).await;
    client
}

fn of(table: &str, max_cascade_rows: i64) -> GuardSpec {
    limited(&format!("a/{table}"), &[("public", table)], 1000, max_cascade_rows)
}

const HOST: i64 = 12 + 2 + 2 * (9 + 5);

#[tokio::test]
async fn each_root_stops_at_its_own_limit() {
    for_each_server(async |server| {
        let database = server.database("shared").await;
        let mut client = shared(&database).await;
        run(&client, "INSERT INTO odd VALUES (1, 20), (2, 21), (3, 21)").await;
        for spec in [of("host", 3 * HOST), of("item", 4 * 14), of("graph", 40)] {
            install(&mut client, &spec).await;
        }
        let app = database.connect().await;
        for (passes, is_stopped, table) in [
            ("DELETE FROM graph WHERE id <= 4", "DELETE FROM graph WHERE id <= 5", "graph"),
            ("DELETE FROM item WHERE id <= 4", "DELETE FROM item WHERE id <= 5", "item"),
            ("DELETE FROM host WHERE id <= 3", "DELETE FROM host WHERE id IN (1, 2, 20)", "host"),
        ] {
            run(&app, &format!("BEGIN; {passes}; ROLLBACK")).await;
            let error = stopped(&app, "PGR01", is_stopped).await;
            assert!(
                error.message().starts_with(&format!("pgrail: DELETE on public.{table} would take more than")),
                "{error:?}"
            );
            // One row at a time comes as far as one statement.
            run(&app, &format!("BEGIN; {passes}")).await;
            stopped(&app, "PGR01", &format!("DELETE FROM {table} WHERE id = 30")).await;
        }
        // Rows that go for one root count for every root that lost some.
        let error =
            stopped(&app, "PGR01", "BEGIN; DELETE FROM graph WHERE id <= 4; DELETE FROM item WHERE id = 1").await;
        assert!(error.message().contains("DELETE on public.graph"), "{error:?}");
        run(&app, "BEGIN; DELETE FROM graph WHERE id <= 3; DELETE FROM item WHERE id = 1; ROLLBACK").await;
        let error =
            stopped(&app, "PGR01", "BEGIN; DELETE FROM graph WHERE id <= 2; DELETE FROM item WHERE id <= 3").await;
        assert!(error.message().contains("DELETE on public.item"), "{error:?}");
        // What is deleted directly counts once the root loses a row, and a root that lost none has nothing counted.
        run(&app, "BEGIN; DELETE FROM leaf; DELETE FROM p1; DELETE FROM c1; ROLLBACK").await;
        run(&app, "BEGIN; DELETE FROM c1; DELETE FROM c2; DELETE FROM c3; DELETE FROM graph WHERE id <= 4; ROLLBACK")
            .await;
        stopped(&app, "PGR01", "BEGIN; DELETE FROM p1 WHERE id > 50; DELETE FROM item WHERE id <= 3").await;
        run(&app, "BEGIN; DELETE FROM p1 WHERE id > 66; DELETE FROM item WHERE id <= 3; ROLLBACK").await;
        // Of a savepoint that is rolled back, too.
        run(&app, "BEGIN; SAVEPOINT a; DELETE FROM host WHERE id <= 3; ROLLBACK TO a").await;
        stopped(&app, "PGR01", "DELETE FROM host WHERE id = 4").await;
        assert_eq!((count(&client, "leaf").await, count(&client, "item").await), (800, 80));
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_lower_limit_and_a_new_table_count_from_the_next_apply_on() {
    for_each_server(async |server| {
        let database = server.database("later").await;
        let mut client = shared(&database).await;
        for spec in [of("host", 5 * HOST), of("item", 1000), of("graph", 1000)] {
            install(&mut client, &spec).await;
        }
        let app = database.connect().await;
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 5; ROLLBACK").await;
        install(&mut client, &of("host", 3 * HOST)).await;
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 3; ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM host WHERE id <= 4").await;
        run(&client, "CREATE TABLE late (id int PRIMARY KEY, r int REFERENCES host ON DELETE CASCADE); INSERT INTO late VALUES (1, 3)").await;
        install(&mut client, &of("host", 3 * HOST)).await;
        stopped(&app, "PGR01", "DELETE FROM host WHERE id <= 3").await;
        run(&app, "BEGIN; DELETE FROM host WHERE id IN (1, 2, 4); ROLLBACK").await;
        // The same rows may now go for a second guard, whose limit is lower.
        install(&mut client, &limited("b/strict", &[("public", "host")], 1000, HOST)).await;
        run(&app, "BEGIN; DELETE FROM host WHERE id = 1; ROLLBACK").await;
        let error = stopped(&app, "PGR01", "DELETE FROM host WHERE id <= 2").await;
        assert!(error.detail().is_some_and(|detail| detail.contains("Guard: b/strict")), "{error:?}");
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn totals_warnings_allowances_and_procedures_are_as_exact() {
    for_each_server(async |server| {
        let database = server.database("ways").await;
        let mut client = shared(&database).await;
        for spec in [of("item", 4 * 14), of("graph", 40)] {
            install(&mut client, &spec).await;
        }
        let app = database.connect().await;
        // Two levels: the total has the root's rows, too.
        let limits = TableLimits {
            max_rows: 3,
            max_cascade_rows: 2 * HOST,
            max_transaction_rows: Some(4 * HOST + 4),
            ..TableLimits::default()
        };
        install(&mut client, &GuardSpec { limits, ..of("host", 0) }).await;
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 2").await;
        run(&app, "DELETE FROM host WHERE id IN (3, 4); ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM host WHERE id <= 3").await;
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 2").await;
        run(&app, "DELETE FROM host WHERE id IN (3, 4)").await;
        let error = stopped(&app, "PGR01", "DELETE FROM host WHERE id = 5").await;
        assert!(error.message().contains("maxTransactionRows"), "{error:?}");
        // A warning, once, and only beyond the limit.
        install(&mut client, &GuardSpec { mode: Mode::Warn, ..of("host", 3 * HOST) }).await;
        let warned = async |client: &Client| {
            let counters = counters(client).await.expect("counters");
            counters.iter().find(|counter| counter.table == "public.host").expect("host").blocked_attempts
        };
        // What only warns takes nothing from what stops: the limit of item holds for its cascade, too.
        install(&mut client, &of("item", 1000)).await;
        let before = warned(&client).await;
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 3; ROLLBACK").await;
        assert_eq!(warned(&client).await, before);
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 4; ROLLBACK").await;
        assert_eq!(warned(&client).await, before + 1);
        // An allowance, up to what it allows.
        let role: String = client.query_one("SELECT session_user::text", &[]).await.expect("role").get(0);
        let limits = PartialLimits { max_cascade_rows: Some(7 * HOST), ..PartialLimits::default() };
        let allowances = vec![Allowance { role, limits, operations: vec![Operation::Delete] }];
        install(&mut client, &GuardSpec { allowances, ..of("host", 3 * HOST) }).await;
        run(&app, "BEGIN; DELETE FROM host WHERE id <= 7; ROLLBACK").await;
        stopped(&app, "PGR01", "DELETE FROM host WHERE id <= 8").await;
        // Each transaction of a procedure has its own rows.
        install(&mut client, &of("host", 3 * HOST)).await;
        run(&client, "CREATE PROCEDURE purge(batch int) LANGUAGE plpgsql AS $$ DECLARE i int := 0; BEGIN
            WHILE i < 6 LOOP DELETE FROM host WHERE id > i AND id <= i + batch; COMMIT; i := i + batch; END LOOP; END $$").await;
        stopped(&app, "PGR01", "CALL purge(4)").await;
        assert_eq!(count(&client, "host").await, 40);
        run(&app, "CALL purge(3)").await;
        assert_eq!(count(&client, "host").await, 34);
        database.finish().await;
    })
    .await;
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

const TABLES: usize = 14;
const ROWS: usize = 24;
const SCHEMAS: usize = 6;

/// A schema without cycles, twice: without guards in `free`, and in `held`, where every table has limits of its own.
struct Random {
    /// The tables that each reaches.
    closures: Vec<BTreeSet<usize>>,
    /// Of each: rows, rows of other tables.
    limits: Vec<(i64, i64)>,
}

impl Random {
    async fn create(dice: &mut Dice, client: &mut Client) -> Self {
        let mut parents: Vec<BTreeSet<usize>> = vec![BTreeSet::new()];
        let mut sql = String::from("CREATE SCHEMA free; CREATE SCHEMA held;");
        for table in 1..TABLES {
            parents.push((0..=dice.below(2)).map(|_| dice.below(table)).collect());
        }
        for (table, parents) in parents.iter().enumerate() {
            for schema in ["free", "held"] {
                let _ = write!(sql, "CREATE TABLE {schema}.t{table} (id int PRIMARY KEY");
                for parent in parents {
                    let _ = write!(sql, ", r{parent} int REFERENCES {schema}.t{parent} ON DELETE CASCADE");
                }
                sql.push_str(");");
            }
            for row in 0..ROWS {
                let values = parents.iter().fold(String::new(), |values, _| format!("{values}, {}", dice.below(ROWS)));
                for schema in ["free", "held"] {
                    let _ = write!(sql, "INSERT INTO {schema}.t{table} VALUES ({row}{values});");
                }
            }
        }
        run(client, &sql).await;
        let mut closures: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); TABLES];
        for table in (0..TABLES).rev() {
            for child in table + 1..TABLES {
                if parents[child].contains(&table) {
                    let below = closures[child].clone();
                    closures[table].extend(below.into_iter().chain([child]));
                }
            }
        }
        let mut limits = Vec::new();
        let mut selectors = Vec::new();
        for table in 0..TABLES {
            let (rows, cascade) = (i64::try_from(1 + dice.below(9)).unwrap(), i64::try_from(dice.below(90)).unwrap());
            limits.push((rows, cascade));
            let over =
                PartialLimits { max_rows: Some(rows), max_cascade_rows: Some(cascade), ..PartialLimits::default() };
            selectors.push(TableSelector::new("held", format!("t{table}"), Vec::new(), over).unwrap());
        }
        install(client, &GuardSpec { selectors, ..guard("a/b", &[("held", "t0")]) }).await;
        Self { closures, limits }
    }

    /// Whether a limit is passed by a delete on `table`, after which the transaction has removed `after` of each, and before
    /// which `before`. Every table is a root: what goes by its cascade counts for it and not for those below it.
    fn is_stopped(&self, table: usize, before: &[i64], after: &[i64]) -> bool {
        let passes = |root: usize| {
            let reached = &self.closures[root];
            let cascaded: i64 = reached.iter().map(|below| after[*below]).sum();
            let went = |below: &usize| *below != table && after[*below] > before[*below];
            cascaded > self.limits[root].1 && reached.iter().any(went)
        };
        let above = |root: usize| (0..TABLES).any(|above| self.closures[above].contains(&root) && after[above] > 0);
        (after[table] > before[table] && after[table] > self.limits[table].0)
            || (0..TABLES).any(|root| after[root] > 0 && !above(root) && passes(root))
    }
}

#[tokio::test]
async fn random_schemas_and_deletes_are_stopped_exactly_where_a_count_of_the_rows_says() {
    for_each_server(async |server| {
        let mut dice = Dice(20_261_130);
        let (mut passed, mut was_stopped) = (0, 0);
        for _ in 0..SCHEMAS {
            let database = server.database("random").await;
            let mut client = database.connect().await;
            let random = Random::create(&mut dice, &mut client).await;
            let (free, app) = (database.connect().await, database.connect().await);
            for _ in 0..12 {
                run(&free, "BEGIN").await;
                run(&app, "BEGIN").await;
                let mut before = vec![0; TABLES];
                for _ in 0..6 {
                    let (table, first, rows) = (dice.below(TABLES), dice.below(ROWS), 1 + dice.below(4));
                    let sql = |schema: &str| {
                        format!("DELETE FROM {schema}.t{table} WHERE id >= {first} AND id < {first} + {rows}")
                    };
                    run(&free, &sql("free")).await;
                    let mut after = Vec::new();
                    for table in 0..TABLES {
                        after.push(i64::try_from(ROWS).unwrap() - count(&free, &format!("free.t{table}")).await);
                    }
                    let result = app.batch_execute(&sql("held")).await;
                    let expected = random.is_stopped(table, &before, &after);
                    assert_eq!(
                        result.is_err(),
                        expected,
                        "{} {before:?} {after:?} {:?} {result:?}",
                        sql("held"),
                        random.limits
                    );
                    if expected {
                        was_stopped += 1;
                        break;
                    }
                    passed += 1;
                    before = after;
                }
                run(&free, "ROLLBACK").await;
                run(&app, "ROLLBACK").await;
            }
            drop((client, free, app));
            database.finish().await;
        }
        let seen: BTreeMap<&str, i32> = BTreeMap::from([("passed", passed), ("stopped", was_stopped)]);
        assert!(seen.values().all(|times| *times > 25), "{seen:?}");
    })
    .await;
}
