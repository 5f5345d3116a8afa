//! Where captured rows are: one pair of tables for each owner of tables that are captured, which belongs to that owner.
//!
//! A role that may read a table must not thereby read what was deleted from it, and a role that could dump the database
//! must still be able to. `pg_dump` locks and reads every table, and fails where row level security would hide rows from it.
//! A table that belongs to the owner of the data, with row level security where the data has it, is readable by exactly
//! those: its owner, who is exempt from it, superusers, and `pg_read_all_data` as far as it reads the data itself.
//!
//! The price: a store's owner may alter it. What pgrail runs on it as its own role must not evaluate what the owner added, so
//! it locks a store and checks that it is as it was created ([`open`]). The functions that capture run as the owner.

use std::collections::BTreeMap;

use thiserror::Error;
use tokio_postgres::{Client, GenericClient, Row};

use crate::catalog::Oid;
use crate::desired::Desired;
use crate::observe::Observed;
use crate::plan::{Drift, Statement, Step, StepKind};

/// Why captured rows cannot be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Nothing of pgrail is in the database.
    #[error("pgrail is not installed in this database")]
    NotInstalled,
    /// The owner of the captured rows changed the table that they are in.
    #[error(
        "{0} was altered by its owner: pgrail uses it only as it was created, without triggers, rules, further indexes, constraints, statistics or columns"
    )]
    Altered(String),
    /// The current role may not read it.
    #[error("pgrail's role is not a member of the owner of {0}")]
    NotReadable(String),
    /// A query failed.
    #[error("cannot read captured rows: {0}")]
    Query(#[from] tokio_postgres::Error),
    /// The server's answer is not what this version of pgrail expects.
    #[error("cannot understand captured rows: {0}")]
    Decode(#[from] serde_json::Error),
}

/// The tables of one owner's captured rows, each ready for SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) rows: String,
    pub(crate) transactions: String,
    /// The owner when it was created, by which it is named.
    pub(crate) suffix: String,
    /// The owner now.
    pub(crate) owner: Oid,
}

/// Steps that create stores which are missing, and give those that are there owner and row level security as they must be.
pub(crate) fn steps(desired: &Desired, observed: &Observed, drift: &mut Vec<Drift>) -> Vec<Step> {
    let live: BTreeMap<&str, _> = observed.live.stores.iter().map(|store| (store.name.as_str(), store)).collect();
    let mut steps = Vec::new();
    for (owner, row_security) in &desired.stores {
        let names = [format!("captured_{owner}"), format!("captured_transaction_{owner}")];
        let captures = |name: &String| name.starts_with(&format!("capture_{owner}_"));
        let installed = observed.recorded.as_ref().is_some_and(|it| it.routines.keys().any(captures));
        let mut wrong = false;
        for name in &names {
            let what = match live.get(name.as_str()) {
                None => "the table of captured rows is missing",
                Some(store) if store.owner != *owner => "the table of captured rows belongs to another role",
                Some(store) => {
                    wrong |= store.row_security != *row_security;
                    continue;
                }
            };
            wrong = true;
            if installed {
                drift.push(Drift { table: format!("pgrail.{name}"), what: what.to_owned() });
            }
        }
        if wrong {
            let sql = include_str!("../sql/capture_store.sql")
                .replace("{owner}", &owner.to_string())
                .replace("{row_security}", if *row_security { "ENABLE" } else { "DISABLE" });
            steps.push(Step::new(StepKind::Routines, vec![Statement::Batch(sql)]));
        }
    }
    steps
}

/// Drops the store of schema version 1, after its rows were moved.
pub(crate) fn drop_former(observed: &Observed) -> Option<Step> {
    let former = |name: &str| observed.live.relations.iter().any(|it| it.kind == "r" && it.name == name);
    let names: Vec<&str> = ["captured", "captured_transaction"].into_iter().filter(|name| former(name)).collect();
    let drop = || names.iter().map(|name| Statement::Batch(format!("DROP TABLE pgrail.{name}"))).collect();
    (!names.is_empty()).then(|| Step::new(StepKind::Cleanup, drop()))
}

