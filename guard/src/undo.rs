//! Puts the rows that a transaction deleted back where they were: all of them or none.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use crate::catalog::Oid;

/// What to do about rows that are there already, and links that point elsewhere by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    /// Put nothing back.
    Refuse,
    /// Leave them as they are and put back the others.
    SkipExisting,
}

/// Why a transaction could not even be looked at, or was not put back for a reason that only shows when it is tried.
/// Nothing was changed.
#[derive(Debug, Error)]
pub enum UndoError {
    /// No rows of it are kept.
    #[error("no rows are kept of the transaction {0}: list those that are with `pgrail undo`")]
    NoSuchTransaction(u64),
    /// Two transactions have this number.
    #[error(
        "{0} is the number of several transactions, since this database was restored from a dump: wait until the older ones have passed their retention"
    )]
    Ambiguous(u64),
    /// Nothing is installed.
    #[error("nothing of pgrail is in this database")]
    NotInstalled,
    /// The server refused.
    #[error("{message}{remedy}")]
    Refused {
        /// What it said.
        message: String,
        /// What mends it; empty where that is not known.
        remedy: String,
    },
    /// Fewer rows arrived than were put back.
    #[error("{table}: only {arrived} of {rows} rows arrived: a trigger or a policy of the table keeps them out")]
    KeptOut {
        /// `schema.table`
        table: String,
        /// Rows that the server counted.
        arrived: i64,
        /// Rows that should have.
        rows: i64,
    },
    /// The connection broke.
    #[error("cannot undo: {0}")]
    Query(tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand what is kept: {0}")]
    Decode(#[from] serde_json::Error),
}

impl From<tokio_postgres::Error> for UndoError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else { return Self::Query(error) };
        let code = server.code();
        if [&SqlState::UNDEFINED_TABLE, &SqlState::INVALID_SCHEMA_NAME].contains(&code)
            && server.message().contains("pgrail.captured")
        {
            return Self::NotInstalled;
        }
        let detail = server.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let remedy = if server.message().contains("row-level security") {
            "; pgrail's role needs BYPASSRLS to see and put back rows of tables that force row level security"
                .to_owned()
        } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            "; run the SQL of `pgrail grants` for pgrail's role".to_owned()
        } else if *code == SqlState::LOCK_NOT_AVAILABLE {
            "; somebody else holds a lock: try again".to_owned()
        } else {
            server.hint().map(|hint| format!("; {hint}")).unwrap_or_default()
        };
        Self::Refused { message: format!("{}{detail}", server.message()), remedy }
    }
}

/// What came of an undo, or would come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undo {
    /// The transaction.
    pub transaction: u64,
    /// When it began, in UTC as ISO 8601.
    pub began: String,
    /// Who was logged in.
    pub login: String,
    /// `application_name`
    pub application: String,
    /// Whether its rows were put back.
    pub done: bool,
    /// What stands against it, with what mends it. Where there is anything, nothing is put back.
    pub problems: Vec<String>,
    /// Table by table, in the order in which rows are put back.
    pub tables: Vec<Undone>,
}

/// What came of an undo in one table. All numbers were counted by the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// `schema.table`
    pub table: String,
    /// Deleted rows that are kept.
    pub rows: i64,
    /// Rows that were put back, or in a dry run would be.
    pub inserted: i64,
    /// Rows of which there is one with the same key already.
    pub existing: i64,
    /// Rows whose parent is neither there nor among what is put back.
    pub parents_missing: i64,
    /// Links that were set to NULL or DEFAULT.
    pub links: i64,
    /// Links that were set back, or in a dry run would be.
    pub links_restored: i64,
    /// Columns that were added since: they get their defaults.
    pub columns_added: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Table {
    rel: Oid,
    label: String,
    ident: Option<String>,
    partitioned: bool,
    batches: Vec<Batch>,
    columns: Vec<Column>,
    unique_keys: Vec<Key>,
    references: Vec<Reference>,
    family: Vec<Oid>,
}

