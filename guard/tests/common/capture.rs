//! What the tests of capture and undo share.
#![allow(dead_code, clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use pgrail_guard::{Capture, CapturedTransaction, Conflicts, GuardSpec, Undo, captured, undo};
use pgrail_testing::{Client, Database};

use super::run;

/// Where rows of tables of the superuser that tests log in as are captured.
pub const STORE: &str = "pgrail.captured_10";

pub const USERS: &[(&str, &str)] = &[("public", "users")];

pub fn capturing(spec: GuardSpec) -> GuardSpec {
    GuardSpec { capture: Some(Capture::default()), ..spec }
}

pub fn bounded(spec: GuardSpec, retention: i64, max_rows: i64) -> GuardSpec {
    GuardSpec { capture: Some(Capture { retention, max_rows }), ..spec }
}

/// Every row of these tables, whatever their order.
pub async fn contents(client: &Client, tables: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for table in tables {
        let sql = format!("SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {table} t");
        all.push(client.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0));
    }
    all
}

pub async fn kept(client: &Client) -> Vec<CapturedTransaction> {
    captured(client).await.expect("captured")
}

/// Undoes the newest transaction, and insists that nothing prevents it.
pub async fn undo_newest(client: &mut Client) -> Undo {
    let newest = kept(client).await.first().expect("a transaction").transaction;
    let tried = undo(client.as_mut(), newest, Conflicts::Refuse, true).await.expect("dry run");
    assert_eq!(tried.problems, Vec::<String>::new());
    assert!(!tried.done);
    let undone = undo(client.as_mut(), newest, Conflicts::Refuse, false).await.expect("undo");
    assert!(undone.done, "{undone:?}");
    assert_eq!(undone.tables, tried.tables, "the dry run said something else");
    undone
}

pub async fn problems(client: &mut Client, conflicts: Conflicts) -> Vec<String> {
    let newest = kept(client).await.first().expect("a transaction").transaction;
    let tried = undo(client.as_mut(), newest, conflicts, true).await.expect("dry run");
    let refused = undo(client.as_mut(), newest, conflicts, false).await.expect("undo");
    assert_eq!(refused, tried, "what the dry run finds is what is refused");
    tried.problems
}

pub const FRIDAY_TABLES: &[&str] = &["users", "leads", "conversations", "messages", "analytics"];

pub async fn set_up_plain(database: &Database, rows: i32) -> Client {
    let client = database.connect().await;
    run(
        &client,
        &format!("CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users SELECT generate_series(1, {rows})"),
    )
    .await;
    client
}
