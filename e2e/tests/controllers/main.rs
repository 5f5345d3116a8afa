//! The controllers on a real apiserver and real PostgreSQL servers. `make test-controllers` runs these.
#![allow(missing_docs)]

mod bad_input;
mod crds;
mod databases;
mod fixture;
mod guards;
mod quiet;
