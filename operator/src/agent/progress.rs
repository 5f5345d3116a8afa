//! Progress of a long step as log lines, at most one every ten seconds.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgrail_dump::Progress;

const PAUSE: Duration = Duration::from_secs(10);

pub(super) struct ProgressLog {
    last: Mutex<Instant>,
}

impl ProgressLog {
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }

    pub(super) fn record(&self, progress: Progress) {
        if let Progress::Started { tables, database_bytes } = progress {
            tracing::info!(tables, database = %size(database_bytes), "checked database and store, dumping");
            return;
        }
        // With a poisoned lock only a line is lost.
        let Ok(mut last) = self.last.lock() else { return };
        if last.elapsed() < PAUSE {
            return;
        }
        *last = Instant::now();
        match progress {
            Progress::Started { .. } => {}
            Progress::Written { bytes } => tracing::info!(written = %size(bytes), "dumping"),
            Progress::Counted { tables, of } => tracing::info!("counted the rows of {tables} of {of} tables"),
            Progress::ReadBack { bytes, of } => tracing::info!("read back {} of {}", size(bytes), size(of)),
        }
    }
}

fn size(bytes: u64) -> String {
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
