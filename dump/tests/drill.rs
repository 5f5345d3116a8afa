//! Structural drills: dumps that pg_dump, the listing and a full decode accept, restored without rows into another server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use pgrail_dump::{
    DumpRequest, Filter, Identities, Manifest, Message, Reason, RowCounts, Store, Structure, StructureOutcome,
    VerifyError, VerifyResult, dump, verify,
};
use pgrail_postgres::ConnectionSettings;
use pgrail_testing::{Database, OwnServer, servers};
use support::{SHOP, TestStore, file_store, quiet, request_for, settings_of, verify_request};

/// A server of no other use, of the newest version, and dumps made by its client.
struct Drill {
    _server: OwnServer,
    connection: ConnectionSettings,
    major: u32,
}

impl Drill {
    async fn new() -> Self {
        let major = servers().last().unwrap().major;
        let server = OwnServer::start(major, &[]).await;
        let connection = settings_of(&server.server.uri);
        Self { _server: server, connection, major }
    }

    async fn verify(&self, database: &Database, filter: Filter) -> (TestStore, Result<VerifyResult, VerifyError>) {
        let store = file_store();
        let verified = self.verify_with(database, &store, &store.store, |request| request.filter = filter).await;
        (store, verified)
    }

    /// `reading` is the store with private keys, or without.
    async fn verify_with(
        &self,
        database: &Database,
        store: &TestStore,
        reading: &Store,
        change: impl FnOnce(&mut DumpRequest),
    ) -> Result<VerifyResult, VerifyError> {
        let mut request = request_for(&database.uri, self.major);
        change(&mut request);
        // A count would fail where the archive cannot be restored, too.
        request.row_counts = RowCounts::Archive;
        let dumped = dump(&request, &store.store, &quiet).await.unwrap();
        let mut wanted = verify_request(&dumped);
        wanted.structure = Some(self.connection.clone());
        wanted.client_directory.clone_from(&request.client_directory);
        verify(&wanted, reading, &quiet).await
    }

    /// The dump fails, with this line of the tool, and is not published.
    async fn assert_fails(&self, database: &Database, filter: Filter, line: &str) {
        let (store, verified) = self.verify(database, filter).await;
        let error = verified.unwrap_err();
        let failure = error.failure(&store.store);
        assert_eq!((failure.reason, failure.retryable), (Reason::NotRestorable, false), "{error}");
        assert!(failure.message.contains(line), "{}", failure.message);
        assert!(!store.list_files().iter().any(|file| file.ends_with("manifest.json")));
    }
}

