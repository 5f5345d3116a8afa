//! Ports for servers of one test's own.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port of the loopback address that nobody uses now, and that nobody else takes in the meantime: below the ports of the tests'
/// clusters and servers (`e2e/process/lib.sh`), and far below those that the kernel gives to connections.
pub fn free_port() -> u16 {
    const FIRST: u16 = 11_000;
    const COUNT: u16 = 9_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at different ports.
    let begin = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below the count");
    (0..COUNT)
        .map(|_| FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port")
}
