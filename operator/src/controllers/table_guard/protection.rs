//! `DropProtected` and `TamperResistant`: what the catalog says of who could take a guard away. Pure.

use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::rejection::Reason;
use crate::kubernetes::text::listed;
use pgrail_crds::conditions::{DROP_PROTECTED, TAMPER_RESISTANT};
use pgrail_guard::{DropProtection, TableStatus, TableTamper, TamperFacts};

/// Sets both conditions. `tamper` is absent where it could not be read.
pub(super) fn report(tables: &[TableStatus], tamper: Result<&TamperFacts, &str>, conditions: &mut Conditions) {
    let (status, reason, message) = drop_protected(tables);
    conditions.set(DROP_PROTECTED, status, reason, message);
    let (status, reason, message) = match tamper {
        Ok(facts) => tamper_resistant(facts),
        Err(error) => (Status::Unknown, Reason::Unreadable, format!("could not be read: {error}")),
    };
    conditions.set(TAMPER_RESISTANT, status, reason, message);
}

fn drop_protected(tables: &[TableStatus]) -> (Status, Reason, String) {
    let existing: Vec<_> = tables.iter().filter(|table| table.oid.is_some()).collect();
    let stands = |what| {
        let tables = existing.iter().filter(move |table| table.drop_protection == what);
        tables.map(|table| table.table.clone()).collect::<Vec<_>>()
    };
    let (open, pinned) = (stands(DropProtection::None), stands(DropProtection::Pinned));
    if !open.is_empty() {
        let message = format!(
            "nothing stops DROP TABLE of {}: it needs an event trigger (superuser, or the platform's equal) or, for \
             pgrail's role, SELECT on the table and its own schema",
            listed(&open)
        );
        return (Status::False, Reason::NotProtected, message);
    }
    if !pinned.is_empty() {
        let message = format!(
            "a view of pgrail's on {} makes DROP TABLE fail; DROP TABLE CASCADE and DROP SCHEMA CASCADE still pass, \
             since pgrail's role may not create event triggers",
            listed(&pinned)
        );
        return (Status::True, Reason::Pinned, message);
    }
    if existing.iter().any(|table| table.drop_protection == DropProtection::EventTrigger) {
        return (Status::True, Reason::EventTrigger, "an event trigger stops DROP TABLE, with CASCADE too".to_owned());
    }
    let message = "Drop is not in spec.protect, or mode Warn stops nothing, or there is no table yet";
    (Status::False, Reason::NotRequested, message.to_owned())
}

fn tamper_resistant(facts: &TamperFacts) -> (Status, Reason, String) {
    let who = |roles: fn(&TableTamper) -> &Vec<String>| {
        facts.tables.iter().find(|table| !roles(table).is_empty()).map(|table| (table, listed(roles(table))))
    };
    let weak = |reason, message| (Status::False, reason, message);
    if let Some((table, roles)) = who(|table| &table.can_disable) {
        let message = format!(
            "{roles} can act as the owner of {}, {}, and switch triggers off: give the table an owner that no application logs in as",
            table.table, table.owner
        );
        return weak(Reason::OwnerCanDisable, message);
    }
    if !facts.function_owner.is_empty() {
        let message = format!(
            "{} can act as the role that owns pgrail's functions: revoke that membership",
            listed(&facts.function_owner)
        );
        return weak(Reason::FunctionOwner, message);
    }
    if let Some((table, roles)) = who(|table| &table.can_drop_with_schema) {
        let message = format!(
            "{roles} can act as the owner of the schema of {} and drop it: give the schema another owner",
            table.table
        );
        return weak(Reason::SchemaOwnerCanDrop, message);
    }
    if let Some((table, roles)) = who(|table| &table.can_replace_triggers) {
        let message = format!("{roles} may replace triggers on {0}: REVOKE TRIGGER ON {0} FROM them", table.table);
        return weak(Reason::TriggerPrivilege, message);
    }
    if !facts.replica_role.is_empty() {
        let message = format!(
            "{} may set session_replication_role: REVOKE SET ON PARAMETER session_replication_role FROM them",
            listed(&facts.replica_role)
        );
        return weak(Reason::ReplicaRoleSettable, message);
    }
    if !facts.uncounted.is_empty() {
        let message = format!(
            "sessions of {} may do without track_counts, and are not stopped then: REVOKE SET ON PARAMETER track_counts FROM \
             them, ALTER ROLE … RESET track_counts",
            listed(&facts.uncounted)
        );
        return weak(Reason::TrackCountsSettable, message);
    }
    let message = "no login role but superusers and pgrail's own can take the guard away";
    (Status::True, Reason::AdministratorsOnly, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(change: impl FnOnce(&mut TableTamper)) -> TamperFacts {
        let mut table =
            TableTamper { table: "public.users".to_owned(), owner: "app".to_owned(), ..TableTamper::default() };
        change(&mut table);
        TamperFacts { tables: vec![table], ..TamperFacts::default() }
    }

    #[test]
    fn an_application_that_owns_its_table_is_named_with_the_remedy() {
        let (status, reason, message) = tamper_resistant(&facts(|it| it.can_disable = vec!["app".to_owned()]));
        assert_eq!((status, reason), (Status::False, Reason::OwnerCanDisable));
        assert!(message.contains("app can act as the owner of public.users"), "{message}");
    }

    #[test]
    fn each_weakness_has_its_reason_and_none_is_resistant() {
        let roles = || vec!["someone".to_owned()];
        assert_eq!(tamper_resistant(&facts(|it| it.can_replace_triggers = roles())).1, Reason::TriggerPrivilege);
        assert_eq!(tamper_resistant(&facts(|it| it.can_drop_with_schema = roles())).1, Reason::SchemaOwnerCanDrop);
        let replica = TamperFacts { replica_role: roles(), ..TamperFacts::default() };
        assert_eq!(tamper_resistant(&replica).1, Reason::ReplicaRoleSettable);
        let uncounted = TamperFacts { uncounted: roles(), ..TamperFacts::default() };
        assert_eq!(tamper_resistant(&uncounted).1, Reason::TrackCountsSettable);
        let owner = TamperFacts { function_owner: roles(), ..TamperFacts::default() };
        assert_eq!(tamper_resistant(&owner).1, Reason::FunctionOwner);
        assert_eq!(tamper_resistant(&facts(|it| it.can_delete = roles())).0, Status::True);
    }
}
