//! Exact counts of tables whose indexes and statistics call functions of the user, which the planner evaluates.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pgrail_dump::{DumpError, DumpResult, Rows, dump, verify};
use pgrail_testing::{Database, for_each_server};
use support::{file_store, quiet, request, verify_request};

/// Functions that need a search path, in everything that can call one. PostgreSQL 17 and later create no such index, but keep
/// one whose function is replaced later, as one of an upgraded server.
const TABLES: &str = "
    CREATE FUNCTION inner_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION outer_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION is_even(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 % 2 = 0';
    CREATE FUNCTION add_one(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + $2';
    CREATE OPERATOR <+> (LEFTARG = int, RIGHTARG = int, FUNCTION = add_one);
    CREATE TABLE indexed (note text, id int); CREATE INDEX ON indexed (outer_one(id));
    CREATE TABLE partial (id int); CREATE INDEX ON partial (id) WHERE is_even(id);
    CREATE TABLE by_operator (id int); CREATE INDEX ON by_operator ((id <+> 1));
    CREATE TABLE measured (id int, note text); CREATE STATISTICS of_measured ON outer_one(id), note FROM measured;
    CREATE TABLE generated (id int, twice int GENERATED ALWAYS AS (outer_one(id)) STORED);
    CREATE TABLE only_generated (one int GENERATED ALWAYS AS (outer_one(1)) STORED); CREATE INDEX ON only_generated (outer_one(one));
    CREATE TABLE parent (id int); CREATE INDEX ON parent (outer_one(id)); CREATE TABLE child () INHERITS (parent);
    CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE INDEX ON parted (outer_one(id));
    CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
    CREATE TABLE secured (id int); CREATE INDEX ON secured (outer_one(id)); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    CREATE TABLE plain (id int); CREATE INDEX ON plain (abs(id));
    INSERT INTO indexed SELECT E'two\\nlines\\t\\\\N\\r\\n' || n, n FROM generate_series(1, 11) n; INSERT INTO indexed VALUES (NULL, NULL);
    INSERT INTO partial SELECT generate_series(1, 13);
    INSERT INTO by_operator SELECT generate_series(1, 14);
    INSERT INTO measured SELECT n, 'x' FROM generate_series(1, 15) n;
    INSERT INTO generated SELECT generate_series(1, 16);
    INSERT INTO only_generated DEFAULT VALUES; INSERT INTO only_generated DEFAULT VALUES;
    INSERT INTO parent SELECT generate_series(1, 3); INSERT INTO child SELECT generate_series(1, 4);
    INSERT INTO parted SELECT generate_series(1, 18);
    INSERT INTO secured SELECT generate_series(1, 19);
    INSERT INTO plain SELECT generate_series(1, 20);
    CREATE OR REPLACE FUNCTION outer_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT inner_one($1)';
    CREATE OR REPLACE FUNCTION is_even(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT inner_one($1) % 2 = 0';
    CREATE OR REPLACE FUNCTION add_one(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT inner_one($1) + $2';";

const EXPECTED: [(&str, u64); 11] = [
    ("indexed", 12),
    ("partial", 13),
    ("by_operator", 14),
    ("measured", 15),
    ("generated", 16),
    ("only_generated", 2),
    ("parent", 3),
    ("child", 4),
    ("part_1", 18),
    ("secured", 19),
    ("plain", 20),
];

async fn dumped(database: &Database, jobs: u32) -> Result<DumpResult, DumpError> {
    let store = file_store();
    let mut request = request(database);
    request.jobs = jobs;
    let result = dump(&request, &store.store, &quiet).await?;
    verify(&verify_request(&result), &store.store, &quiet).await.unwrap();
    Ok(result)
}

#[tokio::test]
async fn functions_that_need_a_search_path() {
    for_each_server(async |server| {
        let database = server.database("counts").await;
        let client = database.connect().await;
        client.batch_execute(TABLES).await.unwrap();
        // The planner does call them: with the search path of a dump, a count of each fails.
        let fails = async |table: &str| {
            let sql = format!("SET search_path = ''; SELECT count(*) FROM public.{table}");
            client.batch_execute(&sql).await.unwrap_err().code().unwrap().code().to_owned()
        };
        for table in ["indexed", "partial", "by_operator", "measured"] {
            assert_eq!(fails(table).await, "42883", "{table}");
        }
        for jobs in [1, 2] {
            let details = dumped(&database, jobs).await.unwrap().details.unwrap();
            for (name, rows) in EXPECTED {
                let found = details.table_rows.iter().find(|table| table.name == name).unwrap();
                assert_eq!(found.rows, Rows::Counted(rows), "{name}");
            }
            assert_eq!(details.table_rows.len(), EXPECTED.len());
        }
        database.finish().await;
    })
    .await;
}

/// An owner of a table could otherwise run code with the rights of the role that makes dumps, which reads everything.
#[tokio::test]
async fn code_of_a_table_does_not_run() {
    for_each_server(async |server| {
        let database = server.database("code").await;
        let client = database.connect().await;
        client
            .batch_execute(
                "CREATE FUNCTION trap(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
                 CREATE TABLE a (id int); CREATE INDEX ON a (trap(1)); INSERT INTO a VALUES (1), (2);
                 CREATE TABLE b (id int, note text); CREATE STATISTICS of_b ON trap(1), note FROM b; INSERT INTO b VALUES (1, 'x');
                 CREATE OR REPLACE FUNCTION trap(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$",
            )
            .await
            .unwrap();
        for table in ["a", "b"] {
            let error = client.batch_execute(&format!("SELECT count(*) FROM {table}")).await.unwrap_err();
            assert!(error.as_db_error().unwrap().message().starts_with("ran as"), "{error:?}");
        }
        assert_eq!(dumped(&database, 1).await.unwrap().rows, 3);
        database.finish().await;
    })
    .await;
}
