//! What a `DatabaseBackup` proves, and of what. Pure.

use super::names::created;
use crate::kubernetes::conditions::Status;
use crate::kubernetes::rejection::{Reason, Rejection};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use pgrail_crds::annotations::SCHEDULE_UID;
use pgrail_crds::conditions::READY;
use pgrail_crds::{BackupPhase, DatabaseBackup, VerificationLevel};

/// How far a server's clock may be ahead of the operator's.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

pub(crate) fn phase(backup: &DatabaseBackup) -> BackupPhase {
    backup.status.as_ref().and_then(|status| status.phase).unwrap_or(BackupPhase::Pending)
}

/// The time of the snapshot; before a dump has one, the creation of the object.
pub(crate) fn snapshot_time(backup: &DatabaseBackup) -> Timestamp {
    let time = backup.status.as_ref().and_then(|status| status.start_time.as_ref());
    time.map_or_else(|| created(backup), |time| time.0)
}

pub(crate) fn proof(backup: &DatabaseBackup) -> VerificationLevel {
    let verification = backup.status.as_ref().and_then(|status| status.verification.as_ref());
    verification.map_or(VerificationLevel::None, |verification| verification.level)
}

/// Whether its dump, or a part of it, was not in the store when that was last compared.
pub(crate) fn is_missing(backup: &DatabaseBackup) -> bool {
    let conditions = backup.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|it| it.type_ == READY && it.reason == Reason::Missing.as_str())
}

/// Whether it has a dump in a store.
pub(crate) fn has_dump(backup: &DatabaseBackup) -> bool {
    matches!(phase(backup), BackupPhase::Succeeded | BackupPhase::Discovered)
}

/// The condition `Ready` of a backup whose dump is in the store, and what was proven of it.
pub(crate) fn ready(level: VerificationLevel) -> (Status, Reason, &'static str) {
    match level {
        VerificationLevel::ReadBack | VerificationLevel::Drill => {
            (Status::True, Reason::ReadBack, "every byte was read from the store again")
        }
        VerificationLevel::Checksum => {
            (Status::True, Reason::Checksum, "the SHA-256 that the store computed was compared")
        }
        VerificationLevel::None => (
            Status::False,
            Reason::Unverified,
            "not verified, since the store computes no SHA-256: set spec.verification.level of the schedule to ReadBack",
        ),
    }
}

pub(crate) fn is_verified(backup: &DatabaseBackup) -> bool {
    phase(backup) == BackupPhase::Succeeded && proof(backup) > VerificationLevel::None
}

/// UID of the schedule that it was made for: another one may have had the same name.
pub(crate) fn schedule_uid(backup: &DatabaseBackup) -> Option<&str> {
    let of_run = backup.status.as_ref().and_then(|status| status.schedule_uid.as_deref());
    of_run.or_else(|| backup.annotations().get(SCHEDULE_UID).map(String::as_str))
}

/// Whether it is of the `ProtectedDatabase` with that UID. Dumps of releases that did not record it are taken as such.
pub(crate) fn is_of_database(backup: &DatabaseBackup, database_uid: &str) -> bool {
    let of_run = backup.status.as_ref().and_then(|status| status.database_uid.as_deref());
    of_run.is_none_or(|uid| uid == database_uid)
}

/// Causes why it is partial, except declared ones.
pub(crate) fn undeclared_causes<'a>(backup: &'a DatabaseBackup, declared: &[&str]) -> Vec<&'a str> {
    let causes = backup.status.iter().flat_map(|status| &status.partial_because).map(String::as_str);
    causes.filter(|cause| !declared.contains(cause)).collect()
}

/// Whether a finished dump counts as a backup of its database, and if not, why. `declared` are the causes of
/// `partialBecause` that are allowed.
pub(crate) fn counted(backup: &DatabaseBackup, declared: &[&str], now: Timestamp) -> Result<(), Rejection> {
    let name = backup.name_any();
    let time = snapshot_time(backup);
    if is_missing(backup) {
        return Err(Rejection::new(
            Reason::Missing,
            format!("the dump of {name}, or a part of it, is not in the store"),
        ));
    }
    if !is_verified(backup) {
        return Err(Rejection::new(Reason::Unverified, format!("{name} was not verified")));
    }
    if time.duration_since(now) > CLOCK_TOLERANCE {
        let message = format!("the snapshot time of {name}, {time}, is in the future: correct the clock of the server");
        return Err(Rejection::new(Reason::ClockSkew, message));
    }
    let causes = undeclared_causes(backup, declared);
    if causes.is_empty() { Ok(()) } else { Err(Rejection::new(Reason::Partial, partial(&name, &causes))) }
}

fn partial(name: &str, causes: &[&str]) -> String {
    let remedy = if causes.iter().any(|cause| cause.starts_with("UnloggedTables")) {
        ": dump from the primary, or exclude the rows of these tables in spec.dump.excludeTableData"
    } else {
        ""
    };
    format!("{name} is partial ({}){remedy}", causes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_jobs::examples::{backup, succeeded};
    use serde_json::{Value, json};

    fn reason(change: Value) -> Option<Reason> {
        let mut status = succeeded("2026-11-23T02:15:00Z");
        for (field, value) in change.as_object().unwrap() {
            status[field] = value.clone();
        }
        let backup = backup("b", "2026-11-23T02:15:00Z", status);
        counted(&backup, &["Schemas"], "2026-11-23T03:00:00Z".parse().unwrap()).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn only_whole_verified_dumps_of_the_past_count() {
        assert_eq!(reason(json!({})), None);
        assert_eq!(reason(json!({"partial": true, "partialBecause": ["Schemas"]})), None, "as declared");
        assert_eq!(reason(json!({"partialBecause": ["Schemas", "ExcludeTables"]})), Some(Reason::Partial));
        assert_eq!(reason(json!({"partialBecause": ["UnloggedTables: public.cache"]})), Some(Reason::Partial));
        assert_eq!(reason(json!({"startTime": "2026-11-23T03:04:00Z"})), None, "within the tolerance");
        assert_eq!(reason(json!({"startTime": "2026-11-24T03:00:00Z"})), Some(Reason::ClockSkew));
        assert_eq!(reason(json!({"verification": {"level": "None"}})), Some(Reason::Unverified));
        assert_eq!(reason(json!({"phase": "Verifying"})), Some(Reason::Unverified));
        let missing = json!([{"type": "Ready", "status": "False", "reason": "Missing", "message": "",
            "lastTransitionTime": "2026-11-23T02:15:00Z"}]);
        assert_eq!(reason(json!({"conditions": missing})), Some(Reason::Missing));
    }

    #[test]
    fn the_run_tells_of_which_schedule_and_database_it_is() {
        let mut backup = backup("b", "2026-11-23T02:15:00Z", succeeded("2026-11-23T02:15:00Z"));
        assert_eq!(schedule_uid(&backup), Some("schedule-uid"));
        assert!(is_of_database(&backup, "any"));
        let status = backup.status.as_mut().unwrap();
        (status.schedule_uid, status.database_uid) = (Some("s".into()), Some("d".into()));
        assert_eq!(schedule_uid(&backup), Some("s"), "not what an annotation says");
        assert!(is_of_database(&backup, "d") && !is_of_database(&backup, "any"));
    }
}
