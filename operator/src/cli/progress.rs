//! How far a long step is: a line on standard error, where that is a terminal.

use super::output;
use crate::mutex::locked;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use pgrail_dump::Progress;
use pgrail_restore::RestoreProgress;
use std::sync::Mutex;
use std::time::Duration;

/// How often the line moves while nothing is known.
const TICK: Duration = Duration::from_millis(120);

/// The line. It disappears when this is dropped; what the steps found stays on the screen.
pub(super) struct ProgressLine {
    bar: ProgressBar,
    shown: Mutex<Measure>,
}

/// How far a dump is.
#[derive(Default)]
struct Dumped {
    bytes: u64,
    /// Tables whose rows were counted.
    counted: usize,
    of: usize,
}

/// What the length of a step is measured in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Its end is not known.
    None,
    /// Bytes of a known number.
    Bytes,
    /// Tables, or backups.
    Items,
}

impl Measure {
    fn template(self) -> &'static str {
        match self {
            Self::None => "{spinner} {msg} ({elapsed})",
            Self::Bytes => "{msg} {wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left",
            Self::Items => "{msg} {wide_bar} {pos} of {len}",
        }
    }

    fn style(self) -> ProgressStyle {
        // One that is not valid loses its form, and is found by the test.
        ProgressStyle::with_template(self.template()).unwrap_or_else(|_| ProgressStyle::default_bar())
    }
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner().with_style(Measure::None.style());
        bar.enable_steady_tick(TICK);
        Self { bar, shown: Mutex::new(Measure::None) }
    }

    /// A step whose end is not known.
    pub(super) fn step(&self, what: impl Into<String>) {
        self.show(Measure::None, what.into());
    }

    /// A step that passes `of` bytes.
    pub(super) fn bytes(&self, what: &str, bytes: u64, of: u64) {
        self.measure(Measure::Bytes, what, bytes, of);
    }

    /// A step that has `of` parts.
    pub(super) fn items(&self, what: &str, items: usize, of: usize) {
        self.measure(Measure::Items, what, items as u64, of as u64);
    }

    /// What must be said in any case.
    pub(super) fn notice(&self, text: &str) {
        self.bar.suspend(|| eprintln!("pgrail: {text}"));
    }

    /// What a step found.
    pub(super) fn found(&self, text: &str) {
        self.bar.println(format!("pgrail: {text}"));
    }

    /// The steps of a restore or a drill.
    pub(super) fn of_restore(self) -> impl Fn(RestoreProgress) + Send + Sync {
        move |progress| match progress {
            RestoreProgress::Reading { table, bytes } => self.step(format!("reading {table}: {bytes} bytes")),
            RestoreProgress::Selected { rows } => self.found(&format!("{} rows selected", output::thousands(rows))),
            RestoreProgress::Inserted { table, rows } => {
                self.found(&format!("{} rows inserted into {table}", output::thousands(rows)));
            }
            RestoreProgress::Loading { bytes, of } => self.bytes("restoring", bytes, of),
            RestoreProgress::Counted { tables, of } => self.items("counting the rows of tables", tables, of),
        }
    }

    /// The steps of a dump and its verification.
    pub(super) fn of_backup(&self) -> impl Fn(Progress) + Send + Sync {
        // Rows are counted while the archive is written.
        let dumped = Mutex::new(Dumped::default());
        move |progress| match progress {
            Progress::Started { tables, database_bytes } => {
                locked(&dumped).of = tables;
                self.step(format!("dumping {tables} tables of a database of {}", HumanBytes(database_bytes)));
            }
            Progress::Written { bytes } => self.dumping(&dumped, |dumped| dumped.bytes = bytes),
            Progress::Counted { tables, of } => {
                self.dumping(&dumped, |dumped| (dumped.counted, dumped.of) = (tables, of));
            }
            Progress::ReadBack { bytes, of } => self.bytes("reading back", bytes, of),
        }
    }

    fn dumping(&self, dumped: &Mutex<Dumped>, change: impl FnOnce(&mut Dumped)) {
        let mut dumped = locked(dumped);
        change(&mut dumped);
        let Dumped { bytes, counted, of } = *dumped;
        self.step(format!("dumping: {} written, {counted} of {of} tables counted", HumanBytes(bytes)));
    }

    fn measure(&self, measure: Measure, what: &str, position: u64, length: u64) {
        self.show(measure, what.to_owned());
        self.bar.set_length(length);
        self.bar.set_position(position);
    }

    fn show(&self, measure: Measure, what: String) {
        let mut shown = locked(&self.shown);
        if *shown != measure {
            *shown = measure;
            self.bar.reset();
            self.bar.set_style(measure.style());
        }
        self.bar.set_message(what);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Measure;
    use indicatif::ProgressStyle;

    #[test]
    fn the_templates_are_valid() {
        for measure in [Measure::None, Measure::Bytes, Measure::Items] {
            ProgressStyle::with_template(measure.template()).unwrap();
        }
    }
}
