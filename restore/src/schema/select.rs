//! What some tables need: the entries of an archive that are restored with them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pgrail_dump::Entry;

/// What belongs to a table, and is restored with it. Not: triggers, policies, rules and privileges, which would act on the copy.
const ATTACHED: [&str; 12] = [
    "CHECK CONSTRAINT",
    "COMMENT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS",
    "TABLE ATTACH",
];
/// What belongs to a table, and is not restored.
const ACTING: [&str; 4] = ["POLICY", "ROW SECURITY", "RULE", "TRIGGER"];
/// What contains code of a role.
const CODE: [&str; 5] = ["AGGREGATE", "CAST", "FUNCTION", "OPERATOR", "PROCEDURE"];

/// The entries of some tables, and what they need.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selected {
    /// In the order of the archive.
    pub(super) entries: Vec<Entry>,
    /// Tables that are not in the archive.
    pub(super) missing: Vec<String>,
    /// Code that these tables need.
    pub(super) code: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Selects the tables with these names of a schema.
pub(super) fn select(entries: &[Entry], schema: &str, names: &[String]) -> Selected {
    let by_number: BTreeMap<u32, &Entry> = entries.iter().map(|entry| (entry.number, entry)).collect();
    let is_table = |number: &u32| by_number.get(number).is_some_and(|entry| entry.kind == "TABLE");
    let find = |name: &String| entries.iter().find(|it| it.kind == "TABLE" && it.schema == schema && it.name == *name);
    let missing = names.iter().filter(|name| find(name).is_none()).map(|name| format!("{schema}.{name}")).collect();
    let mut tables: BTreeSet<u32> = names.iter().filter_map(find).map(|entry| entry.number).collect();
    // Partitions at any depth. An attachment depends on both tables, and is named after the partition.
    loop {
        let before = tables.len();
        for attach in entries.iter().filter(|entry| entry.kind == "TABLE ATTACH") {
            if attach.depends_on.iter().any(|on| tables.contains(on)) {
                let is_partition = |on: &&u32| {
                    by_number.get(on).is_some_and(|it| it.schema == attach.schema && it.name == attach.name)
                };
                tables.extend(attach.depends_on.iter().find(is_partition));
            }
        }
        if tables.len() == before {
            break;
        }
    }
    let named =
        |table: &u32, of: &Entry| by_number.get(table).is_some_and(|it| of.name.starts_with(&format!("{} ", it.name)));
    let is_own = |key: &Entry| key.depends_on.iter().any(|on| tables.contains(on) && named(on, key));
    let mut included = tables.clone();
    let mut foreign_keys = BTreeSet::new();
    loop {
        let before = included.len();
        require(&by_number, &mut included);
        for entry in entries.iter().filter(|entry| ATTACHED.contains(&entry.kind.as_str())) {
            if included.contains(&entry.number) || !entry.depends_on.iter().any(|on| included.contains(on)) {
                continue;
            }
            let mut others = entry.depends_on.iter().filter(|on| is_table(on) && !included.contains(on));
            let of_comment = entry.kind != "COMMENT" || belongs(entry, &by_number, &included);
            match (others.next(), entry.kind.as_str()) {
                (None, _) if of_comment => {
                    included.insert(entry.number);
                }
                (Some(_), "FK CONSTRAINT") if is_own(entry) => {
                    foreign_keys.insert(entry.number);
                }
                _ => {}
            }
        }
        if included.len() == before {
            break;
        }
    }
    let data = |entry: &Entry| entry.kind == "TABLE DATA" && entry.depends_on.iter().any(|on| tables.contains(on));
    let wanted = |entry: &&Entry| included.contains(&entry.number) || data(entry);
    let selected: Vec<Entry> = entries.iter().filter(wanted).cloned().collect();
    let code = selected.iter().filter(|entry| CODE.contains(&entry.kind.as_str())).map(Entry::label).collect();
    let mut notes = Vec::new();
    let mut note = |labels: Vec<String>, why: &str| {
        if !labels.is_empty() {
            notes.push(format!("{why}: {}", shortened(labels)));
        }
    };
    let outer = entries.iter().filter(|it| foreign_keys.contains(&it.number) && !included.contains(&it.number));
    note(outer.map(Entry::label).collect(), "foreign keys to tables that are not restored are left out");
    let acting = entries
        .iter()
        .filter(|it| ACTING.contains(&it.kind.as_str()) && it.depends_on.iter().any(|on| tables.contains(on)));
    note(acting.map(Entry::label).collect(), "left out, since it would act on the copy");
    let bare = included.iter().filter(|number| is_table(number) && !tables.contains(number));
    let bare = bare.filter_map(|number| Some(by_number.get(number)?.label()));
    note(bare.collect(), "needed by the tables, and restored without rows");
    let elsewhere = selected.iter().filter(|it| !it.schema.is_empty() && it.schema != schema);
    note(elsewhere.map(Entry::label).collect(), "the tables use what must exist in the target database");
    Selected { entries: selected, missing, code, notes }
}

