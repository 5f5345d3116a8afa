//! Closures of random foreign key graphs against a brute-force oracle that deletes rows one by one.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;

use pgrail_guard::catalog::{Catalog, ForeignKey, Oid, OnDelete, Table, TableKind};
use pgrail_guard::closure::{self, Effect};
use proptest::prelude::*;

fn table(oid: Oid, kind: TableKind, partition_of: Option<Oid>) -> Table {
    Table {
        oid,
        schema: "public".into(),
        name: format!("t{oid}"),
        ident: format!("public.t{oid}"),
        kind,
        owner: "o".into(),
        owned: true,
        owner_oid: 10,
        owner_settable: true,
        row_security: false,
        row_security_for_owner: false,
        can_trigger: true,
        is_partition: partition_of.is_some(),
        parents: partition_of.into_iter().collect(),
        rows: 1.0,
    }
}

#[derive(Debug, Clone)]
struct Graph {
    tables: usize,
    /// Tables with these indexes are partitioned into two leaves.
    partitioned: BTreeSet<usize>,
    keys: Vec<(usize, usize, OnDelete)>,
}

fn actions() -> impl Strategy<Value = OnDelete> {
    prop_oneof![
        4 => Just(OnDelete::Cascade),
        1 => Just(OnDelete::SetNull),
        1 => Just(OnDelete::SetDefault),
        1 => Just(OnDelete::NoAction),
        1 => Just(OnDelete::Restrict),
    ]
}

fn graphs() -> impl Strategy<Value = Graph> {
    (2_usize..9).prop_flat_map(|tables| {
        let keys = prop::collection::vec((0..tables, 0..tables, actions()), 0..tables * 2);
        let partitioned = prop::collection::btree_set(0..tables, 0..3);
        (Just(tables), partitioned, keys).prop_map(|(tables, partitioned, keys)| Graph { tables, partitioned, keys })
    })
}

fn top(index: usize) -> Oid {
    u32::try_from(index).unwrap() * 10 + 10
}

impl Graph {
    fn catalog(&self) -> Catalog {
        let mut tables = Vec::new();
        for index in 0..self.tables {
            if self.partitioned.contains(&index) {
                tables.push(table(top(index), TableKind::Partitioned, None));
                tables.extend([1, 2].map(|leaf| table(top(index) + leaf, TableKind::Ordinary, Some(top(index)))));
            } else {
                tables.push(table(top(index), TableKind::Ordinary, None));
            }
        }
        let keys = self.keys.iter().zip(1000..).map(|((from, to, on_delete), oid)| ForeignKey {
            oid,
            name: format!("k{oid}"),
            referencing: top(*from),
            referenced: top(*to),
            on_delete: *on_delete,
            distinct: None,
            null_fraction: None,
        });
        Catalog::new(tables, keys.collect())
    }

    fn leaves(&self, index: usize) -> Vec<Oid> {
        if self.partitioned.contains(&index) { vec![top(index) + 1, top(index) + 2] } else { vec![top(index)] }
    }

    /// What can happen to each leaf when a row of `root` goes: every row of every leaf is followed through every key,
    /// step by step, until nothing new happens.
    fn oracle(&self, root: usize) -> BTreeSet<(Oid, Effect)> {
        let mut happened: BTreeSet<(usize, Oid, Effect)> =
            self.leaves(root).into_iter().map(|leaf| (root, leaf, Effect::Deleted)).collect();
        loop {
            let before = happened.len();
            for (index, _, effect) in happened.clone() {
                if effect != Effect::Deleted {
                    continue;
                }
                for (from, to, on_delete) in &self.keys {
                    let effect = match on_delete {
                        OnDelete::Cascade => Effect::Deleted,
                        OnDelete::SetNull | OnDelete::SetDefault => Effect::Nulled,
                        OnDelete::NoAction | OnDelete::Restrict => continue,
                    };
                    if *to == index {
                        happened.extend(self.leaves(*from).into_iter().map(|leaf| (*from, leaf, effect)));
                    }
                }
            }
            if happened.len() == before {
                break;
            }
        }
        let own: BTreeSet<Oid> = self.leaves(root).into_iter().collect();
        happened
            .into_iter()
            .filter(|(_, leaf, effect)| !(own.contains(leaf) && *effect == Effect::Deleted))
            .map(|(_, leaf, effect)| (leaf, effect))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_closure_is_what_happens_row_by_row(graph in graphs(), root in 0_usize..9) {
        let root = root % graph.tables;
        let catalog = graph.catalog();
        let closure = closure::of(&catalog, top(root));
        let expected = graph.oracle(root);
        let found: BTreeSet<(Oid, Effect)> = [Effect::Deleted, Effect::Nulled]
            .into_iter()
            .flat_map(|effect| closure.member_leaves(&catalog, effect).into_iter().map(move |leaf| (leaf, effect)))
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(closure.root_leaves(&catalog), graph.leaves(root).into_iter().collect::<BTreeSet<_>>());
    }

    #[test]
    fn every_path_is_a_chain_of_keys_from_the_root(graph in graphs(), root in 0_usize..9) {
        let root = root % graph.tables;
        let catalog = graph.catalog();
        let closure = closure::of(&catalog, top(root));
        for member in &closure.members {
            prop_assert_eq!(member.path.first(), Some(&top(root)));
            prop_assert_eq!(member.path.last(), Some(&member.table));
            for step in member.path.windows(2) {
                let linked = catalog.foreign_keys().iter().any(|key| {
                    key.referenced == step[0] && key.referencing == step[1] && !matches!(key.on_delete, OnDelete::NoAction | OnDelete::Restrict)
                });
                prop_assert!(linked, "no key from {} to {}", step[1], step[0]);
            }
        }
    }
}
