//! The shrink alarm: the rows of guarded tables are compared with those of the backup before.
//!
//! A table counts as guarded if it had a guard in either of the two backups: who removes the guard first is noticed too.

use std::{cmp::Reverse, collections::BTreeMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    DumpDetails, DumpResult, Manifest, ManifestError, Reason, RowsKey, Store, StoreError, TableRows, catalog,
    text::{error_chain, truncated},
};

/// How many tables are named.
const NAMED: usize = 8;

/// The largest manifest that is compared with, in bytes: some 200,000 tables.
const LARGEST: u64 = 64 * 1024 * 1024;

/// How many manifests are read to find one to compare with: others than this schedule's may be in its directory.
const READ_AT_MOST: usize = 16;

/// When a loss of rows raises the alarm: both limits must be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShrinkAlarm {
    /// Percentage of a table's rows, 1 to 100.
    pub percent: u32,
    /// Rows.
    pub min_rows: u64,
}

/// What the comparison with the backup before found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Comparison {
    /// Name of the backup before; absent if nothing was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
    /// Why nothing was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared_because: Option<String>,
    /// How many tables lost that many rows.
    pub shrunk_tables: u64,
    /// The worst of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<ShrunkTable>,
}

/// A guarded table that lost rows; a partitioned one as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShrunkTable {
    /// `schema.table`
    pub table: String,
    /// Its rows in the backup before.
    pub before: u64,
    /// Its rows now.
    pub after: u64,
    /// Whether it does not exist any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

impl Comparison {
    fn not_compared(because: impl Into<String>) -> Self {
        Self { not_compared_because: Some(because.into()), ..Self::default() }
    }

    /// Cuts it to what fits into a container's message.
    pub(crate) fn shorten(&mut self) {
        self.tables.truncate(3);
        for table in &mut self.tables {
            table.table = truncated(&table.table, 100);
        }
        self.not_compared_because = self.not_compared_because.take().map(|text| truncated(&text, 200));
    }
}

/// Compares a dump with the newest published one of the same schedule and database.
///
/// What prevents it is part of the result: a backup is none the worse for it.
pub(crate) async fn compare(
    store: &Store,
    (dump, details): (&DumpResult, &DumpDetails),
    alarm: ShrinkAlarm,
    key: Option<&RowsKey>,
) -> Comparison {
    let before = match before(store, dump, details).await {
        Ok(Some(before)) => before,
        Ok(None) => return Comparison::not_compared("it is the first backup of its schedule"),
        Err(error) => {
            let problem = store.secrets().clean(&error_chain(&error));
            return Comparison::not_compared(truncated(&format!("the backup before cannot be read: {problem}"), 500));
        }
    };
    let counted = match counted(store, &before, key).await {
        Ok(counted) => counted,
        Err(because) => return Comparison::not_compared(truncated(&store.secrets().clean(&because), 500)),
    };
    let mut tables = shrunk(&counted, details, dump, alarm);
    let shrunk_tables = tables.len() as u64;
    tables.truncate(NAMED);
    Comparison { with: Some(before.identity.backup_name), not_compared_because: None, shrunk_tables, tables }
}

/// The rows of the backup before, or why they are not known. Those of an encrypted one are read with the key of the runs, or with
/// a private key where the run has one.
async fn counted(store: &Store, before: &Manifest, key: Option<&RowsKey>) -> Result<Vec<TableRows>, String> {
    if !before.is_encrypted() {
        return Ok(before.tables.clone());
    }
    let mut because = format!("the row counts of {} are encrypted", before.identity.backup_name);
    if let Some(key) = key {
        match before.counted(store, key).await {
            Ok(Some(tables)) => return Ok(tables),
            Ok(None) => because.push_str(", and it has none that the next run can read"),
            Err(error) if error.reason() == Reason::ArchiveInvalid || error.reason() == Reason::IdentityRequired => {
                because.push_str(" with another key than this run has");
            }
            Err(error) => because = format!("{because}, and cannot be read: {}", error_chain(&error)),
        }
    }
    if store.identities().is_none() {
        return Err(because);
    }
    match before.clone().reveal(store).await {
        Ok(revealed) => Ok(revealed.tables),
        Err(error) => Err(format!("{because}; {}", error_chain(&error))),
    }
}

