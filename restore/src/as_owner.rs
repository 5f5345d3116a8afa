//! Statements that are run as the owner of a table.
//!
//! Whatever reads or writes rows of a table evaluates what its owner defined: casts, domains, defaults, generated columns,
//! check constraints, index expressions (already when a query is planned), policies, triggers. It must have the owner's
//! rights, never those of pgrail's role or of a superuser who restores.

use pgrail_rows::Oid;
use serde::de::DeserializeOwned;
use tokio_postgres::Transaction;

use crate::outcome::RestoreError;

/// How rows are read: as they were written, and all of them or none. Code of an owner may have changed any setting: so they
/// are made again before each statement, and at the beginning of each transaction.
pub(crate) const READING: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_encoding = 'UTF8'; \
     SET LOCAL standard_conforming_strings = on; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = postgres; \
     SET LOCAL xmloption = content; SET LOCAL row_security = off; SET LOCAL lock_timeout = '10s'; \
     SET LOCAL client_min_messages = warning";
/// Triggers of the application expect the search path and the policies that they have elsewhere.
const WRITING: &str = "; SET LOCAL search_path TO DEFAULT; SET LOCAL row_security TO DEFAULT";
/// Triggers that are deferred may fire others.
const ROUNDS: usize = 10;

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The server refuses to write to anything but temporary tables.
    ReadOnly,
    /// Reads, and writes to temporary tables.
    Read,
    /// Writes to tables of the application, whose triggers fire.
    Write,
}

/// Runs statements as owners of tables, within one transaction of pgrail's role.
pub(crate) struct AsOwner<'a> {
    within: &'a Transaction<'a>,
    owner: Option<Oid>,
}

impl<'a> AsOwner<'a> {
    pub(crate) fn new(within: &'a Transaction<'a>) -> Self {
        Self { within, owner: None }
    }

    /// Runs a statement as this role, and returns its answer, which is JSON.
    pub(crate) async fn run<T: DeserializeOwned>(
        &mut self,
        owner: Oid,
        access: Access,
        statement: &str,
    ) -> Result<T, RestoreError> {
        let answer = self.call(owner, access, statement, true).await?;
        Ok(serde_json::from_str(&answer.unwrap_or_else(|| "null".to_owned()))?)
    }

    /// Runs a statement without an answer.
    pub(crate) async fn execute(&mut self, owner: Oid, access: Access, statement: &str) -> Result<(), RestoreError> {
        self.call(owner, access, statement, false).await.map(|_| ())
    }

    async fn call(
        &mut self,
        owner: Oid,
        access: Access,
        statement: &str,
        answers: bool,
    ) -> Result<Option<String>, RestoreError> {
        if self.owner != Some(owner) {
            self.settle().await?;
            self.owner = Some(owner);
        }
        self.prepare(owner, access).await?;
        // Typed: an overload that an owner creates is not what is called.
        let call = format!("SELECT pg_temp.pgrail_restore($1::pg_catalog.text, {answers})");
        let row = self.within.query_one(&call, &[&statement]).await?;
        if access == Access::ReadOnly {
            self.within.batch_execute("RELEASE SAVEPOINT pgrail_read_only").await?;
        }
        Ok(row.try_get(0)?)
    }

    /// Collects the statistics of a temporary table of pgrail's role: without them, the planner assumes that it is small, and
    /// compares each of its rows with each of another table.
    pub(crate) async fn analyze(&mut self, temporary: &str) -> Result<(), RestoreError> {
        self.settle().await?;
        Ok(self.within.batch_execute(&format!("{READING}; ANALYZE {temporary}")).await?)
    }

    /// Fires what the current owner's statements deferred, as that owner. Otherwise it would fire when another owner, or
    /// pgrail's role, ends a statement or the transaction, and up to PostgreSQL 17 as that role.
    pub(crate) async fn settle(&mut self) -> Result<(), RestoreError> {
        let Some(owner) = self.owner.take() else { return Ok(()) };
        let mut before = self.command(owner).await?;
        let mut now = self.command(owner).await?;
        let idle = now - before;
        for _ in 0..ROUNDS {
            let settle = "SELECT pg_temp.pgrail_restore('SET CONSTRAINTS ALL IMMEDIATE'::pg_catalog.text, false)";
            self.within.batch_execute(settle).await?;
            (before, now) = (now, self.command(owner).await?);
            // A trigger that fires and defers another one must write a row for it. If nothing was written, nothing is left.
            if now - before == idle {
                // A cursor WITH HOLD is run to its end at COMMIT, as the role that commits.
                self.within.batch_execute("CLOSE ALL").await?;
                return Ok(());
            }
        }
        Err(RestoreError::Unsettled)
    }

    /// Removes what statements were run by. Without it, the transaction must be rolled back.
    pub(crate) async fn finish(mut self) -> Result<(), RestoreError> {
        self.settle().await?;
        let drop =
            format!("{READING}; DROP FUNCTION IF EXISTS pg_temp.pgrail_restore(pg_catalog.text, pg_catalog.bool)");
        Ok(self.within.batch_execute(&drop).await?)
    }

    async fn prepare(&self, owner: Oid, access: Access) -> Result<(), RestoreError> {
        let mut sql = format!("{READING};\n");
        sql.push_str(&include_str!("sql/as_owner.sql").replace("{owner}", &owner.to_string()));
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
    async fn command(&self, owner: Oid) -> Result<i64, RestoreError> {
        self.prepare(owner, Access::Read).await?;
        let created = "SELECT p.cmin::text::int8 FROM pg_catalog.pg_proc p \
             WHERE p.oid = 'pg_temp.pgrail_restore(pg_catalog.text, pg_catalog.bool)'::pg_catalog.regprocedure";
        Ok(self.within.query_one(created, &[]).await?.try_get(0)?)
    }
}
