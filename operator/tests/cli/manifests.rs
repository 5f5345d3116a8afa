//! What manifests may look like, and how it is said where they cannot be used.

use super::{Shop, err, guard, out};
use pgrail_testing::server;
use serde_json::{Value, json};

#[tokio::test]
async fn manifests_that_cannot_be_used_are_refused_by_field_and_nothing_is_installed() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let negative = guard(json!({"limits": {"maxRows": -1}}));
    let misspelt = guard(json!({"limits": {"maxRow": 1}}));
    let mut versionless = guard(json!({}));
    versionless["apiVersion"] = "pgrail.dev/v2".into();
    for (manifest, words) in [
        (negative, "spec.limits.maxRows is invalid: -1 is less than the minimum of 0"),
        (misspelt, "spec.limits.maxRow is not a field"),
        (guard(json!({"tables": []})), "spec.tables is invalid: [] has less than 1 item"),
        (versionless, "apiVersion must be pgrail.dev/v1alpha1"),
        (json!({"kind": "Secret", "metadata": {"name": "x"}}), "no TableGuard and no GuardExemption"),
    ] {
        shop.write("guard.yaml", &manifest);
        let refused = shop.pgrail(&["apply", "-f", "guard.yaml"]);
        assert_eq!(refused.status.code(), Some(1), "{manifest}");
        assert!(err(&refused).contains(words), "{manifest}: {}", err(&refused));
    }
    let absent = shop.pgrail(&["apply", "-f", "absent.yaml"]);
    assert!(absent.status.code() == Some(1) && err(&absent).contains("absent.yaml"));
    shop.write("guard.yaml", &guard(json!({"tables": [{"schema": "public", "name": "userz"}]})));
    let missing = shop.pgrail(&["apply", "-f", "guard.yaml"]);
    assert_eq!(missing.status.code(), Some(2), "declared and not enforced");
    assert!(out(&missing).contains("public.userz") && out(&missing).contains("Missing"));
    assert!(out(&missing).contains("Without an operator, nothing guards it when it is created"), "{}", out(&missing));
    shop.database.finish().await;
}

#[tokio::test]
async fn an_error_names_file_document_and_field() {
    let shop = Shop::new(server(18).database("cli").await).await;
    let text = |name: &str, rows: &str| {
        format!(
            "apiVersion: pgrail.dev/v1alpha1\nkind: TableGuard\nmetadata: {{name: {name}}}\nspec: {{databaseRef: {{name: shop}}, tables: [{{schema: public, name: users, limits: {{maxRows: {rows}}}}}]}}\n"
        )
    };
    let refused = |content: String, words: &str| {
        std::fs::write(shop.path().join("all.yaml"), content).unwrap();
        let refused = shop.pgrail(&["apply", "-f", "all.yaml"]);
        assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
        assert!(err(&refused).contains(words), "{words}: {}", err(&refused));
        for rust in ["i64", "u32", "struct", "enum", "variant"] {
            assert!(!err(&refused).contains(rust), "{}", err(&refused));
        }
    };
    let both = |a: String, b: String| format!("{a}---\n{b}");
    refused(
        both(text("core", "5"), text("other", "many")),
        "all.yaml (document 2): TableGuard \"other\": spec.tables[0].limits.maxRows is invalid: \"many\" is not of type \"integer\"",
    );
    refused(
        both(text("core", "5"), text("core", "6")),
        "all.yaml (document 2): TableGuard \"core\" is declared already in all.yaml (document 1)",
    );
    refused(
        text("core", "5").replace("Ref: {name: shop}", "Ref: {}"),
        "spec.databaseRef is invalid: \"name\" is a required property",
    );
    refused(
        text("core", "5").replace("spec: {", "spec: {mode: enforce, "),
        "spec.mode is invalid: \"enforce\" is not one of",
    );
    refused("kind: [".to_owned(), "all.yaml: neither YAML nor JSON");
    shop.database.finish().await;
}

#[tokio::test]
async fn what_a_command_printed_can_be_applied_again() {
    let shop = Shop::new(server(18).database("cli").await).await;
    shop.write("guard.yaml", &guard(json!({})));
    for format in ["json", "yaml"] {
        let printed = shop.pgrail(&["apply", "-f", "guard.yaml", "-o", format]);
        assert_eq!(printed.status.code(), Some(0), "{}", err(&printed));
        std::fs::write(shop.path().join("printed"), &printed.stdout).unwrap();
        let again = shop.pgrail(&["plan", "-f", "printed"]);
        assert_eq!(again.status.code(), Some(0), "{}{}", out(&again), err(&again));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [guard(json!({}))]});
    shop.write("list.yaml", &list);
    assert_eq!(shop.pgrail(&["plan", "-f", "list.yaml"]).status.code(), Some(0));
    let lines =
        format!("{}\n{}\n", guard(json!({})), json!({"kind": "ProtectedDatabase", "metadata": {"name": "shop"}}));
    std::fs::write(shop.path().join("lines.json"), lines).unwrap();
    let lines = shop.pgrail(&["plan", "-f", "lines.json", "-o", "json"]);
    assert_eq!(lines.status.code(), Some(0), "{}", err(&lines));
    assert!(err(&lines).contains("lines.json (document 2): ProtectedDatabase \"shop\" is skipped"), "{}", err(&lines));
    let planned: Value = serde_json::from_slice(&lines.stdout).unwrap();
    assert_eq!((&planned[0]["name"], &planned[0]["changes"]), (&json!("default/core"), &json!([])));
    shop.database.finish().await;
}

#[tokio::test]
async fn a_plan_is_a_list_of_changes_and_sql_where_asked_for() {
    let shop = Shop::new(server(18).database("cli").await).await;
    shop.write("guard.yaml", &guard(json!({})));
    let plan = out(&shop.pgrail(&["plan", "-f", "guard.yaml"]));
    for line in [
        "TableGuard default/core\n",
        "  + the schema pgrail, its functions, tables and views\n",
        "  + triggers on public.messages\n",
        "  + triggers on public.users\n",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    assert!(plan.contains(" to create, ") && !plan.contains("CREATE"), "{plan}");
    let sql = out(&shop.pgrail(&["plan", "-f", "guard.yaml", "--sql"]));
    assert!(sql.contains("      CREATE SCHEMA IF NOT EXISTS pgrail;"), "{sql}");
    assert_eq!(shop.pgrail(&["apply", "-f", "guard.yaml"]).status.code(), Some(0));
    // A changed limit is a changed configuration; nothing is dropped and created again.
    shop.write("guard.yaml", &guard(json!({"limits": {"maxRows": 7, "maxCascadeRows": 50}})));
    let changed = shop.pgrail(&["plan", "-f", "guard.yaml", "-o", "json"]);
    assert_eq!(changed.status.code(), Some(2), "{}", err(&changed));
    let planned: Value = serde_json::from_slice(&changed.stdout).unwrap();
    let changes = planned[0]["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["action"] == "Change"), "{planned}");
    assert!(changes.iter().any(|change| change["what"] == "the configuration of the guards"), "{planned}");
    shop.database.finish().await;
}