/// Begins the transaction in which stores are opened.
pub(crate) async fn begin(client: &Client, lock_timeout: &str) -> Result<(), tokio_postgres::Error> {
    let begin = format!(
        "BEGIN READ WRITE; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL row_security = off; SET LOCAL lock_timeout = '{lock_timeout}'"
    );
    client.batch_execute(&begin).await
}

/// The names of all stores.
pub(crate) async fn names(client: &Client) -> Result<Vec<String>, CaptureError> {
    let names = "SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = 'pgrail' AND c.relkind = 'r' AND c.relname OPERATOR(pg_catalog.~) '^captured_[0-9]+$' ORDER BY c.oid";
    client.query(names, &[]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Locks every store against changes of its owner, for the rest of the transaction, and returns them if all are as they were
/// created. Writers are not held up.
pub(crate) async fn open(client: &impl GenericClient) -> Result<Vec<Store>, CaptureError> {
    let sql = include_str!("../sql/captured_stores.sql");
    let tables: Vec<String> = client
        .query(sql, &[])
        .await?
        .iter()
        .flat_map(|row| [row.try_get("rows"), row.try_get("transactions")])
        .collect::<Result<_, _>>()?;
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    lock(client, &tables).await?;
    // A store that was created meanwhile is not locked.
    let rows = client.query(sql, &[]).await?;
    let mut stores = Vec::new();
    for row in &rows {
        let store = store(row)?;
        if tables.contains(&store.rows) {
            stores.push(store);
        }
    }
    Ok(stores)
}

/// The same for one store; `None` if it no longer exists.
pub(crate) async fn open_one(client: &Client, name: &str) -> Result<Option<Store>, CaptureError> {
    let named = format!("pgrail.{name}");
    let exists = async || -> Result<Option<Row>, tokio_postgres::Error> {
        let rows = client.query(include_str!("../sql/captured_stores.sql"), &[]).await?;
        Ok(rows.into_iter().find(|row| row.try_get::<_, &str>("rows").is_ok_and(|rows| rows == named)))
    };
    let Some(row) = exists().await? else { return Ok(None) };
    lock(client, &[named.clone(), row.try_get("transactions")?]).await?;
    exists().await?.as_ref().map(store).transpose()
}

async fn lock(client: &impl GenericClient, tables: &[String]) -> Result<(), tokio_postgres::Error> {
    // The weakest lock that keeps out triggers, indexes, statistics, constraints, policies and rules.
    client.batch_execute(&format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", tables.join(", "))).await
}

fn store(row: &Row) -> Result<Store, CaptureError> {
    let rows: String = row.try_get("rows")?;
    if !row.try_get::<_, bool>("readable")? {
        return Err(CaptureError::NotReadable(rows));
    }
    if !row.try_get::<_, bool>("intact")? {
        return Err(CaptureError::Altered(rows));
    }
    let (transactions, suffix) = (row.try_get("transactions")?, row.try_get("suffix")?);
    Ok(Store { rows, transactions, suffix, owner: row.try_get("owner")? })
}

/// SQL in which `{rows}` and `{transactions}` are those of all stores, each with the columns `store` and `store_owner`.
pub(crate) fn united(sql: &str, stores: &[Store]) -> String {
    let all = |table: fn(&Store) -> &str| {
        let one = |store: &Store| {
            format!("SELECT s.*, '{0}'::text AS store, {1}::oid AS store_owner FROM {0} s", table(store), store.owner)
        };
        format!("({})", stores.iter().map(one).collect::<Vec<_>>().join(" UNION ALL "))
    };
    sql.replace("{rows}", &all(|store| &store.rows)).replace("{transactions}", &all(|store| &store.transactions))
}
