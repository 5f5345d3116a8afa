//! One database with everything that databases in use contain: dumped, verified, drilled, and restored into a new database that
//! is the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::future::pending;
use std::process::{Command, Output, Stdio};
use std::{io::Write, thread};

use pgrail_dump::{DrillOutcome, StructureOutcome, VerifyRequest};
use pgrail_postgres::AddressPolicy;
use pgrail_restore::{DatabaseRequest, DrillRequest, drill, restore_database};
use pgrail_testing::{Client, OwnServer, Server, connect, for_each_server, programs, servers};
use support::{Backup, digest, dumped_in, file_store, publish, run, settings_of};

const DATA: &str = include_str!("real_data.sql");

/// What later versions have.
const SINCE_18: &str = "
    CREATE TABLE virtual (id int, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, CONSTRAINT later CHECK (id > 0) NOT ENFORCED);
    INSERT INTO virtual VALUES (1), (NULL); ALTER TABLE virtual ADD CONSTRAINT \"not \"\"null\" NOT NULL id NOT VALID;
    CREATE TABLE periods (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS)); INSERT INTO periods VALUES (1, '[2026-01-01,2026-02-01)');
    CREATE TABLE of_periods (id int, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES periods (id, PERIOD during));
    INSERT INTO of_periods VALUES (1, '[2026-01-02,2026-01-03)');
    CREATE COLLATION builtin (provider = builtin, locale = 'C.UTF-8');";

/// Settings of the database that change what text means, or stop what is not prepared for them.
const SETTINGS: [&str; 12] = [
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = 0",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "default_transaction_read_only = on",
    "search_path = app, \"$user\"",
    "timezone = 'Asia/Kolkata'",
    "xmloption = 'document'",
    "row_security = off",
    "client_encoding = 'LATIN1'",
];

const RELATIONS: &str = "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relispopulated FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname !~ '^by_enum_' ORDER BY 1";
/// By their content: a restore writes the holes of sparse ones, too.
const LARGE_OBJECTS: &str = "SELECT format('large object %s %s %s %s', oid, lomowner::regrole, lomacl, md5(lo_get(oid))) \
     FROM pg_largeobject_metadata ORDER BY oid";
const OF_DATABASE: &str = "SELECT unnest(setconfig) FROM pg_db_role_setting \
     WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND setrole = 0 ORDER BY 1";

