//! Throwaway databases on the test servers.
//!
//! The servers are started by `e2e/postgres/servers.sh`, which hands over their addresses in environment variables.
//! A test takes a database of its own from one of them and lets it go at its end:
//!
//! ```no_run
//! # async fn test() {
//! pgrail_testing::for_each_server(async |server| {
//!     let database = server.database("closure").await;
//!     let client = database.connect().await;
//!     client.batch_execute("CREATE TABLE users (id int)").await.unwrap();
//!     database.finish().await;
//! })
//! .await;
//! # }
//! ```
//!
//! Everything here panics with a remedy where a test could only fail; no message shows a password.
#![allow(clippy::panic, clippy::expect_used, clippy::missing_panics_doc, reason = "only tests use this crate")]

mod database;
mod documented;
mod environment;
pub mod floors;
mod own_server;
mod port;
mod proxy;
mod sidecar;
mod small_disk;

pub use database::{Client, Database, connect};
pub use documented::{documented, no_other_rows};
pub use environment::{
    Pooler, Server, authority_file, client_programs, other_authority_file, plain_server, pooler, programs, server,
    servers,
};
pub use own_server::{OwnServer, as_server_user, reachable_programs};
pub use port::free_port;
pub use proxy::{Fault, Proxy, Request};
pub use sidecar::Sidecar;
pub use small_disk::SmallDisk;

/// Runs a test against every test server, one after the other, and says which one it failed on.
pub async fn for_each_server(test: impl AsyncFn(Server)) {
    for server in servers() {
        let named = OnFailure(server.major);
        test(server).await;
        std::mem::forget(named);
    }
}

/// Says on the way out of a failing test which server it was.
struct OnFailure(u32);

impl Drop for OnFailure {
    fn drop(&mut self) {
        eprintln!("failed on PostgreSQL {}", self.0);
    }
}