/// Rows of one table that have the same form.
#[derive(Debug, Clone, Deserialize)]
struct Batch {
    attributes: i32,
    fields: i32,
    effect: String,
    keys: Option<Vec<i32>>,
    rows: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Column {
    number: i32,
    ident: String,
    generated: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Key {
    primary: bool,
    not_null: bool,
    columns: Vec<String>,
    operators: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Reference {
    name: String,
    ident: String,
    label: String,
    partitioned: bool,
    columns: Vec<String>,
    numbers: Vec<i32>,
    referenced: Vec<String>,
    operators: Vec<String>,
    family: Vec<Oid>,
}

/// How rows are read again: as they were written, and seeing every row or failing.
const READING: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL datestyle = 'ISO, YMD'; \
     SET LOCAL intervalstyle = postgres; SET LOCAL xmloption = content; SET LOCAL standard_conforming_strings = on; \
     SET LOCAL row_security = off; SET LOCAL lock_timeout = '10s'";
/// Triggers of the application expect the path and the policies that it has itself.
const WRITING: &str = "SET LOCAL search_path TO DEFAULT; SET LOCAL row_security TO DEFAULT";
/// Rows that a message names.
const NAMED: usize = 5;

/// Puts the rows of a transaction back, parents before children, and marks it as undone; or, in a dry run, only says what
/// would come of that and what stands against it, in a transaction that may not write.
pub async fn undo(
    client: &mut Client,
    transaction: u64,
    conflicts: Conflicts,
    dry_run: bool,
) -> Result<Undo, UndoError> {
    let within = client.build_transaction().read_only(dry_run).start().await?;
    within.batch_execute(READING).await?;
    let mut outcome = look(&within, transaction, dry_run).await?;
    let tables = tables(&within, transaction, dry_run).await?;
    for table in &tables {
        let looked = examine(&within, transaction, table, &tables, conflicts, &mut outcome.problems).await?;
        outcome.tables.push(looked);
    }
    if dry_run || !outcome.problems.is_empty() {
        within.rollback().await?;
        return Ok(outcome);
    }
    within.batch_execute(WRITING).await?;
    put_back(&within, transaction, &tables, conflicts, &mut outcome.tables).await?;
    // What is checked at the end is checked now, while its failure can still be told apart.
    within.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    let mark = "UPDATE pgrail.captured_transaction SET undone_at = pg_catalog.now(), undone_by = session_user WHERE xid = $1::pg_catalog.text::pg_catalog.xid8";
    within.execute(mark, &[&transaction.to_string()]).await?;
    within.commit().await?;
    outcome.done = true;
    Ok(outcome)
}

/// Who it was, and whether it can be put back at all.
async fn look(within: &Transaction<'_>, transaction: u64, dry_run: bool) -> Result<Undo, UndoError> {
    let mut sql = include_str!("sql/undo_transaction.sql").trim_end().to_owned();
    if !dry_run {
        // Two that undo the same wait for each other.
        sql.push_str(" FOR UPDATE");
    }
    let rows = within.query(&sql, &[&transaction.to_string()]).await?;
    let Some(first) = rows.first() else { return Err(UndoError::NoSuchTransaction(transaction)) };
    let exactly: String = first.try_get("exactly")?;
    let mut problems = Vec::new();
    for row in &rows {
        if row.try_get::<_, String>("exactly")? != exactly {
            return Err(UndoError::Ambiguous(transaction));
        }
        if let Some(why) = row.try_get::<_, Option<String>>("incomplete")? {
            problems.push(format!("it is not kept as a whole: {why}; what it deleted is in a backup"));
        }
    }
    if let (Some(at), Some(by)) =
        (first.try_get::<_, Option<String>>("undone_at")?, first.try_get::<_, Option<String>>("undone_by")?)
    {
        problems.push(format!(
            "it was undone already, {at} by {by}; rows that were deleted again are kept of the transaction that did so"
        ));
    }
    problems.dedup();
    Ok(Undo {
        transaction,
        began: first.try_get("began")?,
        login: first.try_get("login")?,
        application: first.try_get("application")?,
        done: false,
        problems,
        tables: Vec::new(),
    })
}

/// The tables that rows go back to, parents first. They are locked against ALTER TABLE before they are described.
async fn tables(within: &Transaction<'_>, transaction: u64, dry_run: bool) -> Result<Vec<Table>, UndoError> {
    let describe = include_str!("sql/undo_tables.sql");
    let mut tables: Vec<Table> = Vec::new();
    for again in [false, true] {
        let row = within.query_one(describe, &[&transaction.to_string()]).await?;
        tables = serde_json::from_str(row.try_get(0)?)?;
        let idents: Vec<&str> = tables.iter().filter_map(|table| table.ident.as_deref()).collect();
        if again || idents.is_empty() {
            break;
        }
        let mode = if dry_run { "ACCESS SHARE" } else { "ROW EXCLUSIVE" };
        within.batch_execute(&format!("LOCK TABLE {} IN {mode} MODE", idents.join(", "))).await?;
    }
    Ok(in_order(tables).into_iter().flatten().collect())
}

/// Groups of tables, parents before children; those of a cycle are one group.
fn in_order(mut tables: Vec<Table>) -> Vec<Vec<Table>> {
    let mut groups = Vec::new();
    while !tables.is_empty() {
        let waiting: BTreeSet<Oid> = tables.iter().map(|table| table.rel).collect();
        let ready = |table: &Table| {
            let mut parents = table.references.iter().flat_map(|reference| &reference.family);
            !parents.any(|parent| waiting.contains(parent) && !table.family.contains(parent))
        };
        let (first, rest): (Vec<Table>, Vec<Table>) = tables.into_iter().partition(ready);
        if first.is_empty() {
            groups.push(rest);
            break;
        }
        groups.push(first);
        tables = rest;
    }
    groups
}

impl Table {
    fn deleted(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.effect == "d")
    }

    fn nulled(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|batch| batch.effect == "u")
    }

    /// What tells one row from another.
    fn identity(&self) -> Option<&Key> {
        self.unique_keys.iter().find(|key| key.primary || key.not_null)
    }

    fn added(&self, batch: &Batch) -> usize {
        self.columns.iter().filter(|column| column.number > batch.attributes).count()
    }

    /// How many columns that the rows have are gone.
    fn lost(&self, batch: &Batch) -> i32 {
        let left = self.columns.iter().filter(|column| column.number <= batch.attributes).count();
        batch.fields - i32::try_from(left).unwrap_or(i32::MAX)
    }

    /// Rows are there without those of inheritance children.
    fn only(&self) -> &'static str {
        if self.partitioned { "" } else { "ONLY " }
    }

