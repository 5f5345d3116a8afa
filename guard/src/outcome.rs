//! How the steps of a plan ended.

use std::fmt;

use tokio_postgres::error::SqlState;

use crate::catalog::Oid;

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Done,
    /// Rolled back for a reason that passes by itself: try again.
    Pending(Wait),
    /// Rolled back, and it fails again until its cause is removed.
    Failed {
        /// The server's SQLSTATE.
        code: SqlState,
        /// The server's message.
        message: String,
        /// What to do; empty where that is not known.
        remedy: String,
    },
    /// Not run, since a step that it needs did not succeed.
    Skipped,
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A lock that other sessions hold; empty where they ended meanwhile.
    Lock {
        /// At most three of them, the oldest first.
        holders: Vec<LockHolder>,
    },
    /// The table was changed since it was observed.
    Changed,
    /// The statement was cancelled, by `statement_timeout` or by an administrator.
    Cancelled,
}

/// A session that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// `schema.table`
    pub table: String,
    /// Its backend; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// Its login role.
    pub login: Option<String>,
    /// Its `application_name`, where the current role may see it.
    pub application: Option<String>,
    /// When its transaction began, in UTC as ISO 8601, where the current role may see it.
    pub since: Option<String>,
}

impl Outcome {
    /// Whether it failed because the role lacks a privilege.
    pub fn lacks_privilege(&self) -> bool {
        matches!(self, Self::Failed { code, .. } if *code == SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Why it is not done, with what to do; `None` for what is done, or not tried.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Done | Self::Skipped => None,
            Self::Pending(wait) => Some(wait.to_string()),
            Self::Failed { message, remedy, .. } if remedy.is_empty() => Some(message.clone()),
            Self::Failed { message, remedy, .. } => Some(format!("{message}: {remedy}")),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock { holders } => match holders.first() {
                None => f.write_str("waits for a lock"),
                Some(holder) => {
                    write!(f, "waits for a lock on {}, held by {holder}", holder.table)?;
                    if holders.len() > 1 { write!(f, " and {} more", holders.len() - 1) } else { Ok(()) }
                }
            },
            Self::Changed => f.write_str("the table was changed meanwhile"),
            Self::Cancelled => f.write_str("the statement was cancelled (statement_timeout, or an administrator)"),
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("a prepared transaction")?,
        }
        let login = self.login.as_ref().map(|login| format!("login {login}"));
        let application =
            self.application.as_ref().filter(|name| !name.is_empty()).map(|name| format!("application {name}"));
        let since = self.since.as_ref().map(|since| format!("in a transaction since {since}"));
        let known: Vec<String> = [login, application, since].into_iter().flatten().collect();
        if known.is_empty() { Ok(()) } else { write!(f, " ({})", known.join(", ")) }
    }
}

/// How a plan's steps ended, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Each step's table, if it is about one, and how it ended.
    pub steps: Vec<(Option<(Oid, String)>, Outcome)>,
}

impl Applied {
    /// Whether every step was committed.
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|(_, outcome)| *outcome == Outcome::Done)
    }

    /// How many steps were committed.
    pub fn done(&self) -> u64 {
        self.steps.iter().filter(|(_, outcome)| *outcome == Outcome::Done).count() as u64
    }

    /// Whether waiting can help: some step is pending, and none failed.
    pub fn waits(&self) -> bool {
        self.steps.iter().any(|(_, outcome)| matches!(outcome, Outcome::Pending(_)))
            && !self.steps.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed { .. }))
    }

    /// What did not succeed, with its table; `None` for what is not about one.
    pub fn unfinished(&self) -> Vec<(Option<&str>, &Outcome)> {
        let unfinished = self.steps.iter().filter(|(_, outcome)| *outcome != Outcome::Done);
        unfinished.map(|(table, outcome)| (table.as_ref().map(|(_, label)| label.as_str()), outcome)).collect()
    }
}
