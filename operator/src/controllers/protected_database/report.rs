//! The status of a `ProtectedDatabase`, from what was observed. Pure.

use super::apply::DropDatabase;
use super::observe::{Contents, Outcome, Reached, Survey};
use crate::kubernetes::conditions::{Conditions, Status};
use crate::kubernetes::rejection::Reason;
use jiff::Timestamp;
use pgrail_crds::conditions::{DATABASE_PROTECTED, LEAST_PRIVILEGE, REACHABLE, READY};
use pgrail_crds::{BlastRadius, Capabilities, ProtectedDatabase, ProtectedDatabaseStatus};
use std::collections::HashMap;

/// Rows of the blast radius that the status lists.
const LISTED: usize = 20;
/// At least so many of them are for tables without a guard, if there are so many: guarded tables must not hide them.
const UNGUARDED_LISTED: usize = 10;
/// Guards without an object that the status lists.
const ORPHANS_LISTED: usize = 100;
/// The oldest supported server, as `server_version_num`: PostgreSQL 15.
const OLDEST_SERVER: i32 = 150_000;

/// The status that the database should have.
pub(super) fn report(database: &ProtectedDatabase, outcome: &Outcome, now: Timestamp) -> ProtectedDatabaseStatus {
    let mut status = database.status.clone().unwrap_or_default();
    let generation = database.metadata.generation;
    let mut conditions = Conditions::new(&status.conditions, generation, now);
    match outcome {
        Outcome::Suspended => {
            let message = "spec.suspend is true: the database is not checked";
            conditions.set(READY, Status::Unknown, Reason::Suspended, message);
            conditions.set(REACHABLE, Status::Unknown, Reason::Suspended, message);
            conditions.keep(LEAST_PRIVILEGE).keep(DATABASE_PROTECTED);
        }
        Outcome::Unreachable(error) => {
            conditions.set(REACHABLE, Status::False, error.reason, &error.message);
            if error.stalled {
                conditions.stalled(error.reason, &error.message);
            } else {
                conditions.set(READY, Status::False, Reason::Unreachable, &error.message);
            }
            conditions.keep(LEAST_PRIVILEGE).keep(DATABASE_PROTECTED);
        }
        Outcome::Reached(reached) => {
            report_reached(database, reached, &mut status, &mut conditions);
        }
    }
    status.observed_generation = generation;
    status.conditions = conditions.finish();
    status
}

fn report_reached(
    database: &ProtectedDatabase,
    reached: &Reached,
    status: &mut ProtectedDatabaseStatus,
    conditions: &mut Conditions,
) {
    let found = &reached.capabilities;
    status.server_version = Some(found.server_version.clone());
    status.capabilities = Some(Capabilities {
        superuser: found.superuser,
        owns_tables: found.owns_tables,
        event_triggers: found.event_triggers,
        read_all_data: found.read_all_data,
        bypass_rls: found.bypass_rls,
    });
    let ignored = match reached.ignored_keys.as_slice() {
        [] => String::new(),
        keys => format!("; keys of the URI that mean nothing to PostgreSQL are ignored: {}", keys.join(", ")),
    };
    let connected = format!("connected to PostgreSQL {} as {}{ignored}", found.server_version, reached.user);
    conditions.set(REACHABLE, Status::True, Reason::Connected, connected);
    report_privilege(database, reached, conditions);
    report_drop_database(&reached.drop_database, status, conditions);
    report_ready(reached, conditions);
    if let Some(orphans) = &reached.orphans {
        status.orphaned_guards = orphans.iter().take(ORPHANS_LISTED).cloned().collect();
    }
    if let Survey::Read(contents) = &reached.survey {
        status.tables = i64::try_from(contents.tables).ok();
        let unguarded = contents.blast_radius.iter().filter(|it| it.cascade_tables > 0 && !it.guarded).count();
        status.unguarded_at_risk = i64::try_from(unguarded).ok();
        status.blast_radius = blast_radius(&status.blast_radius, contents);
    }
}

