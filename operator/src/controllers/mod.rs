//! The controllers, one directory per kind.

pub(crate) mod backup_schedule;
pub(crate) mod checks;
pub(crate) mod database_backup;
pub(crate) mod database_restore;
pub(crate) mod guard_exemption;
pub(crate) mod guardrail_policy;
pub(crate) mod protected_database;
pub(crate) mod removal;
pub(crate) mod table_guard;
