//! What is installed, without manifests; and what asks before it removes.

use super::{Shop, err, guard, out};
use pgrail_testing::{for_each_server, server};
use serde_json::{Value, json};

#[tokio::test]
async fn what_is_installed_is_shown_without_manifests_and_can_be_applied_again() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let nothing = shop.pgrail(&["status"]);
        assert!(nothing.status.code() == Some(0) && out(&nothing).contains("nothing of pgrail"), "{}", err(&nothing));
        let tables = json!([{"schema": "public", "name": "users"}, {"schema": "public", "name": "lead*", "limits": {"maxRows": 3}}]);
        let allowances = json!([{"role": "purge", "limits": {"maxRows": 9}}]);
        shop.write("guard.yaml", &guard(json!({"tables": tables, "protect": ["Delete", "Truncate"], "allowances": allowances})));
        assert_eq!(shop.pgrail(&["apply", "-f", "guard.yaml"]).status.code(), Some(0));
        let client = shop.database.connect().await;
        client.batch_execute("DELETE FROM users WHERE id = 1").await.unwrap_err();

        let status = shop.pgrail(&["status"]);
        assert_eq!(status.status.code(), Some(0), "{}", err(&status));
        let text = out(&status);
        assert!(text.starts_with(&format!("database {}: managed by the command line, installed since 20", shop.database.name)), "{text}");
        let row = text.lines().find(|line| line.contains("public.users")).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["default/core", "public.users", "Enforced", "2", "5,100", "1"]);
        let wide = out(&shop.pgrail(&["status", "-o", "wide"]));
        assert!(wide.contains("DROP PROTECTED") && wide.contains("TAMPER RESISTANT") && wide.contains("NotRequested"), "{wide}");

        let yaml = shop.pgrail(&["status", "-o", "yaml"]);
        std::fs::write(shop.path().join("installed.yaml"), &yaml.stdout).unwrap();
        let same = shop.pgrail(&["plan", "-f", "installed.yaml"]);
        assert_eq!(same.status.code(), Some(0), "{}{}", out(&same), err(&same));

        // What others changed is reported, also by the exit status.
        client.batch_execute("ALTER TABLE users DISABLE TRIGGER USER").await.unwrap();
        let drifted = shop.pgrail(&["status", "-o", "json"]);
        assert_eq!(drifted.status.code(), Some(2), "{}", err(&drifted));
        let guards: Value = serde_json::from_slice(&drifted.stdout).unwrap();
        let users = guards[0]["status"]["tables"].as_array().unwrap().iter().find(|it| it["table"] == "public.users").unwrap();
        assert_eq!((&users["state"], &users["blockedAttempts"]), (&json!("Drifted"), &json!(1)));
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn how_much_of_a_window_is_used_and_what_protects_the_database_is_shown() {
    for_each_server(async |server| {
        let shop = Shop::new(server.database("cli").await).await;
        let window = json!({"duration": "1h", "maxRows": 10});
        shop.write(
            "guard.yaml",
            &guard(json!({"tables": [{"schema": "public", "name": "users", "limits": {"window": window}}]})),
        );
        assert_eq!(shop.pgrail(&["apply", "-f", "guard.yaml"]).status.code(), Some(0));
        let client = shop.database.connect().await;
        client.batch_execute("INSERT INTO users VALUES (99), (100)").await.unwrap();
        client.batch_execute("DELETE FROM users WHERE id = 99").await.unwrap();
        client.batch_execute("DELETE FROM users WHERE id = 100").await.unwrap();
        let text = out(&shop.pgrail(&["status"]));
        assert!(text.lines().nth(1).is_some_and(|line| line == "DROP DATABASE: not refused"), "{text}");
        let line = text.lines().last().unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["default/core", "public.users", "3600", "s", "2", "of", "10", "not", "limited"], "{text}");
        let objects: Value = serde_json::from_slice(&shop.pgrail(&["status", "-o", "json"]).stdout).unwrap();
        assert_eq!(objects[0]["status"]["tables"][0]["window"]["removed"], json!(2));
        client.batch_execute(&format!("ALTER DATABASE {} IS_TEMPLATE true", shop.database.name)).await.unwrap();
        let text = out(&shop.pgrail(&["status"]));
        assert!(text.contains("DROP DATABASE: refused"), "{text}");
        client.batch_execute(&format!("ALTER DATABASE {} IS_TEMPLATE false", shop.database.name)).await.unwrap();
        drop(client);
        shop.database.finish().await;
    })
    .await;
}

#[tokio::test]
async fn everything_and_captured_rows_are_not_removed_without_a_yes() {
    let shop = Shop::new(server(18).database("cli").await).await;
    shop.write("guard.yaml", &guard(json!({"capture": {}})));
    let applied = shop.pgrail(&["apply", "-f", "guard.yaml"]);
    assert_eq!(applied.status.code(), Some(0), "{}{}", out(&applied), err(&applied));
    let client = shop.database.connect().await;
    client.batch_execute("DELETE FROM messages WHERE id <= 3; DELETE FROM users WHERE id = 100").await.unwrap();
    client.batch_execute("INSERT INTO users VALUES (100); DELETE FROM users WHERE id = 100").await.unwrap();
    for arguments in [&["remove", "--all"][..], &["remove", "-f", "guard.yaml"][..]] {
        let refused = shop.pgrail(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", out(&refused));
        assert!(err(&refused).contains("captured rows") && err(&refused).contains("--yes"), "{}", err(&refused));
    }
    assert_eq!(shop.pgrail(&["status"]).status.code(), Some(0), "nothing was removed");
    let removed = shop.pgrail(&["remove", "-f", "guard.yaml", "--yes"]);
    assert!(
        removed.status.code() == Some(0) && out(&removed).contains("captured rows were removed"),
        "{}",
        err(&removed)
    );
    shop.database.finish().await;
}

#[tokio::test]
async fn a_table_on_which_nothing_depends_has_no_cascade() {
    let shop = Shop::new(server(18).database("cli").await).await;
    shop.database.connect().await.batch_execute("CREATE TABLE alone (id int)").await.unwrap();
    for table in ["alone", "public.messages"] {
        let radius = shop.pgrail(&["blast-radius", table]);
        assert_eq!(radius.status.code(), Some(0), "{}", err(&radius));
        assert!(out(&radius).contains(table), "{}", out(&radius));
    }
    shop.database.finish().await;
}
