//! Statements that are run as the owner of a table.
//!
//! Whatever reads or writes rows of a table evaluates what its owner defined: casts, domains, defaults, generated columns,
//! check constraints, index expressions (already when a query is planned), policies, triggers. It must have the owner's
//! rights, never those of pgrail's role or of a superuser who restores or undoes.

use serde::de::DeserializeOwned;
use tokio_postgres::Transaction;

use crate::table::Oid;

/// How rows are read: as they were written, and all of them or none. Code of an owner may have changed any setting: so they
/// are made again before each statement, and at the beginning of each transaction.
pub const READING: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_encoding = 'UTF8'; \
     SET LOCAL standard_conforming_strings = on; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = postgres; \
     SET LOCAL xmloption = content; SET LOCAL row_security = off; SET LOCAL lock_timeout = '10s'; \
     SET LOCAL client_min_messages = warning";
/// Triggers of the application expect the search path and the policies that they have elsewhere.
const WRITING: &str = "; SET LOCAL search_path TO DEFAULT; SET LOCAL row_security TO DEFAULT";
const PARAMETERS: &str = "(pg_catalog.text, pg_catalog.bool)";
/// Triggers that are deferred may fire others.
const ROUNDS: usize = 10;

/// Why a statement could not be run.
#[derive(Debug, thiserror::Error)]
pub enum AsOwnerError {
    /// The server refused it, or the connection broke.
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    /// The answer is not what was expected.
    #[error(transparent)]
    Decode(#[from] serde_json::Error),
    /// Deferred triggers defer others without end.
    #[error("deferred triggers fire again and again")]
    Unsettled,
}

/// The transient function that statements are run by, with the parameters `(text, bool)`.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// `schema.name`
    pub name: &'static str,
    /// SQL that makes the role `{owner}`, an OID, the owner of `{function}`.
    pub own: &'static str,
}

/// In the temporary schema of the session: needs TEMPORARY on the database.
pub const TEMPORARY: Function =
    Function { name: "pg_temp.pgrail_as_owner", own: include_str!("sql/own_temporary.sql") };

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The server refuses to write to anything but temporary tables.
    ReadOnly,
    /// Reads, and writes to temporary tables.
    Read,
    /// Writes to tables of the application, whose triggers fire.
    Write,
}

/// Runs statements as owners of tables, within one transaction of pgrail's role.
#[allow(missing_debug_implementations)] // a transaction has none
pub struct AsOwner<'a> {
    within: &'a Transaction<'a>,
    function: Function,
    owner: Option<Oid>,
}

impl<'a> AsOwner<'a> {
    /// No statement has run yet.
    pub fn new(within: &'a Transaction<'a>, function: Function) -> Self {
        Self { within, function, owner: None }
    }

    /// Runs a statement as this role, and returns its answer, which is JSON.
    pub async fn run<T: DeserializeOwned>(
        &mut self,
        owner: Oid,
        access: Access,
        statement: &str,
    ) -> Result<T, AsOwnerError> {
        let answer = self.call(owner, access, statement, true).await?;
        Ok(serde_json::from_str(&answer.unwrap_or_else(|| "null".to_owned()))?)
    }

    /// Runs a statement without an answer.
    pub async fn execute(&mut self, owner: Oid, access: Access, statement: &str) -> Result<(), AsOwnerError> {
        self.call(owner, access, statement, false).await.map(|_| ())
    }

    async fn call(
        &mut self,
        owner: Oid,
        access: Access,
        statement: &str,
        answers: bool,
    ) -> Result<Option<String>, AsOwnerError> {
        if self.owner != Some(owner) {
            self.settle().await?;
            self.owner = Some(owner);
        }
        self.prepare(owner, access).await?;
        // Typed: an overload that an owner creates is not what is called.
        let call = format!("SELECT {}($1::pg_catalog.text, {answers})", self.function.name);
        let row = self.within.query_one(&call, &[&statement]).await?;
        if access == Access::ReadOnly {
            self.within.batch_execute("RELEASE SAVEPOINT pgrail_read_only").await?;
        }
        Ok(row.try_get(0)?)
    }

    /// Collects the statistics of a temporary table of pgrail's role: without them, the planner assumes that it is small, and
    /// compares each of its rows with each of another table.
    pub async fn analyze(&mut self, temporary: &str) -> Result<(), AsOwnerError> {
        self.settle().await?;
        Ok(self.within.batch_execute(&format!("{READING}; ANALYZE {temporary}")).await?)
    }

    /// Fires what the current owner's statements deferred, as that owner. Otherwise it would fire when another owner, or
    /// pgrail's role, ends a statement or the transaction, and up to PostgreSQL 17 as that role.
    pub async fn settle(&mut self) -> Result<(), AsOwnerError> {
        let Some(owner) = self.owner.take() else { return Ok(()) };
        let mut before = self.command(owner).await?;
        let mut now = self.command(owner).await?;
        let idle = now - before;
        for _ in 0..ROUNDS {
            let settle = "'SET CONSTRAINTS ALL IMMEDIATE'::pg_catalog.text, false";
            self.within.batch_execute(&format!("SELECT {}({settle})", self.function.name)).await?;
            (before, now) = (now, self.command(owner).await?);
            // A trigger that fires and defers another one must write a row for it. If nothing was written, nothing is left.
            if now - before == idle {
                // A cursor WITH HOLD is run to its end at COMMIT, as the role that commits.
                self.within.batch_execute("CLOSE ALL").await?;
                return Ok(());
            }
        }
        Err(AsOwnerError::Unsettled)
    }

    /// Removes what statements were run by. Without it, the transaction must be rolled back.
    pub async fn finish(mut self) -> Result<(), AsOwnerError> {
        self.settle().await?;
        let drop = format!("{READING}; DROP FUNCTION IF EXISTS {}{PARAMETERS}", self.function.name);
        Ok(self.within.batch_execute(&drop).await?)
    }

    async fn prepare(&self, owner: Oid, access: Access) -> Result<(), AsOwnerError> {
        let Function { name, own } = self.function;
        let mut sql = format!("{READING};\n");
        sql.push_str(&include_str!("sql/as_owner.sql").replace("{function}", name));
        sql.push_str(
            &own.trim_end()
                .replace("{owner}", &owner.to_string())
                .replace("{function}", &format!("{name}{PARAMETERS}")),
        );
        match access {
            // A transaction that has begun to read cannot be made to write again; the end of the savepoint does that.
            Access::ReadOnly => {
                sql.push_str("; SAVEPOINT pgrail_read_only; SET LOCAL transaction_read_only = on");
            }
            Access::Read => {}
            Access::Write => sql.push_str(WRITING),
        }
        Ok(self.within.batch_execute(&sql).await?)
    }

    /// The number of the command that creates the function: commands that wrote since the last one come in between.
    async fn command(&self, owner: Oid) -> Result<i64, AsOwnerError> {
        self.prepare(owner, Access::Read).await?;
        let created = format!(
            "SELECT p.cmin::text::int8 FROM pg_catalog.pg_proc p WHERE p.oid = '{}{PARAMETERS}'::pg_catalog.regprocedure",
            self.function.name
        );
        Ok(self.within.query_one(&created, &[]).await?.try_get(0)?)
    }
}
