//! What else uses the database: logical replication, dumps, restores.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::process::Output;

use common::{FRIDAY, count, friday, friday_rows, install, limited, remove, run, stopped, verify};
use pgrail_guard::{Allowance, GuardSpec, Moved, Operation, PartialLimits, TableLimits, Window, ensure, observe};
use pgrail_testing::{Client, Database, Server, for_each_server, programs};

const USERS: &[(&str, &str)] = &[("public", "users")];

/// Everything that writes: limits of updates, per statement and of transactions, an allowance.
fn spec(role: &str) -> GuardSpec {
    let limits = TableLimits {
        max_rows: 3,
        max_cascade_rows: 400,
        max_transaction_rows: Some(2000),
        max_updated_rows: Some(5),
        window: Some(Window { duration: 3600, max_rows: Some(30), max_cascade_rows: Some(4000) }),
    };
    let allowance = Allowance {
        role: role.to_owned(),
        limits: PartialLimits { max_rows: Some(10), max_cascade_rows: Some(2000), ..PartialLimits::default() },
        operations: vec![Operation::Delete],
    };
    GuardSpec { limits, allowances: vec![allowance], ..limited("a/b", USERS, 3, 400) }
}

async fn caught_up(publisher: &Client, subscriber: &Client) {
    let digest =
        "SELECT (SELECT count(*) FROM messages), (SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM users u)";
    let read = async |client: &Client| -> (i64, Option<String>) {
        client.query_one(digest, &[]).await.map(|row| (row.get(0), row.get(1))).expect("digest")
    };
    let errors = "SELECT coalesce(sum(apply_error_count), 0)::int8 FROM pg_stat_subscription_stats";
    let wanted = read(publisher).await;
    while read(subscriber).await != wanted {
        assert_eq!(subscriber.query_one(errors, &[]).await.expect("errors").get::<_, i64>(0), 0, "the worker fails");
    }
    assert_eq!(subscriber.query_one(errors, &[]).await.expect("errors").get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_publication_for_all_tables_carries_nothing_of_pgrails() {
    for_each_server(async |server| {
        let (from, to) = (server.database("publisher").await, server.database("subscriber").await);
        let mut publisher = from.connect().await;
        let subscriber = to.connect().await;
        for client in [&publisher, &subscriber] {
            run(client, FRIDAY).await;
        }
        let slot = from.name.clone();
        run(&publisher, "CREATE PUBLICATION everything FOR ALL TABLES").await;
        run(&publisher, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
        run(
            &subscriber,
            &format!("CREATE SUBSCRIPTION {slot} CONNECTION '{}' PUBLICATION everything WITH (create_slot = false, slot_name = '{slot}', copy_data = false)", from.uri),
        )
        .await;
        run(&publisher, &friday_rows(50)).await;
        caught_up(&publisher, &subscriber).await;

        install(&mut publisher, &spec("postgres")).await;
        run(&publisher, "DELETE FROM users WHERE id <= 8; UPDATE users SET name = 'x' WHERE id = 20").await;
        stopped(&publisher, "PGR01", "DELETE FROM users").await;
        pgrail_guard::counters(&publisher).await.expect("counters");
        run(&publisher, "DO $$ BEGIN FOR i IN 10..13 LOOP DELETE FROM users WHERE id = i; COMMIT; END LOOP; END $$").await;
        caught_up(&publisher, &subscriber).await;
        let published = "SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'pgrail'";
        assert_eq!(publisher.query_one(published, &[]).await.expect("tables").get::<_, i64>(0), 0);
        assert!(remove(&mut publisher, "a/b").await.is_complete());
        run(&publisher, "DELETE FROM users WHERE id <= 30").await;
        caught_up(&publisher, &subscriber).await;

        run(&subscriber, &format!("ALTER SUBSCRIPTION {slot} DISABLE; ALTER SUBSCRIPTION {slot} SET (slot_name = NONE); DROP SUBSCRIPTION {slot}")).await;
        let active = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
        while publisher.query_one(active, &[&slot]).await.expect("slot").get::<_, i64>(0) > 0 {}
        run(&publisher, &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        drop((publisher, subscriber));
        from.finish().await;
        to.finish().await;
    })
    .await;
}

async fn tool(server: &Server, program: &str, arguments: &[&str]) -> Output {
    tokio::process::Command::new(programs(server.major).join(program)).args(arguments).output().await.expect(program)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Shop {
    database: Database,
    owner: String,
    reader: String,
    rail: String,
}

/// A database of an owner who is no superuser, guarded by a role of its own.
async fn shop(server: &Server) -> Shop {
    let database = server.database("shop").await;
    let admin = database.connect().await;
    let [owner, reader, rail] = ["owner", "reader", "rail"].map(|name| server.role_name(name));
    for role in [&owner, &reader, &rail] {
        run(&admin, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
    }
    run(
        &admin,
        &format!(
            "ALTER DATABASE {} OWNER TO {owner}; ALTER ROLE {owner} CREATEDB; GRANT pg_read_all_data TO {reader}",
            database.name
        ),
    )
    .await;
    run(
        &admin,
        &format!(
            "GRANT {owner} TO {rail}; GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE ON SCHEMA public TO {owner}",
            database.name
        ),
    )
    .await;
    let client = database.connect_as(&owner, "secret").await;
    run(&client, FRIDAY).await;
    run(&client, &friday_rows(20)).await;
    let mut client = database.connect_as(&rail, "secret").await;
    install(&mut client, &spec(&owner)).await;
    let client = database.connect_as(&owner, "secret").await;
    run(&client, "DELETE FROM users WHERE id <= 5").await;
    stopped(&client, "PGR01", "DELETE FROM users").await;
    Shop { database, owner, reader, rail }
}

#[tokio::test]
async fn who_could_dump_and_restore_before_can_do_it_after() {
    for_each_server(async |server| {
        let shop = shop(&server).await;
        let folder = tempfile::tempdir().expect("a directory");
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let admin = shop.database.connect().await;
        for role in [&shop.owner, &shop.reader] {
            let (file, uri) = (path(role), shop.database.uri_for(role, "secret"));
            let dumped = tool(&server, "pg_dump", &["-Fc", "-f", &file, &uri]).await;
            assert!(dumped.status.success(), "{role}: {}", text(&dumped.stderr));
        }
        // By the owner: into a new database, and again over it.
        let target = server.role_name("restored");
        let owner = shop.database.connect_as(&shop.owner, "secret").await;
        run(&owner, &format!("CREATE DATABASE {target}")).await;
        let uri = shop.database.uri_for(&shop.owner, "secret").replace(&shop.database.name, &target);
        let file = path(&shop.owner);
        for again in [&[][..], &["--clean", "--if-exists"]] {
            let arguments = [&["--no-owner", "--dbname", &uri], again, &[file.as_str()]].concat();
            let restored = tool(&server, "pg_restore", &arguments).await;
            assert!(restored.status.success(), "{again:?}: {}", text(&restored.stderr));
            let client = pgrail_testing::connect(&uri).await;
            assert_eq!(count(&client, "users").await, 15);
            // It stops at once, and is reported as one thing.
            stopped(&client, "PGR01", "DELETE FROM messages; DELETE FROM users").await;
            stopped(&client, "PGR02", "TRUNCATE users CASCADE").await;
            let observed = observe(&client).await.expect("observe");
            let moved = observed.recorded.as_ref().expect("recorded").moved.clone();
            assert_eq!(moved, Some(Moved::Restored { database: shop.database.name.clone() }));
            let drift = verify(&client, &spec(&shop.owner)).await;
            assert_eq!(drift.drift().len(), 1, "{:?}", drift.drift());
            assert!(drift.drift()[0].what.contains(&format!("restored from a dump of {}", shop.database.name)));
        }
        let mut client = pgrail_testing::connect(&uri).await;
        let ensured = ensure(client.as_mut(), &spec(&shop.owner)).await.expect("ensure");
        assert!(ensured.plan.is_empty() && ensured.plan.drift().is_empty(), "{:?}", ensured.progress);
        stopped(&client, "PGR01", "DELETE FROM users").await;
        drop(client);
        run(&admin, &format!("DROP DATABASE {target} WITH (FORCE)")).await;
        // By a superuser, with the owners kept.
        run(&admin, &format!("CREATE DATABASE {target}")).await;
        let uri = server.uri_of(&target);
        for again in [&[][..], &["--clean", "--if-exists"]] {
            let arguments = [&["--exit-on-error", "--dbname", &uri], again, &[file.as_str()]].concat();
            let restored = tool(&server, "pg_restore", &arguments).await;
            assert!(restored.status.success(), "{again:?}: {}", text(&restored.stderr));
            let client = pgrail_testing::connect(&uri).await;
            stopped(&client, "PGR01", "DELETE FROM users").await;
        }
        run(&admin, &format!("DROP DATABASE {target} WITH (FORCE)")).await;
        drop(owner);
        let Shop { database, owner, reader, rail } = shop;
        let roles = format!("{owner}, {reader}, {rail}");
        run(&admin, &format!("DROP OWNED BY {roles} CASCADE")).await;
        run(&admin, &format!("ALTER DATABASE {} OWNER TO postgres; DROP ROLE {roles}", database.name)).await;
        drop(admin);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn with_event_triggers_a_superuser_dumps_and_restores_over() {
    for_each_server(async |server| {
        let database = server.database("superuser").await;
        let mut client = friday(&database, 20).await;
        install(&mut client, &spec("postgres")).await;
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("dump").to_str().unwrap().to_owned();
        let dumped = tool(&server, "pg_dump", &["-Fc", "-f", &file, &database.uri]).await;
        assert!(dumped.status.success(), "{}", text(&dumped.stderr));
        let arguments = ["--clean", "--if-exists", "--exit-on-error", "--dbname", &database.uri, &file];
        let restored = tool(&server, "pg_restore", &arguments).await;
        assert!(restored.status.success(), "{}", text(&restored.stderr));
        assert_eq!(count(&client, "users").await, 20);
        stopped(&database.connect().await, "PGR01", "DELETE FROM users").await;
        drop(client);
        database.finish().await;
    })
    .await;
}
