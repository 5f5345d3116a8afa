//! From a configuration to everything that has to be in the database for it to hold. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::capture;
use crate::catalog::{Catalog, Oid, TableKind};
use crate::closure::{self, Effect};
use crate::configuration::{AllowanceRow, Assignment, Configuration, MemberEffect, MemberRow, RelationRow};
use crate::desired::{Desired, Numbers, Root};
use crate::gate::{self, Gate, Limits, RootChecks, WindowLimits};
use crate::routines::{create_trigger_function, trigger_function};
use crate::spec::Operation;
use crate::sql::literal;
use crate::window_checks;

/// Completes a configuration whose guards and assignments are set: relations, closures, functions and triggers.
/// Assignments of dropped tables are left out.
pub(crate) fn complete(catalog: &Catalog, mut configuration: Configuration, numbers: &mut Numbers) -> Desired {
    let exists: BTreeSet<i32> =
        configuration.relations.iter().filter(|row| catalog.table(row.rel).is_some()).map(|row| row.id).collect();
    configuration.assignments.retain(|held| exists.contains(&held.root));
    let mut ids: BTreeMap<Oid, i32> =
        configuration.relations.iter().filter(|row| exists.contains(&row.id)).map(|row| (row.rel, row.id)).collect();

    let held_guards: BTreeSet<i32> = configuration.guards.iter().map(|row| row.id).collect();
    for right in &mut configuration.allowances {
        right.guards.retain(|guard| held_guards.contains(guard));
    }
    configuration.allowances.retain(|right| !right.guards.is_empty());
    let stopping: BTreeSet<i32> = configuration.guards.iter().filter(|row| row.enforce).map(|row| row.id).collect();
    let mut held: BTreeMap<i32, Vec<Assignment>> = BTreeMap::new();
    for assignment in &configuration.assignments {
        held.entry(assignment.root).or_default().push(assignment.clone());
    }
    let mut roots: BTreeMap<i32, Root> = ids
        .iter()
        .filter_map(|(oid, id)| {
            held.remove(id).map(|held| (*id, root(catalog, *id, *oid, held, &stopping, &configuration.allowances)))
        })
        .collect();
    let holdings = Holdings::of(&roots);
    set_above(&mut roots, &holdings);

    let carriers = carriers(catalog, &roots);
    for carrier in &carriers {
        ids.entry(*carrier).or_insert_with(|| Numbers::next(&mut numbers.relation));
    }
    let mut desired = Desired { roots, ..Desired::default() };
    add_gates(catalog, &mut desired, &holdings, &carriers, &ids);
    add_statement_triggers(catalog, &mut desired);
    add_trigger_functions(catalog, &mut desired);
    capture::add(catalog, &mut desired, &configuration.guards);
    desired.allowed = desired
        .roots
        .values()
        .filter(|root| root.checks.has_allowances)
        .flat_map(|root| [format!("allowed_{}", root.checks.id), format!("allowed_cascade_{}", root.checks.id)])
        .collect();
    let updates = desired.roots.values().filter(|root| root.checks.limits_updates());
    desired.sequences = updates.map(|root| format!("updated_{}", root.checks.id)).collect();
    desired.sequences.extend(configuration.assignments.iter().map(|held| format!("blocked_{}", held.id)));
    desired.sequences.extend(desired.roots.values().flat_map(|root| window_sequences(root, &configuration.allowances)));
    desired.distance = distances(catalog, &desired.roots);

    // A root keeps the name that its guards know; every other table has its own.
    let known: BTreeMap<i32, String> = configuration.relations.iter().map(|row| (row.id, row.label.clone())).collect();
    let label = |oid: Oid, id: i32| {
        known.get(&id).filter(|_| desired.roots.contains_key(&id)).cloned().unwrap_or_else(|| catalog.label(oid))
    };
    configuration.relations = ids
        .iter()
        .filter(|(oid, id)| desired.roots.contains_key(id) || carriers.contains(oid))
        .map(|(oid, id)| RelationRow {
            id: *id,
            rel: *oid,
            label: label(*oid, *id),
            above: desired.roots.get(id).map(|root| root.above.clone()).unwrap_or_default(),
        })
        .collect();
    configuration.relations.sort_by_key(|row| row.id);
    configuration.members = desired.roots.values().flat_map(|root| members(catalog, root)).collect();
    configuration.members.sort_by_key(|row| (row.root, row.rel, row.effect));
    configuration.assignments.sort_by_key(|held| held.id);
    configuration.guards.sort_by_key(|guard| guard.id);
    configuration.allowances.sort_by_key(|right| right.id);
    desired.configuration = configuration;
    desired
}

