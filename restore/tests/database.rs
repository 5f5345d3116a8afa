//! Whole backups, restored into new databases.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::future::pending;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use pgrail_dump::Reason;
use pgrail_guard::{ClusterId, GuardName, GuardSpec, TableSelector, apply, observe, plan};
use pgrail_restore::{
    DatabaseRequest, DatabaseRestored, RestoreError, RestoreProgress, SchemaRequest, SchemaRestored, restore_database,
    restore_schema,
};
use pgrail_testing::{Client, Database, Server, client_programs, connect, for_each_server, servers};
use tokio::sync::Notify;

use support::{Backup, backup, backup_of, count, digest, drop_roles, roles, run, settings_of};

/// Every kind of object whose restore differs.
const SCHEMA: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, mood mood, n positive, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, note text);
CREATE TABLE events (at date, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE parent (id int); CREATE TABLE child (more int) INHERITS (parent);
CREATE TABLE secret (id int, owner text); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON secret USING (owner = current_user);
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES;
CREATE SCHEMA "Odd 'schema"; CREATE TABLE "Odd 'schema"."select x" ("the ""column""" int); INSERT INTO "Odd 'schema"."select x" VALUES (1), (2);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER audit AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION audit();
CREATE INDEX ON orders (user_id) WHERE note IS NOT NULL;
INSERT INTO users SELECT i, E'user\t' || i, 'happy', i FROM generate_series(1, 500) i;
INSERT INTO orders (user_id, note) SELECT i % 500 + 1, 'x' FROM generate_series(1, 3000) i;
INSERT INTO events SELECT '2026-01-01'::date + i, 'e' FROM generate_series(1, 200) i;
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2), (3, 3);
CREATE MATERIALIZED VIEW report AS SELECT count(*) FROM users;
COMMENT ON TABLE users IS 'the users';
SELECT lo_from_bytea(0, '\x00ff27');
"#;

fn new_name(server: &Server) -> String {
    format!("New 'db {}", server.role_name("copy"))
}

fn request_of(uri: &str, major: u32, name: &str) -> DatabaseRequest {
    DatabaseRequest {
        connection: settings_of(uri),
        addresses: pgrail_postgres::AddressPolicy::any(),
        name: name.to_owned(),
        id: "restore-1".to_owned(),
        client_directory: Some(client_programs(major)),
    }
}

async fn restore(request: &DatabaseRequest, backup: &Backup) -> Result<DatabaseRestored, RestoreError> {
    restore_database(request, &backup.extract, &|_: RestoreProgress| {}, pending()).await
}

async fn exists(admin: &Client, name: &str) -> bool {
    count(admin, &format!("pg_database WHERE datname = '{}'", name.replace('\'', "''"))).await > 0
}

