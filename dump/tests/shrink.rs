//! The rows of guarded tables, compared with the backup before: real guards, real dumps.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use age::x25519::Identity;
use pgrail_dump::{Comparison, Message, RowsKey, ShrinkAlarm, ShrunkTable, dump, verify};
use pgrail_guard::{ClusterId, GuardName, GuardSpec, TableSelector, apply, observe, plan, plan_removal};
use pgrail_testing::{Client, Database, for_each_server, server};
use support::{TestStore, file_store, identity, quiet, request, s3_store, verify_request};

const ALARM: ShrinkAlarm = ShrinkAlarm { percent: 50, min_rows: 100 };

fn guard(tables: &[&str]) -> GuardSpec {
    let tables = tables.iter().map(|table| TableSelector::table("public", *table).unwrap()).collect();
    GuardSpec::new(GuardName::new("shop/core").unwrap(), ClusterId::local(), tables)
}

async fn install(database: &Database, tables: &[&str]) {
    let mut client = database.connect().await;
    let plan = plan(&guard(tables), &observe(&client).await.unwrap()).unwrap();
    let applied = apply(client.as_mut(), &plan).await.unwrap();
    assert!(applied.is_complete(), "{:?}", applied.unfinished());
}

async fn remove_guard(database: &Database) {
    let mut client = database.connect().await;
    let removal = plan_removal(&guard(&[]).name, &observe(&client).await.unwrap());
    assert!(apply(client.as_mut(), &removal).await.unwrap().is_complete());
}

/// A backup at that minute, and what its comparison found.
async fn backup(database: &Database, store: &TestStore, minute: u32) -> Comparison {
    backup_for(database, store, minute, &[]).await
}

/// The same, encrypted for these recipients.
async fn backup_for(database: &Database, store: &TestStore, minute: u32, recipients: &[String]) -> Comparison {
    let mut request = request(database);
    request.age_recipients = recipients.to_vec();
    request.identity.timestamp = format!("2026-11-23T02:{minute:02}:00Z").parse().unwrap();
    request.identity.backup_name = format!("b{minute}");
    compared(&request, store).await
}

async fn compared(request: &pgrail_dump::DumpRequest, store: &TestStore) -> Comparison {
    let mut request = request.clone();
    request.rows_key = Some(RowsKey::new("of this schedule".into()));
    let result = dump(&request, &store.store, &quiet).await.unwrap();
    let key = request.rows_key;
    let mut request = verify_request(&result);
    (request.shrink_alarm, request.rows_key) = (Some(ALARM), key);
    verify(&request, &store.store, &quiet).await.unwrap().comparison.unwrap()
}

async fn sql(client: &Client, text: &str) {
    client.batch_execute(text).await.unwrap();
}

fn lost(table: &str, before: u64, after: u64) -> ShrunkTable {
    ShrunkTable { table: format!("public.{table}"), before, after, dropped: false }
}

const SCHEMA: &str = "
    CREATE TABLE users (id int PRIMARY KEY);
    CREATE TABLE orders (id int, user_id int REFERENCES users ON DELETE CASCADE);
    CREATE TABLE small (id int);
    CREATE TABLE log (id int);
    CREATE TABLE events (at int) PARTITION BY RANGE (at);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100);
    CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (1000);
    INSERT INTO users SELECT generate_series(1, 1000);
    INSERT INTO orders SELECT n, n FROM generate_series(1, 1000) n;
    INSERT INTO small SELECT generate_series(1, 20);
    INSERT INTO log SELECT generate_series(1, 1000);
    INSERT INTO events SELECT generate_series(0, 999);";

#[tokio::test]
async fn guarded_tables_that_lose_rows_are_found() {
    losses(&[]).await;
}

/// The run has no private key: nobody has one.
#[tokio::test]
async fn and_in_encrypted_backups() {
    losses(&[Identity::generate().to_public().to_string()]).await;
}