fn root(
    catalog: &Catalog,
    id: i32,
    oid: Oid,
    assignments: Vec<Assignment>,
    stopping: &BTreeSet<i32>,
    allowances: &[AllowanceRow],
) -> Root {
    let closure = closure::of(catalog, oid);
    let allowances = || {
        let of = |right: &AllowanceRow| {
            assignments.iter().any(|held| held.protect_delete && right.guards.contains(&held.guard))
        };
        allowances
            .iter()
            .filter(move |right| of(right) && right.is_for(id) && right.operations.contains(&Operation::Delete))
    };
    let (enforced, warned): (Vec<&Assignment>, Vec<&Assignment>) =
        assignments.iter().partition(|held| stopping.contains(&held.guard));
    let is_partitioned = |at: &Oid| catalog.table(*at).is_some_and(|table| table.kind == TableKind::Partitioned);
    let checks = RootChecks {
        id,
        leaves: closure.root_leaves(catalog),
        deleted: closure.member_leaves(catalog, Effect::Deleted),
        updated: closure.member_leaves(catalog, Effect::Nulled),
        above: BTreeSet::new(),
        partitioned: closure.tree.iter().any(is_partitioned),
        has_allowances: allowances().next().is_some(),
        allowances_per_statement: allowances().any(|allowance| allowance.limits.max_transaction_rows.is_some()),
        windows: windows(&assignments),
        without_partitions: !closure.tree.iter().any(is_partitioned)
            && !closure.members.iter().any(|member| is_partitioned(&member.table)),
        enforced: limits(&enforced),
        warned: warned.iter().map(|held| (held.id, limits(&[held]))).collect(),
    };
    Root { oid, closure, checks, assignments, above: BTreeSet::new() }
}

fn windows(assignments: &[Assignment]) -> Vec<WindowLimits> {
    let of = |held: &Assignment| {
        let window = held.window.filter(|_| held.protect_delete)?;
        Some(WindowLimits {
            assignment: held.id,
            rows: window.max_rows,
            cascade_rows: window.max_cascade_rows,
            duration: window.duration,
        })
    };
    assignments.iter().filter_map(of).collect()
}

/// The two buckets of a window, each as rows, and as blocks of 64 rows.
const BUCKETS: [&str; 4] = ["even", "odd", "even64", "odd64"];

/// The sequences of the windows of a root: for each kind where the counters stood and the buckets, when it began to count,
/// and when it last stopped a statement; for an allowance, the buckets; what a session has counted.
fn window_sequences(root: &Root, allowances: &[AllowanceRow]) -> Vec<String> {
    let id = root.checks.id;
    let buckets = |key: &str| {
        ["rows", "cascade"].map(|kind| BUCKETS.map(|bucket| format!("window_{kind}_{bucket}_{key}"))).concat()
    };
    let mut names = Vec::new();
    for WindowLimits { assignment, rows, cascade_rows, .. } in &root.checks.windows {
        for (kind, _) in [("rows", rows), ("cascade", cascade_rows)].iter().filter(|(_, limit)| limit.is_some()) {
            names.push(format!("window_{kind}_{assignment}"));
            names.extend(BUCKETS.map(|bucket| format!("window_{kind}_{bucket}_{assignment}")));
        }
        names.extend(["since", "stopped"].map(|what| format!("window_{what}_{assignment}")));
    }
    if names.is_empty() {
        return names;
    }
    names.push(format!("window_counted_{id}"));
    let windowed = |guard: &i32| root.assignments.iter().any(|held| held.guard == *guard && held.window.is_some());
    let for_root = allowances.iter().filter(|right| {
        right.is_for(id)
            && !right.unlimited
            && right.operations.contains(&Operation::Delete)
            && right.guards.iter().any(windowed)
    });
    names.extend(for_root.flat_map(|right| buckets(&format!("w{}_{id}", right.id))));
    names
}

