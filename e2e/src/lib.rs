//! What the tests on a real Kubernetes share: a namespace and an operator of their own each, and waiting for conditions
//! instead of sleeping.
//!
//! `PGRAIL_TEST_KUBECONFIG` names the cluster (`e2e/cluster/up.sh` makes one) and `PGRAIL_BIN` the binary (default: the
//! one that cargo built beside the test). `make test` sets both.
#![allow(clippy::expect_used, clippy::panic, clippy::missing_panics_doc, reason = "helpers of tests fail by panicking")]

mod cluster;
mod manifests;
mod operator;
mod pods;
mod wait;

pub use cluster::{Cluster, TestNamespace};
pub use manifests::{backup_schedule, connection_secret, daily_schedule, protected_database, table_guard};
pub use operator::{Clock, Operator, binary};
pub use pods::{Node, ObjectStore, STORE_ENDPOINT};
pub use wait::{condition, eventually, eventually_within, field, holds, wait_for};
