//! The engine's own vocabulary: what is wanted, made from a validated resource in one place.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wildmatch::WildMatch;

/// Why a value cannot be part of a [`GuardSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// A name is empty, too long, or holds characters that could not be shown to a client.
    #[error("{what} {value:?} must be 1 to {max} characters without control characters")]
    Name {
        /// Which name it is.
        what: &'static str,
        /// What was given.
        value: String,
        /// The longest that is accepted, in characters.
        max: usize,
    },
    /// A limit is negative.
    #[error("{field} must not be negative, got {value}")]
    NegativeLimit {
        /// The field, as the API calls it.
        field: &'static str,
        /// What was given.
        value: i64,
    },
    /// The total of a transaction is smaller than what one statement may do.
    #[error(
        "maxTransactionRows ({total}) must be at least the larger of maxRows ({rows}) and maxCascadeRows ({cascade})"
    )]
    TotalBelowLimits {
        /// `maxTransactionRows`
        total: i64,
        /// `maxRows`
        rows: i64,
        /// `maxCascadeRows`
        cascade: i64,
    },
    /// A window has no limit.
    #[error("window must have maxRows, maxCascadeRows, or both")]
    WindowWithoutLimit,
    /// The time of a window is out of range.
    #[error("window.duration must be from 1m to 24h, got {seconds} s")]
    WindowOutOfRange {
        /// What was given.
        seconds: i64,
    },
    /// A bound of what is kept of deleted rows is out of range.
    #[error("capture.{field} must be from {least} to {most}, got {value}")]
    CaptureOutOfRange {
        /// The field, as the API calls it.
        field: &'static str,
        /// The smallest that is accepted.
        least: i64,
        /// The largest that is accepted.
        most: i64,
        /// What was given.
        value: i64,
    },
}

fn checked(what: &'static str, value: String, max: usize) -> Result<String, SpecError> {
    let fits = !value.is_empty() && value.chars().count() <= max && !value.chars().any(char::is_control);
    if fits { Ok(value) } else { Err(SpecError::Name { what, value, max }) }
}

/// The name of a guard as clients see it in errors: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuardName(String);

