//! The modules of the operator import only from floors below, and in no circle.
#![allow(missing_docs)]

use std::path::Path;

#[test]
fn imports_go_one_way() {
    pgrail_testing::floors::check(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &[
            &["clock", "mutex", "secret", "signals", "version"],
            &["agent"],
            &["kubernetes", "metrics"],
            &["database"],
            &["allowed_stores"],
            &["settings"],
            &["context"],
            &["backup_jobs"],
            &["controllers"],
            &["operator"],
            &["cli"],
        ],
    );
}