/// The strictest of each kind.
fn limits(assignments: &[&Assignment]) -> Limits {
    let pair = |per_statement: bool| {
        let held = assignments
            .iter()
            .filter(|held| held.protect_delete && held.max_transaction_rows.is_some() == per_statement);
        held.map(|held| (held.max_rows, held.max_cascade_rows)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    };
    Limits {
        per_transaction: pair(false),
        per_statement: pair(true),
        total: assignments.iter().filter(|held| held.protect_delete).filter_map(|held| held.max_transaction_rows).min(),
        updates: assignments.iter().filter_map(|held| held.max_updated_rows).min(),
    }
}

/// Which roots' own rows, rows deleted for them, rows updated for them a table holds.
#[derive(Default)]
struct Holdings {
    own: BTreeMap<Oid, BTreeSet<i32>>,
    deleted: BTreeMap<Oid, BTreeSet<i32>>,
    updated: BTreeMap<Oid, BTreeSet<i32>>,
}

impl Holdings {
    fn of(roots: &BTreeMap<i32, Root>) -> Self {
        let mut holdings = Self::default();
        for (id, Root { closure, checks, .. }) in roots {
            // Partitioned tables too: one without partitions holds no rows yet, and needs its gate all the same.
            let reached = |effect: Effect| {
                closure.members.iter().filter(move |member| member.effect == effect).map(|member| member.table)
            };
            let own = checks.leaves.iter().copied().chain(closure.tree.iter().copied());
            let deleted = checks.deleted.iter().copied().chain(reached(Effect::Deleted));
            let updated = checks.updated.iter().copied().chain(reached(Effect::Nulled));
            own.for_each(|oid| _ = holdings.own.entry(oid).or_default().insert(*id));
            deleted.for_each(|oid| _ = holdings.deleted.entry(oid).or_default().insert(*id));
            updated.for_each(|oid| _ = holdings.updated.entry(oid).or_default().insert(*id));
        }
        holdings
    }
}

fn union(of: &BTreeMap<Oid, BTreeSet<i32>>, tables: &BTreeSet<Oid>) -> BTreeSet<i32> {
    tables.iter().filter_map(|oid| of.get(oid)).flatten().copied().collect()
}

/// `a` is above `b` where deletes on `a` delete rows of `b`, but not the other way round: in a cycle each may be the one
/// that is deleted from, so both keep counting. What
/// only warns takes nothing from what stops.
fn set_above(roots: &mut BTreeMap<i32, Root>, holdings: &Holdings) {
    let reaches: BTreeSet<(i32, i32)> = roots
        .values()
        .filter(|root| root.checks.stops_deletes())
        .flat_map(|root| union(&holdings.own, &root.checks.deleted).into_iter().map(|below| (root.checks.id, below)))
        .filter(|(above, below)| above != below)
        .collect();
    for (above, below) in reaches.iter().filter(|(above, below)| !reaches.contains(&(*below, *above))) {
        let leaves = roots.get(above).map(|root| root.checks.leaves.clone()).unwrap_or_default();
        if let Some(root) = roots.get_mut(below) {
            root.checks.above.extend(leaves);
            root.above.insert(*above);
        }
    }
}

/// The tables that get row triggers: a partition leaves that to the topmost of its ancestors that gets them.
fn carriers(catalog: &Catalog, roots: &BTreeMap<i32, Root>) -> BTreeSet<Oid> {
    let wanted: BTreeSet<Oid> = roots
        .values()
        .filter(|root| root.checks.limits_deletes() || root.checks.limits_updates())
        .flat_map(|root| {
            let members =
                root.closure.members.iter().map(|member| member.table).filter(|_| root.checks.limits_deletes());
            root.closure.tree.iter().copied().chain(members)
        })
        .collect();
    wanted
        .iter()
        .map(|oid| {
            catalog.partition_ancestors(*oid).into_iter().rev().find(|above| wanted.contains(above)).unwrap_or(*oid)
        })
        .collect()
}

fn add_gates(
    catalog: &Catalog,
    desired: &mut Desired,
    holdings: &Holdings,
    carriers: &BTreeSet<Oid>,
    ids: &BTreeMap<Oid, i32>,
) {
    for carrier in carriers {
        let (Some(id), Some(table)) = (ids.get(carrier), catalog.table(*carrier)) else { continue };
        let known = catalog.leaves(*carrier);
        let held: BTreeSet<Oid> = known.iter().copied().chain([*carrier]).collect();
        let checks = |ids: BTreeSet<i32>| -> Vec<&RootChecks> {
            ids.iter().filter_map(|id| desired.roots.get(id)).map(|root| &root.checks).collect()
        };
        let own = checks(union(&holdings.own, &held));
        let mut deleted_for = checks(union(&holdings.deleted, &held));
        // A root's own rows are its own, whichever way they are deleted.
        deleted_for.retain(|root| root.limits_deletes() && (known.is_empty() || !known.is_subset(&root.leaves)));
        let mut updated_for = checks(union(&holdings.updated, &held));
        updated_for.retain(|root| root.limits_deletes());
        let gate = Gate { id: *id, known, own, deleted_for, updated_for };
        desired.routines.insert(format!("gate_{id}"), gate.create());
        for (name, source) in gate.triggers() {
            desired.triggers.insert((*carrier, name), source.replace("{table}", &table.ident));
        }
    }
}

/// What fires once per statement does so only on the table that the statement names: every table of a tree needs its own.
fn add_statement_triggers(catalog: &Catalog, desired: &mut Desired) {
    for root in desired.roots.values() {
        let checks = &root.checks;
        if checks.limits_deletes() {
            desired.routines.insert(format!("note_{}", checks.id), gate::create_note(checks));
        }
        if !checks.windows.is_empty() {
            desired.routines.insert(format!("window_{}", checks.id), window_checks::create_window(checks));
        }
        if !checks.windows.is_empty() && checks.is_counted_simply() {
            desired.routines.insert(format!("removing_{}", checks.id), window_checks::create_removing(checks));
            desired.routines.insert(format!("removed_{}", checks.id), window_checks::create_removed(checks));
        }
        if checks.limits_updates() {
            desired.routines.insert(format!("updating_{}", checks.id), gate::create_updating(checks));
        }
        let truncate = root.assignments.iter().any(|held| held.protect_truncate);
        for table in root.closure.tree.iter().filter_map(|oid| catalog.table(*oid)) {
            if !matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned) {
                continue;
            }
            let (ident, id) = (&table.ident, checks.id);
            let mut add = |name: String, source: String| desired.triggers.insert((table.oid, name), source);
            if checks.limits_deletes() {
                add(
                    format!("pgrail_note_{id}"),
                    format!("BEFORE DELETE ON {ident} FOR EACH STATEMENT WHEN ({})", gate::note_is_due(checks)),
                );
            }
            if !checks.windows.is_empty() {
                add(
                    format!("pgrail_window_{id}"),
                    format!("AFTER DELETE ON {ident} FOR EACH STATEMENT WHEN (pgrail.window_{id}())"),
                );
            }
            if checks.limits_updates() {
                add(
                    format!("pgrail_updating_{id}"),
                    format!("BEFORE UPDATE ON {ident} FOR EACH STATEMENT WHEN (pgrail.updating_{id}())"),
                );
            }
            if truncate {
                let this = literal(ident);
                add(
                    "pgrail_truncate".to_owned(),
                    format!(
                        "BEFORE TRUNCATE ON {ident} FOR EACH STATEMENT WHEN (pgrail.check_truncate({this}::pg_catalog.regclass))"
                    ),
                );
            }
        }
    }
}

