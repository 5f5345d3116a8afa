//! A user is deleted, found again in the backups, and restored, without a cluster.

use super::{Shop, err, out, pgrail};
use pgrail_testing::{client_programs, for_each_server};
use serde_json::{Value, json};
use std::process::Output;

impl Shop {
    /// A backup as the pods of the operator take it, into the directory `backups`.
    fn back_up(&self, time: &str) -> String {
        self.back_up_for(time, &[])
    }

    /// The same, encrypted for these public keys.
    fn back_up_for(&self, time: &str, recipients: &[&str]) -> String {
        let config = json!({
            "identity": {"clusterId": "c", "namespace": "shop", "schedule": "nightly", "scheduleUid": "u"},
            "store": {"url": "file:///backups"},
            "dump": {
                "database": "shop/shop", "databaseUid": "u", "backupName": time, "compression": {"method": "gzip", "level": 1},
                "globals": false, "ageRecipients": recipients, "rowCounts": "Exact", "verification": "ReadBack",
            },
        });
        let path = self.path().to_str().unwrap();
        std::fs::create_dir_all(self.path().join("connection")).unwrap();
        std::fs::write(self.path().join("connection/uri"), &self.database.uri).unwrap();
        for step in ["dump", "verify"] {
            let output = pgrail(
                self.path(),
                &["agent", step, "--config", &config.to_string(), "--volume", path, "--work", path],
            )
            .args(["--connection-directory", "connection", "--ca-directory", "none", "--store-directory", "none"])
            .args(["--termination-log", "message", "--pod-uid", time])
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("PGRAIL_PG_BIN", client_programs(self.database.major))
            .output()
            .unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        }
        let message: Value = serde_json::from_slice(&std::fs::read(self.path().join("message")).unwrap()).unwrap();
        message["manifestSha256"].as_str().unwrap().to_owned()
    }

    pub(super) fn with_store(&self, args: &[&str]) -> Output {
        let url = format!("file://{}/backups", self.path().display());
        pgrail(self.path(), args)
            .args(["--storage-url", &url])
            .env("DATABASE_URL", &self.database.uri)
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("PGRAIL_PG_BIN", client_programs(self.database.major))
            .output()
            .unwrap()
    }
}

#[tokio::test]
async fn a_deleted_user_is_found_in_the_backups_and_restored() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let client = shop.database.connect().await;
        let count = async |from: &str| -> i64 {
            client.query_one(&format!("SELECT count(*) FROM {from}"), &[]).await.unwrap().get(0)
        };
        let sha256 = shop.back_up("first");
        client.batch_execute("DELETE FROM users WHERE id = 7").await.unwrap();
        let newer = shop.back_up("second");

        let listed = shop.with_store(&["backups", "list", "-o", "json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let location = |at: usize| listed[at]["location"].as_str().unwrap().to_owned();
        let directories = ["cluster", "namespace", "schedule"].map(|part| listed[0][part].as_str().unwrap()).join("/");
        assert!(directories == "c/shop/nightly" && location(0).starts_with(&directories), "{directories}");
        assert_eq!((listed.as_array().unwrap().len(), &listed[1]["rows"], &listed[1]["tableIndex"]), (2, &json!(5110), &json!(true)));

        let find = ["backups", "find", "--table", "public.users", "-o", "name", "--where"];
        let found = shop.with_store(&[&find[..], &["id = 7"]].concat());
        assert_eq!((found.status.code(), out(&found).trim().to_owned()), (Some(0), location(1)), "{}", err(&found));
        let found = shop.with_store(&[&find[..], &["id = 8"]].concat());
        assert_eq!(out(&found).trim(), location(0), "the newest one");
        let nothing = shop.with_store(&[&find[..], &["id = 99"]].concat());
        assert_eq!(nothing.status.code(), Some(2), "{}", err(&nothing));

        let backup = location(1);
        let restore = ["restore", "--in-place", "--table", "public.users", "--where", "id = 7", "--follow-cascade", "--backup", &backup];
        let dry = shop.with_store(&[&restore[..], &["--dry-run"]].concat());
        assert_eq!(dry.status.code(), Some(0), "{}", err(&dry));
        assert!(err(&dry).contains("511 rows: can be restored; nothing was changed"), "{}", err(&dry));
        assert_eq!(count("users").await, 9);
        // Not with the manifest of another backup.
        let other = shop.with_store(&[&restore[..], &["--manifest-sha256", &newer]].concat());
        assert_eq!(other.status.code(), Some(1));
        assert!(err(&other).contains("is not the manifest that was published"), "{}", err(&other));
        let restored = shop.with_store(&[&restore[..], &["--manifest-sha256", &sha256, "-o", "json"]].concat());
        assert_eq!(restored.status.code(), Some(0), "{}", err(&restored));
        let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
        assert_eq!((&restored["done"], &restored["tables"][2]["inserted"]), (&json!(true), &json!(500)), "{restored:#}");
        assert_eq!((count("users").await, count("leads").await, count("messages").await), (10, 100, 5000));

        // What prevents a restore is reported, and by the exit status.
        client.batch_execute("ALTER TABLE users ADD name text DEFAULT 'x'; DELETE FROM users WHERE id IN (7, 8); INSERT INTO leads VALUES (6, 9)").await.unwrap();
        let conflicting = shop.with_store(&[&restore[..], &["--dry-run"]].concat());
        assert_eq!(conflicting.status.code(), Some(2), "{}", err(&conflicting));
        assert!(err(&conflicting).contains("1 rows of public.leads exist and are different, by (id): 6"), "{}", err(&conflicting));
        let refused = shop.with_store(&["restore", "--in-place", "--table", "public.users", "--where", "id IN (SELECT 1)"]);
        assert!(refused.status.code() == Some(1) && err(&refused).contains("\"select\" is not possible"), "{}", err(&refused));
        drop(client);
        shop.database.finish().await;
    })
    .await;
}

