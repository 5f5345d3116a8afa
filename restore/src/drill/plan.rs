//! Which entries of a backup a drill restores, as a role without superuser. Pure.

use std::collections::BTreeSet;

use pgrail_dump::{Entry, Rights, leave_out_refreshes, restorable_without};

use crate::database::only_superuser;

/// What is not needed for the rows, and would need rights or other objects: the structural drill restores it.
const NOT_NEEDED: [&str; 4] = ["ACL", "DEFAULT ACL", "SECURITY LABEL", "USER MAPPING"];
/// Comments on what the superuser created.
const OF_SUPERUSER: [&str; 3] = ["EXTENSION ", "FOREIGN DATA WRAPPER ", "LANGUAGE "];
/// How many tables a message names.
const NAMED: usize = 5;

/// What a drill restores.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) entries: Vec<u32>,
    /// `schema.table` of tables whose rows are never restored.
    pub(super) left_out: Vec<String>,
    /// Tables that cannot be restored without superuser: the drill would not be of everything.
    pub(super) lacking: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// `schemas` exist already, with the extensions in them.
pub(super) fn plan(entries: &[Entry], role: &str, schemas: &[String]) -> Plan {
    let of_superusers: BTreeSet<u32> =
        entries.iter().filter(|entry| only_superuser(entry)).map(|entry| entry.number).collect();
    let rights = Rights { superuser: false, owner: Some(role.to_owned()) };
    let mut restorable = restorable_without(entries, &rights, &of_superusers);
    let all = restorable.entries.len();
    leave_out_refreshes(entries, &mut restorable);
    // Privileges are not restored in any case.
    let of_privileges =
        |note: &String| note.ends_with("as another role") || note.ends_with("privileges of another role");
    let mut notes: Vec<String> = restorable.notes.iter().filter(|note| !of_privileges(note)).cloned().collect();
    if restorable.entries.len() < all {
        notes.push("materialized views are empty, since they could read foreign tables".to_owned());
    }
    let restored: BTreeSet<u32> = restorable.entries.iter().copied().collect();
    let has_cron = entries.iter().any(|entry| entry.kind == "EXTENSION" && entry.name == "pg_cron");
    let never = |entry: &Entry| entry.schema == "pgrail" || (has_cron && entry.schema == "cron");
    let missing = entries.iter().filter(|it| it.kind == "TABLE DATA" && !restored.contains(&it.number));
    let (never, lacking): (Vec<&Entry>, Vec<&Entry>) = missing.partition(|entry| never(entry));
    let label = |entry: &Entry| format!("{}.{}", entry.schema, entry.name);
    let is_needed = |entry: &Entry| {
        let kind = entry.kind.as_str();
        let of_superuser = kind == "COMMENT" && OF_SUPERUSER.iter().any(|of| entry.name.starts_with(of));
        let exists = kind == "EXTENSION" || (kind == "SCHEMA" && schemas.contains(&entry.name));
        !NOT_NEEDED.contains(&kind) && !of_superuser && !exists
    };
    let by_role = entries.iter().filter(|entry| restored.contains(&entry.number) && is_needed(entry));
    Plan {
        entries: by_role.map(|entry| entry.number).collect(),
        left_out: never.into_iter().map(label).collect(),
        lacking: lacking.into_iter().map(label).collect(),
        notes,
    }
}

/// The first names of a list.
pub(super) fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, kind: &str, name: &str, create: &str, depends_on: &[u32]) -> Entry {
        Entry {
            number,
            kind: kind.into(),
            schema: "public".into(),
            name: name.into(),
            create: create.into(),
            depends_on: depends_on.to_vec(),
            ..Entry::default()
        }
    }

    #[test]
    fn what_needs_a_superuser_is_left_out_and_a_table_that_needs_it_is_reported() {
        let of_c = "CREATE FUNCTION public.f() RETURNS int\n    LANGUAGE c\n    AS 'x', 'f';";
        let mut cron = entry(20, "TABLE DATA", "job", "", &[19]);
        cron.schema = "cron".into();
        let entries = [
            entry(1, "SCHEMA", "gis", "", &[]),
            entry(2, "EXTENSION", "postgis", "", &[1]),
            entry(3, "COMMENT", "EXTENSION postgis", "", &[2]),
            entry(4, "FUNCTION", "f()", of_c, &[]),
            entry(5, "TABLE", "plain", "", &[]),
            entry(6, "TABLE", "needs", "", &[4]),
            entry(7, "TABLE DATA", "plain", "", &[5]),
            entry(8, "TABLE DATA", "needs", "", &[6]),
            entry(9, "EVENT TRIGGER", "acts", "", &[]),
            entry(10, "SUBSCRIPTION", "pulls", "", &[]),
            entry(11, "ACL", "TABLE plain", "GRANT SELECT ON TABLE public.plain TO app;", &[5]),
            entry(12, "COMMENT", "TABLE plain", "", &[5]),
            entry(19, "EXTENSION", "pg_cron", "", &[]),
            cron,
        ];
        let plan = plan(&entries, "drill", &["gis".to_owned()]);
        assert_eq!(plan.entries, [5, 7, 12]);
        assert_eq!(
            (plan.lacking.as_slice(), plan.left_out.as_slice()),
            (["public.needs".to_owned()].as_slice(), ["cron.job".to_owned()].as_slice())
        );
        let notes = plan.notes.join("\n");
        assert!(
            notes.contains("SUBSCRIPTION") && notes.contains("EVENT TRIGGER") && !notes.contains("GRANT"),
            "{notes}"
        );
    }

    #[test]
    fn nothing_is_read_from_foreign_tables() {
        let entries = [
            entry(1, "FOREIGN TABLE", "far", "", &[]),
            entry(2, "MATERIALIZED VIEW", "near", "", &[1]),
            entry(3, "MATERIALIZED VIEW DATA", "near", "", &[2]),
            entry(
                4,
                "FOREIGN TABLE",
                "file",
                "… SERVER files\nOPTIONS (\n    delimiter ';',\n    filename '/x'\n);",
                &[],
            ),
            entry(5, "FOREIGN TABLE", "program", "… SERVER files\nOPTIONS (\n    \"program\" 'x'\n);", &[]),
            entry(6, "VIEW", "of_file", "", &[4]),
        ];
        let plan = plan(&entries, "drill", &[]);
        assert_eq!((plan.entries, plan.lacking.len()), (vec![1, 2], 0));
        let notes = plan.notes.join("\n");
        for expected in [
            "FOREIGN TABLE public.file, FOREIGN TABLE public.program: only a superuser",
            "materialized views are empty",
        ] {
            assert!(notes.contains(expected), "{notes}");
        }
    }
}
