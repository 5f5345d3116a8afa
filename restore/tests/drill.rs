//! Full drills: a backup restored with all of its rows into a server of no other use.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::future::pending;

use pgrail_dump::{DrillOutcome, DrillResult, Manifest, Message, Reason};
use pgrail_restore::{DrillQuery, DrillRequest, Expectation, drill};
use pgrail_testing::{Database, OwnServer, client_programs, connect, for_each_server, servers};
use support::{Backup, backup, parallel_backup, run, settings_of};

/// A server of no other use, of the newest version.
struct Drill {
    server: OwnServer,
    major: u32,
}

impl Drill {
    async fn new() -> Self {
        let major = servers().last().unwrap().major;
        Self { server: OwnServer::start(major, &[]).await, major }
    }

    fn request(&self, backup: &Backup, queries: &[(&str, &str)]) -> DrillRequest {
        let query = |(number, (sql, expect)): (usize, &(&str, &str))| DrillQuery {
            name: format!("query {number}"),
            sql: (*sql).to_owned(),
            expect: Expectation::parse(expect).unwrap(),
        };
        DrillRequest {
            location: backup.location.clone(),
            manifest_sha256: backup.manifest_sha256.clone(),
            server: settings_of(&self.server.server.uri),
            queries: queries.iter().enumerate().map(query).collect(),
            client_directory: Some(client_programs(self.major)),
            clock: jiff::Timestamp::now,
        }
    }

    async fn of(&self, backup: &Backup, queries: &[(&str, &str)]) -> DrillResult {
        let result = drill(&self.request(backup, queries), &backup.store, &|_| {}, pending()).await.unwrap();
        assert!(Message::Drill(result.clone()).to_json().len() <= pgrail_dump::MESSAGE_BYTES);
        result
    }
}

async fn sql(database: &Database, sql: &str) {
    run(&database.connect().await, sql).await;
}

const SHOP: &str = "
    CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE);
    INSERT INTO users (name) SELECT 'user ' || n FROM generate_series(1, 1000) n;
    CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, total numeric);
    INSERT INTO orders SELECT n, n % 1000 + 1, n FROM generate_series(1, 5000) n;
    CREATE TABLE events (at date) PARTITION BY RANGE (at);
    CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO events VALUES ('2026-11-23');
    CREATE MATERIALIZED VIEW report AS SELECT count(*) AS n FROM users;
    CREATE SCHEMA hidden; CREATE TABLE hidden.secrets (id int); INSERT INTO hidden.secrets VALUES (1);
    ALTER TABLE hidden.secrets ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden.secrets FORCE ROW LEVEL SECURITY;
    SELECT lo_from_bytea(0, 'large');";
const SHOP_ROWS: u64 = 1000 + 5000 + 1 + 1;

const LOG_DDL: &str =
    "CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'it acts'; END $$";

