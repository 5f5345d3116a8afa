//! The identity of a dump, and its location in the store.

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Longest name of one part of a location, in bytes: an object store's key holds 1,024 in all.
const LONGEST_PART: usize = 200;

/// Longest name of a run's directory that is read from a store, in bytes.
const LONGEST_RUN: usize = 80;

/// Whose dump this is: written into its manifest, and the source of its location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupIdentity {
    /// The managing cluster: the UID of its `kube-system` namespace, or `local` for the command line.
    pub cluster_id: String,
    /// The schedule's namespace.
    pub namespace: String,
    /// The schedule's name, or the name of the backup that was made by hand.
    pub schedule: String,
    /// The schedule's UID (the `DatabaseBackup`'s own for one made by hand): a deleted and recreated schedule is another.
    pub schedule_uid: String,
    /// The `ProtectedDatabase`, as `namespace/name`.
    pub database: String,
    /// The `ProtectedDatabase`'s UID.
    pub database_uid: String,
    /// The `DatabaseBackup`'s name.
    pub backup_name: String,
    /// The moment that this run is named after, to the second: scheduled for, or started.
    pub timestamp: Timestamp,
    /// Distinguishes two runs of the same second: random letters or digits.
    pub run_id: String,
}

/// A part of an identity that cannot stand in a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} cannot be part of a location: {problem}")]
pub struct IdentityError {
    /// Which part.
    pub field: &'static str,
    /// What it was.
    pub value: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Identity of a schedule: its dumps are listed and pruned together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleIdentity {
    /// See [`BackupIdentity::cluster_id`].
    pub cluster_id: String,
    /// See [`BackupIdentity::namespace`].
    pub namespace: String,
    /// See [`BackupIdentity::schedule`].
    pub schedule: String,
    /// See [`BackupIdentity::schedule_uid`].
    pub schedule_uid: String,
}

impl ScheduleIdentity {
    /// The directory of this schedule below the store's prefix, without a slash at its ends.
    pub fn directory(&self) -> Result<String, IdentityError> {
        part("cluster id", &self.cluster_id)?;
        part("namespace", &self.namespace)?;
        part("schedule", &self.schedule)?;
        Ok(format!("{}/{}/{}", self.cluster_id, self.namespace, self.schedule))
    }

    /// The schedule of the same name and namespace in another cluster.
    #[must_use]
    pub fn in_cluster(&self, cluster_id: &str) -> Self {
        Self { cluster_id: cluster_id.to_owned(), ..self.clone() }
    }
}

impl BackupIdentity {
    /// Without what is only this dump's.
    pub fn schedule_identity(&self) -> ScheduleIdentity {
        ScheduleIdentity {
            cluster_id: self.cluster_id.clone(),
            namespace: self.namespace.clone(),
            schedule: self.schedule.clone(),
            schedule_uid: self.schedule_uid.clone(),
        }
    }

    /// The directory of this dump below the store's prefix:
    /// `<cluster id>/<namespace>/<schedule>/<timestamp>-<run id>`, without a slash at its ends.
    pub fn location(&self) -> Result<String, IdentityError> {
        part("run id", &self.run_id)?;
        let time = self.timestamp.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        Ok(format!("{}/{time}-{}", self.schedule_identity().directory()?, self.run_id))
    }
}

/// Whether a text has the form of a cluster's id: the UID of a namespace, in lowercase hexadecimal digits.
pub fn is_cluster_id(text: &str) -> bool {
    let is_expected = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_expected)
}

/// Whether a location, or an object in it, is of a run whose id starts with one of these.
pub(crate) fn is_running(key: &str, run_ids: &[String]) -> bool {
    let run = key.split('/').nth(3).and_then(|run| Some(run.split_once('-')?.1));
    run.is_some_and(|run| run_ids.iter().any(|id| !id.is_empty() && run.starts_with(id.as_str())))
}

/// Whether a directory has the name that [`BackupIdentity::location`] gives a run: `20261123T021500Z-<run id>`.
pub(crate) fn is_run(directory: &str) -> bool {
    let Some((time, run_id)) = directory.split_once('-') else { return false };
    let digit = |(at, byte): (usize, u8)| if at == 8 { byte == b'T' } else { byte.is_ascii_digit() };
    let digits = |text: &str| text.len() == 15 && text.bytes().enumerate().all(digit);
    time.strip_suffix('Z').is_some_and(digits) && directory.len() <= LONGEST_RUN && part("run id", run_id).is_ok()
}

/// Names in locations are plain: what Kubernetes allows in names and UIDs, and nothing that a store or a file system
/// reads in its own way.
fn part(field: &'static str, value: &str) -> Result<(), IdentityError> {
    let problem = if value.is_empty() {
        "it is empty"
    } else if value.len() > LONGEST_PART {
        "it is longer than 200 bytes"
    } else if value.starts_with('.') {
        "it starts with a dot"
    } else if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        "only letters, digits, `-`, `_` and `.` are allowed"
    } else {
        return Ok(());
    };
    Err(IdentityError { field, value: value.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_run_is_named_like_one() {
        assert!(is_run(identity().location().unwrap().rsplit('/').next().unwrap()));
        for other in [
            "",
            "x",
            "20261123T021500Z",
            "20261123T021500Z-",
            "20261123T021500Z-.x",
            "20261123T021500Z-a b",
            "202611230021500Z-a",
            "20261123T02150aZ-a",
            "2026112ZT021500-a",
        ] {
            assert!(!is_run(other), "{other}");
        }
        assert!(!is_run(&format!("20261123T021500Z-{}", "a".repeat(80))));
    }

    fn identity() -> BackupIdentity {
        BackupIdentity {
            cluster_id: "6c1f".into(),
            namespace: "shop".into(),
            schedule: "nightly".into(),
            schedule_uid: "uid-1".into(),
            database: "shop/shop".into(),
            database_uid: "uid-2".into(),
            backup_name: "nightly-20261123-021500".into(),
            timestamp: "2026-11-23T02:15:00.987Z".parse().unwrap(),
            run_id: "a1b2c3".into(),
        }
    }

    #[test]
    fn the_id_of_a_cluster_is_a_uid() {
        let id = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
        assert!(is_cluster_id(id));
        let others = [
            String::new(),
            "local".into(),
            "..".into(),
            id.to_uppercase(),
            format!("{id}/"),
            format!("{id}0"),
            id.replace('-', "0"),
            id.replace("4f50", "../."),
            id.repeat(1000),
        ];
        for other in others {
            assert!(!is_cluster_id(&other), "{other}");
        }
    }

    #[test]
    fn the_location_follows_from_the_identity() {
        assert_eq!(identity().location().unwrap(), "6c1f/shop/nightly/20261123T021500Z-a1b2c3");
    }

    #[test]
    fn a_running_run_is_found_by_the_start_of_its_id() {
        let location = identity().location().unwrap();
        for (id, running) in [("a1b2", true), ("a1b2c3", true), ("b2c3", false), ("", false), ("a1b2c3d", false)] {
            assert_eq!(is_running(&format!("{location}/dump.pgc.000"), &[id.to_owned()]), running, "{id}");
            assert_eq!(is_running(&location, &[id.to_owned()]), running, "{id}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "..", ".hidden", "a/b", "a b", "ü", "a\\b", "a#1"] {
            let mut identity = identity();
            identity.schedule = bad.into();
            assert_eq!(identity.location().unwrap_err().field, "schedule", "{bad:?}");
            assert!(identity.schedule_identity().directory().is_err(), "{bad:?}");
        }
    }
}