    /// The rows of a batch as rows of the table, `before` and for nulled ones `after`, each once: as it was first.
    fn rows(&self, transaction: u64, batch: &Batch) -> String {
        let ident = self.ident.as_deref().unwrap_or_default();
        // Columns that were added since are the last; they are left out when rows are put back.
        let more = ",".repeat(self.added(batch));
        let decoded = |column: &str| {
            format!("CAST(pg_catalog.left(c.{column}, -1) OPERATOR(pg_catalog.||) '{more})' AS {ident})")
        };
        let (before, after) = (decoded("before"), decoded("after"));
        let same_keys = batch.keys.as_ref().map_or(String::new(), |keys| {
            let keys = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            format!(" AND c.keys OPERATOR(pg_catalog.=) '{{{keys}}}'::pg_catalog.int2[]")
        });
        let Batch { attributes, fields, effect, .. } = batch;
        let plain = format!(
            "SELECT c.id, {before} AS before, {after} AS after FROM pgrail.captured c WHERE c.xid OPERATOR(pg_catalog.=) '{transaction}'::pg_catalog.xid8 \
             AND c.rel::pg_catalog.oid OPERATOR(pg_catalog.=) {}::pg_catalog.oid AND c.attributes OPERATOR(pg_catalog.=) {attributes}::pg_catalog.int2 \
             AND c.fields OPERATOR(pg_catalog.=) {fields}::pg_catalog.int2 AND c.effect OPERATOR(pg_catalog.=) '{effect}'::pg_catalog.\"char\"{same_keys} OFFSET 0",
            self.rel
        );
        let which = if effect == "d" { "before" } else { "after" };
        match self.identity() {
            None => plain,
            Some(key) => {
                let key =
                    key.columns.iter().map(|column| format!("(c.{which}).{column}")).collect::<Vec<_>>().join(", ");
                format!("SELECT DISTINCT ON ({key}) c.id, c.before, c.after FROM ({plain}) c ORDER BY {key}, c.id")
            }
        }
    }
}