fn report_privilege(database: &ProtectedDatabase, reached: &Reached, conditions: &mut Conditions) {
    if database.spec.application_roles.contains(&reached.user) {
        let message = format!(
            "pgrail logs in as {}, which spec.applicationRoles names as an application's role: every session of that \
             role can remove guards. Give pgrail a role of its own (`pgrail grants` prints the SQL)",
            reached.user
        );
        conditions.set(LEAST_PRIVILEGE, Status::False, Reason::ApplicationRole, message);
    } else if reached.capabilities.superuser {
        let message = format!(
            "{} is a superuser, which pgrail does not need. `pgrail grants` prints the SQL for a role with only what it needs",
            reached.user
        );
        conditions.set(LEAST_PRIVILEGE, Status::False, Reason::Superuser, message);
    } else if reached.capabilities.own_tables > 0 {
        let message = format!(
            "pgrail logs in as {}, which owns {} of the {} tables itself, as the role of migrations or of an application does: \
             every session of that role can remove guards. Give pgrail a role of its own (`pgrail grants` prints the SQL)",
            reached.user, reached.capabilities.own_tables, reached.capabilities.tables
        );
        conditions.set(LEAST_PRIVILEGE, Status::False, Reason::TableOwner, message);
    } else {
        let message =
            format!("{} is neither a superuser, nor an application's role, nor the owner of tables", reached.user);
        conditions.set(LEAST_PRIVILEGE, Status::True, Reason::DedicatedRole, message);
    }
}

fn report_drop_database(found: &DropDatabase, status: &mut ProtectedDatabaseStatus, conditions: &mut Conditions) {
    match found {
        DropDatabase::Arranged => status.template_set = true,
        DropDatabase::Repaired => {
            status.template_set = true;
            status.drift_repairs = Some(status.drift_repairs.unwrap_or(0) + 1);
        }
        DropDatabase::Released | DropDatabase::NoPrivilege(_) | DropDatabase::Failed(_) => status.template_set = false,
        DropDatabase::NotRequested | DropDatabase::Unchecked | DropDatabase::Refused | DropDatabase::NotReleased(_) => {
        }
    }
    let is_template = "the database is a template database: DROP DATABASE is refused, with FORCE too";
    let (holds, reason, message) = match found {
        DropDatabase::Unchecked => {
            conditions.keep(DATABASE_PROTECTED);
            return;
        }
        DropDatabase::NotRequested | DropDatabase::Released => {
            let message = "spec.protectDatabase is false: pgrail does not protect the database from DROP DATABASE";
            (Status::False, Reason::NotRequested, message.to_owned())
        }
        DropDatabase::Refused | DropDatabase::Arranged | DropDatabase::Repaired => {
            let by_others = if status.template_set { "" } else { ". Others arranged that, and pgrail does not end it" };
            (Status::True, Reason::IsTemplate, format!("{is_template}{by_others}"))
        }
        DropDatabase::NotReleased(why) => {
            let message = format!("{is_template}. spec.protectDatabase is false, but that cannot be ended: {why}");
            (Status::True, Reason::IsTemplate, message)
        }
        DropDatabase::NoPrivilege(why) => {
            (Status::False, Reason::NoPrivilege, format!("the database cannot be made a template database: {why}"))
        }
        DropDatabase::Failed(why) => {
            (Status::False, Reason::InstallFailed, format!("the database cannot be made a template database: {why}"))
        }
    };
    conditions.set(DATABASE_PROTECTED, holds, reason, message);
}

