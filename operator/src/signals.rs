//! The signals that end a process.

use tokio::signal::unix::{SignalKind, signal};

/// Ready when SIGTERM or SIGINT arrives.
pub(crate) async fn stop_requested() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("cannot receive signals: the process cannot end in an orderly way");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