async fn run(database: &Database, sql: &str) {
    database.connect().await.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn a_dump_that_can_be_restored_is_published_with_the_drill() {
    let drill = Drill::new().await;
    for server in servers() {
        let database = server.database("drilled").await;
        run(&database, SHOP).await;
        let role = server.role_name("grantee");
        run(
            &database,
            &format!("CREATE ROLE {role}; GRANT SELECT ON users TO {role}; CREATE PUBLICATION p FOR ALL TABLES"),
        )
        .await;
        // Twice: what one leaves does not break the next.
        for _ in 0..2 {
            let (store, verified) = drill.verify(&database, Filter::default()).await;
            let verified = verified.unwrap();
            let manifest = Manifest::read(&store.store, &verified.backup.location).await.unwrap();
            assert_eq!(manifest.verification.structure, verified.structure);
            let Some(Structure { outcome, message, .. }) = &verified.structure else { panic!("no drill") };
            assert_eq!((*outcome, message.as_str()), (StructureOutcome::Restored, ""));
            assert!(Message::Verify(verified).to_json().len() <= pgrail_dump::MESSAGE_BYTES);
        }
        run(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        database.finish().await;
    }
}

#[tokio::test]
async fn an_index_on_a_function_that_needs_a_search_path_is_found() {
    let drill = Drill::new().await;
    // PostgreSQL 17 and later create no such index.
    let server = servers().remove(0);
    assert!(server.major < 17);
    let database = server.database("path").await;
    run(
        &database,
        "CREATE TABLE users (id int); CREATE FUNCTION inner_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION outer_one(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT inner_one($1)'; CREATE INDEX ON users (outer_one(id))",
    )
    .await;
    drill.assert_fails(&database, Filter::default(), "function inner_one(integer) does not exist").await;
    database.finish().await;
}

#[tokio::test]
async fn what_a_filter_tears_apart_is_found() {
    let drill = Drill::new().await;
    for server in servers() {
        // What is whole is restored, also where pg_dump would create the schema that every database has.
        let database = server.database("whole").await;
        run(&database, "CREATE SCHEMA other; CREATE TABLE users (id int)").await;
        let public = Filter { schemas: vec!["public".into()], ..Filter::default() };
        let structure = drill.verify(&database, public).await.1.unwrap().structure.unwrap();
        assert_eq!(structure.outcome, StructureOutcome::Restored, "{structure:?}");
        database.finish().await;
        let database = server.database("torn").await;
        run(
            &database,
            "CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('sad'); CREATE SCHEMA t; CREATE TABLE t.users (id int, mood other.mood);
             CREATE TABLE events (at date) PARTITION BY RANGE (at); CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        )
        .await;
        let schemas = Filter { schemas: vec!["t".into()], ..Filter::default() };
        drill.assert_fails(&database, schemas, "schema \"other\" does not exist").await;
        let root = Filter { exclude_tables: vec!["public.events".into()], ..Filter::default() };
        drill.assert_fails(&database, root, "relation \"public.events\" does not exist").await;
        database.finish().await;
    }
}

#[tokio::test]
async fn a_grant_to_a_role_that_does_not_exist_is_found() {
    let drill = Drill::new().await;
    for server in servers() {
        let database = server.database("dangling").await;
        let role = server.role_name("dangling");
        // As it is left by a damaged catalog: pg_dump writes the number of the role.
        run(&database, &format!("CREATE TABLE users (id int); CREATE ROLE {role}; GRANT SELECT ON users TO {role}; DELETE FROM pg_authid WHERE rolname = '{role}'")).await;
        drill.assert_fails(&database, Filter::default(), "does not exist").await;
        database.finish().await;
    }
}

#[tokio::test]
async fn parallel_and_encrypted_dumps_are_drilled() {
    let drill = Drill::new().await;
    let (key, other) = (Identity::generate(), Identity::generate());
    let identities = |key: &Identity| Identities::parse(key.to_string().expose_secret()).unwrap();
    let public = vec![key.to_public().to_string()];
    for server in servers() {
        let database = server.database("archives").await;
        run(&database, SHOP).await;
        run(&database, "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 3) AS text FROM generate_series(1, 20000) n; CREATE INDEX ON large (n)").await;
        for jobs in [1, 3] {
            let of = async |reading: Option<&Identity>| {
                let store = file_store();
                let with_key = reading.map(|key| store.store.clone().with_identities(identities(key)));
                let reading = with_key.as_ref().unwrap_or(&store.store);
                let change = |request: &mut DumpRequest| {
                    request.jobs = jobs;
                    request.age_recipients.clone_from(&public);
                };
                drill.verify_with(&database, &store, reading, change).await.unwrap().structure.unwrap()
            };
            let restored = of(Some(&key)).await;
            assert_eq!(restored.outcome, StructureOutcome::Restored, "{restored:?}");
            for (reading, part) in [(None, "spec.decryption.identitySecretRef"), (Some(&other), "other recipients")] {
                let structure = of(reading).await;
                assert_eq!(structure.outcome, StructureOutcome::NotRun, "{structure:?}");
                assert!(structure.message.contains(part), "{structure:?}");
            }
        }
        // What cannot be restored is found in the last archive, too.
        let store = file_store();
        run(&database, "CREATE SCHEMA other; CREATE FUNCTION other.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE TRIGGER t AFTER INSERT ON large EXECUTE FUNCTION other.f()").await;
        let change = |request: &mut DumpRequest| {
            request.jobs = 3;
            request.filter = Filter { schemas: vec!["public".into()], ..Filter::default() };
        };
        let error = drill.verify_with(&database, &store, &store.store, change).await.unwrap_err();
        assert_eq!(error.reason(), Reason::NotRestorable, "{error}");
        database.finish().await;
    }
}

#[tokio::test]
async fn what_could_not_run_is_no_pass() {
    let mut drill = Drill::new().await;
    let server = servers().remove(0);
    assert!(server.major < 17, "adminpack was removed in 17");
    let database = server.database("lacking").await;
    run(&database, "CREATE EXTENSION adminpack").await;
    let (_, verified) = drill.verify(&database, Filter::default()).await;
    let structure = verified.unwrap().structure.unwrap();
    assert_eq!(structure.outcome, StructureOutcome::NotRun);
    assert!(structure.message.contains("lacks extensions of the database: adminpack"), "{structure:?}");
    // The password of another server is no reason to call the dump bad.
    drill.connection.user = "nobody_of_this_name".into();
    let (_, verified) = drill.verify(&database, Filter::default()).await;
    let structure = verified.unwrap().structure.unwrap();
    assert_eq!(structure.outcome, StructureOutcome::NotRun, "{structure:?}");
    assert!(structure.message.contains("does not answer"), "{structure:?}");
    database.finish().await;
}