async fn drop_database(admin: &Client, name: &str) {
    run(admin, &format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
}

/// A session in another database of the server, as the superuser.
async fn session_in(server: &Server, name: &str) -> Client {
    connect(&server.uri_of(&name.replace(' ', "%20").replace('\'', "%27"))).await
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What an archive would create, without what pgrail installed and what is never restored.
async fn labels(backup: &Backup) -> BTreeSet<String> {
    let entries = backup.extract.entries().await.unwrap();
    let left_out =
        |label: &String| label.contains("pgrail") || label.starts_with("SUBSCRIPTION") || label.starts_with("DATABASE");
    entries
        .iter()
        .map(pgrail_dump::Entry::label)
        .filter(|label| !left_out(label) && !label.contains("DATABASE \""))
        .collect()
}

async fn guard(database: &Database) {
    let mut client = database.connect().await;
    let users = TableSelector::table("public", "users").unwrap();
    let spec = GuardSpec::new(GuardName::new("shop/core").unwrap(), ClusterId::local(), vec![users]);
    let observed = observe(&client).await.unwrap();
    assert!(apply(client.as_mut(), &plan(&spec, &observed).unwrap()).await.unwrap().is_complete());
}

#[tokio::test]
async fn a_whole_backup_becomes_a_new_database() {
    for_each_server(async |server| {
        let database = server.database("whole").await;
        let admin = database.connect().await;
        run(&admin, SCHEMA).await;
        run(&admin, "CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl(); CREATE PUBLICATION everything FOR ALL TABLES").await;
        run(&admin, "CREATE SUBSCRIPTION from_old CONNECTION 'host=127.0.0.1 port=1 password=hunter22' PUBLICATION p WITH (connect = false)").await;
        run(&admin, &format!("ALTER DATABASE {0} SET search_path = public, \"Odd 'schema\"; ALTER DATABASE {0} SET app.key = 'hunter22'; ALTER DATABASE {0} SET log_statement = 'none'", database.name)).await;
        guard(&database).await;
        let backup = backup(&database).await;
        let name = new_name(&server);
        let request = request_of(&server.uri, server.major, &name);
        let restored = restore(&request, &backup).await.unwrap();

        let manifest = backup.extract.manifest();
        assert_eq!(restored.rows(), manifest.tables.iter().filter_map(|table| table.rows.number()).sum::<u64>());
        assert!(restored.tables.iter().any(|table| table.table == "public.orders" && table.rows == 3000), "{restored:#?}");
        let notes = restored.notes.join("\n");
        for expected in ["SUBSCRIPTION from_old", "not restored: app.key, log_statement", "as the superuser postgres"] {
            assert!(notes.contains(expected), "{notes}");
        }
        assert!(!notes.contains("hunter22") && !notes.contains("pgrail_"), "{notes}");

        // The same objects, rows, encoding, locale and settings; nothing of pgrail, and nothing that would run.
        let copy = session_in(&server, &name).await;
        assert_eq!(count(&copy, "pg_namespace WHERE nspname = 'pgrail'").await, 0);
        assert_eq!(count(&copy, "pg_trigger WHERE NOT tgisinternal").await, 1);
        assert_eq!(count(&copy, "pg_event_trigger").await, 1);
        assert_eq!(count(&copy, "pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()").await, 0);
        for table in ["users", "orders", "events", "child", "secret", "report"] {
            let from = format!("public.{table} t");
            assert_eq!(digest(&copy, &from).await, digest(&admin, &from).await, "{table}");
        }
        let same = "SELECT to_jsonb(d) - 'oid' - 'datname' - 'datfrozenxid' - 'datminmxid' - 'datacl' - 'dattablespace' FROM pg_database d WHERE datname = current_database()";
        assert_eq!(text(&copy, &format!("SELECT ({same})::text")).await, text(&admin, &format!("SELECT ({same})::text")).await);
        assert_eq!(text(&copy, "SHOW search_path").await, "public, \"Odd 'schema\"");
        assert!(count(&copy, "pg_statistic WHERE starelid = 'public.users'::regclass").await > 0, "ANALYZE");
        let mark = text(&copy, "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()").await;
        assert!(mark.starts_with("restored by pgrail from cluster/shop/nightly/"), "{mark}");
        let of_copy = backup_of(settings_uri(&server, &name).as_str(), server.major).await;
        assert_eq!(labels(&of_copy).await, labels(&backup).await);

        // No other role can connect, until somebody grants it.
        let stranger = server.role_name("stranger");
        run(&admin, &format!("CREATE ROLE {stranger} LOGIN")).await;
        let allowed = format!("SELECT has_database_privilege('{stranger}', current_database(), 'CONNECT')::text");
        assert_eq!(text(&copy, &allowed).await, "false");
        run(&admin, &format!("DROP ROLE {stranger}")).await;

        // An existing database is never touched.
        let error = restore(&request, &backup).await.unwrap_err();
        assert!(error.to_string().contains("exists: drop it, or choose another name"), "{error}");
        assert_eq!(count(&copy, "public.orders").await, 3000);
        drop(copy);
        drop_database(&admin, &name).await;
        run(&admin, "ALTER SUBSCRIPTION from_old DISABLE; ALTER SUBSCRIPTION from_old SET (slot_name = NONE); DROP SUBSCRIPTION from_old").await;
        drop(admin);
        database.finish().await;
    })
    .await;
}

fn settings_uri(server: &Server, name: &str) -> String {
    server.uri_of(&name.replace(' ', "%20").replace('\'', "%27"))
}

#[tokio::test]
async fn without_superuser_one_owner_owns_everything_and_runs_what_must_run() {
    for_each_server(async |server| {
        let database = server.database("owned").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        run(&admin, SCHEMA).await;
        // A function that the restore has to evaluate: it must not run as a superuser.
        run(&admin, "CREATE FUNCTION who() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN RAISE 'as superuser'; END IF; RETURN true; END $$;
             CREATE TABLE checked (id int CHECK (who())); INSERT INTO checked VALUES (1), (2)").await;
        let backup = backup(&database).await;
        run(&admin, &format!("RESET ROLE; ALTER ROLE {rail} CREATEDB")).await;
        let name = new_name(&server);
        let restored = restore(&request_of(&database.uri_for(&rail, "secret"), server.major, &name), &backup).await.unwrap();
        assert_eq!((restored.owner.as_str(), restored.notes.is_empty()), (owner.as_str(), true), "{restored:#?}");
        let copy = session_in(&server, &name).await;
        assert_eq!(text(&copy, "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class WHERE oid >= 16384").await, owner);
        assert_eq!(text(&copy, "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()").await, owner);
        drop(copy);
        drop_database(&admin, &name).await;

        // The same as a superuser: SQL of the archive still runs as the owner.
        let restored = restore(&request_of(&database.uri, server.major, &name), &backup).await.unwrap();
        assert_eq!((restored.owner.as_str(), restored.notes.is_empty()), (owner.as_str(), true), "{restored:#?}");
        drop_database(&admin, &name).await;

        // Without CREATEDB nothing begins.
        run(&admin, &format!("ALTER ROLE {rail} NOCREATEDB")).await;
        let error = restore(&request_of(&database.uri_for(&rail, "secret"), server.major, &name), &backup).await.unwrap_err();
        assert_eq!(error.reason(), Reason::PermissionDenied);
        assert!(error.to_string().contains(&format!("ALTER ROLE {rail} CREATEDB")), "{error}");
        drop_roles(&admin, &[&rail, &owner]).await;
        drop(admin);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn roles_that_are_missing_are_named_or_created_without_login() {
    for_each_server(async |server| {
        let database = server.database("roles").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        let (second, granted) = (server.role_name("second"), server.role_name("granted"));
        run(&admin, &format!(
            "CREATE TABLE one (id int); RESET ROLE; CREATE ROLE {second}; CREATE ROLE {granted} LOGIN PASSWORD 'x'; CREATE TABLE two (id int); INSERT INTO two VALUES (1);
             ALTER TABLE two OWNER TO {second}; GRANT SELECT ON two TO {granted}; ALTER ROLE {rail} CREATEDB"
        )).await;
        let backup = backup(&database).await;
        run(&admin, &format!("DROP OWNED BY {granted}; DROP ROLE {granted}")).await;
        let name = new_name(&server);
        let as_rail = request_of(&database.uri_for(&rail, "secret"), server.major, &name);
        let error = restore(&as_rail, &backup).await.unwrap_err();
        assert!(error.to_string().contains(&format!("create {granted}, or ALTER ROLE {rail} CREATEROLE")), "{error}");
        assert!(!exists(&admin, &name).await);

        let restored = restore(&request_of(&database.uri, server.major, &name), &backup).await.unwrap();
        assert_eq!(restored.roles_created, std::slice::from_ref(&granted));
        let copy = session_in(&server, &name).await;
        let can = format!("SELECT rolcanlogin::text || (rolpassword IS NULL)::text || has_table_privilege(oid, 'two', 'SELECT')::text FROM pg_authid WHERE rolname = '{granted}'");
        assert_eq!(text(&copy, &can).await, "falsetruetrue");
        assert_eq!(text(&copy, "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = 'two'").await, second);
        drop(copy);
        drop_database(&admin, &name).await;

        // A login without superuser owns everything itself if the source has several owners.
        let restored = restore(&as_rail, &backup).await.unwrap();
        assert_eq!(restored.owner, rail);
        assert!(restored.notes.join("\n").contains("only a superuser can restore several owners"), "{restored:#?}");
        drop_database(&admin, &name).await;
        run(&admin, &format!("DROP TABLE two; DROP ROLE {granted}")).await;
        drop_roles(&admin, &[&second, &rail, &owner]).await;
        drop(admin);
        database.finish().await;
    })
    .await;
}

/// Changes a byte in the middle of the rows.
fn corrupt(backup: &Backup) {
    let manifest = backup.extract.manifest();
    let block =
        manifest.tables.iter().filter_map(|table| table.block.as_ref()).max_by_key(|block| block.length).unwrap();
    let file =
        backup.root.as_ref().unwrap().path().join("dumps").join(&manifest.location).join(&manifest.segments[0].name);
    flip(&file, block.offset + block.length / 2);
}

fn flip(file: &Path, at: u64) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[!byte[0]]).unwrap();
}

#[tokio::test]
async fn a_failed_restore_leaves_nothing() {
    for_each_server(async |server| {
        let database = server.database("failed").await;
        let admin = database.connect().await;
        run(&admin, SCHEMA).await;
        let (name, missing) = (new_name(&server), server.role_name("missing"));
        run(&admin, &format!("CREATE ROLE {missing}; GRANT SELECT ON users TO {missing}")).await;
        let backup = backup(&database).await;
        run(&admin, &format!("DROP OWNED BY {missing}; DROP ROLE {missing}")).await;
        let request = request_of(&server.uri, server.major, &name);
        let gone = async || {
            !exists(&admin, &name).await && count(&admin, &format!("pg_roles WHERE rolname = '{missing}'")).await == 0
        };

        let loading = Notify::new();
        let notify = |progress: RestoreProgress| {
            if matches!(progress, RestoreProgress::Loading { .. }) {
                loading.notify_one();
            }
        };
        let stopped = restore_database(&request, &backup.extract, &notify, loading.notified()).await;
        assert_eq!(stopped.unwrap_err().reason(), Reason::Interrupted);
        assert!(gone().await);

        // What an earlier pod of the same restore left is replaced; what another one left is not.
        run(&admin, &format!("CREATE DATABASE \"{name}\"")).await;
        run(&admin, &format!("COMMENT ON DATABASE \"{name}\" IS 'pgrail: unfinished restore restore-2'")).await;
        let error = restore(&request, &backup).await.unwrap_err();
        assert!(error.to_string().contains("left by an unfinished restore: drop it"), "{error}");
        run(&admin, &format!("COMMENT ON DATABASE \"{name}\" IS 'pgrail: unfinished restore restore-1'")).await;
        restore(&request, &backup).await.unwrap();
        drop_database(&admin, &name).await;
        run(&admin, &format!("DROP ROLE {missing}")).await;

        corrupt(&backup);
        let error = restore(&request, &backup).await.unwrap_err();
        assert!([Reason::ChecksumMismatch, Reason::RestoreFailed].contains(&error.reason()), "{error}");
        assert!(gone().await, "{error}");
        drop(admin);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_archive_is_reported_also_where_a_newer_client_sets_what_the_server_lacks() {
    for server in servers() {
        let newest = servers().last().unwrap().major;
        let database = server.database("older").await;
        let admin = database.connect().await;
        run(&admin, SCHEMA).await;
        let name = new_name(&server);
        let request = request_of(&server.uri, newest, &name);
        let backup = backup_of(&database.uri, newest).await;
        let restored = restore(&request, &backup).await.unwrap();
        assert!(restored.rows() > 3000);
        drop_database(&admin, &name).await;

        // Rows that violate a constraint when they arrive: the table that it reads is filled later.
        run(&admin, "CREATE TABLE zz (id int); INSERT INTO zz VALUES (1); CREATE FUNCTION filled() RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM public.zz); END';
             CREATE TABLE aa (id int CONSTRAINT after_zz CHECK (filled())); INSERT INTO aa VALUES (1)").await;
        let backup = backup_of(&database.uri, newest).await;
        let error = restore(&request, &backup).await.unwrap_err();
        assert_eq!(error.reason(), Reason::RestoreFailed);
        assert!(error.to_string().contains("violates check constraint \"after_zz\""), "{error}");
        assert!(!exists(&admin, &name).await);
        drop(admin);
        database.finish().await;
    }
}

fn schema_request(uri: &str, major: u32, tables: &[&str], name: &str) -> SchemaRequest {
    SchemaRequest {
        connection: settings_of(uri),
        addresses: pgrail_postgres::AddressPolicy::any(),
        schema: "public".to_owned(),
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        name: name.to_owned(),
        id: format!("restore-{major}-{}", std::process::id()),
        client_directory: Some(client_programs(major)),
    }
}

async fn restore_beside(request: &SchemaRequest, backup: &Backup) -> Result<SchemaRestored, RestoreError> {
    restore_schema(request, &backup.extract, &|_: RestoreProgress| {}, pending()).await
}

async fn assert_no_scratch(admin: &Client, request: &SchemaRequest) {
    let id = request.id.replace('-', "");
    assert_eq!(count(admin, &format!("pg_database WHERE datname = 'pgrail_scratch_{id}'")).await, 0);
}

#[tokio::test]
async fn tables_are_restored_beside_the_live_ones() {
    for_each_server(async |server| {
        let database = server.database("beside").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        run(&admin, SCHEMA).await;
        run(&admin, "CREATE FUNCTION next_code() RETURNS int LANGUAGE sql AS 'SELECT 7'; ALTER TABLE orders ADD code int DEFAULT next_code()").await;
        let backup = backup(&database).await;
        run(&admin, &format!("RESET ROLE; ALTER ROLE {rail} CREATEDB; DELETE FROM users WHERE id <= 100; DROP TABLE events")).await;
        let uri = database.uri_for(&rail, "secret");
        let mut request = schema_request(&uri, server.major, &["users", "orders", "events"], "Before \"Friday");
        let restored = restore_beside(&request, &backup).await.unwrap();
        assert_eq!(restored.rows(), 500 + 3000 + 200, "{restored:#?}");
        let ident = "\"Before \"\"Friday\"";
        for (table, rows) in [("users", 500), ("orders", 3000), ("events", 200)] {
            assert_eq!(count(&admin, &format!("{ident}.{table}")).await, rows);
        }
        // Types, sequences, defaults, keys and partitions are those of the new schema.
        let sql = format!(
            "INSERT INTO {ident}.users (id, name, mood, n) VALUES (501, 'new', 'happy', 1); INSERT INTO {ident}.orders (user_id) VALUES (501);
             INSERT INTO {ident}.events VALUES ('2026-12-01', 'x')"
        );
        run(&admin, &sql).await;
        let of_new = format!("SELECT id::text || code || (SELECT t.typnamespace::regnamespace::text FROM pg_type t WHERE t.oid = (SELECT atttypid FROM pg_attribute WHERE attrelid = '{ident}.users'::regclass AND attname = 'mood')) FROM {ident}.orders WHERE user_id = 501");
        assert_eq!(text(&admin, &of_new).await, format!("30017{ident}"));
        let error = admin.batch_execute(&format!("INSERT INTO {ident}.orders (user_id) VALUES (999)")).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "23503", "the foreign key is of the new tables");
        // What would act on the copy is not there; the live tables are as they were.
        assert_eq!(count(&admin, &format!("pg_trigger WHERE NOT tgisinternal AND tgrelid = '{ident}.users'::regclass")).await, 0);
        assert!(restored.notes.join("\n").contains("TRIGGER public.users audit"), "{restored:#?}");
        assert_eq!(count(&admin, "public.users").await, 400);
        assert_no_scratch(&admin, &request).await;

        // An existing schema is never touched, and a missing table is named.
        let error = restore_beside(&request, &backup).await.unwrap_err();
        assert!(error.to_string().contains("exists: drop it, or choose another name"), "{error}");
        assert_eq!(count(&admin, &format!("{ident}.users")).await, 501);
        request.tables = vec!["users".into(), "nothing".into()];
        let error = restore_beside(&request, &backup).await.unwrap_err();
        assert!(error.to_string().contains("has no table public.nothing"), "{error}");

        // Code of the backup must not run as a superuser in a live database.
        let as_superuser = schema_request(&database.uri, server.major, &["orders"], "other");
        let error = restore_beside(&as_superuser, &backup).await.unwrap_err();
        assert_eq!(error.reason(), Reason::PermissionDenied);
        assert!(error.to_string().contains("FUNCTION public.next_code()"), "{error}");
        let alone = schema_request(&database.uri, server.major, &["users"], "other");
        assert_eq!(restore_beside(&alone, &backup).await.unwrap().rows(), 500);
        run(&admin, &format!("DROP SCHEMA {ident} CASCADE; DROP SCHEMA other CASCADE")).await;

        // A failure leaves nothing: the rows of the table are not those that were written.
        corrupt(&backup);
        let largest = backup.extract.manifest().tables.iter().max_by_key(|it| it.block.as_ref().map(|block| block.length)).unwrap();
        let broken = schema_request(&uri, server.major, &[largest.name.as_str()], "broken");
        let error = restore_beside(&broken, &backup).await.unwrap_err();
        assert!([Reason::ChecksumMismatch, Reason::RestoreFailed].contains(&error.reason()), "{error}");
        assert_eq!(count(&admin, "pg_namespace WHERE nspname = 'broken'").await, 0);
        assert_no_scratch(&admin, &broken).await;
        drop_roles(&admin, &[&rail, &owner]).await;
        drop(admin);
        database.finish().await;
    })
    .await;
}
