//! From a restore and what it refers to, to its Job. Pure.

use super::dereference::References;
use crate::agent::config::{NewConfig, RestoreConfig, RestoreTableConfig};
use crate::backup_jobs::destination::{self, Destination};
use crate::backup_jobs::error::JobSpecError;
use crate::backup_jobs::job_spec::{self, ConnectionSpec};
use crate::backup_jobs::names::{bounded, location_in};
use crate::backup_jobs::record::{is_verified, phase};
use crate::context::Context;
use crate::kubernetes::annotation::is_true;
use crate::kubernetes::rejection::{Reason, Rejection};
use kube::ResourceExt;
use pgrail_crds::annotations::{ADOPT, ALLOW_IN_PLACE};
use pgrail_crds::{BackupPhase, ConflictPolicy, DatabaseRestore, RestoreMode, RestoreTriggers};
use pgrail_restore::Condition;
use std::collections::BTreeSet;

/// The longest name of a database or schema, in bytes.
const LONGEST_NAME: usize = 63;

/// A restore that can be carried out.
#[derive(Debug)]
pub(super) struct Validated {
    pub(super) destination: Destination,
    pub(super) connection: ConnectionSpec,
    pub(super) config: RestoreConfig,
}

/// What can be validated without anything else.
pub(super) fn spec(restore: &DatabaseRestore) -> Result<(), Rejection> {
    let spec = &restore.spec;
    let mode = mode(restore);
    let schemas: BTreeSet<&str> = spec.tables.iter().map(|table| table.schema.as_str()).collect();
    if mode == RestoreMode::NewSchema && schemas.len() != 1 {
        let message =
            "spec.tables: mode NewSchema restores tables of one schema: create another DatabaseRestore for each schema";
        return Err(Rejection::new(Reason::InvalidSpec, message));
    }
    if mode == RestoreMode::NewDatabase && !spec.tables.is_empty() {
        let message = "spec.tables and mode NewDatabase: a new database gets the whole backup: remove spec.tables";
        return Err(Rejection::new(Reason::InvalidSpec, message));
    }
    if mode == RestoreMode::InPlace && restore.annotations().get(ALLOW_IN_PLACE).map(String::as_str) != Some("true") {
        let message = format!(
            "mode InPlace inserts rows into live tables: to allow it, set the annotation {ALLOW_IN_PLACE}: \"true\" on this object"
        );
        return Err(Rejection::new(Reason::InPlaceNotAllowed, message));
    }
    for (place, table) in spec.tables.iter().enumerate() {
        if let Some(Err(error)) = table.condition.as_deref().map(Condition::parse) {
            let message = format!("spec.tables[{place}].where: {}", error.problem);
            return Err(Rejection::new(Reason::InvalidCondition, message));
        }
    }
    Ok(())
}

/// The declared mode, or the default.
pub(super) fn mode(restore: &DatabaseRestore) -> RestoreMode {
    let tables = &restore.spec.tables;
    let default = if tables.is_empty() { RestoreMode::NewDatabase } else { RestoreMode::NewSchema };
    restore.spec.target.mode.unwrap_or(default)
}

/// The declared name of what is created, or one that follows from the name of the object.
pub(super) fn new_name(restore: &DatabaseRestore) -> String {
    let derived = || bounded(&restore.name_any().replace(['-', '.'], "_"), LONGEST_NAME);
    restore.spec.target.name.clone().unwrap_or_else(derived)
}

