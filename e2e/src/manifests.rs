//! Manifests that several tests use.

use serde_json::{Value, json};

/// The `stringData` of a Secret that leads to a database by its URI.
pub fn connection_secret(uri: &str) -> Vec<(&'static str, String)> {
    vec![("uri", uri.to_owned())]
}

/// A `ProtectedDatabase` named `shop` whose login is in the Secret `shop-login`, looked at every 5 seconds.
pub fn protected_database() -> Value {
    json!({
        "metadata": {"name": "shop"},
        "spec": {"connection": {"secretRef": {"name": "shop-login"}}, "checkInterval": "5s"}
    })
}

/// A `TableGuard` named `core` on tables of the schema `public`.
pub fn table_guard(tables: &[&str]) -> Value {
    let tables: Vec<_> = tables.iter().map(|name| json!({"schema": "public", "name": name})).collect();
    json!({"metadata": {"name": "core"}, "spec": {"databaseRef": {"name": "shop"}, "tables": tables}})
}

/// A `BackupSchedule` named `nightly` of the database `shop`.
pub fn backup_schedule(storage: &Value) -> Value {
    json!({
        "metadata": {"name": "nightly"},
        "spec": {"databaseRef": {"name": "shop"}, "schedule": daily_schedule(), "storage": storage}
    })
}

/// A daily schedule, in UTC, whose hour is twelve hours away: no test meets it, at whatever time it runs.
pub fn daily_schedule() -> String {
    let hour = (jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour() + 12) % 24;
    format!("15 {hour} * * *")
}
