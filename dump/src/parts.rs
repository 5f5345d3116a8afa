//! Into which archives a dump is divided, so that several can be made at the same time. Pure.

use crate::Filter;

/// Smaller tables are dumped together: a program of their own costs more than it saves.
const LARGE: u64 = 1024 * 1024;

/// The most tables that are named one by one: pg_dump looks for each.
const NAMED: usize = 256;

/// One archive of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Distinguishes it from the others; empty if it is the only one.
    pub(crate) name: String,
    /// Arguments of pg_dump.
    pub(crate) arguments: Vec<String>,
    /// Which worker makes it, after its earlier ones.
    pub(crate) worker: usize,
}

impl Part {
    /// What the names of its objects start with.
    pub(crate) fn stem(&self, encrypted: bool) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!(".{}", self.name) };
        format!("dump.pgc{name}{}", if encrypted { ".age" } else { "" })
    }
}

/// A table that may be dumped on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SizedTable<'a> {
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    /// Its size on the server's disk.
    pub(crate) bytes: u64,
}

/// The only archive of a dump.
pub(crate) fn whole(filter: &Filter) -> Vec<Part> {
    vec![Part { name: String::new(), arguments: filter.arguments(), worker: 0 }]
}

/// Archives in the order in which they are restored: definitions; everything that is not in a group (small tables, sequences,
/// large objects); groups of large tables, balanced by size; then indexes, constraints and triggers.
///
/// `others` is the size of what is not in `tables`.
pub(crate) fn divided(filter: &Filter, mut tables: Vec<SizedTable<'_>>, mut others: u64, workers: usize) -> Vec<Part> {
    tables.sort_by(|a, b| (b.bytes, a.schema, a.name).cmp(&(a.bytes, b.schema, b.name)));
    let large = tables.iter().take(NAMED).take_while(|table| table.bytes >= LARGE).count();
    others += tables.drain(large..).map(|table| table.bytes).sum::<u64>();
    let mut loads = vec![0; workers.max(1)];
    loads[0] = others;
    let mut groups: Vec<Vec<&SizedTable<'_>>> = vec![Vec::new(); loads.len()];
    for table in &tables {
        let worker = least(&loads);
        loads[worker] += table.bytes;
        groups[worker].push(table);
    }
    let section = |section: &str| format!("--section={section}");
    let part = |name: &str, first: String, arguments: Vec<String>, worker| Part {
        name: name.to_owned(),
        arguments: std::iter::once(first).chain(arguments).collect(),
        worker,
    };
    let definitions = least(&loads);
    let excluded = tables.iter().map(|table| format!("--exclude-table-data={}", quoted(table)));
    let mut parts = vec![
        part("pre", section("pre-data"), filter.arguments(), definitions),
        part("rest", section("data"), filter.arguments().into_iter().chain(excluded).collect(), 0),
    ];
    for (worker, group) in groups.iter().enumerate().filter(|(_, group)| !group.is_empty()) {
        let tables = group.iter().map(|table| format!("--table={}", quoted(table))).collect();
        parts.push(part(&format!("data{}", worker + 1), section("data"), tables, worker));
    }
    parts.push(part("post", section("post-data"), filter.arguments(), definitions));
    parts
}

fn least(loads: &[u64]) -> usize {
    loads.iter().enumerate().min_by_key(|(_, load)| **load).map_or(0, |(worker, _)| worker)
}

/// A pattern of pg_dump that only this table matches.
fn quoted(table: &SizedTable<'_>) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{}.{}", quoted(table.schema), quoted(table.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1024 * 1024;

    fn table(name: &str, mib: u64) -> SizedTable<'_> {
        SizedTable { schema: "public", name, bytes: mib * MIB }
    }

    #[test]
    fn large_tables_are_divided_by_size_and_everything_else_is_together() {
        let filter = Filter { exclude_tables: vec!["x".into()], ..Filter::default() };
        let tables = vec![table("a\"*", 50), table("b", 30), table("c", 20), table("small", 0)];
        let parts = divided(&filter, tables, 10 * MIB, 2);
        let names: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.worker)).collect();
        assert_eq!(names, [("pre", 1), ("rest", 0), ("data1", 0), ("data2", 1), ("post", 1)]);
        assert_eq!(parts[2].arguments, ["--section=data", "--table=\"public\".\"b\"", "--table=\"public\".\"c\""]);
        assert_eq!(parts[3].arguments, ["--section=data", "--table=\"public\".\"a\"\"*\""]);
        assert_eq!(parts[1].arguments.len(), 1 + 1 + 3);
        assert_eq!(parts[0].arguments, ["--section=pre-data", "--exclude-table=*.\"x\""]);
        assert_eq!(parts[3].stem(true), "dump.pgc.data2.age");
        assert_eq!(whole(&filter)[0].stem(false), "dump.pgc");
        let none = divided(&filter, vec![table("small", 0)], 0, 4);
        assert_eq!(none.len(), 3, "no group without a large table: {none:?}");
    }

    proptest! {
        #[test]
        fn every_table_is_in_one_archive_and_no_worker_has_much_more(sizes in prop::collection::vec(0_u64..2000, 0..400), workers in 1_usize..10) {
            let names: Vec<_> = (0..sizes.len()).map(|number| format!("t{number}")).collect();
            let tables: Vec<_> = sizes.iter().zip(&names).map(|(size, name)| table(name, *size)).collect();
            let parts = divided(&Filter::default(), tables, 0, workers);
            let count = |argument: &str| parts.iter().flat_map(|part| &part.arguments).filter(|it| *it == argument).count();
            let mut loads = vec![0; workers];
            for (name, size) in names.iter().zip(&sizes) {
                let (dumped, excluded) = (count(&format!("--table=\"public\".\"{name}\"")), count(&format!("--exclude-table-data=\"public\".\"{name}\"")));
                prop_assert_eq!(dumped, excluded);
                prop_assert!(dumped <= 1);
                let of = parts.iter().find(|part| part.arguments.contains(&format!("--table=\"public\".\"{name}\"")));
                loads[of.map_or(0, |part| part.worker)] += size;
            }
            // Longest first is at most the largest table beyond the average; what is not in a group is the first worker's.
            let (most, sum) = (loads[1..].iter().max().copied().unwrap_or(0), sizes.iter().sum::<u64>());
            prop_assert!(most <= sum.div_ceil(workers as u64) + sizes.iter().max().copied().unwrap_or(0));
        }
    }
}
