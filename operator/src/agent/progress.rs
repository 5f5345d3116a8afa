//! Progress of a long step as log lines, at most one every ten seconds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgrail_dump::Progress;

const PAUSE: Duration = Duration::from_secs(10);

/// Lets one line pass every ten seconds.
pub(super) struct Throttle(Mutex<Instant>);

impl Throttle {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub(super) fn passes(&self) -> bool {
        // With a poisoned lock only a line is lost.
        let Ok(mut last) = self.0.lock() else { return false };
        if last.elapsed() < PAUSE {
            return false;
        }
        *last = Instant::now();
        true
    }
}

pub(super) struct ProgressLog(Throttle);

impl ProgressLog {
    pub(super) fn new() -> Self {
        Self(Throttle::new())
    }

    pub(super) fn record(&self, progress: Progress) {
        if let Progress::Started { tables, database_bytes } = progress {
            tracing::info!(tables, database = %size(database_bytes), "checked database and store, dumping");
            return;
        }
        if !self.0.passes() {
            return;
        }
        match progress {
            Progress::Started { .. } => {}
            Progress::Written { bytes } => tracing::info!(written = %size(bytes), "dumping"),
            Progress::Counted { tables, of } => tracing::info!("counted the rows of {tables} of {of} tables"),
            Progress::ReadBack { bytes, of } => tracing::info!("read back {} of {}", size(bytes), size(of)),
        }
    }
}

pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0.0 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(16 * 1024 * 1024), "16.0 MiB");
        assert_eq!(size(1 << 63), "8192.0 PiB");
    }
}