/// `left.column = right` for every column.
fn all_equal(left: &str, columns: &[String], operators: &[String], right: &str, right_columns: &[String]) -> String {
    let pairs = columns.iter().zip(operators).zip(right_columns);
    pairs
        .map(|((column, operator), other)| format!("{left}.{column} {operator} {right}.{other}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// A row as text for people: its columns' values.
fn named(columns: &[String]) -> String {
    let values = columns.iter().map(|column| format!("(x.before).{column}::pg_catalog.text")).collect::<Vec<_>>();
    format!("pg_catalog.concat_ws(', ', {})", values.join(", "))
}

/// What would come of putting rows back into one table, and what stands against it.
async fn examine(
    within: &Transaction<'_>,
    transaction: u64,
    table: &Table,
    all: &[Table],
    conflicts: Conflicts,
    problems: &mut Vec<String>,
) -> Result<Undone, UndoError> {
    let mut found = Undone { table: table.label.clone(), ..Undone::default() };
    let label = &table.label;
    found.rows = table.deleted().map(|batch| batch.rows).sum();
    found.links = table.nulled().map(|batch| batch.rows).sum();
    if table.ident.is_none() {
        problems.push(format!("the table {label} is gone: its {} rows are in a backup", found.rows + found.links));
        return Ok(found);
    }
    if let Some(lost) = table.batches.iter().map(|batch| table.lost(batch)).find(|lost| *lost > 0) {
        problems
            .push(format!("{label} has lost {lost} of the columns that its rows had: what was in them is in a backup"));
        return Ok(found);
    }
    let added = table.batches.iter().map(|batch| table.added(batch)).max().unwrap_or_default();
    found.columns_added = i64::try_from(added).unwrap_or(i64::MAX);
    found.rows = 0;
    for batch in table.deleted() {
        let rows = table.rows(transaction, batch);
        let (count, _) = counted(within, &rows, "true", "''").await?;
        found.rows += count;
        let mut existing = Vec::new();
        for key in &table.unique_keys {
            let same = all_equal("t", &key.columns, &key.operators, "(x.before)", &key.columns);
            let there = format!(
                "EXISTS (SELECT FROM {}{} t WHERE {same})",
                table.only(),
                table.ident.as_deref().unwrap_or_default()
            );
            let (count, which) = counted(within, &rows, &there, &named(&key.columns)).await?;
            if count > 0 && conflicts == Conflicts::Refuse {
                problems.push(format!(
                    "{count} rows of {label} are there already, by ({}): {which}; `--skip-existing` leaves them as they are",
                    key.columns.join(", ")
                ));
            }
            existing.push(there);
        }
        if !existing.is_empty() {
            found.existing += counted(within, &rows, &existing.join(" OR "), "''").await?.0;
        }
        for reference in &table.references {
            let (count, which) = orphans(within, transaction, &rows, reference, all).await?;
            found.parents_missing += count;
            if count > 0 {
                problems.push(missing_parents(label, count, reference, &which));
            }
        }
    }
    found.inserted = found.rows - found.existing;
    if found.links > 0 {
        examine_links(within, transaction, table, all, conflicts, &mut found, problems).await?;
    }
    Ok(found)
}

async fn examine_links(
    within: &Transaction<'_>,
    transaction: u64,
    table: &Table,
    all: &[Table],
    conflicts: Conflicts,
    found: &mut Undone,
    problems: &mut Vec<String>,
) -> Result<(), UndoError> {
    let label = &table.label;
    let Some(key) = table.identity() else {
        if conflicts == Conflicts::Refuse {
            problems.push(format!(
                "{label} has no primary key that would tell which rows had their {} links: `--skip-existing` leaves them as they are",
                found.links
            ));
        }
        return Ok(());
    };
    found.links = 0;
    for batch in table.nulled() {
        let rows = table.rows(transaction, batch);
        let (count, _) = counted(within, &rows, "true", "''").await?;
        found.links += count;
        let unchanged = unchanged(table, batch, "t");
        let same = all_equal("t", &key.columns, &key.operators, "(x.after)", &key.columns);
        let mut still = vec![format!(
            "EXISTS (SELECT FROM {} t WHERE {same} AND {unchanged})",
            table.ident.as_deref().unwrap_or_default()
        )];
        // Rows that were nulled first and deleted then are put back with the key that they were left with.
        for other in all.iter().filter(|other| table.family.contains(&other.rel) && other.ident.is_some()) {
            for deleted in other.deleted().filter(|batch| other.lost(batch) == 0) {
                let same = all_equal("(y.before)", &key.columns, &key.operators, "(x.after)", &key.columns);
                let as_left = self::unchanged(table, batch, "(y.before)");
                still.push(format!(
                    "EXISTS (SELECT FROM ({}) y WHERE {same} AND {as_left})",
                    other.rows(transaction, deleted)
                ));
            }
        }
        let (count, which) =
            counted(within, &rows, &format!("NOT ({})", still.join(" OR ")), &named(&key.columns)).await?;
        found.links_restored -= count;
        if count > 0 && conflicts == Conflicts::Refuse {
            problems.push(format!(
                "{count} rows of {label} are gone or point elsewhere by now, by ({}): {which}; `--skip-existing` leaves them as they are",
                key.columns.join(", ")
            ));
        }
        let set = batch.keys.clone().unwrap_or_default();
        for reference in table.references.iter().filter(|it| it.numbers.iter().any(|number| set.contains(number))) {
            let (count, which) = orphans(within, transaction, &rows, reference, all).await?;
            found.parents_missing += count;
            if count > 0 {
                problems.push(missing_parents(label, count, reference, &which));
            }
        }
    }
    found.links_restored += found.links;
    Ok(())
}

fn missing_parents(label: &str, count: i64, reference: &Reference, which: &str) -> String {
    format!(
        "{count} rows of {label} miss their row of {} ({}): {which}; put those back first, with the transaction that deleted them",
        reference.label, reference.name
    )
}

/// Whether the columns that a cascade set are still as it left them.
fn unchanged(table: &Table, batch: &Batch, row: &str) -> String {
    let set = set_columns(table, batch);
    let each = set.iter().map(|column| format!("{row}.{column} IS NOT DISTINCT FROM (x.after).{column}"));
    each.collect::<Vec<_>>().join(" AND ")
}

fn set_columns<'a>(table: &'a Table, batch: &Batch) -> Vec<&'a str> {
    let keys = batch.keys.clone().unwrap_or_default();
    let set = table.columns.iter().filter(|column| keys.contains(&column.number));
    set.map(|column| column.ident.as_str()).collect()
}

/// How many of these rows fulfil a condition on `x`, and the names of some.
async fn counted(
    within: &Transaction<'_>,
    rows: &str,
    condition: &str,
    name: &str,
) -> Result<(i64, String), UndoError> {
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.array_agg(name) FILTER (WHERE number OPERATOR(pg_catalog.<=) {NAMED}) \
         FROM (SELECT {name} AS name, pg_catalog.row_number() OVER (ORDER BY x.id) AS number FROM ({rows}) x WHERE {condition}) y"
    );
    let row = within.query_one(&sql, &[]).await?;
    let count: i64 = row.try_get(0)?;
    let mut names = row.try_get::<_, Option<Vec<String>>>(1)?.unwrap_or_default().join("; ");
    if count > i64::try_from(NAMED).unwrap_or_default() {
        names.push_str("; …");
    }
    Ok((count, names))
}

