//! What the tests of rehearsals share.
#![allow(
    dead_code,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

use std::fmt::Write as _;

use pgrail_guard::rehearse::{Rows, TableRows, Verdict};
use pgrail_guard::{Rehearsal, RehearseError, Request, counters, light_check};
use pgrail_testing::Client;
use tokio_postgres::NoTls;

pub const USERS: &[(&str, &str)] = &[("public", "users")];

pub async fn try_rehearse(client: &Client, request: &Request) -> Result<Rehearsal, RehearseError> {
    let token = client.cancel_token();
    let cancel = async || token.cancel_query(NoTls).await.expect("cancel");
    pgrail_guard::rehearse(client, request, cancel).await
}

pub async fn rehearse(client: &Client, statement: &str) -> Rehearsal {
    let result = try_rehearse(client, &Request::new(statement)).await;
    result.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
}

pub async fn fails(client: &Client, request: &Request) -> RehearseError {
    match try_rehearse(client, request).await {
        Ok(rehearsal) => panic!("passed, but should not: {request:?}: {rehearsal:?}"),
        Err(error) => error,
    }
}

/// The tree as text: indentation, table, deleted, and what else there is.
pub fn tree(tables: &[TableRows]) -> String {
    fn draw(table: &TableRows, depth: usize, text: &mut String) {
        let Rows { deleted, nulled, updated, inserted, moved } = table.rows;
        let _ = write!(text, "{}{} {deleted}", "  ".repeat(depth), table.table.trim_start_matches("public."));
        for (rows, what) in [(nulled, "nulled"), (updated, "updated"), (inserted, "inserted"), (moved, "moved")] {
            if rows != 0 {
                let _ = write!(text, " {what} {rows}");
            }
        }
        text.push('\n');
        for below in &table.below {
            draw(below, depth + 1, text);
        }
    }
    let mut text = String::new();
    for table in tables {
        draw(table, 0, &mut text);
    }
    text
}

pub fn stop_code(rehearsal: &Rehearsal) -> &str {
    match &rehearsal.verdict {
        Verdict::Passes => "passes",
        Verdict::Stopped(stop) => &stop.code,
    }
}

/// Everything that a rehearsal could leave behind: rows, attempts, functions, locks.
pub async fn traces(client: &Client, tables: &[&str]) -> String {
    let mut all = Vec::new();
    for table in tables {
        let sql = format!(
            "SELECT md5(coalesce(string_agg(t::text || t.xmin || t.ctid, ',' ORDER BY t::text), '')) FROM {table} t"
        );
        all.push(client.query_one(&sql, &[]).await.expect("rows").get::<_, String>(0));
    }
    let held =
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.datname = current_database()
                AND l.pid <> pg_backend_pid() AND a.backend_type = 'client backend'";
    assert_eq!(client.query_one(held, &[]).await.expect("locks").get::<_, i64>(0), 0, "locks are left");
    all.push(format!("{:?}", light_check(client).await.expect("light check")));
    if let Ok(counters) = counters(client).await {
        all.push(format!("{counters:?}"));
    }
    all.join("\n")
}

pub const FRIDAY_TABLES: &[&str] = &["users", "leads", "conversations", "messages", "analytics"];