async fn losses(recipients: &[String]) {
    for_each_server(async |server| {
        let database = server.database("shrink").await;
        let backup = async |store: &TestStore, minute| backup_for(&database, store, minute, recipients).await;
        let client = database.connect().await;
        sql(&client, SCHEMA).await;
        install(&database, &["users", "small", "events"]).await;
        let store = s3_store();
        let first = backup(&store, 1).await;
        assert_eq!((first.with, first.shrunk_tables), (None, 0));
        assert!(first.not_compared_because.unwrap().contains("first backup"));

        // Within the limits of the alarm; tables without a guard; a partition of a tenth of the rows.
        remove_guard(&database).await;
        sql(&client, "DELETE FROM log; DELETE FROM orders; DELETE FROM users WHERE id > 501; DELETE FROM small").await;
        sql(&client, "DROP TABLE events_1").await;
        install(&database, &["users", "small", "events"]).await;
        let none = backup(&store, 2).await;
        assert_eq!((none.with.as_deref(), none.shrunk_tables), (Some("b1"), 0), "{none:?}");

        // Compared with the one before, not with the first.
        remove_guard(&database).await;
        sql(&client, "DELETE FROM users WHERE id > 250").await;
        install(&database, &["users", "small", "events"]).await;
        let found = backup(&store, 3).await;
        assert_eq!((found.with.as_deref(), found.shrunk_tables), (Some("b2"), 1));
        assert_eq!(found.tables, [lost("users", 501, 250)]);
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn removing_the_guard_or_the_table_hides_nothing() {
    let database = server(18).database("hidden").await;
    let client = database.connect().await;
    sql(&client, SCHEMA).await;
    install(&database, &["users", "small", "events"]).await;
    let store = file_store();
    backup(&database, &store, 1).await;
    remove_guard(&database).await;
    sql(&client, "TRUNCATE users CASCADE; DROP TABLE small; DELETE FROM events").await;
    let found = backup(&database, &store, 2).await;
    let dropped = ShrunkTable { dropped: true, ..lost("small", 20, 0) };
    assert_eq!(
        found.tables,
        [dropped, lost("events", 1000, 0), lost("users", 1000, 0)],
        "what was dropped comes first"
    );
    // Nothing is left to compare.
    let after = backup(&database, &store, 3).await;
    assert_eq!((after.with.as_deref(), after.shrunk_tables), (Some("b2"), 0));
    database.finish().await;
}

#[tokio::test]
async fn what_the_schedule_leaves_out_and_other_schedules_are_not_compared() {
    let database = server(18).database("others").await;
    let client = database.connect().await;
    sql(&client, SCHEMA).await;
    install(&database, &["users", "events"]).await;
    let store = file_store();
    backup(&database, &store, 1).await;
    let mut less = request(&database);
    less.identity.timestamp = "2026-11-23T02:02:00Z".parse().unwrap();
    less.filter.exclude_table_data = vec!["public.users".into(), "events_2".into()];
    assert_eq!(compared(&less, &store).await.shrunk_tables, 0);
    // An earlier schedule of the same name, and another database.
    remove_guard(&database).await;
    sql(&client, "TRUNCATE users CASCADE").await;
    for (schedule_uid, database_uid) in [("later", "uid-shop"), ("uid-nightly", "other")] {
        let mut other = request(&database);
        (other.identity.schedule_uid, other.identity.database_uid) = (schedule_uid.into(), database_uid.into());
        other.identity.timestamp = "2026-11-23T02:03:00Z".parse().unwrap();
        assert_eq!(compared(&other, &store).await.with, None);
    }
    // A manifest that cannot be read does not hide the one before it.
    let location = identity().location().unwrap();
    let damaged = store.files.join(location).with_file_name("20261123T025900Z-x");
    std::fs::create_dir_all(&damaged).unwrap();
    std::fs::write(damaged.join("manifest.json"), "{").unwrap();
    let mut again = request(&database);
    again.identity.timestamp = "2026-11-23T02:30:00Z".parse().unwrap();
    assert!(compared(&again, &store).await.with.is_some());
    database.finish().await;
}

#[tokio::test]
async fn a_thousand_lost_tables_fit_into_a_message() {
    let database = server(18).database("many").await;
    let client = database.connect().await;
    let (name, tables) = ("x\"\\".repeat(15), 300);
    for number in 0..tables {
        let table = format!("{name}{number:03}").replace('"', "\"\"");
        sql(&client, &format!("CREATE TABLE \"{table}\" AS SELECT generate_series(1, 200) AS id")).await;
    }
    sql(&client, "CREATE SCHEMA pgrail; CREATE FUNCTION pgrail.noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'").await;
    let each = "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP EXECUTE format(";
    sql(&client, &format!("{each}'CREATE TRIGGER pgrail_truncate BEFORE TRUNCATE ON %s EXECUTE FUNCTION pgrail.noop()', t); END LOOP; END $$")).await;
    let store = file_store();
    backup(&database, &store, 1).await;
    sql(&client, &format!("{each}'DELETE FROM %s', t); END LOOP; END $$")).await;
    let mut request = request(&database);
    request.identity.timestamp = "2026-11-23T02:02:00Z".parse().unwrap();
    let mut result = dump(&request, &store.store, &quiet).await.unwrap();
    result.remarks.warnings = vec!["w".repeat(400); 20];
    let mut request = verify_request(&result);
    request.shrink_alarm = Some(ALARM);
    let verified = verify(&request, &store.store, &quiet).await.unwrap();
    let message = Message::Verify(verified).to_json();
    assert!(message.len() <= pgrail_dump::MESSAGE_BYTES, "{}", message.len());
    let Message::Verify(read) = Message::parse(&message).unwrap() else { panic!() };
    let comparison = read.comparison.unwrap();
    assert_eq!(comparison.shrunk_tables, tables);
    assert!(!comparison.tables.is_empty());
    database.finish().await;
}
