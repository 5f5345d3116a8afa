//! Which entries of an archive are restored, and what is left out. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::Entry;

/// pgrail's own schema: the guards of the target are installed anew.
const OWN_SCHEMA: &str = "pgrail";
/// What is left out with an entry for the same reason.
const BELONGING: [&str; 6] = ["COMMENT", "ACL", "SECURITY LABEL", "PUBLICATION TABLE", "TABLE DATA", "SEQUENCE SET"];
/// How many entries a note names.
const NAMED: usize = 5;

/// What the role that restores can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Whether it is a superuser.
    pub superuser: bool,
    /// The role that owns everything, if the owners of the dump are not restored.
    pub owner: Option<String>,
}

/// The entries that are restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restorable {
    /// Their numbers, in the order of the archive.
    pub entries: Vec<u32>,
    /// What is left out and why, without what pgrail itself installed.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Own,
    Exists,
    Subscription,
    Scheduled,
    Superuser,
    Grantor,
    DefaultPrivileges,
    Dependent,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Own => "pgrail installed it",
            Self::Exists => "every database has it",
            Self::Subscription => "subscriptions are not restored, so that nothing is replicated into the copy",
            Self::Scheduled => "scheduled jobs are not restored, so that they do not run twice",
            Self::Superuser => "only a superuser can create it",
            Self::Grantor => "only a superuser can grant privileges as another role",
            Self::DefaultPrivileges => "they are default privileges of another role",
            Self::Dependent => "it depends on something that is left out",
        }
    }
}

/// Leaves out what pgrail installed, what would run by itself, what the role cannot create, and what depends on any of these.
pub fn restorable(entries: &[Entry], rights: &Rights) -> Restorable {
    restorable_without(entries, rights, &BTreeSet::new())
}

/// The same, and leaves out these entries, which only a superuser can create.
pub fn restorable_without(entries: &[Entry], rights: &Rights, of_superusers: &BTreeSet<u32>) -> Restorable {
    let has_cron = entries.iter().any(is_pg_cron);
    let mut omitted: BTreeMap<u32, Why> = BTreeMap::new();
    for entry in entries {
        let of_superuser = of_superusers.contains(&entry.number).then_some(Why::Superuser);
        if let Some(why) = omit(entry, rights, has_cron).or(of_superuser) {
            omitted.insert(entry.number, why);
        }
    }
    // Left out, but there.
    let exists: BTreeSet<u32> =
        omitted.iter().filter(|(_, why)| **why == Why::Exists).map(|(number, _)| *number).collect();
    // In the order of the archive, nearly everything comes after what it depends on.
    loop {
        let before = omitted.len();
        for entry in entries {
            let on = entry
                .depends_on
                .iter()
                .filter(|other| !exists.contains(other))
                .find_map(|other| omitted.get(other))
                .copied();
            if let Some(on) = on.filter(|_| !omitted.contains_key(&entry.number)) {
                let belongs = BELONGING.contains(&entry.kind.as_str());
                omitted.insert(entry.number, if belongs { on } else { Why::Dependent });
            }
        }
        if omitted.len() == before {
            break;
        }
    }
    Restorable {
        entries: entries.iter().map(|entry| entry.number).filter(|number| !omitted.contains_key(number)).collect(),
        notes: notes(entries, &omitted),
    }
}

fn is_pg_cron(entry: &Entry) -> bool {
    entry.kind == "EXTENSION" && entry.name == "pg_cron"
}

fn omit(entry: &Entry, rights: &Rights, has_cron: bool) -> Option<Why> {
    let kind = entry.kind.as_str();
    let of_all_tables = kind == "PUBLICATION" && entry.create.contains(" FOR ALL ");
    let privileges = ["ACL", "DEFAULT ACL"].contains(&kind);
    if is_own(entry) {
        Some(Why::Own)
    } else if kind == "SCHEMA" && entry.name == "public" {
        // A dump of some schemas would create it.
        Some(Why::Exists)
    } else if kind.starts_with("SUBSCRIPTION") {
        Some(Why::Subscription)
    } else if has_cron && (is_pg_cron(entry) || entry.schema == "cron" || entry.name == "SCHEMA cron") {
        Some(Why::Scheduled)
    } else if rights.superuser {
        None
    } else if of_all_tables || ["EVENT TRIGGER", "PUBLICATION TABLES IN SCHEMA"].contains(&kind) {
        Some(Why::Superuser)
    } else if privileges && entry.create.contains("SET SESSION AUTHORIZATION") {
        Some(Why::Grantor)
    } else if kind == "DEFAULT ACL" && rights.owner.as_ref() != Some(&entry.owner) {
        Some(Why::DefaultPrivileges)
    } else {
        None
    }
}

fn is_own(entry: &Entry) -> bool {
    let kind = entry.kind.as_str();
    let calls = || ["FUNCTION", "PROCEDURE"].iter().any(|it| entry.create.contains(&format!(" EXECUTE {it} pgrail.")));
    entry.schema == OWN_SCHEMA
        || (kind == "SCHEMA" && entry.name == OWN_SCHEMA)
        || (["COMMENT", "ACL", "SECURITY LABEL"].contains(&kind) && entry.name == "SCHEMA pgrail")
        || (["TRIGGER", "EVENT TRIGGER"].contains(&kind) && calls())
}

