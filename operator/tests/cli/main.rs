//! The command line as its user has it: a process, manifests in files, a database, an exit status.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod backup;
mod connecting;
mod manifests;
mod restore;
mod status;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use pgrail_testing::{Database, for_each_server, server};
use serde_json::{Value, json};
use tempfile::TempDir;

const FRIDAY: &str = "
    CREATE TABLE users (id int PRIMARY KEY);
    CREATE TABLE leads (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE TABLE messages (id int PRIMARY KEY, lead_id int NOT NULL REFERENCES leads ON DELETE CASCADE);
    CREATE INDEX ON leads (user_id);
    CREATE INDEX ON messages (lead_id);
    INSERT INTO users SELECT generate_series(1, 10);
    INSERT INTO leads SELECT id, id % 10 + 1 FROM generate_series(1, 100) id;
    INSERT INTO messages SELECT id, id % 100 + 1 FROM generate_series(1, 5000) id;
    ANALYZE";

/// A database and a folder of manifests.
struct Shop {
    database: Database,
    folder: TempDir,
}

impl Shop {
    async fn new(database: Database) -> Self {
        database.connect().await.batch_execute(FRIDAY).await.unwrap();
        Self { database, folder: TempDir::new().unwrap() }
    }

    fn write(&self, name: &str, manifest: &Value) {
        std::fs::write(self.folder.path().join(name), serde_json::to_string_pretty(manifest).unwrap()).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn pgrail(&self, args: &[&str]) -> Output {
        run(&self.database.uri, self.folder.path(), args)
    }
}

fn run(url: &str, folder: &Path, args: &[&str]) -> Output {
    pgrail(folder, args).env("DATABASE_URL", url).output().unwrap()
}

/// The program, with nothing of the environment and no terminal.
fn pgrail(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrail"));
    command.args(args).env_clear().current_dir(folder).stdin(Stdio::null());
    command
}

fn guard(patch: Value) -> Value {
    let mut spec = json!({
        "databaseRef": {"name": "shop"}, "tables": [{"schema": "public", "name": "users"}],
        "limits": {"maxRows": 5, "maxCascadeRows": 50},
    });
    for (key, value) in patch.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "TableGuard", "metadata": {"name": "core"}, "spec": spec})
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn from_a_plan_to_a_stopped_delete_and_back() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        shop.write("guard.yaml", &guard(json!({})));
        shop.write("database.yaml", &json!({"kind": "ProtectedDatabase", "metadata": {"name": "shop"}}));
        let plan = shop.pgrail(&["plan", "-f", "."]);
        assert_eq!(plan.status.code(), Some(2), "{}", err(&plan));
        assert!(
            out(&plan).contains("+ triggers on public.users")
                && err(&plan).contains("ProtectedDatabase \"shop\" is skipped")
        );
        let client = shop.database.connect().await;
        let count = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrail'";
        assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0, "a plan changes nothing");

        let applied = shop.pgrail(&["apply", "-f", "guard.yaml", "-o", "json"]);
        assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
        let guards: Value = serde_json::from_slice(&applied.stdout).unwrap();
        assert_eq!(guards[0]["status"]["tables"][0]["state"], "Enforced");
        assert_eq!(shop.pgrail(&["plan", "-f", "guard.yaml"]).status.code(), Some(0), "nothing left to do");
        let stopped = client.batch_execute("DELETE FROM users WHERE id = 1").await.unwrap_err();
        assert_eq!(stopped.code().unwrap().code(), "PGR01");

        let removed = shop.pgrail(&["remove", "-f", "guard.yaml"]);
        assert_eq!(removed.status.code(), Some(0), "{}", err(&removed));
        assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 0, "nothing stays behind");
        client.batch_execute("DELETE FROM users WHERE id = 1").await.unwrap();
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_done_is_reported_with_its_cause_and_a_removal_ends_only_when_nothing_is_left() {
    let server = server(15);
    let shop = Shop::new(server.database("cli").await).await;
    shop.write("guard.yaml", &guard(json!({})));
    let client = shop.database.connect().await;
    // For want of a privilege: at once, with the GRANT.
    let role = server.role_name("rail");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await.unwrap();
    let poor = run(&shop.database.uri_for(&role, "secret"), shop.folder.path(), &["apply", "-f", "guard.yaml"]);
    assert_eq!(poor.status.code(), Some(2), "{}", err(&poor));
    let grant = format!("run GRANT CREATE ON DATABASE {} TO {role}", shop.database.name);
    assert!(err(&poor).contains(&grant) && !err(&poor).contains("waits for a lock"), "{}", err(&poor));
    client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();

    assert_eq!(shop.pgrail(&["apply", "-f", "guard.yaml"]).status.code(), Some(0));
    let writer = shop.database.connect().await;
    writer.batch_execute("SET application_name = 'import'; BEGIN; INSERT INTO users VALUES (1000)").await.unwrap();
    let removed = shop.pgrail(&["remove", "--all", "--yes"]);
    assert_eq!(removed.status.code(), Some(2), "{}", err(&removed));
    let holder = "waits for a lock on public.users, held by pid ";
    let text = err(&removed);
    assert!(text.contains(holder) && text.contains("application import") && !text.contains("Pending"), "{text}");
    writer.batch_execute("COMMIT").await.unwrap();
    // The first call removed the configuration already.
    let again = shop.pgrail(&["remove", "--all", "--yes"]);
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));
    let left = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrail') + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgrail%')";
    assert_eq!(client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    let nothing = shop.pgrail(&["remove", "--all", "--yes"]);
    assert!(nothing.status.code() == Some(0) && out(&nothing).contains("nothing of pgrail"), "{}", out(&nothing));
    // What others put there is named.
    assert_eq!(shop.pgrail(&["apply", "-f", "guard.yaml"]).status.code(), Some(0));
    client.batch_execute("CREATE TABLE pgrail.theirs (id int)").await.unwrap();
    let kept = shop.pgrail(&["remove", "--all", "--yes"]);
    assert_eq!(kept.status.code(), Some(2), "{}", err(&kept));
    assert!(err(&kept).contains("cannot drop schema pgrail"), "{}", err(&kept));
    client.batch_execute("DROP TABLE pgrail.theirs").await.unwrap();
    assert_eq!(shop.pgrail(&["remove", "--all", "--yes"]).status.code(), Some(0));
    shop.database.finish().await;
}

