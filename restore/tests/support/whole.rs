//! A whole database: dumped, verified, drilled, and restored into a new database that is the same.

use std::future::pending;
use std::process::{Command, Output, Stdio};
use std::{io::Write, thread};

use pgrail_dump::{DrillOutcome, Manifest, StructureOutcome, VerifyRequest};
use pgrail_postgres::AddressPolicy;
use pgrail_restore::{DatabaseRequest, DrillRequest, drill, restore_database};
use pgrail_testing::{Client, Database, Server, client_programs, connect, programs};

use super::{Backup, digest, dumped_in, file_store, publish, run, settings_of};

const RELATIONS: &str = "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, c.relispopulated FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND coalesce(pg_partition_root(c.oid) <> to_regclass($1), true) ORDER BY 1";
/// By their content: a restore writes the holes of sparse ones, too.
const LARGE_OBJECTS: &str = "SELECT format('large object %s %s %s %s', oid, lomowner::regrole, lomacl, md5(lo_get(oid))) \
     FROM pg_largeobject_metadata ORDER BY oid";
const OF_DATABASE: &str = "SELECT unnest(setconfig) FROM pg_db_role_setting \
     WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) AND setrole = 0 ORDER BY 1";

/// What came back.
#[derive(Debug)]
pub struct Back {
    pub manifest: Manifest,
    pub notes: Vec<String>,
    /// Lines of the definitions, and tables, sequences and the like, that are the same.
    pub definitions: usize,
    pub relations: usize,
}

/// Dumps, verifies and drills a database, restores it into a new one, compares every definition and every row, and removes it again.
/// The client is that of the server `throwaway`, where it is drilled. `together` is a partitioned table whose partitions are compared
/// as one: in which of them a row is depends on the OIDs of an enum.
pub async fn comes_back(
    server: &Server,
    database: &Database,
    jobs: u32,
    throwaway: &Server,
    together: Option<&str>,
) -> Back {
    let source = database.connect().await;
    let (of_source, rows_of_source) = (definitions(server, &database.uri), rows(&source, together).await);
    let backup = drilled_structure(&database.uri, jobs, throwaway).await;
    let manifest = backup.extract.manifest();
    assert_eq!(manifest.remarks.warnings, [""; 0]);

    let request = DrillRequest {
        location: backup.location.clone(),
        manifest_sha256: backup.manifest_sha256.clone(),
        server: settings_of(&throwaway.uri),
        queries: Vec::new(),
        client_directory: Some(client_programs(throwaway.major)),
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
        id: format!("whole-{jobs}"),
        client_directory: Some(client_programs(throwaway.major)),
    };
    let restored = restore_database(&request, &backup.extract, &|_| {}, pending()).await.unwrap();
    assert_eq!(restored.rows(), manifest.rows);
    let uri = server.uri_of(&name);
    same(&definitions(server, &uri), &of_source);
    let copy = connect(&uri).await;
    same(&rows(&copy, together).await, &rows_of_source);
    drop(copy);
    run(&connect(&server.uri).await, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    let (definitions, relations) = (of_source.len(), rows_of_source.len());
    Back { manifest: manifest.clone(), notes: restored.notes, definitions, relations }
}

/// Each statement in a transaction of its own, unlike a batch.
pub fn psql(server: &Server, uri: &str, sql: String) {
    let mut command = Command::new(programs(server.major).join("psql"));
    command.args(["-qX", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--output=/dev/null", "--dbname", uri]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = thread::spawn(move || input.write_all(sql.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().unwrap().unwrap();
}

fn output(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
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
async fn rows(client: &Client, together: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for row in client.query(RELATIONS, &[&together]).await.unwrap() {
        let (name, kind, populated): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let from = match kind.as_str() {
            "S" => format!("(SELECT last_value, is_called FROM {name}) t"),
            _ if populated => format!("ONLY {name} t"),
            _ => "(SELECT 'not populated') t".to_owned(),
        };
        all.push(format!("{name} {}", digest(client, &from).await));
    }
    if let Some(name) = together {
        all.push(format!("{name} {}", digest(client, &format!("{name} t")).await));
    }
    for lines in [LARGE_OBJECTS, OF_DATABASE] {
        all.extend(client.query(lines, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

/// Dumps, reads back, and restores the structure. The client is the newest one, as in the image.
async fn drilled_structure(uri: &str, jobs: u32, throwaway: &Server) -> Backup {
    let (root, store) = file_store();
    let dumped = dumped_in(&store, uri, throwaway.major, |request| request.jobs = jobs).await;
    let mut wanted = VerifyRequest::new(dumped);
    wanted.structure = Some(settings_of(&throwaway.uri));
    wanted.client_directory = Some(client_programs(throwaway.major));
    let backup = publish(&store, &wanted).await;
    let structure = backup.verified.structure.as_ref().unwrap();
    assert_eq!((structure.outcome, structure.message.as_str()), (StructureOutcome::Restored, ""));
    Backup { root: Some(root), ..backup }
}

/// Shows the lines that differ.
fn same(found: &[String], expected: &[String]) {
    let lines = |these: &[String], others: &[String], mark: &str| {
        let missing = these.iter().filter(|line| !others.contains(line)).take(20);
        missing.map(|line| format!("{mark} {line}\n")).collect::<Vec<_>>().concat()
    };
    assert!(found == expected, "{}{}", lines(expected, found, "-"), lines(found, expected, "+"));
}
