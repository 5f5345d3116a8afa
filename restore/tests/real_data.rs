//! One database with everything that databases in use contain: dumped, verified, drilled, and restored into a new database that
//! is the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use pgrail_testing::{OwnServer, connect, for_each_server, servers};
use support::run;
use support::whole::{comes_back, psql};

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
        // One archive of the oldest version, several of the newest.
        let jobs = if server.major == throwaway.server.major { 3 } else { 1 };
        let back = comes_back(&server, &database, jobs, &throwaway.server, Some("public.by_enum")).await;
        assert!(back.definitions > 1500 && back.relations > 40, "{back:?}");
        assert_eq!(back.manifest.archives.len() > 3, jobs > 1, "{:?}", back.manifest.archives);
        let notes = back.notes.join("\n");
        for expected in ["SUBSCRIPTION from_old", "the statistics of public.sharded could not be collected"] {
            assert!(notes.contains(expected), "{notes}");
        }
        assert!(!notes.contains("hunter22"), "{notes}");
        let source = database.connect().await;
        for statement in ["SET default_transaction_read_only = off", "ALTER SUBSCRIPTION from_old SET (slot_name = NONE)", "DROP SUBSCRIPTION from_old"] {
            run(&source, statement).await;
        }
        drop(source);
        database.finish().await;
        run(&admin, &format!("DROP ROLE {owner}, {reader}")).await;
    })
    .await;
}
