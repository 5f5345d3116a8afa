//! Statements that are run as the owner of a table.
//!
//! Whatever reads or writes rows of a table evaluates what its owner defined: casts, domains, defaults, generated columns,
//! check constraints, index expressions (already when a query is planned), policies, triggers. It must have the owner's
//! rights, never those of pgrail's role or of a superuser who undoes.

use tokio_postgres::Transaction;

use super::UndoError;
use crate::catalog::Oid;

/// How rows are read: as they were written, and all of them or none. Code of an owner may have changed any setting: so they
/// are made again before each statement.
pub(super) const READING: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_encoding = 'UTF8'; \
     SET LOCAL standard_conforming_strings = on; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = postgres; \
     SET LOCAL xmloption = content; SET LOCAL row_security = off; SET LOCAL lock_timeout = '10s'; \
     SET LOCAL client_min_messages = warning";
/// Triggers of the application expect the search path and the policies that they have elsewhere.
const WRITING: &str = "; SET LOCAL search_path TO DEFAULT; SET LOCAL row_security TO DEFAULT";
/// Triggers that are deferred may fire others.
const ROUNDS: usize = 10;

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Runs statements as owners of tables, within one transaction of pgrail's role.
pub(super) struct AsOwner<'a> {
    within: &'a Transaction<'a>,
    owner: Option<Oid>,
}

impl<'a> AsOwner<'a> {
    pub(super) fn new(within: &'a Transaction<'a>) -> Self {
        Self { within, owner: None }
    }

    /// Runs a statement as this role, and returns what it answers: numbers in a JSON array.
    pub(super) async fn run<T: serde::de::DeserializeOwned>(
        &mut self,
        owner: Oid,
        access: Access,
        statement: &str,
    ) -> Result<T, UndoError> {
        if self.owner != Some(owner) {
            self.settle().await?;
            self.owner = Some(owner);
        }
        self.prepare(owner, access).await?;
        let row = self.within.query_one("SELECT pgrail.undo($1, true)", &[&statement]).await?;
        Ok(serde_json::from_str(row.try_get(0)?)?)
    }

    /// Fires what the current owner's statements deferred, as that owner. Otherwise it would fire when another owner, or
    /// pgrail's role, ends a statement or the transaction, and up to PostgreSQL 17 as that role.
    pub(super) async fn settle(&mut self) -> Result<(), UndoError> {
        let Some(owner) = self.owner.take() else { return Ok(()) };
        let mut before = self.command(owner).await?;
        let mut now = self.command(owner).await?;
        let idle = now - before;
        for _ in 0..ROUNDS {
            self.within.batch_execute("SELECT pgrail.undo('SET CONSTRAINTS ALL IMMEDIATE', false)").await?;
            (before, now) = (now, self.command(owner).await?);
            // A trigger that fires and defers another one must write a row for it. If nothing was written, nothing is left.
            if now - before == idle {
                // A cursor WITH HOLD is run to its end at COMMIT, as the role that commits.
                self.within.batch_execute("CLOSE ALL").await?;
                return Ok(());
            }
        }
        Err(UndoError::Unsettled)
    }

    /// Removes what statements were run by.
    pub(super) async fn finish(mut self) -> Result<(), UndoError> {
        self.settle().await?;
        let drop = format!("{READING}; DROP FUNCTION IF EXISTS pgrail.undo(text, bool)");
        Ok(self.within.batch_execute(&drop).await?)
    }

    async fn prepare(&self, owner: Oid, access: Access) -> Result<(), tokio_postgres::Error> {
        let mut sql = format!("{READING};\n{}", include_str!("../sql/undo_as_owner.sql"));
        let own = include_str!("../sql/capture_own.sql").trim_end();
        sql.push_str(
            &own.replace("{owner}", &owner.to_string()).replace("{function}", "undo(pg_catalog.text, pg_catalog.bool)"),
        );
        if access == Access::Write {
            sql.push_str(WRITING);
        }
        self.within.batch_execute(&sql).await
    }

    /// The number of the command that creates the function: commands that wrote since the last one come in between.
    async fn command(&self, owner: Oid) -> Result<i64, UndoError> {
        self.prepare(owner, Access::Read).await?;
        let created = "SELECT p.cmin::text::int8 FROM pg_proc p WHERE p.oid = 'pgrail.undo(text, bool)'::regprocedure";
        Ok(self.within.query_one(created, &[]).await?.try_get(0)?)
    }
}
