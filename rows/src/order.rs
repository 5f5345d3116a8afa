//! In which order rows are inserted.

use std::collections::BTreeSet;

use crate::table::{Oid, Table};

/// Groups of tables, parents before children. Tables that refer to each other, and those that depend on them, are one group:
/// their rows must be inserted by one statement.
pub fn in_order<T: AsRef<Table>>(mut tables: Vec<T>) -> Vec<Vec<T>> {
    let mut groups = Vec::new();
    while !tables.is_empty() {
        let waiting: BTreeSet<Oid> = tables.iter().map(|table| table.as_ref().rel).collect();
        let ready = |table: &T| {
            let table = table.as_ref();
            let mut parents = table.references.iter().flat_map(|reference| &reference.family);
            !parents.any(|parent| waiting.contains(parent) && !table.family.contains(parent))
        };
        let (first, rest): (Vec<T>, Vec<T>) = tables.into_iter().partition(ready);
        if first.is_empty() {
            groups.push(rest);
            break;
        }
        groups.push(first);
        tables = rest;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Reference;
    use proptest::prelude::*;

    impl AsRef<Table> for Table {
        fn as_ref(&self) -> &Table {
            self
        }
    }

    /// A table with foreign keys to these.
    fn table(rel: Oid, parents: &BTreeSet<Oid>) -> Table {
        let reference = |parent: &Oid| Reference {
            name: format!("to_{parent}"),
            ident: format!("t{parent}"),
            label: format!("t{parent}"),
            partitioned: false,
            readable: true,
            columns: Vec::new(),
            numbers: Vec::new(),
            referenced: Vec::new(),
            operators: Vec::new(),
            family: vec![*parent],
        };
        Table {
            rel,
            label: format!("t{rel}"),
            ident: Some(format!("t{rel}")),
            owner: Some(10),
            owner_name: Some("o".to_owned()),
            forced: false,
            partitioned: false,
            columns: Vec::new(),
            unique_keys: Vec::new(),
            references: parents.iter().map(reference).collect(),
            family: vec![rel],
        }
    }

    fn numbers(groups: &[Vec<Table>]) -> Vec<Vec<Oid>> {
        groups.iter().map(|group| group.iter().map(|table| table.rel).collect()).collect()
    }

    #[test]
    fn cycles_are_one_group_after_what_they_depend_on() {
        let parents = |all: &[Oid]| all.iter().copied().collect();
        let tables = vec![
            table(1, &parents(&[2])),
            table(2, &parents(&[1, 3])),
            table(3, &parents(&[3, 99])),
            table(4, &parents(&[])),
        ];
        assert_eq!(numbers(&in_order(tables)), [vec![3, 4], vec![1, 2]]);
    }

    proptest! {
        #[test]
        fn every_table_comes_once_and_no_child_before_its_parent(keys in prop::collection::vec((0..8_u32, 0..8_u32), 0..20)) {
            let tables: Vec<Table> = (0..8).map(|rel| {
                table(rel, &keys.iter().filter(|(child, _)| *child == rel).map(|(_, parent)| *parent).collect())
            }).collect();
            let groups = in_order(tables.clone());
            let mut all: Vec<Oid> = numbers(&groups).concat();
            let place = |rel: Oid| groups.iter().position(|group| group.iter().any(|table| table.rel == rel));
            for (child, parent) in &keys {
                prop_assert!(place(*parent) <= place(*child), "{child} before {parent}: {:?}", numbers(&groups));
            }
            all.sort_unstable();
            prop_assert_eq!(all, (0..8).collect::<Vec<_>>());
        }
    }
}
