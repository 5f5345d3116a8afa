//! When a schedule fires: cron expressions as Kubernetes reads them, with `H` resolved first. Pure.
//!
//! The CronJob controller decides when a Job is made; what is computed here must agree. So expressions are
//! narrowed to what it understands (no `L`, `W`, `#`), and daylight saving is treated as it does: a time that a day does
//! not have is skipped, one that a day has twice fires twice.

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Weekday};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// How many years ahead fires are searched: 29 February comes within eight years.
const YEARS_AHEAD: i16 = 9;
/// The number of fires whose gaps are compared.
const FIRES: usize = 50;

/// An expression or a time zone that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScheduleError {
    /// Not five fields.
    #[error(
        "{0:?} has {1} fields: write five (minute, hour, day of month, month, day of week), such as \"15 2 * * *\""
    )]
    Fields(String, usize),
    /// A field that Kubernetes' CronJobs do not understand.
    #[error("{field} {text:?} cannot be read: {problem}")]
    Field { field: &'static str, text: String, problem: String },
    /// The expression as a whole.
    #[error("{expression:?} cannot be read: {problem}")]
    Expression { expression: String, problem: String },
    /// 30 February.
    #[error("{0:?} never fires: no such day comes")]
    Never(String),
    /// Not in the time zone database.
    #[error("there is no time zone {0:?}: write a name of the IANA database, such as Europe/Berlin or UTC")]
    TimeZone(String),
}

const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A schedule that fires.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    expression: String,
    cron: Cron,
    time_zone: TimeZone,
    time_zone_name: String,
}

impl Schedule {
    /// Reads an expression and a time zone. `seed` names the object that `H` is hashed from; fires are searched from `now`.
    pub(crate) fn parse(expression: &str, time_zone: &str, seed: &str, now: Timestamp) -> Result<Self, ScheduleError> {
        let zone = TimeZone::get(time_zone).map_err(|_| ScheduleError::TimeZone(time_zone.to_owned()))?;
        // The apiserver is strict about the spelling.
        let time_zone_name = zone.iana_name().unwrap_or(time_zone).to_owned();
        let expression = resolve(expression, seed)?;
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .sloppy_ranges(true)
            .build()
            .parse(&expression)
            .map_err(|error| ScheduleError::Expression {
                expression: expression.clone(),
                problem: error.to_string(),
            })?;
        let schedule = Self { expression, cron, time_zone: zone, time_zone_name };
        if schedule.next(now).is_none() {
            return Err(ScheduleError::Never(schedule.expression));
        }
        Ok(schedule)
    }

    /// The expression without `H`, as a CronJob takes it.
    pub(crate) fn expression(&self) -> &str {
        &self.expression
    }

    /// The time zone's name as the database spells it.
    pub(crate) fn time_zone_name(&self) -> &str {
        &self.time_zone_name
    }

    /// The time zone, which retention's days are of too.
    pub(crate) fn time_zone(&self) -> &TimeZone {
        &self.time_zone
    }

    /// The first fire after a moment.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let pattern = &self.cron.pattern;
        let after = after.to_zoned(self.time_zone.clone());
        let last_year = after.year().checked_add(YEARS_AHEAD)?;
        let mut time = start_of_minute(&after)?.checked_add(1.minute()).ok()?;
        while time.year() <= last_year {
            if !pattern.month_match(u32::try_from(time.month()).ok()?).ok()? {
                time = start_of_day(time.date().first_of_month().checked_add(1.month()).ok()?, &time)?;
            } else if !self.day_matches(time.date())? {
                time = start_of_day(time.date().tomorrow().ok()?, &time)?;
            } else if !pattern.hour_match(u32::try_from(time.hour()).ok()?).ok()? {
                let into_the_hour = i64::from(time.minute());
                time = time.checked_add((60 - into_the_hour).minutes()).ok()?;
            } else if pattern.minute_match(u32::try_from(time.minute()).ok()?).ok()? {
                return Some(time.timestamp());
            } else {
                time = time.checked_add(1.minute()).ok()?;
            }
        }
        None
    }

    /// The last fire at or before a moment. `interval` is the largest gap between two fires.
    pub(crate) fn last(&self, until: Timestamp, interval: SignedDuration) -> Option<Timestamp> {
        let start = until.checked_sub(interval).ok()?.checked_sub(SignedDuration::from_secs(1)).ok()?;
        std::iter::successors(self.next(start), |fire| self.next(*fire)).take_while(|fire| *fire <= until).last()
    }

    /// The largest gap between the next 50 fires: the largest gap between two backups without failures.
    pub(crate) fn largest_gap(&self, now: Timestamp) -> SignedDuration {
        let mut fires = std::iter::successors(self.next(now), |fire| self.next(*fire)).take(FIRES);
        let Some(mut last) = fires.next() else { return SignedDuration::ZERO };
        let mut largest = SignedDuration::ZERO;
        for fire in fires {
            largest = largest.max(fire.duration_since(last));
            last = fire;
        }
        largest
    }

    fn day_matches(&self, date: Date) -> Option<bool> {
        let weekday = Weekday::from_days_from_sunday(u32::try_from(date.weekday().to_sunday_zero_offset()).ok()?);
        let (month, day) = (u32::try_from(date.month()).ok()?, u32::try_from(date.day()).ok()?);
        self.cron.pattern.day_match(i32::from(date.year()), month, day, weekday).ok()
    }
}

