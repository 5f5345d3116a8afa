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

const COLUMNS: &str = "DROP COLUMN, and type changes that rewrite,";
const PARTITIONS: &str = "DROP and DETACH of partitions";

fn drop_protected(tables: &[TableStatus]) -> (Status, Reason, String) {
    let existing: Vec<_> = tables.iter().filter(|table| table.oid.is_some()).collect();
    let stands = |of: fn(&TableStatus) -> DropProtection, what| {
        let tables = existing.iter().filter(move |table| of(table) == what);
        tables.map(|table| table.table.clone()).collect::<Vec<_>>()
    };
    let of_table = |what| stands(|table| table.drop_protection, what);
    let only_by_event_trigger = |what| {
        let columns = (COLUMNS, stands(|table| table.column_protection, what));
        let partitions = (PARTITIONS, stands(|table| table.partition_protection, what));
        [columns, partitions].into_iter().filter(|(_, tables)| !tables.is_empty()).collect::<Vec<_>>()
    };
    let (open, pinned) = (of_table(DropProtection::None), of_table(DropProtection::Pinned));
    let uncovered = only_by_event_trigger(DropProtection::None);
    if !open.is_empty() || !uncovered.is_empty() {
        let mut gaps = Vec::new();
        if !open.is_empty() {
            gaps.push(format!(
                "nothing stops DROP TABLE of {}: it needs an event trigger (superuser, or the platform's equal) or, for \
                 pgrail's role, SELECT on the table and its own schema",
                listed(&open)
            ));
        }
        gaps.extend(uncovered.iter().map(|(what, tables)| {
            format!(
                "nothing stops {what} of {}: it needs an event trigger (superuser, or the platform's equal)",
                listed(tables)
            )
        }));
        if !pinned.is_empty() {
            gaps.push(format!("a view of pgrail's on {} makes DROP TABLE without CASCADE fail", listed(&pinned)));
        }
        return (Status::False, Reason::NotProtected, gaps.join("; "));
    }
    if !pinned.is_empty() {
        let message = format!(
            "a view of pgrail's on {} makes DROP TABLE fail; DROP TABLE CASCADE and DROP SCHEMA CASCADE still pass, \
             since pgrail's role may not create event triggers",
            listed(&pinned)
        );
        return (Status::True, Reason::Pinned, message);
    }
    let mut stopped = Vec::new();
    if !of_table(DropProtection::EventTrigger).is_empty() {
        stopped.push("DROP TABLE, with CASCADE too".to_owned());
    }
    let covered = only_by_event_trigger(DropProtection::EventTrigger);
    stopped.extend(covered.iter().map(|(what, tables)| format!("{what} of {}", listed(tables))));
    if !stopped.is_empty() {
        return (Status::True, Reason::EventTrigger, format!("event triggers stop {}", stopped.join("; ")));
    }
    let message = "no DROP is in spec.protect, or mode Warn stops nothing, or there is no table yet";
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
    use pgrail_guard::TableState;

    fn facts(change: impl FnOnce(&mut TableTamper)) -> TamperFacts {
        let mut table =
            TableTamper { table: "public.users".to_owned(), owner: "app".to_owned(), ..TableTamper::default() };
        change(&mut table);
        TamperFacts { tables: vec![table], ..TamperFacts::default() }
    }

    fn table(drop: DropProtection, columns: DropProtection, partitions: DropProtection) -> TableStatus {
        TableStatus {
            oid: Some(1),
            table: "public.users".to_owned(),
            renamed_from: None,
            state: TableState::Enforced,
            message: String::new(),
            closure: 0,
            rows_at_risk: 0,
            blocked_attempts: 0,
            drop_protection: drop,
            column_protection: columns,
            partition_protection: partitions,
        }
    }

    #[test]
    fn what_is_covered_is_said_and_what_was_asked_for_and_is_not_makes_it_false() {
        use DropProtection::{EventTrigger, NotAsked, Pinned};
        let of = |drop, columns, partitions| drop_protected(&[table(drop, columns, partitions)]);
        let covered = of(EventTrigger, EventTrigger, EventTrigger);
        assert_eq!((covered.0, covered.1), (Status::True, Reason::EventTrigger));
        for what in ["DROP TABLE", "DROP COLUMN", "DETACH"] {
            assert!(covered.2.contains(what), "{}", covered.2);
        }
        let table_only = of(EventTrigger, NotAsked, NotAsked);
        assert!(!table_only.2.contains("COLUMN") && !table_only.2.contains("DETACH"), "{}", table_only.2);
        assert_eq!(of(NotAsked, EventTrigger, NotAsked).0, Status::True);
        assert_eq!(of(Pinned, NotAsked, NotAsked).1, Reason::Pinned);
        let gap = of(Pinned, DropProtection::None, NotAsked);
        assert_eq!((gap.0, gap.1), (Status::False, Reason::NotProtected));
        assert!(gap.2.contains("DROP COLUMN") && gap.2.contains("a view of pgrail's"), "{}", gap.2);
        assert_eq!(of(NotAsked, NotAsked, NotAsked).1, Reason::NotRequested);
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