/// The key pair of age's own tests.
pub(super) const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
pub(super) const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

#[tokio::test]
async fn rows_of_encrypted_backups_are_found_and_restored_with_an_identity() {
    let shop = Shop::new(pgrail_testing::server(18).database("cli_age").await).await;
    shop.back_up_for("first", &[PUBLIC]);
    let client = shop.database.connect().await;
    client.batch_execute("DELETE FROM users WHERE id = 7").await.unwrap();
    shop.back_up_for("second", &[PUBLIC]);
    std::fs::write(shop.path().join("key.txt"), format!("# my key\n{SECRET}\n")).unwrap();
    std::fs::write(shop.path().join("bad.txt"), format!("{SECRET}X")).unwrap();
    let listed = shop.with_store(&["backups", "list", "-o", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&listed[1]["encrypted"], &listed[1]["tables"], &listed[1]["rows"]),
        (&json!(true), &json!(3), &json!(5110))
    );

    let find = ["backups", "find", "--table", "public.users", "-o", "name", "--where", "id = 7"];
    let restore =
        ["restore", "--in-place", "--table", "public.users", "--where", "id = 7", "--follow-cascade", "--backup"];
    let location = listed[1]["location"].as_str().unwrap();
    for command in [&find[..], &[&restore[..], &[location]].concat()] {
        let refused = shop.with_store(command);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            err(&refused).contains("is encrypted") && err(&refused).contains("--identity-file"),
            "{}",
            err(&refused)
        );
        let refused = shop.with_store(&[command, &["--identity-file", "bad.txt"]].concat());
        assert!(err(&refused).contains("--identity-file bad.txt: line 1"), "{}", err(&refused));
        assert!(!err(&refused).contains(&SECRET[..30]), "the key is not repeated");
    }
    let found = shop.with_store(&[&find[..], &["--identity-file", "key.txt"]].concat());
    assert_eq!((found.status.code(), out(&found).trim()), (Some(0), location), "{}", err(&found));
    let restored = shop.with_store(&[&restore[..], &[location, "--identity-file", "key.txt", "-o", "json"]].concat());
    assert_eq!(restored.status.code(), Some(0), "{}", err(&restored));
    let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!((&restored["done"], &restored["tables"][2]["inserted"]), (&json!(true), &json!(500)), "{restored:#}");

    let server = pgrail_testing::server(18);
    let name = server.role_name("whole");
    let whole = ["restore", "--name", &name, "--backup", location];
    let refused = shop.with_store(&whole);
    assert!(err(&refused).contains("--identity-file"), "{}", err(&refused));
    let restored = shop.with_store(&[&whole[..], &["--identity-file", "key.txt"]].concat());
    assert_eq!(restored.status.code(), Some(0), "{}", err(&restored));
    let copy = pgrail_testing::connect(&server.uri_of(&name)).await;
    let rows: i64 = copy.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get(0);
    assert_eq!(rows, 10);
    drop(copy);
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    drop(client);
    shop.database.finish().await;
}

#[tokio::test]
async fn a_backup_becomes_a_new_database_and_a_table_a_new_schema() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let client = shop.database.connect().await;
        shop.back_up("first");
        client.batch_execute("DELETE FROM users WHERE id = 7").await.unwrap();
        let name = server.role_name("copy");
        let restored = shop.with_store(&["restore", "--name", &name, "-o", "json"]);
        assert_eq!(restored.status.code(), Some(0), "{}", err(&restored));
        assert!(
            err(&restored).contains(&format!("5,110 rows of 3 tables into the new database {name}")),
            "{}",
            err(&restored)
        );
        let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
        assert_eq!((&restored["database"], &restored["tables"][2]["rows"]), (&json!(name), &json!(10)), "{restored:#}");
        let copy = pgrail_testing::connect(&server.uri_of(&name)).await;
        let rows: i64 = copy.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get(0);
        assert_eq!(rows, 10);
        drop(copy);
        let again = shop.with_store(&["restore", "--name", &name]);
        assert_eq!(again.status.code(), Some(1));
        assert!(err(&again).contains("exists: drop it, or choose another name"), "{}", err(&again));
        client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();

        let beside = shop.with_store(&["restore", "--table", "public.users", "--name", "before", "-o", "name"]);
        assert_eq!((beside.status.code(), out(&beside).trim()), (Some(0), "before"), "{}", err(&beside));
        let rows: i64 = client.query_one("SELECT count(*) FROM before.users WHERE id = 7", &[]).await.unwrap().get(0);
        assert_eq!(rows, 1);
        let refused = shop.with_store(&["restore", "--table", "public.users", "--where", "id = 7"]);
        assert_eq!(refused.status.code(), Some(2), "--where needs --in-place: {}", err(&refused));
        drop(client);
        shop.database.finish().await;
    })
    .await;
}
