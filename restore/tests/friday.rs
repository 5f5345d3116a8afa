//! The founding story: a user and everything that was theirs is deleted, and restored from the backup of the night before.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use pgrail_guard::{ClusterId, GuardName, GuardSpec, TableSelector, apply, observe, plan, plan_removal};
use pgrail_testing::{Client, for_each_server};
use support::{backup, contents, count, digest, drop_roles, numbers, request, restore, roles, run};

/// Everything of user 42 is 100,000 rows in five tables; and 500 invoices that survive without their user.
const SCHEMA: &str = "
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, seen timestamptz DEFAULT now());
CREATE TABLE leads (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE, note text);
CREATE TABLE conversations (id int PRIMARY KEY, lead_id int REFERENCES leads ON DELETE CASCADE);
CREATE TABLE messages (id bigserial PRIMARY KEY, conversation_id int REFERENCES conversations ON DELETE CASCADE, body text);
CREATE TABLE analytics (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE, event jsonb);
CREATE TABLE invoices (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE SET NULL, cents int);
CREATE INDEX ON leads (user_id); CREATE INDEX ON conversations (lead_id); CREATE INDEX ON messages (conversation_id);
CREATE INDEX ON analytics (user_id); CREATE INDEX ON invoices (user_id);
INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 100) i;
INSERT INTO leads SELECT i, CASE WHEN i <= 1000 THEN 42 ELSE i % 100 + 1 END, E'a\\ttab' FROM generate_series(1, 2000) i;
INSERT INTO conversations SELECT i, (i - 1) / 9 + 1 FROM generate_series(1, 18000) i;
INSERT INTO messages (conversation_id, body) SELECT (i - 1) / 6 + 1, 'message ' || i FROM generate_series(1, 108000) i;
INSERT INTO analytics (user_id, event) SELECT CASE WHEN i <= 36000 THEN 42 ELSE i % 100 + 1 END, '{\"page\": \"/\"}' FROM generate_series(1, 40000) i;
INSERT INTO invoices SELECT i, CASE WHEN i <= 500 THEN 42 ELSE i % 100 + 1 END, i * 100 FROM generate_series(1, 1000) i;
ANALYZE;
";

const TABLES: &[&str] = &["users", "leads", "conversations", "messages", "analytics", "invoices"];

fn guard() -> GuardSpec {
    let users = TableSelector::table("public", "users").unwrap();
    GuardSpec::new(GuardName::new("shop/core").unwrap(), ClusterId::local(), vec![users])
}

async fn install(client: &mut Client) {
    let observed = observe(client).await.unwrap();
    let applied = apply(client.as_mut(), &plan(&guard(), &observed).unwrap()).await.unwrap();
    assert!(applied.is_complete(), "{:?}", applied.unfinished());
}

async fn remove(client: &mut Client) {
    let observed = observe(client).await.unwrap();
    let removal = plan_removal(&guard().name, &observed);
    assert!(apply(client.as_mut(), &removal).await.unwrap().is_complete());
}

