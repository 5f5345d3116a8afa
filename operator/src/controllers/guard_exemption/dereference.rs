//! What an exemption needs of the apiserver: its guards' database, the policies of its namespace, a backup if it asks for one.

use crate::backup_jobs::record::{counted, is_of_database, snapshot_time};
use crate::context::Context;
use crate::kubernetes::rejection::{Reason, Rejection, StepError};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, ResourceExt};
use pgrail_crds::{BackupSchedule, DatabaseBackup, GuardExemption, GuardrailPolicy, ProtectedDatabase, TableGuard};
use std::collections::{BTreeMap, BTreeSet};

/// The database of the exemption's guards. `InvalidSpec` is final; what else is missing may be created.
pub(super) async fn dereference(exemption: &GuardExemption, context: &Context) -> Result<ProtectedDatabase, StepError> {
    let namespace = exemption.namespace().unwrap_or_default();
    let guards: Api<TableGuard> = Api::namespaced(context.client.clone(), &namespace);
    let mut names = BTreeSet::new();
    for guard in &exemption.spec.guard_refs {
        let Some(found) = guards.get_opt(&guard.name).await? else {
            let message =
                format!("spec.guardRefs names the TableGuard {:?}, which does not exist in this namespace", guard.name);
            return Err(Rejection::new(Reason::GuardNotFound, message).into());
        };
        names.insert(found.spec.database_ref.name);
    }
    let [name] = names.iter().collect::<Vec<_>>()[..] else {
        let message = format!("spec.guardRefs are of several databases ({names:?}): create a GuardExemption for each");
        return Err(Rejection::new(Reason::InvalidSpec, message).into());
    };
    let databases: Api<ProtectedDatabase> = Api::namespaced(context.client.clone(), &namespace);
    match databases.get_opt(name).await? {
        None => {
            let message = format!("the ProtectedDatabase {name:?} of its guards does not exist in this namespace");
            Err(Rejection::new(Reason::DatabaseNotFound, message).into())
        }
        Some(database) if database.spec.suspend => {
            Err(Rejection::new(Reason::Suspended, format!("the ProtectedDatabase {name:?} is suspended")).into())
        }
        Some(database) => Ok(database),
    }
}

/// The policies that select the exemption's namespace.
pub(super) async fn policies(
    exemption: &GuardExemption,
    context: &Context,
) -> Result<Vec<GuardrailPolicy>, kube::Error> {
    let policies: Api<GuardrailPolicy> = Api::all(context.client.clone());
    let mut policies = policies.list(&ListParams::default()).await?.items;
    if policies.is_empty() {
        return Ok(policies);
    }
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    let labels = namespaces.get(&exemption.namespace().unwrap_or_default()).await?.labels().clone();
    policies.retain(|policy| selects(&policy.spec.namespace_selector, &labels));
    Ok(policies)
}

/// A selector that cannot be read selects everything: a typing error must not lift a policy.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).map_or(true, |selector: Selector| selector.matches(labels))
}

/// Whether the backup that the exemption requires does not exist yet.
pub(super) async fn backup_missing(
    exemption: &GuardExemption,
    database: &ProtectedDatabase,
    context: &Context,
) -> Result<Option<Rejection>, kube::Error> {
    let Some(required) = &exemption.spec.require_backup else { return Ok(None) };
    let namespace = exemption.namespace().unwrap_or_default();
    let backups: Api<DatabaseBackup> = Api::namespaced(context.client.clone(), &namespace);
    let schedules: Api<BackupSchedule> = Api::namespaced(context.client.clone(), &namespace);
    let everything = ListParams::default();
    let (backups, schedules) = futures::try_join!(backups.list(&everything), schedules.list(&everything))?;
    let name = database.name_any();
    let of_it: BTreeSet<String> = schedules
        .items
        .into_iter()
        .filter(|schedule| schedule.spec.database_ref.name == name)
        .map(|schedule| schedule.name_any())
        .collect();
    let of_database = |backup: &&DatabaseBackup| {
        let by_schedule = backup.spec.schedule_ref.as_ref().is_some_and(|it| of_it.contains(&it.name));
        by_schedule || backup.spec.database_ref.as_ref().is_some_and(|it| it.name == name)
    };
    // Never a partial one, and none of another database that had the same name.
    let uid = database.uid().unwrap_or_default();
    let counts = |backup: &&DatabaseBackup| is_of_database(backup, &uid) && counted(backup, &[], context.now()).is_ok();
    let newest = backups.items.iter().filter(of_database).filter(counts).map(snapshot_time).max();
    let longest = std::time::Duration::from(required.max_age);
    let young = newest.is_some_and(|newest| {
        std::time::Duration::try_from(context.now().duration_since(newest)).map_or(true, |age| age <= longest)
    });
    Ok((!young).then(|| {
        let newest = newest.map_or_else(|| "there is none".to_owned(), |newest| format!("the newest is of {newest}"));
        let message = format!(
            "waits for a verified backup of the ProtectedDatabase {name:?} that is at most {} s old (spec.requireBackup); {newest}: create a DatabaseBackup",
            longest.as_secs()
        );
        Rejection::new(Reason::BackupRequired, message)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_selector_selects_everything_and_an_unreadable_one_too() {
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let select = |selector: serde_json::Value| selects(&serde_json::from_value(selector).unwrap(), &labels);
        assert!(select(json!({})));
        assert!(select(json!({"matchLabels": {"team": "shop"}})));
        assert!(!select(json!({"matchLabels": {"team": "other"}})));
        assert!(select(json!({"matchExpressions": [{"key": "team", "operator": "Nonsense"}]})));
    }
}