fn exemption(role: &str, patch: Value) -> Value {
    let mut spec = json!({"guardRefs": [{"name": "core"}], "role": role, "limits": {"maxRows": 100, "maxCascadeRows": 100_000},
        "notAfter": "2100-01-01T00:00:00Z", "reason": "ticket 4711"});
    spec.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "GuardExemption", "metadata": {"name": "purge"}, "spec": spec})
}

#[tokio::test]
async fn an_exemption_is_given_by_apply_and_taken_back_by_remove() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let role = server.role_name("purge");
        let admin = shop.database.connect().await;
        let login = format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
        );
        admin.batch_execute(&login).await.unwrap();
        let app = shop.database.connect_as(&role, "secret").await;
        shop.write("guard.yaml", &guard(json!({})));
        shop.write("purge.yaml", &exemption(&role, json!({})));
        let early = shop.pgrail(&["apply", "-f", "purge.yaml"]);
        assert_eq!(early.status.code(), Some(2), "{}", err(&early));
        assert!(out(&early).contains("default/core is not in the database"), "{}", out(&early));
        let applied = shop.pgrail(&["apply", "-f", ".", "-o", "json"]);
        assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
        let objects: Value = serde_json::from_slice(&applied.stdout).unwrap();
        assert_eq!((&objects[0]["kind"], &objects[1]["status"]["phase"]), (&json!("TableGuard"), &json!("Active")));
        assert_eq!(shop.pgrail(&["plan", "-f", "."]).status.code(), Some(0), "nothing left to do");
        app.batch_execute("DELETE FROM users WHERE id = 1").await.unwrap();
        let told = shop.pgrail(&["apply", "-f", "purge.yaml"]);
        assert!(out(&told).contains("Active") && out(&told).contains("511"), "{}", out(&told));
        let removed = shop.pgrail(&["remove", "-f", "purge.yaml"]);
        assert_eq!(removed.status.code(), Some(0), "{}", err(&removed));
        let stopped = app.batch_execute("DELETE FROM users WHERE id = 2").await.unwrap_err();
        assert_eq!(stopped.code().unwrap().code(), "PGR01");
        for (patch, code, words) in [
            (json!({"notAfter": "2020-01-01T00:00:00Z"}), 2, "Rejected"),
            (json!({"requireBackup": {"maxAge": "1h"}}), 2, "needs a cluster"),
            (json!({"tables": [{"schema": "public", "name": "nosuch"}]}), 2, "public.nosuch is not a table"),
            (json!({"limits": {"maxRows": 9, "maxTransactionRows": 5}}), 1, "maxTransactionRows (5)"),
        ] {
            shop.write("purge.yaml", &exemption(&role, patch));
            let output = shop.pgrail(&["apply", "-f", "purge.yaml"]);
            assert_eq!(output.status.code(), Some(code), "{words}: {}", err(&output));
            assert!(format!("{}{}", out(&output), err(&output)).contains(words), "{words}: {}", out(&output));
        }
        assert!(app.batch_execute("DELETE FROM users WHERE id = 2").await.is_err());
        drop(app);
        admin.batch_execute(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await.unwrap();
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let folder = TempDir::new().unwrap();
    let manifest = serde_json::to_string(&guard(json!({}))).unwrap();
    std::fs::write(folder.path().join("guard.yaml"), manifest).unwrap();
    let output = run("postgres://app:hunter2@127.0.0.1:1/shop", folder.path(), &["plan", "-f", "guard.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("127.0.0.1:1"), "{}", err(&output));
    assert!(!err(&output).contains("hunter2"), "{}", err(&output));
    let malformed = run("postgres://app:hunter2@[::1/shop", folder.path(), &["plan", "-f", "guard.yaml"]);
    assert_eq!(malformed.status.code(), Some(1));
    assert!(!err(&malformed).contains("hunter2"), "{}", err(&malformed));
}

#[tokio::test]
async fn the_blast_radius_in_every_form() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let table = shop.pgrail(&["blast-radius"]);
        assert_eq!(table.status.code(), Some(0), "{}", err(&table));
        assert!(out(&table).contains("public.users") && out(&table).contains("5,100"), "{}", out(&table));
        let json: Value =
            serde_json::from_slice(&shop.pgrail(&["blast-radius", "users", "-o", "json"]).stdout).unwrap();
        assert_eq!((&json[0]["table"], &json[0]["rowsAtRisk"]), (&json!("public.users"), &json!(5100)));
        let dot = out(&shop.pgrail(&["blast-radius", "users", "-o", "dot"]));
        assert!(dot.starts_with("digraph") && dot.contains("\"public.users\" -> \"public.leads\""), "{dot}");
        let page = out(&shop.pgrail(&["blast-radius", "-o", "html"]));
        // The namespace of SVG is a name, not an address.
        let fetches = page.replace("http://www.w3.org/2000/svg", "").contains("://");
        assert!(page.contains("public.messages") && !fetches, "one page, nothing fetched: {page}");
        let narrowed = out(&shop.pgrail(&["blast-radius", "leads", "-o", "html"]));
        assert!(narrowed.contains("public.messages") && !narrowed.contains("public.users"), "{narrowed}");
        let absent = shop.pgrail(&["blast-radius", "nosuch"]);
        assert!(absent.status.code() == Some(1) && err(&absent).contains("nosuch"));
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn a_rehearsal_from_the_shell() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        shop.write("guard.yaml", &guard(json!({})));
        let applied = shop.pgrail(&["apply", "-f", "guard.yaml"]);
        assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
        let stopped = shop.pgrail(&["rehearse", "DELETE FROM users WHERE id <= 2"]);
        assert_eq!(stopped.status.code(), Some(2), "{}", err(&stopped));
        let text = out(&stopped);
        assert!(text.contains("PGR01") && text.contains("Guard: default/core"), "{text}");
        let tree = "public.users  2 deleted\n└─ public.leads  20 deleted\n   └─ public.messages  1,000 deleted\n\nTotal: 1,022 deleted\n";
        assert!(text.contains(tree) && text.contains("Rolled back"), "{text}");
        let passing = shop.pgrail(&["rehearse", "DELETE FROM messages WHERE id <= 10", "-o", "json"]);
        assert_eq!(passing.status.code(), Some(0), "{}", err(&passing));
        let json: Value = serde_json::from_slice(&passing.stdout).unwrap();
        assert_eq!((&json["verdict"], &json["total"]["deleted"]), (&json!("Passes"), &json!(10)));
        let yaml = out(&shop.pgrail(&["rehearse", "DELETE FROM users WHERE id <= 2", "-o", "yaml"]));
        assert!(yaml.starts_with("verdict: Stopped\nstop:\n  code: PGR01\n") && yaml.contains("table: public.messages"), "{yaml}");
        for (arguments, words) in [
            (vec!["TRUNCATE users"], "pgrail blast-radius"),
            (vec!["DELETE FROM users; COMMIT"], "one statement"),
            (vec!["DELETE FROM nosuch"], "42P01"),
            (vec!["DELETE FROM messages", "--max-rows", "10"], "--force"),
            (vec!["DELETE FROM messages", "--as", "nobody"], "nobody"),
            (vec!["DELETE FROM messages", "--set", "pgrail.note_1=x"], "pgrail.note_1"),
        ] {
            let refused = shop.pgrail(&[vec!["rehearse"], arguments.clone()].concat());
            assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {}", out(&refused));
            assert!(err(&refused).contains(words), "{arguments:?}: {}", err(&refused));
        }
        let client = shop.database.connect().await;
        let rows = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM messages)";
        let rows = client.query_one(rows, &[]).await.unwrap();
        assert_eq!((rows.get::<_, i64>(0), rows.get::<_, i64>(1)), (10, 5000));
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_rehearsal_is_rolled_back_before_it_says_so() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let client = shop.database.connect().await;
        let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
            CREATE TRIGGER slow AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION slow()";
        client.batch_execute(slow).await.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrail"));
        command.args(["rehearse", "DELETE FROM users", "--timeout", "10m"]).env_clear().env("DATABASE_URL", &shop.database.uri);
        let rehearsal = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while client.query_one(asleep, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
        let interrupt = Command::new("kill").args(["-INT", &rehearsal.id().to_string()]).status().unwrap();
        assert!(interrupt.success());
        let output = rehearsal.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("interrupted: rolled back"), "{}", err(&output));
        assert_eq!(client.query_one(asleep, &[]).await.unwrap().get::<_, i64>(0), 0);
        assert_eq!(client.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get::<_, i64>(0), 10);
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn deleted_rows_are_listed_and_restored() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let nothing = shop.pgrail(&["undo"]);
        assert!(nothing.status.code() == Some(1) && err(&nothing).contains("pgrail is not installed"), "{}", err(&nothing));
        shop.write(
            "guard.yaml",
            &guard(json!({"capture": {"retention": "24h", "maxRows": 600}, "limits": {"maxRows": 50, "maxCascadeRows": 5000}})),
        );
        assert_eq!(shop.pgrail(&["apply", "-f", "guard.yaml"]).status.code(), Some(0));
        let empty = shop.pgrail(&["undo"]);
        assert!(empty.status.code() == Some(0) && out(&empty).is_empty(), "{}", out(&empty));

        let client = shop.database.connect().await;
        let rows = async || -> Vec<i64> {
            let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM leads), (SELECT count(*) FROM messages)";
            let row = client.query_one(sql, &[]).await.unwrap();
            (0..3).map(|place| row.get(place)).collect()
        };
        client.batch_execute("SET application_name = 'shop-backend'; DELETE FROM users WHERE id = 1").await.unwrap();
        let list: Value = serde_json::from_slice(&shop.pgrail(&["undo", "-o", "json"]).stdout).unwrap();
        assert_eq!((&list[0]["application"], &list[0]["login"]), (&json!("shop-backend"), &json!("postgres")));
        let transaction = list[0]["transaction"].to_string();
        let table = out(&shop.pgrail(&["undo"]));
        assert!(table.contains(&transaction) && table.contains("public.messages 500") && table.contains("complete"), "{table}");

        let dry = shop.pgrail(&["undo", &transaction, "--dry-run", "-o", "json"]);
        assert_eq!(dry.status.code(), Some(0), "{}", err(&dry));
        let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
        assert_eq!((&dry["done"], &dry["tables"][0]["inserted"]), (&json!(false), &json!(1)));
        assert_eq!(rows().await, [9, 90, 4500], "a dry run changes nothing");

        client.batch_execute("INSERT INTO users VALUES (1)").await.unwrap();
        let conflict = shop.pgrail(&["undo", &transaction, "--dry-run"]);
        assert_eq!(conflict.status.code(), Some(2), "{}", err(&conflict));
        assert!(err(&conflict).contains("public.users exist already"), "{}", err(&conflict));
        assert_eq!(shop.pgrail(&["undo", &transaction]).status.code(), Some(1));
        assert_eq!(rows().await, [10, 90, 4500]);
        let undone = shop.pgrail(&["undo", &transaction, "--skip-existing"]);
        assert_eq!(undone.status.code(), Some(0), "{}", err(&undone));
        assert!(out(&undone).contains("public.messages") && err(&undone).contains("undone"), "{}", out(&undone));
        assert_eq!(rows().await, [10, 100, 5000]);
        let again = shop.pgrail(&["undo", &transaction]);
        assert!(again.status.code() == Some(1) && err(&again).contains("undone already"), "{}", err(&again));

        // More rows than may be kept are reported, never restored in part.
        client.batch_execute("DELETE FROM users WHERE id IN (1, 2)").await.unwrap();
        let list: Value = serde_json::from_slice(&shop.pgrail(&["undo", "-o", "json"]).stdout).unwrap();
        let incomplete = shop.pgrail(&["undo", &list[0]["transaction"].to_string()]);
        assert!(incomplete.status.code() == Some(1) && err(&incomplete).contains("capture.maxRows"), "{}", err(&incomplete));
        let removed = shop.pgrail(&["remove", "--all", "--yes"]);
        assert!(out(&removed).contains("captured rows were removed with the last guard"), "{}", out(&removed));
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn crds_and_grants_need_no_database() {
    let folder = TempDir::new().unwrap();
    let crds = out(&run("", folder.path(), &["crds"]));
    assert_eq!(crds.matches("kind: CustomResourceDefinition").count(), 7);
    for platform in ["plain", "cloudnative-pg", "rds", "cloud-sql", "supabase"] {
        let grants = run("", folder.path(), &["grants", "--platform", platform, "--table-owner", "app\"; DROP"]);
        assert_eq!(grants.status.code(), Some(0), "{}", err(&grants));
        assert!(out(&grants).contains("GRANT \"app\"\"; DROP\" TO \"pgrail\""), "{}", out(&grants));
    }
}
