//! What keys say: to which day and moment the records of an object belong.
//!
//! ```text
//! AWSLogs/ACCOUNT/vpcflowlogs/REGION/2026/01/31/[HH/]ACCOUNT_vpcflowlogs_REGION_fl-ID_20260131T2355Z_HASH.log.gz
//! AWSLogs/aws-account-id=ACCOUNT/aws-service=vpcflowlogs/aws-region=REGION/year=2026/month=01/day=31/…
//! └──────────────────────── partition ───────────────────────────────────┘
//! ```
//!
//! The name's moment is only good for an order: records end up to five minutes before or after it.

use jiff::civil::Date;

use crate::units::UnixSeconds;

const SECONDS_PER_DAY: i64 = 86_400;

/// A day of the calendar, in UTC, by its number since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(pub(super) i64);

impl Day {
    /// The day of a moment.
    pub(super) const fn of(moment: UnixSeconds) -> Self {
        Self(moment.0.div_euclid(SECONDS_PER_DAY))
    }

    /// The day as many days later.
    pub(super) const fn plus(self, days: i64) -> Self {
        Self(self.0 + days)
    }

    fn of_date(year: &str, month: &str, day: &str) -> Option<Self> {
        let is_date = year.len() == 4 && month.len() == 2 && day.len() == 2;
        let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
        let since_epoch = date.since(Date::constant(1970, 1, 1)).ok()?;
        is_date.then(|| Self(since_epoch.get_days().into()))
    }

    fn date(self) -> Option<Date> {
        let days = jiff::Span::new().try_days(self.0).ok()?;
        Date::constant(1970, 1, 1).checked_add(days).ok()
    }
}

/// How a partition writes its days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DayStyle {
    /// `2026/01/31/`
    Plain,
    /// `year=2026/month=01/day=31/`
    Hive,
}

impl DayStyle {
    /// The style of a folder named so, if it is a year.
    pub(super) fn of_year(folder: &str) -> Option<Self> {
        let is_year =
            |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        match folder.strip_prefix("year=") {
            Some(year) => is_year(year).then_some(Self::Hive),
            None => is_year(folder).then_some(Self::Plain),
        }
    }

    /// The folders of a day, with a `/` at the end.
    pub(super) fn folders(self, day: Day) -> Option<String> {
        let date = day.date()?;
        let (year, month, day) = (date.year(), date.month(), date.day());
        Some(match self {
            Self::Plain => format!("{year:04}/{month:02}/{day:02}/"),
            Self::Hive => format!("year={year:04}/month={month:02}/day={day:02}/"),
        })
    }
}

/// The day in the folders of a key.
pub(super) fn day_of(key: &str) -> Option<Day> {
    let folders: Vec<&str> = key.split('/').collect();
    let (_, folders) = folders.split_last()?;
    let bare = |folder: &'_ str, name: &str| -> String {
        let value = folder.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        value.unwrap_or(folder).to_owned()
    };
    // The last one counts: what users put before it may look like a date too.
    folders.windows(3).rev().find_map(|three| {
        let style = DayStyle::of_year(three[0])?;
        let is_hive = three[1].starts_with("month=") && three[2].starts_with("day=");
        if is_hive != (style == DayStyle::Hive) {
            return None;
        }
        Day::of_date(&bare(three[0], "year"), &bare(three[1], "month"), &bare(three[2], "day"))
    })
}

/// By what objects are read in about the order of their records: the moment in the name, else the day.
pub(super) fn order_of(key: &str) -> (Day, &str) {
    let day = day_of(key).unwrap_or(Day(i64::MIN));
    let name = key.rsplit('/').next().unwrap_or_default();
    let is_moment = |part: &&str| {
        let bytes = part.as_bytes();
        bytes.len() == 14
            && bytes[8] == b'T'
            && bytes[13] == b'Z'
            && bytes[..8].iter().chain(&bytes[9..13]).all(u8::is_ascii_digit)
    };
    (day, name.split('_').find(is_moment).unwrap_or_default())
}

/// Whether an object can hold records that end at or after `since` and before `until`. What has no day may.
pub(super) fn may_hold(key: &str, since: Option<UnixSeconds>, until: Option<UnixSeconds>) -> bool {
    let Some(day) = day_of(key) else { return true };
    // A day more on both sides: late delivery, and five minutes either way around midnight.
    since.is_none_or(|since| day >= Day::of(since).plus(-1))
        && until.is_none_or(|until| day <= Day::of(until).plus(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "x/AWSLogs/123456789012/vpcflowlogs/eu-west-1/2026/01/31/123456789012_vpcflowlogs_eu-west-1_fl-0a_20260131T2355Z_ab.log.gz";
    const HIVE: &str = "AWSLogs/aws-account-id=1/aws-service=vpcflowlogs/aws-region=r/year=2026/month=01/day=31/hour=23/f.log.gz";

    fn check(key: &str, expected: Option<i64>) {
        assert_eq!(day_of(key), expected.map(Day), "{key}");
    }

    #[test]
    fn days_are_found_in_both_layouts() {
        check(PLAIN, Some(20_484));
        check(HIVE, Some(20_484));
        check("2025/12/31/AWSLogs/2026/01/31/f", Some(20_484));
        check("a/2026/13/31/f", None);
        check("a/year=2026/01/31/f", None);
        check("2026/01/31", None);
        check("f", None);
    }

    #[test]
    fn days_are_written_as_they_are_found() {
        for (style, key) in [(DayStyle::Plain, PLAIN), (DayStyle::Hive, HIVE)] {
            assert!(key.contains(&style.folders(Day(20_484)).unwrap()));
        }
        assert_eq!(Day::of(UnixSeconds(20_484 * 86_400 + 5)), Day(20_484));
    }

    #[test]
    fn objects_have_an_order() {
        assert_eq!(order_of(PLAIN), (Day(20_484), "20260131T2355Z"));
        assert_eq!(order_of(HIVE), (Day(20_484), ""));
    }

    #[test]
    fn other_days_are_left_out() {
        let moment = |day: i64| Some(UnixSeconds(day * 86_400));
        assert!(may_hold(PLAIN, moment(20_485), None) && !may_hold(PLAIN, moment(20_486), None));
        assert!(may_hold(PLAIN, None, moment(20_483)) && !may_hold(PLAIN, None, moment(20_482)));
        assert!(may_hold("f", moment(0), moment(1)));
    }
}
