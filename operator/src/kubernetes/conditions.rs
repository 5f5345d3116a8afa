//! Conditions: computed whole by one reconcile, with times kept where nothing changed.

use super::text::truncated;
use jiff::Timestamp;
use pgrail_crds::conditions::{READY, STALLED};
use pgrail_crds::{Condition, Time};

/// The longest message that is written, in bytes.
const LONGEST_MESSAGE: usize = 1024;

/// The three states of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody could tell.
    Unknown,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// The conditions that one reconcile computes for one object.
#[derive(Debug)]
pub(crate) struct Conditions {
    previous: Vec<Condition>,
    next: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    /// Starts from what the object has; whatever is not set anew is dropped.
    pub(crate) fn new(previous: &[Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { previous: previous.to_vec(), next: Vec::new(), generation, now }
    }

    /// Sets a condition. Its transition time moves only when its status does.
    pub(crate) fn set(
        &mut self,
        kind: &str,
        status: Status,
        reason: impl AsRef<str>,
        message: impl Into<String>,
    ) -> &mut Self {
        let status = status.as_str().to_owned();
        let since = self
            .previous
            .iter()
            .find(|old| old.type_ == kind && old.status == status)
            .map_or(Time(whole_seconds(self.now)), |old| old.last_transition_time.clone());
        self.next.retain(|condition| condition.type_ != kind);
        self.next.push(Condition {
            type_: kind.to_owned(),
            status,
            reason: reason.as_ref().to_owned(),
            message: truncated(&message.into(), LONGEST_MESSAGE),
            observed_generation: self.generation,
            last_transition_time: since,
        });
        self
    }

    /// The object waits for its user: `Ready=False` and `Stalled=True` with the same words.
    pub(crate) fn stalled(&mut self, reason: impl AsRef<str>, message: impl Into<String>) -> &mut Self {
        let message = message.into();
        self.set(READY, Status::False, &reason, message.clone());
        self.set(STALLED, Status::True, reason, message)
    }

    /// Keeps a condition as it was: what it says could not be looked at this time.
    pub(crate) fn keep(&mut self, kind: &str) -> &mut Self {
        if let Some(old) = self.previous.iter().find(|old| old.type_ == kind) {
            self.next.retain(|condition| condition.type_ != kind);
            self.next.push(old.clone());
        }
        self
    }

    /// Whether a condition was set to `True`.
    pub(crate) fn holds(&self, kind: &str) -> bool {
        self.next.iter().any(|condition| condition.type_ == kind && condition.status == "True")
    }

    /// All that were set, in the order they were set.
    pub(crate) fn finish(self) -> Vec<Condition> {
        self.next
    }
}

/// Kubernetes keeps times to the second: anything finer would look like a change each time.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_time_moves_only_when_the_status_does() {
        let mut first = Conditions::new(&[], Some(1), at(100));
        first.set(READY, Status::False, "A", "a");
        let first = first.finish();
        let mut second = Conditions::new(&first, Some(2), at(200));
        second.set(READY, Status::False, "B", "b");
        let second = second.finish();
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("B", Some(2)));
        assert_eq!(second[0].last_transition_time.0, at(100));
        let mut third = Conditions::new(&second, Some(2), at(300));
        third.set(READY, Status::True, "C", "");
        assert_eq!(third.finish()[0].last_transition_time.0, at(300));
    }

    #[test]
    fn stalled_goes_when_it_is_not_set_again() {
        let mut first = Conditions::new(&[], Some(1), at(100));
        first.stalled("A", "mend it");
        let first = first.finish();
        assert_eq!(first.len(), 2);
        let mut second = Conditions::new(&first, Some(1), at(200));
        second.set(READY, Status::True, "B", "");
        assert_eq!(second.finish().len(), 1);
    }
}