/// Rows whose parent is neither there nor among the deleted.
async fn orphans(
    within: &Transaction<'_>,
    transaction: u64,
    rows: &str,
    reference: &Reference,
    all: &[Table],
) -> Result<(i64, String), UndoError> {
    let parents = || all.iter().filter(|parent| reference.family.contains(&parent.rel));
    // What stands against the parents is told there.
    if parents().any(|parent| parent.ident.is_none() || parent.batches.iter().any(|batch| parent.lost(batch) > 0)) {
        return Ok((0, String::new()));
    }
    let set = reference.columns.iter().map(|column| format!("(x.before).{column} IS NOT NULL"));
    let mut condition = set.collect::<Vec<_>>().join(" AND ");
    let only = if reference.partitioned { "" } else { "ONLY " };
    let equal =
        |left: &str| all_equal(left, &reference.referenced, &reference.operators, "(x.before)", &reference.columns);
    let _ = write!(condition, " AND NOT EXISTS (SELECT FROM {only}{} t WHERE {})", reference.ident, equal("t"));
    for parent in parents() {
        for batch in parent.deleted() {
            let rows = parent.rows(transaction, batch);
            let _ = write!(condition, " AND NOT EXISTS (SELECT FROM ({rows}) y WHERE {})", equal("(y.before)"));
        }
    }
    counted(within, rows, &condition, &named(&reference.columns)).await
}

