//! Which tables a dump holds: the same selection for pg_dump's arguments and for the rows that are counted.

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use crate::PartialCause;

/// What is left out of a dump, or what it is narrowed to. Names are case sensitive and as the catalog has them;
/// `*` stands for any characters, `?` for one. A table's pattern is `schema.table`, or `table` in any schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Only these schemas; none means all. Large objects belong to no schema and are left out with this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<String>,
    /// Without these tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Without the rows of these tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_table_data: Vec<String>,
}

/// An invalid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {0:?} is empty in a part: write schema.table, with * and ? for any characters")]
pub struct PatternError(pub String);

impl Filter {
    /// Why the dump holds less than the whole database, if it does.
    pub fn partial_because(&self) -> Vec<PartialCause> {
        let causes = [
            (&self.schemas, PartialCause::Schemas),
            (&self.exclude_tables, PartialCause::ExcludeTables),
            (&self.exclude_table_data, PartialCause::ExcludeTableData),
        ];
        causes.into_iter().filter(|(patterns, _)| !patterns.is_empty()).map(|(_, cause)| cause).collect()
    }

    /// Refuses patterns that name nothing.
    pub fn check(&self) -> Result<(), PatternError> {
        for pattern in &self.schemas {
            if pattern.is_empty() || pattern.contains('\0') {
                return Err(PatternError(pattern.clone()));
            }
        }
        for pattern in self.exclude_tables.iter().chain(&self.exclude_table_data) {
            let (schema, table) = split(pattern);
            if schema.is_some_and(str::is_empty) || table.is_empty() || pattern.contains('\0') {
                return Err(PatternError(pattern.clone()));
            }
        }
        Ok(())
    }

    /// Whether the dump holds this schema.
    pub fn has_schema(&self, schema: &str) -> bool {
        self.schemas.is_empty() || self.schemas.iter().any(|pattern| matches(pattern, schema))
    }

    /// Whether the dump holds this table's definition.
    pub fn has_table(&self, schema: &str, table: &str) -> bool {
        self.has_schema(schema) && !self.exclude_tables.iter().any(|pattern| matches_table(pattern, schema, table))
    }

    /// Whether the dump holds this table's rows.
    pub fn has_rows(&self, schema: &str, table: &str) -> bool {
        self.has_table(schema, table)
            && !self.exclude_table_data.iter().any(|pattern| matches_table(pattern, schema, table))
    }

    /// The same as arguments of pg_dump, whose own patterns fold case and know more signs: everything but `*` and
    /// `?` is quoted.
    pub fn arguments(&self) -> Vec<String> {
        let table = |pattern: &String| match split(pattern) {
            (Some(schema), table) => format!("{}.{}", quoted(schema), quoted(table)),
            (None, table) => format!("*.{}", quoted(table)),
        };
        let schemas = self.schemas.iter().map(|pattern| format!("--schema={}", quoted(pattern)));
        let tables = self.exclude_tables.iter().map(|pattern| format!("--exclude-table={}", table(pattern)));
        let rows = self.exclude_table_data.iter().map(|pattern| format!("--exclude-table-data={}", table(pattern)));
        schemas.chain(tables).chain(rows).collect()
    }
}

/// The schema's part of a table's pattern, if it has one, and the table's.
fn split(pattern: &str) -> (Option<&str>, &str) {
    match pattern.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, pattern),
    }
}

fn matches_table(pattern: &str, schema: &str, table: &str) -> bool {
    let (schema_pattern, table_pattern) = split(pattern);
    schema_pattern.is_none_or(|pattern| matches(pattern, schema)) && matches(table_pattern, table)
}

/// Whether a name matches a pattern of `*`, `?` and ordinary characters.
fn matches(pattern: &str, name: &str) -> bool {
    WildMatch::new(pattern).matches(name)
}

/// A pattern for pg_dump: literal text in quotes, `*` and `?` outside.
fn quoted(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len() + 2);
    let mut inside = false;
    for sign in pattern.chars() {
        let wild = matches!(sign, '*' | '?');
        if wild == inside {
            text.push('"');
            inside = !inside;
        }
        if sign == '"' {
            text.push('"');
        }
        text.push(sign);
    }
    if inside {
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_are_case_sensitive_and_literal_but_for_two_signs() {
        assert!(matches("order_*", "order_items") && !matches("order_*", "orders"));
        assert!(matches("*a*b", "xxaybab") && !matches("a?", "a") && matches("a?", "ab"));
        assert!(!matches("Users", "users") && matches("a.b[c]+", "a.b[c]+"));
        assert_eq!(quoted("order_*"), "\"order_\"*");
        assert_eq!(quoted("*"), "*");
        assert_eq!(quoted("My\"Table?x"), "\"My\"\"Table\"?\"x\"");
    }

    /// The definition: what a pattern matches, by its first character.
    fn defined(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) if defined(rest, name) => true,
            (Some(('*', _)), Some((_, name))) => defined(pattern, name),
            (Some((sign, pattern)), Some((letter, name))) => (*sign == '?' || sign == letter) && defined(pattern, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_defined(pattern in "[ab?*ü]{0,7}", name in "[ab?*ü]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), defined(&chars(&pattern), &chars(&name)));
        }
    }

    #[test]
    fn tables_and_rows_are_selected_apart() {
        let filter = Filter {
            schemas: vec!["shop".into(), "tenant_*".into()],
            exclude_tables: vec!["shop.tmp_*".into(), "scratch".into()],
            exclude_table_data: vec!["*.audit".into()],
        };
        assert!(filter.has_rows("shop", "users") && filter.has_rows("tenant_1", "users"));
        assert!(!filter.has_table("public", "users") && !filter.has_table("shop", "tmp_1"));
        assert!(!filter.has_table("tenant_1", "scratch"));
        assert!(filter.has_table("shop", "audit") && !filter.has_rows("shop", "audit"));
        assert_eq!(filter.partial_because().len(), 3);
        assert!(Filter::default().partial_because().is_empty());
        assert_eq!(
            filter.arguments(),
            [
                "--schema=\"shop\"",
                "--schema=\"tenant_\"*",
                "--exclude-table=\"shop\".\"tmp_\"*",
                "--exclude-table=*.\"scratch\"",
                "--exclude-table-data=*.\"audit\"",
            ]
        );
        for bad in ["", ".users", "shop."] {
            let filter = Filter { exclude_tables: vec![bad.into()], ..Filter::default() };
            assert!(filter.check().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_plain_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.first(), name.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => plain(&pattern[1..], name) || (!name.is_empty() && plain(pattern, &name[1..])),
                    (Some(b'?'), Some(_)) => plain(&pattern[1..], &name[1..]),
                    (Some(a), Some(b)) if a == b => plain(&pattern[1..], &name[1..]),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
