//! Events and log lines: a database that cannot be reached, or can again; drift; guards that no object declares.

use crate::context::Context;
use crate::kubernetes::events::Severity;
use kube::ResourceExt;
use pgrail_crds::conditions::REACHABLE;
use pgrail_crds::conditions::reasons::event;
use pgrail_crds::{Condition, ProtectedDatabase, ProtectedDatabaseStatus};

/// Publishes what changed since the last status.
pub(super) async fn announce(database: &ProtectedDatabase, next: &ProtectedDatabaseStatus, context: &Context) {
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    let (current, now) = (database.status.as_ref(), context.now());
    match change(current, next) {
        Some(Change::Lost(note)) => {
            tracing::warn!(namespace, name, note, "database unreachable");
            let reason = event::DATABASE_UNREACHABLE;
            context.events.publish(database, Severity::Warning, "Connect", reason, note, now).await;
        }
        Some(Change::Recovered(note)) => {
            tracing::info!(namespace, name, note, "database reachable again");
            let reason = event::DATABASE_RECOVERED;
            context.events.publish(database, Severity::Normal, "Connect", reason, note, now).await;
        }
        None => {}
    }
    let repairs = |status: &ProtectedDatabaseStatus| status.drift_repairs.unwrap_or(0);
    if repairs(next) > current.map_or(0, repairs) {
        let note = "the database was no longer a template database, so that DROP DATABASE was possible: restored";
        tracing::warn!(namespace, name, note, "drift repaired");
        context.metrics.database_repaired(&namespace, &name);
        let reason = event::DRIFT_REPAIRED;
        context.events.publish(database, Severity::Warning, "Repair", reason, note.to_owned(), now).await;
    }
    if let Some(note) = new_orphans(current, next) {
        tracing::warn!(namespace, name, note, "orphaned guards");
        let reason = event::ORPHANED_GUARDS;
        context.events.publish(database, Severity::Warning, "Observe", reason, note, now).await;
    }
}

/// Whether a database became unreachable, or reachable again.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Lost(String),
    Recovered(String),
}

fn change(current: Option<&ProtectedDatabaseStatus>, next: &ProtectedDatabaseStatus) -> Option<Change> {
    let reachable = |status: &ProtectedDatabaseStatus| -> Option<Condition> {
        status.conditions.iter().find(|condition| condition.type_ == REACHABLE).cloned()
    };
    let after = reachable(next)?;
    let before = current.and_then(reachable).map(|condition| condition.status);
    match (before.as_deref(), after.status.as_str()) {
        // The first failure is an Event too: until now the database had no state at all.
        (Some("True" | "Unknown") | None, "False") => {
            Some(Change::Lost(format!("{}: {}", after.reason, after.message)))
        }
        (Some("False"), "True") => Some(Change::Recovered(after.message)),
        _ => None,
    }
}

/// Guards that no object declares, where there are other ones than in the last status.
fn new_orphans(current: Option<&ProtectedDatabaseStatus>, next: &ProtectedDatabaseStatus) -> Option<String> {
    let known = current.map(|status| status.orphaned_guards.as_slice()).unwrap_or_default();
    let new: Vec<&str> = next.orphaned_guards.iter().filter(|it| !known.contains(it)).map(String::as_str).collect();
    (!new.is_empty()).then(|| {
        format!(
            "in the database, but declared by no TableGuard: {}. They still stop statements, and are not repaired: declare \
             them again, or remove them with `pgrail remove`",
            new.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::conditions::{Conditions, Status};
    use crate::kubernetes::rejection::Reason;
    use jiff::Timestamp;

    fn status(reachable: Status, reason: Reason) -> ProtectedDatabaseStatus {
        let mut conditions = Conditions::new(&[], Some(1), Timestamp::UNIX_EPOCH);
        conditions.set(REACHABLE, reachable, reason, "why");
        ProtectedDatabaseStatus { conditions: conditions.finish(), ..ProtectedDatabaseStatus::default() }
    }

    #[test]
    fn an_outage_and_its_end_are_one_event_each() {
        let up = status(Status::True, Reason::Connected);
        let down = status(Status::False, Reason::Timeout);
        let still = status(Status::False, Reason::ConnectionRefused);
        assert_eq!(change(None, &up), None);
        assert_eq!(change(Some(&up), &up), None);
        assert_eq!(change(Some(&up), &down), Some(Change::Lost("Timeout: why".to_owned())));
        assert_eq!(change(Some(&down), &still), None);
        assert_eq!(change(Some(&still), &up), Some(Change::Recovered("why".to_owned())));
        assert!(matches!(change(None, &down), Some(Change::Lost(_))));
    }

    #[test]
    fn only_new_orphans_are_an_event() {
        let with = |guards: &[&str]| ProtectedDatabaseStatus {
            orphaned_guards: guards.iter().map(|it| (*it).to_owned()).collect(),
            ..ProtectedDatabaseStatus::default()
        };
        assert_eq!(new_orphans(Some(&with(&["a/b"])), &with(&["a/b"])), None);
        assert!(new_orphans(Some(&with(&["a/b"])), &with(&["a/b", "c/d"])).unwrap().contains("c/d"));
    }
}
