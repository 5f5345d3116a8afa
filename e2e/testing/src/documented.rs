//! A page of the book whose table says what tests have seen.

use std::path::{Path, PathBuf};

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What a test has seen must be a row of the page's table.
pub fn documented(name: &str, fault: &str, seen: &str) {
    let row = format!("| {fault} | {seen} |");
    assert!(page(name).lines().any(|line| line == row), "docs/src/{name} has no row\n{row}");
}

/// Every row of the page's table must be of a fault that is named in one of these sources.
pub fn no_other_rows(name: &str, sources: &[PathBuf]) {
    let text: String = sources.iter().map(|file| std::fs::read_to_string(file).expect("a source")).collect();
    let page = page(name);
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let rows: Vec<&str> = rows.filter(|fault| *fault != "Fault" && !fault.starts_with("---")).collect();
    assert!(!rows.is_empty(), "docs/src/{name} has no rows");
    for fault in rows {
        assert!(text.contains(&format!("\"{fault}\"")), "no test is of the row {fault:?} of docs/src/{name}");
    }
}