/// Adds everything that the included entries depend on.
fn require(by_number: &BTreeMap<u32, &Entry>, included: &mut BTreeSet<u32>) {
    let mut next: Vec<u32> = included.iter().copied().collect();
    while let Some(number) = next.pop() {
        for on in by_number.get(&number).into_iter().flat_map(|entry| &entry.depends_on) {
            // Entries of the archive only: it names others, too.
            if by_number.contains_key(on) && included.insert(*on) {
                next.push(*on);
            }
        }
    }
}

/// Whether a comment is of something that is included: all that it depends on.
fn belongs(entry: &Entry, by_number: &BTreeMap<u32, &Entry>, included: &BTreeSet<u32>) -> bool {
    let in_archive = |on: &&u32| by_number.contains_key(on);
    entry.depends_on.iter().filter(in_archive).all(|on| included.contains(on)) && !entry.name.starts_with("EXTENSION ")
}

fn shortened(mut labels: Vec<String>) -> String {
    const NAMED: usize = 8;
    let more = labels.len().saturating_sub(NAMED);
    labels.truncate(NAMED);
    if more > 0 {
        labels.push(format!("and {more} more"));
    }
    labels.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32, kind: &str, name: &str, depends_on: &[u32]) -> Entry {
        let (kind, schema, name) = (kind.to_owned(), "public".to_owned(), name.to_owned());
        Entry { number, kind, schema, name, depends_on: depends_on.to_vec(), ..Entry::default() }
    }

    fn archive() -> Vec<Entry> {
        vec![
            entry(1, "TYPE", "mood", &[]),
            entry(2, "FUNCTION", "next_code()", &[]),
            entry(3, "TABLE", "users", &[1]),
            entry(4, "SEQUENCE", "users_id_seq", &[]),
            entry(5, "SEQUENCE OWNED BY", "users_id_seq", &[3, 4]),
            entry(6, "TABLE", "orders", &[]),
            entry(7, "DEFAULT", "users id", &[3, 4]),
            entry(8, "DEFAULT", "users code", &[2, 3]),
            entry(9, "TABLE DATA", "users", &[3]),
            entry(10, "TABLE DATA", "orders", &[6]),
            entry(11, "SEQUENCE SET", "users_id_seq", &[4]),
            entry(12, "CONSTRAINT", "users users_pkey", &[3]),
            entry(13, "FK CONSTRAINT", "orders orders_user_id_fkey", &[3, 6, 12]),
            entry(14, "TRIGGER", "users audit", &[3]),
            entry(15, "TABLE", "events", &[]),
            entry(16, "TABLE", "events_1", &[]),
            entry(17, "TABLE ATTACH", "events_1", &[15, 16]),
            entry(18, "TABLE DATA", "events_1", &[16]),
            entry(19, "TYPE", "unused", &[]),
        ]
    }

    fn numbers(selected: &Selected) -> Vec<u32> {
        selected.entries.iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn a_table_comes_with_what_it_needs() {
        let selected = select(&archive(), "public", &["users".to_owned()]);
        assert_eq!(numbers(&selected), [1, 2, 3, 4, 5, 7, 8, 9, 11, 12]);
        assert_eq!(selected.code, ["FUNCTION public.next_code()"]);
        assert!(selected.notes.len() == 1 && selected.notes[0].contains("TRIGGER public.users audit"), "{selected:?}");
        let orders = select(&archive(), "public", &["orders".to_owned()]);
        assert_eq!(numbers(&orders), [6, 10]);
        assert!(
            orders.notes[0].starts_with("foreign keys to tables that are not restored are left out: FK CONSTRAINT")
        );
        let both = select(&archive(), "public", &["users".to_owned(), "orders".to_owned()]);
        assert!(numbers(&both).contains(&13) && numbers(&both).contains(&10));
    }

    #[test]
    fn a_partitioned_table_comes_with_its_partitions() {
        let selected = select(&archive(), "public", &["events".to_owned()]);
        assert_eq!(numbers(&selected), [15, 16, 17, 18]);
        assert!(selected.notes.is_empty() && selected.missing.is_empty(), "{selected:?}");
        assert_eq!(select(&archive(), "public", &["no".to_owned()]).missing, ["public.no"]);
    }
}
