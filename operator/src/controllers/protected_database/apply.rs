//! What the controller changes in a database: captured rows past their bounds are deleted, and DROP DATABASE is refused
//! where that is asked for.

use super::ProtectedDatabases;
use crate::context::Context;
use crate::database::{DatabaseError, Session};
use crate::kubernetes::controller::Reconciler;
use crate::kubernetes::text::chain;
use kube::ResourceExt;
use pgrail_crds::ProtectedDatabase;
use pgrail_guard::{Capabilities, database_protection, protect_database};
use std::sync::Arc;

/// What protects a database from DROP DATABASE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DropDatabase {
    /// It is not asked for, and pgrail did not arrange it.
    NotRequested,
    /// It could not be checked this time.
    Unchecked,
    /// The database is a template database.
    Refused,
    /// The same, since now.
    Arranged,
    /// The same, since now: others had reset it.
    Repaired,
    /// It ended, since it is no longer asked for.
    Released,
    /// The role lacks the privilege: what to do.
    NoPrivilege(String),
    /// The server refuses it: why.
    Failed(String),
    /// It should end, and cannot: why, and what to do.
    NotReleased(String),
}

/// Deletes captured rows that are kept too long. What fails is retried: until then the rows are only kept longer.
pub(super) async fn prune(database: &ProtectedDatabase, session: &Session, context: &Context) {
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    match pgrail_guard::prune(session, &context.cluster_id).await {
        Ok(0) => {}
        Ok(transactions) => tracing::info!(namespace, name, transactions, "captured rows past their bounds deleted"),
        Err(error) => tracing::warn!(namespace, name, error = chain(&error), "captured rows cannot be deleted"),
    }
}

/// Makes the database a template database where that is asked for, and ends what pgrail arranged where it is not.
pub(super) async fn protect(
    database: &ProtectedDatabase,
    capabilities: &Capabilities,
    session: &Session,
    context: &Context,
) -> Result<DropDatabase, DatabaseError> {
    let asked = database.spec.protect_database;
    let by_pgrail = database.status.as_ref().is_some_and(|status| status.template_set);
    if !asked && !by_pgrail {
        return Ok(DropDatabase::NotRequested);
    }
    let found = database_protection(session).await.map_err(|error| DatabaseError::lost(&error))?;
    if asked == found.is_template {
        return Ok(if asked { DropDatabase::Refused } else { DropDatabase::Released });
    }
    if capabilities.in_recovery {
        return Ok(DropDatabase::Unchecked);
    }
    let statement = if asked { &found.protect } else { &found.release };
    if !found.may_change {
        let message = format!(
            "that needs the privileges of the owner of the database, {}: run {}, or {statement} as the owner",
            found.owner, found.membership
        );
        return Ok(if asked { DropDatabase::NoPrivilege(message) } else { DropDatabase::NotReleased(message) });
    }
    // Known before it is done: what pgrail arranged, it must end.
    if asked && !by_pgrail && !remember(database, context).await {
        return Ok(DropDatabase::Unchecked);
    }
    match protect_database(session, &found, asked).await {
        Ok(()) if !asked => Ok(DropDatabase::Released),
        Ok(()) if by_pgrail => Ok(DropDatabase::Repaired),
        Ok(()) => Ok(DropDatabase::Arranged),
        Err(error) => match error.as_db_error() {
            Some(server) if asked => Ok(DropDatabase::Failed(format!("{statement}: {}", server.message()))),
            Some(server) => Ok(DropDatabase::NotReleased(format!("{statement}: {}", server.message()))),
            None => Err(DatabaseError::lost(&error)),
        },
    }
}

/// Writes to the status that pgrail arranges it. Returns whether that succeeded.
async fn remember(database: &ProtectedDatabase, context: &Context) -> bool {
    let next = |database: &ProtectedDatabase| {
        let mut status = database.status.clone().unwrap_or_default();
        status.template_set = true;
        status
    };
    let Ok(Some((latest, next))) = context.latest(Arc::new(database.clone()), next).await else { return false };
    context.write_status(ProtectedDatabases::NAME, latest.as_ref(), latest.status.as_ref(), &next).await.is_ok()
}
