//! What a query of a drill must return. Pure.

use std::cmp::Ordering;
use std::fmt;

/// `> 0`, `>= 10`, `< 5`, `<= 5` with a number; `= x`, `!= x` with a number or a text; or a text, which is `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    operator: Operator,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPERATORS: [(&str, Operator); 6] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("!=", Operator::NotEqual),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("=", Operator::Equal),
];

/// A text that is no expectation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an expectation: write > 0, >= 10, < 5 or <= 5 with a number, = x or != x, or a text")]
pub struct ExpectationError(pub String);

impl Expectation {
    /// Parses one.
    pub fn parse(text: &str) -> Result<Self, ExpectationError> {
        let invalid = || ExpectationError(text.to_owned());
        let trimmed = text.trim();
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((*operator, trimmed.strip_prefix(sign)?.trim())));
        let (operator, value) = found.unwrap_or((Operator::Equal, trimmed));
        let is_comparison = !matches!(operator, Operator::Equal | Operator::NotEqual);
        let has_sign = value.starts_with(['<', '>', '=', '!']);
        if value.is_empty()
            || has_sign
            || value.contains(['\n', '\r'])
            || (is_comparison && Number::parse(value).is_none())
        {
            return Err(invalid());
        }
        Ok(Self { operator, value: value.to_owned() })
    }

    /// Whether a value meets it. NULL meets none. Numbers are compared as numbers, everything else as text.
    pub fn is_met_by(&self, found: Option<&str>) -> bool {
        let Some(found) = found else { return false };
        let numbers = Number::parse(found.trim()).zip(Number::parse(&self.value));
        let order = match (numbers, self.operator) {
            (Some((found, value)), _) => found.cmp(&value),
            (None, Operator::Equal | Operator::NotEqual) => found.cmp(&self.value),
            // It is not a number.
            (None, _) => return false,
        };
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator).map_or("=", |(sign, _)| sign);
        write!(formatter, "{sign} {}", self.value)
    }
}

/// A decimal number of any length, without rounding.
#[derive(Debug, PartialEq, Eq)]
struct Number<'a> {
    negative: bool,
    /// Without leading zeros.
    whole: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl<'a> Number<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { negative: text.starts_with('-') && !is_zero, whole, fraction })
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |it: &Self, than: &Self| {
            (it.whole.len(), it.whole, it.fraction).cmp(&(than.whole.len(), than.whole, than.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn met(expectation: &str, found: &str) -> bool {
        Expectation::parse(expectation).unwrap().is_met_by(Some(found))
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_texts_as_texts() {
        for (expectation, found) in [
            ("> 0", "1"),
            (">0", "10000000000000000000000000000000000000001"),
            (">= 10", "10.0"),
            ("< 5", "-7"),
            ("<= -1.5", "-1.50"),
            ("= 42", "42.00"),
            ("!= 42", "43"),
            ("42", "042"),
            ("t", "t"),
            ("= a b", "a b"),
            ("!= x", ""),
            (" en_US.UTF-8 ", "en_US.UTF-8"),
        ] {
            assert!(met(expectation, found), "{expectation} by {found}");
        }
        for (expectation, found) in [
            ("> 0", "0"),
            ("> 9", "10x"),
            ("> 0", "NaN"),
            ("> 0", "1e5"),
            ("> 0", ""),
            ("< 5", "5"),
            ("= 42", "42.01"),
            ("= T", "t"),
            ("!= 0", "-0.0"),
            ("<= -1.5", "-1.4"),
        ] {
            assert!(!met(expectation, found), "{expectation} by {found}");
        }
        assert!(!Expectation::parse("!= x").unwrap().is_met_by(None), "NULL meets none");
        assert_eq!(Expectation::parse(">=10").unwrap().to_string(), ">= 10");
    }

    #[test]
    fn what_is_no_expectation_is_refused() {
        for text in ["", " ", ">", "> x", "> 1 and < 5", "== 5", "<> 5", "=> 5", "!5", "=", "!= ", "> 1e5", "a\nb"] {
            assert!(Expectation::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_ordered_as_they_are(a in -100_000_i64..100_000, b in -100_000_i64..100_000) {
            let text = |number: i64| {
                let sign = if number < 0 { "-" } else { "" };
                format!("{sign}{}.{:03}", number.abs() / 1000, number.abs() % 1000)
            };
            let (first, second) = (text(a), text(b));
            let numbers = (Number::parse(&first).unwrap(), Number::parse(&second).unwrap());
            prop_assert_eq!(numbers.0.cmp(&numbers.1), a.cmp(&b));
        }
    }
}
