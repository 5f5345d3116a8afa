//! The undo window: deleted rows are captured in the transaction that deletes them, so that they can be restored.
//!
//! Deleted rows are read from the transition table of a trigger that fires once per statement and table. It has the rows of
//! DELETE and of cascades, and not those that an UPDATE moved to another partition, at any level. Only where inheritance is
//! at work does a row trigger do it, since a parent's transition table lacks the columns of its children. Keys that are set
//! to NULL or DEFAULT are nested updates: a row trigger again, whose condition excludes all other updates.
//!
//! Rows are stored in tables of the owner of the table that they were deleted from, and written there as that owner: see
//! [`store`].

mod read;
pub mod store;

pub use read::{CapturedTable, CapturedTransaction, captured, captured_rows, prune};

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Catalog, Oid, Table, TableKind};
use crate::closure::Effect;
use crate::configuration::GuardRow;
use crate::desired::{Desired, Root};
use crate::observe::Observed;
use crate::spec::Capture;
use crate::sql::literal;

const FUNCTION: &str = "capture_";
/// Makes the role `{owner}`, an OID, the owner of `{function}`, which is in the schema `pgrail`.
pub(crate) const OWN_FUNCTION: &str = include_str!("sql/capture_own.sql");

/// Whether this is the name of a function that captures. They are named by owner and guard.
pub(crate) fn is_function(name: &str) -> bool {
    name.starts_with(FUNCTION)
}

fn function(owner: Oid, guard: i32) -> String {
    format!("{FUNCTION}{owner}_{guard}")
}

fn create_function(owner: Oid, guard: &GuardRow, capture: Capture) -> String {
    let function = format!("{}()", function(owner, guard.id));
    let own = OWN_FUNCTION.trim_end().replace("{function}", &format!("pgrail.{function}"));
    format!("{}{own}", include_str!("sql/capture.sql").replace("{function}", &function))
        .replace("{owner}", &owner.to_string())
        .replace("{guard}", &guard.id.to_string())
        .replace("{name}", &literal(guard.name.as_str()))
        .replace("{retention}", &capture.retention.to_string())
        .replace("{max_rows}", &capture.max_rows.to_string())
}

/// Adds what captures the rows of guards that ask for it. A table that several of them reach is captured once: for the
/// one with the longest retention.
pub(crate) fn add(catalog: &Catalog, desired: &mut Desired, guards: &[GuardRow]) {
    let mut capturing: Vec<(&GuardRow, Capture)> =
        guards.iter().filter_map(|guard| guard.capture.map(|capture| (guard, capture))).collect();
    capturing.sort_by_key(|(guard, capture)| {
        (std::cmp::Reverse(capture.retention), std::cmp::Reverse(capture.max_rows), guard.id)
    });
    let (mut deleted, mut nulled) = (BTreeMap::new(), BTreeMap::new());
    for (guard, _) in &capturing {
        let held = |root: &&Root| root.assignments.iter().any(|assignment| assignment.guard == guard.id);
        for root in desired.roots.values().filter(held) {
            let reached = Reached::of(catalog, root);
            // A part of what a delete removes could not be restored as a whole.
            let Ok(owner) = reached.owner(catalog) else { continue };
            for oid in reached.deleted {
                deleted.entry(oid).or_insert((owner, guard.id));
            }
            for oid in reached.nulled {
                nulled.entry(oid).or_insert((owner, guard.id));
            }
        }
    }
    for (oid, (owner, guard)) in &deleted {
        let Some(table) = catalog.table(*oid) else { continue };
        let ident = &table.ident;
        let rows =
            if by_row(catalog, *oid) { "FOR EACH ROW" } else { "REFERENCING OLD TABLE AS gone FOR EACH STATEMENT" };
        let function = function(*owner, *guard);
        let source = format!("AFTER DELETE ON {ident} {rows} EXECUTE FUNCTION pgrail.{function}()");
        desired.triggers.insert((*oid, "pgrail_capture".to_owned()), source);
    }
    for (oid, (owner, guard)) in &nulled {
        // Partitions get copies of their parent's.
        let copied = catalog.partition_ancestors(*oid).iter().any(|above| nulled.contains_key(above));
        let Some(table) = catalog.table(*oid).filter(|_| !copied) else { continue };
        let source = format!(
            "AFTER UPDATE ON {} FOR EACH ROW WHEN (pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.>) 0) EXECUTE FUNCTION pgrail.{}()",
            table.ident,
            function(*owner, *guard)
        );
        desired.triggers.insert((*oid, "pgrail_capture_nulled".to_owned()), source);
    }
    let used: BTreeSet<(Oid, i32)> = deleted.values().chain(nulled.values()).copied().collect();
    for (owner, id) in used {
        let Some((guard, capture)) = capturing.iter().find(|(guard, _)| guard.id == id) else { continue };
        desired.routines.insert(function(owner, id), create_function(owner, guard, *capture));
        // Who may not read a table as a whole must not read what is captured of it either. Such a role could not dump the
        // database before: row level security on the store takes nothing from it.
        let row_security = catalog.tables().any(|table| table.owner_oid == owner && table.row_security);
        desired.stores.insert(owner, row_security);
    }
}

