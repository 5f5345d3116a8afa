//! How a step ends: termination message, log line, exit status.

use std::path::Path;
use std::process::ExitCode;

use pgrail_dump::{DrillOutcome, DrillResult, Failure, Message, Phase, Reason};

use super::config::EXIT_NOT_RETRYABLE;

/// A step that failed before the engine was called.
pub(super) fn failed(phase: Phase, reason: Reason, error: &(dyn std::error::Error + 'static)) -> Message {
    Message::Failed(Failure::new(phase, reason, error, &[]))
}

/// Writes the outcome as the termination message, which the operator reads, and to the log.
pub(super) async fn finish(message: Message, termination_log: &Path) -> ExitCode {
    let text = message.to_json();
    if let Err(error) = tokio::fs::write(termination_log, &text).await {
        tracing::warn!(file = %termination_log.display(), %error, "cannot write the termination message");
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
            // A retry helps only if the store failed.
            let retryable = report.refused.iter().any(|refused| refused.reason.retryable());
            ExitCode::from(if retryable { 1 } else { EXIT_NOT_RETRYABLE })
        }
        // Trying again would find the same.
        Message::Drill(DrillResult { outcome: DrillOutcome::Failed | DrillOutcome::NotRun, message, .. }) => {
            tracing::error!("the drill did not succeed: {message}");
            ExitCode::from(EXIT_NOT_RETRYABLE)
        }
        Message::Dump(_)
        | Message::Verify(_)
        | Message::Drill(_)
        | Message::Inventory(_)
        | Message::Prune(_)
        | Message::Restore(_) => {
            tracing::info!("{text}");
            ExitCode::SUCCESS
        }
    }
}
