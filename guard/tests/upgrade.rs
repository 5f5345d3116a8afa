//! From the schema of an earlier version to today's.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
mod common;

use common::{count, friday, guard, limited, run, stopped};
use pgrail_guard::{
    Allowance, Capture, Conflicts, GuardSpec, Mode, Operation, PartialLimits, Progress, Protect, TableLimits, Window,
    captured, counters, ensure, exemption_uses, observe, undo,
};
use pgrail_testing::{Client, Database, for_each_server};

/// As it was installed: see `fixtures/version_1.sql`.
fn core() -> GuardSpec {
    let limits = TableLimits {
        max_rows: 3,
        max_cascade_rows: 1000,
        max_transaction_rows: Some(2000),
        max_updated_rows: Some(5),
        window: None,
    };
    GuardSpec {
        limits,
        protect: Protect { drop_partition: true, ..Protect::default() },
        capture: Some(Capture::default()),
        allowances: vec![Allowance {
            role: "retention_job".into(),
            limits: PartialLimits { max_rows: Some(50), ..PartialLimits::default() },
            operations: vec![Operation::Delete],
        }],
        ..guard("shop/core", &[("public", "users"), ("public", "events")])
    }
}

async fn version_1(database: &Database) -> Client {
    installed(database, include_str!("fixtures/version_1.sql")).await
}

async fn installed(database: &Database, steps: &str) -> Client {
    let client = friday(database, 20).await;
    run(&client, include_str!("fixtures/version_1_tables.sql")).await;
    let mut sql = steps.to_owned();
    for table in observe(&client).await.expect("observe").catalog.tables() {
        sql = sql.replace(&format!("<<{}>>", table.label()), &table.oid.to_string());
    }
    for step in sql.split("\n-- next step\n") {
        run(&client, &format!("BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; {step}\n; COMMIT")).await;
    }
    client
}

