//! The functions that are the same for every guard, and who may call what.

use crate::capture;
use crate::catalog::Oid;
use crate::sql::literal;

pub(crate) const SCHEMA_SQL: &str = include_str!("sql/schema.sql");
pub(crate) const FUNCTIONS_SQL: &str =
    concat!(include_str!("sql/functions.sql"), include_str!("sql/capture_functions.sql"));
pub(crate) const CONFIGURE_SQL: &str = include_str!("sql/configure.sql");

/// The functions of `functions.sql`, and whether every role may call them.
pub(crate) const FUNCTIONS: &[(&str, bool)] = &[
    ("counts", false),
    ("is_apply_worker", false),
    ("judge_detach", false),
    ("judge_drop", false),
    ("measure", false),
    ("nothing", false),
    ("on_ddl", false),
    ("on_drop", false),
    ("passed", false),
    ("prune_captured_rows", true),
    ("rights", false),
    ("room", false),
    ("settle", false),
    ("spend", false),
    ("spend_more", false),
    ("trip", true),
    ("truncating", true),
    ("verdict", false),
];

/// The name of the function of the triggers of a table that belongs to somebody else.
pub(crate) fn trigger_function(rel: Oid) -> String {
    format!("on_{rel}")
}

pub(crate) fn create_trigger_function(name: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION pgrail.{name}() RETURNS pg_catalog.trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'"
    )
}

/// Grants exactly what roles of the application need: default privileges may have given more, or less. What captures rows
/// is called by triggers of ours alone: nobody else may put it on a table.
pub(crate) fn privileges(made: &[&str]) -> String {
    // An empty list is no SQL; no function has an empty name.
    let called = |name: &&str| !capture::is_function(name);
    let public = made.iter().copied().filter(called).chain([""]).map(literal).collect::<Vec<_>>().join(", ");
    let fixed = FUNCTIONS.iter().filter(|(_, public)| !public).map(|(name, _)| *name);
    let private = fixed.chain(made.iter().copied().filter(|name| !called(name))).map(literal);
    let private = private.collect::<Vec<_>>().join(", ");
    include_str!("sql/privileges.sql").replace("'{public}'", &public).replace("'{private}'", &private)
}