fn start_of_minute(time: &Zoned) -> Option<Zoned> {
    time.with().second(0).subsec_nanosecond(0).build().ok()
}

fn start_of_day(date: Date, like: &Zoned) -> Option<Zoned> {
    date.to_zoned(like.time_zone().clone()).ok()
}

/// Puts numbers in place of `H` and refuses what a CronJob would not understand.
fn resolve(expression: &str, seed: &str) -> Result<String, ScheduleError> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    if fields.len() != FIELDS.len() || expression.starts_with('@') {
        return Err(ScheduleError::Fields(expression.to_owned(), fields.len()));
    }
    let resolved: Result<Vec<_>, _> =
        fields.iter().enumerate().map(|(position, text)| field(position, text, seed)).collect();
    Ok(resolved?.join(" "))
}

fn field(position: usize, text: &str, seed: &str) -> Result<String, ScheduleError> {
    let name = FIELDS[position];
    let refuse =
        |problem: &str| ScheduleError::Field { field: name, text: text.to_owned(), problem: problem.to_owned() };
    if let Some(step) = text.strip_prefix('H') {
        let highest = match position {
            0 => 59,
            1 => 23,
            _ => return Err(refuse("H stands for a minute or an hour only")),
        };
        return hashed(step, highest, hash(name, seed)).ok_or_else(|| refuse("write H, or H/15 with a step"));
    }
    let mut words = text.split(['*', ',', '-', '/', '?']).filter(|word| !word.is_empty());
    let known = |word: &str| {
        let upper = word.to_ascii_uppercase();
        word.bytes().all(|byte| byte.is_ascii_digit())
            || position == 3 && MONTHS.contains(&upper.as_str())
            || position == 4 && DAYS.contains(&upper.as_str())
    };
    if let Some(word) = words.find(|word| !known(word)) {
        return Err(refuse(&format!("{word:?} is not something that a CronJob of Kubernetes understands")));
    }
    if text.split(',').any(|item| item.is_empty() || item.starts_with(['/', '-']) || item.ends_with(['/', '-'])) {
        return Err(refuse("something is missing beside a comma, a slash or a dash"));
    }
    let steps = |item: &str| item.split_once('/').map_or_else(|| item.to_owned(), |(range, _)| range.to_owned());
    if position == 4 && text.split(',').map(steps).any(|range| range.split('-').any(|bound| bound == "7")) {
        return Err(refuse("7 is not a day for Kubernetes: write 0 for Sunday"));
    }
    Ok(text.to_owned())
}

/// `H` or `H/step` as what a CronJob understands.
fn hashed(step: &str, highest: u64, hash: u64) -> Option<String> {
    if step.is_empty() {
        return Some((hash % (highest + 1)).to_string());
    }
    let step: u64 = step.strip_prefix('/')?.parse().ok().filter(|step| (1..=highest).contains(step))?;
    Some(format!("{}-{highest}/{step}", hash % step))
}

