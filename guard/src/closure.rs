//! Which tables lose rows, or have them changed, when rows of one table are deleted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::catalog::{Catalog, Oid, OnDelete, TableKind};

/// What a delete at the root does to rows of another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// They are deleted (`ON DELETE CASCADE`).
    Deleted,
    /// Their key is set to NULL or to its default.
    Nulled,
}

/// One table of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The table; with its partitions, if it has any.
    pub table: Oid,
    /// What happens to its rows.
    pub effect: Effect,
    /// How it is reached, by the fewest foreign keys: from the root to this table, both included.
    pub path: Vec<Oid>,
}

/// The tables that a delete on a root reaches through foreign keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// The table that is deleted from.
    pub root: Oid,
    /// The root with its partitions and inheritance children: their rows are the root's rows.
    pub tree: BTreeSet<Oid>,
    /// Every other table that is reached, nearest first; a table may be there once for each effect.
    /// The root is a member itself only where its own rows are nulled.
    pub members: Vec<Member>,
}

impl Closure {
    /// How many tables other than the root lose rows or have them nulled.
    pub fn table_count(&self) -> usize {
        self.members.iter().map(|member| member.table).collect::<BTreeSet<_>>().len()
    }

    /// The tables that hold the root's rows.
    pub fn root_leaves(&self, catalog: &Catalog) -> BTreeSet<Oid> {
        let ordinary = |oid: &Oid| catalog.table(*oid).is_some_and(|table| table.kind == TableKind::Ordinary);
        self.tree.iter().copied().filter(ordinary).collect()
    }

    /// The tables that hold the rows of members with this effect. Rows that are the root's are not counted again.
    pub fn member_leaves(&self, catalog: &Catalog, effect: Effect) -> BTreeSet<Oid> {
        let members = self.members.iter().filter(|member| member.effect == effect);
        let leaves: BTreeSet<Oid> = members.flat_map(|member| catalog.leaves(member.table)).collect();
        match effect {
            Effect::Deleted => leaves.difference(&self.root_leaves(catalog)).copied().collect(),
            Effect::Nulled => leaves,
        }
    }
}

/// The closure of a table over `CASCADE`, `SET NULL` and `SET DEFAULT`. Cycles, diamonds and self-references end;
/// a key on a partitioned table, or to one, holds for its partitions at every level.
pub fn of(catalog: &Catalog, root: Oid) -> Closure {
    let tree = catalog.descendants(root);
    let mut members: Vec<Member> = Vec::new();
    let mut seen: BTreeSet<(Oid, Effect)> = BTreeSet::new();
    let mut paths: BTreeMap<Oid, Vec<Oid>> = tree.iter().map(|oid| (*oid, vec![root])).collect();
    let mut queue: VecDeque<Oid> = VecDeque::from([root]);
    queue.extend(tree.iter().copied().filter(|oid| *oid != root));

    while let Some(at) = queue.pop_front() {
        let path = paths.get(&at).cloned().unwrap_or_default();
        for key in keys_to(catalog, at) {
            let effect = match key.on_delete {
                OnDelete::Cascade => Effect::Deleted,
                OnDelete::SetNull | OnDelete::SetDefault => Effect::Nulled,
                OnDelete::NoAction | OnDelete::Restrict => continue,
            };
            let is_root = effect == Effect::Deleted && tree.contains(&key.referencing);
            if is_root || !seen.insert((key.referencing, effect)) {
                continue;
            }
            let mut path = path.clone();
            path.push(key.referencing);
            if effect == Effect::Deleted {
                paths.insert(key.referencing, path.clone());
                queue.push_back(key.referencing);
            }
            members.push(Member { table: key.referencing, effect, path });
        }
    }
    Closure { root, tree, members }
}

/// Every foreign key that a deleted row of `at`, or of one of its partitions, can be referenced by.
fn keys_to(catalog: &Catalog, at: Oid) -> impl Iterator<Item = &crate::catalog::ForeignKey> {
    let mut referenced: Vec<Oid> = vec![at];
    referenced.extend(catalog.partitions(at).into_iter().filter(|oid| *oid != at));
    referenced.extend(catalog.partition_ancestors(at));
    referenced.into_iter().flat_map(|oid| catalog.referencing(oid).collect::<Vec<_>>())
}