fn output(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Each statement in a transaction of its own, unlike a batch.
fn psql(server: &Server, uri: &str, sql: String) {
    let mut command = Command::new(programs(server.major).join("psql"));
    command.args(["-qX", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--output=/dev/null", "--dbname", uri]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(sql.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().unwrap().unwrap();
}

/// Every definition, as pg_dump writes it.
fn definitions(server: &Server, uri: &str) -> Vec<String> {
    let mut command = Command::new(programs(server.major).join("pg_dump"));
    command.args(["--schema-only", "--no-subscriptions", "--encoding=UTF8", "--dbname", uri]);
    let text = String::from_utf8(output(command).stdout).unwrap();
    // A random word of each dump.
    let same = |line: &&str| !["\\restrict ", "\\unrestrict "].iter().any(|start| line.starts_with(start));
    text.lines().filter(same).map(str::to_owned).collect()
}

/// Every relation with a digest of its rows.
async fn rows(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for row in client.query(RELATIONS, &[]).await.unwrap() {
        let (name, kind, populated): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let from = match kind.as_str() {
            "S" => format!("(SELECT last_value, is_called FROM {name}) t"),
            _ if populated => format!("ONLY {name} t"),
            _ => "(SELECT 'not populated') t".to_owned(),
        };
        all.push(format!("{name} {}", digest(client, &from).await));
    }
    // In which of its partitions a row is depends on the OIDs of the enum.
    all.push(format!("by_enum {}", digest(client, "public.by_enum t").await));
    for lines in [LARGE_OBJECTS, OF_DATABASE] {
        all.extend(client.query(lines, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

/// Dumps, reads back, and restores the structure. The client is the newest one, as in the image.
async fn backup(uri: &str, jobs: u32, throwaway: &Server) -> Backup {
    let (root, store) = file_store();
    let dumped = dumped_in(&store, uri, throwaway.major, |request| request.jobs = jobs).await;
    let mut wanted = VerifyRequest::new(dumped);
    wanted.structure = Some(settings_of(&throwaway.uri));
    wanted.client_directory = Some(programs(throwaway.major));
    let backup = publish(&store, &wanted).await;
    let structure = backup.verified.structure.as_ref().unwrap();
    assert_eq!((structure.outcome, structure.message.as_str()), (StructureOutcome::Restored, ""));
    Backup { root: Some(root), ..backup }
}

#[tokio::test]
async fn a_database_with_everything_comes_back_as_it_was() {
    let throwaway = OwnServer::start(servers().last().unwrap().major, &[]).await;
    for_each_server(async |server| {
        let database = server.database("real").await;
        let (owner, reader) = (server.role_name("owner"), server.role_name("reader"));
        let admin = connect(&server.uri).await;
        run(&admin, &format!("CREATE ROLE {owner}; CREATE ROLE {reader}")).await;
        let mut sql = DATA.replace("{owner}", &owner).replace("{reader}", &reader).replace("{file}", "/etc/passwd");
        if server.major >= 18 {
            sql.push_str(SINCE_18);
        }
        sql.push_str("CREATE SUBSCRIPTION from_old CONNECTION 'host=127.0.0.1 port=1 password=hunter22' PUBLICATION p WITH (connect = false);
            CREATE EVENT TRIGGER \"on \"\"ddl\" ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION no_ddl(); ALTER EVENT TRIGGER \"on \"\"ddl\" ENABLE ALWAYS;");
        psql(&server, &database.uri, sql);
        for setting in SETTINGS {
            run(&admin, &format!("ALTER DATABASE {} SET {setting}", database.name)).await;
        }
        let source = database.connect().await;
        let (of_source, rows_of_source) = (definitions(&server, &database.uri), rows(&source).await);
        assert!(of_source.len() > 1500 && rows_of_source.len() > 40, "{} {}", of_source.len(), rows_of_source.len());
        // One archive of the oldest version, several of the newest.
        let jobs = if server.major == throwaway.server.major { 3 } else { 1 };
        let backup = backup(&database.uri, jobs, &throwaway.server).await;
        let manifest = backup.extract.manifest();
        assert_eq!(manifest.archives.len() > 3, jobs > 1, "{:?}", manifest.archives);
        assert_eq!(manifest.remarks.warnings, [""; 0]);

        let request = DrillRequest {
            location: backup.location.clone(),
            manifest_sha256: backup.manifest_sha256.clone(),
            server: settings_of(&throwaway.server.uri),
            queries: Vec::new(),
            client_directory: Some(programs(throwaway.server.major)),
            clock: jiff::Timestamp::now,
        };
        let drilled = drill(&request, &backup.store, &|_| {}, pending()).await.unwrap();
        assert_eq!((drilled.outcome, drilled.message.as_str()), (DrillOutcome::Restored, ""), "{drilled:#?}");
        assert_eq!(drilled.rows, manifest.rows, "{drilled:#?}");

        let name = format!("{}_copy{jobs}", database.name);
        let request = DatabaseRequest {
            connection: settings_of(&server.uri),
            addresses: AddressPolicy::any(),
            name: name.clone(),
            id: format!("real-{jobs}"),
            client_directory: Some(programs(throwaway.server.major)),
        };
        let restored = restore_database(&request, &backup.extract, &|_| {}, pending()).await.unwrap();
        assert_eq!(restored.rows(), manifest.rows);
        let notes = restored.notes.join("\n");
        for expected in ["SUBSCRIPTION from_old", "the statistics of public.sharded could not be collected"] {
            assert!(notes.contains(expected), "{notes}");
        }
        assert!(!notes.contains("hunter22"), "{notes}");
        let uri = server.uri_of(&name);
        same(&definitions(&server, &uri), &of_source);
        let copy = connect(&uri).await;
        same(&rows(&copy).await, &rows_of_source);
        drop(copy);
        run(&admin, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
        for statement in ["SET default_transaction_read_only = off", "ALTER SUBSCRIPTION from_old SET (slot_name = NONE)", "DROP SUBSCRIPTION from_old"] {
            run(&source, statement).await;
        }
        drop(source);
        database.finish().await;
        run(&admin, &format!("DROP ROLE {owner}, {reader}")).await;
    })
    .await;
}

/// Shows the lines that differ.
fn same(found: &[String], expected: &[String]) {
    let lines = |these: &[String], others: &[String], mark: &str| {
        let missing = these.iter().filter(|line| !others.contains(line)).take(20);
        missing.map(|line| format!("{mark} {line}\n")).collect::<Vec<_>>().concat()
    };
    assert!(found == expected, "{}{}", lines(expected, found, "-"), lines(found, expected, "+"));
}
