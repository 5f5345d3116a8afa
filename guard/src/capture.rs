//! The undo window: deleted rows are kept, in the transaction that deletes them, so that they can be put back.
//!
//! Rows that go are taken from the transition table of a trigger that fires once per statement and table. It holds what
//! DELETE and cascades took and not what an UPDATE moved to another partition, at any level. Only where inheritance is
//! at work does a row trigger do it, since a parent's transition table shows the rows of its children cut short. Links
//! that are set to NULL or DEFAULT are nested updates: a row trigger again, whose condition spares all other updates.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::catalog::{Catalog, Oid, TableKind};
use crate::closure::Effect;
use crate::configuration::GuardRow;
use crate::desired::{Desired, Root};
use crate::observe::ObserveError;
use crate::spec::Capture;
use crate::sql::literal;

const FUNCTION: &str = "capture_";

/// Whether this is the name of a function that captures.
pub(crate) fn is_function(name: &str) -> bool {
    name.starts_with(FUNCTION)
}

fn create_function(guard: &GuardRow, capture: Capture) -> String {
    include_str!("sql/capture.sql")
        .trim_end()
        .replace("{function}", &format!("{FUNCTION}{}", guard.id))
        .replace("{guard}", &guard.id.to_string())
        .replace("{name}", &literal(guard.name.as_str()))
        .replace("{retention}", &capture.retention.to_string())
        .replace("{max_rows}", &capture.max_rows.to_string())
}

/// Adds what captures the rows of guards that ask for it. A table that several of them reach is captured once: for the
/// one that keeps rows longest.
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
            // A part of what a delete takes could not be put back as a whole.
            if !reached.all_owned(catalog) {
                continue;
            }
            for oid in reached.deleted {
                deleted.entry(oid).or_insert(guard.id);
            }
            for oid in reached.nulled {
                nulled.entry(oid).or_insert(guard.id);
            }
        }
    }
    for (oid, guard) in &deleted {
        let Some(table) = catalog.table(*oid) else { continue };
        let ident = &table.ident;
        let rows =
            if by_row(catalog, *oid) { "FOR EACH ROW" } else { "REFERENCING OLD TABLE AS gone FOR EACH STATEMENT" };
        let source = format!("AFTER DELETE ON {ident} {rows} EXECUTE FUNCTION pgrail.{FUNCTION}{guard}()");
        desired.triggers.insert((*oid, "pgrail_capture".to_owned()), source);
    }
    for (oid, guard) in &nulled {
        // Partitions get copies of their parent's.
        let copied = catalog.partition_ancestors(*oid).iter().any(|above| nulled.contains_key(above));
        let Some(table) = catalog.table(*oid).filter(|_| !copied) else { continue };
        let source = format!(
            "AFTER UPDATE ON {} FOR EACH ROW WHEN (pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.>) 0) EXECUTE FUNCTION pgrail.{FUNCTION}{guard}()",
            table.ident
        );
        desired.triggers.insert((*oid, "pgrail_capture_nulled".to_owned()), source);
    }
    let used: BTreeSet<i32> = deleted.values().chain(nulled.values()).copied().collect();
    for (guard, capture) in capturing.iter().filter(|(guard, _)| used.contains(&guard.id)) {
        desired.routines.insert(format!("{FUNCTION}{}", guard.id), create_function(guard, *capture));
    }
}

/// The tables that deletes on one root take rows from, and those where they null them.
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

    fn all_owned(&self, catalog: &Catalog) -> bool {
        self.deleted.union(&self.nulled).all(|oid| catalog.table(*oid).is_some_and(|table| table.owned))
    }
}

/// Whether inheritance, other than partitioning, is at work.
fn by_row(catalog: &Catalog, oid: Oid) -> bool {
    let Some(table) = catalog.table(oid).filter(|table| table.kind == TableKind::Ordinary) else { return false };
    !table.is_partition && (!table.parents.is_empty() || catalog.descendants(oid).len() > 1)
}

/// What was kept of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedTransaction {
    /// Its number, by which it is undone.
    pub transaction: u64,
    /// When it began, in UTC as ISO 8601.
    pub began: String,
    /// Who was logged in (`session_user`).
    pub login: String,
    /// As whom: what SET ROLE said, or the login.
    pub role: String,
    /// `application_name`.
    pub application: String,
    /// Where from; empty: a local socket.
    pub client: String,
    /// The guards that kept it.
    pub guards: Vec<String>,
    /// Why it cannot be put back as a whole.
    pub incomplete: Option<String>,
    /// When it was put back, likewise.
    pub undone: Option<String>,
    /// By whom.
    pub undone_by: Option<String>,
    /// Its rows.
    pub tables: Vec<CapturedTable>,
}

/// What was kept of a transaction in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturedTable {
    /// `schema.table`, as it is called now or, if it is gone, was called then.
    pub table: String,
    /// Rows that were deleted.
    pub deleted: i64,
    /// Rows that had a key set to NULL or its default.
    pub nulled: i64,
}

/// Every transaction of which rows are kept, or were and were too many; the newest first.
/// Fails where nothing of pgrail is installed.
pub async fn captured(client: &Client) -> Result<Vec<CapturedTransaction>, ObserveError> {
    let row = client.query_one(include_str!("sql/captured.sql"), &[]).await?;
    Ok(serde_json::from_str(row.try_get(0)?)?)
}

/// How many rows are kept in all; `None` where nothing of pgrail is installed, or of an older pgrail.
pub async fn captured_rows(client: &Client) -> Result<Option<i64>, ObserveError> {
    let installed = "SELECT pg_catalog.to_regclass('pgrail.captured') IS NOT NULL";
    if !client.query_one(installed, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    Ok(Some(client.query_one("SELECT pg_catalog.count(*) FROM pgrail.captured", &[]).await?.try_get(0)?))
}

/// Takes away what is kept too long or is too much, in batches, each a transaction of its own. Writes nothing, and says 0,
/// where there is nothing to take away, where nothing is installed, or where another owner than `owner` installed it.
/// Otherwise: how many transactions went.
pub async fn prune(client: &Client, owner: &str) -> Result<u64, ObserveError> {
    /// Transactions of a batch, each of at most `maxRows` rows.
    const BATCH: i32 = 20;
    let installed = "SELECT pg_catalog.to_regproc('pgrail.prune_captured') IS NOT NULL";
    if !client.query_one(installed, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let mut gone = 0;
    while let Some(row) = client.query_opt(include_str!("sql/captured_due.sql"), &[&owner]).await?
        && row.try_get(0)?
    {
        let batch: i32 = client.query_one("SELECT pgrail.prune_captured(NULL, $1)", &[&BATCH]).await?.try_get(0)?;
        // Somebody else is at it.
        if batch == 0 {
            break;
        }
        gone += u64::try_from(batch).unwrap_or_default();
    }
    Ok(gone)
}
