//! Schemas that other projects wrote, with their rows: dumped, verified, drilled, and restored into a new database that is the same.
//! `e2e/postgres/schema.sh` downloads them.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Command;

use pgrail_testing::{OwnServer, for_each_server, servers};
use support::whole::{comes_back, psql};

/// What psql reads of a schema, in one text.
fn sql_of(name: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/postgres/schema.sh");
    let output = Command::new(script).arg(name).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let directory = String::from_utf8(output.stdout).unwrap();
    let read = |file| std::fs::read_to_string(Path::new(directory.trim()).join(file)).unwrap_or_default();
    ["schema.sql", "images.sql", "data.sql"].map(read).join("\n")
}

/// At least so many lines of definitions, tables and sequences, and rows.
async fn schema_comes_back(name: &str, least: (usize, usize, u64)) {
    let sql = sql_of(name);
    let throwaway = OwnServer::start(servers().last().unwrap().major, &[]).await;
    for_each_server(async |server| {
        let database = server.database(name).await;
        psql(&server, &database.uri, sql.clone());
        // One archive of the oldest version, several of the newest.
        let jobs = if server.major == throwaway.server.major { 2 } else { 1 };
        let back = comes_back(&server, &database, jobs, &throwaway.server, None).await;
        // Both have functions: the restore reports as whom those ran that it had to call.
        let expected =
            |note: &&String| !note.starts_with("functions of the backup that the restore had to call ran as");
        assert_eq!(back.notes.iter().find(expected), None);
        let found = (back.definitions, back.relations, back.manifest.rows);
        assert!(found.0 >= least.0 && found.1 >= least.1 && found.2 >= least.2, "{found:?}");
        database.finish().await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a download: e2e/postgres/schema.sh zabbix"]
async fn zabbix_comes_back_as_it_was() {
    schema_comes_back("zabbix", (5000, 173, 130_000)).await;
}

#[tokio::test]
#[ignore = "needs a download: e2e/postgres/schema.sh kea"]
async fn kea_comes_back_as_it_was() {
    schema_comes_back("kea", (5000, 60, 40)).await;
}