/// The function of a table's triggers. A trigger can only be dropped by the table's owner, its function by the function's:
/// on tables of others, each has a function of its own, so that its triggers can be dropped with it.
fn add_trigger_functions(catalog: &Catalog, desired: &mut Desired) {
    for ((rel, _), source) in &mut desired.triggers {
        let owned = catalog.table(*rel).is_some_and(|table| table.owned);
        let function = if owned { "noop".to_owned() } else { trigger_function(*rel) };
        let _ = write!(source, " EXECUTE FUNCTION pgrail.{function}()");
        if !owned {
            desired.routines.insert(function.clone(), create_trigger_function(&function));
        }
    }
}

fn members(catalog: &Catalog, root: &Root) -> Vec<MemberRow> {
    let is_top = |oid: &Oid| !catalog.partition_ancestors(*oid).iter().any(|above| root.closure.tree.contains(above));
    let own = root.closure.tree.iter().copied().filter(is_top).map(|rel| (rel, MemberEffect::Root, vec![root.oid]));
    let reached = root.closure.members.iter().map(|member| {
        let effect = match member.effect {
            Effect::Deleted => MemberEffect::Deleted,
            Effect::Nulled => MemberEffect::Updated,
        };
        (member.table, effect, member.path.clone())
    });
    own.chain(reached)
        .map(|(rel, effect, path)| MemberRow {
            root: root.checks.id,
            rel,
            effect,
            path: path.iter().map(|oid| catalog.label(*oid)).collect::<Vec<_>>().join(" -> "),
        })
        .collect()
}

fn distances(catalog: &Catalog, roots: &BTreeMap<i32, Root>) -> BTreeMap<Oid, usize> {
    let mut distance: BTreeMap<Oid, usize> = BTreeMap::new();
    for root in roots.values() {
        for member in &root.closure.members {
            let far = distance.entry(member.table).or_default();
            *far = (*far).max(member.path.len());
        }
    }
    for root in roots.values() {
        // Roots come last, the named one after its partitions.
        for oid in &root.closure.tree {
            let depth = catalog.partition_ancestors(*oid).len();
            let near = distance.entry(*oid).or_default();
            *near = (*near).min(usize::from(*oid != root.oid && depth > 0));
        }
    }
    distance
}
