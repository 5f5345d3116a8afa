//! The functions that are the same for every guard, and who may call what.

use std::sync::LazyLock;

use crate::capture;
use crate::catalog::Oid;
use crate::sql::{digest, literal};

pub(crate) const SCHEMA_SQL: &str = include_str!("sql/schema.sql");
pub(crate) const FUNCTIONS_SQL: &str = concat!(
    include_str!("sql/documents.sql"),
    include_str!("sql/functions.sql"),
    include_str!("sql/window_functions.sql"),
    include_str!("sql/capture_functions.sql")
);
/// What is recorded as the source of each of them.
pub(crate) static FUNCTIONS_DIGEST: LazyLock<String> = LazyLock::new(|| digest(FUNCTIONS_SQL));
pub(crate) const UPGRADE_1_BEFORE_SQL: &str = include_str!("sql/upgrade_1_before.sql");
pub(crate) const UPGRADE_1_AFTER_SQL: &str = include_str!("sql/upgrade_1_after.sql");

/// Tables of schema version 1 that are views now.
pub(crate) const VERSION_1_TABLES: &[&str] =
    &["allowance", "member", "assignment", "relation", "guard", "trigger", "routine", "install"];

/// Functions that are documents: constants that hold the configuration.
pub(crate) fn is_document(name: &str) -> bool {
    name.starts_with("config_")
}

/// The functions of `documents.sql`, `functions.sql` and `window_functions.sql`, and whether every role may call them.
pub(crate) const FUNCTIONS: &[(&str, bool)] = &[
    ("allowances_for", false),
    ("charge", false),
    ("check_columns", false),
    ("check_detach", false),
    ("check_drop", false),
    ("check_limits", true),
    ("check_rewrite", false),
    ("check_truncate", true),
    ("check_window", true),
    ("count_in_window", false),
    ("count_removed", false),
    ("counts", false),
    ("document", false),
    ("is_allowed", false),
    ("is_apply_worker", false),
    ("is_intact", false),
    ("measure", false),
    ("named", false),
    ("noop", false),
    ("note_baseline", true),
    ("observe_window", false),
    ("on_ddl", false),
    ("on_drop", false),
    ("on_rewrite", false),
    ("prune_captured_rows", true),
    ("record_routines", false),
    ("record_triggers", false),
    ("refund", false),
    ("remaining", false),
    ("report", false),
    ("root", false),
    ("updated_before", true),
    ("violation", false),
    ("window_buckets", false),
    ("window_counters", false),
    ("window_has_tables", false),
    ("window_violation", false),
    ("windows", false),
    ("write_configuration", false),
    ("write_document", false),
];

/// The name of the function of the triggers of a table of another owner.
pub(crate) fn trigger_function(rel: Oid) -> String {
    format!("on_{rel}")
}

pub(crate) fn create_trigger_function(name: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.{name}() RETURNS pg_catalog.trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'"
    )
}

/// Grants exactly what roles of the application need: default privileges may have given more, or less. What captures rows
/// is called by triggers of ours alone: no other role may create a trigger with it. What counts a transaction is called at its end.
pub(crate) fn privileges(made: &[&str]) -> String {
    // An empty list is no SQL; no function has an empty name.
    let called = |name: &&str| !capture::is_function(name) && !name.starts_with("removed_");
    let public = made.iter().copied().filter(called).chain([""]).map(literal).collect::<Vec<_>>().join(", ");
    let fixed = FUNCTIONS.iter().filter(|(_, public)| !public).map(|(name, _)| *name);
    let private = fixed.chain(made.iter().copied().filter(|name| !called(name))).map(literal);
    let private = private.collect::<Vec<_>>().join(", ");
    include_str!("sql/privileges.sql").replace("'{public}'", &public).replace("'{private}'", &private)
}