/// Other users go on: rows of users 1 and 2 are written, and those of user 3 deleted, until it is stopped.
async fn others(client: Client, stop: Arc<AtomicBool>, rounds: Arc<AtomicI64>) {
    while !stop.load(Ordering::Relaxed) {
        run(
            &client,
            "INSERT INTO analytics (user_id, event) VALUES (1, '{\"live\": true}'); UPDATE users SET name = name || '.' WHERE id = 2;
             DELETE FROM messages WHERE id = (SELECT m.id FROM messages m JOIN conversations c ON c.id = m.conversation_id JOIN leads l ON l.id = c.lead_id WHERE l.user_id = 3 LIMIT 1)",
        )
        .await;
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_everything_that_was_theirs_is_restored_while_others_go_on_writing() {
    for_each_server(async |server| {
        let database = server.database("friday").await;
        let (admin, owner, rail) = roles(&server, &database).await;
        run(&admin, SCHEMA).await;
        let before = contents(&admin, TABLES).await;
        let backup = backup(&database).await;

        let mut client = database.connect_as(&rail, "secret").await;
        install(&mut client).await;
        let error = admin.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "PGR01", "the guard stops it");
        remove(&mut client).await;
        let survivors = digest(&admin, "(SELECT id, cents FROM invoices) t").await;
        run(&admin, "DELETE FROM users WHERE id = 42").await;
        install(&mut client).await;
        assert_eq!(count(&admin, "leads").await, 1000 - 10 + 10 - 10);

        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let writer = database.connect().await;
        let writing = tokio::spawn(others(writer, stop.clone(), rounds.clone()));

        let uri = database.uri_for(&rail, "secret");
        let mut request = request(&database, &uri, "users", "id = 42");
        request.dry_run = true;
        let dry = restore(&request, &backup).await.unwrap();
        assert!(!dry.done && dry.problems.is_empty(), "{dry:#?}");
        assert_eq!(count(&admin, "users WHERE id = 42").await, 0, "a dry run changes nothing");
        request.dry_run = false;
        let restored = restore(&request, &backup).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        writing.await.unwrap();
        let rounds = rounds.load(Ordering::Relaxed);
        assert!(rounds > 1);

        assert!(restored.done && restored.notes.is_empty(), "{restored:#?}");
        for result in [&dry, &restored] {
            assert_eq!(numbers(result, "users"), [1, 1, 0, 0, 0, 0]);
            assert_eq!(numbers(result, "leads"), [1010, 1010, 0, 0, 0, 0]);
            assert_eq!(numbers(result, "conversations"), [9090, 9090, 0, 0, 0, 0]);
            assert_eq!(numbers(result, "messages"), [54540, 54540, 0, 0, 0, 0]);
            assert_eq!(numbers(result, "analytics"), [36040, 36040, 0, 0, 0, 0]);
            assert_eq!(numbers(result, "invoices"), [0, 0, 0, 0, 505, 505], "they had lost their user");
        }
        assert_eq!(restored.total(|table| table.in_backup), 100 + 2000 + 18_000 + 108_000 + 40_000 + 1000);
        assert!(restored.total(|table| table.inserted) > 100_000);

        // What others did stands, and nothing else changed.
        let live = count(&admin, "analytics WHERE event ? 'live'").await;
        assert_eq!(live, rounds);
        let name: String = admin.query_one("SELECT name FROM users WHERE id = 2", &[]).await.unwrap().get(0);
        assert_eq!(name, format!("user 2{}", ".".repeat(usize::try_from(rounds).unwrap())));
        assert_eq!(count(&admin, "messages").await, 108_000 - rounds.min(540), "deleted rows of others stay deleted");
        assert_eq!(digest(&admin, "(SELECT id, cents FROM invoices) t").await, survivors);
        run(&admin, "DELETE FROM analytics WHERE event ? 'live'; UPDATE users SET name = 'user 2' WHERE id = 2").await;
        let after = contents(&admin, TABLES).await;
        for (table, (before, after)) in TABLES.iter().zip(before.iter().zip(&after)) {
            assert!(before == after || *table == "messages", "{table} is not as it was");
        }
        // The guard was never in the way, and is as it was.
        let error = admin.batch_execute("DELETE FROM users WHERE id = 42").await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "PGR01");

        // Again there is nothing to do; and nothing of pgrail is left behind.
        let again = restore(&request, &backup).await.unwrap();
        assert_eq!((again.done, again.total(|table| table.inserted)), (true, 0), "{again:#?}");
        assert_eq!(again.total(|table| table.identical), restored.total(|table| table.inserted));
        let left = "(SELECT relname AS name FROM pg_class UNION ALL SELECT proname FROM pg_proc UNION ALL SELECT typname FROM pg_type) t WHERE name LIKE 'pgrail%'";
        // Temporary tables go when the server has ended the session, which is after the client has closed it.
        let ended = Instant::now() + Duration::from_secs(30);
        while count(&admin, left).await > 0 && Instant::now() < ended {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(count(&admin, left).await, 0);
        remove(&mut client).await;
        drop(client);
        drop_roles(&admin, &[&rail, &owner]).await;
        database.finish().await;
    })
    .await;
}