/// FNV-1a, then the mixing step of SplitMix64 without which names that differ in their last letter get neighbouring
/// minutes. The same for every version of everything, unlike the standard library's.
fn hash(field: &str, seed: &str) -> u64 {
    let text = format!("{field}/{seed}");
    let mut hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(expression: &str, time_zone: &str) -> Schedule {
        Schedule::parse(expression, time_zone, "shop/shop", at("2026-01-01T00:00:00Z")).unwrap()
    }

    fn fires(expression: &str, time_zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = schedule(expression, time_zone);
        std::iter::successors(schedule.next(at(after)), |fire| schedule.next(*fire))
            .take(count)
            .map(|fire| fire.to_string())
            .collect()
    }

    #[test]
    fn fires_are_after_the_moment_and_to_the_minute() {
        assert_eq!(fires("15 2 * * *", "UTC", "2026-11-23T02:15:00Z", 1), ["2026-11-24T02:15:00Z"]);
        assert_eq!(fires("15 2 * * *", "UTC", "2026-11-23T02:14:59.5Z", 1), ["2026-11-23T02:15:00Z"]);
        assert_eq!(
            fires("*/20 9-10 * * mon-fri", "UTC", "2026-11-20T10:30:00Z", 3),
            ["2026-11-20T10:40:00Z", "2026-11-23T09:00:00Z", "2026-11-23T09:20:00Z"]
        );
        assert_eq!(fires("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
        assert_eq!(
            fires("0/30 1 * * *", "UTC", "2026-01-01T00:00:00Z", 2),
            ["2026-01-01T01:00:00Z", "2026-01-01T01:30:00Z"]
        );
    }

    #[test]
    fn day_of_month_or_day_of_week_as_cron_has_it() {
        assert_eq!(
            fires("0 0 13 * 5", "UTC", "2026-11-01T00:00:00Z", 4),
            ["2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z", "2026-11-27T00:00:00Z"]
        );
    }

    #[test]
    fn a_time_that_a_day_lacks_is_skipped_and_one_it_has_twice_fires_twice() {
        assert_eq!(
            fires("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
        );
        assert_eq!(
            fires("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // No midnight on this day.
        assert_eq!(fires("0 12 * * *", "America/Santiago", "2026-09-05T20:00:00Z", 1), ["2026-09-06T15:00:00Z"]);
        // Half an hour off the hour.
        assert_eq!(fires("0 6 * * *", "Asia/Kolkata", "2026-09-05T20:00:00Z", 1), ["2026-09-06T00:30:00Z"]);
    }

    #[test]
    fn gaps() {
        let now = at("2026-11-23T00:00:00Z");
        let hours = |expression: &str, zone: &str| schedule(expression, zone).largest_gap(now).as_hours();
        assert_eq!(hours("15 2 * * *", "UTC"), 24);
        assert_eq!(hours("0 3 * * 1-5", "UTC"), 72);
        assert_eq!(hours("0 * * * *", "UTC"), 1);
        assert_eq!(hours("0 0 1 * *", "UTC"), 31 * 24);
        // The day without half past two.
        let now = at("2026-03-01T00:00:00Z");
        assert_eq!(schedule("30 2 * * *", "Europe/Berlin").largest_gap(now).as_hours(), 47);
    }

    #[test]
    fn the_last_fire() {
        let schedule = schedule("15 2 * * *", "UTC");
        let last = |until: &str| schedule.last(at(until), SignedDuration::from_hours(24)).unwrap();
        assert_eq!(last("2026-11-23T12:00:00Z"), at("2026-11-23T02:15:00Z"));
        assert_eq!(last("2026-11-23T02:15:00Z"), at("2026-11-23T02:15:00Z"));
        assert_eq!(last("2026-11-23T02:14:59Z"), at("2026-11-22T02:15:00Z"));
    }

    #[test]
    fn hashed_fields_are_stable_and_spread() {
        let expression = |text: &str, seed: &str| {
            Schedule::parse(text, "UTC", seed, at("2026-01-01T00:00:00Z")).unwrap().expression().to_owned()
        };
        assert_eq!(expression("H H * * *", "shop/shop"), expression("H H * * *", "shop/shop"));
        assert_eq!(expression("5 4 * * *", "shop/shop"), "5 4 * * *");
        let stepped = expression("H/15 2 * * *", "shop/shop");
        let offset: u64 = stepped.split('-').next().unwrap().parse().unwrap();
        assert!(offset < 15 && stepped.ends_with("-59/15 2 * * *"), "{stepped}");
        let spread: std::collections::HashSet<_> =
            (0..100).map(|it| expression("H H * * *", &format!("shop/s{it}"))).collect();
        assert!(spread.len() > 80, "{}", spread.len());
        let minutes: std::collections::HashSet<_> =
            (0..600).map(|it| expression("H 1 * * *", &format!("shop/s{it}"))).collect();
        assert_eq!(minutes.len(), 60);
    }

    #[test]
    fn what_a_cron_job_would_not_understand_is_refused() {
        let refused =
            |text: &str| Schedule::parse(text, "UTC", "a/b", at("2026-01-01T00:00:00Z")).unwrap_err().to_string();
        for (text, expected) in [
            ("not a cron", "3 fields"),
            ("@daily", "1 fields"),
            ("0 15 2 * * *", "6 fields"),
            ("61 2 * * *", "cannot be read"),
            ("0 24 * * *", "cannot be read"),
            ("0 2 L * *", "understands"),
            ("0 2 15W * *", "understands"),
            ("0 2 * * 1#2", "understands"),
            ("0 2 * * 7", "write 0 for Sunday"),
            ("0 2 H * *", "minute or an hour only"),
            ("H/70 2 * * *", "H/15"),
            ("HH 2 * * *", "H/15"),
            ("/10 2 * * *", "missing"),
            ("0 2,, * * *", "missing"),
            ("0 22-2 * * *", "cannot be read"),
            ("0 0 30 2 *", "never fires"),
            ("a b c d e", "understands"),
        ] {
            let error = refused(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        let zone = Schedule::parse("0 2 * * *", "Europe/Atlantis", "a/b", at("2026-01-01T00:00:00Z")).unwrap_err();
        assert!(matches!(zone, ScheduleError::TimeZone(_)));
    }
}
