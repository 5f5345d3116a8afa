//! Restores of dumps that several pg_dump made at the same time: the same as of one archive.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::future::pending;

use pgrail_postgres::AddressPolicy;
use pgrail_restore::{DatabaseRequest, SchemaRequest, restore_database, restore_schema};
use pgrail_testing::{Client, Database, client_programs, connect, for_each_server};
use support::{Backup, count, digest, parallel_backup, request, restore, run, settings_of};

/// Three tables that are large enough to be dumped on their own, with everything that comes after their rows.
const SHOP: &str = "
    CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE);
    INSERT INTO users (name) SELECT repeat(md5(n::text), 3) || n FROM generate_series(1, 12000) n;
    CREATE TABLE orders (id bigserial PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, note text);
    INSERT INTO orders (user_id, note) SELECT n % 12000 + 1, repeat(md5(n::text), 3) FROM generate_series(1, 15000) n;
    CREATE INDEX by_user ON orders (user_id); CREATE STATISTICS of_orders ON user_id, note FROM orders;
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER audit AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION audit();
    CREATE TABLE \"Odd \"\"on\"\" table\" (id int REFERENCES users, text text);
    INSERT INTO \"Odd \"\"on\"\" table\" SELECT n, repeat(md5(n::text), 3) FROM generate_series(1, 11000) n;
    CREATE INDEX \"x ON y\" ON \"Odd \"\"on\"\" table\" (id);
    CREATE TABLE small (id int REFERENCES users); INSERT INTO small VALUES (1), (2);
    CREATE MATERIALIZED VIEW report AS SELECT count(*) FROM orders; CREATE INDEX ON report (count);
    SELECT lo_from_bytea(0, 'large');";
const TABLES: [&str; 5] = ["users", "orders", "\"Odd \"\"on\"\" table\"", "small", "report"];

/// Everything that is not a row.
async fn definitions(client: &Client, schema: &str) -> Vec<String> {
    let sql = format!(
        "SELECT replace(pg_get_indexdef(indexrelid), '{schema}.', 'public.') FROM pg_index i JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = '{schema}'::regnamespace
         UNION ALL SELECT conname || replace(pg_get_constraintdef(oid), '{schema}.', 'public.') FROM pg_constraint WHERE connamespace = '{schema}'::regnamespace AND contype <> 'n'
         UNION ALL SELECT stxname FROM pg_statistic_ext WHERE stxnamespace = '{schema}'::regnamespace
         UNION ALL SELECT sequencename || coalesce(last_value, 0) FROM pg_sequences WHERE schemaname = '{schema}'
         UNION ALL SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal AND relnamespace = '{schema}'::regnamespace ORDER BY 1"
    );
    client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn shop(database: &Database) -> (Client, Backup) {
    let admin = database.connect().await;
    run(&admin, SHOP).await;
    let backup = parallel_backup(database).await;
    assert!(backup.extract.manifest().archives.len() >= 5, "{:?}", backup.extract.manifest().archives);
    (admin, backup)
}

#[tokio::test]
async fn a_new_database_has_everything() {
    for_each_server(async |server| {
        let database = server.database("parallel").await;
        let (admin, backup) = shop(&database).await;
        let name = format!("{}_copy", database.name);
        let request = DatabaseRequest {
            connection: settings_of(&database.uri),
            addresses: AddressPolicy::any(),
            name: name.clone(),
            id: "uid-1".into(),
            client_directory: Some(client_programs(server.major)),
        };
        let restored = restore_database(&request, &backup.extract, &|_| {}, pending()).await.unwrap();
        assert_eq!(restored.rows(), 12_000 + 15_000 + 11_000 + 2, "{restored:#?}");
        let copy = connect(&server.uri_of(&name)).await;
        for table in TABLES {
            assert_eq!(
                digest(&copy, &format!("{table} t")).await,
                digest(&admin, &format!("{table} t")).await,
                "{table}"
            );
        }
        assert_eq!(definitions(&copy, "public").await, definitions(&admin, "public").await);
        assert_eq!(count(&copy, "pg_largeobject_metadata").await, 1);
        drop(copy);
        run(&admin, &format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_new_schema_has_the_tables_with_what_they_need() {
    for_each_server(async |server| {
        let database = server.database("beside").await;
        let (admin, backup) = shop(&database).await;
        let request = |name: &str, tables: &[&str]| SchemaRequest {
            connection: settings_of(&database.uri),
            addresses: AddressPolicy::any(),
            schema: "public".into(),
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
            name: name.into(),
            id: format!("uid-{name}"),
            client_directory: Some(client_programs(server.major)),
        };
        let pair = request("pair", &["users", "orders"]);
        let restored = restore_schema(&pair, &backup.extract, &|_| {}, pending()).await.unwrap();
        assert_eq!(restored.rows(), 27_000);
        for table in ["users", "orders"] {
            let (copy, live) =
                (digest(&admin, &format!("pair.{table} t")).await, digest(&admin, &format!("{table} t")).await);
            assert_eq!(copy, live, "{table}");
        }
        let found = definitions(&admin, "pair").await;
        for part in [
            "by_user",
            "FOREIGN KEY (user_id) REFERENCES public.users(id)",
            "of_orders",
            "users_name_key",
            "orders_id_seq15000",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
        }
        assert!(!found.contains(&"audit".to_owned()), "triggers would act: {found:#?}");
        // One alone: its foreign key needs the other.
        let one = request("one", &["Odd \"on\" table"]);
        let restored = restore_schema(&one, &backup.extract, &|_| {}, pending()).await.unwrap();
        assert_eq!(restored.rows(), 11_000);
        let found = definitions(&admin, "one").await;
        assert!(
            found.iter().any(|line| line.contains("x ON y")) && !found.iter().any(|line| line.contains("FOREIGN")),
            "{found:#?}"
        );
        assert!(
            restored.notes.iter().any(|note| note.contains("foreign keys to tables that are not restored")),
            "{restored:#?}"
        );
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn rows_return_into_the_live_tables() {
    for_each_server(async |server| {
        let database = server.database("rows").await;
        let (admin, backup) = shop(&database).await;
        let before = digest(&admin, "orders t").await;
        run(&admin, "DELETE FROM \"Odd \"\"on\"\" table\" WHERE id = 42; DELETE FROM users WHERE id = 42").await;
        let restored = restore(&request(&database, &database.uri, "users", "id = 42"), &backup).await.unwrap();
        assert!(restored.done, "{restored:#?}");
        assert_eq!(digest(&admin, "orders t").await, before);
        database.finish().await;
    })
    .await;
}