/// Why what is deleted through this root cannot be captured, or could not be restored, and what to do; `None` if it can.
pub(crate) fn obstacle(root: &Root, observed: &Observed) -> Option<String> {
    let catalog = &observed.catalog;
    if let Some(publication) = observed.live.all_tables_publications.first() {
        return Some(format!("deleted rows are not captured: {}", published(publication)));
    }
    let reached = Reached::of(catalog, root);
    if let Err(why) = reached.owner(catalog) {
        return Some(format!("deleted rows are not captured, since they could not be restored: {why}"));
    }
    let forced = reached.tables(catalog).find(|table| table.row_security_for_owner)?;
    Some(format!(
        "deleted rows are captured but cannot be restored: {table} forces row level security, for its owner {owner} too; run ALTER ROLE {owner} BYPASSRLS, or ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        table = forced.label(),
        owner = forced.owner
    ))
}

/// What a publication FOR ALL TABLES means for captured rows, and what to do.
pub(crate) fn published(publication: &str) -> String {
    format!(
        "the publication {publication} is FOR ALL TABLES and would publish them; publish by schema instead, in one transaction: \
         BEGIN; DROP PUBLICATION {publication}; CREATE PUBLICATION {publication} FOR TABLES IN SCHEMA public, ...; COMMIT"
    )
}

/// The tables that deletes on one root delete rows from, and those where they set keys to NULL or their default.
struct Reached {
    deleted: BTreeSet<Oid>,
    nulled: BTreeSet<Oid>,
}

impl Reached {
    fn of(catalog: &Catalog, root: &Root) -> Self {
        let ours = |oid: &Oid| {
            catalog.table(*oid).is_some_and(|table| matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned))
        };
        let members = |effect: Effect| {
            let members = root.closure.members.iter().filter(move |member| member.effect == effect);
            members.flat_map(|member| catalog.partitions(member.table)).filter(ours)
        };
        let own = root.closure.tree.iter().copied().filter(ours);
        Self { deleted: own.chain(members(Effect::Deleted)).collect(), nulled: members(Effect::Nulled).collect() }
    }

    fn tables<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = &'a Table> {
        self.deleted.union(&self.nulled).filter_map(|oid| catalog.table(*oid))
    }

    /// The owner of all of them, as which rows are captured and restored; or why there is none.
    fn owner(&self, catalog: &Catalog) -> Result<Oid, String> {
        if let Some(table) = self.tables(catalog).find(|table| !table.owned || !table.owner_settable) {
            let (table, owner) = (table.label(), &table.owner);
            return Err(format!(
                "pgrail's role must be a member of {owner}, the owner of {table}, and may SET ROLE to it"
            ));
        }
        let mut tables = self.tables(catalog);
        let Some(first) = tables.next() else { return Err("it has no tables".to_owned()) };
        match tables.find(|table| table.owner_oid != first.owner_oid) {
            None => Ok(first.owner_oid),
            Some(other) => Err(format!(
                "{} belongs to {} and {} to {}; give them one owner",
                first.label(),
                first.owner,
                other.label(),
                other.owner
            )),
        }
    }
}

/// Whether inheritance, other than partitioning, is at work.
fn by_row(catalog: &Catalog, oid: Oid) -> bool {
    let Some(table) = catalog.table(oid).filter(|table| table.kind == TableKind::Ordinary) else { return false };
    !table.is_partition && (!table.parents.is_empty() || catalog.descendants(oid).len() > 1)
}