/// Inserts rows group by group, then sets links back. `found` is replaced by what the server counted.
async fn put_back(
    within: &Transaction<'_>,
    transaction: u64,
    tables: &[Table],
    conflicts: Conflicts,
    found: &mut [Undone],
) -> Result<(), UndoError> {
    for group in in_order(tables.to_vec()) {
        let inserts: Vec<(&Table, String)> = group
            .iter()
            .flat_map(|table| table.deleted().map(move |batch| (table, insert(table, transaction, batch, conflicts))))
            .collect();
        if inserts.is_empty() {
            continue;
        }
        // One statement for all of the group: foreign keys are checked at its end, whichever way they point.
        let parts = inserts.iter().enumerate().map(|(place, (_, sql))| format!("w{place} AS ({sql})"));
        let counts = (0..inserts.len()).map(|place| format!("(SELECT pg_catalog.count(*) FROM w{place})"));
        let sql =
            format!("WITH {} SELECT {}", parts.collect::<Vec<_>>().join(", "), counts.collect::<Vec<_>>().join(", "));
        let row = within.query_one(&sql, &[]).await?;
        for table in &group {
            let mut inserted = 0;
            for (place, _) in inserts.iter().enumerate().filter(|(_, (of, _))| of.rel == table.rel) {
                inserted += row.try_get::<_, i64>(place)?;
            }
            if let Some(told) = found.iter_mut().find(|told| told.table == table.label) {
                told.inserted = inserted;
                if conflicts == Conflicts::SkipExisting {
                    told.existing = told.rows - inserted;
                } else if inserted != told.rows {
                    return Err(UndoError::KeptOut { table: table.label.clone(), arrived: inserted, rows: told.rows });
                }
            }
        }
    }
    for table in tables {
        let Some(key) = table.identity() else { continue };
        let mut restored = 0;
        for batch in table.nulled() {
            let set = set_columns(table, batch);
            let set = set.iter().map(|column| format!("{column} = (x.before).{column}")).collect::<Vec<_>>().join(", ");
            let sql = format!(
                "UPDATE {} t SET {set} FROM ({}) x WHERE {} AND {}",
                table.ident.as_deref().unwrap_or_default(),
                table.rows(transaction, batch),
                all_equal("t", &key.columns, &key.operators, "(x.after)", &key.columns),
                unchanged(table, batch, "t"),
            );
            restored += i64::try_from(within.execute(&sql, &[]).await?).unwrap_or(i64::MAX);
        }
        if let Some(told) = found.iter_mut().find(|told| told.table == table.label) {
            told.links_restored = restored;
            if conflicts == Conflicts::Refuse && restored != told.links {
                return Err(UndoError::KeptOut { table: table.label.clone(), arrived: restored, rows: told.links });
            }
        }
    }
    Ok(())
}

fn insert(table: &Table, transaction: u64, batch: &Batch, conflicts: Conflicts) -> String {
    let kept = table.columns.iter().filter(|column| column.number <= batch.attributes && !column.generated);
    let columns: Vec<&str> = kept.map(|column| column.ident.as_str()).collect();
    let values = columns.iter().map(|column| format!("(x.before).{column}")).collect::<Vec<_>>().join(", ");
    let skip = match conflicts {
        Conflicts::Refuse => "",
        Conflicts::SkipExisting => " ON CONFLICT DO NOTHING",
    };
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {values} FROM ({}) x{skip} RETURNING 1",
        table.ident.as_deref().unwrap_or_default(),
        columns.join(", "),
        table.rows(transaction, batch),
    )
}
