//! SQL by which rows are identified.

/// `left.column = right.column` for every column, with the operators of the key.
pub fn all_equal(
    left: &str,
    columns: &[String],
    operators: &[String],
    right: &str,
    right_columns: &[String],
) -> String {
    let pairs = columns.iter().zip(operators).zip(right_columns);
    pairs
        .map(|((column, operator), other)| format!("{left}.{column} {operator} {right}.{other}"))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// A row as text for people: the values of these columns of `row`, by the output functions of their types, which look up no
/// cast.
pub fn named(row: &str, columns: &[String]) -> String {
    let values = columns.iter().map(|column| format!("{row}.{column}")).collect::<Vec<_>>();
    format!("pg_catalog.concat_ws(', ', {})", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_paired_by_place() {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let equal =
            all_equal("t", &texts(&["a", "\"B\""]), &texts(&["=", "OPERATOR(s.=)"]), "(x.r)", &texts(&["c", "d"]));
        assert_eq!(equal, "t.a = (x.r).c AND t.\"B\" OPERATOR(s.=) (x.r).d");
        assert_eq!(named("(x.r)", &texts(&["a", "b"])), "pg_catalog.concat_ws(', ', (x.r).a, (x.r).b)");
    }
}
