//! Capture and what else uses the database: dumps, row level security, publications.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use common::capture::*;
use common::{FRIDAY, count, friday, guard, install, reconcile, run, verify};
use pgrail_guard::{Conflicts, PlanError, TableState, observe, plan, prune, undo};
use pgrail_testing::{Database, Server, for_each_server, programs};
use tokio::io::AsyncWriteExt as _;

/// `pg_dump` of the whole database by this role: what it printed, or why it failed.
async fn dump(server: &Server, database: &Database, role: &str) -> Result<String, String> {
    let output = tokio::process::Command::new(programs(server.major).join("pg_dump"))
        .arg(database.uri_for(role, "secret"))
        .output()
        .await
        .expect("pg_dump");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs what `pg_dump` printed, as the superuser.
async fn load(server: &Server, database: &Database, sql: &str) {
    let mut psql = tokio::process::Command::new(programs(server.major).join("psql"))
        .args(["-qXv", "ON_ERROR_STOP=1", &database.uri])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("psql");
    psql.stdin.take().unwrap().write_all(sql.as_bytes()).await.expect("write");
    assert!(psql.wait().await.expect("wait").success());
}

#[tokio::test]
async fn who_could_dump_the_database_still_can_and_nobody_else_reads_captured_rows() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let admin = database.connect().await;
        let [owner, rail, reader, bypass, granted, app] =
            ["owner", "rail", "reader", "bypass", "granted", "app"].map(|name| server.role_name(name));
        for role in [&owner, &rail, &reader, &bypass, &granted, &app] {
            run(&admin, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
        }
        run(
            &admin,
            &format!(
                "GRANT {owner} TO {rail}; GRANT pg_read_all_data TO {reader}, {bypass}; ALTER ROLE {bypass} BYPASSRLS;
                 GRANT CREATE ON DATABASE {} TO {rail}; GRANT CREATE, USAGE ON SCHEMA public TO {owner};
                 ALTER DEFAULT PRIVILEGES FOR ROLE {rail} GRANT ALL ON TABLES TO {app}; ALTER DEFAULT PRIVILEGES FOR ROLE {rail} GRANT ALL ON SEQUENCES TO PUBLIC;
                 SET ROLE {owner}",
                database.name
            ),
        )
        .await;
        run(&admin, FRIDAY).await;
        run(&admin, &common::friday_rows(5)).await;
        run(&admin, "INSERT INTO users VALUES (1000, 'only in the captured rows')").await;
        run(&admin, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {granted}; GRANT SELECT, DELETE ON users TO {app}")).await;
        for role in [&owner, &reader, &bypass, &granted] {
            dump(&server, &database, role).await.expect("before");
        }

        let spec = capturing(guard("a/b", USERS));
        let mut client = database.connect_as(&rail, "secret").await;
        install(&mut client, &spec).await;
        run(&database.connect_as(&app, "secret").await, "DELETE FROM users WHERE id = 1000").await;
        for role in [&owner, &reader, &bypass] {
            let dumped = dump(&server, &database, role).await.expect("after");
            assert!(dumped.contains("only in the captured rows"), "by {role}");
        }
        // The owner's dump can be restored, captures there, and what it holds can be restored too.
        let copy = server.database("undo_copy").await;
        load(&server, &copy, &dump(&server, &database, &owner).await.expect("dump")).await;
        let mut restored = copy.connect().await;
        run(&restored, "DELETE FROM users WHERE id = 1").await;
        assert_eq!(kept(&restored).await.iter().map(|it| it.tables.len()).collect::<Vec<_>>(), [5, 1]);
        undo_newest(&mut restored).await;
        let first = kept(&restored).await[1].transaction;
        let undone = undo(restored.as_mut(), first, Conflicts::Refuse, false).await.expect("undo");
        assert!(undone.done && count(&restored, "users WHERE id IN (1, 1000)").await == 2, "{undone:?}");
        drop(restored);
        copy.finish().await;
        // A role that reads every table because it was granted SELECT on each needs it on captured rows too, and PostgreSQL
        // knows no way around. Their owner decides, and pgrail leaves it so.
        let error = dump(&server, &database, &granted).await.expect_err("not granted");
        assert!(error.contains("captured"), "{error}");
        let store: u32 = admin.query_one("SELECT oid FROM pg_roles WHERE rolname = $1", &[&owner]).await.unwrap().get(0);
        let [rows, transactions] = ["", "transaction_"].map(|part| format!("pgrail.captured_{part}{store}"));
        run(&admin, &format!("GRANT SELECT ON {rows}, {transactions}, {rows}_id_seq TO {granted}")).await;
        assert!(verify(&client, &spec).await.is_empty());
        dump(&server, &database, &granted).await.expect("granted");
        let session = database.connect_as(&app, "secret").await;
        for relation in [&rows, &transactions, &format!("{rows}_id_seq")] {
            let error = common::refused(&session, &format!("SELECT * FROM {relation}")).await;
            assert_eq!(error.code().code(), "42501", "{error:?}");
        }

        // Row level security of a table holds for what was deleted from it: who could not dump it cannot read that either.
        run(&admin, "ALTER TABLE users ENABLE ROW LEVEL SECURITY").await;
        dump(&server, &database, &reader).await.expect_err("policies hold for it");
        reconcile(&mut client, &spec).await;
        assert!(verify(&client, &spec).await.is_empty());
        let session = database.connect_as(&reader, "secret").await;
        assert_eq!((count(&session, &rows).await, count(&session, &transactions).await), (0, 0));
        for role in [&owner, &bypass] {
            let dumped = dump(&server, &database, role).await.expect("with row level security");
            assert!(dumped.contains("only in the captured rows"), "by {role}");
        }
        undo_newest(&mut client).await;
        run(&admin, "ALTER TABLE users DISABLE ROW LEVEL SECURITY").await;
        reconcile(&mut client, &spec).await;
        dump(&server, &database, &reader).await.expect("as before");
        drop((client, session));
        run(&admin, "RESET ROLE").await;
        for role in [&granted, &app, &reader, &bypass, &rail, &owner] {
            run(&admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
        }
        database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn captured_rows_are_never_published() {
    for_each_server(async |server| {
        let database = server.database("undo").await;
        let mut client = friday(&database, 10).await;
        let spec = capturing(guard("a/b", USERS));
        run(&client, "CREATE PUBLICATION everything FOR ALL TABLES").await;
        let error = plan(&spec, &observe(&client).await.expect("observe")).expect_err("published");
        assert!(matches!(&error, PlanError::Published { publication } if publication == "everything"), "{error}");
        assert!(error.to_string().contains("FOR TABLES IN SCHEMA"), "{error}");

        run(&client, "DROP PUBLICATION everything").await;
        install(&mut client, &spec).await;
        run(&client, "DELETE FROM users WHERE id = 1").await;
        let newest = kept(&client).await[0].transaction;
        // One that is created later: reported, and nothing more is written to what it publishes.
        run(&client, "CREATE PUBLICATION everything FOR ALL TABLES").await;
        let rows = count(&client, STORE).await;
        run(&client, "DELETE FROM users WHERE id = 2").await;
        assert_eq!(count(&client, STORE).await, rows);
        let weaker = verify(&client, &spec).await;
        assert!(weaker.is_empty() && weaker.tables()[0].state == TableState::Degraded, "{:?}", weaker.tables());
        assert!(weaker.tables()[0].message.contains("the publication everything is FOR ALL TABLES"), "{:?}", weaker.tables());
        run(&client, "UPDATE pgrail.captured_transaction_10 SET began = began - interval '1 year', kept_until = kept_until - interval '1 year'").await;
        assert_eq!(prune(&client, "local").await.expect("prune"), 0);
        let refused = undo(client.as_mut(), newest, Conflicts::Refuse, false).await.expect("undo");
        assert!(!refused.done && refused.problems[0].contains("the publication everything"), "{refused:?}");

        // As the remedy says.
        run(&client, "BEGIN; DROP PUBLICATION everything; CREATE PUBLICATION everything FOR TABLES IN SCHEMA public; COMMIT").await;
        install(&mut client, &spec).await;
        assert_eq!(prune(&client, "local").await.expect("prune"), 1);
        run(&client, "DELETE FROM users WHERE id = 3").await;
        undo_newest(&mut client).await;
        let published: i64 = client
            .query_one("SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'pgrail'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(published, 0);
        database.finish().await;
    })
    .await;
}
