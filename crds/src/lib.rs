//! The API of pgrail, group `pgrail.dev`: the types of every kind with their bounds, CEL rules and columns,
//! and the constants of their conditions, reasons, annotations and labels. No client and no I/O.

// kube's attributes repeat keys: printcolumn, validation, shortname.
#![allow(clippy::duplicated_attributes)]

pub mod annotations;
mod backup_schedule;
mod common;
pub mod conditions;
mod database_backup;
mod database_restore;
mod drill;
mod guard_exemption;
mod guardrail_policy;
mod manifest;
mod protected_database;
mod schema;
mod table_guard;

pub use backup_schedule::*;
pub use common::*;
pub use database_backup::*;
pub use database_restore::*;
pub use drill::*;
pub use guard_exemption::*;
pub use guardrail_policy::*;
pub use manifest::{custom_resource_definitions, to_yaml};
pub use protected_database::*;
pub use table_guard::*;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use kube::core::Duration;

/// The API group of every kind.
pub const GROUP: &str = "pgrail.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