fn report_ready(reached: &Reached, conditions: &mut Conditions) {
    let found = &reached.capabilities;
    if found.server_version_num < OLDEST_SERVER {
        let message =
            format!("PostgreSQL {} is not supported: upgrade to PostgreSQL 15 or newer", found.server_version);
        conditions.stalled(Reason::UnsupportedVersion, message);
    } else if found.in_recovery {
        let message = "the server is a standby, where nothing can be installed: point the connection at the primary";
        conditions.stalled(Reason::ReadOnlyServer, message);
    } else {
        match &reached.survey {
            Survey::Pooler => {
                let message =
                    "a transaction-mode pooler is in between: use the server's own port, or a session-mode pool";
                conditions.stalled(Reason::PoolerDetected, message);
            }
            Survey::Failed(error) => {
                let message = format!("the catalog could not be read: {error}");
                conditions.set(READY, Status::False, Reason::CatalogUnreadable, message);
            }
            Survey::Unchanged | Survey::Read(_) => {
                conditions.set(READY, Status::True, Reason::AsDeclared, "reachable, and its tables are known");
            }
        }
    }
}

/// The worst tables. Where estimates must not change yet, the previous ones stay.
fn blast_radius(previous: &[BlastRadius], contents: &Contents) -> Vec<BlastRadius> {
    let previous: HashMap<&str, &BlastRadius> = previous.iter().map(|it| (it.table.as_str(), it)).collect();
    listed(&contents.blast_radius)
        .into_iter()
        .map(|it| {
            let mut now = BlastRadius {
                table: it.table.clone(),
                rows: two_digits(it.rows),
                cascade_tables: i64::try_from(it.cascade_tables).unwrap_or(i64::MAX),
                rows_at_risk: two_digits(it.rows_at_risk),
                per_row: two_digits(it.per_row),
                guarded: it.guarded,
            };
            if let Some(previous) = previous.get(it.table.as_str())
                && !contents.fresh_estimates
                && previous.cascade_tables == now.cascade_tables
            {
                (now.rows, now.rows_at_risk, now.per_row) = (previous.rows, previous.rows_at_risk, previous.per_row);
            }
            now
        })
        .collect()
}

/// The tables that the status lists, the worst first.
fn listed(all: &[pgrail_guard::BlastRadius]) -> Vec<&pgrail_guard::BlastRadius> {
    let is_unguarded = |it: &pgrail_guard::BlastRadius| it.cascade_tables > 0 && !it.guarded;
    let unguarded = all.iter().filter(|it| is_unguarded(it)).count().min(UNGUARDED_LISTED);
    let (mut of_unguarded, mut of_others) = (unguarded, LISTED - unguarded);
    let mut is_listed = |it: &&pgrail_guard::BlastRadius| {
        // The places for unguarded tables first, then what the others leave.
        let place = if is_unguarded(it) && of_unguarded > 0 { &mut of_unguarded } else { &mut of_others };
        let has_place = *place > 0;
        *place = place.saturating_sub(1);
        has_place
    };
    all.iter().filter(|it| is_listed(it)).collect()
}