#[tokio::test]
async fn version_1_is_replaced_without_a_moment_in_which_nothing_is_stopped() {
    for_each_server(async |server| {
        let database = server.database("version_1").await;
        let mut client = version_1(&database).await;
        let app = database.connect().await;
        // The superuser of the test has an exemption for ten rows.
        stopped(&app, "PGR01", "DELETE FROM users").await;
        stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
        run(&app, "DELETE FROM users WHERE id <= 7").await;
        // An attempt after every step of the plan, in a session that used the old functions and in new ones.
        let spec = core();
        let plan = pgrail_guard::plan(&spec, &observe(&client).await.expect("observe")).expect("plan");
        assert!(plan.drift().is_empty(), "{:?}", plan.drift());
        for steps in 0..=plan.steps().len() {
            let plan = pgrail_guard::plan(&spec, &observe(&client).await.expect("observe")).expect("plan");
            let applied = pgrail_guard::apply(client.as_mut(), &plan.interrupted_after(1)).await.expect("apply");
            assert!(applied.is_complete(), "{steps}: {:?}", applied.unfinished());
            stopped(&app, "PGR01", "DELETE FROM users").await;
            stopped(&app, "PGR01", "DELETE FROM events WHERE id <= 10").await;
            stopped(&app, "PGR02", "TRUNCATE users CASCADE").await;
            stopped(&app, "PGR04", "UPDATE users SET name = 'x'").await;
            stopped(&app, "PGR03", "DROP TABLE users CASCADE").await;
            stopped(&app, "PGR03", "DROP TABLE events_old").await;
            let new = database.connect().await;
            stopped(&new, "PGR01", "DELETE FROM users").await;
            run(&new, "BEGIN; DELETE FROM users WHERE id = 8; ROLLBACK").await;
        }
        let warn = GuardSpec { mode: Mode::Warn, ..limited("shop/warn", &[("public", "leads")], 1, 10) };
        for spec in [&spec, &warn] {
            let ensured = ensure(client.as_mut(), spec).await.expect("ensure");
            assert!(ensured.plan.is_empty(), "{:?} {}", ensured.progress, ensured.plan.sql().join("\n"));
        }
        let ensured = ensure(client.as_mut(), &spec).await.expect("ensure");
        assert_eq!(ensured.progress, Progress::UpToDate);
        // Nothing is left that has an old name.
        let old = "SELECT string_agg(x.name, ', ') FROM (
            SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace = 'pgrail'::regnamespace
              AND (p.proname ~ '^(trip|nothing|room|passed|settle|spend|spend_more|rights|verdict|truncating|judge_.*)$' OR p.prosrc ~ 'pgrail\\.(trip|nothing|room|passed|settle|spend|rights|verdict|truncating|pass_)')
            UNION ALL SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'pgrail'::regnamespace AND (c.relname ~ '^(pass_|version_1_)' OR (c.relkind = 'r' AND c.relname IN ('install', 'guard', 'relation', 'assignment', 'allowance', 'member', 'trigger', 'routine')))
            UNION ALL SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE pg_get_triggerdef(t.oid) ~ 'pgrail\\.(nothing|truncating|trip)'
          ) x(name)";
        assert_eq!(client.query_one(old, &[]).await.expect("old names").get::<_, Option<String>>(0), None);
        // What was counted is kept: the attempts of both versions, and what the exemption was used for.
        let blocked = counters(&client).await.expect("counters");
        let users = blocked.iter().find(|counter| counter.table == "public.users").expect("users");
        let rounds = i64::try_from(plan.steps().len()).unwrap() + 1;
        assert_eq!(users.blocked_attempts, 2 + 5 * rounds);
        let used = exemption_uses(&client).await.expect("uses");
        assert_eq!((used.len(), used[0].rows, used[0].statements, used[0].lost), (1, 7, 1, false));
        // What was captured is the owner's now, and can still be restored.
        let kept = captured(&client).await.expect("captured");
        let mut rows: Vec<_> = kept[0].tables.iter().map(|it| (it.table.as_str(), it.deleted)).collect();
        rows.sort_unstable();
        let of_seven_users =
            [("public.analytics", 35), ("public.conversations", 70), ("public.leads", 14), ("public.messages", 700)];
        assert_eq!((kept.len(), &rows[..4], rows[4]), (1, &of_seven_users[..], ("public.users", 7)));
        let undone = undo(client.as_mut(), kept[0].transaction, Conflicts::Refuse, false).await.expect("undo");
        assert!(undone.done && count(&client, "users").await == 20, "{undone:?}");
        assert_eq!(count(&client, "pg_class c WHERE c.relname IN ('captured', 'captured_transaction')").await, 0);
        drop((app, client));
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn version_2_gets_windows_without_a_moment_in_which_nothing_is_stopped() {
    for_each_server(async |server| {
        let database = server.database("version_2").await;
        let mut client = installed(&database, include_str!("fixtures/version_2.sql")).await;
        let app = database.connect().await;
        stopped(&app, "PGR01", "DELETE FROM users").await;
        // Nothing is drift; what it wrote reads as guards without a window.
        let plan = pgrail_guard::plan(&core(), &observe(&client).await.expect("observe")).expect("plan");
        assert!(plan.drift().is_empty(), "{:?}", plan.drift());
        let window = Some(Window { duration: 600, max_rows: Some(4), max_cascade_rows: Some(2000) });
        let spec = GuardSpec { limits: TableLimits { window, ..core().limits }, ..core() };
        let plan = pgrail_guard::plan(&spec, &observe(&client).await.expect("observe")).expect("plan");
        for _ in 0..plan.steps().len() {
            let plan = pgrail_guard::plan(&spec, &observe(&client).await.expect("observe")).expect("plan");
            let applied = pgrail_guard::apply(client.as_mut(), &plan.interrupted_after(1)).await.expect("apply");
            assert!(applied.is_complete(), "{:?}", applied.unfinished());
            stopped(&app, "PGR01", "DELETE FROM users").await;
            stopped(&app, "PGR01", "DELETE FROM events WHERE id <= 10").await;
            run(&app, "BEGIN; DELETE FROM users WHERE id = 8; ROLLBACK").await;
        }
        let ensured = ensure(client.as_mut(), &spec).await.expect("ensure");
        assert_eq!(ensured.progress, Progress::UpToDate, "{}", ensured.plan.sql().join("\n"));
        let users = counters(&client).await.expect("counters");
        let users = users.iter().find(|counter| counter.table == "public.users").expect("users");
        assert_eq!(users.blocked_attempts, 1 + i64::try_from(plan.steps().len()).unwrap());
        let mut deleted = 0;
        while app.batch_execute(&format!("DELETE FROM users WHERE id = {}", deleted + 1)).await.is_ok() {
            deleted += 1;
        }
        assert!((2..=4).contains(&deleted), "{deleted}");
        drop((app, client));
        database.finish().await;
    })
    .await;
}

/// As it was installed: see `fixtures/version_3.sql`.
fn with_window() -> GuardSpec {
    let window = Some(Window { duration: 86_400, max_rows: Some(4), max_cascade_rows: Some(2000) });
    GuardSpec { limits: TableLimits { window, ..core().limits }, ..core() }
}

#[tokio::test]
async fn version_3_gets_protected_columns_and_its_windows_go_on() {
    for_each_server(async |server| {
        let database = server.database("version_3").await;
        let mut client = installed(&database, include_str!("fixtures/version_3.sql")).await;
        let app = database.connect().await;
        run(&app, "DELETE FROM users WHERE id = 20").await;
        run(&app, "DELETE FROM users WHERE id = 19").await;
        stopped(&app, "PGR01", "DELETE FROM users").await;
        let plan = pgrail_guard::plan(&with_window(), &observe(&client).await.expect("observe")).expect("plan");
        assert!(plan.drift().is_empty(), "{:?}", plan.drift());
        let spec = GuardSpec { protect: Protect { drop_column: true, ..with_window().protect }, ..with_window() };
        let plan = pgrail_guard::plan(&spec, &observe(&client).await.expect("observe")).expect("plan");
        for _ in 0..plan.steps().len() {
            let plan = pgrail_guard::plan(&spec, &observe(&client).await.expect("observe")).expect("plan");
            let applied = pgrail_guard::apply(client.as_mut(), &plan.interrupted_after(1)).await.expect("apply");
            assert!(applied.is_complete(), "{:?}", applied.unfinished());
            stopped(&app, "PGR01", "DELETE FROM users").await;
            stopped(&app, "PGR01", "DELETE FROM events WHERE id <= 10").await;
            stopped(&app, "PGR03", "DROP TABLE users CASCADE").await;
            run(&app, "BEGIN; DELETE FROM users WHERE id = 8; ROLLBACK").await;
        }
        let ensured = ensure(client.as_mut(), &spec).await.expect("ensure");
        assert_eq!(ensured.progress, Progress::UpToDate, "{}", ensured.plan.sql().join("\n"));
        stopped(&app, "PGR03", "ALTER TABLE users DROP COLUMN name").await;
        stopped(&app, "PGR03", "ALTER TABLE users ALTER COLUMN name TYPE varchar(2)").await;
        // What was removed before counts.
        let mut deleted = 0;
        while app.batch_execute(&format!("DELETE FROM users WHERE id = {}", deleted + 1)).await.is_ok() {
            deleted += 1;
        }
        assert!((1..=2).contains(&deleted), "{deleted}");
        drop((app, client));
        database.finish().await;
    })
    .await;
}
