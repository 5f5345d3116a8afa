//! The one binary of pgrail.

fn main() {}
