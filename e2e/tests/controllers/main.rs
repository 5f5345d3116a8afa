//! The controllers on a real apiserver and real PostgreSQL servers. `make test-controllers` runs these.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod backups;
mod bad_input;
mod clock;
mod connections;
mod crds;
mod databases;
mod drills;
mod encryption;
mod exemptions;
mod fixture;
mod gitops;
mod guard_faults;
mod guards;
mod kubectl;
mod lost_cluster;
mod page;
mod policies;
mod quiet;
mod restores;
mod shrinks;
