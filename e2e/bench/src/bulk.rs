//! What a guard adds to a bulk delete that is allowed.

use pgrail_guard::{Allowance, GuardSpec, Operation, PartialLimits, TableLimits};
use pgrail_testing::{Client, Server};

use crate::Result;
use crate::measure::{Compared, Comparison, Session, guard, install, settle};
use crate::page::Row;

const ROWS: i64 = 200_000;
/// Users of the cascade: 117 rows hang on each.
const USERS: i64 = 1_710;
const ROUNDS: usize = 5;
const RAISED: i64 = 250_000;

struct Case {
    name: &'static str,
    label: &'static str,
    /// What is deleted: `{}` stands for `plain` or `guarded`.
    sql: &'static str,
    bar: f64,
    /// Whether other triggers are measured in the same rounds.
    beside_others: bool,
}

const CASES: [Case; 4] = [
    Case {
        name: "direct",
        label: "200,000 rows, limit raised",
        sql: "DELETE FROM direct_{}",
        bar: 1.3,
        beside_others: true,
    },
    Case {
        name: "cascade",
        label: "1,710 rows with a cascade of 200,070, limits raised",
        sql: "DELETE FROM users_{}",
        bar: 1.3,
        beside_others: true,
    },
    Case {
        name: "exempted",
        label: "200,000 rows, by a role with an allowance",
        sql: "DELETE FROM exempted_{}",
        bar: 1.5,
        beside_others: false,
    },
    Case {
        name: "closure",
        label: "200,000 rows of a table that only references a guarded one",
        sql: "DELETE FROM child_{}",
        bar: 1.1,
        beside_others: false,
    },
];

/// What other triggers than pgrail's cost on the same tables, for comparison: name, label, condition.
const OTHERS: [(&str, &str, &str); 2] = [
    ("never", "a trigger whose condition is never true", "pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<) 0"),
    (
        "compared",
        "a trigger that compares the counter of its table with a number, and never calls its function",
        "pg_catalog.pg_stat_get_xact_tuples_deleted(OLD.tableoid) OPERATOR(pg_catalog.>) 1000000 AND public.judge(OLD.tableoid)",
    ),
];

pub(crate) async fn measure(server: &Server) -> Result<Row> {
    let how = format!(
        "One DELETE including its COMMIT, {ROUNDS} rounds in alternation with the same statement on unguarded tables. \
         Between the rounds, the tables are vacuumed and filled again. The limits are raised to {RAISED}, so that the \
         statement comes close to them. The cascade: users → leads → conversations → messages, and users → analytics, \
         with 2, 10, 100 and 5 rows per user. The role with an allowance can delete a million rows, and its guard has \
         the default limits. The bars apply to the elapsed time. The CPU time of the server process is shown next to \
         it. What any row trigger costs is measured in the same rounds: PostgreSQL fetches each deleted row again, and \
         prepares the condition again for each query of a foreign key, of which a cascade has one per row that is \
         referenced."
    );
    let mut row = Row::new("bulk", "Allowed bulk deletes", server.major.to_string(), how);
    let database = server.database("bench_bulk").await;
    let mut client = database.connect().await;
    for variant in ["plain", "guarded"].into_iter().chain(OTHERS.map(|(name, ..)| name)) {
        client.batch_execute(&tables(variant)).await?;
        for case in CASES.iter().filter(|case| variants(case).any(|it| it == variant)) {
            refill(&client, case.name, variant).await?;
        }
    }
    guards(&mut client).await?;
    client.batch_execute(&other_triggers()).await?;
    settle(&client).await?;
    let session = Session::of(client).await?;
    for case in &CASES {
        let mut comparisons: Vec<_> = variants(case).skip(1).map(|_| Comparison::default()).collect();
        for round in 0..=ROUNDS {
            let mut costs = Vec::new();
            for variant in variants(case) {
                let sql = case.sql.replace("{}", variant);
                costs.push(session.cost(async |client| Ok(client.batch_execute(&sql).await?)).await?);
                refill(&session.client, case.name, variant).await?;
            }
            let Some((plain, others)) = costs.split_first() else { continue };
            // The first round fills caches.
            if round > 0 {
                for (comparison, other) in comparisons.iter_mut().zip(others) {
                    comparison.add(plain, other);
                }
            }
        }
        let Some((guarded, others)) = comparisons.split_first() else { continue };
        let (measured, ratio) = compared(guarded, case.name, &mut row);
        row.line(case.label, measured, &format!("≤ × {:.1}", case.bar), ratio <= case.bar);
        for (comparison, (name, label, _)) in others.iter().zip(OTHERS) {
            let (measured, _) = compared(comparison, &format!("{}_{name}", case.name), &mut row);
            row.note(format!("the same with {label}, instead of the guard"), measured);
        }
    }
    drop(session);
    database.finish().await;
    Ok(row)
}

/// What is measured in one round, first without any trigger.
fn variants(case: &Case) -> impl Iterator<Item = &'static str> {
    let others = OTHERS.iter().filter(|_| case.beside_others).map(|(name, ..)| *name);
    ["plain", "guarded"].into_iter().chain(others)
}