/// An estimate is no more exact than this.
pub(crate) fn two_digits(estimate: u64) -> i64 {
    let mut scale = 1;
    while estimate / scale >= 100 {
        scale *= 10;
    }
    let rounded = (estimate + scale / 2) / scale * scale;
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status of `Ready` and its reason for a server of this version.
    fn ready(server_version: &str, server_version_num: i32) -> (String, String) {
        let capabilities = pgrail_guard::Capabilities {
            role: "pgrail".into(),
            superuser: false,
            owns_tables: true,
            own_tables: 0,
            event_triggers: false,
            read_all_data: true,
            bypass_rls: true,
            create_schema: true,
            server_version_num,
            server_version: server_version.into(),
            in_recovery: false,
            track_counts: true,
            tables: 0,
        };
        let reached = Reached {
            capabilities,
            user: "pgrail".into(),
            ignored_keys: Vec::new(),
            drop_database: DropDatabase::NotRequested,
            survey: Survey::Unchanged,
            orphans: None,
        };
        let mut conditions = Conditions::new(&[], Some(1), Timestamp::UNIX_EPOCH);
        report_ready(&reached, &mut conditions);
        let ready = conditions.finish().into_iter().find(|it| it.type_ == READY).unwrap();
        (ready.status, ready.reason)
    }

    #[test]
    fn guarded_tables_do_not_hide_unguarded_ones() {
        let table = |number: usize, guarded| pgrail_guard::BlastRadius {
            oid: 1,
            table: format!("public.t{number:02}"),
            rows: 1,
            cascade_tables: 1,
            rows_at_risk: 1000 - number as u64,
            per_row: 1,
            guarded,
        };
        let all: Vec<_> = (0..30).map(|number| table(number, number < 25)).collect();
        let names: Vec<_> = listed(&all).into_iter().map(|it| it.table.clone()).collect();
        assert_eq!(names.len(), LISTED);
        assert_eq!(names[14..], ["public.t14", "public.t25", "public.t26", "public.t27", "public.t28", "public.t29"]);
        let few: Vec<_> = (0..5).map(|number| table(number, true)).collect();
        assert_eq!(listed(&few).len(), 5);
        let open: Vec<_> = (0..30).map(|number| table(number, false)).collect();
        let names: Vec<_> = listed(&open).into_iter().map(|it| it.table.clone()).collect();
        assert_eq!((names.len(), names[19].as_str()), (LISTED, "public.t19"));
    }

    #[test]
    fn servers_before_15_are_not_supported() {
        let unsupported = ("False".to_owned(), Reason::UnsupportedVersion.as_str().to_owned());
        assert_eq!(ready("13.23", 130_023), unsupported);
        assert_eq!(ready("14.20", 140_020), unsupported);
        let supported = ("True".to_owned(), Reason::AsDeclared.as_str().to_owned());
        assert_eq!(ready("15.0", 150_000), supported);
        assert_eq!(ready("18.1", 180_001), supported);
    }

    #[test]
    fn what_pgrail_arranged_is_remembered_and_what_others_did_is_not_its_own() {
        let reported = |found: DropDatabase, status: &mut ProtectedDatabaseStatus| {
            let mut conditions = Conditions::new(&status.conditions, Some(1), Timestamp::UNIX_EPOCH);
            report_drop_database(&found, status, &mut conditions);
            status.conditions = conditions.finish();
            let condition = status.conditions[0].clone();
            (condition.status, condition.reason, condition.message)
        };
        let mut status = ProtectedDatabaseStatus::default();
        let (held, reason, message) = reported(DropDatabase::Refused, &mut status);
        assert_eq!((held.as_str(), reason.as_str(), status.template_set), ("True", "IsTemplate", false));
        assert!(message.contains("Others arranged"), "{message}");
        let (_, _, message) = reported(DropDatabase::Arranged, &mut status);
        assert!(status.template_set && !message.contains("Others"), "{message}");
        reported(DropDatabase::Refused, &mut status);
        reported(DropDatabase::Repaired, &mut status);
        assert_eq!((status.template_set, status.drift_repairs), (true, Some(1)));
        let (held, _, message) = reported(DropDatabase::NotReleased("why".into()), &mut status);
        assert!(held == "True" && message.ends_with("why") && status.template_set, "{message}");
        reported(DropDatabase::Unchecked, &mut status);
        assert_eq!(status.conditions[0].status, "True");
        let (held, reason, _) = reported(DropDatabase::Released, &mut status);
        assert_eq!((held.as_str(), reason.as_str(), status.template_set), ("False", "NotRequested", false));
        let (held, reason, message) = reported(DropDatabase::NoPrivilege("run GRANT a TO b".into()), &mut status);
        assert_eq!((held.as_str(), reason.as_str()), ("False", "NoPrivilege"));
        assert!(message.contains("GRANT a TO b"), "{message}");
    }

    #[test]
    fn estimates_have_two_digits() {
        let rounded: Vec<_> = [0, 7, 99, 104, 105, 1_299_999, 999_999].iter().map(|it| two_digits(*it)).collect();
        assert_eq!(rounded, [0, 7, 99, 100, 110, 1_300_000, 1_000_000]);
    }
}