#[tokio::test]
async fn everything_is_restored_counted_and_queried_and_nothing_of_it_acts() {
    let drill = Drill::new().await;
    for_each_server(async |server| {
        let database = server.database("drilled").await;
        let role = server.role_name("owner");
        sql(&database, SHOP).await;
        let grants = format!(
            "CREATE ROLE {role}; ALTER TABLE orders OWNER TO {role}; GRANT SELECT ON users TO {role};
             CREATE POLICY own ON hidden.secrets TO {role} USING (true)"
        );
        sql(&database, &grants).await;
        sql(&database, LOG_DDL).await;
        // They would act in a copy: replicate into it, fire on DDL.
        sql(&database, "CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION one FOR TABLE users").await;
        let from_old = "CREATE SUBSCRIPTION from_old CONNECTION 'host=127.0.0.1 port=1 password=hunter22' \
             PUBLICATION p WITH (connect = false)";
        sql(&database, from_old).await;
        sql(&database, "ALTER SUBSCRIPTION from_old ENABLE").await;
        sql(&database, "CREATE EVENT TRIGGER log_ddl ON ddl_command_start EXECUTE FUNCTION log_ddl()").await;
        let backup = backup(&database).await;
        let queries = [
            ("SELECT count(*) FROM users", "= 1000"),
            ("SELECT sum(total) FROM orders", "> 12502499.9"),
            ("SELECT name FROM users WHERE id = 42", "user 42"),
            ("SELECT n FROM report", "1000"),
            ("SELECT count(subname) FROM pg_subscription", "= 0"),
            ("SELECT count(*) FROM pg_event_trigger", "= 0"),
            ("SELECT rolsuper FROM pg_roles WHERE rolname = session_user", "f"),
            ("SHOW transaction_read_only", "on"),
        ];
        // Twice: what one leaves does not break the next.
        for _ in 0..2 {
            let result = drill.of(&backup, &queries).await;
            assert_eq!((result.outcome, result.message.as_str()), (DrillOutcome::Restored, ""), "{result:#?}");
            assert_eq!((result.tables, result.rows), (4, SHOP_ROWS), "{result:#?}");
            assert!(result.queries.iter().all(|query| query.passed) && result.queries.len() == 8, "{result:#?}");
            assert!(result.seconds >= 1 && result.server["fsync"] == "off" && result.server.contains_key("version"));
            let notes = result.notes.join("\n");
            assert!(notes.contains("SUBSCRIPTION from_old") && notes.contains("EVENT TRIGGER log_ddl"), "{notes}");
            assert!(!format!("{result:?}").contains("hunter22"));
        }
        let end = ["DROP EVENT TRIGGER log_ddl", "ALTER SUBSCRIPTION from_old DISABLE"];
        let end =
            end.into_iter().chain(["ALTER SUBSCRIPTION from_old SET (slot_name = NONE)", "DROP SUBSCRIPTION from_old"]);
        for statement in end {
            sql(&database, statement).await;
        }
        sql(&database, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn several_archives_are_restored_as_one() {
    let drill = Drill::new().await;
    for_each_server(async |server| {
        let database = server.database("several").await;
        sql(&database, SHOP).await;
        let large = "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 20000) n;
             CREATE TABLE larger AS SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 25000) n;
             ALTER TABLE large ADD PRIMARY KEY (n); CREATE INDEX ON larger (n)";
        sql(&database, large).await;
        let backup = parallel_backup(&database).await;
        let manifest = Manifest::read(&backup.store, &backup.location).await.unwrap();
        assert!(manifest.archives.len() > 3, "{:?}", manifest.archives);
        let queries =
            [("SELECT count(*) FROM pg_indexes WHERE tablename = 'larger'", "= 1"), ("SELECT n FROM report", "1000")];
        let result = drill.of(&backup, &queries).await;
        assert_eq!((result.outcome, result.rows), (DrillOutcome::Restored, SHOP_ROWS + 45_000), "{result:#?}");
        database.finish().await;
    })
    .await;
}

/// It runs where rows are checked, where indexes are created, and in queries. Whatever succeeds makes the drill fail.
const ATTEMPT: &str = "CREATE FUNCTION attempt() RETURNS bool LANGUAGE plpgsql AS $$ DECLARE it text; BEGIN
       IF pg_catalog.current_database() <> 'pgrail_drill' THEN RETURN true; END IF;
       FOREACH it IN ARRAY ARRAY['SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres',
         'ALTER SYSTEM SET work_mem = ''1MB''', 'COPY (SELECT 1) TO PROGRAM ''touch WITNESS''',
         'COPY (SELECT 1) TO ''WITNESS''', 'CREATE ROLE other', 'ALTER ROLE postgres RENAME TO other',
         'CREATE FUNCTION c() RETURNS int LANGUAGE internal AS ''pg_backend_pid''',
         'SELECT pg_catalog.pg_read_file(''PG_VERSION'')', 'SELECT rolpassword FROM pg_catalog.pg_authid',
         'CREATE EXTENSION file_fdw', 'LOAD ''/tmp/x.so''',
         'CREATE SUBSCRIPTION s CONNECTION ''host=127.0.0.1 port=1'' PUBLICATION p WITH (connect = false)',
         'CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION public.log_ddl()'] LOOP
         BEGIN EXECUTE it; EXCEPTION WHEN OTHERS THEN CONTINUE; END;
         RAISE EXCEPTION 'escaped: %', it;
       END LOOP; RETURN true; END $$;
     CREATE TABLE traps (id int CHECK (attempt())); INSERT INTO traps VALUES (1);
     CREATE MATERIALIZED VIEW trap AS SELECT attempt();
     CREATE FUNCTION of_index(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
       AS $$ BEGIN PERFORM public.attempt(); RETURN $1; END $$;
     CREATE INDEX ON traps (of_index(id))";

#[tokio::test]
async fn code_of_a_backup_has_no_more_than_its_role() {
    let drill = Drill::new().await;
    let witness = std::env::temp_dir().join(format!("pgrail-escaped-{}", std::process::id()));
    for_each_server(async |server| {
        let database = server.database("hostile").await;
        sql(&database, LOG_DDL).await;
        sql(&database, &ATTEMPT.replace("WITNESS", &witness.display().to_string())).await;
        let result = drill.of(&backup(&database).await, &[("SELECT attempt()", "t")]).await;
        assert_eq!(result.outcome, DrillOutcome::Restored, "{result:#?}");
        assert!(!witness.exists());
        database.finish().await;
    })
    .await;
    let admin = connect(&drill.server.server.uri).await;
    assert_eq!(support::count(&admin, "pg_roles WHERE rolname = 'other'").await, 0);
}

#[tokio::test]
async fn a_backup_that_is_not_what_its_manifest_says_fails() {
    let drill = Drill::new().await;
    let database = servers().remove(0).database("less").await;
    sql(&database, SHOP).await;
    let mut backup = backup(&database).await;
    let published = backup.manifest_sha256.clone();
    let file = backup.root.as_ref().unwrap().path().join("dumps").join(&backup.location).join("manifest.json");
    let original = std::fs::read_to_string(&file).unwrap();
    // By a user who can write to the bucket.
    std::fs::write(&file, original.replace("\"counted\":1000", "\"counted\":1001")).unwrap();
    let result = drill.of(&backup, &[]).await;
    assert_eq!((result.outcome, result.reason), (DrillOutcome::Failed, Some(Reason::ChecksumMismatch)), "{result:#?}");
    // Rows are missing.
    backup.manifest_sha256 = Manifest::read_with_sha256(&backup.store, &backup.location).await.unwrap().1;
    let result = drill.of(&backup, &[("SELECT 1", "1")]).await;
    assert_eq!((result.outcome, result.reason), (DrillOutcome::Failed, Some(Reason::RowCountMismatch)), "{result:#?}");
    assert!(result.message.contains("public.users has 1000 rows instead of 1001"), "{}", result.message);
    assert!(result.queries.is_empty() && result.seconds >= 1);
    // Another byte in the rows.
    std::fs::write(&file, original).unwrap();
    backup.manifest_sha256 = published;
    let archive = file.with_file_name("dump.pgc.000");
    let mut bytes = std::fs::read(&archive).unwrap();
    let place = bytes.len() - 50;
    bytes[place] ^= 1;
    std::fs::write(&archive, &bytes).unwrap();
    assert_eq!(drill.of(&backup, &[]).await.outcome, DrillOutcome::Failed);
    std::fs::remove_file(&archive).unwrap();
    let result = drill.of(&backup, &[]).await;
    assert_eq!((result.outcome, result.reason), (DrillOutcome::Failed, Some(Reason::ObjectMissing)), "{result:#?}");
    database.finish().await;
}

#[tokio::test]
async fn every_query_that_returns_something_else_is_reported() {
    let drill = Drill::new().await;
    let database = servers().remove(0).database("queries").await;
    sql(&database, SHOP).await;
    let queries = [
        ("SELECT count(*) FROM users", "> 1000"),
        ("SELECT count(*) FROM users", "> 999"),
        ("SELECT NULL", "!= 1"),
        ("SELECT id FROM users", "> 0"),
        ("SELECT 1, 2", "1"),
        ("SELECT 1; SELECT 2", "1"),
        ("SELECT no_such_column FROM users", "1"),
        ("INSERT INTO events VALUES ('2026-01-01') RETURNING 1", "1"),
        ("COMMIT", "1"),
    ];
    let result = drill.of(&backup(&database).await, &queries).await;
    assert_eq!((result.outcome, result.reason), (DrillOutcome::Failed, Some(Reason::QueryFailed)));
    let passed: Vec<_> = result.queries.iter().map(|query| query.passed).collect();
    assert_eq!(passed, [false, true, false, false, false, false, false, false, false], "{result:#?}");
    for part in [
        "query 0 returned \"1000\", and > 1000 is expected",
        "NULL",
        "1000 rows",
        "2 columns",
        "read-only",
        "no_such_column",
        "multiple commands",
    ] {
        assert!(result.message.contains(part), "{part}: {}", result.message);
    }
    assert_eq!(result.rows, SHOP_ROWS);
    database.finish().await;
}

#[tokio::test]
async fn rows_that_violate_a_constraint_are_found() {
    let drill = Drill::new().await;
    for_each_server(async |server| {
        let database = server.database("violated").await;
        sql(&database, SHOP).await;
        // No dump and no structural drill notices that.
        sql(&database, "SET session_replication_role = replica; INSERT INTO orders VALUES (9999, 424242, 1)").await;
        let result = drill.of(&backup(&database).await, &[]).await;
        assert_eq!((result.outcome, result.reason), (DrillOutcome::Failed, Some(Reason::NotRestorable)), "{result:#?}");
        let expected = "violates foreign key constraint \"orders_user_id_fkey\"";
        assert!(result.message.contains(expected), "{}", result.message);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_could_not_run_is_no_pass() {
    let mut drill = Drill::new().await;
    let server = servers().remove(0);
    assert!(server.major < 17, "adminpack was removed in 17");
    let not_run = |result: DrillResult, part: &str| {
        assert_eq!((result.outcome, result.reason), (DrillOutcome::NotRun, None), "{result:#?}");
        assert!(result.message.contains(part), "{}", result.message);
    };
    let database = server.database("lacking").await;
    sql(&database, "CREATE EXTENSION adminpack").await;
    not_run(drill.of(&backup(&database).await, &[]).await, "lacks extensions of the database: adminpack");
    let pid = "DROP EXTENSION adminpack; CREATE FUNCTION pid() RETURNS int LANGUAGE internal AS 'pg_backend_pid';
         CREATE TABLE needs (id int DEFAULT pid())";
    sql(&database, pid).await;
    not_run(drill.of(&backup(&database).await, &[]).await, "without superuser: public.needs");
    // What no table needs is left out.
    sql(&database, "ALTER TABLE needs ALTER id DROP DEFAULT").await;
    let backup = backup(&database).await;
    let result = drill.of(&backup, &[]).await;
    assert_eq!(result.outcome, DrillOutcome::Restored, "{result:#?}");
    assert!(result.notes.join("").contains("FUNCTION public.pid()"), "{result:#?}");
    drill.server.server.uri = drill.server.server.uri.replace("postgres:postgres@", "postgres:wrong@");
    not_run(drill.of(&backup, &[]).await, "does not answer");
    database.finish().await;
}

#[tokio::test]
async fn extensions_are_created_by_the_superuser_and_used_by_the_role() {
    let drill = Drill::new().await;
    let database = servers().last().unwrap().database("extensions").await;
    // Neither is trusted; the schema of one is in the dump.
    let extensions = "CREATE SCHEMA far; CREATE EXTENSION postgres_fdw SCHEMA far; CREATE EXTENSION pageinspect;
         COMMENT ON EXTENSION pageinspect IS 'x';
         CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
         CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (password 'hunter22');
         CREATE FOREIGN TABLE remote (id int) SERVER s;
         CREATE MATERIALIZED VIEW copy AS SELECT * FROM remote WITH NO DATA; CREATE TABLE near (id int); INSERT INTO near VALUES (1)";
    sql(&database, extensions).await;
    let queries = [
        ("SELECT count(*) FROM pg_extension WHERE extname IN ('postgres_fdw', 'pageinspect')", "2"),
        ("SELECT count(*) FROM pg_user_mappings", "0"),
    ];
    let result = drill.of(&backup(&database).await, &queries).await;
    assert_eq!((result.outcome, result.rows), (DrillOutcome::Restored, 1), "{result:#?}");
    assert!(!format!("{result:?}").contains("hunter22"));
    database.finish().await;
}