async fn before(store: &Store, dump: &DumpResult, details: &DumpDetails) -> Result<Option<Manifest>, StoreError> {
    let schedule = details.identity.schedule_identity();
    let runs = catalog::runs(store, &catalog::directory_of(&schedule)?).await?;
    let published = runs.iter().rev().filter(|(location, run)| run.is_published() && **location != dump.location);
    for (location, _) in published.take(READ_AT_MOST) {
        let manifest = match Manifest::read_within(store, location, LARGEST).await {
            Ok((manifest, _)) => manifest,
            // Another one can still be compared with.
            Err(ManifestError::Store(error)) if catalog::is_gone(&error) => continue,
            Err(ManifestError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(location, %error, "a manifest cannot be compared with");
                continue;
            }
        };
        let is_of = manifest.location == *location
            && manifest.belongs_to(&schedule)
            && manifest.identity.database_uid == details.identity.database_uid;
        if is_of && manifest.snapshot_time < dump.snapshot_time {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

#[derive(Default)]
struct Total {
    rows: u64,
    guarded: bool,
    /// Some of its rows are not compared.
    unknown: bool,
}

/// Rows by table; those of partitions belong to the partitioned table.
fn totals<'a>(tables: impl IntoIterator<Item = &'a TableRows>) -> BTreeMap<(&'a str, &'a str), Total> {
    let mut totals: BTreeMap<_, Total> = BTreeMap::new();
    for table in tables {
        let root = table.partition_of.as_ref().map(|(schema, name)| (schema.as_str(), name.as_str()));
        let total = totals.entry(root.unwrap_or((&table.schema, &table.name))).or_default();
        match table.rows.number() {
            Some(rows) => total.rows += rows,
            None => total.unknown = true,
        }
        total.guarded |= table.guarded;
    }
    totals
}

/// The guarded tables that lost too many rows, the worst first.
fn shrunk(before: &[TableRows], details: &DumpDetails, dump: &DumpResult, alarm: ShrinkAlarm) -> Vec<ShrunkTable> {
    let after = totals(&details.table_rows);
    let mut shrunk = Vec::new();
    // What the declaration leaves out now, or a standby cannot read, is no loss.
    let is_dumped = |table: &&TableRows| {
        details.filter.has_rows(&table.schema, &table.name)
            && !dump.remarks.unlogged_tables.contains(&format!("{}.{}", table.schema, table.name))
    };
    for ((schema, name), was) in totals(before.iter().filter(is_dumped)) {
        let now = after.get(&(schema, name));
        let guarded = was.guarded || now.is_some_and(|now| now.guarded);
        if !guarded || was.unknown || now.is_some_and(|now| now.unknown) {
            continue;
        }
        let table = format!("{schema}.{name}");
        let dropped = now.is_none();
        let rows = now.map_or(0, |now| now.rows);
        let lost = was.rows.saturating_sub(rows);
        let too_many =
            lost >= alarm.min_rows.max(1) && u128::from(lost) * 100 >= u128::from(alarm.percent) * u128::from(was.rows);
        // Even a small table is not dropped by mistake without notice.
        if too_many || (dropped && lost > 0) {
            shrunk.push(ShrunkTable { table, before: was.rows, after: rows, dropped });
        }
    }
    shrunk.sort_by_key(|table| Reverse((table.dropped, table.before - table.after)));
    shrunk
}

/// Which unacknowledged losses keep the backup before them: of these, oldest first, given by the name of that backup.
///
/// At most `limit` backups: a role that can delete rows and insert them again could otherwise fill the store. The first ones
/// stay, since what is kept until it is acknowledged must not be displaced by later losses.
pub fn kept<'a>(before: impl IntoIterator<Item = &'a str>, limit: usize) -> Vec<bool> {
    let mut names: Vec<&str> = Vec::new();
    before
        .into_iter()
        .map(|name| {
            if names.contains(&name) {
                return true;
            }
            let has_room = names.len() < limit && !name.is_empty();
            if has_room {
                names.push(name);
            }
            has_room
        })
        .collect()
}

/// Whether a loss at that time is still to be acknowledged.
pub fn is_open(time: Timestamp, acknowledged: Option<Timestamp>) -> bool {
    acknowledged.is_none_or(|acknowledged| time > acknowledged)
}
