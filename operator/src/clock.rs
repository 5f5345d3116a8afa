//! Ages by a clock that can be set.

use jiff::{SignedDuration, Timestamp};

/// Whether something is younger than `span`. What seems to be of the future is not: the clock was set back since.
pub(crate) fn is_recent(at: Timestamp, now: Timestamp, span: SignedDuration) -> bool {
    let age = now.duration_since(at);
    !age.is_negative() && age < span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_of_the_future_is_not_recent() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ages = [(1000, true), (1029, true), (1030, false), (999, false), (0, false)];
        for (now, recent) in ages {
            assert_eq!(is_recent(at(1000), at(now), SignedDuration::from_secs(30)), recent, "{now}");
        }
    }
}
