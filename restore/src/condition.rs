//! The condition that selects rows of a backup.
//!
//! It is SQL of the user who writes the request, and is evaluated by the target's server. So it is a plain condition on the columns
//! of one table: comparisons of columns and literals with built-in operators, types, and a few built-in functions. Without
//! subqueries and other functions it can read nothing but the row, whatever the role that evaluates it could read.

/// The longest condition, in bytes.
const LONGEST: usize = 4096;

const PREFIX: &str = "it has a literal with a prefix: write '…' with a type in front of it, and a space in between";

/// Words that begin a subquery, or an operator of a named schema.
const REFUSED: &[&str] = &["select", "table", "values", "with", "exists", "operator", "union", "intersect", "except"];

/// Words that a parenthesis may follow: keywords of expressions.
const KEYWORDS: &[&str] = &[
    "all", "and", "any", "between", "by", "case", "else", "escape", "from", "ilike", "in", "is", "like", "not", "or",
    "some", "then", "to", "when",
];

/// Types that may have a precision or a length.
const TYPES: &[&str] = &[
    "bit",
    "char",
    "character",
    "decimal",
    "interval",
    "numeric",
    "time",
    "timestamp",
    "timestamptz",
    "varchar",
    "varying",
];

/// Built-in functions of their arguments alone.
const FUNCTIONS: &[&str] = &[
    "abs",
    "btrim",
    "ceil",
    "char_length",
    "coalesce",
    "date_part",
    "date_trunc",
    "floor",
    "greatest",
    "least",
    "left",
    "length",
    "lower",
    "ltrim",
    "md5",
    "mod",
    "now",
    "nullif",
    "octet_length",
    "right",
    "round",
    "rtrim",
    "starts_with",
    "strpos",
    "substr",
    "to_date",
    "to_timestamp",
    "upper",
];

/// A condition that is not evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the condition {condition:?} is refused: {problem}")]
pub struct ConditionError {
    /// The condition.
    pub condition: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

/// A condition that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(String);

impl Condition {
    /// Checks a condition.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        check(text).map_err(|problem| ConditionError { condition: text.to_owned(), problem })?;
        Ok(Self(text.to_owned()))
    }

    /// The condition as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it is empty; omit it to select all rows".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let mut open = Vec::new();
    // What came right before, without spaces in between.
    let mut before = Before::Nothing;
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let length =
            match char {
                _ if char.is_whitespace() => char.len_utf8(),
                '\'' | '"' => quoted(rest, char)?,
                '0'..='9' => number(rest),
                _ if is_word(char) => word(rest)?,
                '(' | '[' => {
                    if char == '(' {
                        may_be_called(&before)?;
                    }
                    open.push(char);
                    1
                }
                ')' | ']' => {
                    let expected = if char == ')' { '(' } else { '[' };
                    if open.pop() != Some(expected) {
                        return Err(format!("the {char:?} closes nothing"));
                    }
                    1
                }
                ',' | ':' => 1,
                // U&'…' and U&"…", with escapes.
                '&' if matches!(&before, Before::Word(word) if word == "u") && rest[1..].starts_with(['\'', '"']) => {
                    return Err(PREFIX.to_owned());
                }
                '+' | '-' | '*' | '/' | '<' | '>' | '=' | '~' | '!' | '@' | '#' | '%' | '^' | '&' | '|' | '?' => {
                    operator(rest)?
                }
                '.' => return Err(
                    "it has a \".\": name columns without their table, and types and operators without their schema"
                        .to_owned(),
                ),
                ';' => return Err("it has a \";\": only one condition is possible".to_owned()),
                _ => return Err(format!("it has a {char:?}, which conditions on columns do not need")),
            };
        let token = &rest[..length];
        if !char.is_whitespace() {
            before = match char {
                '"' => Before::Quoted,
                _ if is_word(char) => Before::Word(token.to_ascii_lowercase()),
                _ => Before::Other,
            };
        }
        rest = &rest[length..];
        if matches!(before, Before::Word(_)) && rest.starts_with(['\'', '"']) && !char.is_whitespace() {
            return Err(PREFIX.to_owned());
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{} parentheses are not closed", open.len())) }
}

enum Before {
    Nothing,
    Word(String),
    Quoted,
    Other,
}

fn is_word(char: char) -> bool {
    char.is_alphabetic() || char == '_'
}

/// The length of a literal or a quoted name.
fn quoted(text: &str, quote: char) -> Result<usize, String> {
    let mut at = 1;
    loop {
        let end = text[at..].find(quote).ok_or_else(|| format!("a {quote} is not closed"))?;
        at += end + 1;
        if !text[at..].starts_with(quote) {
            return Ok(at);
        }
        at += 1;
    }
}

fn number(text: &str) -> usize {
    text.find(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '.' | '_'))).unwrap_or(text.len())
}

