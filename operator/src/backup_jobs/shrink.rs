//! What a comparison with the backup before found, as text. Pure.

use pgrail_crds::{BackupComparison, ShrunkTable};

/// How many tables a message names.
const NAMED: usize = 3;

/// Which tables lost how many rows.
pub(crate) fn describe(comparison: &BackupComparison) -> String {
    let tables: Vec<_> = comparison.tables.iter().take(NAMED).map(table).collect();
    let more = usize::try_from(comparison.shrunk_tables).unwrap_or_default().saturating_sub(tables.len());
    let more = if more > 0 { format!(" and {more} more tables") } else { String::new() };
    let with = comparison.with.as_deref().unwrap_or_default();
    format!("{}{more}, compared with {with}", tables.join(", "))
}

/// One table with its rows before and after.
pub(crate) fn table(it: &ShrunkTable) -> String {
    if it.dropped {
        format!("{} with {} rows does not exist any more", it.table, it.before)
    } else {
        format!("{} has {} rows instead of {}", it.table, it.after, it.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_named_and_the_others_counted() {
        let lost =
            |name: &str, dropped| ShrunkTable { table: format!("public.{name}"), before: 1000, after: 0, dropped };
        let comparison = BackupComparison {
            with: Some("a".into()),
            shrunk_tables: 9,
            tables: vec![lost("users", true), lost("orders", false), lost("x", false), lost("y", false)],
            ..BackupComparison::default()
        };
        assert_eq!(
            describe(&comparison),
            "public.users with 1000 rows does not exist any more, public.orders has 0 rows instead of 1000, \
             public.x has 0 rows instead of 1000 and 6 more tables, compared with a"
        );
    }
}