fn notes(entries: &[Entry], omitted: &BTreeMap<u32, Why>) -> Vec<String> {
    let mut by_cause: BTreeMap<Why, BTreeSet<String>> = BTreeMap::new();
    for entry in entries {
        // The extension is named; what it contains is not.
        let shown = |why: &Why| !matches!(why, Why::Own | Why::Exists) && (*why != Why::Scheduled || is_pg_cron(entry));
        if let Some(why) = omitted.get(&entry.number).filter(|why| shown(why)) {
            by_cause.entry(*why).or_default().insert(entry.label());
        }
    }
    let note = |(why, labels): (Why, BTreeSet<String>)| {
        let more = labels.len().saturating_sub(NAMED);
        let mut named = labels.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        if more > 0 {
            let _ = write!(named, ", and {more} more");
        }
        format!("left out: {named}: {}", why.as_str())
    };
    by_cause.into_iter().map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::entry;

    fn archive() -> Vec<Entry> {
        vec![
            entry(1, "SCHEMA", "", "pgrail", "CREATE SCHEMA pgrail;", &[]),
            entry(2, "TABLE", "public", "users", "", &[]),
            entry(3, "FUNCTION", "pgrail", "stop()", "", &[1]),
            entry(
                4,
                "TRIGGER",
                "public",
                "users pgrail_1",
                "CREATE TRIGGER t AFTER DELETE ON public.users FOR EACH STATEMENT EXECUTE FUNCTION pgrail.stop();",
                &[2, 3],
            ),
            entry(5, "COMMENT", "public", "TRIGGER pgrail_1 ON users", "", &[4]),
            entry(
                6,
                "TRIGGER",
                "public",
                "users audit",
                "CREATE TRIGGER audit AFTER DELETE ON public.users EXECUTE FUNCTION public.audit();",
                &[2],
            ),
            entry(7, "VIEW", "public", "spy", "", &[3]),
            entry(8, "SUBSCRIPTION", "", "from_old", "", &[]),
            entry(9, "EXTENSION", "", "pg_cron", "", &[]),
            entry(10, "TABLE DATA", "cron", "job", "", &[9]),
            entry(
                11,
                "EVENT TRIGGER",
                "",
                "log_ddl",
                "CREATE EVENT TRIGGER log_ddl EXECUTE FUNCTION public.log();",
                &[],
            ),
            entry(
                12,
                "EVENT TRIGGER",
                "",
                "pgrail_drop",
                "CREATE EVENT TRIGGER pgrail_drop EXECUTE FUNCTION pgrail.stop();",
                &[3],
            ),
            entry(
                13,
                "ACL",
                "public",
                "TABLE users",
                "SET SESSION AUTHORIZATION a; GRANT SELECT ON public.users TO b;",
                &[2],
            ),
            entry(
                14,
                "PUBLICATION",
                "",
                "everything",
                "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');",
                &[],
            ),
            entry(15, "TABLE DATA", "public", "users", "", &[2]),
        ]
    }

    #[test]
    fn what_pgrail_installed_and_what_would_run_is_left_out() {
        let found = restorable(&archive(), &Rights { superuser: true, owner: None });
        assert_eq!(found.entries, [2, 6, 11, 13, 14, 15]);
        let notes = found.notes.join("\n");
        for expected in ["SUBSCRIPTION from_old", "EXTENSION pg_cron: scheduled jobs", "VIEW public.spy: it depends on"]
        {
            assert!(notes.contains(expected), "{notes}");
        }
        assert!(!notes.contains("pgrail_"), "{notes}");
    }

    #[test]
    fn what_only_a_superuser_can_create_is_left_out() {
        let found = restorable(&archive(), &Rights { superuser: false, owner: Some("app".into()) });
        assert_eq!(found.entries, [2, 6, 15]);
        let notes = found.notes.join("\n");
        for expected in ["EVENT TRIGGER log_ddl", "PUBLICATION everything", "ACL public.TABLE users"] {
            assert!(notes.contains(expected), "{notes}");
        }
    }

    #[test]
    fn the_schema_public_is_not_created_and_what_is_in_it_is() {
        let entries = [
            entry(1, "SCHEMA", "", "public", "CREATE SCHEMA public;", &[]),
            entry(2, "TABLE", "public", "users", "", &[1]),
            entry(3, "ACL", "", "SCHEMA public", "GRANT CREATE ON SCHEMA public TO app;", &[1]),
        ];
        let found = restorable(&entries, &Rights { superuser: true, owner: None });
        assert_eq!((found.entries, found.notes.len()), (vec![2, 3], 0));
    }

    #[test]
    fn a_schema_named_cron_without_the_extension_is_restored() {
        let mut entries = archive();
        entries.retain(|entry| entry.name != "pg_cron");
        assert!(restorable(&entries, &Rights { superuser: true, owner: None }).entries.contains(&10));
    }
}