pub(super) fn validate(
    restore: &DatabaseRestore,
    references: References,
    context: &Context,
) -> Result<Validated, Rejection> {
    let References { backup, schedule, database, secrets, identity } = references;
    let name = backup.name_any();
    let rejected = |error: JobSpecError| error.rejection();
    let mut destination = match &schedule {
        Some(schedule) => destination::of_schedule(schedule, &context.cluster_id),
        None => destination::of_backup(&backup, &context.cluster_id),
    }
    .map_err(rejected)?;
    destination.database.clone_from(&restore.spec.target.database_ref.name);
    destination.store.check_allowed(&context.settings.allowed_stores).map_err(rejected)?;
    if let Some(error) = secrets.connection {
        return Err(JobSpecError::from(error).rejection());
    }
    if let Some(problem) = secrets.store_ca {
        return Err(JobSpecError::StoreCa(problem).rejection());
    }
    destination.store.check_secret(secrets.store).map_err(rejected)?;
    let connection = job_spec::connection(&database.spec.connection).map_err(rejected)?;
    if phase(&backup) == BackupPhase::Discovered {
        if !is_true(&backup, ADOPT) {
            let message = format!(
                "the backup {name:?} was found in the store, where others may have written it, and a restore executes what it contains: if that can be trusted, set the annotation {ADOPT}: \"true\" on the DatabaseBackup"
            );
            return Err(Rejection::new(Reason::Discovered, message));
        }
    } else if !is_verified(&backup) {
        return Err(Rejection::new(Reason::Unverified, format!("the backup {name:?} was not verified: name another")));
    }
    let status = backup.status.as_ref();
    destination.store.identity = identity.usable(&name, status.and_then(|status| status.encrypted))?;
    let Some(manifest_sha256) = status.and_then(|status| status.manifest_sha256.clone()) else {
        let message = format!(
            "the backup {name:?} has no status.manifestSha256, since an earlier version made it: restore it with pg_restore, or name a later one"
        );
        return Err(Rejection::new(Reason::Unverified, message));
    };
    let Some(location) = location_in(&destination.store.config.url, &backup) else {
        let message = format!("the backup {name:?} is not in the store that the schedule has now");
        return Err(Rejection::new(Reason::InvalidStorage, message));
    };
    let spec = &restore.spec;
    let tables = spec.tables.iter().map(|table| RestoreTableConfig {
        schema: table.schema.clone(),
        name: table.name.clone(),
        condition: table.condition.clone(),
    });
    let new = || NewConfig { name: new_name(restore), id: restore.uid().unwrap_or_default() };
    let config = RestoreConfig {
        location,
        manifest_sha256,
        connection: connection.overrides.clone(),
        new_database: (mode(restore) == RestoreMode::NewDatabase).then(new),
        new_schema: (mode(restore) == RestoreMode::NewSchema).then(new),
        tables: tables.collect(),
        follow_cascade: spec.follow_cascade,
        skip_existing: spec.conflict_policy == ConflictPolicy::SkipExisting,
        skip_triggers: spec.triggers == RestoreTriggers::Skip,
        dry_run: spec.dry_run,
    };
    Ok(Validated { destination, connection, config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reason(annotation: Value, change: Value) -> Option<Reason> {
        let mut spec = json!({
            "source": {"backupRef": {"name": "b"}}, "tables": [{"schema": "public", "name": "users", "where": "id = 42"}],
            "target": {"databaseRef": {"name": "shop"}, "mode": "InPlace"},
        });
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let object = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "DatabaseRestore",
            "metadata": {"name": "back", "annotations": annotation}, "spec": spec});
        super::spec(&serde_json::from_value(object).unwrap()).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn the_name_of_a_new_database_follows_from_the_object() {
        let named = |name: &str, target: Value| {
            let object = json!({"apiVersion": "pgrail.dev/v1alpha1", "kind": "DatabaseRestore", "metadata": {"name": name},
                "spec": {"source": {"backupRef": {"name": "b"}}, "target": target}});
            new_name(&serde_json::from_value(object).unwrap())
        };
        let target = || json!({"databaseRef": {"name": "shop"}});
        assert_eq!(named("shop-before.friday", target()), "shop_before_friday");
        assert_eq!(named("x", json!({"databaseRef": {"name": "shop"}, "name": "Copy"})), "Copy");
        let (one, other) = (format!("{}-a", "x".repeat(200)), format!("{}-b", "x".repeat(200)));
        let (one, other) = (named(&one, target()), named(&other, target()));
        assert!(one.len() <= LONGEST_NAME && one != other, "{one} {other}");
    }

    #[test]
    fn what_is_not_built_and_what_is_not_allowed_is_refused() {
        let allowed = || json!({"pgrail.dev/allow-in-place": "true"});
        assert_eq!(reason(allowed(), json!({})), None);
        assert_eq!(reason(json!({}), json!({})), Some(Reason::InPlaceNotAllowed));
        assert_eq!(reason(json!({"pgrail.dev/allow-in-place": "yes"}), json!({})), Some(Reason::InPlaceNotAllowed));
        for mode in [json!("NewSchema"), Value::Null] {
            let target = || json!({"databaseRef": {"name": "shop"}, "mode": mode});
            let tables =
                |schema: &str| json!([{"schema": "public", "name": "users"}, {"schema": schema, "name": "orders"}]);
            assert_eq!(reason(json!({}), json!({"target": target(), "tables": tables("public")})), None);
            let two = reason(json!({}), json!({"target": target(), "tables": tables("other")}));
            assert_eq!(two, Some(Reason::InvalidSpec));
        }
        let new = || json!({"databaseRef": {"name": "shop"}, "mode": "NewDatabase"});
        assert_eq!(reason(json!({}), json!({"target": new()})), Some(Reason::InvalidSpec), "it has tables");
        for mode in [json!("NewDatabase"), Value::Null] {
            let target = json!({"databaseRef": {"name": "shop"}, "mode": mode});
            assert_eq!(reason(json!({}), json!({"target": target, "tables": []})), None, "needs no annotation");
        }
        let identity = json!({"identitySecretRef": {"name": "age"}});
        assert_eq!(reason(allowed(), json!({"decryption": identity})), None);
        let tables = json!([{"schema": "public", "name": "users", "where": "id IN (SELECT 1)"}]);
        assert_eq!(reason(allowed(), json!({"tables": tables})), Some(Reason::InvalidCondition));
    }
}
