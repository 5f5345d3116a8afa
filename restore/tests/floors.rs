//! The modules of the engine import only from floors below, and in no circle.
#![allow(missing_docs)]

use std::path::Path;

#[test]
fn imports_go_one_way() {
    pgrail_testing::floors::check(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &[
            &["condition", "table"],
            &["outcome", "request"],
            &["session", "staging", "select"],
            &["classify"],
            &["insert"],
            &["rows", "database"],
            &["schema", "drill"],
        ],
    );
}
