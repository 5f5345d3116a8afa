//! A table that rows are restored into, as it is now.

use serde::Deserialize;

use pgrail_rows::Oid;

/// The column of staged rows that identifies them. No table has a column with this name.
pub(crate) const ROW: &str = "\"pgrail: row of the backup\"";

/// A table that rows are restored into, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Table {
    #[serde(flatten)]
    table: pgrail_rows::Table,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The owner, ready for SQL.
    pub(crate) owner_ident: String,
    /// Columns whose values may evaluate code of other roles when they are read.
    pub(crate) untrusted: Vec<String>,
    pub(crate) sequences: Vec<OwnedSequence>,
    pub(crate) cascades: Vec<Cascade>,
    pub(crate) triggers: Vec<Trigger>,
}

/// A sequence with ascending values that a column owns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct OwnedSequence {
    pub(crate) column: String,
    pub(crate) sequence: String,
}

/// A foreign key of the table with an action: a deletion of the parent deletes its rows, or unlinks them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Cascade {
    pub(crate) name: String,
    pub(crate) action: char,
    pub(crate) columns: Vec<String>,
    pub(crate) referenced: Vec<String>,
    pub(crate) operators: Vec<String>,
    #[serde(default)]
    pub(crate) set: Option<Vec<SetColumn>>,
    pub(crate) family: Vec<Oid>,
}

/// A column that a deletion of the parent sets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct SetColumn {
    pub(crate) ident: String,
    pub(crate) default: Option<String>,
}

/// A trigger that fires when rows are inserted or updated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Trigger {
    /// Of this table, ready for SQL.
    pub(crate) table: String,
    /// Ready for SQL.
    pub(crate) name: String,
    /// `O` or `A`.
    pub(crate) enabled: char,
    pub(crate) label: String,
}

impl std::ops::Deref for Table {
    type Target = pgrail_rows::Table;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl AsRef<pgrail_rows::Table> for Table {
    fn as_ref(&self) -> &pgrail_rows::Table {
        &self.table
    }
}

impl Table {
    /// The table, ready for SQL.
    pub(crate) fn target(&self) -> &str {
        self.ident.as_deref().unwrap_or_default()
    }

    /// The role that reads and writes its rows.
    pub(crate) fn owner_oid(&self) -> Oid {
        self.owner.unwrap_or_default()
    }

    fn temporary(&self, what: &str) -> String {
        format!("pg_temp.pgrail_{what}_{}", self.rel)
    }

    /// The rows of the backup.
    pub(crate) fn stage(&self) -> String {
        self.temporary("stage")
    }

    /// Which of them are selected, and in which round.
    pub(crate) fn selection(&self) -> String {
        self.temporary("selected")
    }

    /// What each selected row is to the table, see `classify`.
    pub(crate) fn classes(&self) -> String {
        self.temporary("class")
    }

    /// The type by which untrusted columns are read. Only pgrail defines it, so no other role can define a cast to it.
    pub(crate) fn row_type(&self) -> String {
        self.temporary("row")
    }

    /// Values of columns that other tables refer to.
    pub(crate) fn keys(&self) -> String {
        self.temporary("keys")
    }

    /// The type of a column.
    pub(crate) fn kind(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|it| it.ident == column).map(|it| it.kind.as_str())
    }
}

/// A table with its rows of the backup.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub(crate) table: Table,
    /// The columns that the backup has, ready for SQL.
    pub(crate) columns: Vec<String>,
    pub(crate) in_backup: i64,
}

impl std::ops::Deref for Staged {
    type Target = Table;

    fn deref(&self) -> &Self::Target {
        &self.table
    }
}

impl AsRef<pgrail_rows::Table> for Staged {
    fn as_ref(&self) -> &pgrail_rows::Table {
        self.table.as_ref()
    }
}

impl Staged {
    /// The staged rows with [`ROW`] and their columns in the types of the table.
    pub(crate) fn rows(&self) -> String {
        let mut untrusted = self.columns.iter().filter(|column| self.untrusted.contains(column)).peekable();
        if untrusted.peek().is_none() {
            return format!("SELECT s.ctid AS {ROW}, {} FROM {} s", self.fields("s"), self.stage());
        }
        let read = untrusted.map(|column| format!("s.{column}")).collect::<Vec<_>>().join(", ");
        let of = |column: &String| if self.untrusted.contains(column) { "(r.v)" } else { "s" };
        let columns =
            self.columns.iter().map(|column| format!("{}.{column}", of(column))).collect::<Vec<_>>().join(", ");
        format!(
            "SELECT s.ctid AS {ROW}, {columns} FROM {} s CROSS JOIN LATERAL \
             (SELECT CAST(CAST(ROW({read}) AS pg_catalog.text) AS {}) AS v OFFSET 0) r",
            self.stage(),
            self.row_type(),
        )
    }

    /// The selected rows, of a round or of all.
    pub(crate) fn selected(&self, round: Option<i32>) -> String {
        let of_round = round.map(|round| format!(" WHERE c.round OPERATOR(pg_catalog.=) {round}")).unwrap_or_default();
        format!(
            "SELECT x.* FROM ({}) x JOIN {} c ON c.id OPERATOR(pg_catalog.=) x.{ROW}{of_round}",
            self.rows(),
            self.selection(),
        )
    }

    /// The selected rows of a class.
    pub(crate) fn of_class(&self, class: i32) -> String {
        format!(
            "SELECT x.* FROM ({}) x JOIN {} c ON c.id OPERATOR(pg_catalog.=) x.{ROW} WHERE c.class OPERATOR(pg_catalog.=) {class}",
            self.rows(),
            self.classes(),
        )
    }

    /// `row.column` of every column of the backup.
    pub(crate) fn fields(&self, row: &str) -> String {
        self.columns.iter().map(|column| format!("{row}.{column}")).collect::<Vec<_>>().join(", ")
    }
}
