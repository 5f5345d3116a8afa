//! The modules of the engine import only from floors below, and in no circle.
#![allow(missing_docs)]

use std::path::Path;

#[test]
fn imports_go_one_way() {
    pgrail_testing::floors::check(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &[
            &["catalog", "deferred", "sql", "spec"],
            &["closure", "configuration", "capabilities", "grants", "gate"],
            &[
                "blast_radius",
                "database_protection",
                "desired",
                "observe",
                "outcome",
                "plan",
                "window",
                "window_checks",
            ],
            &["capture", "counters", "graph", "light_check", "matching", "rehearse", "tamper", "undo"],
            &["routines"],
            &["complete", "drop_protection", "steps"],
            &["status"],
            &["planner"],
            &["apply", "exemption"],
            &["ensure"],
            &["installed"],
        ],
    );
}