fn compared(comparison: &Comparison, name: &str, row: &mut Row) -> (String, f64) {
    let Compared { plain_ms, time_ratio, cpu_ratio } = comparison.record(name, row);
    (format!("{plain_ms:.0} ms × {time_ratio:.2} (CPU × {cpu_ratio:.2})"), time_ratio)
}

fn other_triggers() -> String {
    let tables = ["direct", "users", "leads", "conversations", "messages", "analytics"];
    let triggers = OTHERS.iter().flat_map(|(name, _, condition)| {
        tables.map(|table| {
            format!(
                "CREATE TRIGGER {name} AFTER DELETE ON {table}_{name} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION public.nothing();"
            )
        })
    });
    let functions = "CREATE FUNCTION public.judge(oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN false; END';
         CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';";
    [functions.to_owned()].into_iter().chain(triggers).collect()
}

fn tables(variant: &str) -> String {
    let options = "WITH (autovacuum_enabled = off)";
    format!(
        "CREATE TABLE direct_{variant} (id int PRIMARY KEY, name text) {options};
         CREATE TABLE exempted_{variant} (id int PRIMARY KEY, name text) {options};
         CREATE TABLE parent_{variant} (id int PRIMARY KEY);
         INSERT INTO parent_{variant} SELECT generate_series(1, 1000);
         CREATE TABLE child_{variant} (id int PRIMARY KEY, r int REFERENCES parent_{variant} ON DELETE CASCADE, name text) {options};
         CREATE INDEX ON child_{variant} (r);
         CREATE TABLE users_{variant} (id int PRIMARY KEY, name text) {options};
         CREATE TABLE leads_{variant} (id int PRIMARY KEY, user_id int REFERENCES users_{variant} ON DELETE CASCADE) {options};
         CREATE TABLE conversations_{variant} (id int PRIMARY KEY, lead_id int REFERENCES leads_{variant} ON DELETE CASCADE) {options};
         CREATE TABLE messages_{variant} (id int PRIMARY KEY, conversation_id int REFERENCES conversations_{variant} ON DELETE CASCADE) {options};
         CREATE TABLE analytics_{variant} (id int PRIMARY KEY, user_id int REFERENCES users_{variant} ON DELETE CASCADE) {options};
         CREATE INDEX ON leads_{variant} (user_id); CREATE INDEX ON conversations_{variant} (lead_id);
         CREATE INDEX ON messages_{variant} (conversation_id); CREATE INDEX ON analytics_{variant} (user_id);"
    )
}

/// Puts back what a case deletes.
async fn refill(client: &Client, case: &str, variant: &str) -> Result<()> {
    let (tables, rows): (&[&str], String) = match case {
        "closure" => (
            &["child"],
            format!(
                "INSERT INTO child_{variant} SELECT i, i % 1000 + 1, 'child ' || i FROM generate_series(1, {ROWS}) i"
            ),
        ),
        "cascade" => (
            &["users", "leads", "conversations", "messages", "analytics"],
            format!(
                "INSERT INTO users_{variant} SELECT i, 'user ' || i FROM generate_series(1, {USERS}) i;
                 INSERT INTO leads_{variant} SELECT i, (i - 1) / 2 + 1 FROM generate_series(1, {USERS} * 2) i;
                 INSERT INTO conversations_{variant} SELECT i, (i - 1) / 5 + 1 FROM generate_series(1, {USERS} * 10) i;
                 INSERT INTO messages_{variant} SELECT i, (i - 1) / 10 + 1 FROM generate_series(1, {USERS} * 100) i;
                 INSERT INTO analytics_{variant} SELECT i, (i - 1) / 5 + 1 FROM generate_series(1, {USERS} * 5) i"
            ),
        ),
        _ => {
            return refilled(
                client,
                &[case],
                variant,
                &format!("INSERT INTO {case}_{variant} SELECT i, 'user ' || i FROM generate_series(1, {ROWS}) i"),
            )
            .await;
        }
    };
    refilled(client, tables, variant, &rows).await
}

async fn refilled(client: &Client, tables: &[&str], variant: &str, rows: &str) -> Result<()> {
    let names = tables.iter().map(|table| format!("{table}_{variant}")).collect::<Vec<_>>().join(", ");
    client.batch_execute(&format!("VACUUM {names}")).await?;
    client.batch_execute(rows).await?;
    // Hint bits are set now, not by the delete that is measured.
    client.batch_execute(&format!("VACUUM ANALYZE {names}")).await?;
    Ok(())
}

async fn guards(client: &mut Client) -> Result<()> {
    let role: String = client.query_one("SELECT session_user::text", &[]).await?.try_get(0)?;
    let raised = TableLimits { max_rows: RAISED, max_cascade_rows: RAISED, ..TableLimits::default() };
    install(client, &guard("direct_guarded", raised)?).await?;
    install(client, &guard("users_guarded", raised)?).await?;
    install(client, &guard("parent_guarded", TableLimits::default())?).await?;
    let right = Allowance {
        role,
        limits: PartialLimits {
            max_rows: Some(1_000_000),
            max_cascade_rows: Some(1_000_000),
            ..PartialLimits::default()
        },
        operations: vec![Operation::Delete],
    };
    let exempted = guard("exempted_guarded", TableLimits::default())?;
    install(client, &GuardSpec { allowances: vec![right], ..exempted }).await
}
