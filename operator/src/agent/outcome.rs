//! How a step ends: termination message, log line, exit status.

use std::path::Path;
use std::process::ExitCode;

use pgrail_dump::{Failure, Message, Phase, Reason};

use super::config::EXIT_NOT_RETRYABLE;

/// A step that could not even begin.
pub(super) fn unfit(phase: Phase, reason: Reason, error: &(dyn std::error::Error + 'static)) -> Message {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        next = cause.source();
        let cause = cause.to_string();
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    Message::Failed(Failure {
        phase,
        reason,
        message: message.chars().take(1500).collect(),
        retryable: reason.retryable(),
    })
}

/// Ready when the pod is told to stop: what was begun is taken back within the grace period.
pub(super) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received: the step ends only by itself");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Leaves the outcome where the operator looks for it, and says it in the log as well.
pub(super) async fn finish(message: Message, termination_log: &Path) -> ExitCode {
    let text = message.to_json();
    if let Err(error) = tokio::fs::write(termination_log, &text).await {
        tracing::warn!(file = %termination_log.display(), %error, "the outcome cannot be left as termination message");
    }
    match message {
        Message::Failed(failure) => {
            tracing::error!(reason = %failure.reason, retryable = failure.retryable, "{}", failure.message);
            ExitCode::from(if failure.retryable { 1 } else { EXIT_NOT_RETRYABLE })
        }
        Message::Prune(report) if !report.is_complete() => {
            for refused in &report.refused {
                tracing::error!(location = %refused.location, reason = %refused.reason, "not removed: {}", refused.message);
            }
            // Trying again can help only against a store that failed.
            let retryable = report.refused.iter().any(|refused| refused.reason.retryable());
            ExitCode::from(if retryable { 1 } else { EXIT_NOT_RETRYABLE })
        }
        Message::Dump(_) | Message::Verify(_) | Message::Prune(_) => {
            tracing::info!("{text}");
            ExitCode::SUCCESS
        }
    }
}