impl GuardName {
    /// Accepts 1 to 512 characters without control characters.
    pub fn new(name: impl Into<String>) -> Result<Self, SpecError> {
        checked("guard name", name.into(), 512).map(Self)
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GuardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who manages pgrail's schema in a database: the UID of a cluster's `kube-system`, or `local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(String);

impl ClusterId {
    /// Accepts 1 to 128 characters without control characters.
    pub fn new(id: impl Into<String>) -> Result<Self, SpecError> {
        checked("cluster id", id.into(), 128).map(Self)
    }

    /// The owner stamp of the command line.
    pub fn local() -> Self {
        Self("local".to_owned())
    }

    /// The id as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a passed limit stops the statement or only warns its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The statement fails.
    Enforce,
    /// The statement passes; one WARNING per client statement, counted.
    Warn,
}

/// What all transactions of all sessions together may remove within any such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Seconds.
    pub duration: i64,
    /// Rows of the guarded table; absent: not limited.
    pub max_rows: Option<i64>,
    /// Rows of other tables; absent: not limited.
    pub max_cascade_rows: Option<i64>,
}

impl Window {
    /// Refuses negative limits, none at all, and a duration outside of a minute and a day.
    pub fn validate(&self) -> Result<(), SpecError> {
        for (field, value) in [("window.maxRows", self.max_rows), ("window.maxCascadeRows", self.max_cascade_rows)] {
            if let Some(value) = value.filter(|value| *value < 0) {
                return Err(SpecError::NegativeLimit { field, value });
            }
        }
        if self.max_rows.is_none() && self.max_cascade_rows.is_none() {
            return Err(SpecError::WindowWithoutLimit);
        }
        if !(60..=86_400).contains(&self.duration) {
            return Err(SpecError::WindowOutOfRange { seconds: self.duration });
        }
        Ok(())
    }
}

/// The limits that hold for one table. All are numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableLimits {
    /// Rows of the guarded table itself.
    pub max_rows: i64,
    /// Rows that other tables may lose, or have nulled, as a consequence.
    pub max_cascade_rows: i64,
    /// Absent: both limits above hold per transaction. Set: they hold per client statement and this per transaction.
    pub max_transaction_rows: Option<i64>,
    /// Rows of the guarded table that one client statement may UPDATE; absent: not limited.
    pub max_updated_rows: Option<i64>,
    /// What all transactions together may remove; absent: not limited.
    pub window: Option<Window>,
}

impl Default for TableLimits {
    fn default() -> Self {
        Self { max_rows: 100, max_cascade_rows: 1000, max_transaction_rows: None, max_updated_rows: None, window: None }
    }
}

impl TableLimits {
    /// These limits with every field replaced that `over` sets.
    #[must_use]
    pub fn overridden(self, over: &PartialLimits) -> Self {
        Self {
            max_rows: over.max_rows.unwrap_or(self.max_rows),
            max_cascade_rows: over.max_cascade_rows.unwrap_or(self.max_cascade_rows),
            max_transaction_rows: over.max_transaction_rows.or(self.max_transaction_rows),
            max_updated_rows: over.max_updated_rows.or(self.max_updated_rows),
            window: over.window.or(self.window),
        }
    }

    /// Refuses negative limits and a transaction total below a statement's limits.
    pub fn validate(&self) -> Result<(), SpecError> {
        let fields = [
            ("maxRows", Some(self.max_rows)),
            ("maxCascadeRows", Some(self.max_cascade_rows)),
            ("maxTransactionRows", self.max_transaction_rows),
            ("maxUpdatedRows", self.max_updated_rows),
        ];
        for (field, value) in fields {
            if let Some(value) = value.filter(|value| *value < 0) {
                return Err(SpecError::NegativeLimit { field, value });
            }
        }
        self.window.map_or(Ok(()), |window| window.validate())?;
        match self.max_transaction_rows {
            Some(total) if total < self.max_rows.max(self.max_cascade_rows) => {
                Err(SpecError::TotalBelowLimits { total, rows: self.max_rows, cascade: self.max_cascade_rows })
            }
            _ => Ok(()),
        }
    }
}

/// Limits of which each may be left to what holds otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialLimits {
    /// See [`TableLimits::max_rows`].
    pub max_rows: Option<i64>,
    /// See [`TableLimits::max_cascade_rows`].
    pub max_cascade_rows: Option<i64>,
    /// See [`TableLimits::max_transaction_rows`].
    pub max_transaction_rows: Option<i64>,
    /// See [`TableLimits::max_updated_rows`].
    pub max_updated_rows: Option<i64>,
    /// See [`TableLimits::window`]: replaced as a whole.
    #[serde(default)]
    pub window: Option<Window>,
}

/// Which tables a guard is for: an exact name or a glob in each part (`*` any characters, `?` exactly one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSelector {
    /// Schema name or glob.
    pub schema: String,
    /// Table name or glob.
    pub name: String,
    /// Globs on the table name that this entry leaves out.
    pub exclude: Vec<String>,
    /// Replaces the guard's limits field by field.
    pub limits: PartialLimits,
}

impl TableSelector {
    /// A selector with checked patterns; each is 1 to 256 characters without control characters.
    pub fn new(
        schema: impl Into<String>,
        name: impl Into<String>,
        exclude: Vec<String>,
        limits: PartialLimits,
    ) -> Result<Self, SpecError> {
        let exclude = exclude.into_iter().map(|glob| checked("excluded table", glob, 256)).collect::<Result<_, _>>()?;
        Ok(Self {
            schema: checked("schema", schema.into(), 256)?,
            name: checked("table", name.into(), 256)?,
            exclude,
            limits,
        })
    }

    /// An exact selector (or glob, if the parts have wildcards) with the guard's own limits.
    pub fn table(schema: impl Into<String>, name: impl Into<String>) -> Result<Self, SpecError> {
        Self::new(schema, name, Vec::new(), PartialLimits::default())
    }

    /// Whether both parts are exact names: then a missing table is reported and beats any glob.
    pub fn is_exact(&self) -> bool {
        !is_glob(&self.schema) && !is_glob(&self.name)
    }

    /// Whether this entry is for the table `schema.name`.
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        glob_matches(&self.schema, schema)
            && glob_matches(&self.name, name)
            && !self.exclude.iter().any(|glob| glob_matches(glob, name))
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

/// `*` any characters, `?` exactly one, everything else itself; case counts, as in PostgreSQL's catalogs.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    WildMatch::new(pattern).matches(text)
}

/// What, besides rows, is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the API's list")]
pub struct Protect {
    /// Bulk DELETE.
    pub delete: bool,
    /// TRUNCATE, of any number of rows.
    pub truncate: bool,
    /// DROP TABLE and what implies it.
    pub drop: bool,
    /// DROP and DETACH of a partition.
    pub drop_partition: bool,
    /// DROP COLUMN, and a change of a column's type that rewrites the table.
    pub drop_column: bool,
}

impl Default for Protect {
    fn default() -> Self {
        Self { delete: true, truncate: true, drop: true, drop_partition: false, drop_column: false }
    }
}

/// What an allowance allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// DELETE beyond the limits.
    Delete,
    /// TRUNCATE.
    Truncate,
    /// Any DROP, and DETACH of a partition.
    Drop,
    /// UPDATE beyond its limit.
    Update,
}

/// A standing allowance of a login role (`session_user`) to go beyond a guard's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The login role.
    pub role: String,
    /// What holds for it instead; an absent limit stays the guard's.
    pub limits: PartialLimits,
    /// For which operations.
    pub operations: Vec<Operation>,
}

/// For how long, and how many, deleted rows are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Seconds that they are kept.
    pub retention: i64,
    /// Rows of one guard that are kept; beyond that the oldest transactions are removed first.
    pub max_rows: i64,
}

impl Default for Capture {
    fn default() -> Self {
        Self { retention: 720 * 3600, max_rows: 10_000 }
    }
}

impl Capture {
    /// Refuses a retention outside of a minute and a year, and a number of rows outside of one and a million.
    pub fn validate(&self) -> Result<(), SpecError> {
        let within = |field, value: i64, least, most| {
            let out = || SpecError::CaptureOutOfRange { field, least, most, value };
            (least..=most).contains(&value).then_some(()).ok_or_else(out)
        };
        within("retention (in seconds)", self.retention, 60, 8760 * 3600)?;
        within("maxRows", self.max_rows, 1, 1_000_000)
    }
}

/// One guard, as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSpec {
    /// Its name, unique in the database.
    pub name: GuardName,
    /// Who manages pgrail's schema there.
    pub owner: ClusterId,
    /// Enforce or warn.
    pub mode: Mode,
    /// Which tables.
    pub selectors: Vec<TableSelector>,
    /// For every table, unless its selector overrides.
    pub limits: TableLimits,
    /// Against what.
    pub protect: Protect,
    /// Standing allowances.
    pub allowances: Vec<Allowance>,
    /// Whether, and within which bounds, deleted rows are kept.
    pub capture: Option<Capture>,
    /// Take the schema over from another owner.
    pub take_over: bool,
    /// Renamed tables, as `schema.table` by their old or new name, that the guard no longer holds.
    pub released: Vec<String>,
}

impl GuardSpec {
    /// A guard with the API's defaults.
    pub fn new(name: GuardName, owner: ClusterId, selectors: Vec<TableSelector>) -> Self {
        Self {
            name,
            owner,
            mode: Mode::Enforce,
            selectors,
            limits: TableLimits::default(),
            protect: Protect::default(),
            allowances: Vec::new(),
            capture: None,
            take_over: false,
            released: Vec::new(),
        }
    }

    /// The selector that decides for a table: an exact name beats a glob, a later entry an earlier one.
    pub fn selector_for(&self, schema: &str, name: &str) -> Option<&TableSelector> {
        let last = |exact: bool| {
            self.selectors.iter().rev().find(|entry| entry.is_exact() == exact && entry.matches(schema, name))
        };
        last(true).or_else(|| last(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_like_a_shell() {
        for (pattern, text, expected) in [
            ("users", "users", true),
            ("users", "Users", false),
            ("order_*", "order_items", true),
            ("order_*", "order_", true),
            ("order_*", "orders", false),
            ("*_tmp", "a_tmp_tmp", true),
            ("*_tmp", "tmp", false),
            ("t?", "t1", true),
            ("t?", "t", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("é?", "éa", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(glob_matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    /// The definition: what a glob matches, by its first character.
    fn defined(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) if defined(rest, text) => true,
            (Some(('*', _)), Some((_, text))) => defined(pattern, text),
            (Some((sign, pattern)), Some((letter, text))) => (*sign == '?' || sign == letter) && defined(pattern, text),
            _ => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn globs_match_as_defined(pattern in "[ab?*ü]{0,7}", text in "[ab?*ü]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            proptest::prop_assert_eq!(glob_matches(&pattern, &text), defined(&chars(&pattern), &chars(&text)));
        }
    }

    #[test]
    fn an_exact_name_beats_a_glob_and_a_later_entry_an_earlier_one() {
        let with = |schema: &str, name: &str, max_rows| {
            TableSelector::new(schema, name, vec![], PartialLimits { max_rows, ..Default::default() }).unwrap()
        };
        let spec = GuardSpec::new(
            GuardName::new("a/b").unwrap(),
            ClusterId::local(),
            vec![with("public", "users", Some(1)), with("*", "*", Some(2)), with("public", "u*", Some(3))],
        );
        let rows = |schema, name| spec.selector_for(schema, name).and_then(|entry| entry.limits.max_rows);
        assert_eq!(rows("public", "users"), Some(1));
        assert_eq!(rows("public", "uploads"), Some(3));
        assert_eq!(rows("other", "users"), Some(2));
    }

    #[test]
    fn excluded_names_are_left_out() {
        let entry = TableSelector::new("t_*", "*", vec!["*_tmp".into()], PartialLimits::default()).unwrap();
        assert!(entry.matches("t_1", "orders"));
        assert!(!entry.matches("t_1", "orders_tmp"));
        assert!(!entry.matches("public", "orders"));
    }

    #[test]
    fn bad_limits_and_names_are_refused() {
        assert!(TableLimits { max_rows: -1, ..Default::default() }.validate().is_err());
        assert!(TableLimits { max_transaction_rows: Some(999), ..Default::default() }.validate().is_err());
        assert!(TableLimits { max_transaction_rows: Some(1000), ..Default::default() }.validate().is_ok());
        assert!(Capture::default().validate().is_ok());
        for (retention, max_rows) in [(59, 1), (8760 * 3600 + 1, 1), (60, 0), (60, 1_000_001)] {
            assert!(Capture { retention, max_rows }.validate().is_err(), "{retention} {max_rows}");
        }
        assert!(GuardName::new("").is_err());
        assert!(GuardName::new("a\n/b").is_err());
        assert!(TableSelector::table("public", "").is_err());
    }
}