fn word(text: &str) -> Result<usize, String> {
    let end = text.find(|char: char| !(is_word(char) || char.is_ascii_digit())).unwrap_or(text.len());
    let word = text[..end].to_ascii_lowercase();
    if REFUSED.contains(&word.as_str()) {
        return Err(format!(
            "{word:?} is not possible: only the columns of the table can be compared; quote it if it is a column"
        ));
    }
    Ok(end)
}

fn operator(text: &str) -> Result<usize, String> {
    let end = text.find(|char: char| !"+-*/<>=~!@#%^&|?".contains(char)).unwrap_or(text.len());
    let operator = &text[..end];
    if operator.contains("--") || operator.contains("/*") {
        return Err("it has a comment".to_owned());
    }
    Ok(end)
}

fn may_be_called(before: &Before) -> Result<(), String> {
    let name = match before {
        Before::Nothing | Before::Other => return Ok(()),
        Before::Quoted => return Err("it calls a function by a quoted name".to_owned()),
        Before::Word(name) => name.as_str(),
    };
    if [KEYWORDS, TYPES, FUNCTIONS].iter().any(|known| known.contains(&name)) {
        return Ok(());
    }
    Err(format!("the function {name:?} is not possible; these are: {}", FUNCTIONS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_on_columns_are_possible() {
        for text in [
            "id = 42",
            "id IN (1, 2, 3) AND NOT (deleted OR \"Odd \"\"name\" <> 'it''s; --')",
            "created_at >= timestamptz '2026-11-01' AND created_at < now() - interval '1 day'",
            "lower(email) LIKE 'a%' AND data ->> 'k' = 'x' AND tags @> ARRAY['a']",
            "amount::numeric(10, 2) > 1.5e3 AND name IS NOT DISTINCT FROM NULL",
            "id = ANY ('{1,2}'::bigint[])",
            "CASE WHEN (a) THEN (b) ELSE c END",
        ] {
            Condition::parse(text).unwrap();
        }
    }

    #[test]
    fn what_reads_more_than_the_row_is_refused() {
        for (text, problem) in [
            ("", "empty"),
            ("id = 1; DROP TABLE users", "\";\""),
            ("true) UNION ALL SELECT (true", "closes nothing"),
            ("id = (SELECT max(id) FROM secrets)", "\"select\""),
            ("id IN (TABLE secrets)", "\"table\""),
            ("EXISTS (VALUES (1))", "\"exists\""),
            ("pg_sleep(1) IS NULL", "\"pg_sleep\""),
            ("\"pg_sleep\"(1) IS NULL", "quoted name"),
            ("pg_sleep (1) IS NULL", "\"pg_sleep\""),
            ("evil.f(1)", "\".\""),
            ("id OPERATOR(evil.=) 1", "\"operator\""),
            ("'x'::evil.checked = 'x'", "\".\""),
            ("id = 1 -- ", "comment"),
            ("id = 1 /* x */", "comment"),
            ("name = E'\\' OR true --'", "prefix"),
            ("name = $$x$$", "'$'"),
            ("U&\"\\0069d\" = 1", "prefix"),
            ("name = u&'\\0041'", "prefix"),
            ("name = 'open", "not closed"),
            ("(id = 1", "not closed"),
            ("(id = 1]", "closes nothing"),
        ] {
            let error = Condition::parse(text).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_stays_within_its_parentheses(text in "[a-z'\"()\\[\\] ;.$=/*-]{0,30}") {
            if Condition::parse(&text).is_ok() {
                // Read as the server does it with standard_conforming_strings on.
                let mut depth = 0_i32;
                let mut quote = None;
                for char in text.chars() {
                    match (quote, char) {
                        (None, '\'' | '"') => quote = Some(char),
                        (Some(open), _) if open == char => quote = None,
                        (None, '(') => depth += 1,
                        (None, ')') => depth -= 1,
                        (None, ';' | '$' | '.') => panic!("{text}"),
                        _ => {}
                    }
                    prop_assert!(depth >= 0);
                }
                prop_assert!(depth == 0 && quote.is_none());
            }
        }
    }
}
