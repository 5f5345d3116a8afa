//! The backup engine: dump, verify, restore, prune, and the catalog of the store.
